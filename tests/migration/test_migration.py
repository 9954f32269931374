"""Runs that were trained before identities changed: outputs made by that version, renamed, found and continued by this one.

outputs_of_identity_1.tar.xz is what commit a587539 left of these commands, without the weights that nothing continues:

    python prepare.py data=text data.path=TEXTS data.val_fraction=0.2 tokenizer=bytes
    python train.py -m COMMON lr_base=5,2.5
    python train.py COMMON lr_base=5 cooldown=linear10 cooldown.fraction=0.5 cooldown.from_tokens=640
    python train.py COMMON lr_base=4 tracker=none
    python train.py ROLLED_BACK
    python train.py COMMON lr_base=5 seed=1              # stopped after step 7
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from shapelaw.config import Precision, TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.files import read_json, unsealed
from shapelaw.fingerprint import FILE, identity_of
from shapelaw.migration import folders, migrate, old_runs
from shapelaw.migration.identity_1 import fingerprint_1, fingerprint_2, identity_1
from shapelaw.planned_run import checkpoint_steps, plan_run
from shapelaw.run_state import Status, lock, read_state
from shapelaw.tracking import deliver_left, read_runs
from shapelaw.training.rollback import read_rollbacks
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import set_environment
from shapelaw.verbs.train import TrainTask
from support import ROOT, Program

HERE = Path(__file__).parent
MADE_AT = "/srv/shapelaw/outputs"
COMMON = (
    *("shape=small/16x1", "data=text", "tokens=1280", "seq_len=32", "batch_tokens=128", "warmup_tokens=256"),
    *(
        "validation.every_tokens=512",
        "validation.tokens=512",
        "checkpoint.every_tokens=640",
        "tracker.log_every_steps=5",
    ),
    *("data.max_epochs=100", "accelerator=cpu", "tracker.finish_seconds=120", "progress=false"),
)
FIRST, SECOND, UNTRACKED = ((*COMMON, f"lr_base={rate}") for rate in (5, 2.5, 4))
BRANCH = (*FIRST, "cooldown=linear10", "cooldown.fraction=0.5", "cooldown.from_tokens=640")
NEW_BRANCH = (*FIRST, "cooldown=linear10", "cooldown.fraction=0.4", "cooldown.from_tokens=640")
INTERRUPTED = (*FIRST, "seed=1")
LOSSES = {INTERRUPTED: 2.1735305786132812, NEW_BRANCH: 2.804372251033783}
"""What the version that made the outputs reached when it went on itself."""
OLD = {
    FIRST: "24f4d197224b",
    SECOND: "899a36fc7423",
    BRANCH: "4ce23c986604",
    UNTRACKED: "0b204cd0c94c",
    INTERRUPTED: "c0ea9213332f",
}
ROLLED_BACK = "998a19a73ae7"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The outputs of the version before, as if they had been made here."""
    with tarfile.open(HERE / "outputs_of_identity_1.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    place(tmp_path / "outputs")
    monkeypatch.setenv("SHAPELAW_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("SHAPELAW_SUITE", str(former_nano(tmp_path)))
    set_environment(ROOT)
    store_schemas()
    return tmp_path / "outputs"


def former_nano(folder: Path) -> Path:
    """The suite that trained them: nano as it was, which is nano_wide today, under its own name."""
    suite = Path(shutil.copytree(ROOT / "conf" / "suite" / "nano_wide", folder / "nano"))
    text = (suite / "suite.yaml").read_text()
    assert text.count("name: nano_wide") == 1
    (suite / "suite.yaml").write_text(text.replace("name: nano_wide", "name: nano"))
    (suite / "shape" / "small").mkdir()
    (suite / "shape" / "small" / "16x1.yaml").write_text("# @package _global_\nshape:\n  width: 16\n  depth: 1\n")
    return suite


def place(outputs: Path) -> None:
    """Write the folder's own name wherever the outputs name the one that they were made in."""
    for path in (*outputs.rglob("*.yaml"), *outputs.rglob("*.json"), *outputs.rglob("*.jsonl")):
        path.write_text(path.read_text().replace(MADE_AT, str(outputs)))
    for path in outputs.rglob("tracking.sent.json"):
        sent = read_json(path)
        path.write_text(json.dumps({**sent, "bytes": (path.parent / "tracking.jsonl").stat().st_size}))
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as store, store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("tags", "value")):
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (MADE_AT, str(outputs)))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("train", list(overrides))


