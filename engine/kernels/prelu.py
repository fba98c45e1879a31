"""PReLU (He et al. 2015): y = x if x > 0 else alpha x, with one trained alpha for each channel (the last axis).

    dx = dy if x > 0 else alpha dy          dalpha (c,) = sum over rows of dy x where x <= 0

Shapes: x (n, c) after folding the leading axes, alpha (c,).
"""
import numpy as np

from engine.kernels.gpu import THREADS, blocks, cuda, kernel
from engine.kernels.op import Op, demand, floats, rows, spec
from engine.kernels.simd.parts import part
from engine.kernels.split import span

# ----------------------------------------------------------------------------------------------------- NumPy reference


def prelu_reference(x, alpha):
    return np.where(x > 0, x, alpha * x)


def prelu_grad_reference(dy, x, alpha):
    below = np.where(x > 0, 0.0, dy * x)
    return np.where(x > 0, dy, alpha * dy), below.reshape(-1, alpha.size).sum(0)


# ---------------------------------------------------------------------------------------------------------------- CPU


@part
def prelu_cpu(x, alpha, y, task, tasks):
    """y[i, j] = x[i, j] if x[i, j] > 0 else alpha[j] * x[i, j]"""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        i = first + k
        for j in range(x.shape[1]):
            v = x[i, j]
            y[i, j] = v if v > 0 else alpha[j] * v


@part
def prelu_grad_cpu(dy, x, alpha, dx, dalpha, task, tasks):
    """A task takes some channels of all rows, so that each channel is summed in one order."""
    first, count = span(x.shape[1], task, tasks)
    for k in range(count):
        dalpha[first + k] = 0
    for i in range(x.shape[0]):
        for k in range(count):
            j = first + k
            v, d = x[i, j], dy[i, j]
            dx[i, j] = d if v > 0 else alpha[j] * d
            dalpha[j] += x.dtype.type(0) if v > 0 else d * v


# --------------------------------------------------------------------------------------------------------------- CUDA


@kernel
def _prelu(x, alpha, y):
    i, j = cuda.grid(2)
    if i < x.shape[0] and j < x.shape[1]:
        v = x[i, j]
        y[i, j] = v if v > 0 else alpha[j] * v


@kernel
def _prelu_grad(dy, x, alpha, dx, dalpha):
    j = cuda.grid(1)
    if j < x.shape[1]:
        total = x.dtype.type(0)
        for i in range(x.shape[0]):
            v, d = x[i, j], dy[i, j]
            dx[i, j] = d if v > 0 else alpha[j] * d
            if not v > 0:
                total += d * v
        dalpha[j] = total


def prelu_cuda(x, alpha, y):
    side = 16
    _prelu[(blocks(x.shape[0], side), blocks(x.shape[1], side)), (side, side)](x, alpha, y)


def prelu_grad_cuda(dy, x, alpha, dx, dalpha):
    _prelu_grad[blocks(x.shape[1]), THREADS](dy, x, alpha, dx, dalpha)


# ------------------------------------------------------------------------------------------------------------- records


def prelu_shapes(x, alpha):
    floats(x, alpha)
    demand(x.ndim >= 2 and alpha.shape == x.shape[-1:], f"alpha of shape {x.shape[-1:]}, one for each channel",
           alpha.shape)
    return spec(x)


def prelu_grad_shapes(dy, x, alpha):
    floats(dy, x, alpha)
    demand(dy.shape == x.shape, f"dy of the shape of x, {x.shape}", dy.shape)
    return prelu_shapes(x, alpha), spec(alpha)


def prelu_gradient(graph, node, dy):
    return graph.add(PRELU_GRAD, dy, *node.inputs)


def _samples(rng):
    for shape in ((0, 3), (1, 1), (7, 5), (2, 3, 11), (33, 17)):
        yield (rng.standard_normal(shape), rng.standard_normal(shape[-1:])), {}


def _grad_samples(rng):
    for (x, alpha), _ in _samples(rng):
        yield (rng.standard_normal(x.shape), x, alpha), {}


def _terms(dy, x, alpha):
    return x.size // max(1, x.shape[-1])


PRELU_GRAD = Op("prelu_grad", prelu_grad_reference, prelu_grad_shapes, prelu_grad_cpu, prelu_grad_cuda, _grad_samples,
                rows, terms=_terms)
PRELU = Op("prelu", prelu_reference, prelu_shapes, prelu_cpu, prelu_cuda, _samples, rows, prelu_gradient)
OPS = (PRELU, PRELU_GRAD)
