"""Losses, forward and backward in one pass: each op gives the mean loss () and its gradient by the prediction.

    loss = sum over samples of w[i] * l[i] / n          (n the batch's size, w the samples' weights)

| op | l[i] | mean or sum over outputs |
|---|---|---|
| mean_squared | (p - y)^2 | mean |
| mean_absolute | absolute p - y | mean |
| huber(delta) | d^2 / 2 up to delta, then delta (d - delta / 2), d = absolute p - y (Huber 1964) | mean |
| binary_cross_entropy | softplus(z) - z y, z a logit | mean |
| hinge | max(0, 1 - y p), y -1 or 1 | mean |
| perceptron | max(0, -y z), y -1 or 1 (Rosenblatt 1958) | mean |
| kullback_leibler | y log(y / p), p clipped at the smallest normal number | sum |
| cross_entropy | -log softmax(z)[label], int64 labels; label_smoothing s mixes in s / c of every class | - |
| cross_entropy_probabilities | -sum y log softmax(z), y rows of probabilities | sum |

Shapes: prediction p or logits z (n, ...) seen as (n, c), y of the same shape or labels (n,), w (n,). A label outside
range(c) makes the loss NaN. Softmax is shifted by the row's largest logit: huge logits do not overflow.
"""
import math

import numpy as np

from engine.kernels.formula import Formula
from engine.kernels.loss import cpu, cuda
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats, integers, share, spec

# ------------------------------------------------------------------------------------------------------------ formulas

TINY = {np.dtype("float32"): 1.1754944e-38, np.dtype("float64"): 2.2250738585072014e-308}


def squared_at(p, y, q):
    return (p - y) * (p - y)


def squared_slope(p, y, q):
    return 2 * (p - y)


def absolute_at(p, y, q):
    return abs(p - y)


def absolute_slope(p, y, q):
    return 1 if p > y else -1 if p < y else p - y        # 0, or NaN for NaN


def huber_at(p, y, q):
    d = abs(p - y)
    return 0.5 * d * d if d <= q else q * (d - 0.5 * q)


def huber_slope(p, y, q):
    d = p - y
    return q if d > q else -q if d < -q else d


def binary_at(z, y, q):
    return (0 if z < 0 else z) - z * y + math.log1p(math.exp(-abs(z)))


def binary_slope(z, y, q):
    e = math.exp(-abs(z))
    return (1 if z >= 0 else e) / (1 + e) - y


def hinge_at(p, y, q):
    m = 1 - y * p
    return 0 if m < 0 else m


def hinge_slope(p, y, q):
    return -y if y * p < 1 else 0


def perceptron_at(z, y, q):
    return -y * z if (1 if z >= 0 else -1) != y else 0   # step(0) is 1: the same sides as the unit's answer


def perceptron_slope(z, y, q):
    return -y if (1 if z >= 0 else -1) != y else 0       # at 0 too: weights that start at zero have to move


def kullback_at(p, y, q):
    return y * (math.log(y) - math.log(p if p > q else q)) if y > 0 else 0


def kullback_slope(p, y, q):
    return -y / p if p > q else 0


# ----------------------------------------------------------------------------------------------------- NumPy reference


def weighted(losses, gradients, w):
    """(mean loss, gradient) from each sample's loss (n,) and gradient (n, ...)."""
    n = max(1, len(w))
    shaped = w.reshape((-1,) + (1,) * (gradients.ndim - 1))
    return np.float64((losses * w).sum() / n), gradients * shaped / n


def pointwise_reference(value, slope, mean):
    """The reference of a loss from NumPy forms of l and its derivative."""
    def reference(p, y, w, **attributes):
        count = p[0].size if mean and len(p) else 1
        losses = value(p, y, **attributes).sum(tuple(range(1, p.ndim))) / max(1, count)
        return weighted(losses, slope(p, y, **attributes) / max(1, count), w)
    return reference


