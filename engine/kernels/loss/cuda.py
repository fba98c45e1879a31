"""CUDA kernels of the losses and their launchers: a block of one or more warps for each row, or for CHUNK values.

The losses of rows or chunks go to scratch memory, and one block adds them in a fixed order.
"""
import math

from numba import float64

from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel, kernel_of
from engine.kernels.split import (
    CHUNK,
    LANES,
    WARPS,
    add_all_cuda,
    block_sum,
    least,
    row_threads,
    shared_max,
    shared_sum,
)


@kernel_of
def _pointwise(value, slope):
    def pointwise(pred, target, weights, c, parameter, factor, dpred, sums):
        chunk, thread, total = cuda.blockIdx.x, cuda.threadIdx.x, 0.0
        for i in range(chunk * CHUNK + thread, least(pred.size, (chunk + 1) * CHUNK), LANES):
            weight = weights[i // c]
            total += float64(weight * value(pred[i], target[i], parameter))
            dpred[i] = slope(pred[i], target[i], parameter) * (weight * factor)
        total = block_sum(total, thread)
        if thread == 0:
            sums[chunk] = total
    return pointwise


@device
def top_and_total(row, thread, held):
    """(the row's largest value, the sum of exp(row - it))"""
    top = row[0]
    for j in range(thread, row.size, cuda.blockDim.x):
        top = row[j] if row[j] > top else top
    top = row.dtype.type(shared_max(held, top, thread))
    total = row.dtype.type(0)
    for j in range(thread, row.size, cuda.blockDim.x):
        total += math.exp(row[j] - top)
    return top, row.dtype.type(shared_sum(held, total, thread))


@kernel
def _cross_entropy(logits, labels, weights, on, off, portion, dlogits, sums):
    i, thread, number = cuda.blockIdx.x, cuda.threadIdx.x, logits.dtype.type
    held = cuda.shared.array(WARPS, float64)
    row, out, label, scale = logits[i], dlogits[i], labels[i], weights[i] * portion
    top, total = top_and_total(row, thread, held)
    inside = label >= 0 and label < row.size
    below = number(0)
    for j in range(thread, row.size, cuda.blockDim.x):
        if off > 0:
            below += top - row[j]
        share = off + on if j == label else off
        out[j] = (math.exp(row[j] - top) / total - share) * scale if inside else number(math.nan)
    below = number(shared_sum(held, below, thread)) if off > 0 else below
    if thread == 0:
        sums[i] = math.nan
        if inside:
            sums[i] = float64(weights[i] * (math.log(total) + on * (top - row[label]) + off * below))


@kernel
def _cross_entropy_probabilities(logits, targets, weights, on, off, portion, dlogits, sums):
    i, thread, number = cuda.blockIdx.x, cuda.threadIdx.x, logits.dtype.type
    held = cuda.shared.array(WARPS, float64)
    row, wanted, out, scale = logits[i], targets[i], dlogits[i], weights[i] * portion
    top, total = top_and_total(row, thread, held)
    log_total, mass, entropy = math.log(total), number(0), number(0)
    for j in range(thread, row.size, cuda.blockDim.x):
        t = on * wanted[j] + off
        mass += t
        if t != number(0):                   # what t = 0 excludes may be infinite
            entropy += t * (log_total + (top - row[j]))
    mass = number(shared_sum(held, mass, thread))
    entropy = shared_sum(held, entropy, thread)
    for j in range(thread, row.size, cuda.blockDim.x):
        out[j] = (math.exp(row[j] - top) / total * mass - (on * wanted[j] + off)) * scale
    if thread == 0:
        sums[i] = float64(weights[i]) * entropy


@kernel
def _multiclass_perceptron(logits, labels, weights, portion, dlogits, sums):
    i, number = cuda.grid(1), logits.dtype.type
    if i < logits.shape[0]:
        row, out, label = logits[i], dlogits[i], labels[i]
        rival, wrong = 1 if label == 0 else 0, label < 0 or label >= row.size
        for j in range(row.size):
            wrong = wrong or row[j] != row[j]
            if j != label and row[j] > row[rival]:
                rival = j
            out[j] = number(0)
        sums[i] = math.nan if wrong else 0.0
        if not wrong and row[rival] >= row[label]:
            sums[i] = float64(weights[i] * (row[rival] - row[label]))
            out[rival], out[label] = weights[i] * portion, -(weights[i] * portion)


def pointwise(pred, target, weights, value, slope, parameter, part, loss, dpred, sums):
    number, n = pred.dtype.type, max(1, weights.size)
    _pointwise(value, slope, pred.dtype)[sums.size, LANES](
        pred, target, weights, pred.size // n, number(parameter), number(part / n), dpred, sums)
    add_all_cuda(sums, n / part, loss)


def cross_entropy(logits, labels, weights, smoothing, loss, dlogits, sums):
    number, (n, c) = logits.dtype.type, logits.shape
    if n:
        _cross_entropy[n, row_threads(c)](logits, labels, weights, number(1 - smoothing), number(smoothing / c),
                                          number(1 / n), dlogits, sums)
    add_all_cuda(sums, max(1, n), loss)


def cross_entropy_probabilities(logits, targets, weights, smoothing, loss, dlogits, sums):
    number, (n, c) = logits.dtype.type, logits.shape
    if n:
        _cross_entropy_probabilities[n, row_threads(c)](logits, targets, weights, number(1 - smoothing),
                                                        number(smoothing / c), number(1 / n), dlogits, sums)
    add_all_cuda(sums, max(1, n), loss)


def multiclass_perceptron(logits, labels, weights, loss, dlogits, sums):
    n = logits.shape[0]
    portion = logits.dtype.type(1 / max(1, n))
    _multiclass_perceptron[blocks(n), THREADS](logits, labels, weights, portion, dlogits, sums)
    add_all_cuda(sums, max(1, n), loss)
