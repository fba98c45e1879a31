"""Inference: normalisations go into the weights before them, which are made once and anew when weights have changed."""
import numpy as np
import pytest

import engine
from engine import BatchNorm, Conv2D, Dense, Flatten, ReLU, Residual, Sequential
from engine import target as targets
from engine.graph import Graph
from engine.graph.fold_norm import fold_norm
from engine.graph.passes import fuse_forward
from engine.runtime import Plan
from engine.runtime.fixed import Version, fixed_first

RNG = np.random.default_rng(4)
X = RNG.standard_normal((3, 6, 5, 2)).astype(np.float32)
Y = np.array([0, 2, 1])


def network(dtype="float32"):
    """Convolutions with and without bias and with groups, dense layers with and without, each with a norm behind."""
    engine.seed(3)
    model = Sequential([
        Conv2D(4, 3, padding="same", use_bias=False), BatchNorm(epsilon=1e-2), ReLU(),
        Residual([Conv2D(4, 3, padding="same", groups=2), BatchNorm()], activation="relu"),
        Flatten(), Dense(5), BatchNorm(), Dense(3, use_bias=False), BatchNorm()], dtype=dtype, target="cpu")
    model.compile(engine.optimizers.SGD(0.1), "cross_entropy")
    model.build(X.shape[1:])
    model.set_weights([RNG.random(w.shape) + 0.5 for w in model.get_weights()])
    return model


def unfused(model, x):
    """The prediction with every node as the layers wrote it, made anew."""
    graph = Graph()
    values = {owned.name: graph.parameter(owned.name, owned.weight.shape, model.dtype)
              for owned in model.network.weights}
    given = graph.feed("x", x.shape, model.dtype)
    graph.outputs["y"] = model.network.add_to(graph, given, values, False)[0]
    plan = Plan(graph, targets.cpu, {name: model.state.get(name) for name in values})
    plan.run(x=x)
    return plan.fetch("y"), graph


@pytest.mark.parametrize("dtype,rtol", [("float32", 2e-5), ("float64", 1e-12)])
def test_folded_and_not_give_the_same(dtype, rtol):
    model = network(dtype)
    got = model.predict(X)
    want, graph = unfused(model, X)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)
    ops = [n.op.name for n in fold_norm(graph, False).nodes]
    assert "batch_norm_inference" not in ops and "conv2d_plain" not in ops and "matmul" not in ops
    assert ops.count("conv2d") == ops.count("dense") == 2


