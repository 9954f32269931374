"""What the processes of a run decide together, without any of them waiting for its device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class _Answer:
    """A number on its way to the program; `there` is recorded on a GPU once it has come."""

    value: torch.Tensor
    there: torch.cuda.Event | None


class Agreement:
    """Whether any process asked, told one step later: what is read then was computed while the next step was.

    Args:
        device: of this process; the message is sent from there.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last: _Answer | None = None

    def ask(self, mine: bool) -> bool:
        """What the processes asked after the step before this one; all of them must call it after every step."""
        before, self.last = self.last, self._send(mine)
        if before is None:
            return False
        if before.there:
            before.there.synchronize()
        return bool(before.value)

    def _send(self, mine: bool) -> _Answer:
        asked = torch.full((), int(mine), dtype=torch.int32, device=self.device)
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        if self.device.type != "cuda":
            return _Answer(asked, None)
        value = torch.empty((), dtype=torch.int32, pin_memory=True).copy_(asked, non_blocking=True)
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record()
        return _Answer(value, there)
