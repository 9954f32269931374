"""Every layout against one process: gradients, the clip's norm, 20 AdamW steps, and checkpoints from any in any other.

The processes are real ones over gloo; all layouts of one number of processes are measured by the same processes.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import SPEC, STEPS, built, chosen, name_of
from safetensors.torch import load_file

from shapelaw.cell import checkpoint_path
from shapelaw.config import ParallelKind
from shapelaw.parallel.layout import Layout
from shapelaw.parallel.matrices import coordinates, join, part, split_of
from shapelaw.training.checkpoint import MODEL

TOLERANCE = {"32": 5e-6, "64": 1e-12}
"""Sums in another order: of float32, and of float64, where a wrong factor could not hide."""


def together(world: int, *arguments: str) -> None:
    """Runs a script in so many processes, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ranks.py")), *arguments],
            env={**os.environ, **address, "WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    said = [process.communicate(timeout=900)[1] for process in processes]
    assert not any(process.returncode for process in processes), (
        f"{[process.returncode for process in processes]}\n" + "\n".join(said)
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Folder of what 1, 2 and 4 processes measured, and of their checkpoints."""
    folder = tmp_path_factory.mktemp("measured")
    for what, world in itertools.product(("measure", "resume"), (1, 2, 4)):
        together(world, what, str(folder), getattr(request, "param", "quick"))
    return folder


def results(folder: Path, what: str, *worlds: int) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for world in worlds:
        merged |= torch.load(folder / f"{what}-{world}.pt")
    return merged


@pytest.mark.slow
@pytest.mark.parametrize("measured", ["quick", "all"], indirect=True)
def test_every_layout_equals_one_process(measured: Path) -> None:
    alone, several = results(measured, "measure", 1), results(measured, "measure", 2, 4)
    assert len(several) >= 2 * (6 + 4)
    for name, found in several.items():
        bits = name[-2:]
        expected, tolerance = alone[f"single-1111-{bits}"], TOLERANCE[bits]
        assert found["loss"] == pytest.approx(expected["loss"], abs=tolerance), name
        assert found["norm"] == pytest.approx(expected["norm"], abs=tolerance), name
        assert found["gradients"].keys() == expected["gradients"].keys()
        for key, gradient in expected["gradients"].items():
            torch.testing.assert_close(found["gradients"][key], gradient, rtol=0, atol=tolerance, msg=f"{name} {key}")
        assert found["losses"] == pytest.approx(expected["losses"], abs=tolerance), name
        assert expected["norm"] > 0.5  # so that the clip of those steps bites


@pytest.mark.slow
@pytest.mark.parametrize("measured", ["quick", "all"], indirect=True)
def test_a_checkpoint_of_any_layout_continues_in_any_other(measured: Path) -> None:
    resumed = results(measured, "resume", 1, 2, 4)
    expected = resumed["single-1111 in single-1111"]["losses"]
    assert len(resumed) >= (1 + 6 + 4) ** 2
    for name, found in resumed.items():
        stored = load_file(checkpoint_path(measured / name.split()[0], STEPS) / MODEL)
        assert stored.keys() == found["weights"].keys()
        assert all(torch.equal(found["weights"][key], stored[key]) for key in stored), name
        assert found["losses"] == pytest.approx(expected, abs=TOLERANCE["32"]), name


@pytest.mark.parametrize("degrees", [(2, 1, 1), (1, 2, 1), (1, 1, 2), (4, 2, 2)], ids=str)
def test_parts_make_up_the_whole(degrees: tuple[int, int, int]) -> None:
    """Each part joined is the full tensor, bit for bit, and queries stay with their keys and values."""
    layout = Layout(ParallelKind.axonn, *degrees)
    _, model, _ = built(Layout(ParallelKind.single), 0)
    ranks = range(layout.world // layout.data)
    for name, full in model.named_parameters():
        split = split_of(name, SPEC.shape)
        joined = join([part(full, split, layout, rank) for rank in ranks], split, layout, full.shape)
        assert torch.equal(joined, full), name
    qkv = torch.arange(SPEC.shape.n_head + 2 * SPEC.shape.n_kv_head).repeat_interleave(8)[:, None].repeat(1, 64)
    tensor = Layout(ParallelKind.axonn, row=2)
    first = part(qkv, split_of("blocks.0.attention.qkv.weight", SPEC.shape), tensor, 0)
    assert first.unique().tolist() == [0, 1, 2, 3, 8, 9, 12, 13]  # half the queries, half the keys, half the values


def test_ranks_are_numbered_as_the_package_does() -> None:
    """data, depth, row, column from slowest to fastest (axonn.communication.communication_handle)."""
    layout = Layout(ParallelKind.axonn, row=2, column=3, depth=2, data=2)
    assert coordinates(layout, 23) == {"none": 0, "column": 2, "row": 1, "depth": 1}
    assert [layout.share_of(rank) for rank in (0, 5, 6, 11, 12, 23)] == [0, 0, 1, 1, 2, 3]


def test_all_layouts_of_four_are_measured_by_the_long_form() -> None:
    assert len({name_of(layout) for layout in chosen(4, every=True)}) == 2 + 10
    assert len(chosen(4, every=False)) == 4
