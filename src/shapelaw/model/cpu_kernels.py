"""Single-core kernels for float32 on CPUs, compiled by numba: one pass over memory where torch takes several.

On narrow models these passes, not the matrix products, decide the speed of a step. `kernels` chooses when they are
used and holds the plain forms that they must equal. All arrays are C-contiguous float32, indices int64.

N rows (tokens), C width, I hidden width of the MLP, V vocabulary, B batch, T time, H query heads, K key-value heads, G
= H / K queries to a key, D head size.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = NDArray[np.float32]
Indices = NDArray[np.int64]

# Reassociation lets sums run in vector lanes. Infinities and NaN keep their meaning: a diverged run is seen as one.
_jit = numba.njit(fastmath={"contract", "nsz", "arcp", "reassoc"}, error_model="numpy", cache=True, nogil=True)

_ONE = np.float32(1.0)
_GELU_LINEAR = np.float32(2.0 * np.sqrt(2.0 / np.pi))  # gelu(x) = x sigmoid(linear x + cubic x^3), its tanh form
_GELU_CUBIC = np.float32(0.044715 * 2.0 * np.sqrt(2.0 / np.pi))
_LOG2_E = np.float32(1.4426950408889634)
_LANES = 32  # floats in one turn of LLVM's unrolled vector loops
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)


def _bitcast(typing_context: Any, bits: Any) -> Any:
    """The float32 with these 32 bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


_float_of_bits: Any = intrinsic(_bitcast)


@numba.njit(inline="always")
def _exp(x):  # type: ignore[no-untyped-def]  # numba infers float32
    """e^x to 3 units in the last place, 0 below -87, in lanes: 2^n e^r, |r| <= ln(2)/2, by Cephes' polynomial for expf."""
    given = x
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = np.floor(x * _LOG2_E + np.float32(0.5))
    whole = np.int32(n)
    # n (ln 2) in two parts, the first without rounding: as float(n), n keeps LLVM from joining them to one that rounds
    r = x - n * _LN_2_HIGH - np.float32(whole) * _LN_2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    power = (p * r * r + r + _ONE) * _float_of_bits((whole + np.int32(127)) << np.int32(23))
    return np.float32(0.0) if given < np.float32(-87.0) else power


