"""Compiled damped Newton on the Huber objective, with continuation in delta.

Coefficients and E move by Newton steps in the LINEAR coefficient (c += log1p(step)), which leaves the gradient off
their diagonal. Every coordinate has its own damping, so that a vanished term does not freeze the others.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.compiling import callable_kernel, inner
from shapelaw.fitting.kernels import BLOCK, WORK_ROWS, Data, evaluate_additive, evaluate_whole
from shapelaw.fitting.multistart import CONVERGED, MAX_ITER, ROUNDING

Array = NDArray[np.float64]

EASED = 4
"""Attempts to bring a step within its limits by damping before coordinates are pinned."""


class Geometry(NamedTuple):
    """How phi may move: phi = origin + basis @ u with u = phi[free]."""

    basis: Array
    """(P, Q)"""
    origin: Array
    """(P,)"""
    free: NDArray[np.int64]
    """(Q,): entry of phi for each free coordinate."""
    plain: bool
    """Whether all entries are free, so that basis is the identity."""
    linear: NDArray[np.bool_]
    """(P,): coordinates that are logs of linear coefficients."""
    low: Array
    """(P,): lower bounds."""
    high: Array
    """(P,): upper bounds."""
    limit_up: Array
    """(P,): largest step upwards (relative for linear coordinates)."""
    limit_down: Array
    """(P,): largest step downwards."""


@inner
def factor_solve(a: Array, fallback: Array, factor: Array, pivots: Array, rhs: Array, out: Array) -> bool:
    """Solve a out = rhs by LDL'; a pivot that is not clearly positive becomes max(|pivot|, fallback of its coordinate).

    Returns whether a pivot was replaced.
    """
    size = len(rhs)
    modified = False
    for k in range(size):
        pivot = a[k, k]
        for j in range(k):
            pivot -= factor[k, j] * factor[k, j] * pivots[j]
        if not pivot > 1e-14 * abs(a[k, k]):
            pivot = max(abs(pivot), fallback[k])
            pivot = max(pivot, 1e-200)
            modified = True
        pivots[k] = pivot
        for i in range(k + 1, size):
            value = a[i, k]
            for j in range(k):
                value -= factor[i, j] * factor[k, j] * pivots[j]
            factor[i, k] = value / pivot
    for i in range(size):
        value = rhs[i]
        for j in range(i):
            value -= factor[i, j] * out[j]
        out[i] = value
    for i in range(size - 1, -1, -1):
        value = out[i] / pivots[i]
        for j in range(i + 1, size):
            value -= factor[j, i] * out[j]
        out[i] = value
    return modified


@inner
def pin(a: Array, rhs: Array, i: int, value: float) -> None:
    """Turn row i of the system into step[i] = value, moving its column to the right-hand side."""
    for j in range(len(rhs)):
        rhs[j] -= a[j, i] * value
        a[i, j] = 0.0
        a[j, i] = 0.0
    a[i, i] = 1.0
    rhs[i] = value


@callable_kernel
def propose(
    g: Array, hessian: Array, gauss: Array, lam: float, up: Array, down: Array, scratch: Array, step: Array
) -> tuple[bool, bool]:
    """Damped Newton step (H + lam (M + 0.01 diag M + diag l)) step = -g with l_i = |g_i| / limit_i.

    If the step exceeds its limit, l_i is added to the diagonal and the system is solved again; a coordinate that still
    exceeds it is set to its limit and the others are solved given that (scaling the whole step instead would freeze
    them while E runs to zero). Returns (a limit was met, a pivot was replaced).
    """
    size = len(g)
    a, factor = scratch[:size], scratch[size : 2 * size]
    pivots, fallback, rhs = scratch[2 * size], scratch[2 * size + 1], scratch[2 * size + 2]
    for i in range(size):
        fallback[i] = abs(g[i]) / max(up[i] if g[i] < 0 else down[i], 1e-3)
        rhs[i] = -g[i]
        for j in range(size):
            a[i, j] = hessian[i, j] + lam * gauss[i, j]
        a[i, i] += lam * (0.01 * gauss[i, i] + fallback[i])
    clipped = False
    modified = False
    for attempt in range(EASED + size):
        modified = factor_solve(a, fallback, factor, pivots, rhs, step)
        exceeded = False
        for i in range(size):
            limit = up[i] if step[i] > 0 else down[i]
            if abs(step[i]) > limit:
                exceeded = True
                if attempt < EASED:
                    a[i, i] += fallback[i]
                else:
                    pin(a, rhs, i, limit if step[i] > 0 else -limit)
        if not exceeded:
            break
        clipped = True
    for i in range(size):
        step[i] = min(max(step[i], -down[i]), up[i])
    return clipped, modified


@inner
def room(phi: Array, geometry: Geometry, up: Array, down: Array) -> None:
    """Step limits of the free coordinates; towards a bound that has been reached, the limit is zero."""
    for q in range(len(up)):
        k = geometry.free[q]
        up[q] = geometry.limit_up[k] if phi[k] < geometry.high[k] else 0.0
        down[q] = geometry.limit_down[k] if phi[k] > geometry.low[k] else 0.0


@inner
def copy(source: Array, target: Array) -> None:
    """target = source."""
    for k in range(len(source)):
        target[k] = source[k]


@inner
def restrict(full: Array, basis: Array, out: Array) -> None:
    """out = basis' full basis (written out: linking BLAS costs seconds of compilation)."""
    for q in range(basis.shape[1]):
        for r in range(q + 1):
            total = 0.0
            for k in range(len(full)):
                row = 0.0
                for m in range(len(full)):
                    row += full[k, m] * basis[m, r]
                total += basis[k, q] * row
            out[q, r] = total
            out[r, q] = total


