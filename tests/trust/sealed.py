"""Every file that is read back, a byte of it changed: what is read is what was written, or it is refused, or a word is said."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, suppress
from dataclasses import asdict
from io import StringIO
from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from hypothesis import strategies as st
from omegaconf import OmegaConf

from shapelaw.command.metrics import MetricsFile
from shapelaw.config import PrescribeConfig, TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import BpeChoice, BytesChoice, Manifest, PrepareStatus, TextSource, load_corpus, prepare
from shapelaw.errors import Damaged
from shapelaw.evaluation import measuring
from shapelaw.evaluation import records as evaluations
from shapelaw.evaluation.measuring import Evaluation, Sample
from shapelaw.evaluation.models import Facts
from shapelaw.export.card import _configuration as card_configuration
from shapelaw.figures import industry
from shapelaw.files import write_sealed, write_sealed_text
from shapelaw.fingerprint import FILE as FINGERPRINT
from shapelaw.fingerprint import former_identity, write_fingerprint
from shapelaw.fitting.fit import fit
from shapelaw.planned_run import corpus_folder
from shapelaw.prescribe.prediction import read_prediction, sealed
from shapelaw.run_state import State, Status, read_state, write_state
from shapelaw.runs import RunsTable
from shapelaw.sweep import records, work
from shapelaw.sweep.spaces import Choices, Interval, Space
from shapelaw.sweep.studies import Study
from shapelaw.sweep.task import Job
from shapelaw.tracking import DIVERGED_TAG, VAL_LOSS, open_store, wandb_delivery
from shapelaw.tracking import journal as journals
from shapelaw.tracking.delivery import SENT, Delivery
from shapelaw.tracking.journal import JOURNAL, Journal
from shapelaw.tracking.reading import read_table
from shapelaw.training.corpora import Library
from shapelaw.training.rollback import ROLLBACKS, Rollback, read_rollbacks
from shapelaw.training.stored import CONFIG_FILE, _stored
from shapelaw.verbs.saved_fits import newest_fit, read
from tracked import tracker
from trust.fuzz import ROOT, Damage, Place, damaged, damages, refused, shaped_runs

PAGE = 4096
OF_THE_TABLE = (b"val/loss", b"cost/device_hours", b"lr_base", b"shapelaw.", b"FINISHED", b"CREATE TABLE")
"""What the pages hold that a runs table is read from."""


def sealed_places(folder: Path) -> list[Place]:
    """Every place, its material made in a folder."""
    folder.mkdir()
    return [
        _state(folder / "state"),
        _rollbacks(folder / "rollbacks"),
        *_tracked(folder / "tracked"),
        _submission(folder / "submission"),
        *_fits(folder / "fits"),
        _further(folder / "further"),
        *_evaluations(folder / "evaluations"),
        _wandb(folder / "wandb"),
        _metrics(folder / "metrics"),
        _configuration(folder / "configuration"),
        _prediction(folder / "prediction"),
        _models(folder / "models"),
        _fingerprint(folder / "fingerprint"),
        _interruptions(folder / "interruptions"),
        _preparation(folder / "preparation"),
        _search(folder / "search"),
    ]


def _place(name: str, path: Path, readable: Callable[[], None], share: float = 1.0) -> Place:
    """A file's bytes; `readable` reads it, and asserts that what it reads is what was written."""

    def judge(damage: Damage) -> bool:
        before = path.read_bytes()
        path.write_bytes(damaged(before, damage))
        try:
            return refused(readable) is None
        finally:
            path.write_bytes(before)

    return Place(name, damages, judge, share)


def _state(folder: Path) -> Place:
    folder.mkdir()
    write_state(folder, State(Status.finished, 4, 4, 512, 2.5, 2.6, 1e4, 1, "", "here", 7, "a"))
    whole = read_state(folder)

    def readable() -> None:
        assert read_state(folder) == whole

    return _place("a run's state.json, its bytes", folder / "state.json", readable)


