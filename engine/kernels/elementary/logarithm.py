"""log, log2, log10, log1p.

x = 2**e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), e and f read from the bit pattern. With s = f / (2 + f),
log(1 + f) = 2 atanh(s) = 2 s + s R(s**2), and f - (f**2/2 - s (f**2/2 + R)) is the same sum, arranged so that the
small terms are rounded, not the large ones (Tang, "Table-driven implementation of the logarithm", 1990; Muller,
"Elementary Functions", ch. 11). e ln 2 is added as HIGH + LOW, e * HIGH exact.
"""
import math

import numpy as np

from engine.kernels.elementary.dtypes import FORMAT, both, compiled, part, pattern, plain
from engine.kernels.elementary.exponential import LN2
from engine.kernels.elementary.words import absolute, bits_of, from_bits, polynomial, where

LOG_SERIES = both((0.6666678, 0.39976877, 0.29889685),
                  (0.6666666666666742, 0.3999999999936589, 0.28571428753496697, 0.22222197395522497,
                   0.18183627726864118, 0.15312369979787194, 0.14813354863555442))
LOG10_2 = both((0.301025390625, 4.605039e-06), (0.3010299956640665, -8.532344317057107e-14))
# 1 / ln 2 and 1 / ln 10, to twice the digits
LOG2_E = both((1.442695, 1.925963e-08), (1.4426950408889634, 2.0355273740931033e-17))
LOG10_E = both((0.4342945, -1.010305e-08), (0.4342944819032518, 1.098319650216765e-17))


@part
def split(real):
    digits, bias, *_ = FORMAT[real]
    one, root_half = pattern(1, real), pattern(math.sqrt(0.5), real)
    fields, mantissa = 2 * bias + 1, (1 << digits) - 1

    def split(x):
        """(m, e + bias) with x = m 2**e, m from sqrt(1/2) to sqrt(2), for normal x > 0"""
        bits = bits_of(x) + (one - root_half)
        return from_bits(x, (bits & mantissa) + root_half), (bits >> digits) & fields
    return split


@part
def number_of(real):
    digits, bias, *_ = FORMAT[real]
    offset, shown = 2.0**digits, pattern(2.0**digits, real)
    offset = real(offset + bias)

    def number_of(like, e):
        """The biased exponent e as a number without the bias (written into the mantissa of 2**digits)"""
        return from_bits(like, e | shown) - offset
    return number_of


@part
def log_near_1(real):
    series, half, two = LOG_SERIES[real], real(0.5), real(2)

    def log_near_1(f, more):
        """log(1 + f) + more for a small `more`"""
        s = f / (two + f)
        z, h = s * s, half * f * f
        return f - (h - (s * (h + z * polynomial(z, series)) + more))
    return log_near_1


@part
def exponent_and_fraction(real):
    digits, _, smallest, _ = FORMAT[real]
    lift, lifted, zero, one = real(2.0**digits), real(digits), real(0), real(1)

    def exponent_and_fraction(x):
        """(e, f) with x = 2**e (1 + f), x > 0; subnormal numbers are lifted first"""
        small = x < smallest
        m, e = split(where(small, x * lift, x))
        return number_of(x, e) - where(small, lifted, zero), m - one
    return exponent_and_fraction


@part
def with_edges(real):
    zero, infinity, nan = real(0), real(math.inf), real(math.nan)

    def with_edges(y, x):
        """y, the logarithm of x, where x is positive and finite; else -inf at 0, nan below, x itself for inf and nan"""
        y = where(x < infinity, y, x)
        y = where(x == zero, -infinity, y)
        return where(x < zero, nan, y)
    return with_edges


def log(x):
    """The natural logarithm"""
    return plain(math.log, np.log, x)


@compiled(log)
def _(real):
    high, low = LN2[real]

    def log(x):
        e, f = exponent_and_fraction(x)
        return with_edges(e * high + log_near_1(f, e * low), x)
    return log


def log2(x):
    """The logarithm to base 2"""
    return plain(math.log2, np.log2, x)


@compiled(log2)
def _(real):
    (high, low), zero = LOG2_E[real], real(-0.0)

    def log2(x):
        e, f = exponent_and_fraction(x)
        y = log_near_1(f, zero)
        return with_edges(e + (y * high + y * low), x)
    return log2


def log10(x):
    """The logarithm to base 10"""
    return plain(math.log10, np.log10, x)


@compiled(log10)
def _(real):
    (high, low), (e_high, e_low), zero = LOG10_E[real], LOG10_2[real], real(-0.0)

    def log10(x):
        e, f = exponent_and_fraction(x)
        y = log_near_1(f, zero)
        return with_edges(e * e_high + (y * high + (y * low + e * e_low)), x)
    return log10


def log1p(x):
    """log(1 + x), exact for tiny x too"""
    return plain(math.log1p, np.log1p, x)


@compiled(log1p)
def _(real):
    # u = 1 + x loses `lost` (Knuth's two-sum); it is put back into f. Near 0, where e = 0, f is then x itself.
    digits, bias, _, tiny = FORMAT[real]
    high, low = LN2[real]
    one, half, tiny = real(1), real(0.5), real(tiny)

    def log1p(x):
        u = one + x
        t = u - one
        lost = (one - (u - t)) + (x - t)
        m, e = split(u)
        twice = from_bits(x, (2 * bias + 1 - e) << digits)             # 2 * 2**-e, which is never subnormal
        n = number_of(x, e)
        y = n * high + log_near_1((m - one) + lost * (half * twice), n * low)
        return where(absolute(x) < tiny, x, with_edges(y, u))
    return log1p
