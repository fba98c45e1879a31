"""Passes that fuse: the same values and gradients as without them, fewer calls, and what has to be left alone."""
import numpy as np
import pytest

import engine
from engine import target as targets
from engine import training
from engine.graph import Graph, gradients, passes
from engine.graph.fuse_backward import fuse_backward
from engine.graph.fuse_elementwise import fuse_elementwise
from engine.graph.prune import prune
from engine.kernels import TABLE
from engine.kernels.activation import ACTIVATIONS
from engine.kernels.fused import Fusion
from engine.runtime import Plan

TARGETS = [t for t in targets.TARGETS.values() if t.present()]
RNG = np.random.default_rng(3)


def feeds_of(graph):
    return {v.name: RNG.standard_normal(v.shape).astype(v.dtype) for v in graph.values.values() if v.kind == "feed"}


def compare(graph, calls, fuse=fuse_elementwise, target=targets.cpu, rtol=1e-12):
    """Runs a graph as it is and fused, on the same feeds; returns the fused plan."""
    plain, fused, feeds = Plan(graph, target), Plan(fuse(graph), target), feeds_of(graph)
    plain.run(**feeds)
    fused.run(**feeds)
    for name in graph.outputs:
        np.testing.assert_allclose(fused.fetch(name), plain.fetch(name), rtol=rtol, atol=rtol, err_msg=name)
    assert len(fused.program.calls) == calls, str(fused)
    return fused


def swiglu(shape, dtype="float64"):
    g = Graph()
    x, y = (g.feed(n, shape, dtype) for n in "xy")
    g.outputs["z"] = g.add("mul", g.add("silu", x), y)
    return g


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(1,), (0, 3), (7, 5), (2, 3, 67)])
def test_a_chain_becomes_one_call_that_reads_like_it(shape, target):
    fused = compare(swiglu(shape), 1 if np.prod(shape) else 0, target=target)
    assert "fused2(x, y, of=mul(silu(a), b))" in str(fused.graph)
    if np.prod(shape):
        assert "fused2(of=mul(silu(a), b))" in str(fused)


def test_a_tree_with_numbers():
    g = Graph()
    a, b, c = (g.feed(n, (33, 3), "float64") for n in "abc")
    left = g.add("clip", g.add("scale", a, factor=0.5, offset=0.25), low=-0.2, high=0.4)
    right = g.add("power", g.add("add", b, c), exponent=2.0)
    g.outputs["y"] = g.add("tanh", g.add("sub", left, right))
    fused = compare(g, 1)
    node, = fused.graph.nodes
    assert str(node.attributes["of"]) == "tanh(sub(clip(scale(a)), power(add(b, c))))"
    assert sorted(node.attributes["numbers"]) == [-0.2, 0.0, 0.25, 0.4, 0.5, 2.0]


def test_other_numbers_are_the_same_kernel():
    def fusion(factor):
        g = Graph()
        x = g.feed("x", (4,), "float32")
        g.outputs["y"] = g.add("relu", g.add("scale", x, factor=factor))
        return fuse_elementwise(g).nodes[0].attributes["of"]
    assert fusion(2.0).formula.digest == fusion(3.0).formula.digest
    assert fusion(2.0).formula.digest != swiglu_fusion().formula.digest


def swiglu_fusion():
    return fuse_elementwise(swiglu((3,))).nodes[0].attributes["of"]


def test_what_others_need_is_left_alone():
    g = Graph()
    x, row = g.feed("x", (5, 4), "float64"), g.feed("row", (4,), "float64")
    h = g.add("tanh", x)                     # used twice
    kept = g.add("exp", h)                   # an output
    flat = g.state("flat", (20,), "float64")
    placed = g.add("square", h)              # lives inside another value
    g.place(placed, flat, 0)
    g.outputs.update(kept=kept, a=g.add("neg", kept), b=g.add("abs", placed), c=g.add("add", g.add("relu", h), row))
    assert [n.op.name for n in fuse_elementwise(g).nodes] == [n.op.name for n in g.nodes]
    compare(g, len(g.nodes))


