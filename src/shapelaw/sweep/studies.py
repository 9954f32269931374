"""Optuna studies that outlast the process: the next trial, and the results so far.

A trial's draw depends only on the sampler's seed, its number and the trials before it, so an interrupted study continues as if
nothing had happened. Each trial carries the hash of its values and of its result; a database that disagrees is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
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

from shapelaw.errors import Damaged, UserError
from shapelaw.secrets import STORAGE_VARIABLE, connectable, hidden
from shapelaw.sweep.spaces import Interval, Space

optuna.logging.set_verbosity(optuna.logging.WARNING)
TARGETS = ("optuna.samplers.*", "optuna.pruners.*", "hydra_plugins.hydra_optuna_sweeper.*")
"""Targets that a sampler's or pruner's configuration may name."""
QUESTION = "question"
"""Attribute of a study: hash of its question."""
REASON = "reason"
"""Attribute of a failed trial."""
NAME = "name"
"""Attribute of a study: a copy of its name."""
ASKED, ENDED = "asked", "ended"
"""Attributes of a trial: hashes of its values, and of its result."""
SEQUENCES = "optuna.samplers.QMCSampler"
"""The sampler whose trials are positions in one sequence, which has one seed."""


@dataclass(frozen=True)
class Ticket:
    """A trial to run: its number in its study, and its values."""

    number: int
    values: Mapping[str, float | str]


@dataclass(frozen=True)
class Summary:
    """The standing of a study.

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
    """Hash of a study's question: of the jobs at its space's probes, and of the space."""
    text = json.dumps([list(identities), space.described()])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Study:
    """One study in its storage, created or continued.

    Args:
        name: its name, unique in the storage.
        asks: hash of its question.
        space: the space that it searches.
        storage: database URL.
        sampler: configuration of one of Optuna's samplers.

    Raises:
        UserError: if the storage cannot be opened, the study there has another question, or the sampler is refused.
        Damaged: if a trial there was changed after it was written.
    """

    def __init__(self, name: str, asks: str, space: Space, storage: str, sampler: Mapping[str, Any]) -> None:
        self.name, self.storage, self.sampler = name, storage, dict(sampler)
        self.distributions = {key: _distribution(axis) for key, axis in space.axes.items()}
        made = make("sampler", self.sampler)
        self.study = _open(name, storage, made)
        if self.study.user_attrs.setdefault(QUESTION, asks) != asks:
            raise UserError(
                f"hydra.sweeper.study_name={name}: the study with that name in {storage} has another question (another "
                "interval, shape or value of the configuration); give another name"
            )
        self.study.set_user_attr(QUESTION, asks)
        self.study.set_user_attr(NAME, name)
        self._trials()

    def started(self) -> list[Ticket]:
        """Unfinished trials of an interrupted search."""
        return [_ticket(trial) for trial in self._trials() if trial.state is TrialState.RUNNING]

    def ask(self) -> Ticket:
        """The next trial."""
        number = len(self._trials())
        seed = self.sampler.get("seed")
        if seed is not None and self.sampler["_target_"] != SEQUENCES:
            self.study.sampler = make("sampler", {**self.sampler, "seed": seed + number})
        trial = self.study.ask(self.distributions)
        ticket = Ticket(trial.number, trial.params)
        trial.set_user_attr(ASKED, _asked(ticket))
        return ticket

    def finished(self, ticket: Ticket, loss: float) -> None:
        """Record that a trial finished with this loss."""
        self._tell(ticket, TrialState.COMPLETE, loss)

    def pruned(self, ticket: Ticket) -> None:
        """Record that a trial was stopped early; its last reported loss counts."""
        self._tell(ticket, TrialState.PRUNED)

    def failed(self, ticket: Ticket, reason: str) -> None:
        """Record that a trial failed."""
        self._note(ticket, REASON, reason)
        self._tell(ticket, TrialState.FAIL)

    def summary(self) -> Summary:
        """The counts of its trials, and the best one."""
        trials = self._trials()
        counts = Counter(trial.state.name.lower() for trial in trials)
        whole = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        if not whole:
            return Summary(counts)
        best = min(whole, key=lambda trial: (trial.value, trial.number))
        return Summary(counts, best.params, best.value, best.number)

    def _tell(self, ticket: Ticket, state: TrialState, loss: float | None = None) -> None:
        """Seal the result of a trial, then end it; a trial that is killed in between starts again."""
        reports = self.study.get_trials(deepcopy=False)[ticket.number].intermediate_values
        if state is TrialState.PRUNED and reports and not math.isnan(last := reports[max(reports)]):
            loss = last  # as in Optuna
        self._note(ticket, ENDED, _ended(ticket, state, loss, reports))
        self.study.tell(ticket.number, loss if state is TrialState.COMPLETE else None, state)

    def _note(self, ticket: Ticket, name: str, value: str) -> None:
        storage = self.study._storage  # with only a trial's number, there is no public way to its attributes
        trial = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, ticket.number)
        storage.set_trial_user_attr(trial, name, value)

    def _trials(self) -> list[FrozenTrial]:
        """All trials, in order.

        Raises:
            Damaged: if one was changed after it was written, or is missing.
        """
        what = "its trials cannot be read"
        try:
            trials = self.study.get_trials(deepcopy=False)
            odd = next((number for number, trial in enumerate(trials) if not _is_whole(number, trial)), None)
            if odd is None:
                return trials
            what = f"trial {odd} is not what was written"
        except Exception as error:  # any error of Optuna or the database
            what = f"{what}: {' '.join(str(error).split())[:120]}"
        raise _damaged(self.storage, self.name, what)


