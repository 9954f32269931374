"""A sweep of 2,000 runs planned: CPU seconds, seconds and memory of its processes; and a run composed here and by Hydra.

    python benchmarks/plan.py

1. `train.py -m` with ten shapes of nano_wide and two hundred rates, `hydra/launcher=plan`: the whole command, and the same with
   ten runs, which is mostly its start
2. the configurations of such runs, composed by `shapelaw.sweep.compose` and by Hydra, one after the other
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from shapelaw.sweep.compose import Composer
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import set_environment

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("32x2", "32x4", "32x8", "32x16", "64x1", "64x2", "64x4", "64x8", "128x1", "128x2")
SUITE = "nano_wide"
RATES, FEW_RATES = 200, 4


@dataclass(frozen=True)
class Used:
    """What a command and the processes that it started took.

    Args:
        cpu_seconds: of all of them.
        seconds: by the clock.
        peak_mb: resident memory of the largest, in 1e6 bytes.
    """

    cpu_seconds: float
    seconds: float
    peak_mb: float


def rates(count: int) -> list[str]:
    """Values of lr_base."""
    return [f"{5 + number / 1000:g}" for number in range(count)]


def planned(count: int, environment: dict[str, str]) -> Used:
    """Plan the ten shapes at `count` rates each."""
    sweep = [f"shape={','.join(SHAPES)}", f"lr_base={','.join(rates(count))}", "hydra/launcher=plan"]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as table:
        process = subprocess.Popen([sys.executable, ROOT / "train.py", "-m", *sweep], env=environment, stdout=table)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        table.seek(0)
        runs = sum(" lr_base=" in line for line in table)
    assert (process.returncode, runs) == (0, count * len(SHAPES))
    return Used(used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss * 1024 / 1e6)


def plan() -> None:
    """The whole command."""
    with tempfile.TemporaryDirectory() as outputs:
        environment = os.environ | {"SHAPELAW_OUTPUTS": outputs, "SHAPELAW_SUITE": SUITE}
        subprocess.run([sys.executable, ROOT / "prepare.py"], env=environment, check=True, capture_output=True)
        few, many = planned(1, environment), planned(RATES, environment)
    for count, used in ((len(SHAPES), few), (RATES * len(SHAPES), many)):
        print(
            f"{count} runs planned: {used.cpu_seconds:.1f} CPU s, {used.seconds:.1f} s, largest process {used.peak_mb:.0f} MB"
        )
    further = (RATES - 1) * len(SHAPES)
    print(f"each further run: {(many.cpu_seconds - few.cpu_seconds) / further * 1e3:.1f} ms of CPU")


def compositions() -> None:
    """A run's configuration, composed in both ways."""
    os.environ["SHAPELAW_SUITE"] = SUITE
    set_environment(ROOT)
    store_schemas()
    with initialize_config_dir(str(ROOT / "conf")):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", ["hydra/launcher=plan"], RunMode.MULTIRUN)
    composer = Composer(loader, master)
    runs = [[f"shape={shape}", f"lr_base={rate}"] for shape in SHAPES for rate in rates(FEW_RATES)]
    many = [[f"shape={shape}", f"lr_base={rate}"] for shape in SHAPES for rate in rates(RATES)]
    by_hydra = _ms_each(lambda planned: loader.load_sweep_config(master, planned), runs)
    ours = _ms_each(composer.task, many)
    print(
        f"a run composed: by Hydra {by_hydra:.1f} ms (of {len(runs)}), here {ours:.2f} ms (of {len(many)}), "
        f"{by_hydra / ours:.0f} times less"
    )


def _ms_each(compose: Callable[[list[str]], object], runs: Sequence[list[str]]) -> float:
    """CPU milliseconds of one, on average."""
    start = time.process_time()
    for planned in runs:
        compose(planned)
    return (time.process_time() - start) / len(runs) * 1e3


def main() -> None:
    """Print the figures."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    plan()
    compositions()


if __name__ == "__main__":
    main()
