"""The loader for torch: iterable datasets of int64 tensors. The only module here that imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from shapelaw.data.loader import Loader, rank_rows
from shapelaw.errors import UserError

CPU = torch.device("cpu")


class TokenBatches(IterableDataset[torch.Tensor]):
    """Micro-batches of one device, from a given optimizer step on.

    Give it to a DataLoader with batch_size=None. The sequences of a step are the same however many devices and
    micro-batches share them: device r takes the r-th equal part of the world batch, and its micro-batches follow each
    other in it. With several loader workers, each makes every n-th micro-batch, and DataLoader puts them back in
    order.

    Args:
        loader: sequences in the one order.
        batch_sequences: sequences of a world batch (one optimizer step on all devices).
        start_step: first step, counted from 0 from the beginning of the run.
        steps: steps to give; the iterator ends after them.
        rank, world: this device and how many there are.
        micro_sequences: sequences of a micro-batch; None for the whole share of the device.
        device: their device; they are copied to a GPU while it computes.
        batch_of: number of the order's batch that a step takes; None for its own.

    Raises:
        UserError: if the devices or micro-batches do not divide the batch.
    """

    def __init__(
        self,
        loader: Loader,
        batch_sequences: int,
        start_step: int,
        steps: int,
        rank: int = 0,
        world: int = 1,
        micro_sequences: int | None = None,
        device: torch.device = CPU,
        batch_of: Callable[[int], int] | None = None,
    ) -> None:
        self._rows = rank_rows(batch_sequences, rank, world)
        share = len(self._rows)
        self._micro = share if micro_sequences is None else micro_sequences
        if self._micro < 1 or share % self._micro:
            raise UserError(
                f"micro_batch_sequences={self._micro}: it must divide the {share} sequences of each device "
                f"(batch of {batch_sequences} over {world}); allowed values are divisors of {share}"
            )
        self._loader, self._batch_sequences, self._batch_of = loader, batch_sequences, batch_of
        self._device = device
        self._steps = range(start_step, start_step + steps)

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches of a step on this device (Lightning's accumulate_grad_batches)."""
        return len(self._rows) // self._micro

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Tensors micro_sequences x (seq_len + 1), int64, each with its own memory."""
        gpu = self._device.type == "cuda"
        stream = torch.cuda.Stream(self._device) if gpu else None  # type: ignore[no-untyped-call]
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(first, len(self._steps) * self.micro_batches, stride):
            step, micro = divmod(number, self.micro_batches)
            batch = self._batch_of(self._steps[step]) if self._batch_of else self._steps[step]
            start = batch * self._batch_sequences + self._rows.start + micro * self._micro
            rows = torch.from_numpy(self._loader.rows(start, self._micro))
            yield _copied(rows, stream) if stream else rows


def _copied(rows: torch.Tensor, stream: torch.cuda.Stream) -> torch.Tensor:
    """Copy rows to the stream's GPU from pinned memory, while the GPU computes."""
    with torch.cuda.stream(stream):
        copy = rows.pin_memory().to(stream.device, non_blocking=True)
    current = torch.cuda.current_stream(stream.device)
    current.wait_stream(stream)  # steps queued from now on: the copy begins at once, and they begin later
    copy.record_stream(current)
    return copy
