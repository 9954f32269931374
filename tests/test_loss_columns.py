"""Several losses of a run: further held-out sets of training, columns of a file; each is fitted by its command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shapelaw import load_runs
from shapelaw.data import BytesChoice, TextSource, prepare
from shapelaw.errors import UserError
from support import Script, Sweep
from worlds import fitted, table


def fit_of(script: Script, path: Path, *arguments: str) -> str:
    done = script(
        "fit.py", "runs=csv", f"runs.path={path}", "law=params_tokens", *arguments, "bootstrap=none", "tracker=none",
        "plots=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_any_loss_column_is_fitted(script: Script, tmp_path: Path) -> None:
    runs, known = table(), fitted("params_tokens")
    loss, path = known.predict(runs), tmp_path / "runs.csv"
    frame = runs.frame.drop(columns=["excluded"])
    frame.assign(loss=loss, wiki=1.1 * loss, loss_c4=0.9 * loss).to_csv(path, index=False)
    irreducible = known.parameters["E"]
    assert f"E = {1.1 * irreducible:.6g} nats" in fit_of(script, path, "runs.columns={loss: wiki}")
    assert f"E = {0.9 * irreducible:.6g} nats" in fit_of(script, path, "runs.loss=c4")
    with pytest.raises(UserError, match="further losses are c4"):
        load_runs("csv", path=path, loss="c5")


@pytest.fixture
def other(corpora: Path, tmp_path: Path) -> str:
    """A second corpus by the same tokenizer; the folder's name."""
    (tmp_path / "texts").mkdir()
    for number in range(30):
        (tmp_path / "texts" / f"{number}.txt").write_text(
            f"Chapter {number}. " + "It was a dark and stormy night. " * 40
        )
    folder = corpora / "stormy-bytes"
    source = TextSource((str(tmp_path / "texts"),))
    prepare(source, BytesChoice(), folder, val_fraction=0.3, shard_tokens=2**15, workers=1)
    return folder.name


def test_further_held_out_sets_are_measured(sweep: Sweep, outputs: Path, other: str) -> None:
    """The training corpus named once more gives the same losses; another one its own."""
    done = sweep("shape=16x1", f"validation.further={{same: text-bytes, stormy: {other}}}")
    assert done.returncode == 0, done.stderr
    runs = load_runs("mlflow", uri=f"sqlite:///{outputs}/mlflow.db", experiment="tiny")
    np.testing.assert_array_equal(runs.frame["loss_same"], runs.frame["loss"])
    assert (runs.frame["loss_stormy"] != runs.frame["loss"]).all()
    again = load_runs("mlflow", uri=f"sqlite:///{outputs}/mlflow.db", experiment="tiny", loss="stormy")
    np.testing.assert_array_equal(again.kept["loss"], runs.kept["loss_stormy"])


@pytest.mark.parametrize(
    ("further", "said"), [("{x: nowhere}", "there is no prepared corpus"), ("{x-y: text-bytes}", "cannot name a loss")]
)
def test_a_further_set_that_is_not_there_is_refused(further: str, said: str, sweep: Sweep) -> None:
    done = sweep("shape=16x1", f"validation.further={further}")
    assert done.returncode == 2
    assert said in done.stderr
