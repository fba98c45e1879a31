"""CPU kernels of the losses. Rows are worked through in blocks of a fixed number of rows, each with its own sum."""
import math

import numpy as np

from engine.kernels import elementary
from engine.kernels.simd import flattened, part
from engine.kernels.split import SUMS, span

WIDE, LONG = 32, 256                         # interleaved comparisons, in rows of at least so many values


@part(fastmath=SUMS)
def total_of(values):
    total = values.dtype.type(0)
    for i in range(values.size):
        total += values[i]
    return total


@part(forceinline=True)
def largest(row):
    """The largest value; NaN is passed over unless it comes first."""
    top = row[0]
    for j in range(1, row.size):
        top = row[j] if row[j] > top else top
    return top


@part(disjoint=True)
def largest_of_many(row, room):
    """The same in WIDE interleaved comparisons, kept in `room`: LLVM may not reorder them, as NaN has a meaning."""
    for j in range(WIDE):
        room[j] = row[j]
    for first in range(WIDE, row.size - WIDE + 1, WIDE):
        part = row[first:first + WIDE]
        for j in range(WIDE):
            room[j] = part[j] if part[j] > room[j] else room[j]
    last = largest(row[row.size - WIDE:])                # some of them for the second time
    top = largest(room[:WIDE])
    return last if last > top else top


@part(disjoint=True)
def weigh(values, slopes, weights, c, factor):
    """The weighted sum of the values, c of them to a weight; slopes *= weight * factor."""
    number, total = slopes.dtype.type, 0.0
    factor = number(factor)
    if c == 1:
        for i in range(weights.size):
            values[i] *= weights[i]
            slopes[i] *= weights[i] * factor
        return np.float64(total_of(values[:weights.size]))
    for r in range(weights.size):
        total += np.float64(weights[r]) * np.float64(total_of(values[r * c:(r + 1) * c]))
        row, scale = slopes[r * c:(r + 1) * c], weights[r] * factor
        for j in range(c):
            row[j] *= scale
    return total


@part(disjoint=True)
def pointwise(pred, target, weights, value, slope, parameter, part, loss, dpred, sums, values, rows, task, tasks):
    """sums[b] = the weighted loss of block b;  dpred = slope(pred, target) * weight * part / n"""
    n = max(1, weights.size)
    c, parameter = pred.size // n, pred.dtype.type(parameter)
    first, count = span(sums.size, task, tasks)
    for b in range(first, first + count):
        start, end = b * rows, min(weights.size, (b + 1) * rows)
        p, t, d, v = pred[start * c:end * c], target[start * c:end * c], dpred[start * c:end * c], values[task]
        for i in range(p.size):
            v[i] = value(p[i], t[i], parameter)
            d[i] = slope(p[i], t[i], parameter)
        sums[b] = weigh(v, d, weights[start:end], c, part / n) * part


@part
def mean_of_values(pred, target, weights, value, slope, parameter, part, loss, dpred, sums, values, rows, task, tasks):
    """loss = sum of the blocks' sums / n"""
    if task == 0:
        loss[0] = loss.dtype.type(total_of(sums) / max(1, weights.size))


