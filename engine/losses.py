"""Losses: what training makes small. Each adds one op of `engine.kernels.loss` and says what its labels look like.

A loss is the sum over the batch of weight times sample loss, divided by the batch's size. Losses `from logits` look
through a final softmax or sigmoid: `Dense(10, activation="softmax")` trains as well and as stably as `Dense(10)`.
"""
import numpy as np

from engine.errors import DataError, ShapeError
from engine.registry import Configured, Registry

LOSSES = Registry("loss")


class Loss(Configured):
    """Subclasses give `labels` (host: check and convert y) and `nodes` (graph: the mean loss as a scalar value).

    through: the final ops that the loss looks through to the logits
    """
    through = ()

    def labels(self, y, output_shape, dtype):
        """y as the op wants it: here values of the prediction's shape. Refuses what does not fit."""
        y = np.asarray(y)
        if y.ndim == len(output_shape) and output_shape and output_shape[-1] == 1:
            y = y[..., None]
        if tuple(y.shape[1:]) != tuple(output_shape):
            raise ShapeError(f"{self._name}: expected y of shape (n, {', '.join(map(str, output_shape))}), the model's "
                             f"output, got {y.shape}")
        if y.dtype.kind not in "fiub":
            raise DataError(f"{self._name}: expected numbers in y, got {y.dtype}")
        y = np.ascontiguousarray(y, dtype)
        if not np.isfinite(y).all():
            raise DataError(f"{self._name}: y has NaN or infinite values, first at sample "
                            f"{int(np.argwhere(~np.isfinite(y.reshape(len(y), -1)).all(1))[0, 0])}")
        return y

    def rows(self, graph, y, output_shape, dtype):
        """Labels as rows of numbers of which a mixture is a label as well (for MixUp)."""
        return y

    def nodes(self, graph, prediction, y, weights):
        raise NotImplementedError(f"{type(self).__name__}: a loss needs a method nodes(...)")

    def logits(self, graph, prediction):
        """The prediction, or what went into its final softmax, sigmoid or step."""
        node = graph.producer().get(prediction)
        return node.inputs[0] if node is not None and node.op.name in self.through else prediction

    @property
    def _name(self):
        return f"loss {type(self).__name__}"


class _Simple(Loss):
    """A loss that is one op with the prediction, y and the sample weights."""
    op = None

    def attributes(self):
        return {k: v for k, v in self.config().items() if k != "class"}

    def nodes(self, graph, prediction, y, weights):
        return graph.add(self.op, self.logits(graph, prediction), y, weights, **self.attributes())[0]


@LOSSES.aliases("mse", "mean_squared_error")
class MeanSquared(_Simple):
    """Mean of (prediction - y)^2."""
    op = "mean_squared"


@LOSSES.aliases("mae", "mean_absolute_error")
class MeanAbsolute(_Simple):
    """Mean of |prediction - y|."""
    op = "mean_absolute"


@LOSSES.aliases()
class Huber(_Simple):
    """Quadratic up to `delta`, linear beyond (Huber 1964)."""
    op = "huber"

    def __init__(self, delta=1.0):
        self.delta = float(delta)


@LOSSES.aliases("sparse_categorical_crossentropy", "categorical_crossentropy", "crossentropy")
class CrossEntropy(Loss):
    """-log softmax(logits)[label], from integer labels (n,) or probability rows (n, c); label_smoothing mixes in the
    uniform distribution (Szegedy et al. 2015)."""
    through = ("softmax",)

    def __init__(self, label_smoothing=0.0):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"CrossEntropy: expected label_smoothing from 0 to 1, got {label_smoothing}")
        self.label_smoothing = float(label_smoothing)

    def labels(self, y, output_shape, dtype):
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1 and output_shape != (1,):
            y = y[:, 0]
        if y.ndim == 1 and len(output_shape) == 1:
            return class_labels(y, output_shape[0], self._name)
        return super().labels(y, output_shape, dtype)

    def rows(self, graph, y, output_shape, dtype):
        if y.dtype != np.int64:
            return y
        return graph.add("one_hot", y, classes=output_shape[-1], dtype=np.dtype(dtype).name)

    def nodes(self, graph, prediction, y, weights):
        op = "cross_entropy" if y.dtype == np.int64 else "cross_entropy_probabilities"
        return graph.add(op, self.logits(graph, prediction), y, weights, label_smoothing=self.label_smoothing)[0]


@LOSSES.aliases("binary_crossentropy")
class BinaryCrossEntropy(_Simple):
    """From logits and labels 0 or 1 (or probabilities)."""
    op = "binary_cross_entropy"
    through = ("sigmoid",)

    def labels(self, y, output_shape, dtype):
        y = super().labels(y, output_shape, dtype)
        if y.size and (y.min() < 0 or y.max() > 1):
            raise DataError(f"{self._name}: expected labels between 0 and 1, got {y.min()} to {y.max()}")
        return y


class _OfSigns(_Simple):
    """Labels are -1 and 1, and nothing in between."""

    def labels(self, y, output_shape, dtype):
        return signs(super().labels(y, output_shape, dtype), self._name)

    def rows(self, graph, y, output_shape, dtype):
        raise DataError(f"{self._name}: its labels are -1 and 1 only, so they cannot be mixed; leave MixUp out, or "
                        f"take binary_cross_entropy")


@LOSSES.aliases()
class Hinge(_OfSigns):
    """max(0, 1 - y * prediction) with labels -1 or 1; labels 0 and 1 are taken as -1 and 1."""
    op = "hinge"


@LOSSES.aliases("kl_divergence", "kld")
class KullbackLeibler(_Simple):
    """sum y log(y / p) for rows of probabilities."""
    op = "kullback_leibler"


@LOSSES.aliases("perceptron")
class PerceptronCriterion(_OfSigns):
    """max(0, -y * score) with labels 0/1 or -1/1 (Rosenblatt 1958); looks through a final step."""
    op = "perceptron"
    through = ("step",)


def class_labels(y, classes, name):
    """int64 labels in range(classes), or a sentence."""
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.floor(y)).all():
        y = y.astype(np.int64)
    if y.dtype.kind not in "iub":
        raise DataError(f"{name}: expected whole-number labels, got {y.dtype} with values such as {y.ravel()[:3]}")
    y = np.ascontiguousarray(y, np.int64)
    if y.size and (y.min() < 0 or y.max() >= classes):
        where = int(np.argwhere((y < 0) | (y >= classes))[0, 0])
        raise DataError(f"{name}: expected labels 0 to {classes - 1} for the model's {classes} outputs, got {y[where]} "
                        f"at sample {where}; do the labels start at 1, or has the last layer too few units?")
    return y


def signs(y, name):
    found = set(np.unique(y).tolist())
    if found <= {0.0, 1.0}:
        return y * 2 - 1
    if not found <= {-1.0, 1.0}:
        raise DataError(f"{name}: expected labels -1 and 1 (or 0 and 1), got {sorted(found)[:5]}")
    return y


def get(given, extra=()):
    """A loss from an object, a class, a name or a configuration."""
    return LOSSES.build(given, extra)
