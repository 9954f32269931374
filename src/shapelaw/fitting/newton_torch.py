"""The damped Newton of `descent` for a whole batch of starts at once, as float64 tensors, for a GPU.

Shapes: S starts, K terms, M exponents, P entries of phi, Q free ones, n points, U distinct points of a term.
torch is imported inside the functions, so that a fit by another solver never loads it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.descent import EASED
from shapelaw.fitting.kernels import LOG_CLIP, Data
from shapelaw.fitting.multistart import CONVERGED, MAX_ITER, ROUNDING
from shapelaw.fitting.newton import Newton

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]

BYTES_CPU, BYTES_GPU = 64 << 20, 8 << 30
"""Memory of one batch's Jacobian."""


class NewtonTorch(Newton):
    """Batched search of a sum law's problem, on a GPU if available; refits have few starts and use the compiled solver."""

    def _descend(self, phis: Array, data: Data, stages: Array) -> tuple[Array, NDArray[np.int64]]:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        batch = _Batch(self, data, device)
        rows = max((BYTES_GPU if device == "cuda" else BYTES_CPU) // (8 * phis.shape[1] * len(data.log_loss)), 1)
        values, statuses = np.empty(len(phis)), np.empty(len(phis), dtype=np.int64)
        for low in range(0, len(phis), rows):
            part = slice(low, low + rows)
            phi = torch.tensor(phis[part], dtype=torch.float64, device=device)
            for delta, tol, most in stages:
                phi, value, status = batch.descend(phi, float(delta), float(tol), int(most))
            phis[part] = phi.cpu().numpy()
            values[part], statuses[part] = value.cpu().numpy(), status.cpu().numpy()
        return values, statuses


@dataclass
class _State:
    """The state of every start of a batch; each field's first axis is S."""

    phi: Tensor
    value: Tensor
    g: Tensor
    hessian: Tensor
    gauss: Tensor
    lam: Tensor
    grow: Tensor
    small: Tensor
    row: Tensor
    """Index of this start in the whole batch."""

    def take(self, keep: Tensor) -> _State:
        return _State(*(getattr(self, field.name)[keep] for field in fields(self)))


class _Batch:
    """Data and geometry of one problem as tensors, and the algorithm on them."""

    def __init__(self, newton: Newton, data: Data, device: str) -> None:
        import torch

        def tensor(values: NDArray[np.generic]) -> Tensor:
            return torch.as_tensor(np.asarray(values), device=device)

        geometry = newton.compiled.geometry
        self.power, self.aspect, self.owner = data.power, data.aspect, [int(j) for j in data.owner]
        self.features, self.tables, self.offsets = tensor(data.features), tensor(data.tables), tensor(data.offsets)
        self.places = tensor(data.places.astype(np.int64))
        self.log_loss, self.weights, self.log_aspect = (
            tensor(data.log_loss),
            tensor(data.weights),
            tensor(data.log_aspect),
        )
        self.basis, self.origin, self.free = tensor(geometry.basis), tensor(geometry.origin), tensor(geometry.free)
        self.linear = tensor(geometry.linear)[self.free]
        self.low, self.high = tensor(geometry.low)[self.free], tensor(geometry.high)[self.free]
        self.up, self.down = tensor(geometry.limit_up)[self.free], tensor(geometry.limit_down)[self.free]
        self.terms, self.over_cost = len(data.sizes), data.over_cost
        self.floor = ROUNDING * float(data.weights.sum())

    def evaluate(self, phi: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Objective (S,), gradient (S, P), Hessian and M (S, P, P); see `kernels`."""
        import torch

        shares, log_sum = self._shares(phi)
        inner = torch.cat([shares, shares[:, self.owner] * self.features], dim=1)
        rho, extras, log_reducible, bends = self._whole(phi, log_sum)
        log_loss = torch.logaddexp(log_reducible, phi[:, -1:])
        reducible = torch.exp(log_reducible - log_loss)
        r = self.log_loss - log_loss
        weights = torch.where(r < 0, self.over_cost * self.weights, self.weights)
        size, psi = r.abs(), r.clamp(-delta, delta) * weights
        part = size.clamp(max=delta)
        value = (weights * part * (size - 0.5 * part)).sum(dim=1)
        curve = weights * (size <= delta) + psi
        damp = weights * delta / size.clamp(min=delta)
        d_log = torch.cat([rho[:, :, None] * inner, *extras], dim=1)
        rows = torch.cat([reducible[:, None] * d_log, (1 - reducible)[:, None]], dim=1)
        g = -(rows @ psi[:, :, None])[:, :, 0]
        hessian = (rows * curve[:, None]) @ rows.mT
        gauss = (rows * damp[:, None]) @ rows.mT
        pull = psi * reducible
        hessian[:, :-1, :-1] -= (d_log * pull[:, None]) @ d_log.mT
        self._add_curvature(hessian, pull, inner, rho, bends)
        hessian[:, -1, -1] += g[:, -1]
        return value, g, hessian, gauss

    def _shares(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """t_j / sum (S, K, n) and log sum (S, n)."""
        import torch

        table = phi[:, : self.terms, None] + self.offsets
        for m, j in enumerate(self.owner):
            table[:, j] += phi[:, self.terms + m, None] * self.tables[m]
        table = torch.exp(table.clamp(-LOG_CLIP, LOG_CLIP))
        terms = torch.stack([table[:, j, self.places[j]] for j in range(self.terms)], dim=1)
        total = terms.sum(dim=1)
        return terms / total[:, None], torch.log(total)

    def _whole(self, phi: Tensor, log_sum: Tensor) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor]]:
        """(rho (S, 1), rows of d log G by the extras, log G, inputs of the extras' second derivatives)."""
        import torch

        rho, extras, log_reducible, bends = torch.ones_like(phi[:, :1]), [], log_sum, []
        if self.power >= 0:
            rho, extras = phi[:, self.power, None], [log_sum[:, None]]
            log_reducible = (rho * log_sum).clamp(-LOG_CLIP, LOG_CLIP)
        if self.aspect >= 0:
            squared = torch.exp(2 * phi[:, self.aspect, None])
            distance = self.log_aspect - phi[:, self.aspect + 1, None]
            factor = 1 + squared * distance**2
            bends = [2 * (factor - 1) / factor, -2 * squared * distance / factor, factor, squared]
            extras = [*extras, bends[0][:, None], bends[1][:, None]]
            log_reducible = log_reducible + torch.log(factor)
        return rho, extras, log_reducible, bends

    def _add_curvature(self, hessian: Tensor, pull: Tensor, inner: Tensor, rho: Tensor, bends: list[Tensor]) -> None:
        """hessian -= sum psi p D2, where D2 are the second derivatives of rho log u + log q."""
        import torch

        k, size = self.terms, inner.shape[1]
        hessian[:, :size, :size] += rho[:, :, None] * ((inner * pull[:, None]) @ inner.mT)
        sums = rho * (inner @ pull[:, :, None])[:, :, 0]
        index = torch.arange(k, device=pull.device)
        hessian[:, index, index] -= sums[:, :k]
        for m, j in enumerate(self.owner):
            hessian[:, k + m, j] -= sums[:, k + m]
            hessian[:, j, k + m] -= sums[:, k + m]
            for other, owner in enumerate(self.owner):
                if owner == j:
                    hessian[:, k + m, k + other] -= rho[:, 0] * ((pull * inner[:, k + m]) @ self.features[other])
        if self.power >= 0:
            cross = (inner @ pull[:, :, None])[:, :, 0]
            hessian[:, self.power, :size] -= cross
            hessian[:, :size, self.power] -= cross
        if bends:
            (bend, slope, factor, squared), at = bends, self.aspect
            hessian[:, at, at] -= (pull * 2 * bend / factor).sum(dim=1)
            mixed = (pull * 2 * slope / factor).sum(dim=1)
            hessian[:, at, at + 1] -= mixed
            hessian[:, at + 1, at] -= mixed
            hessian[:, at + 1, at + 1] -= (pull * (2 * squared / factor - slope**2)).sum(dim=1)

    def reduced(self, phi: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same in the free coordinates, linear ones without their gradient on the diagonal."""
        import torch

        value, g, hessian, gauss = self.evaluate(phi, delta)
        g = g @ self.basis
        hessian, gauss = (self.basis.mT @ matrix @ self.basis for matrix in (hessian, gauss))
        return value, g, hessian - torch.diag_embed(g * self.linear), gauss

    def descend(self, phi: Tensor, delta: float, tol: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """`descent.descend_all` at one delta: (phi (S, P), objectives (S,), statuses (S,))."""
        import torch

        value, g, hessian, gauss = self.reduced(phi, delta)
        count = len(phi)
        endpoints, values = phi.clone(), torch.where(torch.isfinite(value), value, torch.inf)
        statuses = torch.full((count,), MAX_ITER, device=phi.device)
        ones = torch.ones_like(value)
        state = _State(
            phi, value, g, hessian, gauss, 1e-2 * ones, 2 * ones, 0 * ones, torch.arange(count, device=phi.device)
        )
        finished = value <= self.floor
        statuses[finished] = CONVERGED
        state = state.take(~finished & torch.isfinite(value))
        for _ in range(most):
            if not len(state.row):
                break
            done = self._advance(state, delta, tol)
            endpoints[state.row], values[state.row] = state.phi, state.value
            if done.any():
                statuses[state.row[done]] = CONVERGED
                state = state.take(~done)
        return endpoints, values, statuses

    def _advance(self, state: _State, delta: float, tol: float) -> Tensor:
        """One iteration in place; returns which starts have converged."""
        import torch

        step, clipped, modified = self._propose(state)
        u = state.phi[:, self.free]
        change = torch.where(self.linear, torch.log1p(step.clamp(min=-0.999)), step)
        moved = self.origin + torch.clamp(u + change, self.low, self.high) @ self.basis.mT
        trial, g, hessian, gauss = self.reduced(moved, delta)
        promised = -(step * (state.g + 0.5 * (state.hessian @ step[:, :, None])[:, :, 0])).sum(dim=1)
        better = trial < state.value
        gain = torch.where(promised > 0, (state.value - trial) / promised, 0.0)
        tiny = better & (state.value - trial <= tol * state.value)
        state.small = torch.where(better, torch.where(tiny, state.small + 1, 0.0), state.small)
        sure = (state.lam < 1e-3) & ~clipped & ~modified
        stuck = ((state.g * step).sum(dim=1).abs() <= 1e-15 * state.value) | (state.lam > 1e15)
        softer = torch.where(gain > 0.75, state.lam / 5, torch.where(gain < 0.25, state.lam * 2, state.lam / 2.5))
        state.lam = torch.where(better, softer, (state.grow * state.lam).clamp(min=1e-3))
        state.grow = torch.where(better, 2.0, state.grow * 2)
        state.phi = torch.where(better[:, None], moved, state.phi)
        state.value = torch.where(better, trial, state.value)
        state.g = torch.where(better[:, None], g, state.g)
        state.hessian = torch.where(better[:, None, None], hessian, state.hessian)
        state.gauss = torch.where(better[:, None, None], gauss, state.gauss)
        settled = ((state.small > 0) & sure) | (state.small >= 3) | (state.value <= self.floor)
        return torch.where(better, settled, stuck)

    def _propose(self, state: _State) -> tuple[Tensor, Tensor, Tensor]:
        """`descent.propose` for every start: (step (S, Q), a limit was met (S,), a pivot was replaced (S,))."""
        import torch

        u = state.phi[:, self.free]
        up, down = torch.where(u < self.high, self.up, 0.0), torch.where(u > self.low, self.down, 0.0)
        fallback = state.g.abs() / torch.where(state.g < 0, up, down).clamp(min=1e-3)
        diagonal = torch.diagonal(state.gauss, dim1=1, dim2=2)
        extra = torch.diag_embed(0.01 * diagonal + fallback)
        a = state.hessian + state.lam[:, None, None] * (state.gauss + extra)
        rhs = -state.g
        clipped = torch.zeros(len(u), dtype=torch.bool, device=u.device)
        for attempt in range(EASED + u.shape[1]):
            step, modified = _factor_solve(a, fallback, rhs)
            limit = torch.where(step > 0, up, down)
            beyond = step.abs() > limit
            if not beyond.any():
                break
            clipped |= beyond.any(dim=1)
            if attempt < EASED:
                a = a + torch.diag_embed(torch.where(beyond, fallback, 0.0))
            else:
                a, rhs = _pin(a, rhs, beyond, torch.where(step > 0, limit, -limit))
        return torch.minimum(torch.maximum(step, -down), up), clipped, modified


def _factor_solve(a: Tensor, fallback: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """LDL' solve of every system; pivots that are not clearly positive are replaced as in `descent.factor_solve`."""
    import torch

    size = rhs.shape[1]
    work, step = a.clone(), rhs.clone()
    modified = torch.zeros(len(rhs), dtype=torch.bool, device=rhs.device)
    pivots = []
    for k in range(size):
        pivot = work[:, k, k]
        bad = ~(pivot > 1e-14 * a[:, k, k].abs())
        modified = modified | bad
        pivot = torch.where(bad, torch.maximum(pivot.abs(), fallback[:, k]).clamp(min=1e-200), pivot)
        pivots.append(pivot)
        column = work[:, k + 1 :, k] / pivot[:, None]
        work[:, k + 1 :, k + 1 :] -= column[:, :, None] * work[:, k : k + 1, k + 1 :]
        step[:, k + 1 :] -= column * step[:, k : k + 1]
        work[:, k + 1 :, k] = column
    step = step / torch.stack(pivots, dim=1)
    for k in range(size - 1, 0, -1):
        step[:, :k] -= work[:, k, :k] * step[:, k : k + 1]
    return step, modified


def _pin(a: Tensor, rhs: Tensor, chosen: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Systems whose chosen rows read step == target, with their columns moved to the right-hand side."""
    import torch

    values = torch.where(chosen, target, 0.0)
    rhs = torch.where(chosen, target, rhs - (a @ values[:, :, None])[:, :, 0])
    keep = (~chosen)[:, :, None] & (~chosen)[:, None, :]
    return torch.where(keep, a, 0.0) + torch.diag_embed(chosen.to(a.dtype)), rhs