@part(disjoint=True)
def exponentials(x, c, tops, e):
    """e = exp(x - the row's largest value), which goes into tops; the rows of a block one behind the other"""
    for r in range(x.size // c):
        row, out = x[r * c:(r + 1) * c], e[r * c:(r + 1) * c]
        top = largest(row) if c < LONG else largest_of_many(row, out)
        tops[r] = top
        for j in range(c):
            out[j] = row[j] - top
    for i in range(x.size):                  # over all rows at once: short rows would leave vectors half empty
        e[i] = elementary.exp(e[i])


@part(fastmath=SUMS)
def distance_below(row, top):
    """The sum of top - row."""
    total = row.dtype.type(0)
    for j in range(row.size):
        total += top - row[j]
    return total


@part(disjoint=True)
def cross_entropy(logits, labels, weights, smoothing, loss, dlogits, sums, tops, rows, task, tasks):
    number, (n, c) = logits.dtype.type, logits.shape
    flat, slopes = flattened(logits), flattened(dlogits)
    on, off = number(1 - smoothing), number(smoothing / c)
    first, count = span(sums.size, task, tasks)
    for b in range(first, first + count):
        start, end, sum_of_block = b * rows, min(n, (b + 1) * rows), 0.0
        x, d, top = flat[start * c:end * c], slopes[start * c:end * c], tops[task]
        exponentials(x, c, top, d)
        for r in range(end - start):
            row, given = d[r * c:(r + 1) * c], x[r * c:(r + 1) * c]
            label, weight = labels[start + r], weights[start + r]
            if label < 0 or label >= c:
                sum_of_block = math.nan
                row[:] = number(math.nan)
                continue
            total = total_of(row)
            entropy = elementary.log(total) + on * (top[r] - given[label])
            if off > 0:
                entropy += off * distance_below(given, top[r])
            sum_of_block += np.float64(weight) * np.float64(entropy)
            weight /= number(n)
            scale, less = weight / total, off * weight
            for j in range(c):
                row[j] = row[j] * scale - less
            row[label] -= on * weight
        sums[b] = sum_of_block


@part(fastmath=SUMS)
def mixed_entropy(row, targets, top, log_total, on, off):
    """(sum of t, sum of t (log_total + top - x)) with t = on * target + off; what t = 0 excludes may be infinite"""
    mass, entropy, zero = row.dtype.type(0), row.dtype.type(0), row.dtype.type(0)
    for j in range(row.size):
        t = on * targets[j] + off
        surprise = t * (log_total + (top - row[j]))
        mass += t
        entropy += surprise if t != zero else zero
    return mass, entropy


@part(disjoint=True)
def cross_entropy_probabilities(logits, targets, weights, smoothing, loss, dlogits, sums, tops, rows, task, tasks):
    number, (n, c) = logits.dtype.type, logits.shape
    flat, wanted_flat, slopes = flattened(logits), flattened(targets), flattened(dlogits)
    on, off = number(1 - smoothing), number(smoothing / c)
    first, count = span(sums.size, task, tasks)
    for b in range(first, first + count):
        start, end, sum_of_block = b * rows, min(n, (b + 1) * rows), 0.0
        x, t, d = flat[start * c:end * c], wanted_flat[start * c:end * c], slopes[start * c:end * c]
        top = tops[task]
        exponentials(x, c, top, d)
        for r in range(end - start):
            row, wanted, weight = d[r * c:(r + 1) * c], t[r * c:(r + 1) * c], weights[start + r]
            total = total_of(row)
            mass, entropy = mixed_entropy(x[r * c:(r + 1) * c], wanted, top[r], elementary.log(total), on, off)
            sum_of_block += np.float64(weight) * np.float64(entropy)
            weight /= number(n)
            scale = weight * mass / total
            for j in range(c):
                row[j] = row[j] * scale - weight * (on * wanted[j] + off)
        sums[b] = sum_of_block


@part
def mean_of_blocks(logits, labels, weights, smoothing, loss, dlogits, sums, tops, rows, task, tasks):
    if task == 0:
        loss[0] = loss.dtype.type(total_of(sums) / max(1, weights.size))


@part(forceinline=True)
def rival_of(row, label):
    """(the first largest value's place among the others, whether the row holds a NaN)"""
    rival, nan = 1 if label == 0 else 0, False
    for j in range(row.size):
        nan |= row[j] != row[j]
        if j != label and row[j] > row[rival]:
            rival = j
    return rival, nan


@part
def multiclass_perceptron(logits, labels, weights, loss, dlogits, sums, tops, rows, task, tasks):
    number, (n, c) = logits.dtype.type, logits.shape
    first, count = span(sums.size, task, tasks)
    for b in range(first, first + count):
        sum_of_block = 0.0
        for i in range(b * rows, min(n, (b + 1) * rows)):
            row, d, label = logits[i], dlogits[i], labels[i]
            d[:] = number(0)
            if label < 0 or label >= c:
                sum_of_block = math.nan
                continue
            rival, nan = rival_of(row, label)
            if nan:
                sum_of_block = math.nan
            elif row[rival] >= row[label]:
                sum_of_block += np.float64(weights[i]) * np.float64(row[rival] - row[label])
                d[rival] = weights[i] / number(n)
                d[label] = -d[rival]
        sums[b] = sum_of_block


@part
def mean_of_rows(logits, labels, weights, loss, dlogits, sums, tops, rows, task, tasks):
    if task == 0:
        loss[0] = loss.dtype.type(total_of(sums) / max(1, weights.size))