def identity(overrides: tuple[str, ...], outputs: Path) -> str:
    config: TrainConfig = to_dataclass(composed(*overrides))
    corpus = read_json(outputs / "corpora" / "text-bytes" / "manifest.json")["corpus_hash"]
    return plan_run(config, corpus).identity


def run_folder(overrides: tuple[str, ...], outputs: Path) -> Path:
    return outputs / "runs" / "nano" / f"16x1-{identity(overrides, outputs)}"


def stored(outputs: Path, query: str) -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as store:
        return sorted(store.execute(query).fetchall())


def tags(outputs: Path, key: str) -> dict[str, str]:
    """Run id -> a tag."""
    return dict(stored(outputs, f"SELECT run_uuid, value FROM tags WHERE key = '{key}'"))  # type: ignore[arg-type]


def contents(outputs: Path) -> dict[str, bytes]:
    """Every file of the runs; the times of the records that a migration adds aside."""
    found = {}
    for path in sorted((outputs / "runs").rglob("*")):
        if path.is_file() and path.name not in ("lock", ".migration.lock"):
            found[str(path.relative_to(outputs))] = path.read_bytes().partition(b'{"kind":"tags","time":')[0]
    return found


def test_the_same_commands_find_their_runs(old: Path) -> None:
    """Finished ones are done; an interrupted one has its checkpoint; no folder of an old name is left."""
    names = {OLD[each]: identity(each, old) for each in OLD}
    assert not set(names) & set(names.values())
    jobs = {each: TrainTask().plan([composed(*each)])[0] for each in OLD}
    assert [each for each, job in jobs.items() if not job.done] == [INTERRUPTED]
    assert checkpoint_steps(jobs[INTERRUPTED].folder) == [7]
    assert {path.name.split("-")[1] for path in (old / "runs/nano").iterdir()} >= set(names.values())
    assert len([*(old / "runs/nano").iterdir()]) == len(OLD) + 1
    assert not old_runs(old)


@pytest.mark.parametrize("overrides", [INTERRUPTED, NEW_BRANCH], ids=["interrupted", "branch"])
def test_what_was_trained_is_continued(old: Path, overrides: tuple[str, ...]) -> None:
    """To the loss that the version before reaches from there; no run is tracked twice."""
    before = stored(old, "SELECT run_uuid FROM runs")
    loss = TrainTask().single(composed(*overrides))
    assert loss == pytest.approx(LOSSES[overrides], rel=1e-5)
    state = read_state(run_folder(overrides, old))
    assert (state.status, state.attempts) == (Status.finished, 2 if overrides is INTERRUPTED else 1)
    after = stored(old, "SELECT run_uuid FROM runs")
    assert len(after) == len(before) + (overrides is NEW_BRANCH)
    assert set(before) <= set(after)


def test_tracked_runs_have_their_new_names(old: Path, program: Program) -> None:
    before, sweep = tags(old, "shapelaw.identity"), tags(old, "shapelaw.sweep")
    # in a process of its own: mlflow remembers where a run's artifacts lay in the test before
    ended = program("migrate")
    assert (ended.returncode, ended.stderr) == (0, "")
    names = {OLD[each]: identity(each, old) for each in OLD}
    after = tags(old, "shapelaw.identity")
    runs = [run_id for run_id, name in before.items() if name in names]
    assert len(runs) == 4
    assert {run_id: after[run_id] for run_id in runs} == {run_id: names[before[run_id]] for run_id in runs}
    for run_id, folder in tags(old, "shapelaw.folder").items():
        assert Path(folder) == old / "runs/nano" / f"16x1-{after[run_id]}"
        assert (Path(folder) / "state.json").exists()
    assert set(tags(old, "shapelaw.continues").values()) == {identity(FIRST, old)}
    (parent,) = set(before) - set(runs)
    assert after[parent] != before[parent]
    assert tags(old, "shapelaw.sweep") == dict.fromkeys(sweep, after[parent])
    jobs = read_json(old / "mlflow/nano" / parent / "artifacts/jobs.json")
    assert set(jobs) == {identity(FIRST, old), identity(SECOND, old)}


