"""The dry run: a table and nothing else; costs beside the paper's own; the named sweeps on every suite."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from shapelaw.errors import UserError
from shapelaw.run_state import State, Status, read_state, write_state
from shapelaw.training.cost import device_hours
from shapelaw.verbs.train import TrainTask
from support import ROOT, Compose, Script

PLAN = ("-m", "hydra/launcher=plan")


def totals(said: str) -> int:
    found = re.search(r"all: (\d+)", said)
    assert found, said
    return int(found.group(1))


def test_the_plan_lists_every_run_and_creates_nothing(here: Script, outputs: Path) -> None:
    done = here("train.py", *PLAN, "shape=glob(*)", "lr_base=5,2.5", "cooldown=none,linear10")
    assert done.returncode == 0, done.stderr
    assert totals(done.stdout) == 12
    rows = [line for line in done.stdout.splitlines() if "cooldown@" in line]
    assert len(rows) == 6
    assert all(line.split()[0] in line.rsplit(maxsplit=2)[1] for line in rows), "each names the run it comes after"
    assert not outputs.exists()


def test_the_plan_tells_micro_batch_and_memory_of_the_device(here: Script) -> None:
    """2048x27 on a GCD of 64 GiB and on an H200: never more than the allowed share, and more sequences on the larger."""
    sequences = {}
    for device, memory_gib in (("MI250", 64), ("H200", 141)):
        named = ("sweeps=gemstones", "shape=2048x27,256x23", f"hydra.launcher.device={device}")
        done = here("train.py", *PLAN, *named, SHAPELAW_SUITE="gemstones")
        row = next(line.split() for line in done.stdout.splitlines() if line.strip().startswith("2048x27"))
        assert 0.4 * memory_gib < float(row[-1]) <= 0.8 * memory_gib
        sequences[device] = int(row[-2])
    assert 1 <= sequences["MI250"] < sequences["H200"]


def test_shapes_that_a_device_cannot_hold_are_flagged_and_refused(here: Script) -> None:
    """Weights, moments and gradients of 2048x27 in float32 alone are more than a V100 has, and 256x23 fits."""
    named = ("sweeps=gemstones", "shape=2048x27,256x23", "hydra.launcher.device=V100")
    done = here("train.py", *PLAN, *named, SHAPELAW_SUITE="gemstones")
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if re.match(r" *\d+x\d+ ", line)}
    found = re.search(r" 1 +([\d.]+) > ([\d.]+) *$", rows["2048x27"])
    assert found, rows["2048x27"]
    assert float(found[1]) > 1_904_850_944 * 16 / 2**30
    assert float(found[2]) == 0.8 * 16
    assert ">" not in rows["256x23"]
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "2048x27 lr_base=5: does not fit on V100: a step takes" in done.stderr
    assert (
        "1 sequence at a time, and limits.memory_share allows 12.8; split the model over several devices with "
        "parallel=fsdp" in done.stderr
    )
    forced = here("train.py", *PLAN, *named, "force=true", SHAPELAW_SUITE="gemstones")
    assert (forced.returncode, forced.stderr) == (0, "")


SITE = (*PLAN, "sweeps=gemstones", "hydra.launcher.site=frontier")


def test_the_plan_of_a_cluster(here: Script, data_dir: Path) -> None:
    """2048x27 on 64 nodes of eight dies, by hand from FLOPs, rate and the site's limits. Totals of all 22 by nodes: as many
    runs on as many nodes as were published, in node hours within a factor of two of theirs, and fewer."""
    done = here("train.py", *SITE, SHAPELAW_SUITE="gemstones")
    assert (done.returncode, done.stderr) == (0, "")
    assert "estimated for MI250X" in done.stdout
    row = next(line.split() for line in done.stdout.splitlines() if line.strip().startswith("2048x27"))
    nodes, devices, limit, device_hours, wall_hours, jobs, sequences, memory = row[-8:]
    assert (nodes, devices, limit) == ("64", "512", "120")
    hours = 4.21e21 / (0.3 * 1.9e14) / 3600
    assert float(device_hours.replace(",", "")) == pytest.approx(hours, rel=2e-3)
    assert float(wall_hours) == pytest.approx(hours / 512, rel=2e-3)
    assert int(jobs) == math.ceil(hours / 512 / ((120 * 60 - 300) / 3600))
    assert 1 <= int(sequences) <= 2048 / 512, "a die's share of a batch of 2048 sequences"
    assert 1_904_850_944 * 16 / 2**30 < float(memory) < 0.8 * 64, (
        "weights, moments and gradients in float32 are the least"
    )
    lines = [line.split() for line in done.stdout.split("to run, by nodes")[1].splitlines()]
    runs = pd.read_json(data_dir / "gemstones" / "runs" / "wandb_df_for_fitting_hot.jsonl", lines=True)
    runs = runs.groupby("run_name").first()
    counts = [(int(line[0]), int(line[1])) for line in lines if line and line[0].isdigit()]
    assert counts == sorted(runs.num_nodes.value_counts().items())
    total = next(line for line in lines if line and line[0] == "all")
    node_hours = (runs.seconds_per_step * 83_475 * runs.num_nodes / 3600).sum()
    assert 1 / 2 < float(total[5].replace(",", "")) / node_hours < 1


@pytest.mark.parametrize("site", ["frontiers", "local"])
def test_a_site_that_is_no_cluster_is_refused(here: Script, site: str) -> None:
    done = here("train.py", *PLAN, "lr_base=5,2", f"hydra.launcher.site={site}")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert (
        f"hydra.launcher.site={site}: no such cluster; allowed values are slurm and launchers that start from it"
        in done.stderr
    )


def test_a_limit_that_leaves_no_time_to_train_is_refused(here: Script) -> None:
    done = here("train.py", *SITE, "resources.timeout_min=5", SHAPELAW_SUITE="gemstones")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "may take 5 minutes and is told to checkpoint 300 seconds before" in done.stderr


def test_the_plan_knows_what_there_is(here: Script, script: Script, outputs: Path) -> None:
    first = here("train.py", *PLAN, "shape=16x1", "lr_base=5,2.5,1,7")
    assert first.stdout.count(" new ") == 4
    trained = script("train.py", "shape=16x1", "lr_base=5", "tracker=none")
    assert trained.returncode == 0, trained.stderr
    failed = script("train.py", "shape=16x1", "lr_base=1e30", "optim.clip_norm=0", "tracker=none")
    assert failed.returncode != 0
    done = here("train.py", *PLAN, "shape=16x1", "lr_base=5,2.5")
    assert re.search(r"lr_base=5 +finished", done.stdout)
    assert re.search(r"lr_base=2.5 +new", done.stdout)
    assert re.search(r"to run: 1\b", done.stdout)
    assert "limit, min" not in done.stdout
    one = here("train.py", *PLAN, "lr_base=5", "shape=16x1,16x1", "resources.timeout_min=1234").stdout
    assert one.startswith(
        "1 run; device hours: estimated for this device at the throughput that such runs usually reach"
    )
    assert re.search(r" nodes +limit, min .*\n.*\n.* 1,234 ", one)
    again = here("train.py", *PLAN, "shape=16x1", "lr_base=1e30", "optim.clip_norm=0")
    assert re.search(r"failed: the run diverged at step", " ".join(again.stdout.split()))
    folders = (outputs / "runs" / "tiny").iterdir()
    write_state(
        next(each for each in folders if read_state(each).status is Status.finished), State(Status.interrupted, step=7)
    )
    assert "continues after step 7" in here("train.py", *PLAN, "shape=16x1", "lr_base=5,1e30").stdout


@pytest.mark.parametrize(
    ("sweep", "nano", "micro", "gemstones"),
    [("gemstones", 12, 12, 22), ("lr_prestudy", 24, 24, 24), ("step_batch", 30, 12, 28)],
)
def test_named_sweeps_on_every_suite(here: Script, sweep: str, nano: int, micro: int, gemstones: int) -> None:
    """Without a corpus the table is shown all the same, and a note says what is missing."""
    for suite, runs in (("nano", nano), ("micro", micro), ("gemstones", gemstones)):
        done = here("train.py", *PLAN, f"sweeps={sweep}", SHAPELAW_SUITE=suite)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(
            r"\nnote: corpus folder .* no prepared corpus; run: shapelaw prepare .* before the sweep\n$", done.stdout
        )
        assert totals(done.stdout) == runs


def test_the_published_cooldowns(here: Script, data_dir: Path) -> None:
    """Every run and its ten branches; they end at the published steps, but for the last: the paper's started 10 steps before
    the checkpoint that its own cadence of 477 steps gives."""
    done = here("train.py", *PLAN, "sweeps=cooldown", "shape=1024x28", SHAPELAW_SUITE="gemstones")
    assert totals(done.stdout) == 11
    rows = [line.split() for line in done.stdout.splitlines() if "cooldown@" in line]
    ends = sorted(int(row[5].replace(",", "")) for row in rows)
    published = pd.read_json(data_dir / "gemstones" / "runs" / "wandb_df_for_fitting_cool_end.jsonl", lines=True)
    theirs = sorted({step * 2048 * 2048 for step in published.step})
    assert ends[:9] == theirs[:9]
    assert ends[9] == theirs[9] + 11 * 2048 * 2048


def test_the_papers_node_counts_and_hours(data_dir: Path) -> None:
    """Every shape's file has the nodes of the published runs; estimated GCD hours are within a factor of 3 of theirs."""
    from shapelaw.counting import flops_exact

    runs = pd.read_json(data_dir / "gemstones" / "runs" / "wandb_df_for_fitting_hot.jsonl", lines=True)
    for (width, depth), rows in runs.groupby(["width", "depth"]):
        row = rows.iloc[0]
        text = (ROOT / "conf" / "suite" / "gemstones" / "shape" / f"{width}x{depth}.yaml").read_text()
        assert f"nodes: {row.num_nodes}\n" in text
        step_flops = 2048 * 2048 * float(flops_exact(int(width), int(depth), 50304, 2048, 128).total)
        theirs = row.seconds_per_step * 8 * row.num_nodes / 3600
        assert 1 / 3 < device_hours(step_flops, "MI250") / theirs < 3


