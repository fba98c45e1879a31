"""Normalisation: batch norm (training and inference), layer norm, RMS norm, with their gradients.

Shapes: x seen as (n, c), c the last axis (channels last: all other axes are rows); gamma, beta (c,).

    batch_norm            y = gamma (x - mean) inverse + beta, inverse = 1 / sqrt(var + epsilon), mean and var (c,) of
                          the batch (Ioffe, Szegedy 2015); the running ones move: m = momentum m + (1 - momentum) mean,
                          and alike with the unbiased variance (n - 1), as PyTorch (its momentum is one minus this one)
    batch_norm_inference  the same with the running mean and variance
    layer_norm            mean and var of each row (Ba et al. 2016)
    rms_norm              y = gamma x / sqrt(mean(x^2) + epsilon) (Zhang, Sennrich 2019)

Variances are sums of squared distances from the mean (two passes): no cancellation. Sums are in float64.
"""
import math

import numpy as np
from numba import njit

from engine.kernels.gpu import THREADS, blocks, cuda, kernel
from engine.kernels.op import Cost, Op, demand, floats, rows, share, spec
from engine.kernels.split import span

STRIPE = 64                                  # channels summed side by side

# ----------------------------------------------------------------------------------------------------- NumPy reference


def _axes(x):
    return tuple(range(x.ndim - 1))


def batch_norm_reference(x, gamma, beta, mean, variance, momentum, epsilon):
    n = x.size // max(1, x.shape[-1])
    if n == 0:
        return x.copy(), mean.copy(), variance.copy(), np.zeros_like(gamma), np.ones_like(gamma)
    m, v = x.mean(_axes(x)), x.var(_axes(x))
    inverse = 1 / np.sqrt(v + epsilon)
    keep = 1 - momentum
    return ((x - m) * inverse * gamma + beta, momentum * mean + keep * m,
            momentum * variance + keep * v * (n / max(1, n - 1)), m, inverse)


def batch_norm_grad_reference(dy, x, gamma, mean, inverse):
    n = max(1, x.size // max(1, x.shape[-1]))
    z = (x - mean) * inverse
    dgamma, dbeta = (dy * z).sum(_axes(x)), dy.sum(_axes(x))
    return gamma * inverse * (dy - dbeta / n - z * dgamma / n), dgamma, dbeta


def inference_reference(x, gamma, beta, mean, variance, epsilon):
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def inference_grad_reference(dy, x, gamma, mean, variance, epsilon):
    inverse = 1 / np.sqrt(variance + epsilon)
    return dy * gamma * inverse, (dy * (x - mean) * inverse).sum(_axes(x)), dy.sum(_axes(x))


def layer_norm_reference(x, gamma, beta, epsilon):
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return gamma * (x - x.mean(-1, keepdims=True)) * inverse + beta


def layer_norm_grad_reference(dy, x, gamma, epsilon):
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    z, g = (x - x.mean(-1, keepdims=True)) * inverse, dy * gamma
    dx = inverse * (g - g.mean(-1, keepdims=True) - z * (g * z).mean(-1, keepdims=True))
    return dx, (dy * z).sum(_axes(x)), dy.sum(_axes(x))


def rms_norm_reference(x, gamma, epsilon):
    return gamma * x / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon)


def rms_norm_grad_reference(dy, x, gamma, epsilon):
    inverse = 1 / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon)
    z, g = x * inverse, dy * gamma
    return inverse * (g - z * (g * z).mean(-1, keepdims=True)), (dy * z).sum(_axes(x))


# ---------------------------------------------------------------------------------------------------------------- CPU


