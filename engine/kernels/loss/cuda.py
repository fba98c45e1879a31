"""CUDA kernels and launchers of the losses. Shapes: p, z (n, c), w (n,)."""
import math

from engine.kernels.gpu import THREADS, blocks, cuda, kernel, kernel_of


@kernel_of
def _pointwise(f, slope):
    def pointwise(p, y, w, q, scale, dp, losses):
        i = cuda.grid(1)
        if i < p.shape[0]:
            total = 0.0
            factor = p.dtype.type(scale * w[i] / p.shape[0])
            for j in range(p.shape[1]):
                total += f(p[i, j], y[i, j], p.dtype.type(q))
                dp[i, j] = factor * slope(p[i, j], y[i, j], p.dtype.type(q))
            losses[i] = total * scale * w[i]
    return pointwise


@kernel
def _mean(losses, loss):
    total = 0.0
    for i in range(losses.size):
        total += losses[i]
    loss[0] = total / max(1, losses.size)


@kernel
def _cross_entropy(z, labels, w, smoothing, dz, losses):
    i = cuda.grid(1)
    n, c = z.shape
    if i < n:
        top, total, logits = z[i, 0], z.dtype.type(0), 0.0
        for j in range(1, c):
            top = z[i, j] if z[i, j] > top else top
        for j in range(c):
            total += math.exp(z[i, j] - top)
            logits += z[i, j]
        factor, label = z.dtype.type(w[i] / n), labels[i]
        for j in range(c):
            hit = z.dtype.type(1 - smoothing) if j == label else z.dtype.type(0)
            dz[i, j] = factor * (math.exp(z[i, j] - top) / total - hit - z.dtype.type(smoothing / c))
        if label >= 0 and label < c:
            losses[i] = w[i] * (math.log(total) + top - (1 - smoothing) * z[i, label] - smoothing / c * logits)
        else:
            losses[i] = math.nan


@kernel
def _probabilities(z, y, w, smoothing, dz, losses):
    i = cuda.grid(1)
    n, c = z.shape
    if i < n:
        top, total, weight, seen = z[i, 0], z.dtype.type(0), 0.0, 0.0
        for j in range(1, c):
            top = z[i, j] if z[i, j] > top else top
        for j in range(c):
            total += math.exp(z[i, j] - top)
            weight += y[i, j]
        for j in range(c):
            t = (1 - smoothing) * y[i, j] + smoothing / c * weight
            if t != 0:
                seen += t * (z[i, j] - top)
            dz[i, j] = z.dtype.type(w[i] / n * (math.exp(z[i, j] - top) / total * weight - t))
        losses[i] = w[i] * (math.log(total) * weight - seen)


def pointwise(p, y, w, f, slope, q, scale, loss, dp, losses):
    if p.shape[0]:
        _pointwise(f, slope, p.dtype)[blocks(p.shape[0]), THREADS](p, y, w, q, scale, dp, losses)
    _mean[1, 1](losses, loss)


def cross_entropy(z, labels, w, smoothing, loss, dz, losses):
    if z.shape[0]:
        _cross_entropy[blocks(z.shape[0]), THREADS](z, labels, w, smoothing, dz, losses)
    _mean[1, 1](losses, loss)


def probabilities(z, y, w, smoothing, loss, dz, losses):
    if z.shape[0]:
        _probabilities[blocks(z.shape[0]), THREADS](z, y, w, smoothing, dz, losses)
    _mean[1, 1](losses, loss)
