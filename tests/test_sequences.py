"""Layers over sequences: recurrent ones and attention. Their ops are checked in test_ops.py, and against PyTorch in
test_sequences_torch.py."""
import numpy as np
import pytest
from numba import config

import engine
from engine import GRU, LSTM, Bidirectional, Dense, MultiHeadAttention, Sequential, SimpleRNN
from engine import target as targets
from engine.errors import ShapeError
from engine.graph import Graph, gradients
from engine.kernels import TABLE, entry
from engine.kernels.attention import cpu as attention_cpu
from engine.kernels.recurrent import cpu as recurrent_cpu
from engine.network import Names, Network
from engine.runtime import Plan

RNG = np.random.default_rng(11)


def outputs_and_gradients(layer, x, weights, dy, training=True):
    """y, dx and {weight: gradient} of one layer, of sum(dy y); weights by name, as arrays of x's dtype."""
    Names().add([layer])
    network, graph = Network([layer], x.shape[1:]), Graph()
    feed, counter = graph.feed("x", x.shape, x.dtype), graph.feed("counter", (2,), np.dtype("int64"))
    values = {w.name: graph.parameter(w.name, w.weight.shape, x.dtype) for w in network.weights}
    y, _, _ = network.add_to(graph, feed, values, training, counter)
    wrt = [feed, *values.values()]
    found = gradients(graph, {y: graph.constant(dy.astype(x.dtype))}, wrt)
    graph.outputs.update({"y": y, **{f"d{v.name}": d for v, d in zip(wrt, found)}})
    plan = Plan(graph, targets.cpu)
    plan.run(x=x, counter=np.array([3, 1]), **{f"{layer.name}.{k}": w for k, w in weights.items()})
    return plan.fetch("y"), plan.fetch("dx"), {k: plan.fetch(f"d{layer.name}.{k}") for k in weights}