def _log_softmax(z):
    return z - np.logaddexp.reduce(z, axis=1, keepdims=True)


def cross_entropy_reference(z, labels, w, label_smoothing):
    n, c = z.shape
    inside = (labels >= 0) & (labels < c)
    target = np.full((n, c), label_smoothing / max(1, c))
    target[np.arange(n)[inside], labels[inside]] += 1 - label_smoothing
    logs = _log_softmax(z)
    losses = np.where(inside, -(target * logs).sum(1), np.nan)
    return weighted(losses, np.exp(logs) - target, w)


def cross_entropy_probabilities_reference(z, y, w, label_smoothing):
    y = (1 - label_smoothing) * y + label_smoothing / max(1, z.shape[1]) * y.sum(1, keepdims=True)
    logs = _log_softmax(z)
    return weighted(-(y * logs).sum(1), np.exp(logs) * y.sum(1, keepdims=True) - y, w)


# ------------------------------------------------------------------------------------------------------------- records


def _checked(p, w):
    demand(p.ndim >= 1 and w.shape == p.shape[:1], f"weights of shape {p.shape[:1]}, one for each sample", w.shape)
    return Spec((), p.dtype), spec(p)


def pointwise_shapes(p, y, w, **attributes):
    floats(p, y, w)
    demand(p.shape == y.shape, f"y of the prediction's shape, {p.shape}", y.shape)
    return _checked(p, w)


def labels_shapes(z, labels, w, label_smoothing):
    floats(z, w)
    integers(labels, "labels")
    demand(z.ndim == 2 and z.shape[1] > 0, "logits of shape (n, classes)", z.shape)
    demand(labels.shape == z.shape[:1], f"labels of shape {z.shape[:1]}", labels.shape)
    return _checked(z, w)


def probabilities_shapes(z, y, w, label_smoothing):
    demand(z.ndim == 2 and z.shape[1] > 0, "logits of shape (n, classes)", z.shape)
    return pointwise_shapes(z, y, w)


def _two(s):
    return (s.shape[0], math.prod(s.shape[1:]))


def _losses(inputs):
    return (Spec((inputs[0].shape[0],), np.dtype("float64")),)


def arrange_pointwise(f, slope, mean):
    def arrange(inputs, outputs, attributes, threads):
        n, c = _two(inputs[0])
        q = next(iter(attributes.values()), TINY[np.dtype(inputs[0].dtype)])
        scale = 1.0 / max(1, c) if mean else 1.0
        work = _losses(inputs)
        return Arrangement(((n, c), (n, c), (n,)), ((1,), (n, c)), (f, slope, float(q), scale), work,
                           tasks=share(8 * n * c, threads), gpu_work=work)
    return arrange


def arrange_entropy(inputs, outputs, attributes, threads):
    n, c = inputs[0].shape
    work = _losses(inputs)
    return Arrangement(((n, c), inputs[1].shape, (n,)), ((1,), (n, c)), (float(attributes["label_smoothing"]),), work,
                       tasks=share(16 * n * c, threads), gpu_work=work)


def loss_grad(graph, node, dloss, _):
    """The gradient that the forward pass kept, times what flows in (when that is not just 1)."""
    kept = node.outputs[1]
    whole = dloss.kind == "constant" and dloss.data.size == 1 and dloss.data == 1
    return (kept if whole else graph.add("mul", kept, dloss), *(None for _ in node.inputs[1:]))


