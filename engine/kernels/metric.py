"""What metrics count, a batch at a time: float64 sums () that a training step adds up, and a matrix of counts.

| op | result |
|---|---|
| correct_count(scores (n, c), labels (n,)) | rows whose largest score is the label's; NaN scores are wrong |
| top_k_count(scores, labels; k) | rows with fewer than k scores above the label's |
| confusion(scores, labels, matrix (c, c)) | matrix[label, prediction] += 1, in place |
| squared_error, absolute_error (p, y) | sum over samples of the mean over outputs |
| binary_labels(y (n, 1)) | int64 labels (n,): y > threshold |

With one score a row (c = 1) the prediction is class 1 when the score is above `threshold`. Labels outside the classes
count as wrong and stay out of the matrix, and so do rows with a NaN.
"""
import math

import numpy as np
from numba import float64

from engine.kernels.gpu import THREADS, blocks, cuda, kernel
from engine.kernels.op import INTEGER, Arrangement, Op, Spec, demand, floats, integers, share
from engine.kernels.simd.parts import part
from engine.kernels.split import (
    CHUNK,
    LANES,
    SUMS,
    WARP,
    WARPS,
    add_all_cuda,
    block_sum,
    chunks,
    least,
    shared_sum,
    span,
)

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


@part
def is_first_largest(row, label):
    """Whether row[label] is the first largest value; comparisons with NaN are false."""
    own, wrong = row[label], 0
    before, after = row[:label], row[label + 1:]
    for j in range(before.size):
        wrong += 0 if before[j] < own else 1
    for j in range(after.size):
        wrong += 0 if after[j] <= own else 1
    return wrong == 0 and own == own


@part
def correct_cpu(scores, labels, threshold, out, counts, task, tasks):
    """counts[task] = rows of this task that are right"""
    right, threshold = 0, scores.dtype.type(threshold)
    first, count = span(labels.size, task, tasks)
    for i in range(first, first + count):
        row, label = scores[i], labels[i]
        if row.size == 1:
            right += row[0] == row[0] and label == (1 if row[0] > threshold else 0)
        elif label >= 0 and label < row.size:
            right += is_first_largest(row, label)
    counts[task] = right


@part
def top_k_cpu(scores, labels, k, out, counts, task, tasks):
    """counts[task] = rows of this task in which fewer than k scores are above the label's"""
    right = 0
    first, count = span(labels.size, task, tasks)
    for i in range(first, first + count):
        row, label = scores[i], labels[i]
        if label >= 0 and label < row.size:
            above, nans, own = 0, 0, row[label]
            for j in range(row.size):
                above += 1 if row[j] > own else 0
                nans += 0 if row[j] == row[j] else 1
            right += above < k and nans == 0
    counts[task] = right


@part
def add_correct_cpu(scores, labels, number, out, counts, task, tasks):
    """out[0] = the sum of all tasks' counts: whole numbers, so their order and number do not matter"""
    if task == 0:
        right = 0
        for k in range(counts.size):
            right += counts[k]
        out[0] = right


@part(forceinline=True)
def class_of(row, threshold):
    """The predicted class of a row of scores; -1 when one is NaN."""
    if row.size == 1:
        return -1 if row[0] != row[0] else 1 if row[0] > threshold else 0
    best, nan = 0, row[0] != row[0]
    for j in range(1, row.size):
        nan |= row[j] != row[j]
        best = j if row[j] > row[best] else best
    return -1 if nan else best


@part
def classes_cpu(scores, labels, before, threshold, matrix, said, task, tasks):
    """said[i] = the predicted class of row i"""
    threshold = scores.dtype.type(threshold)
    first, count = span(labels.size, task, tasks)
    for i in range(first, first + count):
        said[i] = class_of(scores[i], threshold)


@part
def confusion_cpu(scores, labels, before, threshold, matrix, said, task, tasks):
    """matrix[label, said] += 1; `before` is the same memory"""
    if task == 0:
        for i in range(labels.size):
            if said[i] >= 0 and labels[i] >= 0 and labels[i] < matrix.shape[0]:
                matrix[labels[i], said[i]] += 1