@njit(error_model="numpy")
def batch_norm_cpu(x, gamma, beta, old_mean, old_variance, momentum, epsilon, y, run_mean, run_variance, mean, inverse,
                   sums, task, tasks):
    """A task takes some channels of all rows: each channel is summed in the order of its rows."""
    n, c = x.shape
    first, count = span(c, task, tasks)
    s = sums[first:first + count]
    for k in range(count):
        s[k] = 0
    for i in range(n):
        for k in range(count):
            s[k] += x[i, first + k]
    for k in range(count):
        mean[first + k] = s[k] / n if n else 0
        s[k] = 0
    for i in range(n):
        for k in range(count):
            d = x[i, first + k] - mean[first + k]
            s[k] += d * d
    for k in range(count):
        j = first + k
        inverse[j] = 1 / math.sqrt(s[k] / n + epsilon) if n else 1
        if n:
            run_mean[j] = momentum * old_mean[j] + (1 - momentum) * mean[j]
            run_variance[j] = momentum * old_variance[j] + (1 - momentum) * s[k] / max(1, n - 1)
    for i in range(n):
        for k in range(count):
            j = first + k
            y[i, j] = (x[i, j] - mean[j]) * inverse[j] * gamma[j] + beta[j]


@njit(error_model="numpy")
def batch_norm_grad_cpu(dy, x, gamma, mean, inverse, dx, dgamma, dbeta, sums, task, tasks):
    """As the forward pass: some channels, all rows."""
    n, c = x.shape
    first, count = span(c, task, tasks)
    s, t = sums[first:first + count], sums[c + first:c + first + count]
    for k in range(count):
        s[k] = 0
        t[k] = 0
    for i in range(n):
        for k in range(count):
            j = first + k
            s[k] += dy[i, j] * (x[i, j] - mean[j]) * inverse[j]
            t[k] += dy[i, j]
    for k in range(count):
        dgamma[first + k] = s[k]
        dbeta[first + k] = t[k]
    for i in range(n):
        for k in range(count):
            j = first + k
            z = (x[i, j] - mean[j]) * inverse[j]
            dx[i, j] = gamma[j] * inverse[j] * (dy[i, j] - dbeta[j] / n - z * dgamma[j] / n)


@njit(error_model="numpy")
def inference_cpu(x, gamma, beta, mean, variance, epsilon, y, task, tasks):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta"""
    first, count = span(x.shape[0], task, tasks)
    e = x.dtype.type(epsilon)
    for k in range(count):
        row, out = x[first + k], y[first + k]
        for j in range(x.shape[1]):
            out[j] = gamma[j] * (row[j] - mean[j]) / math.sqrt(variance[j] + e) + beta[j]


@njit(error_model="numpy")
def inference_grad_cpu(dy, x, gamma, mean, variance, epsilon, dx, dgamma, dbeta, task, tasks):
    """Some channels, all rows."""
    first, count = span(x.shape[1], task, tasks)
    for k in range(count):
        j = first + k
        scale, bias, inverse = 0.0, 0.0, 1 / math.sqrt(variance[j] + epsilon)
        for i in range(x.shape[0]):
            scale += dy[i, j] * (x[i, j] - mean[j]) * inverse
            bias += dy[i, j]
            dx[i, j] = dy[i, j] * gamma[j] * inverse
        dgamma[j], dbeta[j] = scale, bias


@njit(error_model="numpy", forceinline=True)
def row_moments(row, centred, epsilon):
    """(mean, 1 / sqrt(mean of squared distances + epsilon)); the mean is 0 unless centred."""
    total, squares, c = 0.0, 0.0, row.size
    if centred:
        for j in range(c):
            total += row[j]
    mean = row.dtype.type(total / c)
    for j in range(c):
        d = row[j] - mean
        squares += d * d
    return mean, row.dtype.type(1 / math.sqrt(squares / c + epsilon))


@njit(error_model="numpy")
def layer_norm_cpu(x, gamma, beta, epsilon, y, task, tasks):
    """Each row by its own mean and variance."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        row, out = x[first + k], y[first + k]
        mean, inverse = row_moments(row, True, epsilon)
        for j in range(row.size):
            out[j] = gamma[j] * (row[j] - mean) * inverse + beta[j]


