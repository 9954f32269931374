"""Studies of Optuna that outlast the process: what to try next, and what was found.

A trial's draw depends on the sampler's seed, its number and the trials before it alone, so that a study that was interrupted
goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import instantiate
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from shapelaw.errors import UserError
from shapelaw.secrets import STORAGE_VARIABLE, connectable, hidden
from shapelaw.sweep.spaces import Interval, Space

optuna.logging.set_verbosity(optuna.logging.WARNING)
TARGETS = ("optuna.samplers.*", "optuna.pruners.*", "hydra_plugins.hydra_optuna_sweeper.*")
"""What a sampler's or pruner's configuration may name."""
QUESTION = "question"
"""Attribute of a study: hash of what it asks."""
REASON = "reason"
"""Attribute of a failed trial."""
SEQUENCES = "optuna.samplers.QMCSampler"
"""The sampler whose trials are places in one sequence, which has one seed."""


@dataclass(frozen=True)
class Ticket:
    """A trial to be run: its number in its study, and the values that it tries."""

    number: int
    values: Mapping[str, float | str]


@dataclass(frozen=True)
class Summary:
    """How a study stands.

    Args:
        counts: trials by state: complete, pruned, fail, running.
        best: values of the best finished trial, if there is one.
        loss: its loss.
        number: its number.
    """

    counts: Mapping[str, int]
    best: Mapping[str, float | str] | None = None
    loss: float | None = None
    number: int | None = None


def digest(identities: Sequence[str], space: Space) -> str:
    """Hash of what a study asks: of the jobs at its space's probes, and of the space."""
    text = json.dumps([list(identities), space.described()])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Study:
    """One study in its storage, made or taken up again.

    Args:
        name: unique in the storage.
        asks: hash of its question.
        space: what it searches.
        storage: database URL.
        sampler: configuration of one of Optuna's samplers.

    Raises:
        UserError: if the storage cannot be opened, the study there asks something else, or the sampler is refused.
    """

    def __init__(self, name: str, asks: str, space: Space, storage: str, sampler: Mapping[str, Any]) -> None:
        self.name, self.sampler = name, dict(sampler)
        self.distributions = {key: _distribution(axis) for key, axis in space.axes.items()}
        made = make("sampler", self.sampler)
        self.study = _open(name, storage, made)
        if self.study.user_attrs.setdefault(QUESTION, asks) != asks:
            raise UserError(
                f"hydra.sweeper.study_name={name}: the study of that name in {storage} asks something else (another "
                "interval, shape or value of the configuration); give another name"
            )
        self.study.set_user_attr(QUESTION, asks)

    def started(self) -> list[Ticket]:
        """Trials that were begun and not ended: of a search that was interrupted."""
        return [_ticket(trial) for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    def ask(self) -> Ticket:
        """The next trial."""
        number = len(self.study.get_trials(deepcopy=False))
        seed = self.sampler.get("seed")
        if seed is not None and self.sampler["_target_"] != SEQUENCES:
            self.study.sampler = make("sampler", {**self.sampler, "seed": seed + number})
        trial = self.study.ask(self.distributions)
        return Ticket(trial.number, trial.params)

    def finished(self, ticket: Ticket, loss: float) -> None:
        """A trial ran to its end with this loss."""
        self.study.tell(ticket.number, loss)

    def pruned(self, ticket: Ticket) -> None:
        """A trial was stopped early; its last reported loss counts."""
        self.study.tell(ticket.number, state=TrialState.PRUNED)

    def failed(self, ticket: Ticket, reason: str) -> None:
        """A trial failed."""
        storage = self.study._storage  # a trial that is told by its number has no public way to an attribute
        trial = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, ticket.number)
        storage.set_trial_user_attr(trial, REASON, reason)
        self.study.tell(ticket.number, state=TrialState.FAIL)

    def summary(self) -> Summary:
        """Its trials, counted, and the best."""
        trials = self.study.get_trials(deepcopy=False)
        counts = Counter(trial.state.name.lower() for trial in trials)
        whole = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        if not whole:
            return Summary(counts)
        best = min(whole, key=lambda trial: (trial.value, trial.number))
        return Summary(counts, best.params, best.value, best.number)


def make(kind: str, configuration: Mapping[str, Any]) -> Any:
    """A sampler or pruner from its configuration.

    Raises:
        UserError: if Optuna refuses it, or it searches lists only.
    """
    target = str(configuration.get("_target_", ""))
    if configuration.get("_partial_"):
        raise UserError(f"hydra/sweeper/{kind}: {target} tries lists of values; that is what hydra/sweeper=grid does")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # who names it has chosen it
            return instantiate(dict(configuration), _execution_whitelist_=TARGETS)
    except Exception as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise UserError(f"hydra/sweeper/{kind}: {target} refuses its settings: {reason}") from error


def _distribution(axis: Any) -> BaseDistribution:
    if isinstance(axis, Interval):
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    return CategoricalDistribution(axis.values)


def _open(name: str, storage: str, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    try:
        if storage.startswith("sqlite:///"):
            Path(storage.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)
        whole = connectable(storage, STORAGE_VARIABLE)
        return optuna.create_study(study_name=name, storage=whole, sampler=sampler, load_if_exists=True)
    except Exception as error:
        reason = hidden((str(error).splitlines() or [type(error).__name__])[0])
        raise UserError(
            f"hydra.sweeper.storage={storage}: cannot be opened ({reason}); give sqlite:///FILE or another database's URL"
        ) from error


def _ticket(trial: FrozenTrial) -> Ticket:
    return Ticket(trial.number, trial.params)
