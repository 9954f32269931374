"""The layout of a run over its processes, checked before any of them starts. Imports no torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from shapelaw.config import ParallelConfig, ParallelKind
from shapelaw.errors import UserError
from shapelaw.shapes import Shape


@dataclass(frozen=True)
class Layout:
    """Degrees of a run; their product is the number of its processes.

    Rank = ((data * depth_degree + depth) * row_degree + row) * column_degree + column, as AxoNN numbers them.

    Args:
        kind: single, ddp, fsdp or axonn.
        row, column, depth, data: degrees; ddp and fsdp have data alone.
    """

    kind: ParallelKind
    row: int = 1
    column: int = 1
    depth: int = 1
    data: int = 1

    @property
    def world(self) -> int:
        """Processes of the run."""
        return self.shares * self.row * self.column

    @property
    def shares(self) -> int:
        """Equal parts of the batch; the processes of a row and column take the same part."""
        return self.data * self.depth

    def share_of(self, rank: int) -> int:
        """The part of the batch that a process takes."""
        return rank // (self.row * self.column)


def layout_of(config: ParallelConfig, world: int) -> Layout:
    """The layout of `world` processes.

    Raises:
        UserError: if the degrees do not make up the processes, or belong to another kind.
    """
    kind = config.kind
    if kind is ParallelKind.auto:
        kind = ParallelKind.single if world == 1 else ParallelKind.ddp
    degrees = _degrees(config)
    if kind is ParallelKind.axonn:
        return _axonn(degrees, config.data, world)
    if config.data is not None or any(degree > 1 for degree in degrees.values()):
        raise UserError(
            f"parallel={kind.value}: row, column, depth and data are degrees of parallel=axonn; leave them out"
        )
    if kind is ParallelKind.single and world > 1:
        raise UserError(f"parallel=single with {world} processes: give parallel=ddp, fsdp or axonn, or devices=1")
    if kind is not ParallelKind.single and world == 1:
        raise UserError(f"parallel={kind.value} with one process: give devices=2 or more, or parallel=single")
    return Layout(kind, data=world)


def _degrees(config: ParallelConfig) -> dict[str, int]:
    return {"row": config.row, "column": config.column, "depth": config.depth}


def _axonn(degrees: dict[str, int], data: int | None, world: int) -> Layout:
    matrix = degrees["row"] * degrees["column"] * degrees["depth"]
    asked = max(world // matrix, 1) if data is None else data
    if asked * matrix != world:
        words = " x ".join(f"{key} {degree}" for key, degree in {**degrees, "data": asked}.items())
        raise UserError(
            f"parallel=axonn: {words} = {asked * matrix} processes, but devices x num_nodes = {world}; "
            f"give devices={asked * matrix}, or degrees whose product is {world}"
        )
    return Layout(ParallelKind.axonn, **degrees, data=asked)


def check_degrees(config: ParallelConfig, shape: Shape, vocab_size: int) -> None:
    """Make the checks that do not need the number of processes; raises UserError like `check_layout`."""
    if config.kind is ParallelKind.axonn:
        check_matrices(Layout(config.kind, **_degrees(config)), shape, vocab_size)
        _check_package()


def check_layout(layout: Layout, shape: Shape, vocab_size: int, batch_sequences: int) -> None:
    """Refuse a layout that does not divide the model or the batch, or whose package is missing.

    Raises:
        UserError: naming the degree and what it must divide.
    """
    if batch_sequences % layout.shares:
        raise UserError(
            f"parallel={layout.kind.value}: {layout.shares} processes share a batch of {batch_sequences} sequences; "
            "give degrees (depth x data) that divide it"
        )
    if layout.kind is not ParallelKind.axonn:
        return
    check_matrices(layout, shape, vocab_size)
    _check_package()


def check_noise(layout: Layout, batch_sequences: int, micro_batch: int | str) -> None:
    """Refuse to measure the noise scale if no process has the whole gradient of a part of the batch.

    Args:
        layout: layout of the processes.
        batch_sequences: sequences of the world batch.
        micro_batch: sequences of one forward pass, as given.

    Raises:
        UserError: with the option to give instead.
    """
    if layout.kind not in (ParallelKind.single, ParallelKind.ddp):
        raise UserError(
            f"noise.every_steps: parallel={layout.kind.value} holds no gradient whole; give parallel=ddp, or one process"
        )
    mine = batch_sequences // layout.shares
    if batch_sequences == 1:
        raise UserError("noise.every_steps: the noise scale needs two batch sizes; give a batch_tokens above seq_len")
    if layout.shares == 1 and not (isinstance(micro_batch, int) and 0 < micro_batch < mine):
        raise UserError(
            f"noise.every_steps: the noise scale needs two batch sizes, and micro_batch_sequences={micro_batch} may leave the "
            f"{mine} sequences of a batch in one piece; give micro_batch_sequences={max(mine // 4, 1)}, or several devices"
        )


def _check_package() -> None:
    if importlib.util.find_spec("axonn") is None:
        raise UserError("parallel=axonn: the axonn package is not installed; pip install 'shapelaw[axonn]'")


def check_matrices(layout: Layout, shape: Shape, vocab_size: int) -> None:
    """Refuse degrees that do not divide heads, features and matrices, because AxoNN's own helper skips such layers."""
    row, column, depth = layout.row, layout.column, layout.depth
    _divides("row", row, "query heads", shape.n_head)
    _divides("row", row, "key-value heads", shape.n_kv_head)
    _divides("row", row, "hidden features of the MLP", shape.intermediate)
    _divides("row", row, "vocabulary", vocab_size)
    _divides("column", column, "width", shape.width)
    parts = row * column
    qkv = (shape.n_head + 2 * shape.n_kv_head) * shape.head_size * shape.width
    _divides("depth", depth, "elements of a part of the attention's input matrix", qkv // parts)
    _divides("depth", depth, "elements of a part of its output matrix", shape.width**2 // parts)
    _divides("depth", depth, "elements of a part of the head", vocab_size * shape.width // parts)
    _divides("depth", depth, "elements of a part of the embedding", vocab_size * shape.width // column)


def _divides(key: str, degree: int, what: str, count: int) -> None:
    if count % degree:
        raise UserError(f"parallel.{key}={degree} does not divide the {count} {what}; give a divisor of {count}")
