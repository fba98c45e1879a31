"""Local response normalisation across neighbouring channels (Krizhevsky et al. 2012, AlexNet).

    d_j = k + alpha / size * (sum of x_i^2 for i from j - size // 2 to j + (size - 1) // 2), as PyTorch has it
    y_j = x_j d_j^-beta
    dx_i = dy_i d_i^-beta - 2 alpha beta / size x_i (sum of dy_j x_j d_j^(-beta - 1) over the j whose sum holds x_i^2)

The original's alpha and TensorFlow's are PyTorch's alpha / size. Shapes: x (n, c) after folding the leading axes.
"""
import math

import numpy as np

from engine.kernels import elementary
from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel
from engine.kernels.op import Cost, Op, Spec, demand, floats, rows, share, spec
from engine.kernels.simd.parts import part
from engine.kernels.split import greatest, least, span

# ----------------------------------------------------------------------------------------------------- NumPy reference


def over_neighbours(x, before, after):
    """The sum of x over the channels j - before .. j + after, for each j."""
    c = x.shape[-1]
    return np.stack([x[..., max(0, j - before):j + after + 1].sum(-1) for j in range(c)], -1)


def lrn_reference(x, size, alpha, beta, k):
    return x * (k + alpha / size * over_neighbours(x * x, size // 2, (size - 1) // 2)) ** -beta


def lrn_grad_reference(dy, x, size, alpha, beta, k):
    d = k + alpha / size * over_neighbours(x * x, size // 2, (size - 1) // 2)
    sent = over_neighbours(dy * x * d ** (-beta - 1), (size - 1) // 2, size // 2)
    return dy * d ** -beta - 2 * alpha * beta / size * x * sent


# ---------------------------------------------------------------------------------------------------------------- CPU


@part(disjoint=True)
def add_shifted(values, shift, total):
    """total[j] += values[j + shift], where there is one"""
    first, count = max(0, -shift), values.size - abs(shift)
    given, sums = values[first + shift:first + shift + count], total[first:first + count]
    for j in range(given.size):
        sums[j] += given[j]


@part(disjoint=True)
def denominators(x, size, scale, k, squares, d):
    """d = k + scale * the sum of the neighbours' squares"""
    for j in range(x.size):
        squares[j] = x[j] * x[j]
        d[j] = 0
    for shift in range(max(-(size // 2), 1 - x.size), min((size - 1) // 2, x.size - 1) + 1):
        add_shifted(squares, shift, d)
    for j in range(x.size):
        d[j] = k + scale * d[j]


@part(disjoint=True)
def scaled_by_power(x, d, beta, y):
    """y = x d^-beta"""
    for j in range(x.size):
        y[j] = x[j] * elementary.exp(-beta * elementary.log(d[j]))


@part
def lrn_cpu(x, size, alpha, beta, k, y, work, task, tasks):
    number, (squares, d) = x.dtype.type, (work[task, 0], work[task, 1])
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        denominators(x[i], size, number(alpha / size), number(k), squares, d)
        scaled_by_power(x[i], d, number(beta), y[i])


@part(disjoint=True)
def sent_back(dx, x, d, sent):
    """sent = dx x / d, where dx = dy d^-beta"""
    for j in range(x.size):
        sent[j] = dx[j] * x[j] / d[j]


@part(disjoint=True)
def taken_off(total, x, scale, dx):
    for j in range(x.size):
        dx[j] -= scale * x[j] * total[j]


@part
def lrn_grad_cpu(dy, x, size, alpha, beta, k, dx, work, task, tasks):
    number, (total, d, sent) = x.dtype.type, (work[task, 0], work[task, 1], work[task, 2])
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        denominators(x[i], size, number(alpha / size), number(k), total, d)
        scaled_by_power(dy[i], d, number(beta), dx[i])
        sent_back(dx[i], x[i], d, sent)
        total[:] = 0
        for shift in range(max(-((size - 1) // 2), 1 - total.size), min(size // 2, total.size - 1) + 1):
            add_shifted(sent, shift, total)
        taken_off(total, x[i], number(2 * alpha * beta / size), dx[i])


# --------------------------------------------------------------------------------------------------------------- CUDA


@device
def denominator(row, j, size, scale, k):
    total = row.dtype.type(0)
    for i in range(greatest(0, j - size // 2), least(row.size, j + (size - 1) // 2 + 1)):
        total += row[i] * row[i]
    return k + scale * total


@kernel
def _lrn(x, size, scale, beta, k, y):
    at = cuda.grid(1)
    if at < x.size:
        i = at // x.shape[1]
        j = at - i * x.shape[1]
        y[i, j] = x[i, j] * math.exp(-beta * math.log(denominator(x[i], j, size, scale, k)))


@kernel
def _lrn_grad(dy, x, size, scale, beta, k, dx):
    at = cuda.grid(1)
    if at < x.size:
        i = at // x.shape[1]
        j = at - i * x.shape[1]
        row, total, one = x[i], x.dtype.type(0), x.dtype.type(1)
        for other in range(greatest(0, j - (size - 1) // 2), least(row.size, j + size // 2 + 1)):
            d = denominator(row, other, size, scale, k)
            total += dy[i, other] * row[other] * math.exp((-beta - one) * math.log(d))
        own = math.exp(-beta * math.log(denominator(row, j, size, scale, k)))
        dx[i, j] = dy[i, j] * own - (scale + scale) * beta * row[j] * total


def lrn_cuda(x, size, alpha, beta, k, y):
    number = x.dtype.type
    _lrn[blocks(x.size), THREADS](x, size, number(alpha / size), number(beta), number(k), y)


def lrn_grad_cuda(dy, x, size, alpha, beta, k, dx):
    number = x.dtype.type
    _lrn_grad[blocks(x.size), THREADS](dy, x, size, number(alpha / size), number(beta), number(k), dx)


# ------------------------------------------------------------------------------------------------------------- records


def lrn_shapes(x, size, alpha, beta, k):
    floats(x)
    demand(x.ndim >= 2 and x.shape[-1] > 0, "x of shape (n, ..., channels)", x.shape)
    demand(size >= 1, "a size of at least 1", size)
    demand(alpha >= 0 and k > 0, "alpha of at least 0 and k above 0", f"alpha={alpha}, k={k}")
    return spec(x)


def lrn_grad_shapes(dy, x, size, alpha, beta, k):
    floats(dy, x)
    demand(dy.shape == x.shape, f"dy of the shape of x, {x.shape}", dy.shape)
    return lrn_shapes(x, size, alpha, beta, k)


def arrange(inputs, outputs, attributes, threads):
    size, *numbers = attributes.values()
    made = rows(inputs, outputs, {}, threads)
    tasks = share(4 * (size + 4) * inputs[0].size, threads)
    return made._replace(scalars=(int(size), *map(float, numbers)), tasks=tasks,
                         work=(Spec((tasks, 3, inputs[0].shape[-1]), inputs[0].dtype),))


def lrn_gradient(graph, node, dy):
    return (graph.add("local_response_norm_grad", dy, *node.inputs, **node.attributes),)


def _samples(rng):
    for shape, size, alpha, beta, k in (((0, 3), 5, 1e-4, 0.75, 2.0), ((1, 1), 5, 1e-4, 0.75, 2.0),
                                        ((2, 3, 2), 7, 0.5, 0.75, 1.0), ((4, 7), 3, 2.0, 0.5, 0.5),
                                        ((3, 37), 4, 0.3, 1.5, 1.0), ((5, 6), 1, 1.0, 0.75, 2.0)):
        yield (rng.standard_normal(shape),), {"size": size, "alpha": alpha, "beta": beta, "k": k}


def _grad_samples(rng):
    for (x,), attributes in _samples(rng):
        yield (rng.standard_normal(x.shape), x), attributes


def _terms(first, *rest, size, **attributes):
    return 4 * size + 16


def _cost(inputs, outputs, attributes):
    return Cost((attributes["size"] + 20) * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


NUMBERS = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
OPS = (
    Op("local_response_norm", lrn_reference, lrn_shapes, lrn_cpu, lrn_cuda, _samples, arrange, lrn_gradient, _terms,
       _cost, NUMBERS),
    Op("local_response_norm_grad", lrn_grad_reference, lrn_grad_shapes, lrn_grad_cpu, lrn_grad_cuda, _grad_samples,
       arrange, None, _terms, _cost, NUMBERS),
)
