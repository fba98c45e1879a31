"""Group normalisation (Wu, He 2018): each sample's channels in groups, every group normalised by its own moments.

    y = gamma (x - mean) inverse + beta, inverse = 1 / sqrt(var + epsilon), mean and var over the places and the
    channels of a group; groups = 1 is layer normalisation over all axes but the first, groups = c is instance
    normalisation (Ulyanov et al. 2016)
    outputs y, and mean and inverse (n, groups) for the backward pass

Shapes: x seen as (n, m, c), m places, c channels; gamma, beta (c,); channel j is in group j // (c / groups).
"""
import math

import numpy as np
from numba import float64

from engine.kernels.batch_norm import ONE, SAME
from engine.kernels.batch_norm.cpu import (
    chunk_rows,
    line_of,
    moments_of_chunks,
    normalise_rows,
    products_of_chunks,
    repeat,
)
from engine.kernels.gpu import THREADS, blocks, cuda, kernel
from engine.kernels.norm.cpu import joined
from engine.kernels.norm.cuda import TALL, WIDE, column_sum, join_rows
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats, share, spec
from engine.kernels.simd import flattened, part
from engine.kernels.split import WARPS, chunks, row_threads, shared_sum, span

FLOAT64 = np.dtype("float64")

# ----------------------------------------------------------------------------------------------------- NumPy reference


