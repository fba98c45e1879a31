"""Metrics: counted by ops inside the step, summed on the target, fetched once an epoch."""
import numpy as np

from engine.registry import Configured, Registry, snake

METRICS = Registry("metric")


class Metric(Configured):
    """Subclasses give `shape(output_shape)` of the float64 or int64 total, `nodes` that add to it, and `result`."""
    dtype = "float64"

    @property
    def label(self):
        return snake(type(self).__name__)

    def shape(self, output_shape):
        return ()

    def nodes(self, graph, prediction, y, total):
        """Adds to `total` in place."""
        raise NotImplementedError(f"{type(self).__name__}: a metric needs a method nodes(...)")

    def result(self, total, count):
        """The metric from its total over `count` samples: a number, or an array."""
        return float(total) / count if count else float("nan")


class _Classes(Metric):
    """Metrics that compare a class with a label: labels (n,) integers, or rows of which the largest is the class."""

    def as_labels(self, graph, y):
        if y.dtype == np.int64:
            return y
        if y.ndim == 2 and y.shape[1] > 1:
            return graph.add("argmax", y, axis=1)
        return graph.add("binary_labels", y)


@METRICS.aliases("acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy")
class Accuracy(_Classes):
    """The share of samples whose largest output is the label's (for one output: on the right side of the
    threshold)."""

    def nodes(self, graph, prediction, y, total):
        graph.add("accumulate", total, graph.add("correct_count", prediction, self.as_labels(graph, y),
                                                 threshold=threshold(graph, prediction)))


@METRICS.aliases("top_k_accuracy", "top_k_categorical_accuracy")
class TopK(_Classes):
    """The share of samples whose label is among the k largest outputs."""

    def __init__(self, k=5):
        self.k = int(k)

    @property
    def label(self):
        return f"top_{self.k}"

    def nodes(self, graph, prediction, y, total):
        graph.add("accumulate", total, graph.add("top_k_count", prediction, self.as_labels(graph, y), k=self.k))


@METRICS.aliases()
class Confusion(_Classes):
    """The matrix of counts: row = label, column = prediction."""
    dtype = "int64"

    def shape(self, output_shape):
        classes = max(2, output_shape[-1])
        return classes, classes

    def nodes(self, graph, prediction, y, total):
        graph.add("confusion", prediction, self.as_labels(graph, y), total, threshold=threshold(graph, prediction))

    def result(self, total, count):
        return np.array(total)


class _FromConfusion(Confusion):
    """Mean over classes of a figure of each class; for two classes the figure of class 1."""

    def result(self, total, count):
        right, said, true = np.diag(total).astype(float), total.sum(0), total.sum(1)
        figures = self.figure(right, said, true)
        return float(figures[1] if len(figures) == 2 else figures.mean())


@METRICS.aliases()
class Precision(_FromConfusion):
    """Of those said to be a class, the share that is."""

    def figure(self, right, said, true):
        return right / np.maximum(said, 1)


@METRICS.aliases()
class Recall(_FromConfusion):
    """Of those that are a class, the share that is said to be."""

    def figure(self, right, said, true):
        return right / np.maximum(true, 1)


@METRICS.aliases("f1_score")
class F1(_FromConfusion):
    """The harmonic mean of precision and recall."""

    def figure(self, right, said, true):
        return 2 * right / np.maximum(said + true, 1)


@METRICS.aliases("mse", "mean_squared_error")
class MeanSquaredError(Metric):
    """Mean of (prediction - y)^2."""

    def nodes(self, graph, prediction, y, total):
        graph.add("accumulate", total, graph.add("squared_error", prediction, y))


@METRICS.aliases("mae", "mean_absolute_error")
class MeanAbsoluteError(Metric):
    """Mean of |prediction - y|."""

    def nodes(self, graph, prediction, y, total):
        graph.add("accumulate", total, graph.add("absolute_error", prediction, y))


def threshold(graph, prediction):
    """Where one output changes sides: 0.5 for a probability or a step, 0 for a score."""
    node = graph.producer().get(prediction)
    return 0.5 if node is not None and node.op.name in ("sigmoid", "step") else 0.0


def get(given, extra=()):
    """A metric from an object, a class, a name or a configuration."""
    return METRICS.build(given, extra)
