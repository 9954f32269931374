"""Every layout against one process: gradients, the clip's norm, 20 AdamW steps, and checkpoints from any in any other.

The processes are real ones over gloo; the same four measure every layout (ranks.py).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import LR, QUICK, SPEC, STEPS, WORLDS, built, chosen, name_of, sources
from together import together

from prepared import Prepared
from shapelaw.config import ParallelConfig, ParallelKind
from shapelaw.errors import UserError
from shapelaw.parallel.layout import Layout, check_degrees, check_matrices
from shapelaw.parallel.matrices import coordinates, join, part, split_of
from shapelaw.parallel.placement import place
from shapelaw.shapes import Shape

TOLERANCE = {"32": 5e-6, "64": 1e-12}
"""Sums in another order: of float32, and of float64, where a wrong factor could not hide."""


@pytest.fixture(scope="module", params=["quick", pytest.param("all", marks=pytest.mark.slow)])
def measured(
    tmp_path_factory: pytest.TempPathFactory, prepared_processes: Prepared, request: pytest.FixtureRequest
) -> tuple[str, Path]:
    """Which layouts, and the folder of what they measured."""
    folder = tmp_path_factory.mktemp("measured")
    together(prepared_processes, max(WORLDS), Path(__file__).with_name("ranks.py"), str(folder), request.param)
    return request.param, folder


def results(folder: Path, phase: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for world in WORLDS:
        merged |= torch.load(folder / f"{phase}-{world}.pt")
    return merged


def names(which: str) -> list[str]:
    return [name_of(layout) for world in WORLDS for layout in chosen(world, which)]


def test_every_layout_equals_one_process(measured: tuple[str, Path]) -> None:
    """Loss and gradients of a step of two micro-batches, the clip's norm, and the losses of 20 AdamW steps."""
    which, folder = measured
    found = results(folder, "measure_all")
    assert found.keys() == {f"{name}-{bits}" for name in names(which) for bits in TOLERANCE}
    for name, bits in itertools.product(names(which), TOLERANCE):
        each, alone, tolerance = found[f"{name}-{bits}"], found[f"single-1111-{bits}"], TOLERANCE[bits]
        assert each["loss"] == pytest.approx(alone["loss"], abs=tolerance), name
        assert each["norm"] == pytest.approx(alone["norm"], abs=tolerance), name
        assert each["gradients"].keys() == alone["gradients"].keys()
        for key, gradient in alone["gradients"].items():
            torch.testing.assert_close(each["gradients"][key], gradient, rtol=0, atol=tolerance, msg=f"{name} {key}")
        assert len(each["losses"]) == STEPS
        assert each["losses"] == pytest.approx(alone["losses"], abs=tolerance), name
        assert each["losses"][-1] < each["losses"][0] - 100 * LR  # it learns
        assert alone["norm"] > 0.5  # so that the clip of those steps bites


def test_a_checkpoint_of_any_layout_continues_in_any_other(measured: tuple[str, Path]) -> None:
    """Loaded and saved again the files are the same, byte for byte: weights, moments, counts. Then two steps."""
    which, folder = measured
    resumed = results(folder, "resume_all")
    assert resumed.keys() == {f"{source} in {name}" for name in names(which) for source in sources(name, which)}
    expected = resumed["single-1111 in single-1111"]["losses"]
    for name, found in resumed.items():
        assert found["again"] == found["saved"], name
        assert found["losses"] == pytest.approx(expected, abs=TOLERANCE["32"]), name


def test_every_process_starts_from_the_same_weights(measured: tuple[str, Path]) -> None:
    """The processes' own generators were seeded apart; AxoNN's layers would draw from them."""
    assert {found["started_equal"] for found in results(measured[1], "measure_all").values()} == {1.0}


