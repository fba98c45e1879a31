"""Where the coefficients come from: `coefficients("TANH_ODD", float32)` derives the table of that name again.

A table is the weighted least-squares fit to its function on Chebyshev nodes, within a bit of the minimax polynomial
(Muller, "Elementary Functions", ch. 3), computed in 60 digits. The coefficients are rounded one by one, lowest first,
and the others fitted again, so that they make up for the rounding. A rational function (`RATIONAL`) is fitted in turns:
with the last turn's denominator q as a weight, f q - p is a linear problem (Sanathanan, Koerner 1963). Needs mpmath;
only a test needs this file.
"""
import numpy as np
from mpmath import mp
from numba import float32, float64

RATIONAL = ("ERFC_TOP", "ERFC_BOTTOM", "NORMAL_TOP", "NORMAL_BOTTOM")
TURNS = 8
K = 3                                        # of the map a -> (K - a) / (K + a), which makes all a >= 0 one short span


def odd(function):
    """P(z) with function(x) = x + x z P(z), z = x**2"""
    return lambda z: (function(mp.sqrt(z)) / mp.sqrt(z) - 1) / z


def exp_tail(r):
    return (mp.exp(r) - 1 - r) / r**2


def log_series(z):
    s = mp.sqrt(z)
    return (mp.log((1 + s) / (1 - s)) / s - 2) / z


def cos_even(z):
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2


def erf_odd(z):
    return mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1


def erf_far(a):
    return -mp.log(mp.erfc(a))


def erfc_scaled(a):
    return mp.exp(a * a) * mp.erfc(a)


def normal_scaled(v):
    """The left tail of the normal distribution over 2**(-v**2), v = |x| sqrt(log2(e) / 2)"""
    return mp.erfc(v * mp.sqrt(mp.log(2))) / 2 * mp.mpf(2)**(v * v)


def exp2_tail(r):
    return (mp.mpf(2)**r - 1) / r


def turned(a):
    return (K - mp.mpf(a)) / (K + mp.mpf(a))


def weight_1(z):
    return z


def weight_2(z):
    return z * z


def erf_far_weight(a):
    return mp.erfc(a) / mp.erf(a)


def tables():
    """name -> (function, weight of its error, {dtype: (from, to, number of coefficients)})"""
    def of(function, weight, single, double):
        return function, weight, {float32: single, float64: double}

    def same(function, weight, low, high, n_single, n_double):
        return of(function, weight, (low, high, n_single), (low, high, n_double))

    half_ln2, eighth = mp.log(2) / 2 * mp.mpf("1.01"), (mp.pi / 4 * mp.mpf("1.01"))**2
    series, zero, one = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1))**2 * mp.mpf("1.01"), mp.mpf(0), mp.mpf(1)
    near = mp.mpf("0.85")
    return {
        "EXP_TAIL": same(exp_tail, weight_2, -half_ln2, half_ln2, 5, 10),
        "EXP2_TAIL": same(exp2_tail, weight_1, -mp.mpf("0.505"), mp.mpf("0.505"), 6, 10),
        "SINH_ODD": same(odd(mp.sinh), weight_1, zero, one, 4, 7),
        "LOG_SERIES": same(log_series, weight_1, zero, series, 3, 7),
        "SIN_ODD": of(odd(mp.sin), weight_1, (zero, one, 4), (zero, eighth, 6)),
        "COS_EVEN": of(cos_even, weight_2, (zero, one, 3), (zero, eighth, 6)),
        "ASIN_ODD": same(odd(mp.asin), weight_1, zero, mp.mpf("0.2501"), 5, 12),
        "ATAN_ODD": same(odd(mp.atan), weight_1, zero, mp.mpf("0.415")**2, 5, 11),
        "ERF_ODD": same(erf_odd, lambda z: 1, zero, near**2, 6, 11),
        "ERF_FAR": of(erf_far, erf_far_weight, (near, mp.mpf(4), 7), (near, mp.mpf("5.95"), 19)),
    }


def nodes_in(low, high, count):
    """Chebyshev nodes of an interval"""
    return [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]


def rounded_fit(nodes, values, weights, n, rounded):
    """n coefficients, rounded one by one"""
    found = []
    for i in range(n):
        powers = mp.matrix([[w * z**j for j in range(i, n)] for z, w in zip(nodes, weights, strict=True)])
        target = mp.matrix([w * y for y, w in zip(values, weights, strict=True)])
        found.append(rounded(float(mp.lu_solve(powers, target)[0])))
        values = [y - mp.mpf(float(found[-1])) * z**i for y, z in zip(values, nodes, strict=True)]
    return tuple(found)


def rational(function, nodes, m, n, rounded, importance=lambda z: 1):
    """(p, q): m and n coefficients, q[0] = 1, with the least relative error, times importance, of function = p / q"""
    values, weighty = [function(z) for z in nodes], [importance(z) for z in nodes]
    bottom = [mp.mpf(1)] * len(nodes)
    for _ in range(TURNS):
        weights = [i / (y * q) for y, q, i in zip(values, bottom, weighty, strict=True)]
        powers = mp.matrix([[w * z**j for j in range(m)] + [-w * y * z**j for j in range(1, n)]
                            for z, y, w in zip(nodes, values, weights, strict=True)])
        solved = mp.lu_solve(powers, mp.matrix([w * y for y, w in zip(values, weights, strict=True)]))
        q = [mp.mpf(1), *(solved[m + j] for j in range(n - 1))]
        bottom = [mp.polyval(q[::-1], z) for z in nodes]
    q = tuple(rounded(float(c)) for c in q)
    bottom = [mp.polyval([mp.mpf(float(c)) for c in q[::-1]], z) for z in nodes]
    tops = [y * b for y, b in zip(values, bottom, strict=True)]
    return rounded_fit(nodes, tops, [i / t for t, i in zip(tops, weighty, strict=True)], m, rounded), q


def nodes_up_to(farthest, count):
    """Nodes for all a >= 0, dense near 0"""
    return [K * (1 - u) / (1 + u) for u in nodes_in(turned(farthest), mp.mpf(1), count)]


def erfc_rational(real, rounded):
    """ERFC_TOP and ERFC_BOTTOM, as far as erfc is not 0"""
    farthest, m, n = {float32: ("10.1", 5, 6), float64: ("27.3", 11, 12)}[real]
    return rational(erfc_scaled, nodes_up_to(farthest, 8 * (m + n)), m, n, rounded)


def normal_rational(real, rounded):
    """NORMAL_TOP and NORMAL_BOTTOM: an error is the less important the smaller the result"""
    return rational(normal_scaled, nodes_up_to("11.3", 72), 4, 5, rounded, lambda v: mp.mpf(2)**(-v * v / 4))


def coefficients(name, real):
    """The table `name` for the dtype `real`, lowest coefficient first"""
    rounded = np.float32 if real == float32 else np.float64
    with mp.workdps(60):
        if name in RATIONAL:
            made = erfc_rational if name.startswith("ERFC") else normal_rational
            return made(real, rounded)[name.endswith("BOTTOM")]
        function, weight, spans = tables()[name]
        low, high, n = spans[real]
        nodes = nodes_in(low, high, 6 * n)
        return rounded_fit(nodes, [function(z) for z in nodes], [weight(z) for z in nodes], n, rounded)
