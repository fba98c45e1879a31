"""Products of gradients that take in the update: the same weights to the bit, and none is taken that others need."""
import numpy as np
import pytest
from numba import config
from shares import run_unequal

import engine
from engine import Dense, Dropout, Residual, Sequential, target, threads
from engine.graph import Graph, passes
from engine.graph.fuse_update import fuse_update
from engine.kernels import TABLE
from engine.kernels.matmul import blocking
from engine.kernels.matmul.update import takes_update
from engine.kernels.program import Program
from engine.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

OPTIMIZERS = (SGD(0.1, weight_decay=0.01), SGD(0.1, momentum=0.9, nesterov=True), RMSprop(), Adagrad(),
              Adam(weight_decay=0.1), AdamW())
RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((31, 160)).astype("float32"), RNG.integers(0, 7, 31)


def trained(optimizer, monkeypatch, fuse, steps=3):
    """(the optimiser's ops in the step's graph, weights and states) of a model of two large weights and a small one."""
    graphs = []
    monkeypatch.setattr(passes, "fuse_update", lambda graph: graphs.append(fuse(graph)) or graphs[-1])
    engine.seed(2)
    model = Sequential([Dense(130, activation="relu"), Residual([Dropout(0.2), Dense(130, activation="tanh")]),
                        Dense(7)])
    model.compile(optimizer, "cross_entropy")
    for _ in range(steps):
        model.train_step(X, Y)
    ops = [node.op.name for graph in graphs for node in graph.nodes if optimizer.op in node.op.name]
    return ops, {name: array.copy() for name, array in model.state.arrays.items() if name != "gradients"}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.op)
def test_the_same_bits_as_without(optimizer, monkeypatch):
    ops, fused = trained(optimizer, monkeypatch, fuse_update)
    # what lies behind either large weight: its bias, and with the second one's the small layer
    assert ops == [f"matmul_{optimizer.op}"] * 2 + [optimizer.op] * 2
    ops, plain = trained(optimizer, monkeypatch, lambda graph: graph)
    assert ops == [optimizer.op]
    for name, array in plain.items():
        np.testing.assert_array_equal(fused[name], array, err_msg=name)


@pytest.fixture
def most():
    """How many threads there may be; that number is set again afterwards."""
    before = threads.get()
    yield before
    threads.set(before)


def test_the_same_bits_with_one_thread(monkeypatch, most):
    found = []
    for count in {1, most}:
        threads.set(count)
        found.append(trained(Adam(), monkeypatch, fuse_update)[1])
    for name, array in found[0].items():
        np.testing.assert_array_equal(found[-1][name], array, err_msg=name)


def test_a_clipped_gradient_is_wanted_whole(monkeypatch):
    assert trained(SGD(clip_norm=0.1), monkeypatch, fuse_update)[0] == ["sgd"]


def step(change=lambda graph, x, dy, w, dw: None, rows=9):
    """y = x w, dw = x^T dy, w -= rate dw, as flat values; `change` adds to the graph before the update."""
    g = Graph()
    size = 160 * 130 + 16
    flat, gradients = g.parameter("flat", (size,), "float32"), g.state("gradients", (size,), "float32")
    x, dy = g.feed("x", (rows, 160), "float32"), g.feed("dy", (rows, 130), "float32")
    rate, counter = g.feed("rate", (1,), "float64"), g.state("counter", (2,), "int64")
    w = g.parameter("w", (160, 130), "float32")
    g.place(w, flat, 0)
    dw = g.add("matmul", x, dy, transpose_a=True)
    g.place(dw, gradients, 0)
    change(g, x, dy, w, dw)
    g.add("sgd", flat, gradients, rate, counter)
    return [node.op.name for node in fuse_update(g).nodes]


def test_the_update_waits_for_who_reads_the_weight():
    assert step() == ["matmul_sgd", "sgd"]
    assert step(lambda g, x, dy, w, dw: g.add("matmul", dy, w, transpose_b=True)) == ["matmul", "matmul_sgd", "sgd"]
    assert step(lambda g, x, dy, w, dw: g.add("exp", g.add("reshape", w, shape=(130, 160)))) == [
        "reshape", "exp", "matmul_sgd", "sgd"]


def test_a_gradient_that_others_want_stays():
    assert step(lambda g, x, dy, w, dw: g.add("exp", dw)) == ["matmul", "exp", "sgd"]
    assert step(lambda g, x, dy, w, dw: g.outputs.update(dw=dw)) == ["matmul", "sgd"]
    assert step(lambda g, x, dy, w, dw: g.add("exp", g.values["flat"])) == ["matmul", "exp", "sgd"]
    assert step(lambda g, x, dy, w, dw: g.add("exp", g.values["gradients"])) == ["matmul", "exp", "sgd"]


def test_small_and_narrow_weights_are_left_alone():
    assert takes_update(160, 130, 9, np.dtype("float32"))
    assert not takes_update(64, 32, 9, np.dtype("float32"))
    assert not takes_update(4096, 10, 32, np.dtype("float32"))           # computed turned: no rows come one by one


def test_arrays_of_other_shapes_are_refused():
    a, b, w, rate, counter = np.ones((2, 3)), np.ones((2, 4)), np.ones((4, 3)), np.ones(1), np.zeros(2, int)
    with pytest.raises(engine.errors.ShapeError, match=r"weights and states of the shape of the product, \(3, 4\)"):
        TABLE["matmul_sgd"](a, b, w, rate, counter)
    with pytest.raises(engine.errors.ShapeError, match="4 inputs"):
        TABLE["matmul_sgd"](a, b, w.T.copy(), w.T.copy(), rate, counter)


@pytest.mark.skipif(config.DISABLE_JIT, reason="too many sums for Python")
@pytest.mark.parametrize("k, m, n", [(40, 301, 1024), (33, 200, 1001), (530, 131, 515), (9, 97, 2000)])
def test_rows_that_come_some_at_a_time(k, m, n, monkeypatch, most):
    """Wide rows: several calls of the product, of which the later ones find the copies of B."""
    monkeypatch.setattr(blocking, "cache_bytes", {1: 48 << 10, 2: 2 << 20}.get)
    threads.set(min(3, most))
    rng = np.random.default_rng(k)
    a, b, w, v = (rng.standard_normal(shape).astype("float32") for shape in ((k, m), (k, n), (m, n), (m, n)))
    rate, counter = np.array([0.1]), np.array([0, 3])
    g = TABLE["matmul"](a, b, transpose_a=True).ravel()
    expected = TABLE["sgd_momentum"](w.ravel(), g, v.ravel(), rate, counter)
    op = TABLE["matmul_sgd_momentum"]
    for seed in range(3):
        found, program = [w.copy(), v.copy()], Program(target.cpu)
        call = program.add(op, [a, b, *found, rate, counter], found, op.complete({}))
        assert call.arrangement.blocking[0] < m
        assert run_unequal(program, seed) == (threads.get() > 1)
        for one, other in zip(found, expected):
            np.testing.assert_array_equal(one.ravel(), other)
