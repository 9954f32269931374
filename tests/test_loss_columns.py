"""A file with several losses: each column is fitted by the documented command."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import Script
from worlds import fitted, table


@pytest.mark.parametrize(("column", "scale"), [("c4", 1.0), ("wiki", 1.1)])
def test_any_loss_column_is_fitted(column: str, scale: float, script: Script, tmp_path: Path) -> None:
    runs = table()
    known = fitted("params_tokens")
    frame = runs.frame.drop(columns=["loss", "excluded"])
    loss = known.predict(runs)
    path = tmp_path / "runs.csv"
    frame.assign(c4=loss, wiki=1.1 * loss).to_csv(path, index=False)
    done = script(
        "fit.py", "runs=csv", f"runs.path={path}", f"+runs.columns={{loss: {column}}}", "bootstrap=none",
        "tracker=none", "plots=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"E = {scale * known.parameters['E']:.6g} nats" in done.stdout
