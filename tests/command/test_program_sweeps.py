"""Sweeps of a program: checked before anything is made, tracked and fitted as our own, skipped when done, branched, named."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import PARENT, PROGRAM, TEMPLATE, Prepare, option

from shapelaw import fit, load_runs
from shapelaw.errors import UserError
from shapelaw.fingerprint import identity_of
from shapelaw.planned_run import plan_run
from shapelaw.run_state import Status, read_state
from shapelaw.runs.worlds import flags
from shapelaw.tracking import read_runs
from support import ROOT, TINY, Door, Sweep


@pytest.fixture
def store(outputs: Path, template: Path) -> str:
    """Where this test's runs are tracked."""
    outputs.mkdir()
    shutil.copy(template, outputs / "mlflow.db")
    return f"sqlite:///{outputs}/mlflow.db"


def folders(outputs: Path) -> list[Path]:
    return sorted((outputs / "runs" / "tiny").iterdir())


def started(outputs: Path) -> list[list[str]]:
    """The arguments of every program that was started."""
    return [json.loads(path.read_text())["argv"] for path in outputs.glob("runs/tiny/*/started-*.json")]


def test_two_sweeps_of_a_program_beside_each_other(sweep: Sweep, door: Door, outputs: Path, store: str) -> None:
    """Planned with their command lines, trained, not trained again, read as our own runs, each fitted by the same law; together
    flagged, and with a run of our own refused."""
    named = option(f"{TEMPLATE} name={{sweep.name}}")
    given = ("-m", "trainer=command", named, "shape=16x1,32x1", "sweep.name=swiglu,geglu")
    plan = sweep(*given, "hydra/launcher=plan")
    assert plan.returncode == 0, plan.stderr
    assert not (outputs / "runs").exists()
    for _ in range(2):
        done = sweep(*given)
        assert done.returncode == 0, done.stderr
        assert "4 runs finished: loss " in done.stdout
        lines = re.findall(rf"^\S+ lr_base=5.*?: {sys.executable} {PROGRAM} (.*)$", plan.stdout, re.M)
        assert sorted(lines) == sorted(map(shlex.join, started(outputs))), "those that were printed, each once"
    rows = read_runs(store, "tiny")
    assert rows[rows.excluded == ""].groupby("run").size().tolist() == [18] * 4, "of 20, two are during the warm-up"
    assert {(row.width, row.params, row.flops / row.tokens) for row in rows.itertuples()} == {
        (16, 16_000, 96_000),
        (32, 32_000, 192_000),
    }
    assert rows.groupby("sweep").run.nunique().to_dict() == {"geglu": 2, "swiglu": 2}
    assert (set(rows.trainer), set(rows.status)) == ({f"python {PROGRAM}"}, {"FINISHED"})
    assert "optimizer" not in rows, "the program was told nothing of it"
    parts = [
        load_runs("mlflow", uri=store, experiment="tiny", where=f"sweep == '{name}'") for name in ("swiglu", "geglu")
    ]
    fits = [fit(part, law="power_flops") for part in parts]
    assert [len(part) for part in parts] == [36, 36]
    assert fits[0].parameters == pytest.approx(fits[1].parameters), "the same losses give the same law"
    both = load_runs("mlflow", uri=store, experiment="tiny")
    assert "differing_sweep: the rows differ in sweep: geglu (36 rows of 2 runs), swiglu (36 rows of 2 runs)" in flags(
        both
    )
    ours = sweep("shape=16x1")
    assert ours.returncode == 0, ours.stderr
    code, said = door("fit", "law=power_flops", "bootstrap=none", "tracker=none")
    assert code == 2
    assert "the rows differ in trainer, so no single law fits their losses" in said
    assert r"trainer == \"shapelaw\"" in said