@pytest.mark.parametrize("name", ["lstm", "lstm_grad", "gru_grad", "attention", "attention_grad"])
def test_the_same_bits_for_any_number_of_tasks(name, monkeypatch):
    entry.threads.get()                      # the runner's own number, before the plans are told others
    for module in (recurrent_cpu, attention_cpu):
        monkeypatch.setattr(module, "SERIAL_BELOW", 0)
    samples = [s for s in TABLE[name].samples(np.random.default_rng(2)) if sum(a.size for a in s[0]) > (
        100 if config.DISABLE_JIT else 1000)][:2]
    assert samples
    for inputs, attributes in samples:
        inputs, results = [np.asarray(a, "float32") for a in inputs], []
        for threads in (1, 2, 5):
            monkeypatch.setattr(entry.threads, "get", lambda threads=threads: threads)
            results.append(TABLE[name](*inputs, **attributes))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_dropping_next_to_no_weights_changes_nothing():
    """The path that keeps the scores, against the one that makes them block by block."""
    x, dy = RNG.standard_normal((2, 7, 6)), RNG.standard_normal((2, 7, 6))
    results = []
    for dropout in (0.0, 1e-12):
        layer = MultiHeadAttention(3, causal=True, dropout=dropout, name="attention")
        weights = {w.name: np.random.default_rng(k).standard_normal(w.shape) for k, w in
                   enumerate(layer.weights((7, 6)))}
        results.append(outputs_and_gradients(layer, x, weights, dy))
    (y, dx, by_weights), (y2, dx2, by_weights2) = results
    for a, b in ((y, y2), (dx, dx2), *((by_weights[k], by_weights2[k]) for k in by_weights)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_dropout_drops_weights_in_training_only():
    layer = MultiHeadAttention(2, dropout=0.5, name="attention")
    x = RNG.standard_normal((2, 7, 6))
    weights = {w.name: RNG.standard_normal(w.shape) for w in layer.weights((7, 6))}
    still, _, _ = outputs_and_gradients(layer, x, weights, x, training=False)
    plain, _, _ = outputs_and_gradients(MultiHeadAttention(2, name="plain"), x, weights, x)
    moved, _, _ = outputs_and_gradients(layer, x, weights, x)
    np.testing.assert_allclose(still, plain, rtol=1e-12)
    assert np.abs(moved - still).max() > 0.1


def test_models_of_sequences_learn_and_are_saved(tmp_path):
    """Which of two signals comes first: no step alone says it."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((120, 6, 2)).astype(np.float32) * 0.1, rng.integers(0, 2, 120)
    first, second = rng.integers(0, 3, 120), rng.integers(3, 6, 120)
    x[np.arange(120), first, y] += 1
    x[np.arange(120), second, 1 - y] += 1
    engine.seed(1)
    model = Sequential([Bidirectional(LSTM(8, return_sequences=True)), MultiHeadAttention(2),
                        GRU(8, return_sequences=True), SimpleRNN(8, activation="tanh", reverse=True), Dense(2)])
    model.compile(engine.optimizers.Adam(0.02), "cross_entropy", metrics=["accuracy"])
    loss = model.fit(x, y, epochs=30, batch_size=40, verbose=0).history["loss"]
    assert loss[-1] < 0.5 * loss[0], loss
    model.save(tmp_path / "model.safetensors")
    again = engine.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


REFUSED = {
    "sequences": (ShapeError, r"lstm: expected x of shape \(n, steps, features\), got \(n, 5\); Reshape",
                  lambda: Sequential([LSTM(3)]).build(5)),
    "no steps": (ShapeError, r"gru: .*got \(n, 0, 5\); a sequence needs a step", lambda: Sequential([GRU(3)]).build(
        (0, 5))),
    "units": (ValueError, "SimpleRNN: expected units to be a whole number of at least 1, got 0", lambda: SimpleRNN(0)),
    "slopes by x": (ValueError, "SimpleRNN: expected an activation whose derivative is a function of its value",
                    lambda: SimpleRNN(3, activation="gelu")),
    "a layer to read both ways": (ValueError, "Bidirectional: expected a recurrent layer that reads forwards",
                                  lambda: Bidirectional(Dense(3))),
    "two layers that read forwards": (ValueError, "Bidirectional: expected as backward a recurrent layer with",
                                      lambda: Bidirectional(GRU(3), GRU(3))),
    "heads": (ValueError, "MultiHeadAttention: expected heads to be a whole number of at least 1, got 0",
              lambda: MultiHeadAttention(0)),
    "heads that do not divide": (ShapeError, r"multi_head_attention: .*\(n, length, a multiple of the 3 heads\).*got "
                                 r"\(n, 4, 8\); key_dim", lambda: Sequential([MultiHeadAttention(3)]).build((4, 8))),
    "one sequence": (ShapeError, r"lstm: expected z of shape \(n, t, 8\)", lambda: TABLE["lstm"](
        np.zeros((4, 8)), np.zeros((2, 8)))),
    "recurrent weights": (ShapeError, r"gru: expected u of shape \(h, 3 h\), got \(2, 5\)", lambda: TABLE["gru"](
        np.zeros((1, 4, 6)), np.zeros((2, 5)), np.zeros(2))),
    "keys of another width": (ShapeError, "attention: expected k of shape .*k and q need the same d", lambda: TABLE[
        "attention"](np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), np.zeros((2, 3, 5)), 0.0)),
    "a mask that does not fit": (ShapeError, "attention: expected a mask that broadcasts", lambda: TABLE["attention"](
        np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), np.zeros((2, 3)))),
    "stacks of two lengths": (ShapeError, "batched_matmul: expected as many matrices on the right as on the left, 2",
                              lambda: TABLE["batched_matmul"](np.zeros((2, 3, 4)), np.zeros((3, 4, 3)))),
    "matrices": (ShapeError, "batched_matmul: expected two stacks of matrices", lambda: TABLE["batched_matmul"](
        np.zeros((3, 4)), np.zeros((4, 3)))),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    kind, text, call = REFUSED[case]
    with pytest.raises(kind, match=text):
        call()
