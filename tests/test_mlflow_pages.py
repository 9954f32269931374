"""MLflow's own pages on real runs and fits, in a real browser: what a sweep trained can be compared there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from browser import browser, resize
from shapelaw.tracking import client
from support import ROOT, Script, Sweep
from worlds import fitted, table

SECONDS = 180
ROW = ".ag-row input[aria-label*='row selection']"
CURVES = "return [...document.querySelectorAll('.js-plotly-plot')].map((plot) => [plot.querySelectorAll("
CURVES += "'.scatterlayer .trace').length, plot.querySelectorAll('.points path').length, plot.textContent])"


@contextlib.contextmanager
def served(outputs: Path) -> Iterator[str]:
    """`make ui` on a free port, on the runs of this test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ready = f"{sys.prefix}/.ready"  # -o: this environment is as it should be
    command = ["make", "-C", str(ROOT), "-o", ready, "ui", f"VENV={sys.prefix}", f"PORT={port}"]
    with (outputs / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ))
        try:
            yield _answering(f"http://127.0.0.1:{port}", server)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


def _answering(address: str, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return address
        time.sleep(0.3)
    pytest.fail("MLflow's server did not come up")


def until(page: Chrome, found: Callable[[Chrome], object]) -> object:
    """What is found, as soon as it is there: the page draws itself anew while it loads."""
    return WebDriverWait(page, SECONDS, 0.3, [WebDriverException, IndexError]).until(found)


def text(page: Chrome) -> str:
    return page.find_element(By.TAG_NAME, "body").text


def curves(page: Chrome, *said: str) -> tuple[int, int]:
    """Curves and points of the first drawn plot whose labels say all that."""
    plots = [plot for plot in page.execute_script(CURVES) if all(one in plot[2] for one in said)]
    return (plots[0][0], plots[0][1]) if plots else (0, 0)


def click(page: Chrome, selector: str, place: int = 0) -> None:
    def found(page: Chrome) -> bool:
        page.execute_script("arguments[0].click()", page.find_elements(By.CSS_SELECTOR, selector)[place])
        return True

    until(page, found)


def three_fits(here: Script, folder: Path) -> None:
    """The same known law at three deltas."""
    runs = table()
    path = folder / "runs.csv"
    runs.frame.drop(columns="excluded").assign(loss=fitted("params_tokens").predict(runs)).to_csv(path, index=False)
    options = ("law=params_tokens", "delta=1e-2,1e-3,1e-4", "bootstrap=none", "plots=false")
    done = here("fit.py", "-m", "runs=csv", f"runs.path={path}", *options)
    assert done.returncode == 0, done.stderr


def test_a_sweep_and_its_fits_are_compared(sweep: Sweep, here: Script, outputs: Path, tmp_path: Path) -> None:
    assert sweep("-m", "shape=16x1,32x1", "lr_base=5").returncode == 0
    done = sweep("-m", "shape=16x2", "lr_base=5,2.5")
    assert done.returncode == 0
    three_fits(here, tmp_path)
    store = client(f"sqlite:///{outputs}/mlflow.db")
    numbers = {name: store.get_experiment_by_name(name).experiment_id for name in ("tiny", "fits")}
    runs = store.search_runs([numbers["tiny"]], "tags.`shapelaw.kind` = 'train' and params.depth = '2'")
    (identity,) = {run.data.tags["shapelaw.sweep"] for run in runs}
    with served(outputs) as address, browser(tmp_path / "profile") as page:
        resize(page, 1400, 1000)
        view = "runs?viewStateShareKey=shapelaw&compareRunsMode=CHART"
        assert f"/#/experiments/{numbers['tiny']}/{view}" in done.stdout  # as the sweep says at its end
        page.get(f"{address}/#/experiments/{numbers['tiny']}/{view}")
        _the_sweep_alone(page, identity)
        _compared(page)
        page.get(f"{address}/#/experiments/{numbers['fits']}/{view}")
        until(page, lambda page: curves(page, "log10_delta", "compute_optimal_exponent")[1] == 3)
        assert "3 matching runs" in text(page)


def _the_sweep_alone(page: Chrome, identity: str) -> None:
    """Four runs, then the two of a sweep, both with their curves against FLOPs and against tokens."""
    until(page, lambda page: "4 matching runs" in text(page))
    box = until(page, lambda page: page.find_element(By.CSS_SELECTOR, "[data-testid='search-box']"))
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(f"tags.`shapelaw.sweep` = '{identity}'", Keys.ENTER)
    until(page, lambda page: "2 matching runs" in text(page))
    for axis in ("cost/flops", "cost/tokens"):
        until(page, lambda page, axis=axis: curves(page, axis) in ((2, 10), (4, 10)))  # curves twice where smoothed


def _compared(page: Chrome) -> None:
    """MLflow's page of two runs: their names, what differs, and both curves."""
    for place in range(2):
        click(page, ROW, place)
    click(page, "[data-testid='runs-compare-button']:not([disabled])")
    until(page, lambda page: "16x2 lr_base=2.5" in text(page) and "16x2 lr_base=5" in text(page))
    shown = text(page)
    assert "lr_base" in shown
    click(page, "a[href*='metric'][href*='val']")
    names = [f"16x2 lr_base={rate} (val/loss)" for rate in ("5", "2.5")]
    until(page, lambda page: all(name in text(page) for name in names) and curves(page, "Step")[0] >= 2)
