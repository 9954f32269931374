"""Reading the runs table out of MLflow's database, and what a week-long run does to it. Seconds, printed with the load.

    python benchmarks/read_runs.py

1. 200 runs of 1,000 values of each metric: `read_runs`, directly and by MLflow's interface
2. a run of 2e5 steps, every step recorded: seconds to record one, to take the journal up again, to deliver and to read it
3. 20,000 runs that something else tracked, each with 20 parameters and 50 values of three metrics: `load_runs` by a mapping of
   columns (`python benchmarks/read_runs.py many` measures this alone)
"""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from shapelaw.runs import load_runs
from shapelaw.tracking import MlflowTracker, RunInfo, Store, client, open_store, read_runs, reading
from shapelaw.tracking.histories import by_interface
from shapelaw.tracking.journal import Journal

RUNS, VALUES, STEPS = 200, 1_000, 200_000
MANY, SOME = 20_000, 50
KEYS = (
    "train/loss",
    "train/lr",
    "train/grad_norm",
    "speed/seconds_per_step",
    "val/loss",
    "cost/flops",
    "cost/device_hours",
)
SHAPE = {"suite": "bench", "width": 256, "depth": 8, "head_size": 64, "params": 10**7, "vocab_size": 50304}
RUN = {"seq_len": 128, "batch_tokens": 2048, "lr_base": 5.0, "tokens": 2048 * STEPS, "cooldown": 0.0, "num_devices": 1}
PARAMS = {**SHAPE, **RUN, "flops_per_token": 6e7}


def fill(uri: str, folder: str) -> None:
    """Runs made by the tracker's own interface, their values put into the database by SQL, as it has them."""
    experiment = open_store(uri, folder, "bench")
    store = client(uri)
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    for number in range(RUNS):
        tags = {"shapelaw.identity": f"run{number}", "shapelaw.kind": "train"}
        run = store.create_run(experiment, tags=tags)
        from mlflow.entities import Metric, Param

        store.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in PARAMS.items()])
        last = [Metric(key, 3.0, 10**12, 2048 * VALUES) for key in KEYS]
        store.log_batch(run.info.run_id, metrics=last)
        rows = [(key, 3.0 + 1 / s, 10**12, run.info.run_id, 2048 * s, 0) for key in KEYS for s in range(1, VALUES)]
        insert = "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
        database.executemany(insert, rows)
        database.commit()
    database.close()


def timed(title: str, work: object) -> None:
    assert callable(work)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    print(f"{title}: {time.perf_counter() - wall:.2f} s, {time.process_time() - cpu:.2f} s of them CPU of this process")


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        fill(uri, folder)
        size = Path(uri.removeprefix("sqlite:///")).stat().st_size / 1e6
        print(f"{RUNS} runs x {VALUES} values of {len(KEYS)} metrics, a database of {size:.0f} MB")
        timed("read_runs, directly", lambda: read_runs(uri, "bench"))
        direct = reading.histories
        reading.histories = lambda uri, store, ids, keys: by_interface(store, ids, keys)  # type: ignore[assignment]
        timed("read_runs, by MLflow's interface", lambda: read_runs(uri, "bench"))
        reading.histories = direct
        week(uri, folder)
    many()


def many() -> None:
    """Runs put into the database by SQL, as MLflow would have them."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        experiment = open_store(uri, folder, "theirs")
        client(uri).create_run(experiment, run_name="first")
        with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
            put_many(database)
        size = Path(uri.removeprefix("sqlite:///")).stat().st_size / 1e6
        print(f"{MANY} runs x {SOME} values of 3 metrics and 20 parameters, a database of {size:.0f} MB")
        columns = {"loss": "eval/loss", "params": "n_params"}
        timed("load_runs", lambda: load_runs("mlflow", uri=uri, experiment="theirs", columns=columns))
        print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def put_many(database: sqlite3.Connection) -> None:
    names = [name for _, name, *_ in database.execute("PRAGMA table_info(runs)")]
    first = dict(zip(names, database.execute("SELECT * FROM runs").fetchone(), strict=True))
    ids = [f"{number:032x}" for number in range(MANY)]
    runs = [
        [(first | {"run_uuid": own, "name": own[-6:], "status": "FINISHED"})[name] for name in names] for own in ids
    ]
    params = [(own, "n_params", str(10**7 * (1 + k % 50))) for k, own in enumerate(ids)]
    params += [(own, f"setting{k}", f"value{k}") for own in ids for k in range(19)]
    values = [
        (key, value, 10**12, own, step, 0)
        for own in ids
        for step in range(1, SOME + 1)
        for key, value in (("eval/loss", 3 + 1 / step), ("tokens", step * 1e7), ("train/loss", 4.0))
    ]
    metric = "(key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
    database.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * len(names))})", runs)
    database.executemany("INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?)", params)
    database.executemany(f"INSERT INTO metrics {metric}", values)
    database.executemany(f"INSERT INTO latest_metrics {metric}", [row for row in values if row[4] == SOME])
    database.commit()


def week(uri: str, folder: str) -> None:
    root = Path(folder) / "week"
    info = RunInfo("week", "train", "week", PARAMS, {})
    run = MlflowTracker(Store(uri, folder, "week"), info, root, finish_seconds=3600)
    spent = []
    for step in range(1, STEPS + 1):
        start = time.perf_counter()
        run.log({key: 3.0 + 1 / step for key in KEYS[:4]}, 2048 * step)
        if step % 1000 == 0:
            run.log({key: 3.0 + 1 / step for key in KEYS[4:]}, 2048 * step)
        spent.append(time.perf_counter() - start)
    tenth = STEPS // 10
    first, last = statistics.median(spent[:tenth]), statistics.median(spent[-tenth:])
    print(
        f"recording a step: {1e6 * first:.0f} us in the first tenth of {STEPS} steps, {1e6 * last:.0f} us in the last"
    )
    run.finish("FINISHED")
    timed("delivering what is left of them", run.close)
    print(f"the journal: {(root / 'tracking.jsonl').stat().st_size / 1e6:.0f} MB")
    timed("taking the journal up again", lambda: Journal(root))
    timed("read_runs of the week-long run", lambda: read_runs(uri, "week"))


if __name__ == "__main__":
    many() if sys.argv[1:] == ["many"] else main()
