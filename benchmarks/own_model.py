"""A step through a user's own model against the same model in a bare PyTorch loop, as a ratio of CPU seconds on one machine.

    python benchmarks/own_model.py [EXAMPLE.py:NAME ...]

Both loops take the same steps of the same weights, batches, AdamW and clip, in turns within one process; the losses at the end
must agree. The run's own steps are everything from one step to the next: data, Lightning, callbacks, tracking into its folder.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import Loader
from shapelaw.model import ModelSpec, own
from shapelaw.optim import parameter_groups
from shapelaw.planned_run import PlannedRun, plan_run
from shapelaw.run_state import read_state
from shapelaw.training.corpora import Corpora, Library
from shapelaw.training.hooks import Hooks
from shapelaw.training.run import train
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import set_environment

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("swiglu.py:SwiGLU", "moe.py:MoE", "linear_attention.py:LinearAttention")
ROUNDS, STEPS, SKIPPED = 5, 40, 5
SHAPE = ("shape=64x2", "shape.width=128", "shape.depth=4")


def configured(reference: str, folder: str) -> TrainConfig:
    """A run of the example at 128x4 whose record is in its folder alone."""
    never = ["validation.every_tokens=1e12", "checkpoint.every_tokens=1e12", "accelerator=cpu", "tracker=none"]
    size = [f"tokens={STEPS * 2048}", "warmup_tokens=0", f"model={ROOT}/examples/{reference}", *SHAPE]
    with initialize_config_dir(str(ROOT / "conf")):
        composed = compose("train", [*never, *size, f"outputs_dir={folder}"])
    composed.data_dir = str(Path(os.environ.get("SHAPELAW_OUTPUTS", ROOT / "outputs")) / "corpora")
    config: TrainConfig = to_dataclass(composed)
    return config


def ours(config: TrainConfig, planned: PlannedRun, corpora: Corpora) -> tuple[float, float]:
    """(CPU seconds of a step, training loss over the last steps) of the run."""
    marks: list[float] = []
    between = Hooks.on_train_batch_end

    def watched(self: Hooks, *arguments: object) -> None:
        marks.append(time.process_time())
        between(self, *arguments)  # type: ignore[arg-type]

    Hooks.on_train_batch_end = watched  # type: ignore[method-assign]
    try:
        train(config, planned, corpora, {}, lambda state: None)
    finally:
        Hooks.on_train_batch_end = between  # type: ignore[method-assign]
    loss = read_state(planned.folder).train_loss
    assert loss is not None
    return (marks[-1] - marks[SKIPPED]) / (len(marks) - 1 - SKIPPED), loss


def bare(config: TrainConfig, planned: PlannedRun, corpora: Corpora) -> tuple[float, float]:
    """The same of a plain loop."""
    torch.set_num_threads(config.threads)
    spec = ModelSpec(planned.shape, planned.vocab_size, planned.seq_len)
    model = own.build(config.model, spec, config.seed)
    options = config.optim
    groups = parameter_groups(model, options)
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(options.beta1, options.beta2), eps=options.eps, fused=True)
    loader = Loader.of(corpora.own, planned.seq_len, config.order_seed)
    losses, marks = [], []
    for step in range(planned.last_step):
        batch = torch.from_numpy(loader.batch(step, planned.batch_sequences))
        for group in optimizer.param_groups:
            group["lr"] = planned.lr_at(step)
        loss = model.loss(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        marks.append(time.process_time())
    every = config.tracker.log_every_steps
    return (marks[-1] - marks[SKIPPED]) / (len(marks) - 1 - SKIPPED), statistics.mean(losses[-every:])


def measured(reference: str) -> None:
    """Print the ratio of one example."""
    ratios = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            config = configured(reference, folder)
            corpora = Library().of(config)
            planned = plan_run(config, corpora.hash)
            plain, expected = bare(config, planned, corpora)
            run, found = ours(config, planned, corpora)
            assert abs(found - expected) < 1e-3 * expected, (found, expected)
            ratios.append(run / plain)
    print(
        f"{reference}, {planned.shape.name}: {1e3 * plain:.1f} CPU ms a step bare; in a run {statistics.median(ratios):.3f} x "
        f"as many (median of {ROUNDS}, {min(ratios):.3f} to {max(ratios):.3f}; asked: within 1.02)"
    )


def main() -> None:
    os.environ["SHAPELAW_ROOT"] = str(ROOT)
    set_environment(ROOT)
    store_schemas()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores")
    for reference in sys.argv[1:] or EXAMPLES:
        measured(reference)


if __name__ == "__main__":
    main()