def _rollbacks(folder: Path) -> Place:
    folder.mkdir()
    events = [Rollback("a1b2c3d4e5f6", n, 40 * n, 60 * n, 62 * n, "loss", ((59, 3),), 0.5**n, 7.25) for n in (1, 2)]
    write_sealed(folder / ROLLBACKS, {"rollbacks": [vars(event) for event in events]})
    assert read_rollbacks(folder) == events

    def readable() -> None:
        assert read_rollbacks(folder) == events

    return _place("a run's rollbacks.json, its bytes", folder / ROLLBACKS, readable)


@contextmanager
def _said() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("shapelaw")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def _tracked(folder: Path) -> list[Place]:
    """A database of four runs, and the journal of one."""
    folder.mkdir()
    file = folder / "mlflow.db"
    uri = f"sqlite:///{file}"
    open_store(uri, str(folder / "artifacts"), "tiny")
    for number in range(4):
        run = tracker(uri, folder, f"run{number}")
        for tokens in range(128, 128 * 13, 128):
            run.log({VAL_LOSS: 1 / (tokens + number), "cost/device_hours": tokens / 3}, tokens)
        run.rewind(1, 1024, {"spike/rollbacks": 1})
        if number == 3:
            run.tag({DIVERGED_TAG: "6"})
        run.finish("FAILED" if number == 3 else "FINISHED")
        run.close()
    return [_journal(folder / "run1"), _sent(folder / "run1"), _database(file)]


def _journal(folder: Path) -> Place:
    path = folder / JOURNAL
    data = path.read_bytes()
    whole = [record for record, _ in journals.records(path)]
    delivered = Delivery(folder).sent
    assert delivered.bytes == len(data)

    def judge(damage: Damage) -> bool:
        path.write_bytes(damaged(data, damage))
        journals._say_damaged.cache_clear()
        try:
            with _said() as lines:
                asked = Delivery(folder).sent.bytes < delivered.bytes  # it noticed that records are gone
                read = [record for record, _ in journals.records(path)]
                Journal(folder).close()
            left = iter(whole)
            assert all(record in left for record in read), "a record that was not written"
            assert read == whole or lines or asked, "records are gone without a word"
            return not (lines or asked)
        finally:
            path.write_bytes(data)
            write_sealed(folder / SENT, vars(delivered))

    return Place("a journal's bytes (tracking.jsonl)", damages, judge)


def _sent(folder: Path) -> Place:
    """A damaged note is no note: everything is sent again, and the store is asked what it has."""
    path = folder / SENT
    delivered, data = Delivery(folder).sent, path.read_bytes()

    def judge(damage: Damage) -> bool:
        path.write_bytes(damaged(data, damage))
        try:
            found = Delivery(folder).sent
            assert found == delivered or found.bytes == 0
            return found == delivered
        finally:
            path.write_bytes(data)

    return Place("how far a journal is delivered (tracking.sent.json)", damages, judge)


def _database(path: Path) -> Place:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    data = path.read_bytes()
    pages = [at for at in range(0, len(data), PAGE) if any(word in data[at : at + PAGE] for word in OF_THE_TABLE)]
    whole, suites = read_table(f"sqlite:///{path}", "tiny")

    def read_damaged() -> None:
        found, records_of_suites = read_table(f"sqlite:///{path}", "tiny")
        pd.testing.assert_frame_equal(found, whole, check_exact=True)
        assert records_of_suites == suites

    return _pages("a tracking database's pages (mlflow.db)", path, pages, read_damaged)


