"""Which question of which law the options ask; laws and questions of one's own."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shapelaw.config import PrescribeConfig
from shapelaw.errors import UserError
from shapelaw.laws import LAWS, SumLaw, get_law
from shapelaw.prescribe import Basis, Prescription, Problem, Question, World, compare_laws
from shapelaw.prescribe.registry import QUESTIONS, known_questions, question_of, register
from shapelaw.verbs.main import set_environment
from shapelaw.verbs.prescribe import prescribe
from support import ROOT, asked
from worlds import NATURAL, fitted, table

WHAT_IT_ANSWERS = "law=points answers width, depth and tokens: their loss"


class PointLaw(SumLaw):
    """The interaction law, as someone would write it who trusts it for the loss of a size alone."""

    questions = ("at",)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> PointLaw:
    """A registered law that answers `at` only."""
    interaction = get_law("interaction")
    values = {field.name: getattr(interaction, field.name) for field in dataclasses.fields(SumLaw)}
    law = PointLaw(**{**values, "name": "points"})
    monkeypatch.setitem(LAWS, law.name, law)
    monkeypatch.setitem(NATURAL, law.name, NATURAL["interaction"])
    return law


@pytest.fixture(autouse=True)
def environment(outputs: Path) -> None:
    """The suite of the tests is in force, as a script puts it."""
    set_environment(ROOT)


@pytest.mark.parametrize(
    ("law", "options", "question"),
    [
        ("interaction", {"budget": 1e21}, "best"),
        ("interaction", {"budget": 1e21, "compare": ["x"]}, "best"),
        ("interaction", {"loss": 2.5}, "reach"),
        ("interaction", {"loss": 2.5, "least": "tokens"}, "reach"),
        ("interaction", {"width": 64, "depth": 2, "tokens": 1e9}, "at"),
        ("params_tokens", {"params": 6.8e9, "tokens": 5e10}, "size"),
        ("params_tokens", {"params": 6.8e9, "loss": 2.5}, "size"),
        ("params_tokens", {"loss": 2.5}, "reach"),
        ("power_flops", {"budget": 1e21}, "flops"),
        ("power_flops_e", {"loss": 2.5}, "flops"),
        ("steps_batch", {"params": 1e5}, "lowest_loss"),
        ("steps_batch", {"width": 64, "depth": 2}, "lowest_loss"),
        ("steps_batch", {"params": 1e5, "loss": 2.5}, "steps_to_loss"),
        ("steps_batch", {"width": 64, "depth": 2, "loss": 2.5, "batch_tokens": 512}, "steps_to_loss"),
        ("steps_batch", {"loss": 2.5}, "critical_batch"),
        ("steps_batch", {"params": 1e5, "batch_tokens": 512, "tokens": 1e6}, "loss_curve"),
    ],
    ids=str,
)
def test_the_options_make_the_question(law: str, options: dict[str, Any], question: str) -> None:
    assert question_of(asked(**options), get_law(law)).name == question


@pytest.mark.parametrize(
    ("law", "options", "said"),
    [
        ("interaction", {}, "nothing is asked: law=interaction answers budget: .*; give exactly one of these"),
        ("interaction", {"budget": 1e21, "loss": 2.5}, r"^budget=1e\+21, loss=2.5: .*; give exactly one of these"),
        ("interaction", {"tokens": 1e9}, "^tokens=.*; give both width and depth too$"),
        ("interaction", {"width": 64, "depth": 2}, "^width=64, depth=2: .*; give tokens too$"),
        ("interaction", {"budget": 1e21, "batch_tokens": 512}, "^batch_tokens=512: law=interaction answers budget: "),
        ("interaction", {"loss": 2.5, "compare": ["x"]}, "has no effect beside loss=NUMBER"),
        ("steps_batch", {"width": 64}, "^width=64: .*; give depth too$"),
        ("steps_batch", {"batch_tokens": 512}, "^batch_tokens=512: .*; give both params and tokens too$"),
        ("steps_batch", {"loss": 2.5, "batch_tokens": 512}, "^batch_tokens=512: has no effect beside loss=NUMBER"),
        (
            "power_flops",
            {"params": 1e9},
            r"^params=1000000000.0: law=power_flops answers budget: its loss, or loss: the FLOPs",
        ),
    ],
    ids=str,
)
def test_what_makes_none_or_several_is_refused_with_what_the_law_answers(
    law: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        question_of(asked(**options), get_law(law))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("options", [{"budget": 1e21}, {"loss": 2.5}], ids=str)
def test_a_law_that_answers_at_only_is_refused_for_all_else(
    options: dict[str, Any], points: PointLaw, outputs: Path
) -> None:
    folder = outputs / "fits" / "points-000000"
    fitted(points.name).save(folder, table())
    ((name, value),) = options.items()
    with pytest.raises(UserError) as refused:
        prescribe(asked(fit=str(folder), outputs_dir=str(outputs), **options))
    assert str(refused.value) == f"{name}={value}: {WHAT_IT_ANSWERS}; give only the options of one of these"
    answer = prescribe(asked(fit=str(folder), width=1024, depth=28, tokens=5e10))
    assert answer.values == Problem.of(fitted("interaction"), table()).at(1024, 28, 5e10).values
    assert answer.law == "points"


def test_in_python_such_a_law_is_refused_too(points: PointLaw) -> None:
    problem = Problem.of(fitted(points.name), table())
    with pytest.raises(UserError, match="budget: law=points answers only at, not best; ask that"):
        problem.best(1e21)
    with pytest.raises(UserError, match="loss: law=points answers only at, not reach"):
        problem.reach(2.5)
    fits = {"first": fitted("interaction"), "second": fitted(points.name)}
    with pytest.raises(UserError, match="budget: law=points answers only at"):
        compare_laws(fits, table(), 1e21)


def test_the_newest_fit_that_answers_the_question_is_taken(points: PointLaw, outputs: Path) -> None:
    for age, law in enumerate((points.name, "interaction")):
        folder = outputs / "fits" / f"{law}-000000"
        fitted(law).save(folder, table())
        os.utime(folder / "fit.json", (1e9 - age, 1e9 - age))
    assert prescribe(asked(outputs_dir=str(outputs), budget=1e21)).law == "interaction"
    assert prescribe(asked(outputs_dir=str(outputs), width=1024, depth=28, tokens=5e10)).law == "points"
    with pytest.raises(UserError, match="holds no fit of a law that is asked by params; it holds points-000000, inter"):
        prescribe(asked(outputs_dir=str(outputs), params=1e5))
    with pytest.raises(
        UserError, match=r"shapelaw fit law=params_tokens or .* or law=steps_batch or law=steps_batch_e"
    ):
        prescribe(asked(outputs_dir=str(outputs), params=1e5))


def test_a_question_of_ones_own(points: PointLaw, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a law registers the law's questions; the door asks them as its own."""

    def answer(options: PrescribeConfig, basis: Basis) -> Prescription:
        assert options.params is not None
        return Problem.of(basis.fit, basis.runs).at(1024, 28, 20 * options.params)

    monkeypatch.delitem(QUESTIONS, "chinchilla", raising=False)
    question = Question("chinchilla", "params: the loss at 20 tokens each", (("params",),), (), answer)
    monkeypatch.setattr(PointLaw, "questions", ("at", "chinchilla"))
    with pytest.raises(
        UserError, match="law=points: names the unknown questions chinchilla; known are best, reach, at"
    ):
        question_of(asked(params=1e9), points)
    monkeypatch.setitem(QUESTIONS, "chinchilla", question)
    assert question_of(asked(params=1e9), points) is question
    basis = Basis(fitted("points"), table(), World.of(fitted("points"), table()), Path())
    assert question.answer(asked(params=1e9), basis).values["tokens"] == pytest.approx(2e10)
    assert register(question) is question
    with pytest.raises(UserError, match="question chinchilla: a question with this name is registered already"):
        register(dataclasses.replace(question, takes=("loss",)))


def test_installed_packages_bring_their_questions() -> None:
    """The step-and-batch law's own come from its wing, which prescribe/ does not know."""
    assert {"lowest_loss", "steps_to_loss", "critical_batch", "loss_curve"} <= set(known_questions())
    code = "import sys, shapelaw.prescribe; print('shapelaw.step_batch.questions' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
