"""The elementary functions against extended precision: accuracy as stated, edges, vectorisation, plain Python calls."""
import functools
import math
import platform
import re
import types

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import config, float32, float64, njit

from engine.kernels import elementary
from engine.kernels.elementary import error_function, exponential, logarithm, normal, trigonometric

BOTH = [np.float32, np.float64]
FORWARDED = ["fmod", "pow", "hypot", "atan2"]
SAMPLES = 6000                                           # of each kind of number, for each function and dtype
EXTENDED = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant
ARM = platform.machine() in ("aarch64", "arm64")
FEATURES = config.CPU_FEATURES if config.CPU_FEATURES is not None else llvm.get_host_cpu_features().flatten()
FUSED, WIDE = ARM or "+fma" in FEATURES, ARM or "+avx2" in FEATURES
STATED = {name: {np.float32: float(single), np.float64: float(double)} for name, single, double in
          re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \|", elementary.__doc__, re.MULTILINE)}
NUMPY = {"acos": np.arccos, "asin": np.arcsin, "atan": np.arctan, "pow": np.power, "atan2": np.arctan2}


@functools.cache
def loop(name):
    """The loop over an array whose vectorisation is the point of it all; compiled once for each dtype"""
    function = getattr(elementary, name)

    @njit(error_model="numpy")
    def run(x, y):
        for i in range(x.size):
            y[i] = function(x[i])
    return run


def compiled(name, x):
    y = np.empty_like(x)
    loop(name)(x, y)
    return y


# ------------------------------------------------------------------------------------------------------------ reference


def erf_and_erfc(x):
    """In extended precision: erf by its series, erfc by its continued fraction (Abramowitz, Stegun 7.1.6, 7.1.14)"""
    a = np.minimum(np.abs(x), 40).astype(np.longdouble)
    head = a.astype(np.float32).astype(np.longdouble)    # so short that its square is exact
    gauss = np.exp(-head * head) * np.exp(-(a - head) * (a + head))
    root_pi = np.sqrt(np.longdouble(math.pi) + np.longdouble(1.2246467991473532e-16))
    near, step = a < 1.25, np.where(a < 1.25, 2 * a * a, 0)
    series = term = np.ones_like(a)
    for k in range(1, 60):
        term = term * step / (2 * k + 1)
        series = series + term
    far = np.where(near, 3, a)
    fraction = far
    for k in range(300, 0, -1):
        fraction = far + np.longdouble(k) / 2 / fraction
    erfc = gauss / (fraction * root_pi)
    erf = 2 / root_pi * a * gauss * series
    erf, erfc = np.where(near, erf, 1 - erfc), np.where(near, 1 - erf, erfc)
    return np.where(x < 0, -erf, erf), np.where(x < 0, 2 - erfc, erfc)


def reference(name, x):
    x = x.astype(np.longdouble)
    if name in ("erf", "erfc"):
        return erf_and_erfc(x)[name == "erfc"]
    with np.errstate(all="ignore"):
        return NUMPY.get(name, getattr(np, name, None))(x)


def numbers(name, dtype):
    """Random numbers where the function is interesting, of all magnitudes, and next to its edges"""
    rng = np.random.default_rng(0)
    single = dtype is np.float32
    all_sizes = 2.0 ** rng.uniform(*((-149, 128) if single else (-1074, 1024)), SAMPLES)
    signed = all_sizes * rng.choice([-1, 1], SAMPLES)
    if name in ("asin", "acos"):
        kinds = [rng.uniform(-1, 1, SAMPLES), signed[np.abs(signed) <= 1], 1 - 2.0 ** rng.uniform(-24, 0, SAMPLES)]
    elif name == "log1p":
        kinds = [all_sizes, -rng.uniform(0, 1, SAMPLES), rng.uniform(-0.5, 3, SAMPLES), signed[np.abs(signed) < 1]]
    elif name in ("log", "log2", "log10", "sqrt"):
        kinds = [all_sizes, rng.uniform(0, 4, SAMPLES), 1 + rng.normal(0, 0.01, SAMPLES)]
    elif name in ("sin", "cos", "tan"):
        turns = np.concatenate([np.arange(-3000, 3000), rng.integers(-2**21, 2**21, SAMPLES)])
        farthest = 4e6 if single else 1e13
        kinds = [signed[np.abs(signed) <= farthest], turns * (math.pi / 2), rng.uniform(-1e4, 1e4, SAMPLES),
                 rng.uniform(-farthest, farthest, SAMPLES)]
    else:
        ends = {"exp2": (151, 1076), "erf": (4.2, 6.2), "erfc": (11, 28), "tanh": (11, 22)}
        end = ends.get(name, (105, 748))[not single]
        kinds = [signed, rng.uniform(-end, end, SAMPLES), rng.uniform(-3, 3, SAMPLES), rng.normal(0, 0.1, SAMPLES)]
    with np.errstate(all="ignore"):
        return np.concatenate(kinds).astype(dtype)


def units_in_last_place(y, truth):
    """|y - truth| in distances between numbers of y's dtype; an infinity is right or infinitely wrong"""
    with np.errstate(all="ignore"):
        nearest = truth.astype(y.dtype)
        error = np.abs(y.astype(np.longdouble) - truth) / np.spacing(np.abs(nearest))
    right = (y == nearest) | (np.isnan(y) & np.isnan(nearest))
    return np.where(np.isfinite(nearest) & np.isfinite(y), error, np.where(right, 0, np.inf)).astype(float)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", STATED)
def test_error_is_as_stated(name, dtype):
    if dtype is np.float64 and not EXTENDED:
        pytest.skip("longdouble is no wider than float64 here")
    x = numbers(name, dtype)
    error = units_in_last_place(compiled(name, x), reference(name, x))
    worst = np.argmax(error)
    allowed = STATED[name][dtype] + (0 if FUSED else 3 if name in ("cos", "sin", "tan") else 1)
    assert error[worst] <= allowed, f"{name}({x[worst]!r}) is off by {error[worst]:.3f} units, expected <= {allowed}"


def test_every_function_is_accounted_for():
    instructions = {"fabs", "floor", "ceil", "trunc", "copysign", "isnan", "isinf", "isfinite"}
    constants = {"pi", "e", "tau", "inf", "nan"}
    assert set(elementary.__all__) == set(STATED) | instructions | set(FORWARDED) | constants
    assert all(hasattr(math, name) or name == "exp2" for name in elementary.__all__)
    for name, stated in STATED.items():
        most = {"tan": 4, "erfc": 6.5, "tanh": 2.5, "asin": 2.5, "sin": 2.4, "cos": 2.4}
        assert max(stated.values()) <= most.get(name, 2)


@pytest.mark.parametrize("dtype", BOTH)
def test_normal_is_as_close_as_stated(dtype):
    if dtype is np.float64 and not EXTENDED:
        pytest.skip("longdouble is no wider than float64 here")
    x = np.concatenate([np.linspace(-13, 10, 20001), np.random.default_rng(0).normal(0, 0.1, SAMPLES)]).astype(dtype)
    root_half = np.sqrt(np.longdouble(0.5))
    truth = erf_and_erfc(-root_half * x.astype(np.longdouble))[1] / 2
    at = normal.normal

    @njit
    def run(x, y):
        for i in range(x.size):
            y[i] = at(x[i])

    y = np.empty_like(x)
    run(x, y)
    error = np.abs(y.astype(np.longdouble) / truth - 1)
    stated = re.findall(r"^\| above (-\d+) \| (\S+) \| (\S+) \|", normal.__doc__, re.MULTILINE)
    assert len(stated) == 3
    for low, *relative in stated:
        found, allowed = error[x >= int(low)].max(), float(relative[dtype is np.float64])
        assert found <= allowed, f"x >= {low}: {found}"
    ends = np.array([-INF, -14 if dtype is np.float32 else -40, 9, INF, NAN], dtype)
    run(ends, ends)
    np.testing.assert_array_equal(ends, [0, 0, 1, 1, NAN])


# ---------------------------------------------------------------------------------------------------------------- edges

INF, NAN = math.inf, math.nan
EDGES = {
    "exp": [(-INF, 0), (INF, INF), (0.0, 1), (-0.0, 1), (1000.0, INF), (-1000.0, 0)],
    "exp2": [(-INF, 0), (INF, INF), (0.0, 1), (3.0, 8), (-2.0, 0.25), (2000.0, INF), (-2000.0, 0),
             (127.0, 2.0**127), (-126.0, 2.0**-126)],
    "expm1": [(-INF, -1), (INF, INF), (0.0, 0.0), (-0.0, -0.0), (1000.0, INF), (-1000.0, -1)],
    "sinh": [(-INF, -INF), (INF, INF), (0.0, 0.0), (-0.0, -0.0), (1000.0, INF), (-1000.0, -INF)],
    "cosh": [(-INF, INF), (INF, INF), (0.0, 1), (1000.0, INF), (-1000.0, INF)],
    "tanh": [(-INF, -1), (INF, 1), (0.0, 0.0), (-0.0, -0.0), (1000.0, 1), (-1000.0, -1)],
    "log": [(0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1.0, NAN), (-1e-30, NAN), (1.0, 0.0)],
    "log2": [(0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1.0, NAN), (1.0, 0.0), (8.0, 3), (2.0**-140, -140)],
    "log10": [(0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1.0, NAN), (1.0, 0.0)],
    "log1p": [(-1.0, -INF), (INF, INF), (-INF, NAN), (-2.0, NAN), (0.0, 0.0), (-0.0, -0.0)],
    "sin": [(INF, NAN), (-INF, NAN), (0.0, 0.0), (-0.0, -0.0)],
    "cos": [(INF, NAN), (-INF, NAN), (0.0, 1), (-0.0, 1)],
    "tan": [(INF, NAN), (-INF, NAN), (0.0, 0.0), (-0.0, -0.0)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (2.0, NAN), (-2.0, NAN), (INF, NAN), (-INF, NAN)],
    "acos": [(1.0, 0.0), (2.0, NAN), (-2.0, NAN), (INF, NAN), (-INF, NAN)],
    "atan": [(0.0, 0.0), (-0.0, -0.0)],
    "erf": [(-INF, -1), (INF, 1), (0.0, 0.0), (-0.0, -0.0), (100.0, 1), (-100.0, -1)],
    "erfc": [(-INF, 2), (INF, 0), (100.0, 0), (-100.0, 2)],
    "sqrt": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-1.0, NAN), (-INF, NAN), (9.0, 3)],
    "fabs": [(-0.0, 0.0), (-INF, INF), (-2.5, 2.5)],
    "floor": [(-0.0, -0.0), (-INF, -INF), (-2.5, -3), (2.5, 2), (0.5, 0.0), (1e30, float(np.float32(1e30)))],
    "ceil": [(-0.0, -0.0), (INF, INF), (-2.5, -2), (2.5, 3), (-0.5, -0.0)],
    "trunc": [(-0.0, -0.0), (INF, INF), (-2.5, -2), (2.5, 2), (-0.5, -0.0)],
}


