"""The suite for one GPU, on a CPU: its vocabulary learnt from its corpus, two steps of its smallest shape, its plan."""

from __future__ import annotations

from pathlib import Path

from shapelaw.run_state import read_state
from support import ROOT, Script

SMALL = (
    "data=text",
    "tokenizer.vocab_size=512",
    "seq_len=32",
    "lr_base=0.2",
    "batch_tokens=256",
    "tokens=512",
    "warmup_tokens=256",
    "validation.every_tokens=256",
    "validation.tokens=256",
    "checkpoint.every_tokens=512",
    "accelerator=cpu",
)
"""As little of it as two steps need."""


def test_the_micro_suite_is_prepared_planned_and_trained(script: Script, outputs: Path, tmp_path: Path) -> None:
    made = script(
        "prepare.py", *SMALL[:2], f"data.path={ROOT / 'docs'}", "data.val_fraction=0.2", SHAPELAW_SUITE="micro"
    )
    assert made.returncode == 0, made.stderr
    assert "training and" in made.stderr + made.stdout
    run = ("shape=128x16", f"data.path={ROOT / 'docs'}", *SMALL)
    plan = script("train.py", "-m", *run, "hydra/launcher=plan", "hydra.launcher.device=H200", SHAPELAW_SUITE="micro")
    assert plan.returncode == 0, plan.stderr
    assert "micro-batch" in plan.stdout
    assert "GiB" in plan.stdout
    done = script("train.py", *run, SHAPELAW_SUITE="micro")
    assert done.returncode == 0, done.stderr
    (folder,) = (outputs / "runs" / "micro").iterdir()
    state = read_state(folder)
    assert state.step == 2
    assert state.val_loss is not None
    assert 6 < state.val_loss < 9  # ln(512) = 6.2, and the spread of the first logits, about 2