@numba.njit(inline="always")
def _ordered(bits):  # type: ignore[no-untyped-def]  # numba infers int32
    """Maps the bits of a float32 to an int32 of the same order (positive NaN above all), and back."""
    return np.int32(bits ^ (np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@numba.njit
def _largest(row):  # type: ignore[no-untyped-def]  # numba infers float32
    """Largest of a row, found as integers: LLVM takes the maximum of floats in lanes only if NaN may be overlooked."""
    bits = row.view(np.int32)
    top = np.int32(-2147483648)
    for i in range(bits.size):
        top = max(top, _ordered(bits[i]))
    return _float_of_bits(_ordered(top))


@_jit
def rms_norm_forward(x_NC: Array, weight_C: Array, eps: float, out_NC: Array, scale_N: Array) -> None:
    """out = x * scale * (1 + weight), scale = 1 / sqrt(mean(x^2) + eps), which is kept for the backward pass."""
    rows, width = x_NC.shape
    for n in range(rows):
        total = np.float32(0.0)
        for c in range(width):
            total += x_NC[n, c] * x_NC[n, c]
        scale = _ONE / np.sqrt(total / np.float32(width) + np.float32(eps))
        scale_N[n] = scale
        for c in range(width):
            out_NC[n, c] = x_NC[n, c] * scale * (_ONE + weight_C[c])


@_jit
def rms_norm_backward(
    grad_NC: Array, x_NC: Array, weight_C: Array, scale_N: Array, grad_x_NC: Array, grad_weight_C: Array
) -> None:
    """With z = x * scale and h = grad * (1 + weight): grad_x = scale * (h - z mean(h z)), grad_weight = sum(grad z)."""
    rows, width = x_NC.shape
    grad_weight_C[:] = np.float32(0.0)
    for n in range(rows):
        scale = scale_N[n]
        total = np.float32(0.0)
        for c in range(width):
            total += grad_NC[n, c] * (_ONE + weight_C[c]) * x_NC[n, c]
        along = total * scale * scale * scale / np.float32(width)
        for c in range(width):
            grad_x_NC[n, c] = grad_NC[n, c] * (_ONE + weight_C[c]) * scale - x_NC[n, c] * along
            grad_weight_C[c] += grad_NC[n, c] * x_NC[n, c] * scale


@_jit
def geglu_forward(gate_up: Array, out_NI: Array) -> None:
    """out = gelu(gate) * up; gate_up is (N, 2I)."""
    rows, hidden = out_NI.shape
    for n in range(rows):
        gates, ups, out = gate_up[n, :hidden], gate_up[n, hidden:], out_NI[n]
        for i in range(hidden):
            gate = gates[i]
            sigmoid = _ONE / (_ONE + _exp(-gate * (_GELU_LINEAR + _GELU_CUBIC * gate * gate)))
            out[i] = gate * sigmoid * ups[i]


@_jit
def geglu_backward(grad_NI: Array, gate_up: Array, grad_gate_up: Array) -> None:
    """Gradient of both halves of gate_up (N, 2I)."""
    rows, hidden = grad_NI.shape
    for n in range(rows):
        gates, ups, grad = gate_up[n, :hidden], gate_up[n, hidden:], grad_NI[n]
        grad_gates, grad_ups = grad_gate_up[n, :hidden], grad_gate_up[n, hidden:]
        for i in range(hidden):
            gate = gates[i]
            cubic = _GELU_CUBIC * gate * gate
            sigmoid = _ONE / (_ONE + _exp(-gate * (_GELU_LINEAR + cubic)))
            gelu = gate * sigmoid
            slope = sigmoid + gelu * (_ONE - sigmoid) * (_GELU_LINEAR + np.float32(3.0) * cubic)
            grad_gates[i] = grad[i] * ups[i] * slope
            grad_ups[i] = grad[i] * gelu


@_jit
def softmax_cross_entropy(logits_NV: Array, targets_N: Indices, grad_scale: float, losses_N: Array) -> None:
    """Losses in nats; with grad_scale > 0 the logits become their gradient, (softmax - onehot) * grad_scale."""
    rows, vocab = logits_NV.shape
    for n in range(rows):
        logits = logits_NV[n]
        top = _largest(logits)
        at_target = logits[targets_N[n]] - top
        total = np.float32(0.0)
        for v in range(vocab):
            power = _exp(logits[v] - top)
            logits[v] = power
            total += power
        losses_N[n] = np.log(total) - at_target
        if grad_scale > 0.0:
            factor = np.float32(grad_scale) / total
            for v in range(vocab):
                logits[v] *= factor
            logits[targets_N[n]] -= np.float32(grad_scale)


@_jit
def split_heads(qkv_BTF: Array, cos_T: Array, sin_T: Array, q_BKGTD: Array, k_BKTD: Array, v_BKTD: Array) -> None:
    """Queries, keys and values of the fused projection, grouped by key-value head; queries and keys rotated."""
    batch, kv_heads, group, time, size = q_BKGTD.shape
    half, heads = size // 2, kv_heads * group
    for b in range(batch):
        for t in range(time):
            for h in range(heads + kv_heads):
                row = q_BKGTD[b, h // group, h % group, t] if h < heads else k_BKTD[b, h - heads, t]
                for d in range(half):
                    first, second = qkv_BTF[b, t, h * size + d], qkv_BTF[b, t, h * size + half + d]
                    row[d] = first * cos_T[t, d] - second * sin_T[t, d]
                    row[half + d] = second * cos_T[t, d] + first * sin_T[t, d]
            for h in range(kv_heads):
                for d in range(size):
                    v_BKTD[b, h, t, d] = qkv_BTF[b, t, (heads + kv_heads + h) * size + d]


@_jit
def merge_head_gradients(
    grad_q_BKGTD: Array, grad_k_BKTD: Array, grad_v_BKTD: Array, cos_T: Array, sin_T: Array, grad_qkv_BTF: Array
) -> None:
    """The reverse of `split_heads`: turns the gradients of queries and keys back and lays all three side by side."""
    batch, kv_heads, group, time, size = grad_q_BKGTD.shape
    half, heads = size // 2, kv_heads * group
    for b in range(batch):
        for t in range(time):
            for h in range(heads + kv_heads):
                row = grad_q_BKGTD[b, h // group, h % group, t] if h < heads else grad_k_BKTD[b, h - heads, t]
                for d in range(half):
                    grad_qkv_BTF[b, t, h * size + d] = row[d] * cos_T[t, d] + row[half + d] * sin_T[t, d]
                    grad_qkv_BTF[b, t, h * size + half + d] = row[half + d] * cos_T[t, d] - row[d] * sin_T[t, d]
            for h in range(kv_heads):
                for d in range(size):
                    grad_qkv_BTF[b, t, (heads + kv_heads + h) * size + d] = grad_v_BKTD[b, h, t, d]


@_jit
def causal_softmax(scores: Array, time: int, scale: float) -> None:
    """In place: row r of (M, R, T), which is query r % T, becomes softmax(scale * scores) over keys 0..r % T, else 0.

    Each row is worked on up to the next multiple of _LANES, so that no loop ends in single steps.
    """
    matrices, rows, _ = scores.shape
    factor = np.float32(scale)
    for m in range(matrices):
        for r in range(rows):
            seen = r % time + 1
            row = scores[m, r, : min((seen + _LANES - 1) // _LANES * _LANES, time)]
            row[seen:] = -np.inf
            top = _largest(row)
            for t in range(row.size):
                row[t] = _exp((row[t] - top) * factor)
            scores[m, r, seen:] = np.float32(0.0)
            total = np.float32(0.0)
            for t in range(row.size):
                total += row[t]
            inverse = _ONE / total
            for t in range(row.size):
                row[t] *= inverse


@_jit
def causal_softmax_backward(grad: Array, weights: Array, time: int, scale: float) -> None:
    """In place: the gradient of the softmax's weights (M, R, T) becomes that of the scores.

    Weights beyond the query are 0, and with them the gradient; only the rest of the row needs no product.
    """
    matrices, rows, _ = grad.shape
    factor = np.float32(scale)
    for m in range(matrices):
        for r in range(rows):
            bound = min((r % time + _LANES) // _LANES * _LANES, time)
            row, weight = grad[m, r, :bound], weights[m, r, :bound]
            total = np.float32(0.0)
            for t in range(bound):
                total += row[t] * weight[t]
            for t in range(bound):
                row[t] = weight[t] * (row[t] - total) * factor
            grad[m, r, bound:] = np.float32(0.0)
