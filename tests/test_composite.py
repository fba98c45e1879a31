"""Layers made of layers: values, shapes, names, freezing, weights that go along, the drawing, very deep networks."""
import numpy as np
import pytest

import engine
from engine import (
    Auxiliary,
    BatchNorm,
    Block,
    Concat,
    Dense,
    Dropout,
    Flatten,
    Input,
    Perceptron,
    ReLU,
    Residual,
    Sequential,
)
from engine.errors import EngineError, ShapeError

X = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
Y = np.arange(10) % 3


def nested():
    """Branches inside shortcuts inside branches, and a head."""
    inner = Residual([Dense(5, activation="tanh")], name="inner")
    sides = Concat([[Dense(5), inner], [], Dense(3, name="thin")], name="sides")
    return [Input(4), Residual([Dense(6), sides, Dense(7)], [Dense(7, name="short")], "relu", name="outer"),
            Auxiliary([Dense(3)], 0.5, name="aux"), Block([Dense(4), BatchNorm()], name="tail"), Dense(3)]


def test_nested_branches_compute_what_their_drawing_says():
    model = Sequential(nested(), dtype="float64")
    weights = model.build().weights

    def dense(x, name):
        return x @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]
    x = X.astype(np.float64)
    a = dense(x, "outer/dense")
    b = dense(a, "sides/dense")
    sides = np.concatenate([b + np.tanh(dense(b, "inner/dense")), a, dense(a, "thin")], 1)
    y = np.maximum(dense(x, "short") + dense(sides, "outer/dense_1"), 0)
    y = dense(y, "tail/dense") / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(model.predict(x), dense(y, "dense"), rtol=1e-12, atol=1e-12)
    assert set(model.activations(x)) >= {"outer", "sides", "inner", "tail", "tail/batch_norm", "dense"}


def test_gradients_flow_through_all_branches_and_the_auxiliary_head():
    engine.seed(0)
    model = Sequential([layer for layer in nested() if layer.name != "tail"], dtype="float64")
    model.compile("sgd", "cross_entropy")
    found = model.gradients(X, Y)
    start = model.weights

    def loss(weights):
        model.set_weights(weights)
        main = model.evaluate(X, Y)
        seen = model.activations(X)["outer"]
        z = seen @ weights["aux/dense.kernel"] + weights["aux/dense.bias"]
        z = z - z.max(1, keepdims=True)
        head = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(10), Y])
        return main + 0.5 * head
    rng = np.random.default_rng(1)
    for name, array in start.items():
        index = tuple(rng.integers(s) for s in array.shape)
        values = []
        for step in (1e-6, -1e-6):
            moved = {k: v.copy() for k, v in start.items()}
            moved[name][index] += step
            values.append(loss(moved))
        assert found[name][index] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8), name


def test_an_auxiliary_head_trains_with_the_loss_and_is_left_out_of_inference():
    engine.seed(0)
    model = Sequential(nested())
    model.compile(engine.optimizers.Adam(0.02), "cross_entropy")
    before = model.build().weights
    history = model.fit(X, Y, epochs=80, batch_size=10, verbose=0)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    assert (model.weights["aux/dense.kernel"] != before["aux/dense.kernel"]).any()
    assert not any("aux" in node.label for node in engine.training.predict_graph(model.state, 10).nodes)
    wrong = Sequential([Input(4), Auxiliary([Dense(2)], name="side"), Dense(3)])
    wrong.compile("adam", "cross_entropy")
    with pytest.raises(ShapeError, match=r"side: expected a head that ends in the model's output shape \(10, 3\)"):
        wrong.fit(X, Y, verbose=0)


def test_saved_composites_come_back(tmp_path):
    model = Sequential(nested())
    model.layers[1].trainable = False
    model.build().save(tmp_path / "m.safetensors")
    again = engine.load(tmp_path / "m.safetensors")
    assert again.predict(X).tobytes() == model.predict(X).tobytes()
    assert again.config()["layers"] == model.config()["layers"] and not again.layers[1].trainable


CASES = {
    "sides of two shapes": (r"residual: expected x of shape for which both sides have one shape; its main layers give "
                            r"\(n, 5\), x is \(n, 4\), got \(n, 4\); shortcut=", lambda: [Residual([Dense(5)])]),
    "a shortcut of another shape": (r"main layers give \(n, 5\), its shortcut gives \(n, 6\)",
                                    lambda: [Residual([Dense(5)], [Dense(6)])]),
    "branches that do not agree": (r"all branches agree but for the channels; they give \(2, 3\), \(3, 2\)",
                                   lambda: [Concat([engine.Reshape((2, 3)), engine.Reshape((3, 2))])]),
    "one layer in two branches": ("the layer 'both' stands there twice", lambda: [Concat([SHARED, SHARED])]),
    "one name in two branches": ("two layers are named 'a'",
                                 lambda: [Concat([Dense(1, name="a"), Dense(1, name="a")])]),
    "a class inside": ("a class needs parentheses", lambda: [Block([Dense])]),
}
SHARED = Dense(2, name="both")


@pytest.mark.parametrize("case", CASES)
def test_mistakes_in_composites_have_their_sentence(case):
    text, layers = CASES[case]
    with pytest.raises(EngineError, match=text):
        Sequential(layers()).build(6 if "branches that" in case else 4)


