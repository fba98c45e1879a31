"""Losses against torch, at their edges, and inside a graph."""
import numpy as np
import pytest

from engine import target as targets
from engine.errors import DtypeError, ShapeError
from engine.graph import Graph, gradients
from engine.kernels import TABLE
from engine.runtime import Plan

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

N, C = 37, 10
rng = np.random.default_rng(5)
Z, P = rng.standard_normal((N, C)) * 4, rng.dirichlet(np.ones(C), N)
Y, LABELS = rng.dirichlet(np.ones(C), N), rng.integers(0, C, N)
BITS, WEIGHTS = rng.integers(0, 2, (N, C)).astype(float), rng.random(N) * 2

# op, prediction, target, attributes, torch's losses of the samples
CASES = [
    ("mean_squared", Z, Y, {}, lambda z, t: F.mse_loss(z, t, reduction="none").mean(1)),
    ("mean_absolute", Z, Y, {}, lambda z, t: F.l1_loss(z, t, reduction="none").mean(1)),
    ("huber", Z, Y, {"delta": 0.7}, lambda z, t: F.huber_loss(z, t, reduction="none", delta=0.7).mean(1)),
    ("binary_cross_entropy", Z, BITS, {},
     lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none").mean(1)),
    ("hinge", Z, BITS, {}, lambda z, t: F.relu(1 - (2 * t - 1) * z).mean(1)),
    ("perceptron", Z, BITS, {}, lambda z, t: F.relu(-(2 * t - 1) * z).sum(1)),
    ("kullback_leibler", P, Y, {}, lambda p, t: F.kl_div(p.log(), t, reduction="none").sum(1)),
    ("cross_entropy", Z, LABELS, {}, lambda z, t: F.cross_entropy(z, t, reduction="none")),
    ("cross_entropy", Z, LABELS, {"label_smoothing": 0.2},
     lambda z, t: F.cross_entropy(z, t, reduction="none", label_smoothing=0.2)),
    ("cross_entropy_probabilities", Z, Y, {"label_smoothing": 0.1},
     lambda z, t: F.cross_entropy(z, t, reduction="none", label_smoothing=0.1)),
]


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op, p, t, attributes, each", CASES, ids=[f"{c[0]}{c[3] or ''}" for c in CASES])
def test_like_torch(op, p, t, attributes, each, dtype):
    t = t if t.dtype == np.int64 else t.astype(dtype)
    loss, slope = TABLE[op](p.astype(dtype), t, WEIGHTS.astype(dtype), **attributes)
    x = torch.tensor(p, requires_grad=True)
    want = (each(x, torch.tensor(t if t.dtype == np.int64 else t.astype(float))) * torch.tensor(WEIGHTS)).sum() / N
    want.backward()
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    assert loss.shape == () and loss.dtype == slope.dtype == np.dtype(dtype)
    np.testing.assert_allclose(loss, want.item(), rtol=tolerance * 3)
    np.testing.assert_allclose(slope, x.grad.numpy(), rtol=tolerance * 10, atol=tolerance / 10)


def cross_entropy(z, labels, weights=None):
    z = np.asarray(z, np.float32)
    weights = np.ones(len(z), np.float32) if weights is None else weights
    return TABLE["cross_entropy"](z, np.asarray(labels), weights)


def test_huge_logits_are_exact():
    loss, slope = cross_entropy([[1e30, 0, -1e30], [1e5, 1e5 + 1, 0]], [0, 1])
    np.testing.assert_allclose(loss, np.log1p(np.exp(-1)) / 2, rtol=1e-6)
    assert np.isfinite(slope).all() and (slope[0] == 0).all()
    loss, slope = TABLE["binary_cross_entropy"](np.array([[1e30], [-1e30]]), np.array([[1.0], [0.0]]), np.ones(2))
    assert loss == 0 and (slope == 0).all()


def test_an_excluded_class_may_be_minus_infinite():
    loss, slope = cross_entropy([[0.0, -np.inf, 0.0]], [2])
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(slope, [[0.5, 0, -0.5]], rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3, 2 ** 40, -2 ** 40])
def test_a_label_outside_the_classes_makes_the_loss_nan(label):
    for op in ("cross_entropy", "multiclass_perceptron"):
        loss, slope = TABLE[op](np.zeros((2, 3), np.float32), np.array([0, label]), np.ones(2, np.float32))
        assert np.isnan(loss) and np.isfinite(slope[0]).all()


