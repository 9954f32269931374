"""Laws that shapelaw does not ship: from a user's file, in Python and on the command line, and from an installed package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_spec import frame

from shapelaw import RunsTable, UserError, fit, load_fit
from shapelaw.laws import Law, get_law, law_names, reference_of
from support import ROOT, Script

FILE = """
import numpy as np

from shapelaw.laws import Law, SumLaw, Term


class Shifted(Law):
    name = "shifted"
    formula = "L = E + A/params^alpha + B/tokens^beta"
    source = "this test"
    predictors = ("params", "tokens")
    parameters = ("A", "B", "alpha", "beta", "E")
    log_parameters = frozenset({"A", "B", "E"})
    exponents = ("alpha", "beta")
    irreducible = "E"

    def log_prediction(self, theta, columns):
        x, y = np.log(columns["params"]), np.log(columns["tokens"])
        return np.logaddexp(np.logaddexp(theta[0] - theta[2] * x, theta[1] - theta[3] * y), theta[4])


MINE = Shifted()
ONE_TERM = SumLaw("one_term", "L = A/tokens^alpha + E", "this test", (Term("A", falls={"tokens": "alpha"}),))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my laws.py"
    path.write_text(FILE)
    return path


def test_a_law_of_a_file_is_fitted_saved_and_read_back(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = RunsTable(frame())
    result = fit(table, law="my laws.py:MINE", delta=1e-2, grid_size=4, bootstrap={"n": 3})
    assert result.law == f"{file}:MINE"
    assert result.objective == pytest.approx(fit(table, "params_tokens", delta=1e-2).objective, rel=1e-7)
    monkeypatch.chdir(tmp_path.parent)  # it is found from any folder
    back = load_fit(result.save(tmp_path / "fit"))
    assert back == result
    np.testing.assert_array_equal(back.predict(table), result.predict(table))
    assert reference_of(get_law(f"{file}:MINE")) == f"{file}:MINE"
    assert get_law(f"{file}:ONE_TERM").name == "one_term"


def test_a_fit_whose_law_was_changed_or_is_gone_is_refused(file: Path, tmp_path: Path) -> None:
    path = fit(RunsTable(frame()), law=f"{file}:ONE_TERM", grid_size=4).save(tmp_path / "fit")
    file.write_text(FILE + "\n# changed\n")
    with pytest.raises(UserError, match=r"fit\.json: law=.*ONE_TERM: the file was changed after the fit .*fit again"):
        load_fit(path)
    file.unlink()
    with pytest.raises(UserError, match=r"fit\.json: law=.*ONE_TERM: .* cannot be read .*restore it, or fit again"):
        load_fit(path)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (FILE, "YOURS", r"has no law YOURS; allowed names are MINE, ONE_TERM"),
        (FILE, "Shifted", "has no law Shifted; allowed names are MINE"),
        ("x = 1", "MINE", "allowed names are none: the file has no law"),
        ("import nothing_of_this_name", "MINE", r"running .* fails \(ModuleNotFoundError: .*correct it there"),
        ("def f(:", "MINE", r"running .* fails \(SyntaxError"),
    ],
)
def test_files_without_the_law_are_named(tmp_path: Path, content: str, name: str, message: str) -> None:
    (tmp_path / "law.py").write_text(content)
    with pytest.raises(UserError, match=message):
        get_law(f"{tmp_path}/law.py:{name}")


def test_a_missing_file_and_a_misspelt_name_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"law=.*none\.py:MINE: .* cannot be read \(No such file"):
        get_law(f"{tmp_path}/none.py:MINE")
    with pytest.raises(
        UserError, match=r"law=intraction: allowed values are .*interaction.*steps_batch.*path/to/file\.py:NAME"
    ):
        get_law("intraction")


def test_fit_py_takes_a_law_of_a_file_beside_named_ones(
    here: Script, file: Path, tmp_path: Path, outputs: Path
) -> None:
    frame().to_csv(tmp_path / "runs.csv", index=False)
    law = file.rename(tmp_path / "laws.py")
    options = (
        "runs=csv",
        f"runs.path={tmp_path}/runs.csv",
        "bootstrap=none",
        "tracker=none",
        "plots=false",
        "delta=1e-2",
    )
    done = here("fit.py", "-m", f"law=params_tokens,{law}:MINE", "grid_size=6", *options)
    assert done.returncode == 0, done.stderr
    folders = {path.name.rsplit("-", 1)[0]: path for path in (outputs / "fits").iterdir()}
    assert set(folders) == {"params_tokens", "shifted"}
    saved = json.loads((folders["shifted"] / "fit.json").read_text())
    assert saved["law"] == f"{law}:MINE"
    assert len(saved["law_sha256"]) == 64
    fits = [load_fit(folder) for folder in folders.values()]
    assert fits[0].objective == pytest.approx(fits[1].objective, rel=1e-7)
    again = here("fit.py", "-m", f"law=params_tokens,{law}:MINE", "grid_size=6", *options)
    assert "2 already finished" in again.stderr
    law.write_text(FILE + "\n# changed\n")
    refused = here("fit.py", f"law={law}:NOTHING", *options)
    assert refused.returncode == 2
    assert "has no law NOTHING" in refused.stderr
    assert refused.stderr.count("\n") == 1


PACKAGE = {
    "brought.py": FILE.replace('name = "shifted"', 'name = "brought"')
    + "\nopen(__file__ + '.imported', 'w').close()\n",
    "brought-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n",
    "brought-1.0.dist-info/entry_points.txt": (
        "[shapelaw.laws]\nbrought = brought:MINE\nbroken = brought:NOTHING\nwrong = brought:ONE_TERM\n"
    ),
}


def test_a_package_brings_laws_that_are_listed_without_being_imported(tmp_path: Path) -> None:
    for name, content in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from pathlib import Path
from shapelaw.errors import UserError
from shapelaw.laws import get_law, law_names
imported = Path({str(tmp_path)!r}, "brought.py.imported")
assert "brought" in law_names() and not imported.exists()
assert "shapelaw.step_batch.law" not in sys.modules
for name, words in (("none", "brought"), ("broken", "cannot be imported"), ("wrong", "is not a law with that name")):
    try:
        get_law(name)
    except UserError as error:
        assert words in str(error), error
    else:
        raise AssertionError(name)
assert get_law("brought").formula.startswith("L = E")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_step_and_batch_law_is_brought_as_a_package_would() -> None:
    assert {"steps_batch", "steps_batch_e"} <= set(law_names())
    sources = [path.read_text() for path in (ROOT / "src/shapelaw/laws").glob("*.py")]
    assert not [text for text in sources if "step_batch" in text.replace("steps_batch", "")]


def test_the_law_in_the_documentation_is_one(tmp_path: Path) -> None:
    """The example of docs/laws.md, as it stands there, from a file: its own derivative and a fit."""
    text = (ROOT / "docs" / "laws.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (tmp_path / "my_laws.py").write_text(example)
    law = get_law(f"{tmp_path}/my_laws.py:LOG_TOKENS")
    assert isinstance(law, Law)
    table = RunsTable(frame())
    result = fit(table, law=law, delta=1e-2, grid_size=6)
    assert result.law == f"{tmp_path}/my_laws.py:LOG_TOKENS"
    assert np.isfinite(result.predict(table)).all()
