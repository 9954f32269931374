"""Signals that ask a run to stop, and what its processes agree on when one of them was asked."""

from __future__ import annotations

import signal
from types import FrameType

import torch

from shapelaw.training.agreement import Agreement

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


class StopRequest:
    """Whether the run is to stop after the step that was just done."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal to stop for, once all processes know of it."""
        self._received: int | None = None
        self._agreement: Agreement | None = None

    def listen(self, device: torch.device, processes: int) -> None:
        """Take the signals over; those that are ignored stay so."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)
        self._agreement = Agreement(device) if processes > 1 else None

    def agree(self) -> None:
        """Ask the other processes. All stop after the same step: the one after the step in which one of them was asked to."""
        if self._agreement is None:
            self.number = self._received
        else:
            stops = self._agreement.ask(self._received is not None)
            self.number = (self._received or signal.SIGUSR2) if stops else None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
