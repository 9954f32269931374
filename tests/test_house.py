"""The house: links that lead somewhere, thin scripts, and what may import what."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shapelaw import fit, load_fit, load_runs
from support import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    missing = [link for link in links if not link.startswith("http") and not (document.parent / link).exists()]
    assert not missing


def test_the_readme_s_tree_is_there() -> None:
    tree = (ROOT / "README.md").read_text().split("## What is where", 1)[1]
    names = [name for line in re.findall(r"^    (\S.*?)   ", tree, re.M) for name in line.split()]
    assert len(names) >= 10
    assert not [name for name in names if not (ROOT / name).exists()]


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.M))
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    assert targets <= set(shown.split())
    asked = set(re.findall(r"`?make ([a-z-]+)", " ".join(path.read_text() for path in DOCUMENTS)))
    assert asked - {"it", "a", "the"} <= targets


@pytest.mark.parametrize(
    "modules",
    [
        "shapelaw",
        "shapelaw.runs, shapelaw.laws, shapelaw.fitting.fit, shapelaw.fitting.compare, shapelaw.figures.fit",
        "shapelaw.config, shapelaw.planned_run, shapelaw.verbs.train, shapelaw.data",
    ],
)
def test_what_runs_on_a_laptop_imports_no_torch(modules: str) -> None:
    heavy = ("torch", "lightning", "mlflow")
    code = f"import sys, {modules}; sys.exit(' '.join(set({heavy}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_fit_starts_without_what_it_may_not_need() -> None:
    """Half of the time of a small fit was imports: optimisers and distributions of scipy, figures before the answer."""
    heavy = ("scipy.optimize", "scipy.stats", "scipy.interpolate", "matplotlib", "mlflow", "sqlalchemy", "torch")
    code = f"import sys, shapelaw.verbs.fit; sys.exit(' '.join(set({heavy}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_fit_of_a_small_table_loads_nothing_for_nothing(tmp_path: Path) -> None:
    """Neither numba's compiler, whose work is on disk, nor what writes PDF, nor scipy's larger parts; the fit is the same."""
    table = ROOT / "docs" / "data" / "nano_runs.csv"
    runs = load_runs("csv", path=table, columns={"run": "model", "params": "N", "tokens": "D"})
    here = fit(runs, law="params_tokens", bootstrap={"n": 2})  # which leaves the kernels compiled
    heavy = ("scipy.linalg", "scipy.special", "matplotlib.pyplot", "fontTools.subset", "numba.np.linalg", "mlflow")
    options = [f"runs.path={table}", "runs.columns={run: model, params: N, tokens: D}", "law=params_tokens"]
    words = ["shapelaw", "runs=csv", *options, "tracker=none"]
    code = (
        f"import sys; sys.argv = {words}\n"
        "from shapelaw.verbs.main import main\n"
        "try: main('fit')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"sys.exit(' '.join(set({heavy}) & set(sys.modules)) or 0)"
    )
    environment = {**os.environ, "SHAPELAW_OUTPUTS": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "fits").iterdir()
    assert {file.name for file in folder.iterdir()} == {"fit.json", "runs.parquet", "loss_flops.png", "residuals.png"}
    assert load_fit(folder).parameters == here.parameters


def test_only_tracking_imports_mlflow() -> None:
    """At any depth of the file: nothing else may know the tracker's name."""
    files = [path for path in (ROOT / "src" / "shapelaw").rglob("*.py") if path.parent.name != "tracking"]
    assert not [str(path) for path in files if re.search(r"^\s*(import|from) mlflow", path.read_text(), re.M)]


def test_every_promise_names_its_test() -> None:
    """Every line of the tables of docs/guarantees.md that end in a column of tests names at least one that is there."""
    promises = re.findall(r"^\| (.*) \| ([^|]*) \|$", _tables_of_promises(), re.M)
    assert len(promises) >= 40
    for promise, tests in promises:
        named = re.findall(r"`([\w/]*\.py)?::(\w+)`", tests)
        assert named, f"no test: {promise}"
        file = ""
        for path, test in named:
            file = path or file
            found = [ROOT / file] if "/" in file else [*(ROOT / "tests").rglob(file)]
            assert len(found) == 1, f"{file} of: {promise}"
            assert re.search(rf"^def {test}\(", found[0].read_text(), re.M), f"{file}::{test} of: {promise}"


def _tables_of_promises() -> str:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    tables = re.findall(r"^\|.*\| test \|\n\|[- |]+\|\n((?:\|.*\n)+)", text, re.M)
    return "".join(tables)


def test_the_page_of_the_structure_lists_the_rooms_as_they_are() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "structure.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_where_something_new_goes_is_there() -> None:
    """Every file and test that the table names exists."""
    page = (
        (ROOT / "docs" / "structure.md").read_text().split("## Where to put something new", 1)[1].split("\n## ", 1)[0]
    )
    named = [
        path
        for row in re.findall(r"^\| (?!what|---).*$", page, re.M)
        for path in re.findall(r"`([\w./]+/[\w./]*)`", row)
    ]
    assert len(named) >= 15
    assert not [path for path in named if not (ROOT / path).exists()]