def test_at_most_four_inputs():
    g = Graph()
    values = [g.feed(f"x{k}", (9,), "float64") for k in range(6)]
    total = values[0]
    for v in values[1:]:
        total = g.add("add", g.add("tanh", total), v)
    g.outputs["y"] = total
    fused = compare(g, 2)
    assert max(len(n.inputs) for n in fused.graph.nodes) <= 4


def test_nothing_is_moved_over_an_update():
    g = Graph()
    p, d = g.parameter("p", (3,), "float64"), g.feed("d", (3,), "float64")
    rate, counter = g.feed("rate", (1,), "float64"), g.state("counter", (2,), "int64")
    before = g.add("square", p)
    g.add("sgd", p, d, rate, counter)
    g.outputs["y"] = g.add("tanh", before)
    assert len(fuse_elementwise(g).nodes) == 3


def mlp(m, activation, dtype="float64"):
    """The gradients of a small network, as `training` writes them: (graph, outputs)."""
    g = Graph()
    x = g.feed("x", (m, 6), dtype)
    w = [g.feed(f"w{k}", s, dtype) for k, s in enumerate([(6, 70), (70, 5)])]
    b = [g.feed(f"b{k}", s, dtype) for k, s in enumerate([(70,), (5,)])]
    h = g.add("dense", x, w[0], b[0])
    y = g.add("dense", g.add(ACTIVATIONS[activation].op, h), w[1], b[1])
    seed = g.feed("seed", y.shape, dtype)
    for name, value in zip(("dw0", "dw1", "db0", "db1"), gradients(g, {y: seed}, [*w, *b])):
        g.outputs[name] = value
    return prune(g)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("activation", ["relu", pytest.param("gelu", marks=pytest.mark.slow)])
def test_a_product_takes_in_the_slope(activation, target):
    g = mlp(33, activation)
    fused = compare(g, len(g.nodes) - 1, fuse_backward, target)
    assert [n.attributes["activation"].name for n in fused.graph.nodes if n.op.name == "matmul_slope"] == [activation]


def test_a_product_that_others_need_keeps_its_slope_apart():
    g = mlp(33, "relu")
    product = next(n for n in g.nodes if n.op.slope is not None).inputs[0]
    g.outputs["dh"] = product
    compare(g, len(g.nodes), fuse_backward)
    small = mlp(2, "relu")                   # few rows are dot products, which have no such end
    compare(small, len(small.nodes), fuse_backward)


def losses(monkeypatch, fused):
    if not fused:
        for name in ("fuse_elementwise", "fuse_backward"):
            monkeypatch.setattr(passes, name, lambda graph: graph)
    engine.seed(0)
    block = engine.Residual([engine.Dense(32, activation="relu"), engine.Dense(32)])
    model = engine.Sequential([engine.Dense(32, activation="tanh"), block, engine.ReLU(), engine.Dense(3)])
    model.build(4)
    model.compile("adam", "cross_entropy")
    x, y = RNG.standard_normal((40, 4)).astype(np.float32), np.arange(40) % 3
    graph = training.step_graph(model.state, model.loss, [], 40, (), np.dtype(np.int64), optimizer=model.optimizer)
    return [float(model.train_step(x, y)) for _ in range(3)], [n.op.name for n in graph.nodes]


def test_training_is_the_same_with_fewer_calls(monkeypatch):
    global RNG
    RNG = np.random.default_rng(1)
    found, ops = losses(monkeypatch, True)
    RNG = np.random.default_rng(1)
    expected, all_ops = losses(monkeypatch, False)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(ops) < len(all_ops) and "matmul_slope" in ops and any(o.startswith("fused") for o in ops), ops


def test_what_a_fusion_refuses():
    of = swiglu_fusion()
    assert isinstance(of, Fusion) and len(of) == 2
    x = np.ones((2, 2))
    with pytest.raises(engine.errors.ShapeError, match="expected inputs of one shape"):
        TABLE["fused2"](x, np.ones(2), of=of)
    with pytest.raises(engine.errors.ShapeError, match="expected 2 inputs for mul"):
        TABLE["fused1"](x, of=of)
    with pytest.raises(engine.errors.ShapeError, match="of: a Fusion"):
        TABLE["fused1"](x)
