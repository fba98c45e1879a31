"""CPU kernels of batch normalisation.

Rows are short (a few channels), so they are joined to lines of about LINE values: what belongs to a channel (its mean,
its scale, a sum over its rows) stands in a line again and again, and loops over a line are long and vectorised.

Sums over rows are taken in chunks of rows, each while it is in the cache: parts[chunk] holds two sums for each channel.
A second phase, shared out by channels, adds the chunks in their order in float64; a third one writes the rows.
"""
import math

import numpy as np

from engine.kernels.norm.cpu import joined
from engine.kernels.simd import flattened, part
from engine.kernels.split import CHUNK, span

LINE = 256                                   # values of a line of short rows


def line_of(c):
    """Values of a line: as many rows as fit, at least one."""
    return max(1, LINE // max(1, c)) * c


def chunk_rows(c):
    """Rows of a chunk of a sum."""
    return max(16, 2 * CHUNK // max(1, c))


@part(disjoint=True)
def add_line(line, total):
    for j in range(line.size):
        total[j] += line[j]


@part(disjoint=True)
def add_squares(line, mean, total):
    for j in range(line.size):
        distance = line[j] - mean[j]
        total[j] += distance * distance


@part(disjoint=True)
def fold(total, out):
    """out[j] = the sum of what a line holds for channel j; the line is zeros afterwards"""
    for j in range(out.size):
        out[j] = 0
    for at in range(0, total.size, out.size):
        row = total[at:at + out.size]
        for j in range(out.size):
            out[j] += row[j]
            row[j] = 0


@part(disjoint=True)
def repeat(values, first, line, c):
    """line[k c + first + j] = values[j] for every k"""
    for at in range(first, line.size, c):
        row = line[at:at + values.size]
        for j in range(values.size):
            row[j] = values[j]


# ------------------------------------------------------------------------------------------------------------- moments


@part
def moments_of_chunks(x, parts, lines, rows, task, tasks):
    """parts[chunk] = (mean, sum of squared distances from it) of each channel; lines[task] is scratch"""
    n, c = x.shape
    flat, total, centre = flattened(x), lines[task, 0], lines[task, 1]
    total[:] = 0
    first, count = span(parts.shape[0], task, tasks)
    for chunk in range(first, first + count):
        start, end = chunk * rows * c, min(n, (chunk + 1) * rows) * c
        for at in range(start, end, total.size):
            line = flat[at:min(end, at + total.size)]
            add_line(line, total)
        mean = parts[chunk, 0]
        fold(total, mean)
        part = x.dtype.type(c / max(1, end - start))
        for j in range(c):
            mean[j] *= part
        repeat(mean, 0, centre, c)
        for at in range(start, end, total.size):
            line = flat[at:min(end, at + total.size)]
            add_squares(line, centre, total)
        fold(total, parts[chunk, 1])


@part
def join_chunks(n, momentum, epsilon, run_mean, run_variance, mean, inverse, parts, totals, rows, first, count):
    """mean and inverse of some channels, and the moving ones (Chan et al. 1983: squares about different centres)"""
    centre, squares = totals[0, first:first + count], totals[1, first:first + count]
    totals[:, first:first + count] = 0
    for chunk in range(parts.shape[0]):
        size, m = min(n, (chunk + 1) * rows) - chunk * rows, parts[chunk, 0, first:first + count]
        for j in range(count):
            centre[j] += size * np.float64(m[j])
    for j in range(count):
        centre[j] /= max(1, n)
    for chunk in range(parts.shape[0]):
        size, m = min(n, (chunk + 1) * rows) - chunk * rows, parts[chunk, 0, first:first + count]
        q = parts[chunk, 1, first:first + count]
        for j in range(count):
            distance = np.float64(m[j]) - centre[j]
            squares[j] += np.float64(q[j]) + size * distance * distance
    for j in range(count):
        mean[first + j] = centre[j]
        inverse[first + j] = 1 / math.sqrt(squares[j] / max(1, n) + epsilon)
        if n > 0:
            run_mean[first + j] += (1 - momentum) * (centre[j] - run_mean[first + j])
            unbiased = squares[j] / max(1, n - 1)
            run_variance[first + j] += (1 - momentum) * (unbiased - run_variance[first + j])


@part
def spread(mean, gamma, inverse, beta, constants, first, count):
    """constants (3, line) = mean, scale and beta of some channels, again and again"""
    c, last = mean.size, first + count
    for j in range(first, last):
        constants[1, j] = gamma[j] * inverse[j]
    repeat(mean[first:last], first, constants[0], c)
    repeat(constants[1, first:last], first, constants[1], c)
    repeat(beta[first:last], first, constants[2], c)


# ------------------------------------------------------------------------------------------------------------- forward


@part(disjoint=True)
def normalise_line(x, mean, scale, beta, f, y):
    """y = f((x - mean) scale + beta)"""
    for j in range(x.size):
        y[j] = f((x[j] - mean[j]) * scale[j] + beta[j])


@part(disjoint=True)
def normalise_line_and_add(x, mean, scale, beta, other, f, y):
    """y = f((x - mean) scale + beta + other)"""
    for j in range(x.size):
        y[j] = f((x[j] - mean[j]) * scale[j] + beta[j] + other[j])


@part
def normalise_rows(x, constants, f, y, task, tasks):
    """This task's rows of y."""
    flat, out, c = flattened(x), flattened(y), x.shape[1]
    first, count = span(x.shape[0], task, tasks)
    for at in range(first * c, (first + count) * c, constants.shape[1]):
        to = min((first + count) * c, at + constants.shape[1])
        normalise_line(flat[at:to], constants[0], constants[1], constants[2], f, out[at:to])


@part
def chunk_moments(x, gamma, beta, old_mean, old_variance, momentum, epsilon, f, y, run_mean, run_variance, mean,
                  inverse, parts, totals, lines, constants, rows, task, tasks):
    moments_of_chunks(x, parts, lines, rows, task, tasks)


@part
def join_moments(x, gamma, beta, old_mean, old_variance, momentum, epsilon, f, y, run_mean, run_variance, mean,
                 inverse, parts, totals, lines, constants, rows, task, tasks):
    first, count = span(x.shape[1], task, tasks)
    join_chunks(x.shape[0], momentum, epsilon, run_mean, run_variance, mean, inverse, parts, totals, rows, first, count)
    spread(mean, gamma, inverse, beta, constants, first, count)


@part
def normalise(x, gamma, beta, old_mean, old_variance, momentum, epsilon, f, y, run_mean, run_variance, mean, inverse,
              parts, totals, lines, constants, rows, task, tasks):
    normalise_rows(x, constants, f, y, task, tasks)


@part
def chunk_moments_add(x, gamma, beta, old_mean, old_variance, other, momentum, epsilon, f, y, run_mean, run_variance,
                      mean, inverse, parts, totals, lines, constants, rows, task, tasks):
    moments_of_chunks(x, parts, lines, rows, task, tasks)


@part
def join_moments_add(x, gamma, beta, old_mean, old_variance, other, momentum, epsilon, f, y, run_mean, run_variance,
                     mean, inverse, parts, totals, lines, constants, rows, task, tasks):
    first, count = span(x.shape[1], task, tasks)
    join_chunks(x.shape[0], momentum, epsilon, run_mean, run_variance, mean, inverse, parts, totals, rows, first, count)
    spread(mean, gamma, inverse, beta, constants, first, count)


@part
def normalise_add(x, gamma, beta, old_mean, old_variance, other, momentum, epsilon, f, y, run_mean, run_variance, mean,
                  inverse, parts, totals, lines, constants, rows, task, tasks):
    flat, more, out, c = flattened(x), flattened(other), flattened(y), x.shape[1]
    first, count = span(x.shape[0], task, tasks)
    for at in range(first * c, (first + count) * c, constants.shape[1]):
        to = min((first + count) * c, at + constants.shape[1])
        normalise_line_and_add(flat[at:to], constants[0], constants[1], constants[2], more[at:to], f, out[at:to])


@part
def inference(x, gamma, beta, mean, variance, epsilon, f, y, held, task, tasks):
    c, scale = x.shape[1], held[task, 1]
    for j in range(c):
        scale[j] = 1 / math.sqrt(np.float64(variance[j]) + epsilon)
    spread(mean, gamma, scale, beta, held[task], 0, c)
    normalise_rows(x, held[task], f, y, task, tasks)


# ------------------------------------------------------------------------------------------------------------ backward
# dx = a (dz - b - (x - mean) k) with dz = dy slope(z), z = (x - mean) scale + beta: what the forward pass gave f.
# held (3, line) is mean, scale and beta of each task's own, factors (3, line) is a, b and k.


@part(disjoint=True)
def add_products(dy, x, mean, scale, beta, slope, along, plain):
    """along += dz (x - mean);  plain += dz"""
    for j in range(x.size):
        distance = x[j] - mean[j]
        dz = dy[j] * slope(distance * scale[j] + beta[j])
        along[j] += dz * distance
        plain[j] += dz


@part(disjoint=True)
def gradient_line(dy, x, mean, scale, beta, slope, a, b, k, dx):
    for j in range(x.size):
        distance = x[j] - mean[j]
        dz = dy[j] * slope(distance * scale[j] + beta[j])
        dx[j] = a[j] * (dz - b[j] - distance * k[j])


@part
def products_of_chunks(dy, x, slope, held, parts, lines, rows, task, tasks):
    """parts[chunk] = (sum of dz (x - mean), sum of dz) of each channel"""
    n, c = x.shape
    flat, given, along, plain = flattened(x), flattened(dy), lines[task, 0], lines[task, 1]
    lines[task] = 0
    first, count = span(parts.shape[0], task, tasks)
    for chunk in range(first, first + count):
        end = min(n, (chunk + 1) * rows) * c
        for at in range(chunk * rows * c, end, along.size):
            to = min(end, at + along.size)
            add_products(given[at:to], flat[at:to], held[0], held[1], held[2], slope, along, plain)
        fold(along, parts[chunk, 0])
        fold(plain, parts[chunk, 1])


@part
def gradient_rows(dy, x, slope, held, factors, dx, task, tasks):
    """This task's rows of dx."""
    flat, given, out, c = flattened(x), flattened(dy), flattened(dx), x.shape[1]
    first, count = span(x.shape[0], task, tasks)
    for at in range(first * c, (first + count) * c, factors.shape[1]):
        to = min((first + count) * c, at + factors.shape[1])
        gradient_line(given[at:to], flat[at:to], held[0], held[1], held[2], slope, factors[0], factors[1], factors[2],
                      out[at:to])


@part
def batch_products(dy, x, gamma, beta, mean, inverse, slope, dx, dgamma, dbeta, parts, totals, lines, held, factors,
                   rows, task, tasks):
    spread(mean, gamma, inverse, beta, held[task], 0, x.shape[1])
    products_of_chunks(dy, x, slope, held[task], parts, lines, rows, task, tasks)


@part
def join_products(dy, x, gamma, beta, mean, inverse, slope, dx, dgamma, dbeta, parts, totals, lines, held, factors,
                  rows, task, tasks):
    n, c, (first, count) = max(1, x.shape[0]), x.shape[1], span(x.shape[1], task, tasks)
    along, plain = joined(parts, 0, totals, first, count), joined(parts, 1, totals, first, count)
    for k in range(count):
        j = first + k
        dgamma[j], dbeta[j] = along[k] * inverse[j], plain[k]
        for at in range(j, factors.shape[1], c):
            factors[0, at] = gamma[j] * inverse[j]
            factors[1, at] = plain[k] / n
            factors[2, at] = along[k] * inverse[j] * inverse[j] / n


@part
def batch_norm_grad(dy, x, gamma, beta, mean, inverse, slope, dx, dgamma, dbeta, parts, totals, lines, held, factors,
                    rows, task, tasks):
    gradient_rows(dy, x, slope, held[task], factors, dx, task, tasks)


@part
def inference_products(dy, x, gamma, mean, variance, epsilon, one, dx, dgamma, dbeta, parts, totals, lines, held,
                       factors, rows, task, tasks):
    held[task] = 0
    repeat(mean, 0, held[task, 0], x.shape[1])
    products_of_chunks(dy, x, one, held[task], parts, lines, rows, task, tasks)


@part
def join_inference(dy, x, gamma, mean, variance, epsilon, one, dx, dgamma, dbeta, parts, totals, lines, held, factors,
                   rows, task, tasks):
    c, (first, count) = x.shape[1], span(x.shape[1], task, tasks)
    along, plain = joined(parts, 0, totals, first, count), joined(parts, 1, totals, first, count)
    for k in range(count):
        j = first + k
        inverse = 1 / math.sqrt(np.float64(variance[j]) + epsilon)
        dgamma[j], dbeta[j] = along[k] * inverse, plain[k]
        for at in range(j, factors.shape[1], c):
            factors[0, at] = gamma[j] * inverse
            factors[1, at] = factors[2, at] = 0          # the moments do not depend on x


@part
def inference_grad(dy, x, gamma, mean, variance, epsilon, one, dx, dgamma, dbeta, parts, totals, lines, held, factors,
                   rows, task, tasks):
    gradient_rows(dy, x, one, held[task], factors, dx, task, tasks)
