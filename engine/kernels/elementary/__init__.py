"""Python's `math` for compiled loops on the CPU: the same names, but LLVM vectorises the loop around them.

A formula such as `x / (1 + math.exp(-x))` is compiled with the name `math` bound to this module. math.exp itself is a
call of the C library: one number at a time, and no loop with a call in it is vectorised. The functions here are
written without calls and branches, in adds, multiplies, selects and shifts of bit patterns; inlined into a loop they
run on 4 to 16 numbers at once, 3 to 40 times faster. Each is one formula for float32 and float64 (integers become
float64), with the numbers that differ in tables. Called from Python, outside compiled code, they are `math` with
NumPy's manners: inf and nan instead of exceptions, and a NumPy scalar keeps its dtype.

NaN goes through; infinities, signed zeros and subnormal numbers are right, in both ways of calling. The largest error,
in units in the last place (float32: over all numbers; float64: over some millions; with fused multiply-adds):

| function | float32 | float64 | computed |
|---|---|---|---|
| exp | 1.0 | 0.9 | n ln 2 taken off, polynomial, two steps of scaling |
| exp2 | 0.9 | 1.0 | the same |
| expm1 | 1.6 | 1.6 | the same, with what rounding took carried on |
| sinh | 1.7 | 1.7 | near 0 a polynomial, else from exp |
| cosh | 1.4 | 1.4 | from exp |
| tanh | 2.5 | 2.5 | M / (2 - M), M = 1 - exp(-2 x) |
| log | 0.9 | 0.9 | exponent ln 2 + atanh series |
| log2 | 1.7 | 1.7 | the same |
| log10 | 1.7 | 1.7 | the same |
| log1p | 1.5 | 1.5 | the same, with what 1 + x loses put back |
| sin | 2.4 | 1.5 | n pi/2 taken off, two polynomials (1.5 up to 1e4); nan beyond 4e6 (float32), 1e13 |
| cos | 2.4 | 1.5 | the same |
| tan | 4.0 | 3.6 | sin / cos |
| asin | 2.4 | 2.3 | polynomial, of the half angle for large x |
| acos | 1.2 | 1.3 | the same |
| atan | 1.9 | 1.9 | polynomial, after turning back by 0, pi/4 or pi/2 |
| erf | 1.2 | 1.1 | near 0 a polynomial, else 1 - exp(polynomial) |
| erfc | 5.5 | 6.5 | exp(-x**2) times a rational function |
| sqrt | 0.5 | 0.5 | an instruction |

fabs, floor, ceil, trunc, copysign, isnan, isinf, isfinite are an instruction each; floor, ceil and trunc give a number
of x's dtype, as in NumPy. fmod, pow, hypot and atan2 forward to the C library: their loops are not vectorised
(`x ** 2`, with an integer exponent, is a multiplication and is).

`normal` and `times_normal` (in a file of their own) are what `math` has not.

`words` has the instructions, `dtypes` how one formula serves both dtypes, `fit` where the coefficients come from.
"""
from math import e, inf, nan, pi, tau

from engine.kernels.elementary.error_function import erf, erfc
from engine.kernels.elementary.exponential import cosh, exp, exp2, expm1, sinh, tanh
from engine.kernels.elementary.logarithm import log, log1p, log2, log10
from engine.kernels.elementary.simple import ceil, copysign, fabs, floor, fmod, isfinite, isinf, isnan, pow, sqrt, trunc
from engine.kernels.elementary.trigonometric import acos, asin, atan, atan2, cos, hypot, sin, tan

__all__ = ["acos", "asin", "atan", "atan2", "ceil", "copysign", "cos", "cosh", "e", "erf", "erfc", "exp", "exp2",
           "expm1", "fabs", "floor", "fmod", "hypot", "inf", "isfinite", "isinf", "isnan", "log", "log1p", "log2",
           "log10", "nan", "pi", "pow", "sin", "sinh", "sqrt", "tan", "tanh", "tau", "trunc"]
