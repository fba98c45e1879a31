"""Softmax and log-softmax along the last axis, with their gradients from the output.

    softmax        y = exp(x - top) / sum(exp(x - top))           dx = y (dy - sum(dy y))
    log_softmax    y = x - top - log(sum(exp(x - top)))           dx = dy - exp(y) sum(dy)

top is the row's largest value: huge values do not overflow. A row with NaN, or of -inf alone, gives NaN, as NumPy does.
Shapes: x seen as rows (n, c).
"""
import math

import numpy as np
from numba import njit

from engine.kernels import elementary
from engine.kernels.gpu import THREADS, blocks, cuda, kernel
from engine.kernels.op import Cost, Op, demand, floats, rows, spec
from engine.kernels.split import SUMS, span

# ----------------------------------------------------------------------------------------------------- NumPy reference


def softmax_reference(x):
    with np.errstate(all="ignore"):
        e = np.exp(x - x.max(-1, keepdims=True, initial=-np.inf))
        return e / e.sum(-1, keepdims=True)


def log_softmax_reference(x):
    with np.errstate(all="ignore"):
        z = x - x.max(-1, keepdims=True, initial=-np.inf)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))


def softmax_grad_reference(dy, y):
    return y * (dy - (dy * y).sum(-1, keepdims=True))


def log_softmax_grad_reference(dy, y):
    return dy - np.exp(y) * dy.sum(-1, keepdims=True)


# ---------------------------------------------------------------------------------------------------------------- CPU


@njit(error_model="numpy", forceinline=True)
def largest(row):
    """The largest value of a row; NaN is passed over (exp brings it back)."""
    top = row[0]
    for j in range(1, row.size):
        top = row[j] if row[j] > top else top
    return top


@njit(error_model="numpy", fastmath=SUMS)
def total(row):
    """The sum of a row, in vector lanes."""
    found = row.dtype.type(0)
    for j in range(row.size):
        found += row[j]
    return found


@njit(error_model="numpy", fastmath=SUMS)
def product(a, b):
    """The sum of a[j] b[j], in vector lanes."""
    found = a.dtype.type(0)
    for j in range(a.size):
        found += a[j] * b[j]
    return found


@njit(error_model="numpy")
def softmax_cpu(x, y, task, tasks):
    """Each row while it is in the cache."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        row, out = x[first + k], y[first + k]
        top = largest(row)
        for j in range(row.size):
            out[j] = elementary.exp(row[j] - top)
        inverse = 1 / total(out)
        for j in range(row.size):
            out[j] *= inverse


@njit(error_model="numpy")
def log_softmax_cpu(x, y, task, tasks):
    """y holds the exponentials first: no memory besides."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        row, out = x[first + k], y[first + k]
        top = largest(row)
        for j in range(row.size):
            out[j] = elementary.exp(row[j] - top)
        logarithm = elementary.log(total(out))
        for j in range(row.size):
            out[j] = row[j] - top - logarithm


@njit(error_model="numpy")
def softmax_grad_cpu(dy, y, dx, task, tasks):
    """dx = y (dy - sum(dy y))"""
    first, count = span(y.shape[0], task, tasks)
    for k in range(count):
        flow, row, out = dy[first + k], y[first + k], dx[first + k]
        mean = product(flow, row)
        for j in range(row.size):
            out[j] = row[j] * (flow[j] - mean)


@njit(error_model="numpy")
def log_softmax_grad_cpu(dy, y, dx, task, tasks):
    """dx = dy - exp(y) sum(dy)"""
    first, count = span(y.shape[0], task, tasks)
    for k in range(count):
        flow, row, out = dy[first + k], y[first + k], dx[first + k]
        whole = total(flow)
        for j in range(row.size):
            out[j] = flow[j] - elementary.exp(row[j]) * whole


# --------------------------------------------------------------------------------------------------------------- CUDA


@kernel
def _softmax(x, logarithm, y):
    i = cuda.grid(1)
    if i < x.shape[0]:
        top, found = x[i, 0], x.dtype.type(0)
        for j in range(1, x.shape[1]):
            top = x[i, j] if x[i, j] > top else top
        for j in range(x.shape[1]):
            found += math.exp(x[i, j] - top)
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] - top - math.log(found) if logarithm else math.exp(x[i, j] - top) / found


@kernel
def _softmax_grad(dy, y, logarithm, dx):
    i = cuda.grid(1)
    if i < y.shape[0]:
        found = y.dtype.type(0)
        for j in range(y.shape[1]):
            found += dy[i, j] if logarithm else dy[i, j] * y[i, j]
        for j in range(y.shape[1]):
            dx[i, j] = dy[i, j] - math.exp(y[i, j]) * found if logarithm else y[i, j] * (dy[i, j] - found)


def softmax_cuda(x, y):
    _softmax[blocks(x.shape[0]), THREADS](x, 0, y)


def log_softmax_cuda(x, y):
    _softmax[blocks(x.shape[0]), THREADS](x, 1, y)


def softmax_grad_cuda(dy, y, dx):
    _softmax_grad[blocks(y.shape[0]), THREADS](dy, y, 0, dx)


def log_softmax_grad_cuda(dy, y, dx):
    _softmax_grad[blocks(y.shape[0]), THREADS](dy, y, 1, dx)


# ------------------------------------------------------------------------------------------------------------- records


def softmax_shapes(x):
    floats(x)
    demand(x.ndim >= 2, "x of shape (n, ..., classes)", x.shape, "one row alone is x[None]")
    return spec(x)


def grad_shapes(dy, y):
    floats(dy, y)
    demand(dy.shape == y.shape, f"dy of the shape of y, {y.shape}", dy.shape)
    return softmax_shapes(y)


def _samples(rng):
    for shape in ((0, 3), (3, 0), (1, 1), (7, 5), (2, 3, 11), (17, 67)):
        yield (rng.standard_normal(shape) * 3,), {}
    yield (np.array([[1e4, -1e4, 0.0], [-np.inf, 0.0, 1.0], [1e30, -1e30, 1e30]]),), {}
    yield (np.array([[np.nan, 1.0], [-np.inf, -np.inf]]),), {}


def _grad_samples(reference):
    def samples(rng):
        for shape in ((0, 3), (1, 1), (7, 5), (2, 3, 11), (17, 67)):
            yield (rng.standard_normal(shape), reference(rng.standard_normal(shape) * 2)), {}
    return samples


def _terms(x, *rest):
    return x.shape[-1]


def _cost(inputs, outputs, attributes):
    return Cost(5 * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def _pair(name, reference, grad_reference, cpu, launcher, grad_cpu, grad_launcher):
    grad_op = Op(f"{name}_grad", grad_reference, grad_shapes, grad_cpu, grad_launcher, _grad_samples(reference), rows,
                 terms=_terms, cost=_cost)
    return (Op(name, reference, softmax_shapes, cpu, launcher, _samples, rows,
               lambda graph, node, dy: (graph.add(grad_op, dy, node.outputs[0]),), _terms, _cost), grad_op)


OPS = (*_pair("softmax", softmax_reference, softmax_grad_reference, softmax_cpu, softmax_cuda, softmax_grad_cpu,
              softmax_grad_cuda),
       *_pair("log_softmax", log_softmax_reference, log_softmax_grad_reference, log_softmax_cpu, log_softmax_cuda,
              log_softmax_grad_cpu, log_softmax_grad_cuda))
