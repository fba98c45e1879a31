"""Losses: the mean loss of a batch and, in the same pass, its gradient with respect to the prediction.

Every loss takes (prediction, target, weights): weights (n,) holds one number for each sample. Outputs are the loss, a
scalar, and dpred = d loss / d prediction, of the prediction's shape, which the backward pass uses as it is.

    loss = 1/n sum_i weight_i l_i            n samples, also where weights are 0 or 2 (as Keras divides)

| op | l of one sample; p prediction, t target, z logits, c values of a sample | source |
|---|---|---|
| mean_squared | mean (p - t)^2 | Gauss 1809 |
| mean_absolute | mean abs(p - t) | Laplace 1774 |
| huber | mean of d^2 / 2 up to abs(d) = delta, delta (abs(d) - delta / 2) beyond | Huber 1964 |
| binary_cross_entropy | mean of log(1 + exp(z)) - t z, t from 0 to 1 | |
| hinge | mean of max(0, margin - y z), y = 1 where t > 0, else -1: labels 0, 1 or -1, 1 | Cortes, Vapnik 1995 |
| perceptron | sum of max(0, -y z), y as above | Rosenblatt 1958 |
| kullback_leibler | sum t log(t / max(p, epsilon)), p and t probabilities; 0 where t is 0 | Kullback, Leibler 1951 |
| cross_entropy | log sum exp z - z[label], labels int64 (n,) | |
| cross_entropy_probabilities | sum_j t_j (log sum exp z - z_j), rows t of probabilities | |
| multiclass_perceptron | max(0, largest other z - z[label]), labels int64 (n,) | |

label_smoothing s mixes targets with the uniform distribution, (1 - s) t + s / c (Szegedy et al. 2016). A label outside
0 .. c - 1 makes the loss NaN and reads no memory that is not its own. Perceptrons move where the step function is
wrong, y = 1 and z < 0 or y = -1 and z >= 0: at z = 0 the loss is 0 but its slope is not, so zero weights can learn.
"""
import math

import numpy as np

from engine.kernels.formula import Formula
from engine.kernels.loss import cpu, cuda
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats, integers, share, spec
from engine.kernels.split import chunks

BLOCK = 2048                                 # values of a block of rows
FLOAT64 = np.dtype("float64")

# ------------------------------------------------------------------------------------------------------------ formulas
# value(p, t, k) and slope(p, t, k), k the loss's own number (0 where it has none). Comparisons let NaN through.


def huber_at(p, t, delta):
    d = abs(p - t)
    return 0.5 * d * d if d <= delta else delta * (d - 0.5 * delta)


def huber_slope(p, t, delta):
    return delta if p - t > delta else -delta if p - t < -delta else p - t


def binary_at(z, t, _):
    return (0 if z < 0 else z) - z * t + math.log1p(math.exp(-abs(z)))


def binary_slope(z, t, _):
    e = math.exp(-abs(z))
    return (1 if z >= 0 else e) / (1 + e) - t


def hinge_at(z, t, margin):
    below = margin - (z if t > 0 else -z)
    return 0 if below < 0 else below


def hinge_slope(z, t, margin):
    return 0 if margin - (z if t > 0 else -z) <= 0 else -1 if t > 0 else 1


def perceptron_slope(z, t, _):
    return (-1 if z < 0 else 0) if t > 0 else 1 if z >= 0 else 0


def kullback_at(p, t, epsilon):
    return 0 if t <= 0 else t * math.log(t / (epsilon if p < epsilon else p))


def kullback_slope(p, t, epsilon):
    return 0 if p < epsilon else -t / p


# ----------------------------------------------------------------------------------------------------- NumPy reference


def signs(t):
    return np.where(t > 0, 1.0, -1.0)


def _huber(p, t, delta):
    d = p - t
    return np.where(np.abs(d) <= delta, d ** 2 / 2, delta * (np.abs(d) - delta / 2)), np.clip(d, -delta, delta)


def _kullback(p, t, epsilon):
    above = np.maximum(p, epsilon)
    return np.where(t > 0, t * np.log(np.where(t > 0, t, 1) / above), 0), np.where(p < epsilon, 0, -t / above)


POINTWISE = {                                # name -> (losses, slopes) of values
    "mean_squared": lambda p, t: ((p - t) ** 2, 2 * (p - t)),
    "mean_absolute": lambda p, t: (np.abs(p - t), np.sign(p - t)),
    "huber": _huber,
    "binary_cross_entropy": lambda z, t: (np.logaddexp(0, z) - t * z, np.exp(-np.logaddexp(0, -z)) - t),
    "hinge": lambda z, t, margin: (np.maximum(0, margin - signs(t) * z),
                                   np.where(signs(t) * z < margin, -signs(t), 0)),
    "perceptron": lambda z, t: (np.maximum(0, -signs(t) * z), np.where((z >= 0) == (t > 0), 0, -signs(t))),
    "kullback_leibler": _kullback,
}