def loss_cost(inputs, outputs, attributes):
    return Cost(8 * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def _terms(p, *rest, **attributes):
    return p.size


def _targets(kind, rng, shape):
    if kind == "signs":
        return np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    if kind == "shares":
        y = rng.random(shape) + 0.05
        return y / y.sum(axis=-1, keepdims=True)
    return rng.random(shape) if kind == "unit" else rng.standard_normal(shape)


def _samples(kind, positive=False):
    def samples(rng):
        for shape in ((0, 3), (1, 1), (7, 5), (4, 2, 3), (67, 10)):
            p = rng.standard_normal(shape) * 2
            p = _targets("shares", rng, shape) if positive else p
            yield (p, _targets(kind, rng, shape), rng.random(shape[0]) + 0.5), {}
    return samples


def _label_samples(rng):
    for (n, c), s in (((0, 3), 0.0), ((1, 1), 0.0), ((7, 5), 0.0), ((7, 5), 0.1), ((67, 10), 0.0)):
        yield (rng.standard_normal((n, c)) * 3, rng.integers(0, c, n), rng.random(n) + 0.5), {"label_smoothing": s}
    yield (np.array([[1e4, -1e4, 0.0], [-1e30, 0.0, 1e3]]), np.array([0, 2]), np.ones(2)), {"label_smoothing": 0.0}
    yield (np.array([[1.0, 2.0]]), np.array([2]), np.ones(1)), {"label_smoothing": 0.0}


def _probability_samples(rng):
    for (n, c), s in (((0, 3), 0.0), ((7, 5), 0.0), ((7, 5), 0.2), ((67, 10), 0.0)):
        inputs = rng.standard_normal((n, c)) * 3, _targets("shares", rng, (n, c)), rng.random(n) + 0.5
        yield inputs, {"label_smoothing": s}


def pointwise(name, value, slope, reference_value, reference_slope, kind="", mean=True, positive=False, **attributes):
    """The record of a loss from scalar formulas l(p, y, q) and its derivative by p; q is the op's one attribute."""
    f, df = Formula(value, name), Formula(slope, f"{name}_slope")
    return Op(name, pointwise_reference(reference_value, reference_slope, mean), pointwise_shapes,
              (cpu.pointwise, cpu.add_losses), cuda.pointwise, _samples(kind, positive), arrange_pointwise(f, df, mean),
              loss_grad, _terms, loss_cost, attributes, byproducts=frozenset({1}))


def _entropy(name, reference, shapes, kernel, launcher, samples):
    return Op(name, reference, shapes, (kernel, cpu.add_cross_entropy), launcher, samples, arrange_entropy, loss_grad,
              _terms, loss_cost, {"label_smoothing": 0.0}, byproducts=frozenset({1}))


def _huber(p, y, delta):
    d = np.abs(p - y)
    return np.where(d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta))


OPS = (
    pointwise("mean_squared", squared_at, squared_slope, lambda p, y: (p - y) ** 2, lambda p, y: 2 * (p - y)),
    pointwise("mean_absolute", absolute_at, absolute_slope, lambda p, y: np.abs(p - y), lambda p, y: np.sign(p - y)),
    pointwise("huber", huber_at, huber_slope, _huber, lambda p, y, delta: np.clip(p - y, -delta, delta), delta=1.0),
    pointwise("binary_cross_entropy", binary_at, binary_slope, lambda z, y: np.logaddexp(0, z) - z * y,
              lambda z, y: np.exp(-np.logaddexp(0, -z)) - y, "unit"),
    pointwise("hinge", hinge_at, hinge_slope, lambda p, y: np.maximum(0, 1 - y * p),
              lambda p, y: np.where(y * p < 1, -y, 0.0), "signs"),
    pointwise("perceptron", perceptron_at, perceptron_slope, lambda z, y: np.maximum(0, -y * z),
              lambda z, y: np.where(np.where(z >= 0, 1, -1) != y, -y, 0.0), "signs"),
    pointwise("kullback_leibler", kullback_at, kullback_slope, lambda p, y: y * np.log(y / p), lambda p, y: -y / p,
              "shares", False, True),
    _entropy("cross_entropy", cross_entropy_reference, labels_shapes, cpu.cross_entropy, cuda.cross_entropy,
             _label_samples),
    _entropy("cross_entropy_probabilities", cross_entropy_probabilities_reference, probabilities_shapes,
             cpu.probabilities, cuda.probabilities, _probability_samples),
)
