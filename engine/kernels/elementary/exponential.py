"""exp, exp2, expm1, sinh, cosh, tanh.

x = n ln 2 + r, n an integer, |r| <= ln(2)/2, so e**x = 2**n e**r (Cody, Waite 1980; Muller, "Elementary Functions",
ch. 11). ln 2 is the sum of two numbers, the first so short that n times it is exact, so that r is as exact as x. n
comes from adding a number so large that what lies behind the point is rounded away (`Format.rounder`); the low bits of
the sum are n as an integer, and shifted into the exponent field they make 2**n. e**r = 1 + r + r**2 TAIL(r).

tanh x = M / (2 - M) with the sign of x, M = 1 - e**(-2|x|), which loses nothing near 0: there n = 0.
"""
import math

import numpy as np

from engine.kernels.elementary.dtypes import FORMAT, both, compiled, part, pattern, plain
from engine.kernels.elementary.words import (
    SCALES,
    absolute,
    bits_of,
    counted,
    from_bits,
    polynomial,
    times_power_of_2,
    where,
    with_sign,
)

LOG2_E = 1.4426950408889634
LN2 = both((0.693359375, -2.1219444e-04), (0.6931471803691238, 1.9082149292705877e-10))
EXP_TAIL = both((0.5, 0.16666509, 0.041666448, 0.008369932, 0.0013936601),
                (0.5000000000000014, 0.16666666666666685, 0.04166666666650061, 0.008333333333315639,
                 0.0013888888951076091, 0.00019841269899934915, 2.4801485566458998e-05, 2.7557231255241657e-06,
                 2.763289753478611e-07, 2.5113307170417768e-08))
SINH_ODD = both((0.16666667, 0.008333316, 0.0001984142, 2.7915382e-06),
                (0.16666666666666669, 0.00833333333333297, 0.00019841269841531202, 2.755731913037927e-06,
                 2.5052126856094766e-08, 1.605700052085293e-10, 7.765897596002476e-13))
# What `t` holds beside n: the bias once, where 2**n is made in one step, or twice, so that half of it is good for each
# of two steps.
BIASES = 1 if SCALES else 2


def rounder_of(real):
    """What to add to x for the low bits to hold x rounded and the biases"""
    return real(FORMAT[real].rounder + BIASES * FORMAT[real].bias)


def zero_of(real):
    """The bits of t for n = 0"""
    return pattern(float(rounder_of(real)), real)


@part
def whole_part(real):
    rounder, zero = rounder_of(real), zero_of(real)
    if SCALES:                               # an integer is made first: it is needed as one
        return lambda t: counted(t, zero)
    return lambda t: t - rounder


@part
def reduced(real):
    factor, rounder = real(LOG2_E), rounder_of(real)
    high, low = LN2[real]

    def reduced(x):
        """(r, lost, t): x = n ln 2 + r + lost, lost what rounding took from r, and t holds n (plus the biases)"""
        t = x * factor + rounder
        n = whole_part(t)
        x = x - n * high
        r = x - n * low
        return r, (x - r) - n * low, t
    return reduced


@part
def power_of_e(real):
    tail, one = EXP_TAIL[real], real(1)

    def power_of_e(r):
        """e**r for the small r of the reduction"""
        return one + r * (one + r * polynomial(r, tail))
    return power_of_e


@part
def scaled(real):
    digits, zero = FORMAT[real].digits, zero_of(real)
    if SCALES:
        return lambda p, t: times_power_of_2(p, t, zero)

    def scaled(p, t):
        """p * 2**n in two steps, so that neither factor overflows and a subnormal result is rounded once.

        The low bits of t are n + 2 bias: split into halves they are the exponent fields of the two factors.
        """
        fields = bits_of(t)
        first = fields >> 1
        return p * from_bits(p, first << digits) * from_bits(p, (fields - first) << digits)
    return scaled


