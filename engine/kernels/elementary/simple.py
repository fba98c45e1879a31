"""Functions that are one instruction or a comparison; fmod and pow forward to the C library.

floor, ceil and trunc give a number of x's dtype, as in NumPy, not an integer as in `math`.
"""
import math

import numpy as np

from engine.kernels.elementary.dtypes import compiled, plain
from engine.kernels.elementary.words import absolute, down, root, toward_zero, up, with_sign


def sqrt(x):
    """The square root"""
    return plain(math.sqrt, np.sqrt, x)


@compiled(sqrt)
def _(real):
    return lambda x: root(x)


def fabs(x):
    """|x|"""
    return plain(math.fabs, np.fabs, x)


@compiled(fabs)
def _(real):
    return lambda x: absolute(x)


def floor(x):
    """The largest integral number <= x"""
    return plain(np.floor, np.floor, x)


@compiled(floor)
def _(real):
    return lambda x: down(x)


def ceil(x):
    """The smallest integral number >= x"""
    return plain(np.ceil, np.ceil, x)


@compiled(ceil)
def _(real):
    return lambda x: up(x)


def trunc(x):
    """x without what lies behind the point"""
    return plain(np.trunc, np.trunc, x)


@compiled(trunc)
def _(real):
    return lambda x: toward_zero(x)


def copysign(x, y):
    """|x| with the sign of y"""
    return plain(math.copysign, np.copysign, x, y)


@compiled(copysign)
def _(real):
    return lambda x, y: with_sign(x, y)


def isnan(x):
    """Whether x is not a number"""
    return math.isnan(x)


@compiled(isnan)
def _(real):
    return lambda x: math.isnan(x)


def isinf(x):
    """Whether x is inf or -inf"""
    return math.isinf(x)


@compiled(isinf)
def _(real):
    infinity = real(math.inf)
    return lambda x: absolute(x) == infinity


def isfinite(x):
    """Whether x is neither infinite nor nan"""
    return math.isfinite(x)


@compiled(isfinite)
def _(real):
    infinity = real(math.inf)
    return lambda x: absolute(x) < infinity


def fmod(x, y):
    """The rest of x / y, with the sign of x"""
    return plain(math.fmod, np.fmod, x, y)


@compiled(fmod)
def _(real):
    return lambda x, y: np.fmod(x, y)


def pow(x, y):
    """x**y"""
    return plain(math.pow, np.power, x, y)


@compiled(pow)
def _(real):
    return lambda x, y: math.pow(x, y)
