"""A run as the trial of a search: it reports its held-out losses by tokens, and hears whether to go on."""

from __future__ import annotations

from shapelaw.config import SearchConfig
from shapelaw.secrets import STORAGE_VARIABLE, connectable


class Trial:
    """A trial in the storage of its study.

    Args:
        search: which study and trial, and the configuration of the pruner.
    """

    def __init__(self, search: SearchConfig) -> None:
        import optuna

        from shapelaw.sweep.studies import make

        assert search.study is not None
        assert search.trial is not None
        # any sampler: nothing is drawn here, and the study's own may be dear to make
        sampler, pruner = optuna.samplers.RandomSampler(), make("pruner", search.pruner)
        storage = connectable(search.storage, STORAGE_VARIABLE)
        study = optuna.load_study(study_name=search.study, storage=storage, sampler=sampler, pruner=pruner)
        number = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, search.trial)
        self.trial = optuna.Trial(study, number)
        self.reported = study.trials[search.trial].intermediate_values.keys()

    def is_hopeless(self, tokens: int, loss: float) -> bool:
        """Report the held-out loss after so many tokens; whether the pruner would stop here."""
        if tokens not in self.reported:  # else by an attempt that was interrupted later
            self.trial.report(loss, tokens)
        return bool(self.trial.should_prune())