def _pointwise_reference(name, mean):
    def reference(p, t, weights, *number, **named):
        values, slopes = POINTWISE[name](p, t, *number, *named.values())
        part = 1 / (math.prod(p.shape[1:]) if mean else 1) / max(1, len(p))
        w = weights.reshape((-1,) + (1,) * (p.ndim - 1))
        return np.asarray(np.sum(w * values) * part), w * slopes * part
    return reference


def _softmax_reference(z, t, weights):
    """From rows of targets whose sum need not be 1."""
    below = z - z.max(1, keepdims=True)
    log_p = below - np.log(np.exp(below).sum(1, keepdims=True))
    values = -np.where(t == 0, 0, t * log_p).sum(1)
    slopes = np.exp(log_p) * t.sum(1, keepdims=True) - t
    return np.asarray((weights * values).sum() / max(1, len(z))), weights[:, None] * slopes / max(1, len(z))


def cross_entropy_reference(z, labels, weights, label_smoothing):
    n, c = z.shape
    outside = (labels < 0) | (labels >= c)
    t = np.full((n, c), label_smoothing / c)
    t[np.arange(n), np.where(outside, 0, labels)] += 1 - label_smoothing
    return _softmax_reference(np.where(outside[:, None], np.nan, z), t, weights)


def cross_entropy_probabilities_reference(z, t, weights, label_smoothing):
    return _softmax_reference(z, (1 - label_smoothing) * t + label_smoothing / z.shape[1], weights)


def multiclass_perceptron_reference(z, labels, weights):
    n, c = z.shape
    each, d = np.zeros(n), np.zeros((n, c))
    for i, label in enumerate(labels):
        if not 0 <= label < c or np.isnan(z[i]).any():
            each[i] = np.nan
            continue
        rival = int(np.argmax(np.where(np.arange(c) == label, -np.inf, z[i])))
        if z[i, rival] >= z[i, label]:
            each[i] = z[i, rival] - z[i, label]
            d[i, rival], d[i, label] = weights[i] / n, -weights[i] / n
    return np.asarray((weights * each).sum() / max(1, n)), d


# ------------------------------------------------------------------------------------------------------------ records


def _weighted(prediction, weights):
    demand(prediction.ndim >= 1 and 0 not in prediction.shape[1:], "a prediction of shape (n, ...)", prediction.shape)
    demand(weights.shape == prediction.shape[:1], f"weights of shape {prediction.shape[:1]}, one for each sample",
           weights.shape)


def pointwise_shapes(prediction, target, weights, **numbers):
    floats(prediction, target, weights)
    demand(prediction.shape == target.shape, f"a target of the prediction's shape, {prediction.shape}", target.shape,
           "targets (n,) for a prediction (n, 1) need a last axis: y[:, None]")
    _weighted(prediction, weights)
    for name, value in numbers.items():
        demand(value >= 0, f"{name} of at least 0", value)
    return Spec((), prediction.dtype), spec(prediction)


def _rows_of_classes(logits, smoothing=0.0):
    demand(logits.ndim == 2, "logits of shape (n, c)", logits.shape)
    demand(logits.shape[1] >= 2, "logits of at least 2 classes", logits.shape,
           "one output for two classes is trained with binary_cross_entropy, hinge or perceptron")
    demand(0 <= smoothing <= 1, "a label_smoothing from 0 to 1", smoothing)


def labelled_shapes(logits, labels, weights, label_smoothing=0.0):
    floats(logits, weights)
    integers(labels, "labels")
    _rows_of_classes(logits, label_smoothing)
    demand(labels.shape == logits.shape[:1], f"labels of shape {logits.shape[:1]}, one for each row of logits",
           labels.shape, "rows of probabilities go to cross_entropy_probabilities")
    _weighted(logits, weights)
    return Spec((), logits.dtype), spec(logits)


def probabilities_shapes(logits, targets, weights, label_smoothing):
    floats(logits, targets, weights)
    _rows_of_classes(logits, label_smoothing)
    demand(targets.shape == logits.shape, f"targets of the logits' shape, {logits.shape}", targets.shape)
    _weighted(logits, weights)
    return Spec((), logits.dtype), spec(logits)


