"""Parts that an installed package registers by entry points: choices of their groups, the same runs as by their module."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import RunsTable, UserError, fit, load_fit
from shapelaw.laws import get_law
from shapelaw.plugins import installed, load, reference_to
from shapelaw.run_state import Status, read_state
from shapelaw.tracking import VAL_LOSS, check_tracker
from shapelaw.tracking.mlflow_tracker import FolderTracker, OwnedTracker
from shapelaw.tracking.own_delivery import OwnDelivery, deliver_to_own
from support import ROOT, Compose, Door, prepared
from tracked import info, journaled, store_of

EXAMPLES = ROOT / "examples"
LAWS = """
from shapelaw.laws import SumLaw, Term

MINE = SumLaw(
    "mine", "L = A/params^alpha + B/tokens^beta + E", "this test",
    (Term("A", falls={"params": "alpha"}), Term("B", falls={"tokens": "beta"})),
)
"""
ENTRIES = {
    "models": "mixer = lab_parts.models:Mixer",
    "optimizers": "lab_lion = lab_parts.lion:lion",
    "schedules": "lab_sqrt = lab_parts.courses:inverse_sqrt",
    "cooldowns": "lab_power = lab_parts.courses:power",
    "trackers": "lab_csv = lab_parts.csv_tracker:CsvTracker",
    "laws": "lab_law = lab_parts.laws:MINE",
}
BROKEN = "\nnothing = lab_parts.models"
CHOICES = {"model": "mixer", "optim": "lab_lion", "schedule": "lab_sqrt", "tracker": "lab_csv"}
REFERENCES = {"model": "lab_parts.models:Mixer", "optim": "lab_parts.lion:lion"}
REFERENCES |= {"schedule": "lab_parts.courses:inverse_sqrt", "tracker": "lab_parts.csv_tracker:CsvTracker"}


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(7, 9, 24), 10 ** rng.uniform(9, 11, 24)
    loss = (1.7 + 400 / params**0.34 + 400 / tokens**0.28) * np.exp(0.01 * rng.standard_normal(24))
    return pd.DataFrame({"run": np.arange(24).astype(str), "params": params, "tokens": tokens, "loss": loss})


def words(choices: dict[str, str]) -> list[str]:
    return [f"{group}={choice}" for group, choice in choices.items()]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a package of parts, as pip would leave it: modules, and a dist-info that registers them."""
    site = tmp_path / "site"
    (site / "lab_parts").mkdir(parents=True)
    (site / "lab_parts-1.0.dist-info").mkdir()
    guide = (ROOT / "docs" / "your_model.md").read_text()
    (site / "lab_parts/models.py").write_text(guide.split("```python\n")[1].split("```")[0])
    for name in ("lion", "courses", "csv_tracker"):
        (site / f"lab_parts/{name}.py").write_text((EXAMPLES / f"{name}.py").read_text())
    (site / "lab_parts/laws.py").write_text(LAWS)
    (site / "lab_parts/__init__.py").write_text("")
    about = site / "lab_parts-1.0.dist-info"
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lab_parts\nVersion: 1.0\n")
    entries = "\n".join(f"[shapelaw.{group}]\n{line}" for group, line in ENTRIES.items())
    (about / "entry_points.txt").write_text(entries.replace(ENTRIES["models"], ENTRIES["models"] + BROKEN))
    monkeypatch.syspath_prepend(str(site))
    _forget()
    yield site / "lab_parts"
    _forget()
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab_parts"]:
        del sys.modules[name]


def _forget() -> None:
    installed.cache_clear()
    load.cache_clear()


def test_a_registered_name_is_short_for_its_module(package: Path, composed: Compose) -> None:
    config, planned = prepared(composed, *words(CHOICES), "tracker=lab_csv")
    assert (config.model.name, config.optim.name) == (REFERENCES["model"], REFERENCES["optim"])
    assert (config.schedule.name, config.tracker.name) == (REFERENCES["schedule"], REFERENCES["tracker"])
    assert prepared(composed, *words(REFERENCES))[1].identity == planned.identity
    branch = ("cooldown.fraction=0.5", "cooldown=lab_power")
    assert prepared(composed, *words(CHOICES), *branch)[0].cooldown.name == "lab_parts.courses:power"
    (package / "lion.py").write_text((package / "lion.py").read_text() + "# edited\n")
    assert prepared(composed, *words(CHOICES))[1].identity != planned.identity


def test_a_run_of_registered_parts(package: Path, outputs: Path, corpora: Path, tmp_path: Path, door: Door) -> None:
    """All parts at once, from the door: trained, and recorded by the package's tracker, number for number."""
    options = (f"+tracker.options.folder={tmp_path}/losses", "lr_base=1", "shape=16x1", f"data_dir={corpora}")
    code, said = door("train", *words(CHOICES), *options)
    assert code == 0, said
    (folder,) = (path.parent for path in outputs.rglob("tracking.jsonl"))
    assert read_state(folder).status is Status.finished
    (file,) = (tmp_path / "losses").iterdir()
    *rows, last = csv.reader(file.read_text().splitlines())
    assert last == ["", "status", "FINISHED"]
    assert sorted((name, int(tokens), float(value)) for tokens, name, value in rows) == journaled(folder)
    assert VAL_LOSS in {name for _, name, _ in rows}
    assert door("train", *words(CHOICES), *options)[0] == 0
    assert len(file.read_text().splitlines()) == len(rows) + 1  # nothing is handed over twice


