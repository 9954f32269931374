"""The questions that a law answers, those that the given options ask, and the options without effect on it.

A law names its questions (`Law.questions`). `best`, `reach` and `at` are shapelaw's own. A package that ships a law ships its
questions with it, as entry points of the group `shapelaw.questions`; a file that defines a law calls `register`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapelaw.config.option import defaults_of
from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.laws import Law
from shapelaw.laws.base import USUAL_QUESTIONS
from shapelaw.plugins import installed, load
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.goals import LEASTS
from shapelaw.prescribe.price import UNITS
from shapelaw.prescribe.search import SPACES
from shapelaw.prescribe.world import World
from shapelaw.runs.table import RunsTable
from shapelaw.wording import leaves

if TYPE_CHECKING:
    from shapelaw.config import PrescribeConfig

GROUP = "shapelaw.questions"
"""Group of entry points, each a `Question` of an installed package."""
USUAL = {"least": LEASTS[0], "space": SPACES[0], "objective": UNITS[0]}
"""Default values of the options whose schema has no default."""
FREE = ("fit", "studies", "outputs_dir", "data_dir")
"""Options that are allowed with every question."""


@dataclass(frozen=True)
class Basis:
    """The basis of an answer.

    Args:
        fit: a fitted law.
        runs: its runs.
        world: the suite of these runs, with the changes that the options make.
        folder: folder of the fit.
    """

    fit: FitResult
    runs: RunsTable
    world: World
    folder: Path


@dataclass(frozen=True)
class Question:
    """One question that a law can be asked.

    Args:
        name: as `Law.questions` lists it.
        asks: its options and its answer, for people.
        needs: all options that make up the question; several such tuples if there are several ways to ask it.
        takes: further options, and groups of options, that have an effect on it.
        answer: the options and the basis -> the answer.
    """

    name: str
    asks: str
    needs: tuple[tuple[str, ...], ...]
    takes: tuple[str, ...]
    answer: Callable[[PrescribeConfig, Basis], Prescription]

    @property
    def options(self) -> frozenset[str]:
        """Every option, and group of options, that it reads."""
        return frozenset(self.takes).union(*self.needs)

    def made_by(self, options: Set[str]) -> tuple[str, ...]:
        """Those of the options that make it; empty if they do not."""
        return next((needed for needed in self.needs if options >= set(needed)), ())


QUESTIONS: dict[str, Question] = {}
"""Every question that is known, by its name."""


def register(question: Question) -> Question:
    """Register a question by its name; returns it.

    Raises:
        UserError: if another question has that name.
    """
    if QUESTIONS.setdefault(question.name, question) is not question:
        raise UserError(
            f"question {question.name}: a question with this name is registered already; choose another name"
        )
    return question


def known_questions() -> dict[str, Question]:
    """Every registered question, and those of installed packages, by name."""
    for name in installed(GROUP):
        QUESTIONS.setdefault(name, load(GROUP, name))
    return QUESTIONS


def questions_of(law: Law) -> tuple[Question, ...]:
    """The questions that a law answers.

    Raises:
        UserError: if the law names one that neither shapelaw nor an installed package has.
    """
    known = known_questions()
    unknown = [name for name in law.questions if name not in known]
    if unknown:
        raise UserError(
            f"law={law.name}: names the unknown questions {', '.join(unknown)}; known are {', '.join(known)}; register "
            "yours with shapelaw.prescribe.registry.register"
        )
    return tuple(known[name] for name in law.questions)


def question_of(options: PrescribeConfig, law: Law) -> Question:
    """The one question of a law that the options ask.

    Raises:
        UserError: for options that match none or several of its questions, or that have no effect on the matching one.
    """
    questions, texts = questions_of(law), given_options(options)
    foreign = [text for name, text in texts.items() if not any(name in question.options for question in questions)]
    candidates = _most_specific({question: question.made_by(texts.keys()) for question in questions})
    if foreign or len(candidates) != 1:
        raise _unanswerable(law, questions, texts, foreign)
    (question,) = candidates
    beside = ", ".join(f"{name}=NUMBER" for name in question.made_by(texts.keys()))
    refuse_idle([text for name, text in texts.items() if name not in question.options], beside)
    return question


def can_be_asked(law: Law, options: PrescribeConfig) -> bool:
    """Whether the options may be meant for a law: they form one of its questions, or include options that only these read.

    Options that form no question are meant for a law that answers budgets, losses and sizes, as most laws do.
    """
    special = special_options(options)
    if special:
        return any(question.options >= set(special) for question in questions_of(law))
    meant = [question for question in _usual() if question.made_by(given_options(options).keys())] or _usual()
    return any(question.name in law.questions for question in meant)


def special_options(options: PrescribeConfig) -> list[str]:
    """The given options that none of the usual questions reads."""
    return [name for name in given_options(options) if not any(name in question.options for question in _usual())]


def _usual() -> list[Question]:
    return [known_questions()[name] for name in USUAL_QUESTIONS]


def refuse_idle(texts: Sequence[str], beside: str) -> None:
    """Refuse options, as KEY=VALUE, that have no effect beside another.

    Raises:
        UserError: if there are any.
    """
    if texts:
        raise UserError(f"{', '.join(texts)}: has no effect beside {beside}; leave out one or the other")


def given_options(options: PrescribeConfig) -> dict[str, str]:
    """Options, and groups of options, that were given: name -> KEY=VALUE of all of it."""
    usual, values = _by_key(defaults_of(type(options))) | USUAL, _by_key(dataclasses.asdict(options))
    texts: dict[str, str] = {}
    for key, value in values.items():
        name = key.split(".")[0]
        if name not in FREE and value != usual.get(key, {}):
            texts[name] = ", ".join(filter(None, (texts.get(name), f"{key}={value}")))
    return texts


def _by_key(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names on the command line: a group's choice by the group's name."""
    return {key.removesuffix(".name"): value for key, value in leaves(values).items()}


def _most_specific(made: Mapping[Question, tuple[str, ...]]) -> list[Question]:
    """The matching questions, without those whose options are part of another's."""
    return [
        question
        for question, needed in made.items()
        if needed and not any(set(needed) < set(other) for other in made.values())
    ]


def _unanswerable(
    law: Law, questions: Sequence[Question], texts: Mapping[str, str], foreign: Sequence[str]
) -> UserError:
    """The error that lists the questions that a law answers, beside the given options."""
    answers = "; ".join(question.asks for question in questions) or "no question"
    if foreign:
        return UserError(
            f"{', '.join(foreign)}: law={law.name} answers {answers}; give only the options of one of these"
        )
    missing = _missing(questions, texts.keys())
    instead = f"give {_all_of(missing)} too" if missing else "give exactly one of these"
    return UserError(f"{', '.join(texts.values()) or 'nothing is asked'}: law={law.name} answers {answers}; {instead}")


def _missing(questions: Sequence[Question], options: Set[str]) -> list[str]:
    """The options that the nearest question still needs; nothing if one is complete."""
    if any(question.made_by(options) for question in questions):
        return []
    begun = [needed for question in questions for needed in question.needs if options & set(needed)]
    return min(([name for name in needed if name not in options] for needed in begun), key=len, default=[])


def _all_of(names: Sequence[str]) -> str:
    return f"{'both ' if len(names) == 2 else ''}{' and '.join(names)}"
