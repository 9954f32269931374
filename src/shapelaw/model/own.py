"""Models that users bring, `model=path/to/file.py:NAME` or `package.module:NAME`: what they must be, what is counted of them.

NAME is called as NAME(spec, **model.options) and gives an nn.Module (`OwnModel`). Everything else is optional. The contract is
explained with examples in docs/your_model.md.

B batch, T time, V vocabulary.
"""

from __future__ import annotations

import inspect
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from shapelaw.config import ModelConfig
from shapelaw.errors import UserError
from shapelaw.model.transformer import ModelSpec, Transformer
from shapelaw.plugins import code_of, part_of

EMBEDDING, HEAD = "embedding", "head"
"""How the parameters begin that are counted as embedding and as head, where a model declares no others."""
CHECKED_TIME, CHECKED_VOCAB = 256, 512
"""Longest context and largest vocabulary of the step by which a model is checked."""
TORCH = str(Path(torch.__file__).parent)
CONTRACT = "docs/your_model.md says what a model must have"


class OwnModel(Protocol):
    """What NAME(spec, **options) must give: an nn.Module that has this method. It may have more:

    embedding, head: how the names of its embedding's and head's parameters begin, `embedding_names` and `head_names` (tuples);
        without them, what begins with `embedding` and `head`.
    loss(tokens_BT1): the mean cross entropy in nats per token; without it, that of the logits. Terms that are for training
        alone belong under `if self.training`.
    initialise(seed): sets the initial weights; without it, those that its constructor draws after torch.manual_seed(seed).
    flops_per_token(seq_len): of training; without it, torch's FlopCounterMode counts the matrix products of a step.
    columns(): name -> number, which the runs table holds beside the shape, such as the parameters that are active.
    """

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) of the next token; a position sees no later one."""
        ...


@dataclass(frozen=True)
class Measured:
    """What is counted of a user's model at one shape.

    Args:
        params: all parameters, shared ones once.
        embedding, head: those of the embedding and of the head; a tied matrix is the embedding's.
        flops_per_token: of training, forward and backward.
        activation_bytes: what autograd keeps of one sequence.
        largest_bytes: of one tensor of these.
        columns: the model's own.
    """

    params: int
    embedding: int
    head: int
    flops_per_token: float
    activation_bytes: float
    largest_bytes: float
    columns: Mapping[str, float] = field(default_factory=dict)


_MEASURED: dict[tuple[str, str, str, ModelSpec], Measured] = {}
_CHECKED: set[tuple[str, str, str, ModelSpec]] = set()


def build(model: ModelConfig, spec: ModelSpec, seed: int) -> Transformer:
    """A user's model with its initial weights, on the current device; trained by the interface of our own.

    Args:
        model: its reference and options.
        spec: shape, vocabulary and context.
        seed: of its initial weights.

    Raises:
        UserError: if it is no such model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = _constructed(model, spec)
        if hasattr(built, "initialise"):
            with _said(model, "initialise(seed)"), torch.no_grad():
                cast(Any, built).initialise(seed)
    if not hasattr(built, "loss"):
        object.__setattr__(built, "loss", types.MethodType(_loss, built))
    return cast(Transformer, built)


def measure(model: ModelConfig, spec: ModelSpec) -> Measured:
    """What is counted of a user's model, without a number of its weights: on torch's meta device.

    Raises:
        UserError: if it is no such model.
    """
    key = _key(model, spec)
    if key not in _MEASURED:
        with torch.device("meta"):
            _MEASURED[key] = _measured(model, spec)
    return _MEASURED[key]


def check(model: ModelConfig, spec: ModelSpec) -> None:
    """Try a user's model on a CPU: a step of one sequence, its loss twice, and whether a position sees a later one.

    Args:
        model: its reference and options.
        spec: the smallest shape that is to be trained; its context and vocabulary are cut for the check.

    Raises:
        UserError: naming what is wrong.
    """
    small = replace(
        spec, seq_len=min(spec.seq_len, CHECKED_TIME), vocab_size=min(spec.vocab_size, CHECKED_VOCAB), attention="sdpa"
    )
    key = _key(model, small)
    if key not in _CHECKED:
        _try(model, small)
        _CHECKED.add(key)


