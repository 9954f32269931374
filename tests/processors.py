"""Other processors on this one: the libraries' own switches take instructions away, they cannot add what is not there.

python tests/processors.py          the tests below in every setting: `make test-processors`
python tests/processors.py quick    the few that show most, in the lowest setting: two minutes of two cores
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = (
    "tests/test_processors.py",
    "tests/test_accuracy_laws.py",
    "tests/test_coordinates.py",
    "tests/test_counting.py",
    "tests/test_laws.py",
    "tests/test_optim.py",
    "tests/test_schedule.py",
    "tests/test_steps_batch.py",
    "tests/figures",
    "tests/fitting",
    "tests/model",
    "tests/prescribe",
    "tests/sweep/test_search.py",
    "tests/training",
    "tests/trust/test_batches.py",
)
"""What floating point could decide."""
QUICK = (
    "tests/prescribe/test_studies.py::test_the_papers_search",
    "tests/training/test_rollback.py::test_a_run_that_spikes_recovers",
    "tests/training/test_run.py::test_a_branch_starts_where_its_parent_was",
    "tests/trust/test_batches.py::test_a_rollback_leaves_out_the_batches_of_its_spike",
    "tests/model/test_cpu_kernels.py",
    "tests/fitting/test_kernels.py",
    "tests/prescribe/test_prescribe.py",
)
APPLIES = platform.machine() in ("x86_64", "AMD64")
LAWS = ("params_tokens", "interaction")
Answers = dict[str, Any]


def settings() -> dict[str, dict[str, str]]:
    """Name -> environment: a processor with AVX2 and no AVX-512, and the first of x86-64."""
    return {
        "avx2": _environment("avx2", "AVX2", "Haswell", "haswell", kept=("X86_V3", "AVX2", "FMA3")),
        "x86-64": _environment("default", "SSE41", "Nehalem", "generic", kept=()),
    }


def _environment(torch: str, onednn: str, openblas: str, numba: str, kept: tuple[str, ...]) -> dict[str, str]:
    return {
        "ATEN_CPU_CAPABILITY": torch,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "OPENBLAS_CORETYPE": openblas,
        "NUMBA_CPU_NAME": numba,
        "NUMBA_CPU_FEATURES": "",
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in _numpy_features() if name not in kept),
    }


def _numpy_features() -> list[str]:
    """What numpy has further code for and finds here."""
    from numpy._core import _multiarray_umath as core

    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]


def answers(corpora: Path, outputs: Path) -> Answers:
    """Everything that `test_processors.py` compares, as this process computes it."""
    from hydra import compose, initialize_config_dir

    import support
    from shapelaw.config.schema import to_dataclass
    from shapelaw.data.order import SequenceOrder
    from shapelaw.planned_run import plan_run
    from shapelaw.prescribe.brute import paper_shapes
    from shapelaw.verbs.doors import store_schemas
    from shapelaw.verbs.main import set_environment

    set_environment(support.ROOT)
    store_schemas()

    def composed(*overrides: str) -> Any:
        with initialize_config_dir(str(support.ROOT / "conf")):
            given = [f"data_dir={corpora}", f"outputs_dir={outputs}", "tracker=none", "accelerator=cpu"]
            return compose("train", [*given, *overrides])

    asked = ([], ["shape=32x1", "lr_base=0.1"], ["cooldown=linear10"], ["spikes=rollback"], ["schedule=cosine"])
    return {
        "identities": [plan_run(to_dataclass(composed(*each)), "corpus").identity for each in asked],
        "order": SequenceOrder(999_983, 7).indices(0, 1000).tolist(),
        "shapes": [hashlib.sha256(sizes.astype("<i8").tobytes()).hexdigest() for sizes in paper_shapes()],
        **_fits(),
        **_training(composed),
    }


def _fits() -> Answers:
    """Fits of published runs, and the best shape for 1e22 FLOPs as it is printed, to five digits."""
    from shapelaw import fit, load_runs
    from shapelaw.prescribe.ask import Problem

    runs = load_runs("gemstones", subset="hot_100b+")
    found = {law: fit(runs, law) for law in LAWS}
    best = Problem.of(found["interaction"], runs).best(1e22)
    return {
        "fits": {
            law: {"objective": one.objective, "parameters": one.parameters, "losses": one.predict(runs).tolist()}
            for law, one in found.items()
        },
        "prescription": {name: f"{value:.5g}" for name, value in best.values.items()} | {"train": best.overrides},
    }


def _training(composed: Any) -> Answers:
    """The losses of 20 steps, and a share of the weights before and after them."""
    from shapelaw.model import ModelSpec, Transformer
    from shapelaw.model.initialisation import initialise
    from shapelaw.run_state import read_state
    from shapelaw.training.module import RunModule
    from support import prepared, train_run

    config, planned = prepared(composed)
    model = Transformer(ModelSpec(planned.shape, planned.vocab_size, planned.seq_len))
    initialise(model, config.seed)
    first = model.head.weight.flatten().tolist()
    losses: list[float] = []
    real = RunModule.training_step

    def kept(module: Any, batch: Any, index: int) -> None:
        real(module, batch, index)
        losses.append(float(module.recent[-1][0]))

    RunModule.training_step = kept  # type: ignore[method-assign]
    train_run(config, planned)
    return {"weights": first, "held_out": read_state(planned.folder).val_loss, "losses": losses}


def main() -> int:
    """Run the tests in every setting; 1 if one fails in any."""
    if not APPLIES:
        print(f"{platform.machine()}: the settings are of x86-64; nothing to run", file=sys.stderr)  # noqa: T201
        return 0
    quick = sys.argv[1:] == ["quick"]
    chosen = {"x86-64": settings()["x86-64"]} if quick else settings()
    failed = []
    for name, environment in chosen.items():
        shown = " ".join(f"{key}='{value}'" for key, value in environment.items())
        print(f"== {name}: {shown}", file=sys.stderr, flush=True)  # noqa: T201
        command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", *(QUICK if quick else TESTS)]
        if subprocess.run(command, env=os.environ | environment, check=False).returncode:
            failed.append(name)
    print("failed: " + ", ".join(failed) if failed else "every setting passed", file=sys.stderr)  # noqa: T201
    return int(bool(failed))


if __name__ == "__main__":
    if sys.argv[1:2] == ["answers"]:
        Path(sys.argv[4]).write_text(json.dumps(answers(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        sys.exit(main())
