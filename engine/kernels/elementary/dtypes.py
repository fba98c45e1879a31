"""One formula for float32 and float64: what it must know of the dtype, its tables of numbers, and how it is compiled.

`real` is Numba's float32 or float64; called, it converts a number.
"""
from typing import NamedTuple

import numpy as np
from numba import float32, float64, types
from numba.extending import overload

from engine.kernels.elementary.words import FLAGS

OPTIONS = {"error_model": "numpy", "fastmath": set(FLAGS), "forceinline": True, "no_cfunc_wrapper": True}


class Format(NamedTuple):
    """A floating-point type: value = (1 + mantissa / 2**digits) * 2**(exponent - bias)"""
    digits: int
    bias: int
    smallest: float                                      # normal number
    tiny: float                                          # below it, expm1(x) and log1p(x) are x

    @property
    def rounder(self):
        """t = x + rounder: the low bits of t are x rounded to an integer, and t - rounder is that integer"""
        return 1.5 * 2.0**self.digits


FORMAT = {float32: Format(23, 127, 2.0**-126, 2.0**-32), float64: Format(52, 1023, 2.0**-1022, 2.0**-64)}


def both(single, double):
    """A table of numbers for each dtype (the coefficients of polynomials are derived in `fit`)"""
    return {float32: tuple(np.float32(c) for c in single), float64: tuple(np.float64(c) for c in double)}


def pattern(value, real):
    """The bit pattern of a constant"""
    return int(np.asarray(value, np.float32).view(np.int32) if FORMAT[real].digits == 23 else
               np.asarray(value, np.float64).view(np.int64))


COMPILED = set()                             # functions that have a meaning of their own inside compiled loops


def compiled(function):
    """`@compiled(exp)` before a maker: `maker(real)` returns what `exp` means inside a compiled loop on that dtype.

    The maker's own lines run once, while Numba compiles: there the constants of the dtype are looked up. Integers,
    and float32 together with float64, are computed in float64.
    """
    def register(maker):
        def choose(*arguments):
            if not all(isinstance(a, (types.Float, types.Integer, types.Boolean)) for a in arguments):
                return None
            if arguments[0] in FORMAT and arguments.count(arguments[0]) == len(arguments):
                return maker(arguments[0])
            if len(arguments) == 1:
                return lambda x: function(float64(x))
            return lambda x, y: function(float64(x), float64(y))
        overload(function, jit_options=OPTIONS, strict=False)(choose)
        COMPILED.add(function)
        return maker
    return register


def part(maker):
    """A maker of something that several elementary functions share; its dtype is that of its first argument"""
    def shared(*arguments):
        """Has a meaning inside compiled functions only."""
    shared.__name__ = maker.__name__
    overload(shared, jit_options=OPTIONS, strict=False)(lambda *arguments: maker(arguments[0]))
    return shared


def plain(function, fallback, *numbers):
    """`function` of Python numbers; where `math` would raise, NumPy's answer: inf, -inf or nan.

    NumPy scalars keep their dtype, as they do in a compiled loop.
    """
    with np.errstate(all="ignore"):
        try:
            value = function(*numbers)
        except (ValueError, OverflowError):
            value = float(fallback(*(float(x) for x in numbers)))
        kinds = [type(x) for x in numbers if isinstance(x, np.floating)]
        return np.result_type(*kinds).type(value) if kinds else float(value)
