"""The normal distribution function, which `math` does not have: formulas call it by its name, `normal(x)`, and
`times_normal(x)`, x normal(x), which takes three operations less than the product.

float32: with v = |x| sqrt(log2(e) / 2) the bell curve is 2**(-v**2), and v**2 splits into an integer and a fraction
with one rounding: that takes fewer operations than erfc(-x / sqrt 2) / 2. What stands beside the bell curve is a
rational function, fitted most closely where the result is large; the left tail keeps a relative accuracy:

| x | float32, relative error | float64 |
|---|---|---|
| above -1 | 3e-7 | 2e-15 |
| above -5 | 3e-6 | 1e-14 |
| above -13 | 1e-4 | 5e-14 |

Below -13.3 the float32 result is 0 (it would be subnormal). float64 is computed by erfc, on a GPU so is float32.
"""
import math

import numpy as np
from numba import float32, float64

from engine.kernels.elementary.dtypes import FORMAT, compiled, part
from engine.kernels.elementary.error_function import erfc
from engine.kernels.elementary.words import absolute, bits_of, from_bits, fused, polynomial, where


def _single(*numbers):
    return tuple(np.float32(c) for c in numbers)


SQRT_HALF = math.sqrt(0.5)
NORMAL_SCALE = math.sqrt(math.log2(math.e) / 2)
FARTHEST = 13.27                             # there v is above sqrt(126.5): 2**-127 has the exponent field of 0
NORMAL_TOP = {float32: _single(0.5, 0.37795222, 0.13512015, 0.019808551)}
NORMAL_BOTTOM = {float32: _single(1.0, 1.6953406, 1.1697748, 0.39745733, 0.058528244)}
EXP2_TAIL = {float32: _single(0.6931472, 0.2402265, 0.055503562, 0.009618076, 0.0013392713, 0.00015457346)}


@part
def left_tail(real):
    rounder, digits = real(FORMAT[real].rounder + FORMAT[real].bias), FORMAT[real].digits
    scale, top, bottom, tail, one = real(NORMAL_SCALE), NORMAL_TOP[real], NORMAL_BOTTOM[real], EXP2_TAIL[real], real(1)

    def left_tail(a):
        """The area to the left of -a, 0 <= a <= FARTHEST"""
        v = a * scale
        fraction = polynomial(v, top) / polynomial(v, bottom)
        t = rounder - v * v
        f = fused(-v, v, rounder - t)
        return fraction * (one + f * polynomial(f, tail)) * from_bits(t, bits_of(t) << digits)
    return left_tail


def normal(x):
    """The area under the bell curve to the left of x"""
    return 0.5 * math.erfc(-SQRT_HALF * x)


@compiled(normal)
def _(real):
    half, root_half, farthest, zero, one = real(0.5), real(SQRT_HALF), real(FARTHEST), real(0), real(1)
    if real == float64:
        return lambda x: half * erfc(-root_half * x)

    def normal(x):
        a = absolute(x)
        y = left_tail(where(a > farthest, farthest, a))
        return where(x < zero, y, one - y)
    return normal


def times_normal(x):
    """x normal(x)"""
    return x * normal(x)


@compiled(times_normal)
def _(real):
    farthest, zero = real(FARTHEST), real(0)
    if real == float64:
        return lambda x: x * normal(x)

    def times_normal(x):
        a = absolute(x)
        a = where(a > farthest, farthest, a)
        return where(x < zero, zero, x) - a * left_tail(a)
    return times_normal