def test_the_runs_table_stays_but_for_the_names(old: Path) -> None:
    uri = f"sqlite:///{old}/mlflow.db"
    before = read_runs(uri, "nano")
    migrate(old)
    after = read_runs(uri, "nano")
    names = {OLD[each]: identity(each, old) for each in OLD}
    assert after["run"].tolist() == before["run"].map(names).tolist()
    assert after.drop(columns="run").equals(before.drop(columns="run"))


def test_rollbacks_stay_those_of_their_run(old: Path) -> None:
    migrate(old)
    (folder,) = [path.parent for path in (old / "runs/nano").glob("*/rollbacks.json")]
    now = folder.name.split("-")[1]
    assert now != ROLLED_BACK
    assert [event.cell for event in read_rollbacks(folder)] == [now]
    states = {
        path.parent.name: unsealed(path, read_json(path)) for path in folder.glob("checkpoints/*/state.json")
    }  # which raises for a seal that does not fit
    known = {name: [event["cell"] for event in state["rollbacks"]] for name, state in states.items()}
    assert known == {"step-00000045": [], "step-00000050": [now], "step-00000100": [now]}


def test_the_journal_keeps_its_bytes_where_the_store_read_on(old: Path) -> None:
    """What was delivered is not delivered again, and what is new is one record."""
    sent = {OLD[each]: read_json(old / f"runs/nano/16x1-{OLD[each]}/tracking.sent.json") for each in (FIRST, BRANCH)}
    rows = stored(old, "SELECT run_uuid, key, step, value, timestamp FROM metrics")
    migrate(old)
    for each in (FIRST, BRANCH):
        folder = run_folder(each, old)
        text = (folder / "tracking.jsonl").read_bytes()
        assert OLD[each].encode() not in text
        start = sent[OLD[each]]["bytes"]
        (new,) = [json.loads(line) for line in text[start:].splitlines()]
        assert new["values"]["shapelaw.identity"] == folder.name.split("-")[1]
        assert read_json(folder / "tracking.sent.json")["bytes"] == len(text)
    assert stored(old, "SELECT run_uuid, key, step, value, timestamp FROM metrics") == rows


