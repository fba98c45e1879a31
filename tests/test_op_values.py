"""What samples leave out: NaN and infinity, gradients at ties, sums of many values, the same bits on any threads."""
import math

import numpy as np
import pytest
from numba import config

from engine import kernels, target
from engine.graph import Graph, gradients
from engine.kernels import TABLE
from engine.kernels.elementwise import binary, unary
from engine.kernels.entry import threads
from engine.runtime import Plan

NAN, INF = math.nan, math.inf
compiled = pytest.mark.skipif(config.DISABLE_JIT or config.ENABLE_CUDASIM, reason="too slow without compiling")
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def gradient_of(name, *inputs, seed, **attributes):
    """The gradients of sum(seed * op(inputs)) with respect to the inputs."""
    graph = Graph()
    values = [graph.feed(f"x{k}", x.shape, x.dtype) for k, x in enumerate(inputs)]
    y = graph.add(name, *values, **attributes)
    for k, gradient in enumerate(gradients(graph, {y: graph.constant(np.asarray(seed, float))}, values)):
        graph.outputs[f"d{k}"] = gradient
    plan = Plan(graph, target.cpu)
    plan.run(**{f"x{k}": x for k, x in enumerate(inputs)})
    return [plan.fetch(f"d{k}") for k in range(len(inputs))]


def test_nan_and_infinity_pass_through():
    a, b = np.array([NAN, 1.0, NAN, INF]), np.array([1.0, NAN, NAN, -INF])
    for name in ("maximum", "minimum"):
        np.testing.assert_array_equal(TABLE[name](a, b), getattr(np, name)(a, b))
    np.testing.assert_array_equal(TABLE["clip"](np.array([NAN, -INF, INF]), low=-1, high=2), [NAN, -1, 2])
    np.testing.assert_array_equal(TABLE["log"](np.array([0.0, -1.0, INF])), [-INF, NAN, INF])
    np.testing.assert_array_equal(TABLE["exp"](np.array([-INF, INF, NAN, 1000.0, -1000.0])), [0, INF, NAN, INF, 0])
    np.testing.assert_array_equal(TABLE["div"](np.array([1.0, -1.0, 0.0]), 0.0), [INF, -INF, NAN])
    x = np.array([[1.0, NAN, 3.0], [-INF, -INF, -INF], [INF, 0.0, 1.0]])
    for axis in (0, 1, None):
        np.testing.assert_array_equal(TABLE["max"](x, axis=axis), x.max(axis))
        np.testing.assert_array_equal(TABLE["argmax"](x, axis=axis), x.argmax(axis))
    np.testing.assert_array_equal(TABLE["logsumexp"](x, axis=1)[:2], [NAN, -INF])
    assert np.isnan(TABLE["softmax"](x)[:2]).all() and TABLE["mean"](np.zeros((0, 2)), axis=0).shape == (2,)


def test_gradients_at_ties():
    a = np.array([2.0, 1.0])
    np.testing.assert_array_equal(gradient_of("maximum", a, a.copy(), seed=[3, 4]), [[3, 4], [0, 0]])
    np.testing.assert_array_equal(gradient_of("minimum", a, a.copy(), seed=[3, 4]), [[3, 4], [0, 0]])
    np.testing.assert_array_equal(gradient_of("max", np.array([1.0, 5, 5]), seed=2)[0], [0, 2, 0])
    clipped, = gradient_of("clip", np.array([-1.0, 0, 2, 3]), seed=[1, 1, 1, 1], low=0.0, high=2.0)
    np.testing.assert_array_equal(clipped, [0, 1, 1, 0])
    np.testing.assert_array_equal(gradient_of("abs", np.array([-2.0, 0, 3]), seed=[1, 1, 1])[0], [-1, 0, 1])


def test_a_value_used_twice():
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    graph = Graph()
    value = graph.feed("x", x.shape, x.dtype)
    y = graph.add("mul", value, value)
    graph.outputs["d"], = gradients(graph, {y: graph.constant(np.ones((2, 2)))}, [value])
    plan = Plan(graph, target.cpu)
    plan.run(x=x)
    np.testing.assert_array_equal(plan.fetch("d"), 2 * x)