def test_no_matrix_is_passed_over_and_nothing_has_a_bias(measured: tuple[str, Path]) -> None:
    """AxoNN leaves what it cannot split as torch's own layer, without a word; its bias gradients are wrong."""
    for name, found in results(measured[1], "measure_all").items():
        assert not [parameter for parameter in found["parameters"] if "bias" in parameter]
        if name.startswith("axonn"):
            assert "axonn.intra_layer.fully_connected.Linear" in found["modules"]
            assert not [
                module
                for module in found["modules"]
                if module.startswith(("torch.nn.modules.linear", "torch.nn.modules.sparse"))
            ]
            assert "shapelaw.model.transformer.Norm" not in found["modules"]


def test_the_quick_form_names_layouts_that_are() -> None:
    assert set(QUICK) < set(names("all"))
    assert set(names("quick")) == set(QUICK)
    assert len(names("all")) == 1 + 6 + 12


def test_a_process_that_fails_ends_the_others_of_these_tests(prepared_processes: Prepared, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, time\nif os.environ['RANK'] == '1':\n    raise ZeroDivisionError\ntime.sleep(3600)\n")
    with pytest.raises(AssertionError, match=r"(?s)\[-9, 1, -9\].*ZeroDivisionError"):
        together(prepared_processes, 3, script)


@pytest.mark.parametrize(
    ("degrees", "vocab_size", "message"),
    [
        ({"row": 3}, 256, "parallel.row=3 does not divide the 8 query heads; give a divisor of 8"),
        ({"row": 8}, 256, "parallel.row=8 does not divide the 4 key-value heads"),
        ({"row": 2}, 257, "parallel.row=2 does not divide the 257 vocabulary"),
        ({"column": 3}, 256, "parallel.column=3 does not divide the 64 width"),
        (
            {"depth": 5},
            256,
            "parallel.depth=5 does not divide the .* elements of a part of the attention's input matrix",
        ),
    ],
)
def test_what_does_not_divide_is_refused(degrees: dict[str, int], vocab_size: int, message: str) -> None:
    shape = Shape(64, 2, 8)
    with pytest.raises(UserError, match=message):
        check_matrices(Layout(ParallelKind.axonn, **degrees), shape, vocab_size)
    with pytest.raises(UserError, match=message):  # before the number of processes is known
        check_degrees(
            ParallelConfig(kind=ParallelKind.axonn, **{"row": 1, "column": 1, "depth": 1, **degrees}, data=None),
            shape,
            vocab_size,
        )


@pytest.mark.parametrize("degrees", [(2, 1, 1), (1, 2, 1), (1, 1, 2), (4, 2, 2)], ids=str)
def test_parts_make_up_the_whole(degrees: tuple[int, int, int]) -> None:
    """Each part joined is the full tensor, bit for bit, and queries stay with their keys and values."""
    layout = Layout(ParallelKind.axonn, *degrees)
    model, _ = built(place(Layout(ParallelKind.single), 0, torch.device("cpu")), 0)
    ranks = range(layout.world // layout.data)
    for name, full in model.named_parameters():
        split = split_of(name, SPEC.shape)
        joined = join([part(full, split, layout, rank) for rank in ranks], split, layout, full.shape)
        assert torch.equal(joined, full), name
    qkv = torch.arange(SPEC.shape.n_head + 2 * SPEC.shape.n_kv_head).repeat_interleave(8)[:, None].repeat(1, 64)
    tensor = Layout(ParallelKind.axonn, row=2)
    first = part(qkv, split_of("blocks.0.attention.qkv.weight", SPEC.shape), tensor, 0)
    assert sorted(set(first.flatten().tolist())) == [
        0,
        1,
        2,
        3,
        8,
        9,
        12,
        13,
    ]  # half the queries, half the keys, half the values


def test_ranks_are_numbered_as_the_package_does() -> None:
    """data, depth, row, column from slowest to fastest (axonn.communication.communication_handle)."""
    layout = Layout(ParallelKind.axonn, row=2, column=3, depth=2, data=2)
    assert coordinates(layout, 23) == {"none": 0, "column": 2, "row": 1, "depth": 1}
    assert [layout.share_of(rank) for rank in (0, 5, 6, 11, 12, 23)] == [0, 0, 1, 1, 2, 3]