# ------------------------------------------------------------------------------------------------------------- freezing


def trained(model, epochs=3):
    before = model.build().weights
    model.fit(X, Y, epochs=epochs, batch_size=5, verbose=0)
    return {name for name, array in model.weights.items() if array.tobytes() != before[name].tobytes()}


def test_layers_are_frozen_and_thawed_at_any_time():
    engine.seed(0)
    model = Sequential(nested())
    model.compile("adam", "cross_entropy")
    everything = trained(model)
    assert everything == set(model.weights)
    model.layers[1].trainable = False                    # all inside, three levels deep
    model.layers[3].trainable = False                    # with batch norm's running statistics
    moved = trained(model)
    assert moved == {"dense.kernel", "dense.bias", "aux/dense.kernel", "aux/dense.bias"}
    assert model.count_params(trainable=True) == 7 * 3 + 3 + 4 * 3 + 3
    model.layers[1].main[0].trainable = True             # inside a frozen one: stays frozen
    assert trained(model) == moved
    model.layers[1].trainable = True
    assert trained(model) == everything - {n for n in everything if n.startswith("tail")}


def test_freezing_keeps_the_optimizers_memory_of_the_others():
    """Frozen and thawed between two steps, the weights that stayed trained go on as if nothing had been."""
    def run(touch):
        engine.seed(1)
        model = Sequential([Dense(4, name="a"), Dense(3, name="b")])
        model.compile(engine.optimizers.SGD(0.1, momentum=0.9), "cross_entropy")
        model.train_step(X, Y)
        if touch:
            model.layers[0].trainable = False
            model.count_params()
            model.layers[0].trainable = True
        model.train_step(X, Y)
        return model
    plain, touched = run(False), run(True)
    assert plain.weights["b.kernel"].tobytes() == touched.weights["b.kernel"].tobytes()
    assert plain.step == touched.step == 2


def test_layers_bring_their_weights_into_the_next_model():
    engine.seed(0)
    base = Sequential([Input(4), Dense(8, activation="relu"), Block([Dense(6), ReLU()]), Dense(5)])
    base.build()
    kept = base.weights
    for layer in base.layers[:-1]:
        layer.trainable = False
    model = Sequential([*base.layers[:-1], Dense(3)])
    model.compile(engine.optimizers.Adam(0.05), "cross_entropy", ["accuracy"])
    start = model.evaluate(X, Y)[0]
    model.fit(X, Y, epochs=50, verbose=0)
    for name in ("dense.kernel", "dense.bias", "block/dense.kernel", "block/dense.bias"):
        assert model.weights[name].tobytes() == kept[name].tobytes()
    assert model.count_params(trainable=True) == 6 * 3 + 3 and model.evaluate(X, Y)[0] < 0.9 * start
    assert base.predict(X).shape == (10, 5), "the first model goes on"
    with pytest.raises(ShapeError, match=r"dense: it brings a kernel of shape \(4, 8\) from the model it was in"):
        Sequential([base.layers[1], Dense(2)]).build(5)


def test_the_summary_draws_branches_and_counts_what_is_frozen(capsys):
    layers = [Input((2, 2)), Flatten(), Residual([Dense(4), Concat([[Dense(2)], [Dense(2, trainable=False)]])]),
              BatchNorm(), Dropout(0.1), Perceptron(1)]
    Sequential(layers, name="drawn").summary()
    text = capsys.readouterr().out
    for line in ("drawn", "residual (Residual)", "├─ dense (Dense)", "└─ concat (Concat)", "   ├─ branch 1",
                 "   │  └─ dense (Dense)", "   └─ branch 2", "10 frozen",
                 "61 weights (244 B): 43 trained, 10 frozen, 8 running statistics"):
        assert line in text, text
    model = Sequential(layers[:3])
    assert model.state is None and model.count_params() == 40 and model.state is None, "counting needs no arrays"


# ------------------------------------------------------------------------------------------------------------ very deep


def test_building_is_linear_in_the_number_of_layers():
    import time
    seconds = []
    for blocks in (150, 600):
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            model = Sequential([Input(2), *(Residual([Dense(2), ReLU()]) for _ in range(blocks)), Dense(3)])
            model.compile("sgd", "cross_entropy")
            model.count_params()
            best = min(best, time.process_time() - started)
        seconds.append(best)
    assert seconds[1] < 10 * seconds[0], f"four times the layers took {seconds[1] / seconds[0]:.1f} times the time"


@pytest.mark.slow
def test_a_residual_network_of_1202_layers_trains():
    """The depth of He et al. 2015, with narrow layers: it is built, planned and trained in little time and memory."""
    engine.seed(0)
    model = engine.zoo.resnet_cifar(200, classes=3, input_shape=(8, 8, 3), widths=(2, 2, 2))
    kernels = sum(w.weight.name == "kernel" for w in model.build().network.weights)
    assert kernels == 1202
    model.compile(engine.optimizers.SGD(1e-4), "cross_entropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 8, 8, 3)), np.arange(6) % 3
    losses = [model.train_step(x, y) for _ in range(5)]
    assert np.isfinite(losses).all()
    assert model.plan.arena_bytes < 64 << 20