def rows_of_block(prediction):
    return max(1, BLOCK // math.prod(prediction.shape[1:]))


def arrange_classes(inputs, outputs, attributes, threads):
    """Of the CPU's scratch, `tops` holds one number for each row of a block, for each task."""
    z, target, weights = (s.shape for s in inputs)
    rows, tasks = rows_of_block(inputs[0]), share(16 * inputs[0].size, threads)
    work = Spec((chunks(z[0], rows),), FLOAT64), Spec((tasks, rows), inputs[0].dtype)
    return Arrangement((z, target, weights), ((1,), z), tuple(attributes.values()), work, (rows,), tasks,
                       (Spec((z[0],), FLOAT64),))


def loss_grad(graph, node, dloss, _):
    """What the forward pass left; a pass over it only where the loss is not the end (its gradient is not 1)."""
    if dloss is None:
        return None, None, None
    if dloss.kind == "constant" and (dloss.data == 1).all():
        return node.outputs[1], None, None
    return graph.add("mul", node.outputs[1], dloss), None, None


def loss_cost(inputs, outputs, attributes):
    return Cost(10 * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def loss_terms(prediction, *others, **attributes):
    return prediction.size


def _loss(name, reference, shapes, kernels, launcher, samples, arrange, attributes):
    return Op(name, reference, shapes, kernels, launcher, samples, arrange, loss_grad, loss_terms, loss_cost,
              attributes, byproducts=frozenset({1}))


def _pointwise_samples(kind):
    def samples(rng):
        for shape in ((0, 3), (1, 1), (7, 1), (5,), (3, 5), (2, 3, 7), (130, 17), (2, 2049), (2500, 1)):
            p, t, weights = rng.standard_normal(shape) * 2, rng.standard_normal(shape), rng.random(shape[0]) * 2
            if kind == "labels":
                t = np.where(t > 0, 1.0, rng.integers(-1, 1, shape))         # 1 against 0 or -1
            elif kind == "probabilities":
                p, t = rng.random(shape) * 0.9 + 0.05, rng.random(shape) * (rng.random(shape) < 0.8)
            yield (p, t, weights), {}
        if kind != "probabilities":
            yield (np.array([[-1e4, 1e4], [1e4, -1e4]]), np.array([[0.0, 1.0], [0.0, 1.0]]), np.ones(2)), {}
    return samples


def _labelled_samples(**attributes):
    def samples(rng):
        for n, c in ((0, 3), (1, 2), (3, 5), (13, 10), (2, 2049), (9, 300)):
            yield (rng.standard_normal((n, c)) * 3, rng.integers(0, c, n), rng.random(n) * 2), attributes
        huge = np.array([[1e4, -1e4, 0.0], [3e4, 3e4 + 2, -3e4]])
        yield (huge, np.array([1, 0]), np.ones(2)), attributes
        yield (rng.standard_normal((4, 3)) + 60, np.array([0, 3, -1, 2 ** 40]), np.ones(4)), attributes
    return samples


def _probability_samples(rng):
    for n, c, smoothing in ((0, 3, 0.0), (1, 2, 0.0), (3, 5, 0.1), (13, 10, 0.0), (2, 2049, 0.2), (9, 300, 0.1)):
        t = rng.random((n, c)) * (rng.random((n, c)) < 0.7)
        yield (rng.standard_normal((n, c)) * 3, t, rng.random(n) * 2), {"label_smoothing": smoothing}
    yield (np.array([[1e4, -1e4, 0.0]]), np.array([[0.0, 0.25, 0.75]]), np.ones(1)), {}


def pointwise(name, value, slope, mean=True, kind="numbers", **number):
    """The record of a loss of single values. mean: over a sample's values, else their sum; `number`: its attribute."""
    value, slope = Formula(value, name), Formula(slope, f"{name}_slope")

    def arrange(inputs, outputs, attributes, threads):
        p = inputs[0]
        n, rows, tasks = p.shape[0], rows_of_block(p), share(8 * p.size, threads)
        values = math.prod(p.shape[1:])
        part = 1 / values if mean else 1.0
        parameter = float(next(iter(attributes.values()), 0))
        work = Spec((chunks(n, rows),), FLOAT64), Spec((tasks, rows * values), p.dtype)
        return Arrangement(((p.size,), (p.size,), (n,)), ((1,), (p.size,)), (value, slope, parameter, part), work,
                           (rows,), tasks, (Spec((chunks(p.size),), FLOAT64),))

    return _loss(name, _pointwise_reference(name, mean), pointwise_shapes, (cpu.pointwise, cpu.mean_of_values),
                 cuda.pointwise, _pointwise_samples(kind), arrange, number)


OPS = (
    pointwise("mean_squared", lambda p, t, _: (p - t) * (p - t), lambda p, t, _: 2 * (p - t)),
    pointwise("mean_absolute", lambda p, t, _: abs(p - t), lambda p, t, _: 1 if p > t else -1 if p < t else p - t),
    pointwise("huber", huber_at, huber_slope, delta=1.0),
    pointwise("binary_cross_entropy", binary_at, binary_slope, kind="labels"),
    pointwise("hinge", hinge_at, hinge_slope, kind="labels", margin=1.0),
    pointwise("perceptron", hinge_at, perceptron_slope, mean=False, kind="labels"),
    pointwise("kullback_leibler", kullback_at, kullback_slope, mean=False, kind="probabilities", epsilon=1e-7),
    _loss("cross_entropy", cross_entropy_reference, labelled_shapes, (cpu.cross_entropy, cpu.mean_of_blocks),
          cuda.cross_entropy, _labelled_samples(label_smoothing=0.1), arrange_classes, {"label_smoothing": 0.0}),
    _loss("cross_entropy_probabilities", cross_entropy_probabilities_reference, probabilities_shapes,
          (cpu.cross_entropy_probabilities, cpu.mean_of_blocks), cuda.cross_entropy_probabilities,
          _probability_samples, arrange_classes, {"label_smoothing": 0.0}),
    _loss("multiclass_perceptron", multiclass_perceptron_reference, labelled_shapes,
          (cpu.multiclass_perceptron, cpu.mean_of_rows), cuda.multiclass_perceptron, _labelled_samples(),
          arrange_classes, {}),
)
