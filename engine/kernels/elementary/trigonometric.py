"""sin, cos, tan, asin, acos, atan; atan2 and hypot forward to `math`.

x = n pi/2 + r, |r| <= pi/4, with pi/2 as the sum of three numbers (Cody, Waite 1980; Muller, "Elementary Functions",
ch. 11): x - n * first is exact where the multiply-add is fused, so r is as exact as if pi/2 had three times the digits.
sin r = r + r**3 P(r**2), cos r = 1 - r**2/2 + r**4 P(r**2); n mod 4, the quadrant, says which of them, and the sign.
For float32 the polynomials reach to |r| = 1, for n is not quite the nearest integer when x is large.
Beyond `FARTHEST` the reduction would take a table of pi's digits, or a call that keeps the loop from vectorising: there
the answer is nan rather than a wrong number.
"""
import math

import numpy as np

from engine.kernels.elementary.dtypes import FORMAT, both, compiled, part, plain
from engine.kernels.elementary.words import absolute, bits_of, from_bits, fused, polynomial, root, where, with_sign

FARTHEST = both((4e6,), (1e13,))
# each rounded towards zero, so that all are positive and -0 stays -0
HALF_PI = both((1.5707963, 7.5497894e-08, 5.3903025e-15),
               (1.5707963267948966, 6.123233995736765e-17, 1.0828566739219139e-32))
SIN_ODD = both((-0.16666667, 0.0083333505, -0.0001984144, 2.7205024e-06),
               (-0.16666666666666627, 0.008333333333321136, -0.0001984126982877408, 2.755731332799228e-06,
                -2.5050700243724358e-08, 1.5893389759682302e-10))
COS_EVEN = both((0.04166658, -0.0013884803, 2.420864e-05),
                (0.04166666666666659, -0.0013888888888872158, 2.4801587288254125e-05, -2.7557313995896176e-07,
                 2.087567448842649e-09, -1.1357101814847948e-11))
ASIN_ODD = both((0.16666754, 0.07495274, 0.04547207, 0.024174826, 0.042170525),
                (0.166666666666654, 0.07500000000336571, 0.04464285682975012, 0.0303819590540379,
                 0.022371760376735165, 0.017359666747580316, 0.013885626655740555, 0.012166596838996945,
                 0.006539320472985381, 0.01949742366139942, -0.016176511462402874, 0.031880152648479196))
ATAN_ODD = both((-0.33333313, 0.19998384, -0.14242056, 0.10583756, -0.060542345),
                (-0.3333333333333318, 0.1999999999994953, -0.14285714279818518, 0.11111110765547827,
                 -0.09090897262603212, 0.07692051669926556, -0.06663009197930855, 0.05847212135050586,
                 -0.05036300235003312, 0.03798919068554453, -0.017825540034322927))


@part
def in_quadrant(real):
    rounder, over = real(FORMAT[real].rounder), real(2 / math.pi)
    first, second, third = HALF_PI[real]
    half, one, sines, cosines = real(0.5), real(1), SIN_ODD[real], COS_EVEN[real]

    def in_quadrant(x):
        """(sin r, cos r, q) with x = q pi/2 + r"""
        t = x * over + rounder
        n = t - rounder
        r = fused(-n, third, fused(-n, second, fused(-n, first, x)))
        z = r * r
        s = with_sign(r + r * (z * polynomial(z, sines)), r)                   # the sum alone would turn -0 into 0
        return s, one - (half * z - z * z * polynomial(z, cosines)), bits_of(t)
    return in_quadrant


@part
def turned(real):
    (farthest,), nan, to_sign = FARTHEST[real], real(math.nan), real.bitwidth - 2

    def turned(s, c, q, x):
        """The sine of q pi/2 + r, from sin r and cos r"""
        y = where(q & 1 != 0, c, s)
        y = from_bits(y, bits_of(y) ^ ((q & 2) << to_sign))
        return where(absolute(x) <= farthest, y, nan)
    return turned


def sin(x):
    """The sine of x radians"""
    return plain(math.sin, np.sin, x)


@compiled(sin)
def _(real):
    def sin(x):
        s, c, q = in_quadrant(x)
        return turned(s, c, q, x)
    return sin


def cos(x):
    """The cosine of x radians"""
    return plain(math.cos, np.cos, x)


@compiled(cos)
def _(real):
    def cos(x):
        s, c, q = in_quadrant(x)
        return turned(s, c, q + 1, x)
    return cos


def tan(x):
    """sin(x) / cos(x)"""
    return plain(math.tan, np.tan, x)


@compiled(tan)
def _(real):
    (farthest,), nan = FARTHEST[real], real(math.nan)

    def tan(x):
        s, c, q = in_quadrant(x)
        odd = q & 1 != 0
        y = where(odd, -c, s) / where(odd, s, c)
        return where(absolute(x) <= farthest, y, nan)
    return tan


def atan(x):
    """The angle in [-pi/2, pi/2] whose tangent is x"""
    return plain(math.atan, np.arctan, x)


@compiled(atan)
def _(real):
    # atan x = a + atan((x - tan a) / (1 + x tan a)) with a = 0, pi/4 or pi/2: what remains is below tan(pi/8)
    low, high = real(math.sqrt(2) - 1), real(math.sqrt(2) + 1)
    (first, second, _), zero, half, one, odd = HALF_PI[real], real(0), real(0.5), real(1), ATAN_ODD[real]

    def atan(x):
        a = absolute(x)
        middle, far = a > low, a > high
        r = where(far, -one, where(middle, a - one, a)) / where(far, a, where(middle, a + one, one))
        turns = where(far, one, where(middle, half, zero))
        z = r * r
        return with_sign(turns * first + (r + (r * (z * polynomial(z, odd)) + turns * second)), x)
    return atan


@part
def small_asin(real):
    half, one, odd = real(0.5), real(1), ASIN_ODD[real]

    def small_asin(a):
        """(s, y) with asin a = s + y for a <= 1/2; for larger a, asin a = pi/2 - 2 (s + y), from the half angle"""
        z = where(a > half, half * (one - a), a * a)
        s = where(a > half, root(z), a)
        return s, s * (z * polynomial(z, odd))
    return small_asin


def asin(x):
    """The angle in [-pi/2, pi/2] whose sine is x"""
    return plain(math.asin, np.arcsin, x)


@compiled(asin)
def _(real):
    quarter_turn, low, _ = HALF_PI[real]
    half, two = real(0.5), real(2)

    def asin(x):
        a = absolute(x)
        s, y = small_asin(a)
        return with_sign(where(a > half, quarter_turn - (two * (s + y) - low), s + y), x)
    return asin


def acos(x):
    """The angle in [0, pi] whose cosine is x"""
    return plain(math.acos, np.arccos, x)


@compiled(acos)
def _(real):
    quarter_turn, low, _ = HALF_PI[real]
    half, zero, two = real(0.5), real(0), real(2)

    def acos(x):
        a = absolute(x)
        s, y = small_asin(a)
        far = two * (s + y)
        far = where(x < zero, two * quarter_turn - (far - two * low), far)
        return where(a > half, far, quarter_turn - (with_sign(s, x) + (with_sign(y, x) - low)))
    return acos


def atan2(y, x):
    """The angle of the point (x, y)"""
    return plain(math.atan2, np.arctan2, y, x)


@compiled(atan2)
def _(real):
    return lambda x, y: math.atan2(x, y)


def hypot(x, y):
    """sqrt(x**2 + y**2) without overflow in between"""
    return plain(math.hypot, np.hypot, x, y)


@compiled(hypot)
def _(real):
    return lambda x, y: math.hypot(x, y)