def test_own_ops_from_formulas():
    square_sum, *grads = binary("square_sum", lambda a, b: a * a + b * b, lambda a, b: 2 * a, lambda a, b: 2 * b,
                                lambda a, b: a * a + b * b)
    cube, cube_grad = unary("cube", lambda x: x * x * x, lambda x: 3 * x * x, lambda x: x ** 3)
    x, row = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(square_sum(x, row), x * x + row * row)
    assert [op.name for op in grads] == ["square_sum_grad_a", "square_sum_grad_b"]
    found = gradient_of(square_sum, x, row, seed=np.ones((2, 3)))
    np.testing.assert_array_equal(found[0], 2 * x)
    np.testing.assert_array_equal(found[1], 4 * row)
    np.testing.assert_array_equal(gradient_of(cube, row, seed=[1, 1, 1])[0], cube_grad(np.ones(3), row))


def test_an_op_in_place_gives_the_same():
    x = np.random.default_rng(0).standard_normal((40, 30)).astype("f")
    graph = Graph()
    value = graph.feed("x", x.shape, x.dtype)
    row = graph.constant(x[0])
    y = value
    for name in ("exp", "neg", "square"):
        y = graph.add("mul", graph.add("softmax", graph.add(name, y)), row)
    graph.outputs["y"] = y
    plan = Plan(graph, target.cpu)
    plan.run(x=x)
    want = x
    for name in ("exp", "neg", "square"):
        want = TABLE["mul"](TABLE["softmax"](TABLE[name](want)), x[0].copy())
    np.testing.assert_array_equal(plan.fetch("y"), want)
    assert plan.arena_bytes < 3 * x.nbytes


@compiled
def test_sums_of_many_values_are_accurate():
    x = np.random.default_rng(0).random(3_000_001, np.float32)
    for shape in ((3_000_001,), (3_000_001, 1), (1, 3_000_001)):
        exact = math.fsum(x.tolist())
        assert abs(float(TABLE["sum"](x.reshape(shape))) - exact) < 2e-7 * exact
    rows = x[:3_000_000].reshape(-1, 3)
    np.testing.assert_allclose(TABLE["sum"](rows, axis=0), rows.sum(0, dtype=np.float64), rtol=5e-7)
    np.testing.assert_allclose(TABLE["squared_norm"](x), np.square(x, dtype=np.float64).sum(), rtol=5e-7)


CALLS = (("sum", (300_000,), {}), ("sum", (30_011, 7), {"axis": 0}), ("sum", (30_011, 7), {"axis": 1}),
         ("sum", (3, 70_001), {"axis": 1}), ("sum_to", (20, 30, 40, 5), {"shape": (30, 1, 1)}), ("max", (200, 333), {}),
         ("mean", (3, 5000, 9), {"axis": 1}), ("squared_norm", (70_001,), {}), ("argmax", (9_001, 13), {"axis": 1}),
         ("softmax", (9_001, 13), {}), ("softmax", (40, 5001), {}), ("softmax", (30, 401, 11), {"axis": 1}),
         ("logsumexp", (7, 20_001), {"axis": 0}), ("transpose", (301, 407), {}),
         ("slice", (401, 307), {"starts": (1, 2), "stops": (400, 305), "steps": (1, 2)}),
         ("pad", (201, 307), {"before": (1, 2), "after": (3, 0)}))


@compiled
@pytest.mark.skipif(config.NUMBA_NUM_THREADS < 2, reason="one thread only")
@pytest.mark.parametrize("name,shape,attributes", CALLS, ids=lambda v: str(v).replace(" ", ""))
def test_same_bits_on_any_number_of_threads(name, shape, attributes):
    x = np.random.default_rng(0).standard_normal(shape).astype("f")
    kept, found = threads.get(), []
    try:
        for count in sorted({1, 2, config.NUMBA_NUM_THREADS}):
            threads.set(count)
            found.append(TABLE[name](x, **attributes))
    finally:
        threads.set(kept)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@compiled
def test_scatter_add_is_the_same_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    dy, indices = rng.standard_normal((5000, 33)).astype("f"), rng.integers(-2, 90, 5000)
    kept, found = threads.get(), []
    try:
        for count in (1, config.NUMBA_NUM_THREADS):
            threads.set(count)
            found.append(kernels.TABLE["scatter_add"](dy, indices, rows=80))
    finally:
        threads.set(kept)
    np.testing.assert_array_equal(*found)