@pytest.mark.parametrize("target", [t for t in targets.TARGETS.values() if t.present()], ids=lambda t: t.name)
def test_a_residual_block_is_added_in_its_convolution(target):
    """Folded, activated and added in one call: by Winograd's method, with a convolution on both sides, depthwise."""
    engine.seed(6)
    model = Sequential([
        Residual([Conv2D(16, 3, padding="same"), BatchNorm()], activation="relu"),
        Residual([Conv2D(8, 1, 2, use_bias=False), BatchNorm()], [Conv2D(8, 1, 2, use_bias=False), BatchNorm()],
                 activation="relu"),
        Residual([Conv2D(8, 3, padding="same", groups=8), BatchNorm()], activation="relu")], target=target.name)
    x = RNG.standard_normal((1, 13, 14, 16)).astype(np.float32)
    model.build(x.shape[1:])
    for factor in (1.0, 1.5):
        model.set_weights([factor * (RNG.random(w.shape) + 0.5 if w.ndim == 1 else RNG.standard_normal(w.shape))
                           for w in model.get_weights()])
        want = unfused(model, x)[0]
        for _ in range(2):
            np.testing.assert_allclose(model.predict(x), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    plan = model._plan(("predict", 1), None)
    ran = [node for node, _ in plan.calls[-len(plan.program.calls):]]
    assert [node.op.name for node in ran] == ["conv2d_add", "conv2d", "conv2d_add", "conv2d_add"]
    assert all(node.attributes["kept"] for node in ran)
    assert [node.attributes["activation"] is None for node in ran] == [False, True, False, False]


def test_the_weights_are_made_once_and_the_plan_says_so(monkeypatch):
    model = network()
    model.predict(X)
    plan = model._plan(("predict", len(X)), None)
    assert {n.op.name for n, _ in plan.calls[-len(plan.program.calls):]} == {"conv2d", "conv2d_add", "dense"}
    assert any(line.split()[0] == "once" and " mul " in line for line in str(plan).splitlines())
    times, run = [], plan.preparation.run
    monkeypatch.setattr(plan.preparation, "run", lambda: times.append(run()))
    for _ in range(3):
        model.predict(X)
    assert not times, "nothing has changed"
    model.set_weights(model.get_weights())
    for _ in range(3):
        model.predict(X)
    assert len(times) == 1


@pytest.mark.parametrize("way", ["fit", "train_step", "set_weights", "gradients", "evaluate", "thaw", "profile"])
def test_a_change_of_the_weights_is_seen(way):
    model = network()
    before = model.predict(X)
    if way == "fit":
        model.fit(X, Y, epochs=2, batch_size=2, verbose=0)       # with a rest
    elif way == "train_step":
        model.train_step(X, Y)
    elif way == "set_weights":
        model.set_weights({name: 1.5 * array for name, array in model.weights.items()})
    elif way == "gradients":                                     # moves running statistics and brings them back
        model.gradients(X, Y)
    elif way == "evaluate":
        model.evaluate(X, Y, batch_size=2)
    elif way == "thaw":
        model.layers[0].trainable = False
        model.train_step(X, Y)
    else:
        model._plan(("predict", len(X)), None).profile_run(2)
    after, (want, _) = model.predict(X), unfused(model, X)
    np.testing.assert_allclose(after, want, rtol=2e-5, atol=2e-5)
    assert (np.abs(after - before).max() < 1e-5) == (way in ("gradients", "evaluate", "profile"))


def test_convolutions_keep_what_they_make_of_the_weights():
    """By Winograd's method, which would not pay for so few tiles if the weights were transformed in every call."""
    engine.seed(5)
    model = Sequential([Conv2D(16, 3, padding="same", use_bias=False), Conv2D(48, 3, padding="same"), ReLU()],
                       target="cpu")
    x = RNG.standard_normal((1, 13, 14, 16)).astype(np.float32)
    model.build(x.shape[1:])
    for factor in (1.0, 1.5):
        model.set_weights([factor * RNG.standard_normal(w.shape) for w in model.get_weights()])
        want = unfused(model, x)[0]
        for _ in range(3):
            np.testing.assert_allclose(model.predict(x), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    plan = model._plan(("predict", 1), None)
    assert [node.op.name for node, _ in plan.calls] == ["conv2d_plain", "conv2d"] * 2
    assert str(plan).count("once") == 2 and str(plan).count("kept=True") == 4
    assert plan.arena_bytes >= 36 * 16 * (16 + 48) * 4


def test_a_loaded_model_and_an_evaluation_use_the_weights_that_are_there(tmp_path):
    model = network()
    model.predict(X)
    model.fit(X, Y, epochs=1, verbose=0)
    model.save(tmp_path / "model")
    again = engine.load(tmp_path / "model", target="cpu")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    losses = [model.evaluate(X, Y)]
    model.set_weights([w * 0.5 for w in model.get_weights()])
    losses.append(model.evaluate(X, Y))
    want = unfused(model, X)[0].astype(np.float64)
    of = np.log(np.exp(want).sum(1)) - want[np.arange(3), Y]
    assert losses[1] == pytest.approx(of.mean(), rel=1e-4) and abs(losses[0] - losses[1]) > 1e-3


def test_what_must_not_be_folded_stays():
    def graph(middle=False, twice=False, fed=False, activation=None):
        g = Graph()
        x = g.feed("x", (2, 3), "float64")
        w = (g.feed if fed else g.parameter)("w", (3, 4), "float64")
        y = g.add("dense", x, w, g.parameter("b", (4,), "float64"), activation=activation)
        vectors = [g.parameter(name, (4,), "float64") for name in ("gamma", "beta", "mean", "variance")]
        z = g.add("batch_norm_inference", y, *vectors)
        g.outputs["z"] = g.add("add", y, z) if twice else z
        if middle:
            g.outputs["y"] = y
        return g

    def stays(g, training=False):
        return "batch_norm_inference" in {n.op.name for n in fuse_forward(g, training).nodes}
    assert not stays(graph())
    assert stays(graph(middle=True)) and stays(graph(twice=True)) and stays(graph(fed=True)) and stays(graph(), True)
    assert stays(graph(activation=engine.kernels.activation.ACTIVATIONS["relu"]))


def test_only_what_no_node_changes_is_fixed():
    g = Graph()
    w, flat = g.parameter("w", (4,), "float64"), g.parameter("flat", (16,), "float64")
    part, kept = g.parameter("part", (4,), "float64"), g.parameter("kept", (4,), "float64")
    g.place(part, flat, 8)
    x, rate, counter = g.feed("x", (4,), "float64"), g.feed("rate", (1,), "float64"), g.state("counter", (2,), "int64")
    g.outputs["a"] = g.add("tanh", part)     # of memory that the update below changes
    fixed = g.add("exp", g.add("tanh", kept))
    g.outputs["b"] = g.add("mul", x, fixed)
    g.outputs["c"] = g.add("mul", w, x)
    g.add("sgd", flat, g.feed("d", (16,), "float64"), rate, counter)
    ordered, count = fixed_first(g)
    assert [n.op.name for n in ordered.nodes[:count]] == ["tanh", "exp"] and ordered.nodes[0].inputs == (kept,)
    version = Version()
    bound = {"kept": RNG.random(4), "flat": RNG.random(16), "w": RNG.random(4)}
    plan, feeds = Plan(g, targets.cpu, bound, version), {"x": RNG.random(4), "rate": [0.5], "d": RNG.random(16)}
    for round_ in range(3):                  # the update counts on by itself
        was = bound["flat"].copy()
        plan.run(**feeds)
        assert version.count == round_ + 1
        np.testing.assert_allclose(plan.fetch("a"), np.tanh(was[8:12]), rtol=1e-12)
        np.testing.assert_allclose(plan.fetch("b"), feeds["x"] * np.exp(np.tanh(bound["kept"])), rtol=1e-12)


def test_fixed_values_survive_all_runs():
    """Memory of what is made once is given to nobody, in place or later."""
    g = Graph()
    w, x = g.parameter("w", (50,), "float64"), g.feed("x", (50,), "float64")
    made = g.add("reshape", g.add("tanh", w), shape=(50,))
    y = g.add("exp", made)                   # used here and, for the last time, below
    z = g.add("mul", made, x)
    for _ in range(4):
        z = g.add("tanh", g.add("add", z, x))
    g.outputs["z"], g.outputs["y"] = z, g.add("mul", y, x)
    bound = {"w": RNG.random(50)}
    plan, plain = Plan(g, targets.cpu, bound, Version()), Plan(g, targets.cpu, bound)
    assert len(plan.preparation.calls) == 2
    for _ in range(3):
        given = RNG.random(50)
        plan.run(x=given)
        plain.run(x=given)
        for name in ("y", "z"):
            np.testing.assert_array_equal(plan.fetch(name), plain.fetch(name))