@part(fastmath=SUMS)
def error_cpu(p, y, squared, c, out, parts, chunk, task, tasks):
    """parts[k] = the sum of (p - y)^2, or of the absolute differences, over chunk k"""
    first, count = span(parts.size, task, tasks)
    for k in range(first, first + count):
        a, b, total = p[k * chunk:(k + 1) * chunk], y[k * chunk:(k + 1) * chunk], 0.0
        if squared:
            for i in range(a.size):
                d = np.float64(a[i] - b[i])
                total += d * d
        else:
            for i in range(a.size):
                total += np.float64(abs(a[i] - b[i]))
        parts[k] = total


@part
def add_errors_cpu(p, y, squared, c, out, parts, chunk, task, tasks):
    """out[0] = the sum of the chunks / c"""
    if task == 0:
        total = 0.0
        for k in range(parts.size):
            total += parts[k]
        out[0] = total / c


@part
def binary_labels_cpu(y, threshold, out, task, tasks):
    """out[i] = 1 if y[i] > threshold else 0"""
    threshold = y.dtype.type(threshold)
    first, count = span(out.size, task, tasks)
    for k in range(count):
        out[first + k] = 1 if y[first + k] > threshold else 0


# --------------------------------------------------------------------------------------------------------------- CUDA


@kernel
def _correct(scores, labels, threshold, counts):
    """counts[i] = 1 if row i is right; a warp looks at a row"""
    i, thread, wrong = cuda.blockIdx.x, cuda.threadIdx.x, 0
    held = cuda.shared.array(WARPS, float64)
    row, label = scores[i], labels[i]
    if row.size == 1:
        wrong = 0 if row[0] == row[0] and label == (1 if row[0] > threshold else 0) else 1
    elif label < 0 or label >= row.size:
        wrong = 1
    else:
        own = row[label]
        for j in range(thread, row.size, WARP):
            if not (row[j] < own or (row[j] == own and j >= label)):
                wrong += 1
    wrong = shared_sum(held, wrong, thread)
    if thread == 0:
        counts[i] = 1 if wrong == 0 else 0


@kernel
def _top_k(scores, labels, k, counts):
    i, thread, above = cuda.blockIdx.x, cuda.threadIdx.x, 0
    held = cuda.shared.array(WARPS, float64)
    row, label = scores[i], labels[i]
    if label < 0 or label >= row.size:
        above = k
    else:
        for j in range(thread, row.size, WARP):
            if row[j] != row[j]:
                above += k
            elif row[j] > row[label]:
                above += 1
    above = shared_sum(held, above, thread)
    if thread == 0:
        counts[i] = 1 if above < k else 0


@kernel
def _confusion(scores, labels, threshold, matrix):
    i = cuda.grid(1)
    if i < labels.size:
        row, label = scores[i], labels[i]
        best, nan = 0, row[0] != row[0]
        for j in range(1, row.size):
            nan = nan or row[j] != row[j]
            best = j if row[j] > row[best] else best
        if row.size == 1:
            best = 1 if row[0] > threshold else 0
        if not nan and label >= 0 and label < matrix.shape[0]:
            cuda.atomic.add(matrix, (label, best), 1)    # whole numbers: the order does not matter


@kernel
def _error(p, y, squared, parts):
    chunk, thread, total = cuda.blockIdx.x, cuda.threadIdx.x, 0.0
    for i in range(chunk * CHUNK + thread, least(p.size, (chunk + 1) * CHUNK), LANES):
        d = p[i] - y[i]
        total += float64(d * d if squared else abs(d))
    total = block_sum(total, thread)
    if thread == 0:
        parts[chunk] = total