@inner
def reduce_derivatives(
    g: Array, hessian: Array, gauss: Array, geometry: Geometry, g_u: Array, hessian_u: Array, gauss_u: Array
) -> None:
    """Derivatives in the free coordinates; linear coordinates lose the gradient from their diagonal."""
    if geometry.plain:
        for q in range(len(g)):
            g_u[q] = g[q]
            for r in range(len(g)):
                hessian_u[q, r] = hessian[q, r]
                gauss_u[q, r] = gauss[q, r]
    else:
        basis = geometry.basis
        for q in range(len(g_u)):
            g_u[q] = 0.0
            for k in range(len(g)):
                g_u[q] += basis[k, q] * g[k]
        restrict(hessian, basis, hessian_u)
        restrict(gauss, basis, gauss_u)
    for q in range(len(g_u)):
        if geometry.linear[geometry.free[q]]:
            hessian_u[q, q] -= g_u[q]


@inner
def move(phi: Array, step: Array, geometry: Geometry, u: Array, moved: Array) -> None:
    """moved = phi after the step, within the bounds."""
    for q in range(len(step)):
        k = geometry.free[q]
        change = math.log1p(max(step[q], -0.999)) if geometry.linear[k] else step[q]
        u[q] = min(max(phi[k] + change, geometry.low[k]), geometry.high[k])
    if geometry.plain:
        copy(u, moved)
    else:
        for k in range(len(phi)):
            moved[k] = geometry.origin[k]
            for q in range(len(u)):
                moved[k] += geometry.basis[k, q] * u[q]


@inner
def model_decrease(g: Array, hessian: Array, step: Array) -> float:
    """-(g's + s'Hs/2)."""
    total = 0.0
    for i in range(len(g)):
        row = g[i]
        for j in range(len(g)):
            row += 0.5 * hessian[i, j] * step[j]
        total -= row * step[i]
    return total


@inner
def inner_product(a: Array, b: Array) -> float:
    """a'b."""
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


class Scratch(NamedTuple):
    """Working memory of one descent."""

    table: Array
    work: Array
    g: Array
    hessian: Array
    gauss: Array
    g_u: Array
    hessian_u: Array
    gauss_u: Array
    system: Array
    step: Array
    u: Array
    moved: Array
    up: Array
    down: Array
    rows: Array
    """(M + 3, n) flat: the used rows' features, log aspect ratio, log loss and weights, if some rows are unused."""
    places: NDArray[np.int32]
    """(K, n) flat: their distinct points."""


def scratch(data: Data, geometry: Geometry, thinned: bool) -> Scratch:
    """Working memory for a problem, with room for a part of its rows if it is thinned; one per thread."""
    size, count = geometry.basis.shape
    room = len(data.log_loss) if thinned else 0
    full, free = (np.empty((size, size)) for _ in range(2)), (np.empty((count, count)) for _ in range(2))
    return Scratch(
        np.empty(data.offsets.shape), np.empty((size + WORK_ROWS, BLOCK)),
        np.empty(size), next(full), next(full), np.empty(count), next(free), next(free),
        np.empty((2 * count + 3, count)), np.empty(count), np.empty(count), np.empty(size),
        np.empty(count), np.empty(count),
        np.empty((len(data.owner) + 3) * room), np.empty(len(data.sizes) * room, dtype=np.int32),
    )  # fmt: skip


