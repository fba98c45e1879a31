"""Batch normalisation takes in what stands behind it: the same numbers, fewer calls, and never what others look at."""
import numpy as np
import pytest

import engine
from engine import BatchNorm, Dense, ReLU, Residual, Sequential, SiLU, target
from engine.graph import Graph, gradients
from engine.graph.fuse_norm import fuse_norm
from engine.kernels import TABLE
from engine.kernels.activation import ACTIVATIONS
from engine.runtime import Plan

rng = np.random.default_rng(8)
X, C = rng.standard_normal((5, 4, 3, 6)), 6
VECTORS = {"gamma": rng.random(C) + 0.5, "beta": rng.standard_normal(C), "mean": np.zeros(C), "variance": np.ones(C)}


def block(first, second, shortcut=False, training=True):
    """x, normalised twice with activations behind, the second time with x (normalised too: shortcut) added."""
    g = Graph()
    x = g.feed("x", X.shape, X.dtype)

    def norm(value, number):
        vectors = [g.parameter(f"{name}{number}", (C,), X.dtype) for name in VECTORS]
        if not training:
            return g.add("batch_norm_inference", value, *vectors)
        return g.add("batch_norm", value, *vectors, momentum=0.9, epsilon=1e-5)[0]

    y = ACTIVATIONS[first].nodes(g, norm(x, 1))
    y = norm(y, 2)
    y = g.add("add", norm(x, 3) if shortcut else x, y)
    g.outputs["y"] = y if second is None else ACTIVATIONS[second].nodes(g, y)
    return g


def results(g, names):
    """y, and its gradient (times fixed weights) by x and the trained vectors."""
    wrt = [v for v in g.values.values() if v.kind == "feed" or v.name[:-1] in ("gamma", "beta")]
    weights = g.constant(np.random.default_rng(1).standard_normal(X.shape))
    for value, gradient in zip(wrt, gradients(g, {g.outputs["y"]: weights}, wrt)):
        g.outputs[f"d{value.name}"] = gradient
    bound = {v.name: VECTORS[v.name[:-1]].copy() for v in g.parameters()}
    plan = Plan(g, target.cpu, bound)
    plan.run(x=X)
    return {**{name: plan.fetch(name) for name in g.outputs}, **bound}, [n.op.name for n in g.nodes][:names]


@pytest.mark.parametrize("first,second,shortcut", [("relu", "relu", False), ("silu", None, True)])
def test_fused_and_not_give_the_same(first, second, shortcut):
    plain, names = results(block(first, second, shortcut), 99)
    fused, fewer = results(fuse_norm(block(first, second, shortcut), True), 3 if shortcut else 2)
    for name, want in plain.items():
        np.testing.assert_allclose(fused[name], want, rtol=1e-9, atol=1e-11, err_msg=name)
    assert fewer == ["batch_norm"] * (2 if shortcut else 1) + ["batch_norm_add"], fewer


def test_inference_takes_in_activations():
    g = fuse_norm(block("silu", "relu", training=False), False)
    assert [n.op.name for n in g.nodes] == ["batch_norm_inference", "batch_norm_inference", "add", "relu"]
    plan, plain = (Plan(made, target.cpu, VECTORS_BOUND) for made in (g, block("silu", "relu", training=False)))
    plan.run(x=X)
    plain.run(x=X)
    np.testing.assert_allclose(plan.fetch("y"), plain.fetch("y"), rtol=1e-12, atol=1e-12)


VECTORS_BOUND = {f"{name}{number}": array.copy() for name, array in VECTORS.items() for number in (1, 2)}


def test_what_others_look_at_stays():
    g = block("relu", "relu")
    g.outputs["middle"] = g.nodes[0].outputs[0]          # the first norm's own output
    g.outputs["statistics"] = g.nodes[2].outputs[3]      # the second norm's mean
    assert [n.op.name for n in fuse_norm(g, True).nodes] == ["batch_norm", "relu", "batch_norm", "add", "relu"]
    g = Graph()
    x = g.feed("x", X.shape, X.dtype)
    vectors = [g.parameter(name, (C,), X.dtype) for name in VECTORS]
    y = g.add("batch_norm", x, *vectors)[0]
    g.outputs["y"] = g.add("add", y, y)                  # used twice
    assert [n.op.name for n in fuse_norm(g, True).nodes] == ["batch_norm", "add"]


def test_a_step_without_slope_and_a_slope_of_x_after_the_addition_stay():
    assert [n.op.name for n in fuse_norm(block("step", "silu"), True).nodes] == [
        "batch_norm", "step", "batch_norm_add", "silu"]


@pytest.mark.parametrize("trainable", [True, False])
def test_a_model_trains_alike_with_many_threads_and_frozen(trainable):
    def trained(threads):
        engine.threads.set(threads)
        engine.seed(2)
        model = Sequential([Dense(32), BatchNorm(trainable=trainable), SiLU(),
                            Residual([Dense(32), BatchNorm(0.9, trainable=trainable)]), ReLU(), Dense(2)])
        model.compile(engine.optimizers.SGD(0.1), "cross_entropy")
        x = np.random.default_rng(0).standard_normal((4000, 5)).astype(np.float32)
        history = model.fit(x, (x[:, 0] > 0).astype(np.int64), batch_size=2000, epochs=12, verbose=0)
        calls = {n.op.name for n in model.plan.graph.nodes}
        assert ("batch_norm_add" in calls) == trainable and "silu" not in calls, calls
        assert history.history["loss"][-1] < 0.75 * history.history["loss"][0]
        return model.get_weights()

    before = engine.threads.get()
    try:
        for one, two in zip(trained(1), trained(before)):
            np.testing.assert_array_equal(one, two)
    finally:
        engine.threads.set(before)


def test_statistics_of_large_inputs_do_not_depend_on_the_threads():
    x = rng.standard_normal((20, 50, 50, 7)).astype(np.float32) + 3
    vectors = [rng.random(7).astype(np.float32) for _ in range(4)]
    before, found = engine.threads.get(), []
    try:
        for threads in {1, before}:
            engine.threads.set(threads)
            y, _, _, mean, inverse = out = TABLE["batch_norm"](x, *vectors, activation=ACTIVATIONS["relu"])
            found.append((*out, *TABLE["batch_norm_grad"](y, x, *vectors[:2], mean, inverse,
                                                          activation=ACTIVATIONS["relu"])))
    finally:
        engine.threads.set(before)
    for one, two in zip(found[0], found[-1]):
        np.testing.assert_array_equal(one, two)