def make(kind: str, configuration: Mapping[str, Any]) -> Any:
    """A sampler or pruner from its configuration.

    Raises:
        UserError: if Optuna refuses it, or it can only search lists.
    """
    target = str(configuration.get("_target_", ""))
    if configuration.get("_partial_"):
        raise UserError(f"hydra/sweeper/{kind}: {target} tries lists of values; give hydra/sweeper=grid for that")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the user chose it by naming it
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
        known = optuna.get_all_study_summaries(whole, include_best_trial=False)
        study = optuna.create_study(study_name=name, storage=whole, sampler=sampler, load_if_exists=True)
    except Exception as error:
        reason = hidden((str(error).splitlines() or [type(error).__name__])[0])
        raise UserError(
            f"hydra.sweeper.storage={storage}: cannot be opened ({reason}); give sqlite:///FILE or another database's URL"
        ) from error
    for one in known:  # a study whose name was changed, in its table or the table's index, would start again
        if one.user_attrs.get(NAME, one.study_name) != one.study_name or (
            one.study_name == name and one._study_id != study._study_id
        ):
            raise _damaged(storage, one.study_name, "its name is not what was written")
    return study


def _damaged(storage: str, name: str, what: str) -> Damaged:
    return Damaged(
        f"hydra.sweeper.storage={hidden(storage)}: the study {name} is damaged ({what}); restore a copy, or give "
        "another database or hydra.sweeper.study_name: finished runs are not trained again"
    )


def _ticket(trial: FrozenTrial) -> Ticket:
    return Ticket(trial.number, trial.params)


def _is_whole(number: int, trial: FrozenTrial) -> bool:
    """Whether a trial agrees with its hashes; a trial without any comes from a version that had none, or from a process that
    was killed before it wrote them."""
    ticket, attributes = _ticket(trial), trial.user_attrs
    if trial.state.is_finished():
        ended = _ended(ticket, trial.state, trial.value, trial.intermediate_values)
        whole = not {ASKED, ENDED} & attributes.keys() or attributes.get(ENDED) == ended
    else:
        asked = _asked(ticket)
        whole = attributes.get(ASKED, asked) == asked
    return trial.number == number and whole


def _asked(ticket: Ticket) -> str:
    return _hash(ticket.number, dict(ticket.values))


def _ended(ticket: Ticket, state: TrialState, value: float | None, reports: Mapping[int, float]) -> str:
    return _hash(ticket.number, dict(ticket.values), state.name, value, sorted(reports.items()))


def _hash(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