def _key(model: ModelConfig, spec: ModelSpec) -> tuple[str, str, str, ModelSpec]:
    return model.name, code_of("model", model.name), repr(sorted(model.options.items())), spec


def _loss(self: nn.Module, tokens_and_targets_BT1: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the logits, nats per token."""
    logits = self(tokens_and_targets_BT1[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), tokens_and_targets_BT1[:, 1:].flatten())


def _constructed(model: ModelConfig, spec: ModelSpec) -> nn.Module:
    part = part_of("model", model.name)
    if not callable(part):
        _refuse(model, f"is a {type(part).__name__}, and not a class or function that is called with a ModelSpec")
    try:
        inspect.signature(part).bind(spec, **model.options)
    except TypeError as error:
        _refuse(model, f"cannot be called as {_call(model)} ({error})")
    with _said(model, _call(model)):
        built = part(spec, **model.options)
    if not isinstance(built, nn.Module):
        _refuse(model, f"gives a {type(built).__name__}, and not an nn.Module")
    return built


def _measured(model: ModelConfig, spec: ModelSpec) -> Measured:
    built = build(model, spec, 0)
    _move_to_meta(built)
    _check_parameters(model, built)
    named = {name: parameter.numel() for name, parameter in built.named_parameters()}
    kept, flops = _step_on_meta(model, built, spec)
    if hasattr(built, "flops_per_token"):
        with _said(model, "flops_per_token(seq_len)"):
            flops = float(cast(Any, built).flops_per_token(spec.seq_len))
    return Measured(
        sum(named.values()),
        _counted(model, built, named, EMBEDDING),
        _counted(model, built, named, HEAD),
        flops,
        sum(kept.values()),
        max(kept.values(), default=0.0),
        _columns(model, built),
    )


def _move_to_meta(built: nn.Module) -> None:
    """Moves tensors whose maker ignored the device (torch.Tensor, torch.from_numpy); `Module.to` would untie weights."""
    strays = [tensor for tensor in (*built.parameters(), *built.buffers()) if not tensor.is_meta]
    moved: dict[Any, Any] = {tensor: _meta_of(tensor) for tensor in strays}
    for module in built.modules():
        for held in (module._parameters, module._buffers):
            held.update({name: moved[tensor] for name, tensor in held.items() if tensor in moved})


def _meta_of(tensor: torch.Tensor) -> torch.Tensor:
    there = tensor.detach().to("meta")
    return nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there


def _check_parameters(model: ModelConfig, built: nn.Module) -> None:
    parameters = dict(built.named_parameters())
    if not parameters:
        _refuse(model, "has no parameters")
    for name, parameter in parameters.items():
        if parameter.dtype is not torch.float32:
            _refuse(
                model, f"has {name} in {parameter.dtype}: weights are float32, and precision= says what products are in"
            )
    for name, buffer in built.named_buffers():
        if name in built.state_dict():
            _refuse(
                model,
                f"has the buffer {name} ({buffer.dtype}), which no checkpoint would keep; register it with persistent=False if "
                "it is a constant, or make it a parameter",
            )


def _counted(model: ModelConfig, built: nn.Module, named: Mapping[str, int], part: str) -> int:
    """Parameters whose names begin as a model declares, or as our own do."""
    declared = getattr(built, f"{part}_names", None)
    for start in declared or ():
        if not any(name.startswith(start) for name in named):
            _refuse(model, f"declares {part}_names={declared!r}, and no parameter's name begins with {start!r}")
    starts = (f"{part}.",) if declared is None else tuple(declared)
    return sum(count for name, count in named.items() if name.startswith(starts)) if starts else 0


def _columns(model: ModelConfig, built: nn.Module) -> dict[str, float]:
    if not hasattr(built, "columns"):
        return {}
    with _said(model, "columns()"):
        found = cast(Any, built).columns()
        return {str(name): float(value) for name, value in found.items()}


def _step_on_meta(model: ModelConfig, built: nn.Module, spec: ModelSpec) -> tuple[dict[int, float], float]:
    """Bytes of every storage that autograd keeps of one sequence, and the FLOPs of a token, both ways; all logits at once."""
    parameters = {parameter.untyped_storage()._cdata for parameter in built.parameters()}
    kept: dict[int, float] = {}
    alive: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = float(storage.nbytes())
            alive.append(tensor)  # as a storage that is freed gives its name to another
        return tensor

    ids = torch.zeros(1, spec.seq_len + 1, dtype=torch.int64, device="meta")
    counter = FlopCounterMode(display=False)
    # one context of the counter: another would begin from zero
    with _said(model, "a step on torch's meta device, by which it is counted,"), counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = _loss(built, ids)
        torch.autograd.backward(loss)
    return kept, counter.get_total_flops() / spec.seq_len


def _try(model: ModelConfig, spec: ModelSpec) -> None:
    built = build(model, spec, 0)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(spec.vocab_size, (2, spec.seq_len + 1), generator=generator)
    with _said(model, f"a step at {spec.shape.name}"):
        loss, again = built.loss(ids), built.loss(ids)
    if not isinstance(loss, torch.Tensor) or loss.ndim or loss.dtype is not torch.float32:
        _refuse(model, f"has a loss that is {_described(loss)}, and not one number in float32")
    if not torch.isfinite(loss):
        _refuse(model, f"has the loss {loss.item()} at its initial weights")
    if loss.item() != again.item():
        _refuse(
            model, "gives another loss the second time: with dropout or other chance, no run could be continued exactly"
        )
    with _said(model, "the backward pass of its loss"):
        torch.autograd.backward(loss)
    _check_logits(model, built, ids[:, :-1], spec)


@torch.no_grad()
def _check_logits(model: ModelConfig, built: nn.Module, ids: torch.Tensor, spec: ModelSpec) -> None:
    with _said(model, "forward(tokens)"):
        logits = built(ids)
    expected = (*ids.shape, spec.vocab_size)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        _refuse(model, f"gives {_described(logits)} for tokens {tuple(ids.shape)}, and not logits {expected}")
    half = ids.shape[1] // 2
    other = ids.clone()
    other[:, half:] = (other[:, half:] + 1) % spec.vocab_size
    if not torch.allclose(built(other)[:, :half], logits[:, :half], rtol=1e-4, atol=1e-4):
        _refuse(model, "is not causal: logits change with tokens that come after them")


def _described(value: Any) -> str:
    return (
        f"a tensor {tuple(value.shape)} of {value.dtype}"
        if isinstance(value, torch.Tensor)
        else f"a {type(value).__name__}"
    )


def _call(model: ModelConfig) -> str:
    options = "".join(f", {key}={value!r}" for key, value in model.options.items())
    return f"{model.name.rpartition(':')[2]}(spec{options})"


def _refuse(model: ModelConfig, fault: str) -> NoReturn:
    raise UserError(f"model={model.name}: {fault}; {CONTRACT}")


@contextmanager
def _said(model: ModelConfig, doing: str) -> Iterator[None]:
    """Says in one line what failed inside a user's model, and where."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        frame = [one for one in frames if not one.filename.startswith(TORCH)][-1]
        words = " ".join(str(error).split())[:200]
        _refuse(model, f"{doing} fails ({type(error).__name__}: {words}; {frame.filename}:{frame.lineno})")


Builder = Callable[..., OwnModel]
"""What a reference leads to: called with a ModelSpec and the options of `model.options`."""