def test_nan_is_not_hidden():
    for op in ("mean_squared", "mean_absolute", "huber", "binary_cross_entropy", "hinge", "perceptron",
               "kullback_leibler"):
        loss, _ = TABLE[op](np.array([[np.nan], [0.5]]), np.array([[1.0], [0.0]]), np.ones(2))
        assert np.isnan(loss), op
    for where in range(3):
        z = np.zeros((1, 3))
        z[0, where] = np.nan
        for op in ("cross_entropy", "multiclass_perceptron"):
            assert np.isnan(TABLE[op](z, np.array([1]), np.ones(1))[0]), op


def test_weights_of_zero_leave_samples_out():
    loss, slope = cross_entropy([[1.0, 2.0], [5.0, -5.0]], [0, 1], np.array([1, 0], np.float32))
    np.testing.assert_allclose(loss, np.log1p(np.exp(1.0)) / 2, rtol=1e-6)
    assert (slope[1] == 0).all()


def test_perceptron_moves_where_the_step_is_wrong():
    z, t = np.array([[0.0], [0.0], [2.0], [2.0], [-2.0], [-2.0]]), np.array([[1.0], [0.0], [1.0], [0.0], [1.0], [0.0]])
    loss, slope = TABLE["perceptron"](z, t, np.ones(6))
    assert loss == 4 / 6
    np.testing.assert_array_equal(slope * 6, [[0], [1], [0], [1], [-1], [0]])
    np.testing.assert_array_equal(slope, TABLE["perceptron"](z, 2 * t - 1, np.ones(6))[1])


def test_multiclass_perceptron_moves_two_classes():
    z = np.array([[0.0, 0, 0], [3, 1, 2], [1, 5, 2]])
    loss, slope = TABLE["multiclass_perceptron"](z, np.array([0, 2, 1]), np.ones(3))
    assert loss == 1 / 3
    np.testing.assert_array_equal(slope * 3, [[-1, 1, 0], [1, 0, -1], [0, 0, 0]])


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_the_stored_gradient_is_the_gradient(factor):
    """Where the loss is the end of the graph no node is spent on it; where it is part of a sum it is scaled."""
    g = Graph()
    z = g.feed("z", Z.shape, "float64")
    loss, slope = g.add("cross_entropy", z, g.constant(LABELS), g.constant(WEIGHTS))
    before = len(g.nodes)
    found, = gradients(g, {loss: g.constant(np.array(factor))}, [z])
    assert (len(g.nodes) == before and found is slope) if factor == 1 else len(g.nodes) == before + 1
    g.outputs["dz"] = found
    plan = Plan(g, targets.cpu)
    plan.run(z=Z)
    np.testing.assert_allclose(plan.fetch("dz"), factor * TABLE["cross_entropy"](Z, LABELS, WEIGHTS)[1], rtol=1e-14)


@pytest.mark.parametrize("op, given, error, words", [
    ("mean_squared", (np.zeros((3, 1)), np.zeros(3), np.ones(3)), ShapeError, r"y\[:, None\]"),
    ("mean_squared", (np.zeros((3, 1)), np.zeros((3, 1)), np.ones(2)), ShapeError, "one for each sample"),
    ("mean_squared", (np.zeros((3, 0)), np.zeros((3, 0)), np.ones(3)), ShapeError, "a prediction of shape"),
    ("cross_entropy", (np.zeros((3, 2)), np.zeros((3, 2), np.int64), np.ones(3)), ShapeError, "labels of shape"),
    ("cross_entropy", (np.zeros((3, 2)), np.zeros(3), np.ones(3)), DtypeError, "labels as int64"),
    ("cross_entropy", (np.zeros((3, 1)), np.zeros(3, np.int64), np.ones(3)), ShapeError, "binary_cross_entropy"),
    ("cross_entropy_probabilities", (np.zeros((3, 2)), np.zeros((3, 3)), np.ones(3)), ShapeError, "logits' shape"),
    ("cross_entropy", (np.zeros((3, 2), np.float32), np.zeros(3, np.int64), np.ones(3)), DtypeError, "one dtype"),
])
def test_refusals(op, given, error, words):
    with pytest.raises(error, match=words):
        TABLE[op](*given)