@njit(error_model="numpy")
def rms_norm_cpu(x, gamma, epsilon, y, task, tasks):
    """Each row by its root mean square."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        row, out = x[first + k], y[first + k]
        _, inverse = row_moments(row, False, epsilon)
        for j in range(row.size):
            out[j] = gamma[j] * row[j] * inverse


@njit(error_model="numpy", forceinline=True)
def row_grad(dy, row, gamma, centred, epsilon, dx):
    """dx of one row; returns its mean and inverse."""
    mean, inverse = row_moments(row, centred, epsilon)
    plain, along, c = 0.0, 0.0, row.size
    for j in range(c):
        g = dy[j] * gamma[j]
        along += g * (row[j] - mean) * inverse
        plain += g
    shift = row.dtype.type(plain / c if centred else 0.0)
    slope = row.dtype.type(along / c)
    for j in range(c):
        dx[j] = inverse * (dy[j] * gamma[j] - shift - (row[j] - mean) * inverse * slope)
    return mean, inverse


@njit(error_model="numpy")
def layer_norm_rows_cpu(dy, x, gamma, epsilon, dx, dgamma, dbeta, moments, task, tasks):
    """Phase 1: dx row by row; keeps each row's moments."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        i = first + k
        moments[i, 0], moments[i, 1] = row_grad(dy[i], x[i], gamma, True, epsilon, dx[i])


@njit(error_model="numpy")
def layer_norm_columns_cpu(dy, x, gamma, epsilon, dx, dgamma, dbeta, moments, task, tasks):
    """Phase 2: dgamma and dbeta; some channels, all rows in order."""
    first, count = span(x.shape[1], task, tasks)
    for k in range(count):
        dgamma[first + k] = 0
        dbeta[first + k] = 0
    for i in range(x.shape[0]):
        for k in range(count):
            j = first + k
            dgamma[j] += dy[i, j] * (x[i, j] - moments[i, 0]) * moments[i, 1]
            dbeta[j] += dy[i, j]


