"""What reaches the terminal: names and paths as they are, spelt out where a terminal would act on them."""

from __future__ import annotations

import ast
import io
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from shapelaw.sweep.task import Job
from shapelaw.sweep.view import View
from shapelaw.terminal import KEPT, Spelling, Terminal, printable
from support import ROOT, Door

ODD = "a [red]b[/x] \x1b]0;title\x07\x1b[31m :smile: \x9b5m \u202e \udcff"
SPELT = r"a [red]b[/x] \x1b]0;title\x07\x1b[31m :smile: \x9b5m \u202e \udcff"


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec=None)))
def test_everything_is_printable_and_plain_words_stay(text: str) -> None:
    said = printable(text)
    assert all(letter.isprintable() or letter in KEPT for letter in said)
    assert printable(said) == said
    said.encode("utf-8")


def drawn(*what: object) -> str:
    """What a terminal of many colours is sent."""
    file = io.StringIO()
    console = Terminal(file=file, width=200, force_terminal=True, color_system=None)
    for one in what:
        console.print(one)
    return file.getvalue()


def test_no_console_reads_a_name() -> None:
    table = Table("x", ODD, title=ODD, caption=ODD)
    table.add_row(ODD, "y")
    said = drawn(ODD, table)
    assert said.count(SPELT) == 5
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\udcff"} & set(said)


def test_a_sweep_draws_no_name_of_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job("a", ODD, tmp_path / "gone")
    (tmp_path / "log").write_bytes(b"its log \x1b[31m [/x] \xff\n")
    with View("run", [job]) as view:
        view.started(job)
        view.ended(job, "for [no] \x1b[5m reason", tmp_path / "log")
        view.refused(ODD, "[/red]")
        assert all(task.description.isprintable() for task in view.progress.tasks)
    said = capsys.readouterr().err
    assert f"failed {SPELT}: for [no] \\x1b[5m reason" in said
    assert r"its log \x1b[31m [/x]" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_letter_ends_a_command_that_is_done(encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`sweeps` on a terminal that knows few letters, with a question that it cannot print."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    from shapelaw.terminal import prepare_streams, write

    prepare_streams()
    write(f"which × {ODD}\n")
    assert SPELT in raw.getvalue().decode(encoding)


def test_warnings_are_spelt_and_say_each_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Spelling().handle(logging.LogRecord("shapelaw", logging.WARNING, __file__, 1, "of %s", (ODD,), None))
    assert capsys.readouterr().err == f"of {SPELT}\n"


def test_one_place_prints() -> None:
    """Nothing else writes to the standard streams, makes a console, or draws a column that reads markup."""
    faults = []
    for path in (ROOT / "src").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls if path.name != "terminal.py" else ():
            name = ast.unparse(call.func)
            reads = name == "TextColumn" and "markup" not in {word.arg for word in call.keywords}
            if reads or name in ("print", "sys.stdout.write", "sys.stderr.write", "Console"):
                faults.append(f"{path.name}, line {call.lineno}: {ast.unparse(call)}")
    assert not faults


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table, both of odd names, in which outputs go."""
    folder = tmp_path / "a [red]b[/x] \x1b[31m :smile: $x_{"
    folder.mkdir(parents=True)
    rows = [f"r{n}[b]\x1b[5m{k},{n}e6,{k}e8,{1 + 3 / n**0.3 + 4 / k**0.3:.5f}" for n in (1, 2, 4, 8) for k in (1, 2, 4)]
    (folder / "r [x]\x1b[31m.csv").write_text("\n".join(["run,params,tokens,loss", *rows]))
    monkeypatch.setenv("SHAPELAW_OUTPUTS", str(folder))
    return folder


def test_a_fit_among_odd_names_ends_well(odd: Path, door: Door) -> None:
    words = ("runs=csv", f"runs.path='{odd}/r [x]\x1b[31m.csv'", "bootstrap=none", "plots=false", "tracker=none")
    code, said = door("fit", *words)
    assert (code, "\x1b" in said) == (0, False), said
    assert printable(odd) in said
    (fit,) = (odd / "fits").iterdir()
    code, said = door("prescribe", f"fit='{fit}'", "budget=1e18", "space=params")
    assert (code, "\x1b" in said) == (0, False), said
    assert printable(odd) in said


@pytest.mark.parametrize("verb", ["fit", "train", "prescribe", "report", "replay", "prepare"])
def test_bytes_that_are_no_text_are_refused_before_any_work(
    tmp_path: Path, outputs: Path, verb: str, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x\udcff"
    monkeypatch.setenv("SHAPELAW_OUTPUTS", str(folder))
    words = {
        "fit": ["runs=csv", "runs.path=x.csv"],
        "report": ["runs=csv", "runs.path=x.csv"],
        "prescribe": ["budget=1e18"],
    }
    code, said = door(verb, *words.get(verb, []))
    assert (code, len(said.splitlines()), folder.exists()) == (2, 1, False), said
    assert r"x\udcff" in said
    assert "not UTF-8" in said


def test_a_suite_s_folder_that_is_no_text_is_refused(
    tmp_path: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch, door: Door
) -> None:
    monkeypatch.setenv("SHAPELAW_SUITE", str(tmp_path / "\udcff"))
    code, said = door("train")
    assert (code, len(said.splitlines())) == (2, 1), said
    assert "not UTF-8" in said
