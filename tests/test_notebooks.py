"""The notebooks of the documentation run from an empty start, and say what is written in them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from support import ROOT

FOLDER = ROOT / "docs" / "notebooks"
PICTURES = {"your_csv": 4, "gemstones": 2}
"""Images of each, those within the HTML of a fit among them."""


def runner() -> ModuleType:
    """scripts/notebooks.py."""
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts" / "notebooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(notebook: nbformat.NotebookNode) -> list[str]:
    """What is printed and shown as text, but for the names of files and objects."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output["text"] if output.output_type == "stream" else output.data["text/plain"] for output in outputs]


def figures_of(texts: list[str]) -> list[float]:
    """Every number."""
    return [float(one) for text in texts for one in re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", text)]


@pytest.mark.parametrize("name", ["your_csv", "gemstones"])
def test_a_notebook_runs_and_says_what_is_written_in_it(name: str, request: pytest.FixtureRequest) -> None:
    if name == "gemstones":
        request.getfixturevalue("data_dir")  # which skips without the published runs
    path = FOLDER / f"{name}.ipynb"
    written, found = nbformat.read(path, as_version=4), runner().run(path)
    assert [re.sub(r"[\d.e+-]+", "#", text) for text in said(found)] == [
        re.sub(r"[\d.e+-]+", "#", text) for text in said(written)
    ]
    assert figures_of(said(found)) == pytest.approx(figures_of(said(written)), rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("name", ["your_csv", "gemstones"])
def test_what_is_written_in_a_notebook_is_whole(name: str) -> None:
    """Every cell was run, in order and without an error or a warning; pictures are there, and no path of a machine."""
    text = (FOLDER / f"{name}.ipynb").read_text()
    cells = [cell for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"]
    images = [one for one in outputs if "image/png" in one.get("data", {}) or "<img" in str(one.get("data", {}))]
    assert len(images) == PICTURES[name]
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    assert len(text) < 500_000


def test_every_notebook_is_tried() -> None:
    assert {path.stem for path in Path(FOLDER).glob("*.ipynb")} == set(PICTURES)


TABLE = """
import pandas
from shapelaw import fit
from shapelaw.fitting import bootstrap, progress
from shapelaw.runs import RunsTable
progress.AFTER_SECONDS, bootstrap.EVERY_SECONDS = 0.001, 0.001
sizes = [(n * 1e6, d * 1e8) for n in (5, 20, 80, 300) for d in (2, 9, 40)]
rows = [(f"{n}", n, d, 1.8 + 400 / n**0.34 + 1100 / d**0.35) for n, d in sizes]
table = RunsTable(pandas.DataFrame(rows, columns=["run", "params", "tokens", "loss"]))
"""
REFITS = 'result = fit(table, law="params_tokens", bootstrap={"n": 2000, "workers": WORKERS, "by": "rows"})'


@pytest.mark.slow
def test_refits_show_a_display_that_is_updated_and_taken_away() -> None:
    """In one thread and in two; what the notebook keeps is nothing."""
    cells = [TABLE, REFITS.replace("WORKERS", "1"), REFITS.replace("WORKERS", "2")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client, messages = NotebookClient(notebook, timeout=120, kernel_name="python3"), list[dict[str, Any]]()
    process = client.process_message

    def seen(message: dict[str, Any], cell: Any, number: int) -> Any:
        if message["msg_type"] in ("display_data", "update_display_data"):
            messages.append({**message["content"], "cell": number})
        return process(message, cell, number)

    client.process_message = seen  # type: ignore[method-assign]
    client.execute()
    for number in (1, 2):
        shown = [one for one in messages if one["cell"] == number]
        told = [one["data"]["text/plain"] for one in shown if "of 2000 refits" in one["data"]["text/plain"]]
        counts = [int(text.split()[0]) for text in told]
        assert counts
        assert counts == sorted(counts)
        assert len({one["transient"]["display_id"] for one in shown}) <= 2, "the refits, and those that leave a run out"
        assert all(output["data"]["text/plain"] == "" for output in notebook.cells[number].outputs)