def test_cooldowns_start_after_their_runs_and_are_told_where_they_lie(sweep: Sweep, outputs: Path) -> None:
    given = (
        "trainer=command",
        option(f"{TEMPLATE} {PARENT}"),
        "shape=16x1",
        "cooldown.from_tokens=2560",
        "tracker=none",
    )
    alone = sweep(*given, "cooldown=linear10")
    assert alone.returncode == 2
    assert "is not finished; train it first: the same command with cooldown=none" in alone.stderr
    assert not outputs.exists()
    done = sweep("-m", *given, "cooldown=none,linear10")
    assert done.returncode == 0, done.stderr
    states = {folder: read_state(folder) for folder in folders(outputs)}
    assert sorted(state.tokens for state in states.values()) == [2560, 2688]
    (main,) = [folder for folder, state in states.items() if state.tokens == 2560]
    (branch,) = [folder for folder in states if folder != main]
    (start,) = [json.loads(path.read_text()) for path in branch.glob("started-*.json")]
    assert start["argv"][-2:] == [f"parent={main}", "first=2560"]
    again = sweep(*given, "cooldown=linear10")
    assert again.returncode == 0, again.stderr
    assert "is already finished" in again.stderr


@pytest.mark.parametrize("fault", ["exit", "nan"])
def test_a_run_that_fails_is_told_with_its_log_and_the_others_go_on(sweep: Sweep, outputs: Path, fault: str) -> None:
    template = f"{TEMPLATE} fault={{data.name}}"
    done = sweep("-m", "trainer=command", option(template), "shape=16x1", f"data.name=none,{fault}", "tracker=none")
    assert done.returncode == 1
    assert re.search(r"its log: .*log\.txt", done.stderr)
    assert "1 of 2 runs failed; run the same command again to retry them" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(read_state(folder).status.value for folder in folders(outputs)) == ["failed", "finished"]
    one = sweep("trainer=command", option(template), "shape=32x1", f"data.name={fault}", "tracker=none")
    assert one.returncode == (1 if fault == "exit" else 2)  # a run that diverged, as one of our own
    assert one.stderr.strip().splitlines()[-1].endswith("log.txt")


REFUSED = {
    "{python} x.py --lr {lrr}": r"trainer\.command: \{lrr\} is not a field; the fields are .*, lr, lr_base, .*shape\.width, .*",
    "{python} x.py --lr {lr:.2q}": r"\{lr:\.2q\}: .* cannot be written so",
    "{python} x.py {shape}": r"\{shape\} is not a field",
    "{python} x.py {lr!r}": r"takes a format only",
    "{python} x.py {lr": r"\{lr: .*write fields as \{NAME\}",
    "{python} 'x.py": r"No closing quotation; close the quote",
    " ": r"trainer\.command is empty; give the program's command line",
}


