"""Compiled evaluation of the Huber objective of sum laws: value, gradient, Hessian and the damping matrix.

With s = L_hat, r = log y - log s, psi = clip(r, -delta, delta), J = d log s / d phi, v = over_cost w if r < 0 else w:

    g = -sum v psi J
    H =  sum v (1[|r| <= delta] + psi) J J' - sum v psi s''/s
    M =  sum v min(1, delta/|r|) J J'

phi = (centred log coefficients c', exponents a, power, (log kappa, mu), log E). Points are handled in blocks so that
every loop runs over contiguous memory that fits the first-level cache; exponentials are taken once per distinct value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.compiling import inner, outer, reordered
from shapelaw.fitting.elementary import exp_block, log_block

Array = NDArray[np.float64]

BLOCK = 256
"""Most points per block: its rows stay within the first two levels of cache."""
WORK_ROWS = 10
"""Rows of scratch space of a kernel beyond one per coordinate."""
LOG_CLIP = 300.0
"""Terms are kept within e^+-300, so that squares stay finite."""


class Data(NamedTuple):
    """A sum law's data as the kernels read it (K terms, M exponents, n points, P entries of phi), and over_cost."""

    power: int
    """Place of the exponent of the whole sum in phi; below 0 for a law without one."""
    aspect: int
    """Place of log kappa in phi, mu after it; below 0 for a law without them."""
    owner: NDArray[np.int64]
    """(M,): term of each exponent."""
    features: Array
    """(M, n): centred signed log predictors."""
    tables: Array
    """(M, U): the same at each term's distinct points."""
    offsets: Array
    """(K, U): the terms' fixed parts at their distinct points, centred."""
    sizes: NDArray[np.int64]
    """(K,): number of distinct points of each term."""
    places: NDArray[np.int32]
    """(K, n): index of each point's distinct point."""
    log_aspect: Array
    """(n,) ln(width/depth), or (1,) unused."""
    log_loss: Array
    """(n,)"""
    weights: Array
    """(n,)"""
    centre: Array
    """(P,): centre of the prior that breaks ties, see `objective.Penalty`."""
    precision: Array
    """(P,): its precision; 0 without a prior."""
    over_cost: float


def additive(data: Data) -> bool:
    """Whether nothing acts on the whole sum, so that the shorter kernel suffices."""
    return data.power < 0 and data.aspect < 0


