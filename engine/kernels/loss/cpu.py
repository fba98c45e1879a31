"""CPU kernels of the losses: forward and backward of a row while it is in the cache. Shapes: p, z (n, c), w (n,)."""
import math

from numba import njit

from engine.kernels import elementary
from engine.kernels.split import span


@njit(error_model="numpy")
def pointwise(p, y, w, f, slope, q, scale, loss, dp, losses, task, tasks):
    """losses[i] = w[i] * sum over j of f(p, y) * scale; dp = w[i] / n * scale * slope(p, y)"""
    n, c = p.shape
    first, count = span(n, task, tasks)
    q_ = p.dtype.type(q)
    for k in range(count):
        i = first + k
        row, target, out = p[i], y[i], dp[i]
        factor = p.dtype.type(scale * w[i] / n)
        total = 0.0
        for j in range(c):
            total += f(row[j], target[j], q_)
        for j in range(c):
            out[j] = factor * slope(row[j], target[j], q_)
        losses[i] = total * scale * w[i]


@njit(error_model="numpy")
def add_losses(p, y, w, f, slope, q, scale, loss, dp, losses, task, tasks):
    """loss = sum of the samples' losses / n, in their order"""
    total = 0.0
    for i in range(losses.size if task == 0 else 0):
        total += losses[i]
    if task == 0:
        loss[0] = total / max(1, losses.size)


@njit(error_model="numpy")
def cross_entropy(z, labels, w, smoothing, loss, dz, losses, task, tasks):
    """Softmax, loss and gradient of each row while it is in the cache."""
    n, c = z.shape
    first, count = span(n, task, tasks)
    rest = z.dtype.type(smoothing / c)
    for k in range(count):
        i = first + k
        row, out, label = z[i], dz[i], labels[i]
        top, total, logits = row[0], z.dtype.type(0), 0.0
        for j in range(1, c):
            top = row[j] if row[j] > top else top
        for j in range(c):
            out[j] = elementary.exp(row[j] - top)
        for j in range(c):
            total += out[j]
        for j in range(c):
            logits += row[j]
        factor, inverse = z.dtype.type(w[i] / n), z.dtype.type(1) / total
        for j in range(c):
            out[j] = factor * (out[j] * inverse - rest)
        if 0 <= label < c:
            out[label] -= factor * z.dtype.type(1 - smoothing)
            seen = (1 - smoothing) * row[label] + smoothing / c * logits
            losses[i] = w[i] * (math.log(total) + top - seen)
        else:
            losses[i] = math.nan


@njit(error_model="numpy")
def add_cross_entropy(z, labels, w, smoothing, loss, dz, losses, task, tasks):
    """loss = sum of the samples' losses / n, in their order"""
    total = 0.0
    for i in range(losses.size if task == 0 else 0):
        total += losses[i]
    if task == 0:
        loss[0] = total / max(1, losses.size)


@njit(error_model="numpy")
def probabilities(z, y, w, smoothing, loss, dz, losses, task, tasks):
    """As `cross_entropy`, against rows of probabilities."""
    n, c = z.shape
    first, count = span(n, task, tasks)
    for k in range(count):
        i = first + k
        row, target, out = z[i], y[i], dz[i]
        top, total, weight, seen = row[0], z.dtype.type(0), 0.0, 0.0
        for j in range(1, c):
            top = row[j] if row[j] > top else top
        for j in range(c):
            out[j] = elementary.exp(row[j] - top)
        for j in range(c):
            total += out[j]
            weight += target[j]
        share_of = smoothing / c * weight
        for j in range(c):
            t = (1 - smoothing) * target[j] + share_of
            if t != 0:                       # a logit of -inf counts only where it is asked for
                seen += t * (row[j] - top)
            out[j] = z.dtype.type(w[i] / n * (out[j] / total * weight - t))
        losses[i] = w[i] * (math.log(total) * weight - seen)