@njit(error_model="numpy")
def rms_norm_rows_cpu(dy, x, gamma, epsilon, dx, dgamma, moments, task, tasks):
    """Phase 1: dx row by row."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        i = first + k
        moments[i, 0], moments[i, 1] = row_grad(dy[i], x[i], gamma, False, epsilon, dx[i])


@njit(error_model="numpy")
def rms_norm_columns_cpu(dy, x, gamma, epsilon, dx, dgamma, moments, task, tasks):
    """Phase 2: dgamma; some channels, all rows in order."""
    first, count = span(x.shape[1], task, tasks)
    for k in range(count):
        dgamma[first + k] = 0
    for i in range(x.shape[0]):
        for k in range(count):
            dgamma[first + k] += dy[i, first + k] * x[i, first + k] * moments[i, 1]


# --------------------------------------------------------------------------------------------------------------- CUDA


@kernel
def _batch_norm(x, gamma, beta, old_mean, old_variance, momentum, epsilon, y, run_mean, run_variance, mean, inverse):
    j = cuda.grid(1)
    n = x.shape[0]
    if j < x.shape[1]:
        total, squares = 0.0, 0.0
        for i in range(n):
            total += x[i, j]
        m = x.dtype.type(total / max(1, n))
        for i in range(n):
            squares += (x[i, j] - m) * (x[i, j] - m)
        q = x.dtype.type(1 / math.sqrt(squares / max(1, n) + epsilon))
        mean[j] = m
        inverse[j] = q if n else x.dtype.type(1)
        if n:
            run_mean[j] = momentum * old_mean[j] + (1 - momentum) * m
            run_variance[j] = momentum * old_variance[j] + (1 - momentum) * squares / max(1, n - 1)
        for i in range(n):
            y[i, j] = (x[i, j] - m) * q * gamma[j] + beta[j]


@kernel
def _norm_grad(dy, x, gamma, mean, inverse, moving, dx, dgamma, dbeta):
    """moving: the moments depend on x (training)."""
    j = cuda.grid(1)
    n = x.shape[0]
    if j < x.shape[1]:
        scale, bias = 0.0, 0.0
        for i in range(n):
            scale += dy[i, j] * (x[i, j] - mean[j]) * inverse[j]
            bias += dy[i, j]
        for i in range(n):
            z = (x[i, j] - mean[j]) * inverse[j]
            less = (bias + z * scale) / n if moving else 0.0
            dx[i, j] = gamma[j] * inverse[j] * x.dtype.type(dy[i, j] - less)
        dgamma[j] = scale
        dbeta[j] = bias


@kernel
def _inference(x, gamma, beta, mean, variance, epsilon, y):
    k = cuda.grid(1)
    if k < x.size:
        i, j = k // x.shape[1], k % x.shape[1]
        y[i, j] = gamma[j] * (x[i, j] - mean[j]) / math.sqrt(variance[j] + x.dtype.type(epsilon)) + beta[j]


@kernel
def _inference_grad(dy, x, gamma, mean, variance, epsilon, dx, dgamma, dbeta):
    j = cuda.grid(1)
    if j < x.shape[1]:
        scale, bias, inverse = 0.0, 0.0, 1 / math.sqrt(variance[j] + epsilon)
        for i in range(x.shape[0]):
            scale += dy[i, j] * (x[i, j] - mean[j]) * inverse
            bias += dy[i, j]
            dx[i, j] = dy[i, j] * gamma[j] * inverse
        dgamma[j] = scale
        dbeta[j] = bias


@kernel
def _row_norm(x, gamma, beta, centred, epsilon, y):
    """beta is read only when centred."""
    i = cuda.grid(1)
    if i < x.shape[0]:
        c, total, squares = x.shape[1], 0.0, 0.0
        for j in range(c):
            total += x[i, j]
        mean = total / c if centred else 0.0
        for j in range(c):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
        inverse = 1 / math.sqrt(squares / c + epsilon)
        for j in range(c):
            y[i, j] = gamma[j] * (x[i, j] - mean) * inverse + (beta[j] if centred else x.dtype.type(0))


@kernel
def _row_norm_grad(dy, x, gamma, centred, epsilon, dx, moments):
    i = cuda.grid(1)
    if i < x.shape[0]:
        c, total, squares, plain, along = x.shape[1], 0.0, 0.0, 0.0, 0.0
        for j in range(c):
            total += x[i, j]
        mean = total / c if centred else 0.0
        for j in range(c):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
        inverse = 1 / math.sqrt(squares / c + epsilon)
        for j in range(c):
            along += dy[i, j] * gamma[j] * (x[i, j] - mean) * inverse
            plain += dy[i, j] * gamma[j]
        shift = plain / c if centred else 0.0
        for j in range(c):
            dx[i, j] = inverse * (dy[i, j] * gamma[j] - shift - (x[i, j] - mean) * inverse * along / c)
        moments[i, 0] = mean
        moments[i, 1] = inverse


@kernel
def _columns(dy, x, moments, with_beta, dgamma, dbeta):
    j = cuda.grid(1)
    if j < x.shape[1]:
        scale, bias = 0.0, 0.0
        for i in range(x.shape[0]):
            scale += dy[i, j] * (x[i, j] - moments[i, 0]) * moments[i, 1]
            bias += dy[i, j]
        dgamma[j] = scale
        if with_beta:
            dbeta[j] = bias


def batch_norm_cuda(x, *rest):
    _batch_norm[blocks(x.shape[1]), THREADS](x, *rest)


def batch_norm_grad_cuda(dy, x, gamma, mean, inverse, *outs):
    _norm_grad[blocks(x.shape[1]), THREADS](dy, x, gamma, mean, inverse, 1, *outs)


def inference_cuda(x, *rest):
    _inference[blocks(x.size), THREADS](x, *rest)


def inference_grad_cuda(dy, x, *rest):
    _inference_grad[blocks(x.shape[1]), THREADS](dy, x, *rest)


def layer_norm_cuda(x, gamma, beta, epsilon, y):
    _row_norm[blocks(x.shape[0]), THREADS](x, gamma, beta, 1, epsilon, y)


def rms_norm_cuda(x, gamma, epsilon, y):
    _row_norm[blocks(x.shape[0]), THREADS](x, gamma, gamma, 0, epsilon, y)


def layer_norm_grad_cuda(dy, x, gamma, epsilon, dx, dgamma, dbeta, moments):
    if x.shape[0]:
        _row_norm_grad[blocks(x.shape[0]), THREADS](dy, x, gamma, 1, epsilon, dx, moments)
    _columns[blocks(x.shape[1]), THREADS](dy, x, moments, 1, dgamma, dbeta)


def rms_norm_grad_cuda(dy, x, gamma, epsilon, dx, dgamma, moments):
    if x.shape[0]:
        _row_norm_grad[blocks(x.shape[0]), THREADS](dy, x, gamma, 0, epsilon, dx, moments)
    _columns[blocks(x.shape[1]), THREADS](dy, x, moments, 0, dgamma, dgamma)


# ------------------------------------------------------------------------------------------------------------- records


def _channels(x, *vectors):
    floats(x, *vectors)
    demand(x.ndim >= 2 and x.shape[-1] > 0, "x of shape (n, ..., channels)", x.shape)
    for v in vectors:
        demand(v.shape == x.shape[-1:], f"a value for each of the {x.shape[-1]} channels", v.shape)
    return spec(x)


def batch_norm_shapes(x, gamma, beta, mean, variance, momentum, epsilon):
    demand(0 <= momentum <= 1, "a momentum from 0 to 1", momentum)
    demand(epsilon > 0, "an epsilon above 0", epsilon)
    return (_channels(x, gamma, beta, mean, variance), *(spec(mean),) * 4)


def batch_norm_grad_shapes(dy, x, gamma, mean, inverse):
    demand(dy.shape == x.shape, f"dy of the shape of x, {x.shape}", dy.shape)
    return _channels(x, gamma, mean, inverse), spec(gamma), spec(gamma)


def inference_shapes(x, gamma, beta, mean, variance, epsilon):
    return _channels(x, gamma, beta, mean, variance)


def inference_grad_shapes(dy, x, gamma, mean, variance, epsilon):
    return _channels(x, gamma, mean, variance), spec(gamma), spec(gamma)


def with_work(size, dtype="float64"):
    """`rows`, with float64 scratch of size(n, c)."""
    def arrange(inputs, outputs, attributes, threads):
        made = rows(inputs, outputs, attributes, threads)
        shape = size(*made.inputs[0])
        scratch = (spec(np.empty(0, dtype))._replace(shape=shape),)
        tasks = min(share(4 * inputs[0].size, threads), max(1, made.inputs[0][1] // STRIPE))
        return made._replace(work=scratch, gpu_work=scratch if len(shape) == 2 else (), tasks=tasks)
    return arrange


def batch_norm_gradient(graph, node, dy, *_):
    x, gamma = node.inputs[:2]
    return (*graph.add("batch_norm_grad", dy, x, gamma, node.outputs[3], node.outputs[4]), None, None)


def inference_gradient(graph, node, dy):
    x, gamma, _, mean, variance = node.inputs
    return (*graph.add("batch_norm_inference_grad", dy, x, gamma, mean, variance, **node.attributes), None, None)


def layer_norm_gradient(graph, node, dy):
    return graph.add("layer_norm_grad", dy, *node.inputs[:2], **node.attributes)


def rms_norm_gradient(graph, node, dy):
    return graph.add("rms_norm_grad", dy, *node.inputs, **node.attributes)


SHAPES = ((7, 5), (1, 3), (4, 3, 6), (67, 33))


def _batch_samples(rng):
    for shape in ((0, 3), *SHAPES):
        c = shape[-1]
        yield (rng.standard_normal(shape) + 3, rng.random(c) + 0.5, rng.standard_normal(c), rng.standard_normal(c),
               rng.random(c) + 0.5), {"momentum": 0.9, "epsilon": 1e-3}


def _batch_grad_samples(rng):
    for shape in SHAPES:
        x = rng.standard_normal(shape)
        m, v = x.mean(_axes(x)), x.var(_axes(x))
        yield (rng.standard_normal(shape), x, rng.random(shape[-1]) + 0.5, m, 1 / np.sqrt(v + 1e-3)), {}


def _inference_samples(rng):
    for inputs, attributes in _batch_samples(rng):
        yield inputs, {"epsilon": attributes["epsilon"]}


def _inference_grad_samples(rng):
    for (x, gamma, _, mean, variance), attributes in _inference_samples(rng):
        yield (rng.standard_normal(x.shape), x, gamma, mean, variance), attributes


def _row_samples(rng):
    for shape in ((0, 3), *SHAPES):
        yield (rng.standard_normal(shape) + 1, rng.random(shape[-1]) + 0.5, rng.standard_normal(shape[-1])), {}


def _row_grad_samples(rng):
    for (x, gamma, _), attributes in _row_samples(rng):
        yield (rng.standard_normal(x.shape), x, gamma), attributes


def _terms(first, *rest, **attributes):
    return 4 * first.size // max(1, first.shape[-1]) + 4 * first.shape[-1]


def _cost(inputs, outputs, attributes):
    return Cost(8 * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def _op(name, reference, shapes, cpu, launcher, samples, arrange, grad=None, attributes=None, **more):
    return Op(name, reference, shapes, cpu, launcher, samples, arrange, grad, _terms, _cost, attributes or {}, **more)


EPSILON = {"epsilon": 1e-5}
OPS = (
    _op("batch_norm", batch_norm_reference, batch_norm_shapes, batch_norm_cpu, batch_norm_cuda, _batch_samples,
        with_work(lambda n, c: (c,)), batch_norm_gradient, {"momentum": 0.99, "epsilon": 1e-3}, updates={1: 3, 2: 4},
        byproducts=frozenset({1, 2, 3, 4})),
    _op("batch_norm_grad", batch_norm_grad_reference, batch_norm_grad_shapes, batch_norm_grad_cpu, batch_norm_grad_cuda,
        _batch_grad_samples, with_work(lambda n, c: (2 * c,))),
    _op("batch_norm_inference", inference_reference, inference_shapes, inference_cpu, inference_cuda, _inference_samples,
        rows, inference_gradient, {"epsilon": 1e-3}),
    _op("batch_norm_inference_grad", inference_grad_reference, inference_grad_shapes, inference_grad_cpu,
        inference_grad_cuda, _inference_grad_samples, rows, None, {"epsilon": 1e-3}),
    _op("layer_norm", layer_norm_reference, lambda x, gamma, beta, epsilon: _channels(x, gamma, beta), layer_norm_cpu,
        layer_norm_cuda, _row_samples, rows, layer_norm_gradient, EPSILON),
    _op("layer_norm_grad", layer_norm_grad_reference,
        lambda dy, x, gamma, epsilon: (_channels(x, gamma), spec(gamma), spec(gamma)),
        (layer_norm_rows_cpu, layer_norm_columns_cpu), layer_norm_grad_cuda, _row_grad_samples,
        with_work(lambda n, c: (n, 2)), None, EPSILON),
    _op("rms_norm", rms_norm_reference, lambda x, gamma, epsilon: _channels(x, gamma), rms_norm_cpu, rms_norm_cuda,
        lambda rng: (((x, g), a) for (x, g, _), a in _row_samples(rng)), rows, rms_norm_gradient, EPSILON),
    _op("rms_norm_grad", rms_norm_grad_reference, lambda dy, x, gamma, epsilon: (_channels(x, gamma), spec(gamma)),
        (rms_norm_rows_cpu, rms_norm_columns_cpu), rms_norm_grad_cuda, _row_grad_samples,
        with_work(lambda n, c: (n, 2)), None, EPSILON),
)