@part
def scale_of(real):
    digits, bias, *_ = FORMAT[real]
    surplus = (1 - BIASES) * bias

    def scale_of(t, change):
        """2**(n + change), for when that is a normal number"""
        return from_bits(t, (bits_of(t) + (change + surplus)) << digits)
    return scale_of


def exp(x):
    """e**x"""
    return plain(math.exp, np.exp, x)


@compiled(exp)
def _(real):
    lowest, highest = both((-104, 89), (-746, 710))[real]

    def exp(x):
        x = where(x < lowest, lowest, x)
        x = where(x > highest, highest, x)
        r, _, t = reduced(x)
        return scaled(power_of_e(r), t)
    return exp


def exp2(x):
    """2**x"""
    return plain(lambda x: math.pow(2, x), np.exp2, x)


@compiled(exp2)
def _(real):
    # 2**x = 2**n e**(f ln 2), n the nearest integer and f = x - n exact
    lowest, highest = both((-151, 129), (-1076, 1025))[real]
    rounder, ln2 = rounder_of(real), real(math.log(2))

    def exp2(x):
        x = where(x < lowest, lowest, x)
        x = where(x > highest, highest, x)
        t = x + rounder
        return scaled(power_of_e((x - whole_part(t)) * ln2), t)
    return exp2


def expm1(x):
    """e**x - 1, exact for tiny x too"""
    return plain(math.expm1, np.expm1, x)


@compiled(expm1)
def _(real):
    # 2**n (e**r - 1) + (2**n - 1), halved in between so that 2**1024 is no overflow; r's rounding error is carried on
    tiny = real(FORMAT[real].tiny)
    lowest, highest = both((-18, 89), (-38, 710))[real]
    tail, half, two = EXP_TAIL[real], real(0.5), real(2)

    def expm1(x):
        c = where(x < lowest, lowest, x)
        c = where(c > highest, highest, c)
        r, lost, t = reduced(c)
        q = r + (lost + r * (lost + r * polynomial(r, tail)))
        s = scale_of(t, -1)
        return where(absolute(x) < tiny, x, two * (q * s + (s - half)))
    return expm1


def sinh(x):
    """(e**x - e**-x) / 2"""
    return plain(math.sinh, np.sinh, x)


@compiled(sinh)
def _(real):
    # |x| < 1: x + x**3 P(x**2), else h - 1/(4h), h = e**|x| / 2
    highest, = both((90,), (711,))[real]
    one, quarter, odd = real(1), real(0.25), SINH_ODD[real]

    def sinh(x):
        a = absolute(x)
        r, _, t = reduced(where(a > highest, highest, a))
        h = scaled(power_of_e(r), t - one)
        z = a * a
        return with_sign(where(a < one, a + a * (z * polynomial(z, odd)), h - quarter / h), x)
    return sinh


def cosh(x):
    """(e**x + e**-x) / 2"""
    return plain(math.cosh, np.cosh, x)


@compiled(cosh)
def _(real):
    highest, = both((90,), (711,))[real]
    one, quarter = real(1), real(0.25)

    def cosh(x):
        a = absolute(x)
        r, _, t = reduced(where(a > highest, highest, a))
        h = scaled(power_of_e(r), t - one)
        return h + quarter / h
    return cosh


def tanh(x):
    """sinh(x) / cosh(x)"""
    return plain(math.tanh, np.tanh, x)


@compiled(tanh)
def _(real):
    lowest, = both((-20,), (-40,))[real]
    factor, rounder, one, two = real(LOG2_E), rounder_of(real), real(1), real(2)
    (high, low), tail = LN2[real], EXP_TAIL[real]

    def tanh(x):
        c = with_sign(x + x, -one)
        c = where(c < lowest, lowest, c)
        t = c * factor + rounder             # as `reduced`, but n is no more than a number
        n = t - rounder
        r = (c - n * high) - n * low
        s = scale_of(t, 0)
        m = (one - s) - s * (r + r * (r * polynomial(r, tail)))
        return with_sign(m / (two - m), x)
    return tanh