@pytest.mark.parametrize("template", REFUSED)
def test_a_template_that_cannot_be_filled_is_refused(prepared: Prepare, template: str) -> None:
    with pytest.raises(UserError, match=REFUSED[template]) as told:
        prepared(template=template)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cooldown=linear10 cooldown.from_tokens=2560 cooldown.fraction=0.5", r"does not name \{parent\}"),
        ("spikes=rollback", "spikes=rollback: trainer=command does not read it"),
        ("noise.every_steps=2", r"noise\.every_steps: trainer=command does not read it"),
        ("+validation.further.other=x", r"validation\.further: trainer=command does not read it"),
        (f"model={ROOT}/examples/swiglu.py:SwiGLU", "model: trainer=command does not read it"),
        ("trainer=builtin", "only trainer=command reads them"),
        ("sweep.name=a/b", r"sweep\.name='a/b': allowed values are names"),
    ],
)
def test_options_that_a_program_cannot_obey_are_refused(prepared: Prepare, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepared(*override.split())


def test_bad_input_makes_nothing(sweep: Sweep, outputs: Path) -> None:
    for template in ("no-such-program {lr}", "{python} x.py {lrr}"):
        done = sweep("-m", "trainer=command", option(template), "shape=16x1,32x1")
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not outputs.exists()


def test_runs_of_one_command_line_are_said(sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    template = TEMPLATE.replace("seed={seed} ", "")
    sweep("-m", "trainer=command", option(template), "seed=0,1", "hydra/launcher=plan")
    (said,) = caplog.messages
    assert "the same command line, although they differ in seed; name that field in braces" in said


def test_identity_is_of_template_values_and_scripts_and_not_of_places(prepared: Prepare, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("1")
    template = (
        f"python {script} --lr {{lr}} --eps {{optim.eps}} --gpus {{devices}} --out {{folder}} --to {{outputs_dir}}"
    )
    config, planned = prepared(template=template)

    def identity(*overrides: str, text: str = template, **trainer: object) -> str:
        return prepared(*overrides, template=text, **trainer)[1].identity

    assert identity() == planned.identity
    assert identity("outputs_dir=/tmp/elsewhere", "devices=2", "threads=2", "resources.nodes=3") == planned.identity
    assert planned.fingerprint["trainer"]["values"] == {"optim.eps": 1e-08}
    others = [identity(text=template + " --flag"), identity("optim.eps=1e-7"), identity("lr_base=2.5")]
    others.append(identity(files=[str(tmp_path / "*.py")]))
    script.write_text("2")
    others.append(identity())
    assert len({planned.identity, *others}) == len(others) + (others[3] != planned.identity)
    assert identity_of(plan_run(config, None).fingerprint) == others[-1]
    with pytest.raises(UserError, match=r"trainer\.files=none/\*\.py: there is no such file in"):
        identity(files=["none/*.py"])


def test_a_named_sweep_is_part_of_the_identity(prepared: Prepare) -> None:
    plain, named, other = (prepared(*given)[1] for given in ((), ("sweep.name=a",), ("sweep.name=b",)))
    assert len({plain.identity, named.identity, other.identity}) == 3
    assert "sweep" not in plain.fingerprint


def test_training_by_a_program_imports_no_torch(outputs: Path) -> None:
    """Nor Lightning, nor without a tracker MLflow: from the command to the end of the run, in one process."""
    words = ["train.py", "trainer=command", option(), "shape=16x1", "tracker=none"]
    code = (
        f"import sys; sys.argv = {words!r}\n"
        "from shapelaw.verbs.main import main\n"
        "try: main('train')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.exit(' '.join({'torch', 'lightning', 'mlflow'} & set(sys.modules)) or 0)"
    )
    environment = {**os.environ, "SHAPELAW_OUTPUTS": str(outputs), "SHAPELAW_SUITE": str(TINY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (folder,) = folders(outputs)
    assert read_state(folder).status is Status.finished


PLAIN = (
    "{python} examples/plain_torch.py --width {shape.width} --depth {shape.depth} --lr {lr} --steps {steps} --every 5 "
    "--batch {batch_sequences} --seq-len {seq_len} --seed {seed} --out {folder} --metrics {metrics}"
)
NANOGPT = (
    "{python} examples/nanogpt_style.py --n_embd={shape.width} --n_layer={shape.depth} --learning_rate={lr} --seed={seed} "
    "--max_iters={steps} --eval_interval=5 --batch_size={batch_sequences} --block_size={seq_len} --out_dir={folder} "
    "--metrics_file={metrics} --resume={resume}"
)


def test_the_examples_train_and_are_read(
    sweep: Sweep, outputs: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command lines of docs/your_trainer.md."""
    monkeypatch.chdir(ROOT)
    page = " ".join((ROOT / "docs" / "your_trainer.md").read_text().split())
    for template in (PLAIN, NANOGPT):
        assert template in page
        done = sweep("trainer=command", option(template), "shape=16x1")
        assert done.returncode == 0, done.stderr
    rows = read_runs(store, "tiny")
    kept = rows[rows.excluded == ""].groupby("trainer")
    assert kept.tokens.agg(list).to_dict() == {
        f"python examples/{name}.py": [640, 1280, 1920, 2560] for name in ("nanogpt_style", "plain_torch")
    }
    assert (kept.loss.last() < kept.loss.first()).all(), "they learn"
    assert rows.loss.between(2.0, 6.0).all()
    blocks = 3 * (16 * 16 + 16) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16) + 2 * 2 * 16
    assert kept.params.first()["python examples/plain_torch.py"] == 256 * 16 + blocks + (16 * 256 + 256)
