"""What metrics count, a batch at a time: float64 sums () that a training step adds up, and a matrix of counts.

| op | result |
|---|---|
| correct_count(scores (n, c), labels (n,)) | rows whose largest score is the label's; NaN scores are wrong |
| top_k_count(scores, labels; k) | rows with fewer than k scores above the label's |
| confusion(scores, labels, matrix (c, c)) | matrix[label, prediction] += 1, in place |
| squared_error, absolute_error (p, y) | sum over samples of the mean over outputs |
| binary_labels(y (n, 1)) | int64 labels (n,): y > threshold |

With one score a row (c = 1) the prediction is class 1 when the score is above `threshold`. Labels outside the classes
count as wrong and stay out of the matrix. Counting is one task: it is little work, and the order is fixed.
"""
import math

import numpy as np
from numba import njit

from engine.kernels.gpu import cuda, kernel
from engine.kernels.op import INTEGER, Arrangement, Op, Spec, demand, floats, integers
from engine.kernels.split import span

FLOAT64 = np.dtype("float64")

# ----------------------------------------------------------------------------------------------------- NumPy reference


def predicted(scores, threshold):
    """Class of each row; -1 where a score is NaN."""
    said = (scores[:, 0] > threshold).astype(np.int64) if scores.shape[1] == 1 else scores.argmax(1)
    return np.where(np.isnan(scores).any(1), -1, said) if len(scores) else np.zeros(0, np.int64)


def correct_reference(scores, labels, threshold):
    return np.float64((predicted(scores, threshold) == labels).sum())


def top_k_reference(scores, labels, k):
    inside = (labels >= 0) & (labels < scores.shape[1]) & ~np.isnan(scores).any(1)
    own = scores[np.arange(len(labels)), np.where(inside, labels, 0)] if len(labels) else np.zeros(0)
    return np.float64((((scores > own[:, None]).sum(1) < k) & inside).sum())


def confusion_reference(scores, labels, matrix, threshold):
    matrix, said = matrix.copy(), predicted(scores, threshold)
    inside = (said >= 0) & (labels >= 0) & (labels < len(matrix))
    np.add.at(matrix, (labels[inside], said[inside]), 1)
    return matrix