@inner
def block_size(points: int) -> int:
    """Size of nearly equal blocks, a multiple of 8."""
    blocks = (points + BLOCK - 1) // BLOCK
    return (((points + blocks - 1) // blocks + 7) // 8) * 8


@inner
def fill_tables(phi: Array, data: Data, table: Array, exponent: Array) -> None:
    """table[j, u] = t_j at its u-th distinct point; `exponent` is scratch of BLOCK."""
    for j in range(len(data.sizes)):
        for low in range(0, data.sizes[j], BLOCK):
            count = min(BLOCK, data.sizes[j] - low)
            for i in range(count):
                exponent[i] = phi[j] + data.offsets[j, low + i]
            for m in range(len(data.owner)):
                if data.owner[m] == j:
                    slope = phi[len(data.sizes) + m]
                    for i in range(count):
                        exponent[i] += slope * data.tables[m, low + i]
            for i in range(count):
                exponent[i] = min(max(exponent[i], -LOG_CLIP), LOG_CLIP)
            exp_block(exponent, table[j, low : low + count], count)


@reordered
def huber_block(r: Array, w: Array, delta: float, over_cost: float, psi: Array, curve: Array, damp: Array) -> float:
    """Objective of one block; fills psi, 1[|r| <= delta] + psi and min(1, delta/|r|), all times w and the cost."""
    total = 0.0
    for i in range(len(r)):
        size = abs(r[i])
        inside = size <= delta
        clipped = min(max(r[i], -delta), delta)
        part = min(size, delta)
        weight = w[i] * (over_cost if r[i] < 0.0 else 1.0)
        total += weight * part * (size - 0.5 * part)
        psi[i] = weight * clipped
        curve[i] = weight * ((1.0 if inside else 0.0) + clipped)
        damp[i] = weight * (1.0 if inside else delta / size)
    return total


@reordered
def add_outer(rows: Array, count: int, curve: Array, damp: Array, hessian: Array, gauss: Array) -> None:
    """Lower triangles of hessian += sum curve J J' and gauss += sum damp J J' over one block."""
    for k in range(len(rows)):
        row = rows[k]
        for m in range(k + 1):
            other = rows[m]
            first = 0.0
            second = 0.0
            for i in range(count):
                product = row[i] * other[i]
                first += curve[i] * product
                second += damp[i] * product
            hessian[k, m] += first
            gauss[k, m] += second


@reordered
def weighted_sum(weights: Array, values: Array, count: int) -> float:
    """sum of weights * values over one block."""
    total = 0.0
    for i in range(count):
        total += weights[i] * values[i]
    return total


@reordered
def add_term_curvature(data: Data, low: int, pull: Array, rows: Array, count: int, hessian: Array) -> None:
    """hessian -= sum pull * (second derivatives of the exponents within each term), rows holding share_j * feature."""
    terms = len(data.sizes)
    for m in range(len(data.owner)):
        row = rows[terms + m]
        for other in range(m + 1):
            if data.owner[other] == data.owner[m]:
                feature = data.features[other, low : low + count]
                total = 0.0
                for i in range(count):
                    total += pull[i] * row[i] * feature[i]
                hessian[terms + m, terms + other] -= total


@reordered
def gather_terms(data: Data, table: Array, low: int, rows: Array, total: Array, count: int) -> None:
    """rows[j] = t_j and total += sum_j t_j over one block."""
    for j in range(len(data.sizes)):
        place = data.places[j, low : low + count]
        values = table[j]
        row = rows[j]
        for i in range(count):
            row[i] = values[place[i]]
        for i in range(count):
            total[i] += row[i]


@reordered
def spread_shares(data: Data, low: int, rows: Array, total: Array, count: int) -> None:
    """rows[j] = t_j / total, and the exponents' rows = that times their feature."""
    terms = len(data.sizes)
    for i in range(count):
        total[i] = 1.0 / total[i]
    for j in range(terms):
        row = rows[j]
        for i in range(count):
            row[i] *= total[i]
    for m in range(len(data.owner)):
        share = rows[data.owner[m]]
        feature = data.features[m, low : low + count]
        row = rows[terms + m]
        for i in range(count):
            row[i] = share[i] * feature[i]


@inner
def clear(g: Array, hessian: Array, gauss: Array) -> None:
    """Zeros (loops, as slice assignments take seconds to compile)."""
    for k in range(len(g)):
        g[k] = 0.0
        for m in range(len(g)):
            hessian[k, m] = 0.0
            gauss[k, m] = 0.0


@inner
def mirror(matrix: Array) -> None:
    """Copy the lower triangle to the upper."""
    for k in range(len(matrix)):
        for m in range(k):
            matrix[m, k] = matrix[k, m]


@inner
def add_penalty(phi: Array, data: Data, g: Array, hessian: Array, gauss: Array) -> float:
    """The part of the objective that the priors add; its derivatives are filled in."""
    total = 0.0
    for k in range(len(phi)):
        away = phi[k] - data.centre[k]
        total += 0.5 * data.precision[k] * away * away
        g[k] += data.precision[k] * away
        hessian[k, k] += data.precision[k]
        gauss[k, k] += data.precision[k]
    return total


@outer
def evaluate_additive(
    phi: Array, data: Data, delta: float, table: Array, work: Array, g: Array, hessian: Array, gauss: Array
) -> float:
    """Objective of an additive law; fills g, the Hessian in phi and M."""
    size, terms, n = len(phi), len(data.sizes), len(data.log_loss)
    rows, total, r, psi, curve, damp = (
        work[:size],
        work[size],
        work[size + 1],
        work[size + 2],
        work[size + 3],
        work[size + 4],
    )
    irreducible = math.exp(phi[-1])
    clear(g, hessian, gauss)
    fill_tables(phi, data, table, total)
    value = 0.0
    block = block_size(n)
    for low in range(0, n, block):
        count = min(block, n - low)
        for i in range(count):
            total[i] = irreducible
        gather_terms(data, table, low, rows, total, count)
        log_block(total, r, count)
        y = data.log_loss[low : low + count]
        for i in range(count):
            r[i] = y[i] - r[i]
        value += huber_block(r[:count], data.weights[low : low + count], delta, data.over_cost, psi, curve, damp)
        spread_shares(data, low, rows, total, count)
        for i in range(count):
            rows[size - 1, i] = irreducible * total[i]
        for k in range(size):
            g[k] -= weighted_sum(psi, rows[k], count)
        add_outer(rows, count, curve, damp, hessian, gauss)
        add_term_curvature(data, low, psi, rows, count, hessian)
    for j in range(terms):
        hessian[j, j] += g[j]
    for m in range(len(data.owner)):
        hessian[terms + m, data.owner[m]] += g[terms + m]
    hessian[size - 1, size - 1] += g[size - 1]
    mirror(hessian)
    mirror(gauss)
    return value + add_penalty(phi, data, g, hessian, gauss)


@outer
def evaluate_whole(
    phi: Array, data: Data, delta: float, table: Array, work: Array, g: Array, hessian: Array, gauss: Array
) -> float:
    """The same for L = E + u^rho q, where u is the sum of the terms: log G = rho log u + log q, p = G/L, J = (p D, 1 - p).

    rho is 1 without a power, q is 1 without an aspect factor; the two share no second derivative.

    s''/s = p (D D' + D2) for the reducible part, where D = d log G and D2 its second derivative.
    """
    size, terms, n = len(phi), len(data.sizes), len(data.log_loss)
    inner = terms + len(data.owner)
    rows, total, r, psi, curve, damp = (
        work[:size],
        work[size],
        work[size + 1],
        work[size + 2],
        work[size + 3],
        work[size + 4],
    )
    share, log_sum, aux, second = work[size + 5], work[size + 6], work[size + 7], work[size + 8]
    pull = work[size + 9]
    rho = phi[data.power] if data.power >= 0 else 1.0
    irreducible = math.exp(phi[-1])
    clear(g, hessian, gauss)
    fill_tables(phi, data, table, total)
    value = 0.0
    block = block_size(n)
    for low in range(0, n, block):
        count = min(block, n - low)
        for i in range(count):
            total[i] = 0.0
        gather_terms(data, table, low, rows, total, count)
        log_block(total, log_sum, count)
        if data.power >= 0:
            for i in range(count):
                rows[data.power, i] = log_sum[i]
                aux[i] = min(max(rho * log_sum[i], -LOG_CLIP), LOG_CLIP)
            exp_block(aux, share, count)
        else:
            for i in range(count):
                share[i] = total[i]
        if data.aspect >= 0:
            squared = math.exp(2.0 * phi[data.aspect])
            for i in range(count):
                distance = data.log_aspect[low + i] - phi[data.aspect + 1]
                factor = 1.0 + squared * distance * distance
                share[i] *= factor
                aux[i] = factor
                rows[data.aspect, i] = 2.0 * (factor - 1.0) / factor
                rows[data.aspect + 1, i] = -2.0 * squared * distance / factor
        for i in range(count):
            second[i] = share[i] + irreducible
        log_block(second, r, count)
        for i in range(count):
            r[i] = data.log_loss[low + i] - r[i]
            share[i] = share[i] / second[i]
            second[i] = irreducible / second[i]
        value += huber_block(r[:count], data.weights[low : low + count], delta, data.over_cost, psi, curve, damp)
        spread_shares(data, low, rows, total, count)
        for i in range(count):
            pull[i] = psi[i] * share[i]
        add_inner_curvature(data, phi, low, inner, rho, pull, rows, aux, count, hessian)
        for k in range(size - 1):
            scale = rho if k < inner else 1.0
            for i in range(count):
                rows[k, i] *= scale * share[i]
        for i in range(count):
            rows[size - 1, i] = second[i]
        for k in range(size):
            g[k] -= weighted_sum(psi, rows[k], count)
        add_outer(rows, count, curve, damp, hessian, gauss)
        # - psi p D D' as J J' / p (p > 0, as terms are kept above e^-300)
        for i in range(count):
            pull[i] = psi[i] / share[i]
        for k in range(size - 1):
            for m in range(k + 1):
                sum_ = 0.0
                for i in range(count):
                    sum_ += pull[i] * rows[k, i] * rows[m, i]
                hessian[k, m] -= sum_
    hessian[size - 1, size - 1] += g[size - 1]
    mirror(hessian)
    mirror(gauss)
    return value + add_penalty(phi, data, g, hessian, gauss)


@reordered
def add_inner_curvature(
    data: Data,
    phi: Array,
    low: int,
    inner: int,
    rho: float,
    pull: Array,
    rows: Array,
    factor: Array,
    count: int,
    hessian: Array,
) -> None:
    """hessian -= sum psi p D2: second derivatives of rho log u + log q, rows holding d log u and d log q."""
    terms = len(data.sizes)
    for k in range(inner):
        for m in range(k + 1):
            total = 0.0
            for i in range(count):
                total += pull[i] * rows[k, i] * rows[m, i]
            hessian[k, m] += rho * total
    for j in range(terms):
        hessian[j, j] -= rho * weighted_sum(pull, rows[j], count)
    for m in range(len(data.owner)):
        hessian[terms + m, data.owner[m]] -= rho * weighted_sum(pull, rows[terms + m], count)
        for other in range(m + 1):
            if data.owner[other] == data.owner[m]:
                total = 0.0
                for i in range(count):
                    total += pull[i] * rows[terms + m, i] * data.features[other, low + i]
                hessian[terms + m, terms + other] -= rho * total
    if data.power >= 0:
        for k in range(inner):
            hessian[data.power, k] -= weighted_sum(pull, rows[k], count)
    if data.aspect >= 0:
        bend, slope = rows[data.aspect], rows[data.aspect + 1]
        squared = math.exp(2.0 * phi[data.aspect])
        both, cross, twice = 0.0, 0.0, 0.0
        for i in range(count):
            both += pull[i] * 2.0 * bend[i] / factor[i]
            cross += pull[i] * 2.0 * slope[i] / factor[i]
            twice += pull[i] * (2.0 * squared / factor[i] - slope[i] * slope[i])
        hessian[data.aspect, data.aspect] -= both
        hessian[data.aspect + 1, data.aspect] -= cross
        hessian[data.aspect + 1, data.aspect + 1] -= twice


def evaluate(phi: Array, data: Data, delta: float) -> tuple[float, Array, Array, Array]:
    """(objective, gradient, Hessian in phi, M) at phi."""
    size = len(phi)
    g, hessian, gauss = np.empty(size), np.empty((size, size)), np.empty((size, size))
    table, work = np.empty(data.offsets.shape), np.empty((size + WORK_ROWS, BLOCK))
    kernel = evaluate_additive if additive(data) else evaluate_whole
    value = kernel(phi, data, delta, table, work, g, hessian, gauss)
    return float(value), g, hessian, gauss