@kernel
def _binary_labels(y, threshold, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = 1 if y[i] > threshold else 0


def correct_cuda(scores, labels, threshold, out, counts):
    if labels.size:
        _correct[labels.size, WARP](scores, labels, scores.dtype.type(threshold), counts)
    add_all_cuda(counts, 1, out)


def top_k_cuda(scores, labels, k, out, counts):
    if labels.size:
        _top_k[labels.size, WARP](scores, labels, k, counts)
    add_all_cuda(counts, 1, out)


def confusion_cuda(scores, labels, before, threshold, matrix):
    _confusion[blocks(labels.size), THREADS](scores, labels, scores.dtype.type(threshold), matrix)


def error_cuda(p, y, squared, c, out, parts):
    _error[parts.size, LANES](p, y, squared, parts)
    add_all_cuda(parts, c, out)


def binary_labels_cuda(y, threshold, out):
    _binary_labels[blocks(out.size), THREADS](y, y.dtype.type(threshold), out)


# ------------------------------------------------------------------------------------------------------------ records


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


def arrange_counts(inputs, outputs, attributes, threads):
    (n, c), tasks = inputs[0].shape, share(inputs[0].size, threads)
    return Arrangement(((n, c), (n,)), ((1,),), tuple(attributes.values()), (Spec((tasks,), INTEGER),), (), tasks,
                       (Spec((n,), INTEGER),))


def arrange_confusion(inputs, outputs, attributes, threads):
    n, tasks = inputs[1].size, share(inputs[0].size, threads)
    return Arrangement(tuple(s.shape for s in inputs), (outputs[0].shape,), tuple(attributes.values()),
                       (Spec((n,), INTEGER),), (), tasks)


def arrange_error(squared):
    def arrange(inputs, outputs, attributes, threads):
        size, shape = inputs[0].size, inputs[0].shape
        parts = (Spec((chunks(size),), FLOAT64),)
        return Arrangement(((size,), (size,)), ((1,),), (squared, max(1, math.prod(shape[1:]))), parts, (CHUNK,),
                           share(size, threads), parts)
    return arrange


def arrange_labels(inputs, outputs, attributes, threads):
    size = inputs[0].size
    return Arrangement(((size,),), ((size,),), tuple(attributes.values()), tasks=share(size, threads))


def _samples(**attributes):
    def samples(rng):
        for n, c in ((0, 3), (1, 1), (7, 1), (13, 5), (67, 10), (1100, 31)):
            yield (rng.standard_normal((n, c)), rng.integers(0, max(2, c), n)), attributes
        yield (np.array([[np.nan, 1.0], [0.5, np.nan], [2.0, 1.0], [1.0, 1.0]]), np.array([1, 0, 0, 5])), attributes
    return samples


def _confusion_samples(rng):
    for (scores, labels), attributes in _samples(threshold=0.1)(rng):
        classes = max(2, scores.shape[1])
        yield (scores, labels, rng.integers(0, 9, (classes, classes))), attributes


def _error_samples(rng):
    for shape in ((0, 2), (1, 1), (7, 3), (5, 2, 3), (9,), (1100, 31)):
        yield (rng.standard_normal(shape), rng.standard_normal(shape)), {}


def _binary_samples(rng):
    for shape in ((0, 1), (7, 1), (5,)):
        yield (rng.random(shape),), {"threshold": 0.5}


def _terms(p, y):
    return p.size


OPS = (
    Op("correct_count", correct_reference, count_shapes, (correct_cpu, add_correct_cpu), correct_cuda,
       _samples(threshold=0.0), arrange_counts, attributes={"threshold": 0.0}),
    Op("top_k_count", top_k_reference, count_shapes, (top_k_cpu, add_correct_cpu), top_k_cuda, _samples(k=2),
       arrange_counts, attributes={"k": 5}),
    Op("confusion", confusion_reference, confusion_shapes, (classes_cpu, confusion_cpu), confusion_cuda,
       _confusion_samples, arrange_confusion, attributes={"threshold": 0.0}, updates={0: 2}),
    Op("squared_error", error_reference(np.square), error_shapes, (error_cpu, add_errors_cpu), error_cuda,
       _error_samples, arrange_error(1), terms=_terms),
    Op("absolute_error", error_reference(np.abs), error_shapes, (error_cpu, add_errors_cpu), error_cuda, _error_samples,
       arrange_error(0), terms=_terms),
    Op("binary_labels", lambda y, threshold: (y.ravel() > threshold).astype(np.int64), binary_labels_shapes,
       binary_labels_cpu, binary_labels_cuda, _binary_samples, arrange_labels, attributes={"threshold": 0.5}),
)