@pytest.mark.parametrize(
    ("group", "choice", "said"),
    [
        (
            "model",
            "mixxer",
            "allowed values are mixer, nothing, transformer, path/to/file.py:NAME, package.module:NAME",
        ),
        ("model", "nothing", "registers lab_parts.models, which is not package.module:NAME; correct its entry point"),
        ("tracker", "lab_parts.courses:inverse_sqrt", "does not take (info, folder): missing a required argument"),
        (
            "tracker",
            "lab_csv +tracker.options.place=x",
            "does not take (info, folder, place): got an unexpected keyword",
        ),
        ("tracker", "lab_parts.laws:MINE", "is a SumLaw, which cannot be called"),
        ("tracker", "lab_parts.nowhere:It", "importing lab_parts.nowhere fails"),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_refused(
    package: Path, outputs: Path, corpora: Path, door: Door, group: str, choice: str, said: str
) -> None:
    code, text = door("train", *f"{group}={choice}".split(), f"data_dir={corpora}")
    assert (code, said in text) == (2, True), text
    assert text.count("\n") == 1
    assert not outputs.exists() or not [*outputs.rglob("tracking.jsonl")]


def test_a_tracker_needs_its_methods(tmp_path: Path) -> None:
    (tmp_path / "lacks.py").write_text(
        "class Lacks:\n    def __init__(self, info, folder): ...\n    def log(self, m, t): ...\n"
    )
    with pytest.raises(UserError, match=r"lacks\.py:Lacks: has no method finish; it is called as"):
        check_tracker(f"{tmp_path}/lacks.py:Lacks", {})


FAILING = """
import json
from pathlib import Path

class Picky:
    '''Takes nothing of metrics until its file `open` is there.'''
    def __init__(self, info, folder):
        self.folder = folder
    def log(self, metrics, tokens):
        if not (self.folder / "open").exists():
            raise ConnectionError("the lab's store is away\\nwith a second line")
        with (self.folder / "taken").open("a") as file:
            file.write(json.dumps([tokens, metrics]) + "\\n")
    def finish(self, status):
        (self.folder / "status").write_text(status)
"""


def test_what_a_tracker_did_not_take_is_handed_to_it_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A tracker that raises costs no run and no record; one line says so."""
    (tmp_path / "picky.py").write_text(FAILING)
    reference, folder = f"{tmp_path}/picky.py:Picky", tmp_path / "abc"
    run = OwnedTracker(store_of("", tmp_path), info("abc"), folder, 0.05, reference, {})
    run.tag({"no": "method"})
    run.log({VAL_LOSS: 2.5}, 128)
    run.log({VAL_LOSS: float("nan")}, 256)
    run.finish("FINISHED")
    run.close()
    assert "has not taken all of" in caplog.text
    assert "ConnectionError: the lab's store is away);" in caplog.text
    assert not (folder / "status").exists()
    (folder / "open").touch()
    assert deliver_to_own(folder, reference, {}) is None
    assert (folder / "taken").read_text() == '[128, {"val/loss": 2.5}]\n[256, {"val/loss": NaN}]\n'
    assert (folder / "status").read_text() == "FINISHED"
    assert not OwnDelivery(folder, reference, {}).left


def test_a_journal_names_no_file_outside_of_its_run(tmp_path: Path) -> None:
    (tmp_path / "keeps.py").write_text(
        FAILING + "    def artifact(self, path):\n        (self.folder / 'kept').write_text(path.read_text())\n"
    )
    (tmp_path / "secret").write_text("secret")
    run = FolderTracker(store_of("", tmp_path), info("abc"), tmp_path / "abc")
    run.artifact(tmp_path / "secret")
    run.finish("FINISHED")
    run.close()
    assert deliver_to_own(tmp_path / "abc", f"{tmp_path}/keeps.py:Picky", {}) is None
    assert (tmp_path / "abc/status").exists()
    assert not (tmp_path / "abc/kept").exists()


def test_a_law_of_a_module_is_fitted_saved_and_held_to_its_code(package: Path, tmp_path: Path) -> None:
    reference = "lab_parts.laws:MINE"
    assert reference_to("law", "lab_law") == reference
    result = fit(RunsTable(frame()), law=reference, delta=1e-2, grid_size=4)
    path = result.save(tmp_path / "fit")
    assert (result.law, load_fit(path)) == (reference, result)
    (package / "lion.py").write_text("# another file of the package\n")
    with pytest.raises(UserError, match=r"law=lab_parts\.laws:MINE: the package was changed after the fit"):
        load_fit(path)
    with pytest.raises(UserError, match=r"lab_parts\.laws has no law YOURS; allowed names are MINE"):
        get_law("lab_parts.laws:YOURS")
    with pytest.raises(UserError, match=r"there is no package lab_nothing here; install it"):
        get_law("lab_nothing:MINE")


def test_fit_takes_a_registered_law(package: Path, outputs: Path, tmp_path: Path, door: Door) -> None:
    frame().to_csv(tmp_path / "runs.csv", index=False)
    table = ("runs=csv", f"runs.path={tmp_path}/runs.csv", "bootstrap=none", "tracker=none", "plots=false")
    code, said = door("fit", "law=lab_law", "delta=1e-2", "grid_size=4", *table)
    assert code == 0, said
    (folder,) = (outputs / "fits").iterdir()
    assert load_fit(folder).law == "lab_parts.laws:MINE"
    (package / "laws.py").write_text(LAWS + "\n# edited\n")
    assert door("fit", "law=lab_law", "delta=1e-2", "grid_size=4", *table)[0] == 0
    assert len([*(outputs / "fits").iterdir()]) == 2