def same(a, b):
    """Equal to the sign of zero; nan equals nan"""
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", EDGES)
def test_edges_compiled_and_plain(name, dtype):
    edges = [(np.float32(x), y) for x, y in EDGES[name]] + [(NAN, NAN)]
    results = compiled(name, np.array([x for x, _ in edges], dtype))
    for (x, expected), result in zip(edges, results, strict=True):
        assert same(result, expected), f"compiled {name}({x}) = {result}, expected {expected}"
        plain = getattr(elementary, name)(dtype(x))
        assert type(plain) is dtype
        assert same(plain, expected), f"plain {name}({x}) = {plain}, expected {expected}"


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", ["expm1", "sinh", "tanh", "log1p", "sin", "tan", "asin", "atan"])
def test_tiny_numbers_are_their_own_result(name, dtype):
    tiny = np.finfo(dtype).smallest_subnormal * np.array([1, 2, 3, 1000, 2.0**20], dtype)
    tiny = np.concatenate([tiny, -tiny])
    assert np.array_equal(compiled(name, tiny), tiny)


@pytest.mark.parametrize("dtype", BOTH)
def test_underflow_is_gradual(dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    x = np.log(np.array([1, 5, 77, 2.0**15]) * float(smallest)).astype(dtype)
    y = compiled("exp", x)
    assert np.all(np.abs(y.astype(float) - np.exp(x.astype(np.longdouble))) <= smallest)
    assert np.all(y > 0)
    exponents = np.arange(math.log2(smallest), 0, dtype=dtype)
    assert np.array_equal(compiled("exp2", exponents), np.ldexp(dtype(1), exponents.astype(int)))


@pytest.mark.parametrize("dtype", BOTH)
def test_beyond_the_reduction_of_angles_the_answer_is_nan(dtype):
    farthest = dtype(trigonometric.FARTHEST[float32 if dtype is np.float32 else float64][0])
    beyond = np.nextafter(farthest, dtype(INF))
    for name in ("sin", "cos", "tan"):
        inside, outside = compiled(name, np.array([farthest, beyond], dtype))
        assert np.isfinite(inside)
        assert np.isnan(outside)


# -------------------------------------------------------------------------------------------------------- vectorisation


@pytest.mark.skipif(not WIDE, reason="no vector unit for which LLVM always finds that vectors pay")
@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", [*STATED, "fabs", "floor", "ceil", "trunc"])
def test_loop_is_vectorised(name, dtype):
    compiled(name, np.ones(1, dtype))
    kind, lanes = ("float", 4) if dtype is np.float32 else ("double", 2)
    code = next(c for s, c in loop(name).inspect_llvm().items() if s[0].dtype.bitwidth == dtype().nbytes * 8)
    computed = re.findall(rf"= (?:tail call |call |f\w+ |bitcast |fcmp )[^\n]*<(\d+) x {kind}>", code)
    assert max(map(int, computed), default=1) >= lanes
    assert not re.findall(rf"call {kind} @(?!llvm)\w+", code), "a call of the C library is left"


# ------------------------------------------------------------------------------------------------ other ways to call it


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", [*FORWARDED, "copysign"])
def test_two_numbers(name, dtype):
    function = getattr(elementary, name)
    x = np.array([0.5, -2.5, 3.0, 0.0, -0.0, INF, 1e30, NAN], dtype)
    y = np.array([2.0, 3.0, -1.0, 1.0, -1.0, 2.0, 1e30, 1.0], dtype)
    run = njit(lambda a, b: function(a, b))
    with np.errstate(all="ignore"):
        expected = NUMPY.get(name, getattr(np, name, None))(x, y)
    for a, b, c in zip(x, y, expected, strict=True):
        for result in (run(a, b), function(a, b), function(float(a), float(b))):
            assert np.allclose(np.float32(result), np.float32(c), rtol=1e-6, atol=0, equal_nan=True)
        assert type(function(a, b)) is dtype


@pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite"])
def test_predicates(name):
    function = getattr(elementary, name)
    run = njit(lambda x: function(x))
    for dtype in BOTH:
        for x in (0.0, 1.0, -INF, INF, NAN):
            assert run(dtype(x)) is function(dtype(x)) is getattr(math, name)(x)


def test_integers_and_mixed_dtypes_are_computed_in_float64():
    run = njit(lambda x: elementary.exp(x))
    assert run(2) == run(2.0)
    assert abs(run(np.int32(2)) - math.exp(2)) < 1e-14
    assert njit(lambda x, y: elementary.copysign(x, y))(np.float32(0.1), -1.0) == -float(np.float32(0.1))


def test_plain_functions_follow_math():
    for name in [*STATED, "fabs", "floor", "ceil", "trunc"]:
        function, x = getattr(elementary, name), 0.625
        expected = getattr(math, name)(x) if name != "exp2" else 2**x
        assert type(function(x)) is float
        assert math.isclose(function(x), expected, rel_tol=1e-15)
        assert math.isclose(function(np.float32(x)), expected, rel_tol=1e-7)
        assert function(1) == getattr(math, name, np.exp2)(1)


@pytest.mark.parametrize("dtype", BOTH)
def test_a_formula_with_math_bound_to_the_module(dtype):
    def swish(x):
        return x / (dtype(1) + math.exp(-x))

    bound = types.FunctionType(swish.__code__, {"math": elementary}, closure=swish.__closure__)
    formula = njit(error_model="numpy", fastmath={"contract", "nsz"}, forceinline=True)(bound)

    @njit(error_model="numpy")
    def run(x, y):
        for i in range(x.size):
            y[i] = formula(x[i])

    x = np.array([-INF, -1000, -3, 0, 2, 1000, INF, NAN] * 9, dtype)
    y = np.empty_like(x)
    run(x, y)
    with np.errstate(all="ignore"):
        expected = x / (1 + np.exp(-x))
    assert np.allclose(y, expected, rtol=4 * np.finfo(dtype).eps, atol=0, equal_nan=True)
    assert re.search(r"<\d+ x (float|double)>", run.inspect_llvm(run.signatures[0]))
    assert njit(lambda: elementary.pi)() == math.pi


def test_coefficients_can_be_derived_again():
    pytest.importorskip("mpmath")
    from engine.kernels.elementary import fit
    shipped = {**vars(exponential), **vars(logarithm), **vars(trigonometric), **vars(error_function),
               **vars(normal)}
    for name in (*fit.tables(), *fit.RATIONAL):
        for real in shipped[name]:
            assert fit.coefficients(name, real) == shipped[name][real], name
