"""The known faults of axonn 0.2.0, each shown in the real package, and that ours is free of it.

Two processes over gloo look once (faults.py). A fault that a new release mends fails its test here: then look whether what
is built around it can go.
"""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from together import together

from prepared import Prepared
from shapelaw.config import ParallelKind
from shapelaw.errors import UserError
from shapelaw.parallel.layout import Layout, check_matrices
from shapelaw.shapes import Shape
from support import ROOT

Seen = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, prepared_processes: Prepared) -> Seen:
    """What each of the two processes saw."""
    folder = tmp_path_factory.mktemp("faults")
    together(prepared_processes, 2, Path(__file__).with_name("faults.py"), str(folder))
    first, second = (torch.load(folder / f"found-{rank}.pt") for rank in range(2))
    return first, second


def test_the_package_is_the_one_whose_faults_are_known() -> None:
    assert importlib.metadata.version("axonn") == "0.2.0"


def test_what_is_used_of_the_package() -> None:
    """Layers, groups and the sync alone: not its strategy, checkpoints, clip, embedding or auto_parallelize."""
    used: set[str] = set()
    for path in (ROOT / "src" / "shapelaw").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("axonn"):
                used |= {f"{node.module}.{name.name}" for name in node.names}
    assert used == {
        "axonn.axonn",
        "axonn.intra_layer.Gather",
        "axonn.intra_layer.Linear",
        "axonn.intra_layer.sync_gradients",
        "axonn.intra_layer.communication.ForwardGather_BackwardReduceScatter",
    }


def test_it_needs_numpy_and_does_not_say_so() -> None:
    def names(package: str) -> list[str]:
        return [line.split(">")[0].split("=")[0].strip() for line in importlib.metadata.requires(package) or ()]

    assert "numpy" not in names("axonn")
    assert "numpy" in names("shapelaw")


def test_mpi4py_without_an_mpi_library_breaks_its_import(seen: Seen) -> None:
    """Ours says in one line what is to be done."""
    for found in seen:
        raw, ours = found["beside_mpi4py"].splitlines()
        assert raw == "RuntimeError: cannot load MPI library"
        assert ours.startswith("UserError: parallel=axonn: ")
        assert "pip uninstall mpi4py" in ours


def test_without_processes_it_asks_for_mpi(seen: Seen) -> None:
    """Ours joins them first, and never initialises the package alone: one process is refused."""
    assert {found["without_processes"] for found in seen} == {
        "AssertionError: either install mpi4py and launch via mpirun/srun"
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_untouched_it_does_not_start_on_a_cpu(seen: Seen) -> None:
    """With the adapter it does: test_every_layout_equals_one_process."""
    for counted, given in (found["untouched"] for found in seen):
        assert counted == "ZeroDivisionError: integer modulo by zero"  # of the rank by the number of GPUs
        assert "cuda" in given.lower()


def test_its_assertions_say_nothing(seen: Seen) -> None:
    """A wrong product of degrees, a matrix that does not divide, an embedding with columns: ours has a line for each."""
    for product, matrix, embedding in (found["words_of_assertions"] for found in seen):
        assert product == "AssertionError: The product of G_inter, G_intra_r, G_intra_c, G_intra_d,"
        assert matrix == embedding == "AssertionError: "


def test_copies_start_apart(seen: Seen) -> None:
    """Ours are set by seed and name: test_every_process_starts_from_the_same_weights."""
    assert [found["copies_drawn_apart"]["equal"] for found in seen] == [False, False]


def test_auto_parallelize_passes_layers_over_in_silence(seen: Seen) -> None:
    """Ours refuses such sizes before anything starts."""
    for found in (found["layers_passed_over"] for found in seen):
        assert found.pop("said") == 0
        assert {name: module.startswith("axonn") for name, module in found.items()} == {
            "fits": True,
            "odd": False,
            "embedding": False,
        }
    with pytest.raises(UserError, match=r"parallel\.row=2 does not divide the 257 vocabulary"):
        check_matrices(Layout(ParallelKind.axonn, row=2), Shape(64, 2, 8), 257)


def test_the_easy_sync_halves_the_gradients_of_rows(seen: Seen) -> None:
    """By 1 / row; its strategy for Lightning takes that way. Ours asks for the other."""
    for found in (found["easy_sync_of_expert_layers"] for found in seen):
        assert found == {"easy": pytest.approx(0.5), "expert": pytest.approx(1.0)}


def test_biases_are_not_summed_over_depth(seen: Seen) -> None:
    """The sync asks for a mark that its layers do not set. Ours has none: test_no_matrix_is_passed_over_..."""
    assert [found["bias_over_depth"] for found in seen] == [{"weight": True, "bias": False}] * 2


def test_its_clip_takes_split_features_for_whole_ones(seen: Seen) -> None:
    """A norm's scale that columns split: each process has another norm, and would clip by it."""
    norms = [found["norm_of_split_features"] for found in seen]
    true = norms[0]["true"]
    for each in norms:
        assert each["ours"] == pytest.approx(true, rel=1e-6)
        assert each["package"] < 0.9 * true
    assert norms[0]["package"] ** 2 + norms[1]["package"] ** 2 == pytest.approx(true**2, rel=1e-5)


def test_overlap_needs_every_handle_to_be_waited_for(seen: Seen) -> None:
    """On a CPU a synchronize that does nothing leaves garbage in the first process; the adapter waits."""
    without, adapted = seen[0]["overlapped"]
    assert not without
    assert adapted


def test_casts_are_bound_to_gpus(seen: Seen) -> None:
    """So precision=bf16 with parallel=axonn is refused on a CPU."""
    for dtype, error in (found["bf16_on_a_cpu"] for found in seen):
        assert dtype == "torch.bfloat16"
        assert "same dtype" in error


def test_its_easy_mode_does_not_run_on_gloo(seen: Seen) -> None:
    """It gathers a number without dimensions, on a GPU's device; ours keeps to the expert mode."""
    for scalar, _, easy in (found["gathers_that_gloo_refuses"] for found in seen):
        assert "invalid tensor size" in scalar
        if not torch.cuda.is_available():
            assert "CUDA" in easy


def test_what_its_checkpoint_saves_is_not_found_nor_given(seen: Seen) -> None:
    """Its load looks for another name, and drops what it read. Ours writes full matrices, and never calls it."""
    for found in (found["checkpoint"] for found in seen):
        assert found["lost"].startswith("FileNotFoundError")
        assert found["given"] == {"step": 0}  # 7 was saved


@pytest.mark.filterwarnings("ignore:The `srun` command")  # of a machine that has SLURM's tools
def test_its_strategy_cannot_load_with_lightning(tmp_path: Path) -> None:
    """Fabric.load hands weights_only over since Lightning 2.6."""
    from axonn.lightning import AxonnStrategy
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, strategy=AxonnStrategy())
    with pytest.raises(TypeError, match="unexpected keyword argument 'weights_only'"):
        fabric.load(tmp_path / "state.ckpt")