def test_values_are_checked_before_the_first_job(here: Script, outputs: Path) -> None:
    done = here("train.py", *PLAN, "shape=16x1", "lr_base=5", "tokens=2560,2561")
    assert done.returncode == 2
    assert "tokens=2561" in done.stderr
    done = here("train.py", *PLAN, "shape=16x1", "lr_base=5,2", "hydra.launcher.device=abacus")
    assert done.returncode == 2
    assert "allowed values are this, H200" in done.stderr


def test_a_context_that_the_held_out_part_cannot_fill_is_refused(here: Script) -> None:
    done = here("train.py", *PLAN, "lr_base=5,2", *(f"{key}=20000" for key in ("seq_len", "batch_tokens", "tokens")))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "seq_len=20000: the validation split of" in done.stderr


def test_a_branch_without_its_checkpoint_is_refused(here: Script, script: Script, outputs: Path) -> None:
    done = here("train.py", "-m", "hydra/launcher=local", "shape=16x1", "cooldown=linear10", "lr_base=5,2.5")
    assert done.returncode == 2
    assert "it has: none" in done.stderr
    assert not outputs.exists()
    trained = script("train.py", "shape=16x1", "tracker=none")
    assert trained.returncode == 0, trained.stderr
    removed = next((outputs / "runs" / "tiny").glob("*/checkpoints/step-00000016"))
    removed.rename(removed.with_name("elsewhere"))
    done = here("train.py", *PLAN, "shape=16x1", "cooldown=linear10", "cooldown.from_tokens=2048,2560")
    assert done.returncode == 2
    assert "cooldown.from_tokens=2,048" in done.stderr
    assert "it has: 512, 1,024, 1,536, 2,560. It is finished: branch at one of these" in done.stderr


def test_a_branch_whose_checkpoint_its_run_will_remove_is_refused(composed: Compose) -> None:
    """Before the run is trained, and of doubles the first one's rule counts; the newest checkpoints can be branched off."""
    newest = ("checkpoint.keep=newest", "checkpoint.newest=1")

    def plan(from_tokens: int, *rules: str) -> None:
        branch = ("cooldown=linear10", f"cooldown.from_tokens={from_tokens}", *newest)
        TrainTask().plan([composed(*branch), composed(*rules), composed("checkpoint.keep=all")])

    plan(2560, *newest)
    plan(2048, "checkpoint.keep=all")
    with pytest.raises(UserError, match=r"from_tokens=2,048: .*ends with: 2,560. Give checkpoint.keep=all"):
        plan(2048, *newest)