@inner
def used_rows(data: Data, weights: Array, centre: Array, precision: Array, scratch: Scratch) -> Data:
    """The data with other weights and priors, without rows of weight 0 (a third of a resampled set)."""
    exponents, terms, count = len(data.owner), len(data.sizes), 0
    for i in range(len(weights)):
        count += weights[i] > 0.0
    features, places, aspect = data.features, data.places, data.log_aspect
    log_loss, used = data.log_loss, weights
    if count < len(weights):
        features = scratch.rows[: exponents * count].reshape((exponents, count))
        aspect = scratch.rows[exponents * count : (exponents + 1) * count]
        log_loss = scratch.rows[(exponents + 1) * count : (exponents + 2) * count]
        used = scratch.rows[(exponents + 2) * count : (exponents + 3) * count]
        places = scratch.places[: terms * count].reshape((terms, count))
        at = 0
        for i in range(len(weights)):
            if weights[i] > 0.0:
                for m in range(exponents):
                    features[m, at] = data.features[m, i]
                for j in range(terms):
                    places[j, at] = data.places[j, i]
                if data.aspect >= 0:
                    aspect[at] = data.log_aspect[i]
                log_loss[at] = data.log_loss[i]
                used[at] = weights[i]
                at += 1
    return Data(
        data.power, data.aspect, data.owner, features, data.tables, data.offsets, data.sizes, places, aspect,
        log_loss, used, centre, precision, data.over_cost,
    )  # fmt: skip


@callable_kernel
def descend_all(
    phis: Array,
    weights: Array,
    centres: Array,
    precisions: Array,
    data: Data,
    geometry: Geometry,
    stages: Array,
    scratch: Scratch,
    values: Array,
    statuses: NDArray[np.int64],
    whole: bool | None,
) -> None:
    """Minimise from every phi in place, through the rows (delta, tolerance, iterations) of `stages`.

    phis is (R, S, P), values and statuses are (R, S): R weights of the rows, (R, n), each with its own prior, (R, P), and
    S starts of each.

    A stage ends after a relative decrease of at most the tolerance with little damping, an unclipped step and no
    replaced pivot; after three such small decreases; after a rejected step that promised no more than a rounding error;
    or below the objective that rounding alone causes. `whole` is None for an additive law (known at compile time, so
    that the other objective is omitted) and True for one with a power or an aspect factor.
    """
    g, hessian, gauss = scratch.g, scratch.hessian, scratch.gauss
    g_u, hessian_u, gauss_u = scratch.g_u, scratch.hessian_u, scratch.gauss_u
    step, moved = scratch.step, scratch.moved
    for refit in range(len(phis)):
        own = used_rows(data, weights[refit], centres[refit], precisions[refit], scratch)
        floor = 0.0
        for i in range(len(own.weights)):
            floor += ROUNDING * own.weights[i]
        for row in range(phis.shape[1]):
            phi = phis[refit, row]
            for stage in range(len(stages)):
                delta, tol = stages[stage, 0], stages[stage, 1]
                value = np.inf
                lam, grow, small, status = 1e-2, 2.0, 0, MAX_ITER
                copy(phi, moved)
                # the first pass only evaluates the start: its "trial" is the start itself
                for iteration in range(int(stages[stage, 2]) + 1):
                    clipped, modified = False, False
                    if iteration > 0:
                        room(phi, geometry, scratch.up, scratch.down)
                        clipped, modified = propose(
                            g_u, hessian_u, gauss_u, lam, scratch.up, scratch.down, scratch.system, step
                        )
                        move(phi, step, geometry, scratch.u, moved)
                    if whole is None:
                        trial = evaluate_additive(moved, own, delta, scratch.table, scratch.work, g, hessian, gauss)
                    else:
                        trial = evaluate_whole(moved, own, delta, scratch.table, scratch.work, g, hessian, gauss)
                    if trial < value:
                        if iteration > 0:
                            promised = model_decrease(g_u, hessian_u, step)
                            gain = (value - trial) / promised if promised > 0 else 0.0
                            small = small + 1 if (value - trial) <= tol * value else 0
                            sure = lam < 1e-3 and not clipped and not modified
                            lam, grow = (lam / 5 if gain > 0.75 else (lam * 2 if gain < 0.25 else lam / 2.5)), 2.0
                            if (small > 0 and sure) or small >= 3:
                                status = CONVERGED
                        copy(moved, phi)
                        value = trial
                        if value <= floor:
                            status = CONVERGED
                        reduce_derivatives(g, hessian, gauss, geometry, g_u, hessian_u, gauss_u)
                    elif not value < np.inf:
                        break
                    else:
                        if abs(inner_product(g_u, step)) <= 1e-15 * value or lam > 1e15:
                            status = CONVERGED
                        lam = max(grow * lam, 1e-3)
                        grow *= 2.0
                    if status == CONVERGED:
                        break
                values[refit, row], statuses[refit, row] = value, status
