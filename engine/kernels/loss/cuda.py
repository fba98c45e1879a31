"""CUDA kernels of the losses and their launchers: a block of one or more warps for each row, or for CHUNK values.

The losses of rows or chunks go to scratch memory, and one block adds them in a fixed order.
"""
import math

from numba import float64, int32

from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel, kernel_of, load1, store1
from engine.kernels.split import (
    CHUNK,
    LANES,
    WARPS,
    add_all_cuda,
    block_sum,
    least,
    line_shape,
    load_line,
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
    """(the row's largest value, the sum of exp(row - it)), read twice"""
    top = row[0]
    for j in range(thread, row.size, cuda.blockDim.x):
        top = row[j] if row[j] > top else top
    top, total = shared_max(held, top, thread), row.dtype.type(0)
    for j in range(thread, row.size, cuda.blockDim.x):
        total += math.exp(row[j] - top)
    return top, shared_sum(held, total, thread)


@device
def load_row(x, begin, size, thread, threads, shared, held):
    """As `top_and_total`, of values that stay in `held`"""
    top = shared_max(shared, load_line(x, begin, 1, size, thread, threads, -math.inf, held), thread)
    total = x.dtype.type(0)
    for k in range(held.size):
        total += math.exp(held[k] - top)
    return top, shared_sum(shared, total, thread)


@kernel_of
def _cross_entropy_lines(values, threads):
    """Rows that their threads hold in registers: a warp or a block for each"""
    def cross_entropy_lines(logits, labels, weights, on, off, portion, dlogits, sums):
        i, thread = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, int32(cuda.threadIdx.x)
        number, shared = logits.dtype.type, cuda.shared.array(WARPS, logits.dtype)
        held, size = cuda.local.array(values, logits.dtype), logits.shape[1]
        if i < logits.shape[0]:              # a whole warp leaves
            label, scale, below = labels[i], weights[i] * portion, number(0)
            top, total = load_row(logits, i * size, size, thread, threads, shared, held)
            inside = label >= 0 and label < size
            for k in range(values):
                j = int32(thread + k * threads)
                if j < size:
                    below += top - held[k]
                    share = off + on if j == label else off
                    value = (math.exp(held[k] - top) / total - share) * scale if inside else number(math.nan)
                    store1(dlogits, i * size + j, value)
            below = shared_sum(shared, below, thread) if off > 0 else number(0)      # else it may be infinite
            if thread == 0:
                sums[i] = math.nan
                if inside:
                    far = top - load1(logits, i * size + label)
                    sums[i] = float64(weights[i] * (math.log(total) + on * far + off * below))
    return cross_entropy_lines


@kernel
def _cross_entropy_long(logits, labels, weights, on, off, portion, dlogits, sums):
    i, thread, number = cuda.blockIdx.x, cuda.threadIdx.x, logits.dtype.type
    held = cuda.shared.array(WARPS, logits.dtype)
    row, out, label, scale = logits[i], dlogits[i], labels[i], weights[i] * portion
    top, total = top_and_total(row, thread, held)
    inside = label >= 0 and label < row.size
    below = number(0)
    for j in range(thread, row.size, cuda.blockDim.x):
        if off > 0:
            below += top - row[j]
        share = off + on if j == label else off
        out[j] = (math.exp(row[j] - top) / total - share) * scale if inside else number(math.nan)
    below = shared_sum(held, below, thread) if off > 0 else below
    if thread == 0:
        sums[i] = math.nan
        if inside:
            sums[i] = float64(weights[i] * (math.log(total) + on * (top - row[label]) + off * below))


@kernel_of
def _cross_entropy_probabilities_lines(values, threads):
    """Rows that their threads hold in registers: a warp or a block for each"""
    def cross_entropy_probabilities_lines(logits, targets, weights, on, off, portion, dlogits, sums):
        i, thread = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, int32(cuda.threadIdx.x)
        number, shared = logits.dtype.type, cuda.shared.array(WARPS, logits.dtype)
        held, wanted = cuda.local.array(values, logits.dtype), cuda.local.array(values, logits.dtype)
        size = logits.shape[1]
        if i < logits.shape[0]:
            top, total = load_row(logits, i * size, size, thread, threads, shared, held)
            log_total, mass, entropy = math.log(total), number(0), number(0)
            for k in range(values):
                j = int32(thread + k * threads)
                wanted[k] = number(0)
                if j < size:
                    wanted[k] = on * load1(targets, i * size + j) + off
                mass += wanted[k]
                if wanted[k] != number(0):   # what t = 0 excludes may be infinite
                    entropy += wanted[k] * (log_total + (top - held[k]))
            mass, entropy = shared_sum(shared, mass, thread), shared_sum(shared, entropy, thread)
            for k in range(values):
                j = int32(thread + k * threads)
                if j < size:
                    slope = math.exp(held[k] - top) / total * mass - wanted[k]
                    store1(dlogits, i * size + j, slope * (weights[i] * portion))
            if thread == 0:
                sums[i] = float64(weights[i]) * float64(entropy)
    return cross_entropy_probabilities_lines


@kernel
def _cross_entropy_probabilities_long(logits, targets, weights, on, off, portion, dlogits, sums):
    i, thread, number = cuda.blockIdx.x, cuda.threadIdx.x, logits.dtype.type
    held = cuda.shared.array(WARPS, logits.dtype)
    row, wanted, out, scale = logits[i], targets[i], dlogits[i], weights[i] * portion
    top, total = top_and_total(row, thread, held)
    log_total, mass, entropy = math.log(total), number(0), number(0)
    for j in range(thread, row.size, cuda.blockDim.x):
        t = on * wanted[j] + off
        mass += t
        if t != number(0):
            entropy += t * (log_total + (top - row[j]))
    mass, entropy = shared_sum(held, mass, thread), shared_sum(held, entropy, thread)
    for j in range(thread, row.size, cuda.blockDim.x):
        out[j] = (math.exp(row[j] - top) / total * mass - (on * wanted[j] + off)) * scale
    if thread == 0:
        sums[i] = float64(weights[i]) * float64(entropy)


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


def _launch_rows(lines, long, arrays, logits, *rest):
    """A launch over the rows of logits: those of `lines` where a row is short enough for it."""
    (n, c), dtype = logits.shape, logits.dtype
    threads, values, together = line_shape(c, arrays * dtype.itemsize)
    if n and values:
        lines(values, threads, dtype)[blocks(n, together), (threads, together)](logits, *rest)
    elif n:
        long[n, threads](logits, *rest)


def cross_entropy(logits, labels, weights, smoothing, loss, dlogits, sums):
    number, (n, c) = logits.dtype.type, logits.shape
    _launch_rows(_cross_entropy_lines, _cross_entropy_long, 1, logits, labels, weights, number(1 - smoothing),
                 number(smoothing / c), number(1 / max(1, n)), dlogits, sums)
    add_all_cuda(sums, max(1, n), loss)


def cross_entropy_probabilities(logits, targets, weights, smoothing, loss, dlogits, sums):
    number, (n, c) = logits.dtype.type, logits.shape
    _launch_rows(_cross_entropy_probabilities_lines, _cross_entropy_probabilities_long, 2, logits, targets, weights,
                 number(1 - smoothing), number(smoothing / c), number(1 / max(1, n)), dlogits, sums)
    add_all_cuda(sums, max(1, n), loss)


def multiclass_perceptron(logits, labels, weights, loss, dlogits, sums):
    n = logits.shape[0]
    portion = logits.dtype.type(1 / max(1, n))
    _multiclass_perceptron[blocks(n), THREADS](logits, labels, weights, portion, dlogits, sums)
    add_all_cuda(sums, max(1, n), loss)