def error_reference(function):
    return lambda p, y: np.float64(function(p - y).sum() / max(1, p.size // max(1, len(p))))


# ---------------------------------------------------------------------------------------------------------------- CPU


@njit(error_model="numpy", forceinline=True)
def class_of(row, threshold):
    """The predicted class of a row of scores; -1 when one is NaN."""
    best, clean = 0, row[0] == row[0]
    for j in range(1, row.size):
        clean = clean and row[j] == row[j]
        best = j if row[j] > row[best] else best
    if row.size == 1:
        best = 1 if row[0] > threshold else 0
    return best if clean else -1


@njit(error_model="numpy")
def correct_cpu(scores, labels, threshold, out, task, tasks):
    """out[0] = rows that are right"""
    right = 0
    for i in range(labels.size):
        right += class_of(scores[i], threshold) == labels[i]
    out[0] = right


@njit(error_model="numpy")
def top_k_cpu(scores, labels, k, out, task, tasks):
    """out[0] = rows in which fewer than k scores are above the label's"""
    right = 0
    for i in range(labels.size):
        row, label = scores[i], labels[i]
        if 0 <= label < row.size:
            above, clean = 0, True
            for j in range(row.size):
                above += row[j] > row[label]
                clean = clean and row[j] == row[j]
            right += above < k and clean
    out[0] = right


@njit(error_model="numpy")
def confusion_cpu(scores, labels, before, threshold, matrix, task, tasks):
    """matrix[label, prediction] += 1; `before` is the same memory"""
    for i in range(labels.size):
        said, label = class_of(scores[i], threshold), labels[i]
        if said >= 0 and 0 <= label < matrix.shape[0]:
            matrix[label, said] += 1


@njit(error_model="numpy")
def error_cpu(p, y, squared, out, task, tasks):
    """out[0] = sum over rows of the mean of (p - y)^2 or of the absolute difference"""
    total = 0.0
    for i in range(p.shape[0]):
        row = 0.0
        for j in range(p.shape[1]):
            d = p[i, j] - y[i, j]
            row += d * d if squared else abs(d)
        total += row
    out[0] = total / max(1, p.shape[1])


@njit(error_model="numpy")
def binary_labels_cpu(y, threshold, out, task, tasks):
    """out[i] = 1 if y[i] > threshold else 0"""
    first, count = span(out.size, task, tasks)
    for k in range(count):
        out[first + k] = 1 if y[first + k] > threshold else 0


# --------------------------------------------------------------------------------------------------------------- CUDA


@kernel
def _correct(scores, labels, threshold, out):
    right = 0
    for i in range(labels.size):
        best, clean = 0, True
        for j in range(scores.shape[1]):
            clean = clean and scores[i, j] == scores[i, j]
            best = j if scores[i, j] > scores[i, best] else best
        if scores.shape[1] == 1:
            best = 1 if scores[i, 0] > threshold else 0
        if clean and best == labels[i]:
            right += 1
    out[0] = right


@kernel
def _top_k(scores, labels, k, out):
    right = 0
    for i in range(labels.size):
        label = labels[i]
        if label >= 0 and label < scores.shape[1]:
            above, clean = 0, True
            for j in range(scores.shape[1]):
                if scores[i, j] > scores[i, label]:
                    above += 1
                clean = clean and scores[i, j] == scores[i, j]
            if clean and above < k:
                right += 1
    out[0] = right


@kernel
def _confusion(scores, labels, threshold, matrix):
    for i in range(labels.size):
        best, clean = 0, True
        for j in range(scores.shape[1]):
            clean = clean and scores[i, j] == scores[i, j]
            best = j if scores[i, j] > scores[i, best] else best
        if scores.shape[1] == 1:
            best = 1 if scores[i, 0] > threshold else 0
        if clean and labels[i] >= 0 and labels[i] < matrix.shape[0]:
            matrix[labels[i], best] += 1


@kernel
def _error(p, y, squared, out):
    total = 0.0
    for i in range(p.shape[0]):
        for j in range(p.shape[1]):
            d = p[i, j] - y[i, j]
            total += d * d if squared else abs(d)
    out[0] = total / max(1, p.shape[1])


@kernel
def _binary_labels(y, threshold, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = 1 if y[i] > threshold else 0


def correct_cuda(scores, labels, threshold, out):
    _correct[1, 1](scores, labels, threshold, out)


def top_k_cuda(scores, labels, k, out):
    _top_k[1, 1](scores, labels, k, out)


def confusion_cuda(scores, labels, before, threshold, matrix):
    _confusion[1, 1](scores, labels, threshold, matrix)


def error_cuda(p, y, squared, out):
    _error[1, 1](p, y, squared, out)


def binary_labels_cuda(y, threshold, out):
    _binary_labels[-(-out.size // 128), 128](y, threshold, out)


# ------------------------------------------------------------------------------------------------------------- records


def scored(scores, labels):
    floats(scores)
    integers(labels, "labels")
    demand(scores.ndim == 2 and scores.shape[1] > 0, "scores of shape (n, classes)", scores.shape)
    demand(labels.shape == scores.shape[:1], f"labels of shape {scores.shape[:1]}", labels.shape)


def count_shapes(scores, labels, **attributes):
    scored(scores, labels)
    return Spec((), FLOAT64)


def confusion_shapes(scores, labels, matrix, threshold):
    scored(scores, labels)
    integers(matrix, "the matrix")
    classes = max(2, scores.shape[1])
    demand(matrix.shape == (classes, classes), f"a matrix of shape {(classes, classes)}", matrix.shape)
    return Spec(matrix.shape, INTEGER)


def error_shapes(p, y):
    floats(p, y)
    demand(p.shape == y.shape and p.ndim >= 1, f"y of the prediction's shape, {p.shape}", y.shape)
    return Spec((), FLOAT64)


def binary_labels_shapes(y, threshold):
    floats(y)
    demand(y.size == y.shape[0], "y of shape (n,) or (n, 1)", y.shape)
    return Spec((y.shape[0],), INTEGER)


def one_number(inputs, outputs, attributes, threads):
    return Arrangement(tuple(s.shape for s in inputs), ((1,),), tuple(attributes.values()))


def as_they_are(inputs, outputs, attributes, threads):
    return Arrangement(tuple(s.shape for s in inputs), tuple(s.shape for s in outputs), tuple(attributes.values()))


def flat_labels(inputs, outputs, attributes, threads):
    return Arrangement(((inputs[0].size,),), (outputs[0].shape,), tuple(attributes.values()))


def arrange_error(squared):
    def arrange(inputs, outputs, attributes, threads):
        n = inputs[0].shape[0]
        two = (n, math.prod(inputs[0].shape[1:]))
        return Arrangement((two, two), ((1,),), (squared,))
    return arrange


def _samples(**attributes):
    def samples(rng):
        for n, c in ((0, 3), (1, 1), (7, 1), (13, 5), (67, 10)):
            yield (rng.standard_normal((n, c)), rng.integers(0, max(2, c), n)), attributes
        yield (np.array([[np.nan, 1.0], [0.5, np.nan], [2.0, 1.0], [1.0, 1.0]]), np.array([1, 0, 0, 5])), attributes
    return samples


def _confusion_samples(rng):
    for (scores, labels), attributes in _samples(threshold=0.1)(rng):
        classes = max(2, scores.shape[1])
        yield (scores, labels, rng.integers(0, 9, (classes, classes))), attributes


def _error_samples(rng):
    for shape in ((0, 2), (1, 1), (7, 3), (5, 2, 3), (9,)):
        yield (rng.standard_normal(shape), rng.standard_normal(shape)), {}


def _binary_samples(rng):
    for shape in ((0, 1), (7, 1), (5,)):
        yield (rng.random(shape),), {"threshold": 0.5}


def _terms(p, y):
    return p.size


OPS = (
    Op("correct_count", correct_reference, count_shapes, correct_cpu, correct_cuda, _samples(threshold=0.0), one_number,
       attributes={"threshold": 0.0}),
    Op("top_k_count", top_k_reference, count_shapes, top_k_cpu, top_k_cuda, _samples(k=2), one_number,
       attributes={"k": 5}),
    Op("confusion", confusion_reference, confusion_shapes, confusion_cpu, confusion_cuda, _confusion_samples,
       as_they_are, attributes={"threshold": 0.0}, updates={0: 2}),
    Op("squared_error", error_reference(np.square), error_shapes, error_cpu, error_cuda, _error_samples,
       arrange_error(1), terms=_terms),
    Op("absolute_error", error_reference(np.abs), error_shapes, error_cpu, error_cuda, _error_samples, arrange_error(0),
       terms=_terms),
    Op("binary_labels", lambda y, threshold: (y.ravel() > threshold).astype(np.int64), binary_labels_shapes,
       binary_labels_cpu, binary_labels_cuda, _binary_samples, flat_labels, attributes={"threshold": 0.5}),
)