def _grouped(x, groups):
    return x.reshape(len(x), math.prod(x.shape[1:-1]), groups, x.shape[-1] // groups)


def group_norm_reference(x, gamma, beta, groups, epsilon):
    parted = _grouped(x, groups)
    mean, inverse = parted.mean((1, 3), keepdims=True), 1 / np.sqrt(parted.var((1, 3), keepdims=True) + epsilon)
    z = ((parted - mean) * inverse).reshape(x.shape)
    return gamma * z + beta, mean.reshape(-1, groups), inverse.reshape(-1, groups)


def group_norm_grad_reference(dy, x, gamma, mean, inverse, groups):
    mean, inverse = (a.reshape(len(x), 1, groups, 1) for a in (mean, inverse))
    z, given = (_grouped(x, groups) - mean) * inverse, _grouped(dy * gamma, groups)
    dx = inverse * (given - given.mean((1, 3), keepdims=True) - z * (given * z).mean((1, 3), keepdims=True))
    axes = tuple(range(x.ndim - 1))
    return dx.reshape(x.shape), (dy * z.reshape(x.shape)).sum(axes), dy.sum(axes)


# ---------------------------------------------------------------------------------------------------------------- CPU
# A task takes whole samples: one is read from memory once, and looked at again in the cache. For lines and chunks see
# batch_norm/cpu.py.


@part
def join_groups(parts, m, rows, wide, epsilon, mean, inverse):
    """mean and inverse of each group of `wide` channels, from the moments of each channel in each chunk of rows"""
    for group in range(mean.size):
        total, squares = 0.0, 0.0
        for chunk in range(parts.shape[0]):
            size = min(m, (chunk + 1) * rows) - chunk * rows
            for j in range(group * wide, (group + 1) * wide):
                total += size * np.float64(parts[chunk, 0, j])
        centre = total / (m * wide)
        for chunk in range(parts.shape[0]):
            size = min(m, (chunk + 1) * rows) - chunk * rows
            for j in range(group * wide, (group + 1) * wide):
                distance = np.float64(parts[chunk, 0, j]) - centre
                squares += np.float64(parts[chunk, 1, j]) + size * distance * distance
        mean[group] = centre
        inverse[group] = 1 / math.sqrt(squares / (m * wide) + epsilon)


@part
def group_norm_cpu(x, gamma, beta, groups, epsilon, same, y, mean, inverse, parts, lines, held, rows, task, tasks):
    c = x.shape[2]
    wide, constants = c // groups, held[task]
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        moments_of_chunks(x[i], parts[task], lines[task:task + 1], rows, 0, 1)
        join_groups(parts[task], x.shape[1], rows, wide, epsilon, mean[i], inverse[i])
        for j in range(c):
            constants[0, j] = mean[i, j // wide]
            constants[1, j] = inverse[i, j // wide] * gamma[j]
            constants[2, j] = beta[j]
        for k in range(3):
            repeat(constants[k, :c], 0, constants[k], c)
        normalise_rows(x[i], constants, same, y[i], 0, 1)


@part(disjoint=True)
def group_gradient_line(dy, x, mean, a, b, k, dx):
    """dx = a dy - b - (x - mean) k"""
    for j in range(x.size):
        dx[j] = a[j] * dy[j] - b[j] - (x[j] - mean[j]) * k[j]


@part
def group_factors(gamma, inverse, sums, m, wide, held):
    """held[1], held[2], held[0] = a, b and k of `group_gradient_line`, from the sums of dy (x - mean) and of dy"""
    for group in range(inverse.size):
        along, plain, scale = 0.0, 0.0, np.float64(inverse[group])
        for j in range(group * wide, (group + 1) * wide):
            along += np.float64(gamma[j]) * np.float64(sums[0, j])
            plain += np.float64(gamma[j]) * np.float64(sums[1, j])
        for j in range(group * wide, (group + 1) * wide):
            held[0, j] = along * scale * scale * scale / (m * wide)
            held[1, j] = gamma[j] * scale
            held[2, j] = plain * scale / (m * wide)
    for k in range(3):
        repeat(held[k, :gamma.size], 0, held[k], gamma.size)


@part
def group_norm_grad_cpu(dy, x, gamma, mean, inverse, groups, one, dx, dgamma, dbeta, samples, totals, parts, lines,
                        held, rows, task, tasks):
    """dx, and samples[i] = (sum of dy z, sum of dy) over the places of sample i"""
    m, c = x.shape[1], x.shape[2]
    wide, centre, factors, line = c // groups, held[task, 0], held[task, 3:], held.shape[2]
    held[task] = 0
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        for j in range(c):
            centre[j] = mean[i, j // wide]
        repeat(centre[:c], 0, centre, c)
        products_of_chunks(dy[i], x[i], one, held[task, :3], parts[task], lines[task:task + 1], rows, 0, 1)
        for k in range(2):
            total = joined(parts[task], k, totals[task], 0, c)
            for j in range(c):
                samples[i, k, j] = total[j]
        group_factors(gamma, inverse[i], samples[i], m, wide, factors)
        flat, given, out = flattened(x[i]), flattened(dy[i]), flattened(dx[i])
        for at in range(0, m * c, line):
            to = min(m * c, at + line)
            group_gradient_line(given[at:to], flat[at:to], centre, factors[1], factors[2], factors[0], out[at:to])
        for j in range(c):
            samples[i, 0, j] *= inverse[i, j // wide]


@part
def join_samples(dy, x, gamma, mean, inverse, groups, one, dx, dgamma, dbeta, samples, totals, parts, lines, held,
                 rows, task, tasks):
    first, count = span(x.shape[2], task, tasks)
    along, plain = joined(samples, 0, totals[0], first, count), joined(samples, 1, totals[0], first, count)
    for k in range(count):
        dgamma[first + k], dbeta[first + k] = along[k], plain[k]


# --------------------------------------------------------------------------------------------------------------- CUDA
# A block for each group of each sample; a group's value number k is channel k % wide of place k // wide.


@kernel
def _group_norm(x, gamma, beta, groups, epsilon, y, mean, inverse):
    held = cuda.shared.array(WARPS, float64)
    m, wide, thread, threads = x.shape[1], x.shape[2] // groups, cuda.threadIdx.x, cuda.blockDim.x
    i = cuda.blockIdx.x // groups
    group = cuda.blockIdx.x - i * groups
    first, number = group * wide, x.dtype.type
    total, squares = number(0), number(0)
    for k in range(thread, m * wide, threads):
        total += x[i, k // wide, first + k % wide]
    centre = number(shared_sum(held, total, thread) / (m * wide))
    for k in range(thread, m * wide, threads):
        distance = x[i, k // wide, first + k % wide] - centre
        squares += distance * distance
    scale = number(1.0 / math.sqrt(shared_sum(held, squares, thread) / (m * wide) + epsilon))
    for k in range(thread, m * wide, threads):
        j = first + k % wide
        y[i, k // wide, j] = (x[i, k // wide, j] - centre) * scale * gamma[j] + beta[j]
    if thread == 0:
        mean[i, group] = centre
        inverse[i, group] = scale


@kernel
def _group_norm_grad(dy, x, gamma, mean, inverse, groups, dx):
    held = cuda.shared.array(WARPS, float64)
    m, wide, thread, threads = x.shape[1], x.shape[2] // groups, cuda.threadIdx.x, cuda.blockDim.x
    i = cuda.blockIdx.x // groups
    group = cuda.blockIdx.x - i * groups
    first, number = group * wide, x.dtype.type
    centre, scale, along, plain = mean[i, group], inverse[i, group], number(0), number(0)
    for k in range(thread, m * wide, threads):
        j = first + k % wide
        given = dy[i, k // wide, j] * gamma[j]
        along += given * (x[i, k // wide, j] - centre)
        plain += given
    slope = number(shared_sum(held, along, thread) / (m * wide)) * scale * scale
    shift = number(shared_sum(held, plain, thread) / (m * wide))
    for k in range(thread, m * wide, threads):
        j = first + k % wide
        distance = x[i, k // wide, j] - centre
        dx[i, k // wide, j] = scale * (dy[i, k // wide, j] * gamma[j] - shift - distance * slope)


@kernel
def _sample_products(dy, x, mean, inverse, wide, samples):
    """samples[i] = (sum of dy z, sum of dy) of each channel, WIDE channels of a sample in a block"""
    i, tx, ty = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.y * WIDE + tx
    along, plain = x.dtype.type(0), x.dtype.type(0)
    if j < x.shape[2]:
        centre, scale = mean[i, j // wide], inverse[i, j // wide]
        for k in range(ty, x.shape[1], TALL):
            along += dy[i, k, j] * ((x[i, k, j] - centre) * scale)
            plain += dy[i, k, j]
    all_along, all_plain = column_sum(along, tx, ty), column_sum(plain, tx, ty)
    if j < x.shape[2] and ty == 0:
        samples[i, 0, j] = all_along
        samples[i, 1, j] = all_plain


def group_norm_cuda(x, gamma, beta, groups, epsilon, same, y, mean, inverse):
    n, m, c = x.shape
    _group_norm[n * groups, row_threads(m * c // groups)](x, gamma, beta, groups, epsilon, y, mean, inverse)


def group_norm_grad_cuda(dy, x, gamma, mean, inverse, groups, one, dx, dgamma, dbeta, samples):
    n, m, c = x.shape
    _group_norm_grad[n * groups, row_threads(m * c // groups)](dy, x, gamma, mean, inverse, groups, dx)
    _sample_products[(n, -(-c // WIDE)), (WIDE, TALL)](dy, x, mean, inverse, c // groups, samples)
    for k, out in enumerate((dgamma, dbeta)):
        join_rows[blocks(c), THREADS](samples, k, out)


# ------------------------------------------------------------------------------------------------------------- records


def _checked(x, groups, *vectors):
    floats(x, *vectors)
    demand(x.ndim >= 2 and x.size > 0, "x of shape (n, ..., channels) with at least one value", x.shape)
    demand(groups >= 1 and x.shape[-1] % groups == 0, f"groups that divide the {x.shape[-1]} channels", groups)
    for v in vectors:
        demand(v.shape == x.shape[-1:], f"a value for each of the {x.shape[-1]} channels", v.shape)


def group_norm_shapes(x, gamma, beta, groups, epsilon):
    _checked(x, groups, gamma, beta)
    demand(epsilon > 0, "an epsilon above 0", epsilon)
    moments = Spec((x.shape[0], groups), x.dtype)
    return spec(x), moments, moments


def group_norm_grad_shapes(dy, x, gamma, mean, inverse, groups):
    floats(dy, x, mean, inverse)
    _checked(x, groups, gamma)
    demand(dy.shape == x.shape, f"dy of the shape of x, {x.shape}", dy.shape)
    demand(mean.shape == inverse.shape == (x.shape[0], groups), f"mean and inverse of shape {(x.shape[0], groups)}",
           f"{mean.shape} and {inverse.shape}")
    return spec(x), spec(gamma), spec(gamma)


def _arrange(inputs, outputs, attributes, threads, large, lines):
    """Arrangement with the first `large` inputs and the first output seen as (n, m, c); `lines` of scratch for a task.
    """
    x, (n, *_, c), dtype, rows = inputs[0], inputs[0].shape, inputs[0].dtype, chunk_rows(inputs[0].shape[-1])
    m, tasks = x.size // (n * c), min(n, share(4 * x.size, threads))
    ins = ((n, m, c),) * large + tuple(s.shape for s in inputs[large:])
    outs = ((n, m, c), *(s.shape for s in outputs[1:]))
    work = (Spec((tasks, chunks(m, rows), 2, c), dtype), Spec((tasks, 2, line_of(c)), dtype),
            Spec((tasks, lines, line_of(c)), dtype))
    return Arrangement(ins, outs, tuple(attributes.values()), work, (rows,), tasks)


def arrange_forward(inputs, outputs, attributes, threads):
    return _arrange(inputs, outputs, {**attributes, "same": SAME}, threads, 1, 3)


def arrange_backward(inputs, outputs, attributes, threads):
    made = _arrange(inputs, outputs, {**attributes, "one": ONE}, threads, 2, 6)
    n, _, c = made.inputs[1]
    samples = Spec((n, 2, c), inputs[1].dtype)
    return made._replace(work=(samples, Spec((made.tasks, 2, c), FLOAT64), *made.work),
                         gpu_work=(samples._replace(dtype=FLOAT64),))


def group_norm_gradient(graph, node, dy, *_):
    x, gamma, _ = node.inputs
    return graph.add("group_norm_grad", dy, x, gamma, *node.outputs[1:], groups=node.attributes["groups"])


def _samples(rng):
    for shape, groups in (((3, 6), 6), ((1, 1, 1), 1), ((2, 3, 5, 4), 4), ((3, 7, 2, 6), 1), ((2, 37, 34), 17),
                          ((2, 600, 33), 3)):
        yield ((rng.standard_normal(shape) + 2, rng.random(shape[-1]) + 0.5, rng.standard_normal(shape[-1])),
               {"groups": groups, "epsilon": 1e-3})


def _grad_samples(rng):
    for (x, gamma, beta), attributes in _samples(rng):
        if x[0].size == attributes["groups"]:            # groups of one value: dx is what roundings leave of 0
            x = rng.standard_normal((len(x), 5, x.shape[-1]))
        _, mean, inverse = group_norm_reference(x, gamma, beta, **attributes)
        yield (rng.standard_normal(x.shape), x, gamma, mean, inverse), {"groups": attributes["groups"]}


def _terms(first, *rest, **attributes):
    return 8 * first.size // first.shape[-1]


def _cost(inputs, outputs, attributes):
    return Cost(8 * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


OPS = (
    Op("group_norm", group_norm_reference, group_norm_shapes, group_norm_cpu, group_norm_cuda, _samples,
       arrange_forward, group_norm_gradient, _terms, _cost, {"groups": 1, "epsilon": 1e-5},
       byproducts=frozenset({1, 2})),
    Op("group_norm_grad", group_norm_grad_reference, group_norm_grad_shapes, (group_norm_grad_cpu, join_samples),
       group_norm_grad_cuda, _grad_samples, arrange_backward, None, _terms, _cost, {"groups": 1}),
)
