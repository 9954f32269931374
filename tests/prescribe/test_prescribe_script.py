"""prescribe.py as users type it."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from shapelaw.config.schema import to_dataclass
from shapelaw.counting import params_total
from shapelaw.planned_run import plan_run
from shapelaw.prescribe.ask import Problem
from shapelaw.runs.table import RunsTable
from shapelaw.verbs.main import main
from support import Compose, InProcess, Program, Script
from worlds import fitted, table


@pytest.fixture
def fits(outputs: Path) -> Path:
    """Fits as fit.py leaves them, the newest first."""
    folder = outputs / "fits"
    for age, law in enumerate(("params_tokens", "interaction", "width_depth_params_tokens", "steps_batch")):
        one = folder / f"{law}-000000"
        fitted(law, refits=30).save(one, table())
        os.utime(one / "fit.json", (1e9 - age, 1e9 - age))
    return folder


@pytest.fixture
def prescribe(in_process: InProcess, outputs: Path) -> Program:
    """Runs prescribe.py in this process."""
    return partial(in_process, partial(main, "prescribe"), "prescribe.py")


def test_a_budget_has_its_table_yaml_and_command(fits: Path, script: Script, outputs: Path) -> None:
    others = ",".join(str(fits / f"{law}-000000") for law in ("params_tokens", "width_depth_params_tokens"))
    done = script("prescribe.py", "budget=1e21", f"compare=[{others}]")
    assert done.returncode == 0, done.stderr
    assert f"fit {fits / 'interaction-000000'}" in done.stdout  # the newest with width and depth
    answer = Problem.of(fitted("interaction", refits=30), table()).best(1e21)
    assert f"train it:  SHAPELAW_SUITE=gemstones shapelaw train {' '.join(answer.overrides)}" in done.stdout
    assert answer.domain in done.stdout
    assert "\nOther token counts at the same budget (" in done.stdout
    assert "\nRow factor 1 is the real-valued optimum" in done.stdout
    assert "the budget that this ratio needs for the lowest loss / your budget)" in done.stdout
    assert "90% interval" in done.stdout
    passed = fits / "params_tokens-000000"  # newer still
    assert f"the newer fit {passed.name} was not used, because its law has no width and depth" in done.stdout
    assert f"give fit={passed} space=params" in done.stdout
    written = OmegaConf.to_container(OmegaConf.load(next((outputs / "prescriptions").iterdir())))
    assert isinstance(written, dict)
    assert written["values"] == pytest.approx(dict(answer.values))
    assert written["intervals"]["loss"] == pytest.approx(answer.intervals["loss"])
    assert len(written["overtraining"]) == 9
    assert len(written["if_another_law_is_true"]) == 6
    assert [row["law"].split()[0] for row in written["laws"]] == [
        "interaction",
        "params_tokens",
        "width_depth_params_tokens",
    ]


def test_other_questions(fits: Path, prescribe: Program) -> None:
    questions = {
        "dollars": ("objective=dollars", "objective.price=3", "budget=1e4", f"fit={fits}/interaction-000000"),
        "Least device hours for a loss of 2.5 (law interaction, fit ": (
            *("loss=2.5", "objective=device_hours", "objective.mfu=0.4", "objective.device_flops=990e12"),
        ),
        "inside the fitted domain": ("width=1024", "depth=28", "tokens=5e10"),
        "Lowest loss for 1e+21 training FLOPs (law params_tokens, fit ": (
            f"fit={fits}/params_tokens-000000",
            "space=params",
            "budget=1e21",
        ),
    }
    for answer, arguments in questions.items():
        done = prescribe(*arguments)
        assert done.returncode == 0, done.stderr
        assert answer in done.stdout
        assert ("-m hydra/launcher=slurm" in done.stdout) == ("shapelaw train" in done.stdout)
        assert ("shapelaw train" in done.stdout) == ("space=params" not in arguments)


BAD = [
    (["budget=1e30"], "smallest shape is 256x2"),
    (["budget=1e21", "fit=FITS/params_tokens-000000"], "prescribes no aspect ratio"),
    (["budget=1e21", "limits.params_max=1000"], "no shape of"),
    (["budget=1e21", "rules.width_max=128"], "no shape of"),
    (["budget=1e21", "fit=FITS/old-000000"], "version 0 of the schema"),
    (["budget=1e21", "fit=FITS/none"], "no such fit"),
    (
        ["budget=1e21", "fit=FITS/../alone"],
        "alone: there is no runs.parquet beside fit.json; save the fit with its runs",
    ),
    (["budget=1e21", "loss=2.5"], "give exactly one"),
    ([], "give exactly one"),
    (["tokens=1e10"], "give both"),
    (["budget=1e3", "objective=device_hours", "objective.mfu=0.4"], "give both"),
    (["budget=1e3", "objective=device_hours", "objective.mfu=4", "objective.device_flops=1e15"], "mfu=4"),
    (["budget=1e21", "space=cubic"], "allowed values are feasible, relaxed, params"),
    (["budget=1e21", "flops=7n"], "allowed values are 6n, auto, exact"),
    (["budget=1e21", "flops=recorded"], "allowed values are auto, exact, 6n"),
    (["budgt=1e21"], "did you mean budget"),
    (["budget=1e21", "width=1024", "depth=3"], "width=1024, depth=3: has no effect beside budget=NUMBER"),
    (["budget=1e21", "least=foo"], "least=foo: has no effect beside budget=NUMBER"),
    (["loss=2.5", "compare=[x]"], "compare=['x']: has no effect beside loss=NUMBER"),
    (
        ["width=1024", "depth=3", "tokens=1e10", "limits.params_max=1e9"],
        "limits.params_max=1000000000.0: has no effect",
    ),
    (
        ["budget=1e21", "fit=FITS/params_tokens-000000", "space=params", "rules.width_max=512", "flops=6n"],
        "rules.width_max=512, flops=6n: has no effect beside space=params",
    ),
    (["budget=1e21", "fit=FITS/steps_batch-000000"], "budget=1e+21: law=steps_batch answers a size alone"),
    (["budget=1e21", "compare=[FITS/steps_batch-000000]"], "law=steps_batch: reads batch_tokens too"),
]


def test_bad_input_is_said_in_one_line(fits: Path, prescribe: Program) -> None:
    old = fits / "old-000000"
    old.mkdir()
    content = json.loads((fits / "interaction-000000" / "fit.json").read_text()) | {"version": 0}
    (old / "fit.json").write_text(json.dumps({key: value for key, value in content.items() if key != "seal"}))
    os.utime(old / "fit.json", (0, 0))  # not the newest: a newest fit that cannot be read is refused
    fitted("interaction").save(fits.parent / "alone")
    for arguments, message in BAD:
        done = prescribe(*(one.replace("FITS", str(fits)) for one in arguments))
        assert done.returncode == 2
        assert message in done.stderr, (arguments, done.stderr)
        assert done.stderr.count("\n") == 1, done.stderr


def test_without_a_fit_it_says_how_to_make_one(prescribe: Program) -> None:
    done = prescribe("budget=1e21")
    assert done.returncode == 2
    assert "shapelaw fit law=interaction" in done.stderr


def test_what_it_prescribes_is_what_train_would_run(composed: Compose) -> None:
    """On the tiny suite: the overrides compose to a run of that shape, those tokens and that rate."""
    sizes = {"head_size": 8, "vocab_size": 256, "seq_len": 16, "batch_tokens": 128, "lr_base": 5.0}
    frame = table().frame.iloc[:1].assign(width=64, depth=2, params=int(params_total(64, 2, 256, 8)), **sizes)
    answer = Problem.of(fitted("interaction"), RunsTable(frame)).best(3e17)
    planned = plan_run(to_dataclass(composed(*answer.overrides)), "corpus")
    assert (planned.shape.width, planned.shape.depth) == (answer.values["width"], answer.values["depth"])
    assert 0 <= answer.values["tokens"] - planned.tokens < 128
    assert planned.lr_eff == pytest.approx(answer.values["lr_eff"])