def _pages(name: str, path: Path, pages: list[int], readable: Callable[[], None]) -> Place:
    """The pages of a database that begin at these bytes."""
    data = path.read_bytes()

    def judge(damage: Damage) -> bool:
        at = pages[damage.at // PAGE % len(pages)] + damage.at % PAGE
        path.write_bytes(damaged(data, Damage(at, damage.kind, damage.bits)))
        try:
            return refused(readable) is None
        finally:
            path.write_bytes(data)

    return Place(name, damages, judge, 0.5)


def _search(folder: Path) -> Place:
    """The trials of a search, in Optuna's database: what was tried, what was found, and so what is tried next."""
    folder.mkdir()
    path = folder / "optuna.db"
    space = Space({"lr_base": Interval(1.0, 10.0, True), "optim": Choices(("adamw", "muon"))})
    sampler = {"_target_": "optuna.samplers.TPESampler", "seed": 1, "n_startup_trials": 2}

    def study() -> Study:
        return Study("rate", "asks", space, f"sqlite:///{path}", sampler)

    begun = study()
    tickets = [begun.ask() for _ in range(6)]
    for ticket in tickets[:4]:
        begun.finished(ticket, 3.0 + float(ticket.values["lr_base"]) / 7)
    begun.failed(tickets[4], "its disk was full")
    data = path.read_bytes()
    found = (begun.summary(), begun.started(), begun.ask())
    path.write_bytes(data)  # without the trial that was asked for last
    pages = [at for at in range(0, len(data), PAGE) if any(data[at : at + PAGE])]

    def readable() -> None:
        empty = not path.stat().st_size  # as SQLite leaves it where a process ends before it wrote
        again = study()
        assert empty or (again.summary(), again.started(), again.ask()) == found

    return _pages("the trials of a search (optuna.db)", path, pages, readable)


def _submission(folder: Path) -> Place:
    """All that a launcher writes of an array of jobs."""
    batch = records.new_batch(folder, "batch")
    job = Job("a1b2c3d4e5f6", "a", folder / "run")
    config = OmegaConf.create({"lr_base": 5.0, "seed": 1})
    records.fill_batch(batch, {3: [job]}, lambda job: records.Work(None, config, job.folder))  # type: ignore[arg-type]
    records.write_job_id(batch, "4711")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    written = (records.submission_of(job.folder), [job.identity], config)

    def readable() -> None:
        found = (
            records.submission_of(job.folder),
            records.identities_of(batch, 3),
            records.read_work(batch, job.identity).config,
        )
        assert found == written
        array = records.job_id_of(batch)
        if array is None:
            raise Damaged("SLURM is asked for the array by its name")
        assert array == "4711"

    def judge(case: tuple[int, Damage]) -> bool:
        path = files[case[0] % len(files)]
        return bool(_place("", path, readable).judge(case[1]))

    return Place("the records of a submission", st.tuples(st.integers(0, 99), damages), judge)


def runs_of_shapes() -> RunsTable:
    return RunsTable(shaped_runs(), {"source": "here"})


def _fits(folder: Path) -> list[Place]:
    """An older fit and a newer one, of another law, which is asked for."""
    runs = runs_of_shapes()
    for age, law in enumerate(("width_depth_tokens", "interaction")):
        path = fit(runs, law=law).save(folder / law, runs)
        os.utime(path, ns=(10**18 + age, 10**18 + age))
    newest = folder / "interaction"
    with initialize_config_dir(str(ROOT / "conf")):
        options: PrescribeConfig = to_dataclass(compose("prescribe", ["budget=1e21"]))
    assert newest_fit(folder, options)[0] == newest
    expected = read(newest)[0].predict(runs)

    def table_readable() -> None:
        found = read(newest)[1]
        assert (found.hash, found.about, found.recorded) == (runs.hash, runs.about, runs.recorded)

    def newest_readable() -> None:
        assert newest_fit(folder, options)[0] == newest, "an older fit was taken"
        np.testing.assert_array_equal(read(newest)[0].predict(runs), expected)

    return [
        _place("the table beside a fit (runs.parquet)", newest / "runs.parquet", table_readable),
        _place("the newest fit's bytes, where no fit is named", newest / "fit.json", newest_readable, 0.5),
    ]


def _further(folder: Path) -> Place:
    """The shards of a further held-out corpus, with data.verify=always."""
    base = [f"data_dir={folder}", "data.verify=always", "validation.further={other: other}"]
    with initialize_config_dir(str(ROOT / "conf")):
        config: TrainConfig = to_dataclass(compose("train", base))
    texts = folder / "texts"
    texts.mkdir(parents=True)
    for number in range(12):
        (texts / f"{number}.txt").write_text(f"{number} and {number**3}, then {number**5}.\n" * 9)
    for made in (corpus_folder(config), folder / "other"):
        prepare(TextSource((str(texts),)), BytesChoice(), made, val_fraction=0.3, shard_tokens=500, workers=1)
    shards = sorted((folder / "other").glob("*.bin"))

    def judge(case: tuple[int, Damage]) -> bool:
        path = shards[case[0] % len(shards)]
        before = path.read_bytes()
        path.write_bytes(damaged(before, case[1]))
        try:
            assert refused(lambda: Library().of(config, check=True)) is not None, "a damaged shard was not noticed"
        finally:
            path.write_bytes(before)
        return False

    return Place("the shards of a further held-out corpus", st.tuples(st.integers(0, 99), damages), judge)


def _evaluations(folder: Path) -> list[Place]:
    """An evaluation that is done, and one that goes on from where it was: a damaged note of that is begun anew."""
    model = Facts("tiny", "outputs/runs/tiny", "a1b2c3", 16000, 16, 1, 256, 2560.0)
    done = Evaluation(model, Sample("text", "d4e5f6", 128, None, 8, "fp32"), 12, 1536, 1536, 3210.5)
    file = evaluations.file_of(folder, done.model, done.sample)
    evaluations.keep(done, file)
    note, at = evaluations.partial_of(file), measuring._Partial({"model": "a1b2c3", "windows": 12}, 5, 1234.5)
    measuring._note(note, at)

    def done_readable() -> None:
        assert evaluations.read(file) == done

    def note_readable() -> None:
        found = measuring._partial(note, at.key)
        if found == measuring._Partial(at.key):
            raise Damaged("it is measured from the beginning")
        assert found == at

    return [
        _place("the record of an evaluation", file, done_readable),
        _place("how far an evaluation is", note, note_readable),
    ]


def _wandb(folder: Path) -> Place:
    """How far wandb has a journal; a damaged note is no note: everything is sent again, to the same rows."""
    folder.mkdir()
    sent = wandb_delivery._Sent(700, 12, "wandb, project tiny", "a1b2c3")
    write_sealed(folder / wandb_delivery.SENT, vars(sent))

    def readable() -> None:
        found = wandb_delivery._read_sent(folder)
        if found == wandb_delivery._Sent():
            raise Damaged("everything is sent again")
        assert found == sent

    return _place("how far wandb has a journal (tracking.wandb.json)", folder / wandb_delivery.SENT, readable)


def _metrics(folder: Path) -> Place:
    """What a program wrote, and an earlier start read; lines that are gone are said to be, and those that are new are new."""
    folder.mkdir()
    path = folder / "metrics.jsonl"
    path.write_text("".join(f'{{"tokens": {128 * n}, "loss": {3 - n / 50}}}\n' for n in range(1, 13)))
    data = path.read_bytes()
    whole = list(MetricsFile(path).lines())

    def readable() -> None:
        with _said() as lines:
            file = MetricsFile(path)
            file.check()
            found = list(file.lines()) if not lines else []
        note.write_bytes(noted)
        if lines:
            raise Damaged(lines[0])
        assert found[: len(whole)] == whole

    note = MetricsFile(path).note
    noted = note.read_bytes()
    assert len(data) == len(b"".join(whole))
    return _place("the metrics of a program (metrics.jsonl)", path, readable)


def _configuration(folder: Path) -> Place:
    """What a checkpoint is measured and exported by."""
    folder.mkdir()
    with initialize_config_dir(str(ROOT / "conf")):
        config: TrainConfig = to_dataclass(compose("train", []))
    path = folder / CONFIG_FILE
    write_sealed_text(path, OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
    whole = OmegaConf.to_yaml(_stored(folder, [4])[0].config)  # type: ignore[arg-type]

    def readable() -> None:
        assert OmegaConf.to_yaml(_stored(folder, [4])[0].config) == whole  # type: ignore[arg-type]

    return _place("a run's config.yaml", path, readable, 0.5)


def _prediction(folder: Path) -> Place:
    """A predicted curve, as it is compared with the run later."""
    folder.mkdir()
    path = folder / "prediction.yaml"
    content = sealed({"law": "params_tokens", "width": 64, "loss": [3.25, 2.125], "tokens": 1e9, "note": "tiny"})
    path.write_text(OmegaConf.to_yaml(OmegaConf.create({"prediction": content})))
    whole = read_prediction(path)

    def readable() -> None:
        assert read_prediction(path) == whole

    return _place("a prediction's file", path, readable)


def _models(folder: Path) -> Place:
    """The table that evaluations leave, as figures read it."""
    sample = Sample("text", "d4e5f6", 128, None, 8, "fp32")
    for number in (1, 2):
        model = Facts(f"tiny{number}", f"outputs/runs/tiny{number}", f"a1b2c{number}", 16000, 16, number, 256, 2560.0)
        done = Evaluation(model, sample, 12, 1536, 1536, 3210.5 * number)
        path = evaluations.keep(done, evaluations.file_of(folder, model, sample))
    whole = industry.read(path)
    assert whole["loss"].tolist() == [3210.5 / 1536, 3210.5 * 2 / 1536]

    def readable() -> None:
        pd.testing.assert_frame_equal(industry.read(path), whole, check_exact=True)

    return _place("the table of evaluations (models.csv)", path, readable)


def _fingerprint(folder: Path) -> Place:
    """What a run was called before it was migrated, and what its card shows."""
    folder.mkdir()
    write_fingerprint(folder, {"shape": "16x1", "seed": 1}, "a1b2c3d4e5f6")
    shown = card_configuration(folder)

    def readable() -> None:
        assert former_identity(folder) == "a1b2c3d4e5f6"
        assert card_configuration(folder) == shown

    return _place("a run's fingerprint.yaml", folder / FINGERPRINT, readable)


def _interruptions(folder: Path) -> Place:
    """How often a job was interrupted without a step; a damaged note is said, and is none."""
    folder.mkdir()
    write_state(folder, State(Status.interrupted, 4, 40, 512))
    assert [work._stalls(folder) for _ in range(3)] == [0, 1, 2]
    path = folder / "interruptions.json"

    def readable() -> None:
        with redirect_stderr(StringIO()) as said:
            stalls = work._stalls(folder)
        if said.getvalue():
            raise Damaged(said.getvalue())
        assert stalls == 3

    return _place("how often a job was interrupted (interruptions.json)", path, readable)


def _preparation(folder: Path) -> Place:
    """All that an interrupted preparation goes on from."""
    source = TextSource((str(folder / "texts"),))
    (folder / "texts").mkdir(parents=True)
    for number in range(12):
        (folder / "texts" / f"{number}.txt").write_text(f"{number} and {number**3}, then {number**5}.\n" * 9)

    def go_on(place: Path, stop_at: float = inf) -> Manifest:
        def show(status: PrepareStatus) -> None:
            if status.documents >= stop_at:
                raise KeyboardInterrupt

        return prepare(
            source, BpeChoice(280), place, val_fraction=0.3, shard_tokens=150, workers=1, batch_bytes=10,
            checkpoint_seconds=0.0, progress=show,
        )  # fmt: skip

    whole = go_on(folder / "whole")
    with suppress(KeyboardInterrupt):
        go_on(folder / "half", 6)
    files = sorted(path for path in (folder / "half").iterdir() if path.stat().st_size)
    assert {path.suffix for path in files} == {".bin", ".json", ".part"}

    def judge(case: tuple[int, Damage]) -> bool:
        copy = Path(shutil.copytree(folder / "half", folder / "copy"))
        path = copy / files[case[0] % len(files)].name
        path.write_bytes(damaged(path.read_bytes(), case[1]))

        def gone_on() -> None:
            assert go_on(copy) == whole
            load_corpus(copy, verify_hashes=True)

        try:
            return refused(gone_on) is None
        finally:
            shutil.rmtree(copy)

    return Place("an interrupted preparation, any of its files", st.tuples(st.integers(0, 99), damages), judge, 0.5)
