"""Memory that really runs out: the process may take so many bytes more and no further."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from shapelaw.errors import Interrupted
from shapelaw.planned_run import checkpoint_steps
from shapelaw.run_state import Status, read_state
from shapelaw.training.module import RunModule
from support import Compose, Script, prepared, train

LARGE = (
    "shape=32x1",
    "batch_tokens=32768",
    "tokens=131072",
    "data.max_epochs=1000",
    "warmup_tokens=32768",
    "threads=1",
)
LARGE = (*LARGE, "validation.every_tokens=131072", "checkpoint.every_tokens=131072", "precision=fp32")
SPARE_BYTES = 8 * 2**20
"""A quarter of what the step of 2,048 sequences takes."""
LIMIT = f"""
import resource
from shapelaw.training.module import RunModule
step = RunModule.training_step
def limited(self, batch, index):
    if index == 0:
        self._accumulate(batch[:1])  # what it loads and compiles is there
        self.optimizer.zero_grad(set_to_none=True)
        pages = int(open("/proc/self/statm").read().split()[0])
        bytes = pages * resource.getpagesize() + {SPARE_BYTES}
        resource.setrlimit(resource.RLIMIT_AS, (bytes, resource.RLIM_INFINITY))
    step(self, batch, index)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
RunModule.training_step = limited
"""


@pytest.mark.slow  # four runs
def test_a_step_that_does_not_fit(
    composed: Compose, script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line and exit code 2 where the micro-batch was given, and the checkpoint stays; where it was not, the run goes on
    with half as many, to the loss of one that had memory."""
    whole = read_state(train(composed, *LARGE, f"outputs_dir={tmp_path}/whole").folder).val_loss
    with monkeypatch.context() as patch:
        step = RunModule.training_step

        def stopped(module: RunModule, batch: object, index: int) -> None:
            step(module, batch, index)
            if index == 1:
                os.kill(os.getpid(), signal.SIGUSR2)

        patch.setattr(RunModule, "training_step", stopped)
        with pytest.raises(Interrupted):
            train(composed, *LARGE)
    folder = prepared(composed, *LARGE)[1].folder
    assert checkpoint_steps(folder) == [2]
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(LIMIT)
    common = ("train.py", "tracker=none", "accelerator=cpu", *LARGE)
    refused = script(*common, "micro_batch_sequences=2048", PYTHONPATH=str(hook))
    assert refused.returncode == 2, refused.stderr
    lines = [line for line in refused.stderr.splitlines() if "do not fit" in line]
    assert lines == [
        "shapelaw: 2048 sequences at a time do not fit the memory of cpu; give micro_batch_sequences=1024, "
        "or share the run out over more devices"
    ]
    assert checkpoint_steps(folder) == [2]
    assert read_state(folder).status is Status.failed
    assert "micro_batch_sequences=1024" in read_state(folder).reason
    done = script(*common, PYTHONPATH=str(hook))
    assert done.returncode == 0, done.stderr
    assert "2048 sequences at a time do not fit the memory of cpu: going on with 1024" in done.stderr
    assert read_state(folder).val_loss == pytest.approx(whole, abs=1e-5)
