"""Where the coefficients come from: `coefficients("TANH_ODD", float32)` derives the table of that name again.

A table is the weighted least-squares fit to its function on Chebyshev nodes, within a bit of the minimax polynomial
(Muller, "Elementary Functions", ch. 3), computed in 60 digits. The coefficients are rounded one by one, lowest first,
and the others fitted again, so that they make up for the rounding. Needs mpmath; only a test needs this file.
"""
import numpy as np
from mpmath import mp
from numba import float32, float64

from engine.kernels.elementary.error_function import K


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


def erfc_scaled(u):
    a = K * (1 - u) / (1 + u)
    return mp.exp(a * a) * mp.erfc(a) * (a + K)


def u_of(a):
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
        "SINH_ODD": same(odd(mp.sinh), weight_1, zero, one, 4, 7),
        "TANH_ODD": same(odd(mp.tanh), weight_1, zero, mp.mpf("0.55")**2, 5, 11),
        "LOG_SERIES": same(log_series, weight_1, zero, series, 3, 7),
        "SIN_ODD": of(odd(mp.sin), weight_1, (zero, one, 4), (zero, eighth, 6)),
        "COS_EVEN": of(cos_even, weight_2, (zero, one, 3), (zero, eighth, 6)),
        "ASIN_ODD": same(odd(mp.asin), weight_1, zero, mp.mpf("0.2501"), 5, 12),
        "ATAN_ODD": same(odd(mp.atan), weight_1, zero, mp.mpf("0.415")**2, 5, 11),
        "ERF_ODD": same(erf_odd, lambda z: 1, zero, near**2, 6, 11),
        "ERF_FAR": of(erf_far, erf_far_weight, (near, mp.mpf(4), 7), (near, mp.mpf("5.95"), 19)),
        "ERFC_SCALED": of(erfc_scaled, lambda u: 1 / erfc_scaled(u), (u_of("10.1"), one, 10), (u_of("27.3"), one, 23)),
    }


def coefficients(name, real):
    """The table `name` for the dtype `real`, lowest coefficient first"""
    rounded = np.float32 if real == float32 else np.float64
    with mp.workdps(60):
        function, weight, spans = tables()[name]
        low, high, n = spans[real]
        nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (12 * n)) for k in range(6 * n)]
        weights, rest, found = [weight(z) for z in nodes], [function(z) for z in nodes], []
        for i in range(n):
            powers = mp.matrix([[w * z**j for j in range(i, n)] for z, w in zip(nodes, weights, strict=True)])
            target = mp.matrix([w * y for y, w in zip(rest, weights, strict=True)])
            found.append(rounded(float(mp.lu_solve(powers, target)[0])))
            rest = [y - mp.mpf(float(found[-1])) * z**i for y, z in zip(rest, nodes, strict=True)]
    return tuple(found)
