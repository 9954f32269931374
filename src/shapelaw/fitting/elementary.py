"""The natural logarithm and the exponential of a block of numbers, as compiled, vectorised loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapelaw.fitting.compiling import callable_kernel, outer

Array = NDArray[np.float64]


@outer
def log_block(x: Array, out: Array, count: int) -> None:
    """Natural log of `count` positive normal numbers to one unit in the last place, as a vectorised loop.

    x = 2^k m with m in [sqrt(1/2), sqrt(2)); log m = f - f^2/2 + s (f^2/2 + R(s^2)) with f = m - 1, s = f/(2 + f) and
    the minimax polynomial R of FreeBSD's e_log.c.
    """
    bits = x.view(np.int64)
    mantissa = out.view(np.int64)
    root_half = np.int64(0x3FE6A09E667F3BCD)
    for i in range(count):
        mantissa[i] = bits[i] - (((bits[i] - root_half) >> 52) << 52)
    for i in range(count):
        k = np.float64((bits[i] - root_half) >> 52)
        f = out[i] - 1.0
        s = f / (2.0 + f)
        z = s * s
        poly = 0.1479819860511658591 * z + 0.1531383769920937332
        poly = poly * z + 0.1818357216161805012
        poly = poly * z + 0.2222219843214978396
        poly = poly * z + 0.2857142874366239149
        poly = poly * z + 0.3999999999940941908
        poly = (poly * z + 0.6666666666666735130) * z
        half = 0.5 * f * f
        low = s * (half + poly) + k * 1.90821492927058770002e-10
        out[i] = k * 6.93147180369123816490e-01 - ((half - low) - f)


@callable_kernel
def exp_block(x: Array, out: Array, count: int) -> None:
    """e^x of `count` numbers within +-700 to one unit in the last place, as vectorised loops; x is overwritten.

    x = k ln 2 + r with |r| <= ln(2)/2; e^r = 1 + r + r c/(2 - c) with c = r - r^2 P(r^2) and the minimax polynomial P of
    FreeBSD's e_exp.c. Adding 1.5 * 2^52 rounds to the whole number k and leaves it in the last bits, so the order of these
    sums must not change.
    """
    bits = out.view(np.int64)
    rounding = 6755399441055744.0
    for i in range(count):
        out[i] = x[i] * 1.44269504088896338700 + rounding
    for i in range(count):
        k = out[i] - rounding
        high = x[i] - k * 6.93147180369123816490e-01
        low = k * 1.90821492927058770002e-10
        r = high - low
        z = r * r
        poly = 4.13813679705723846039e-08 * z - 1.65339022054652515390e-06
        poly = poly * z + 6.61375632143793436117e-05
        poly = poly * z - 2.77777777770155933842e-03
        c = r - (poly * z + 1.66666666666666019037e-01) * z
        x[i] = 1.0 - ((low - r * c / (2.0 - c)) - high)
        bits[i] = (bits[i] + 1023) << 52
    for i in range(count):
        out[i] *= x[i]
