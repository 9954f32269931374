"""Memory of one device in a training step, counted tensor by tensor; imports no torch.

What autograd keeps for the backward pass is counted as the model's three forms keep it (numba's kernels on a CPU, torch
in float32, torch in mixed precision), and the peak is the largest of the moments at which it can lie. The tests compare
both with what torch allocates on a CPU; a GPU's constants follow from torch's source and are not yet measured:
benchmarks/memory.py does that.

n tokens of a micro-batch, C width, V vocabulary, H and K query and key-value heads, D head size, I hidden width of the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from shapelaw.config import ParallelKind
from shapelaw.parallel.layout import Layout
from shapelaw.shapes import Shape
from shapelaw.thresholds import SMALL_HEAD_MAX, SMALL_TIME_MAX, chunk_rows

FLOAT, HALF = 4, 2
ONE_PROCESS = Layout(ParallelKind.single)
WORKSPACE_BYTES_GPU = 32 * 2**20
"""What cuBLAS takes of torch's allocator on a Hopper GPU; less on others."""


@dataclass(frozen=True)
class Arithmetic:
    """Where and how a step computes.

    Args:
        gpu: whether on one.
        bf16: whether products are in bfloat16 (autocast).
        kernels: whether our CPU kernels are used: float32 on few threads.
    """

    gpu: bool
    bf16: bool
    kernels: bool


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one device in a training step of `micros` micro-batches of `sequences`.

    Args:
        shape, vocab_size, seq_len: of the model.
        sequences: of one micro-batch.
        micros: micro-batches of a step.
        work: arithmetic.
        layout: of the run; its degrees divide weights and activations.
    """

    shape: Shape
    vocab_size: int
    seq_len: int
    sequences: int
    micros: int
    work: Arithmetic
    layout: Layout = ONE_PROCESS

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.sequences * self.seq_len

    @property
    def _item(self) -> int:
        """Bytes of an element of what matrix products read and write."""
        return HALF if self.work.bf16 else FLOAT

    @property
    def _width(self) -> float:
        """Of the residual stream on this device."""
        return self.shape.width / self.layout.column

    @property
    def _block_matrices(self) -> float:
        """Elements of a block's matrices, before the layout's depth and FSDP divide them."""
        shape = self.shape
        attention = (2 * shape.n_head + 2 * shape.n_kv_head) * shape.head_size * shape.width
        return (attention + 3 * shape.intermediate * shape.width) / (self.layout.row * self.layout.column)

    @property
    def _embedding(self) -> float:
        return self.vocab_size * self.shape.width / self.layout.column

    @property
    def _head(self) -> float:
        return self._embedding / self.layout.row

    @cached_property
    def parameters(self) -> float:
        """Elements of weights that this device keeps."""
        norms = (2 * self.shape.depth + 1) * self._width
        matrices = self.shape.depth * self._block_matrices + self._embedding + self._head
        if self.layout.kind is ParallelKind.fsdp:
            return (norms + matrices) / self.layout.world
        return norms + matrices / self.layout.depth

    @cached_property
    def states(self) -> float:
        """Bytes of weights and of AdamW's two moments."""
        return 3 * FLOAT * self.parameters

    @cached_property
    def gradients(self) -> float:
        """Bytes of all gradients; FSDP holds whole ones while it accumulates."""
        whole = self.layout.world if self.layout.kind is ParallelKind.fsdp and self.micros > 1 else 1
        return FLOAT * self.parameters * whole

    @cached_property
    def copies(self) -> float:
        """Bytes of matrices beside the weights: autocast's in bfloat16, and those gathered from other devices."""
        blocks = self.shape.depth * self._block_matrices
        cast = HALF * blocks if self.work.bf16 else 0.0
        if self.layout.kind is ParallelKind.fsdp:  # the outer group stays, one block is used and the next is fetched
            return cast + FLOAT * (self._embedding + self._head + 2 * self._block_matrices)
        gathered = FLOAT * (blocks + self._embedding + self._head) if self.layout.depth > 1 else 0.0
        return cast + gathered

    @cached_property
    def block(self) -> float:
        """Bytes that one block keeps for its backward pass."""
        inputs = 2 * self.tokens * self._width * self._item  # what qkv and gate_up read
        return self._norms(2) + inputs + self._attention() + self._mlp()

    def _norms(self, count: int) -> float:
        """Inputs and scales; torch's composite form on a CPU keeps the normalised input too."""
        arrays = 1 if self.work.kernels or self.work.gpu else 2
        return count * self.tokens * FLOAT * (arrays * self._width + 1)

    def _attention(self) -> float:
        shape, row = self.shape, self.layout.row
        heads, kv_heads, size = shape.n_head / row, shape.n_kv_head / row, shape.head_size
        qkv, out = (heads + 2 * kv_heads) * size, heads * size
        if self.work.kernels and size <= SMALL_HEAD_MAX and self.seq_len <= SMALL_TIME_MAX:
            return self.tokens * FLOAT * (qkv + heads * self.seq_len + out)
        rotated = (heads + kv_heads) * size  # beside the projection, which the values are a view of
        return self.tokens * (self._item * (qkv + rotated + out) + FLOAT * heads)

    def _mlp(self) -> float:
        """Gate and up, (in torch's form) gelu(gate), and the product."""
        return self.tokens * (3 if self.work.kernels else 4) * self.shape.intermediate / self.layout.row * self._item

    @cached_property
    def activations(self) -> float:
        """Bytes that all blocks and the last norm keep for the backward pass."""
        return self.shape.depth * self.block + self._norms(1)

    def _loss(self) -> float:
        """While the loss is made: features, their gradient, a chunk of logits, the head's gradient and copy."""
        chunk = chunk_rows(self.tokens, self._local_vocab, "cuda" if self.work.gpu else "cpu") * self._local_vocab
        features = self.tokens * self._width
        if not self.work.bf16:
            return FLOAT * (2 * features + chunk + self._head)
        several = FLOAT * self._head if chunk < self.tokens * self._local_vocab else 0.0
        softmax, products = (HALF + FLOAT) * chunk + several, HALF * chunk + (FLOAT + HALF) * self._head
        return (FLOAT + 2 * HALF) * features + HALF * self._head + max(softmax, products)

    @property
    def _local_vocab(self) -> int:
        return self.vocab_size // self.layout.row

    def _loss_backward(self) -> float:
        """The kept gradients of features and head, multiplied where the loss is one of several or on a GPU."""
        scaled = 2 if self.micros > 1 or self.work.gpu else 1
        head = FLOAT + HALF if self.work.bf16 else scaled * FLOAT
        return scaled * self.tokens * self._width * self._item + head * self._head

    def _block_backward(self) -> float:
        """Gradients on their way through an MLP, and that of its output matrix."""
        stream = self.tokens * self._width * FLOAT * (2 if self.work.bf16 else 1)
        hidden = self.shape.intermediate / self.layout.row
        matrix = hidden * self._width * (FLOAT + HALF if self.work.bf16 else FLOAT)
        return stream + 2 * self.tokens * hidden * self._item + matrix

    @cached_property
    def moments(self) -> dict[str, float]:
        """Bytes beside states and copies at each moment that can be the peak."""
        held = self.gradients if self.micros > 1 else 0.0
        new_head = 0.0 if held else FLOAT * self._head
        inner = self.shape.depth * self.block
        embedding = FLOAT * self._embedding if held else 0.0
        flat = self.gradients if self.layout.kind is ParallelKind.ddp else 0.0
        return {
            "loss": held + self.activations + self._loss(),
            "loss backward": held + self.activations + self._loss_backward(),
            "last block backward": held + inner + self._block_backward() + new_head,
            "first block backward": self.gradients - FLOAT * self._embedding + self.block + self._block_backward(),
            "embedding backward": self.gradients + embedding + 2 * FLOAT * self.tokens * self._width,
            "optimizer": self.gradients + flat,
        }

    @property
    def peak_bytes(self) -> float:
        """The most that is allocated at a time."""
        ids = self.sequences * self.micros * (self.seq_len + 1) * 8
        workspace = WORKSPACE_BYTES_GPU if self.work.gpu else 0
        return self.states + self.copies + ids + workspace + max(self.moments.values())


@dataclass(frozen=True)
class MeasuredMemory:
    """Bytes of one device in a training step of a user's model, from what autograd keeps of one sequence in float32.

    While its gradient is on the way back, the largest of these tensors is there twice more. Where products are in bfloat16 this
    is more than is taken.

    Args:
        params: all parameters.
        activation_bytes: kept of a sequence.
        largest_bytes: of one kept tensor.
        sequences: of one micro-batch.
        gpu: whether on one.
    """

    params: int
    activation_bytes: float
    largest_bytes: float
    sequences: int
    gpu: bool

    @property
    def peak_bytes(self) -> float:
        """Weights, gradients, AdamW's two moments, and activations."""
        workspace = WORKSPACE_BYTES_GPU if self.gpu else 0
        activations = self.sequences * (self.activation_bytes + 2 * self.largest_bytes)
        return 4 * FLOAT * self.params + activations + workspace
