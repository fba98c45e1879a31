"""Passes around products: a residual goes into the epilogue of the dense layer or convolution, a bias's gradient into
its weights'."""
import numpy as np
import pytest

from engine import target as targets
from engine.graph import Graph, gradients
from engine.graph.fuse_residual import fuse_residual
from engine.graph.fuse_sums import fuse_sums
from engine.kernels.activation import ACTIVATIONS
from engine.runtime import Plan

RNG = np.random.default_rng(11)
GIVEN = {"x": RNG.standard_normal((9, 7)), "w": RNG.standard_normal((7, 7)), "b": RNG.standard_normal(7)}


def block(activation=None, keep=False, twice=False):
    """relu(x + (x w + b)) as layers write it."""
    g = Graph()
    x, w, b = (g.feed(name, array.shape, array.dtype) for name, array in GIVEN.items())
    z = g.add("dense", x, w, b)
    y = g.add("add", x, z)
    if activation:
        y = g.add(ACTIVATIONS[activation].op, y)
    g.outputs["y"] = g.add("add", y, z) if twice else y
    if keep:
        g.outputs["z"] = z
    return g


def names(graph):
    return [node.op.name for node in graph.nodes]


def run(graph, target=targets.cpu):
    plan = Plan(graph, target)
    plan.run(**GIVEN)
    return {name: plan.fetch(name) for name in graph.outputs}


@pytest.mark.parametrize("activation,training,left", [
    (None, True, ["dense_residual"]), ("relu", True, ["dense_residual"]), ("relu", False, ["dense_residual"]),
    ("gelu", False, ["dense_residual"]), ("gelu", True, ["dense_residual", "gelu"])])
def test_a_residual_block_becomes_one_product(activation, training, left):
    graph = block(activation)
    fused = fuse_residual(graph, training)
    assert names(fused) == left
    np.testing.assert_allclose(run(fused)["y"], run(graph)["y"], rtol=1e-12)


def test_a_residual_block_of_convolutions_trains_as_one_call():
    """Both sides are convolutions, one takes the other in; the same values and gradients."""
    g, given = Graph(), {"x": (2, 5, 4, 3), "w": (3, 3, 3, 4), "b": (4,), "v": (1, 1, 3, 4)}
    x, w, b, v = (g.feed(name, shape, "float64") for name, shape in given.items())
    short = g.add("conv2d", x, v, b)
    y = g.add("relu", g.add("add", short, g.add("conv2d", x, w, b, padding=(1, 1, 1, 1))))
    g.outputs["y"] = y
    fused, feeds, found = fuse_residual(g, True), {n: RNG.standard_normal(s) for n, s in given.items()}, []
    assert names(fused) == ["conv2d", "conv2d_add"]
    for graph in (g, fused):
        for value, gradient in zip((x, w, b, v), gradients(graph, {y: graph.constant(np.ones(y.shape))}, (x, w, b, v))):
            graph.outputs[f"d{value.name}"] = gradient
        plan = Plan(graph, targets.cpu)
        plan.run(**feeds)
        found.append({name: plan.fetch(name) for name in graph.outputs})
    for name, want in found[0].items():
        np.testing.assert_allclose(found[1][name], want, rtol=1e-11, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("given", [{"keep": True}, {"twice": True}])
def test_a_product_that_others_use_stays(given):
    assert names(fuse_residual(block(**given), True)) == names(block(**given))


@pytest.mark.parametrize("target", [t for t in targets.TARGETS.values() if t.present()], ids=lambda t: t.name)
def test_gradients_of_a_dense_layer_become_one_product(target):
    graph = fuse_residual(block("relu"), True)
    one = graph.constant(np.ones((9, 7)))
    wrt = [graph.values[name] for name in GIVEN]
    for value, gradient in zip(wrt, gradients(graph, {graph.outputs["y"]: one}, wrt)):
        graph.outputs[f"d{value.name}"] = gradient
    fused = fuse_sums(graph)
    assert names(fused).count("matmul_sums") == 1 and "sum" not in names(fused)
    assert len(fused.nodes) == len(graph.nodes) - 1
    want = run(graph)
    for name, got in run(fused, target).items():
        np.testing.assert_allclose(got, want[name], rtol=1e-11, atol=1e-11, err_msg=name)