def test_a_second_time_changes_nothing(old: Path) -> None:
    assert len(migrate(old).renamed) == 6
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    assert migrate(old) == folders.Migration()
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("place", ["_replace", "_change_checkpoint", "note_names", "_rename", "write_fingerprint"])
def test_a_migration_that_is_killed_is_finished_by_the_next(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, nth: int, after: bool
) -> None:
    """At every step of the first run or of a later one; what it leaves is what an undisturbed one leaves."""
    whole = tmp_path / "whole" / "outputs"
    shutil.copytree(old, whole)
    shutil.rmtree(whole / "mlflow")  # without a store: the folders are compared
    (whole / "mlflow.db").unlink()
    (old / "mlflow.db").unlink()
    migrate(whole)
    real, calls = getattr(folders, place), 0

    def cut(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            raise Killed
        real(*arguments)
        if calls == nth:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(folders, place, cut)
        with pytest.raises(Killed):
            migrate(old)
    migrate(old)
    ours = {name: text.replace(str(old).encode(), b"") for name, text in contents(old).items()}
    theirs = {name: text.replace(str(old).encode(), b"") for name, text in contents(whole).items()}
    assert ours == theirs


def _in_process(outputs: Path, said: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    done = migrate(outputs)
    said.put((len(done.renamed), list(done.left), list(done.undelivered)))


def test_two_at_once_do_no_harm(old: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    said = processes.Queue()
    both = [processes.Process(target=_in_process, args=(old, said)) for _ in range(2)]
    for process in both:
        process.start()
    answers = sorted(said.get(timeout=300) for _ in both)
    for process in both:
        process.join()
    assert answers == [(0, [], []), (6, [], [])]
    assert all(read_state(run_folder(each, old)).step for each in OLD)
    assert len(tags(old, "shapelaw.identity")) == 5


def test_a_store_that_is_missing_learns_the_names_later(old: Path, tmp_path: Path) -> None:
    """It is not made anew in its place; when it is back, whatever delivers journals delivers the names."""
    (old / "mlflow.db").rename(tmp_path / "elsewhere.db")
    assert migrate(old).undelivered == []
    assert not (old / "mlflow.db").exists()
    (tmp_path / "elsewhere.db").rename(old / "mlflow.db")
    assert deliver_left(run_folder(BRANCH, old)) is None
    assert identity(BRANCH, old) in tags(old, "shapelaw.identity").values()
    assert len(stored(old, "SELECT run_uuid FROM runs")) == 5


def _without_corpus(outputs: Path, folder: Path) -> None:
    shutil.rmtree(outputs / "corpora")


def _other_seed(outputs: Path, folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("\nseed: 0", "\nseed: 7"))


def _no_yaml(outputs: Path, folder: Path) -> None:
    (folder / "config.yaml").write_text("seed: [")


def _half(outputs: Path, folder: Path) -> None:
    (folder / "config.yaml").write_text("seed: 0\nprecision: fp32\n")


def _unknown_device(outputs: Path, folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("accelerator: cpu", "accelerator: auto"))


def _taken(outputs: Path, folder: Path) -> None:
    new = run_folder(UNTRACKED, outputs)
    new.mkdir()
    (new / "log.txt").touch()


def _on_another_machine(outputs: Path, folder: Path) -> None:
    state = read_json(folder / "state.json")
    (folder / "state.json").write_text(json.dumps({**state, "status": "running", "updated": 4e9}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_corpus, "not the identity of its config.yaml on any corpus in .*corpora; restore the corpus"),
        (_other_seed, "not the identity of its config.yaml"),
        (_no_yaml, "config.yaml: cannot be read .*; restore the original file"),
        (_half, "its config.yaml is not that of a run .*batch_tokens.*; restore"),
        (_unknown_device, "precision=auto, and no record says .* run migrate with precision=bf16 if it was"),
        (_taken, "which is its name now, exists already; remove one of the two"),
        (_on_another_machine, "is being trained on laptop; run migrate again when it has ended"),
    ],
)
def test_what_cannot_be_mapped_is_left_with_a_line(old: Path, change: Callable[[Path, Path], None], words: str) -> None:
    """It stays to the last byte; the others are renamed (but without their corpus)."""
    folder = old / f"runs/nano/16x1-{OLD[UNTRACKED]}"
    change(old, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}
    done = migrate(old)
    lines = [line for line in done.left if line.startswith(str(folder))]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert re.search(words, lines[0]), lines[0]
    assert {path: path.read_bytes() for path in before} == before
    assert len(done.renamed) == (0 if change is _without_corpus else 5)


def test_a_run_that_goes_on_is_left(old: Path) -> None:
    with lock(old / f"runs/nano/16x1-{OLD[FIRST]}"):
        (line,) = migrate(old).left
        assert "is being trained by another process" in line
    assert len(migrate(old).renamed) == 1


def test_a_corpus_that_moved_with_the_outputs_is_found(old: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    (old / "mlflow.db").unlink()
    old.rename(moved)
    assert len(migrate(moved).renamed) == 6


def test_of_two_runs_of_one_fingerprint_the_one_that_came_further_is_renamed(old: Path) -> None:
    """precision=auto on a processor and precision=fp32 were two runs."""
    source = old / f"runs/nano/16x1-{OLD[INTERRUPTED]}"
    values = yaml.safe_load((source / "config.yaml").read_text())
    values["precision"] = "fp32"
    corpus = read_json(old / "corpora/text-bytes/manifest.json")["corpus_hash"]
    double = source.with_name(f"16x1-{identity_1(fingerprint_1(values, corpus))}")
    double.mkdir()
    (double / "config.yaml").write_text(yaml.safe_dump(values))
    (double / "state.json").write_text(json.dumps({**read_json(source / "state.json"), "step": 6, "status": "failed"}))
    (line,) = migrate(old).left
    assert line.startswith(str(double))
    assert f"is now the same run as {source.name}, which came as far" in line
    assert checkpoint_steps(run_folder(INTERRUPTED, old)) == [7]


def test_a_cooldown_in_another_precision_than_its_run_is_left(old: Path) -> None:
    journal = old / f"runs/nano/16x1-{OLD[FIRST]}/tracking.jsonl"
    journal.write_text(journal.read_text().replace('"32-true"', '"bf16-mixed"'))
    (line,) = migrate(old).left
    assert f"16x1-{OLD[BRANCH]}: is a cooldown in fp32 of the run 16x1-{OLD[FIRST]} in bf16" in line
    assert (old / "runs/nano" / f"16x1-{identity((*FIRST, 'precision=bf16'), old)}").is_dir()


def test_precision_may_be_given_where_nothing_says_it(old: Path) -> None:
    _unknown_device(old, old / f"runs/nano/16x1-{OLD[UNTRACKED]}")
    migrate(old, Precision.bf16)
    assert run_folder((*UNTRACKED, "precision=bf16"), old).is_dir()
    assert run_folder(FIRST, old).is_dir()  # which says that it was computed in fp32


@pytest.mark.parametrize(
    "case", read_json(HERE / "identities_1.json"), ids=lambda case: " ".join(case["overrides"][1:])
)
def test_identities_of_both_versions_are_those_of_one_command(old: Path, case: dict[str, object]) -> None:
    """The old one as commit a587539 computed it; the new one as the command has it now, and as a migration derives it."""
    fingerprint = fingerprint_1(yaml.safe_load(str(case["config"])), "c")
    assert identity_1(fingerprint) == case["identity"]
    assert (fingerprint["cooldown"] or {}).get("parent") == case["parent"]
    rule = ("spikes.over_best_nats=inf", "spikes.over_chance_nats=inf")  # limits that there were not
    overrides = (*case["overrides"], *(rule if "spikes=rollback" in case["overrides"] else ()))  # type: ignore[misc, operator]
    planned = plan_run(to_dataclass(composed(*overrides)), "c")
    now = fingerprint_2(fingerprint, str(planned.fingerprint["precision"]))
    assert now == planned.fingerprint
    assert identity_of(now) == planned.identity


def test_a_run_says_what_it_is(old: Path) -> None:
    migrate(old)
    folder = run_folder(BRANCH, old)
    written = yaml.safe_load((folder / FILE).read_text())
    version, former = written.pop("version"), written.pop("former")
    assert (version, former) == (2, OLD[BRANCH])
    assert folder.name == f"16x1-{identity_of(written)}"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 0, "6 runs renamed, 0 runs left unchanged"),
        (["precision=fp16"], 2, "precision"),
        (["outputs=x"], 2, "outputs: there is no such key; did you mean outputs_dir?"),
        (["outputs_dir=nowhere"], 2, "outputs_dir=nowhere: there is no such folder"),
    ],
)
def test_the_command(opened: Program, old: Path, words: list[str], code: int, said: str) -> None:
    ended = opened("migrate", *words)
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr
    assert len((ended.stdout + ended.stderr).splitlines()) == 1


def test_the_command_says_what_is_left(opened: Program, old: Path) -> None:
    _no_yaml(old, old / f"runs/nano/16x1-{OLD[UNTRACKED]}")
    ended = opened("migrate")
    assert ended.returncode == 1
    assert "5 runs renamed, 1 run left unchanged" in ended.stderr
    assert "config.yaml: cannot be read" in ended.stderr


def test_a_command_that_meets_old_runs_says_so_once(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    _no_yaml(old, old / f"runs/nano/16x1-{OLD[UNTRACKED]}")
    for _ in range(2):
        TrainTask().plan([composed(*FIRST)])
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "5 runs of an earlier version renamed as this version names them",
        "1 run of an earlier version cannot be taken over and would be trained again; `shapelaw migrate` explains why",
    ]
