"""CPU kernels of the normalisations.

Sums over rows are taken in chunks of `rows` rows, each while it is in the cache: parts[chunk] holds two sums for each
channel. A second phase, shared out by channels, adds the chunks in their order in float64; a third one writes the rows.
"""
import math

import numpy as np

from engine.kernels.simd.parts import part
from engine.kernels.split import SUMS, span

# ------------------------------------------------------------------------------------------------- moments of channels


@part(disjoint=True)
def add_row(row, total):
    for j in range(total.size):
        total[j] += row[j]


@part(disjoint=True)
def add_squares(row, mean, total):
    for j in range(total.size):
        distance = row[j] - mean[j]
        total[j] += distance * distance


@part(disjoint=True)
def add_products(dy, row, mean, along, plain):
    """along += dy (row - mean);  plain += dy"""
    for j in range(plain.size):
        along[j] += dy[j] * (row[j] - mean[j])
        plain[j] += dy[j]


@part
def chunk_moments(x, gamma, beta, old_mean, old_variance, momentum, epsilon, y, run_mean, run_variance, mean,
                  inverse, parts, totals, scales, rows, task, tasks):
    """parts[chunk] = (mean, sum of squared distances from it) of each channel"""
    first, count = span(parts.shape[0], task, tasks)
    for chunk in range(first, first + count):
        start, end = chunk * rows, min(x.shape[0], (chunk + 1) * rows)
        centre, squares = parts[chunk, 0], parts[chunk, 1]
        parts[chunk] = 0
        for i in range(start, end):
            add_row(x[i], centre)
        part = x.dtype.type(1 / max(1, end - start))
        for j in range(centre.size):
            centre[j] *= part
        for i in range(start, end):
            add_squares(x[i], centre, squares)


@part
def join_moments(x, gamma, beta, old_mean, old_variance, momentum, epsilon, y, run_mean, run_variance, mean,
                 inverse, parts, totals, scales, rows, task, tasks):
    """mean and inverse of some channels, and the moving ones (Chan et al. 1983: squares about different centres)"""
    n = x.shape[0]
    first, count = span(x.shape[1], task, tasks)
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


# ------------------------------------------------------------------------------------------------------------- forward


@part(disjoint=True)
def normalise_rows(x, mean, scale, beta, y, task, tasks):
    """y = (x - mean) scale + beta, for this task's rows"""
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        row, out = x[i], y[i]
        for j in range(scale.size):
            out[j] = (row[j] - mean[j]) * scale[j] + beta[j]


@part
def normalise(x, gamma, beta, old_mean, old_variance, momentum, epsilon, y, run_mean, run_variance, mean, inverse,
              parts, totals, scales, rows, task, tasks):
    scale = scales[task]
    for j in range(scale.size):
        scale[j] = inverse[j] * gamma[j]
    normalise_rows(x, mean, scale, beta, y, task, tasks)


@part
def inference(x, gamma, beta, mean, variance, epsilon, y, scales, task, tasks):
    scale = scales[task]
    for j in range(scale.size):
        scale[j] = gamma[j] / math.sqrt(np.float64(variance[j]) + epsilon)
    normalise_rows(x, mean, scale, beta, y, task, tasks)


# ------------------------------------------------------------------------------------------------------------ backward


@part
def chunk_products(dy, x, mean, parts, rows, task, tasks):
    """parts[chunk] = (sum of dy (x - mean), sum of dy) of each channel"""
    first, count = span(parts.shape[0], task, tasks)
    for chunk in range(first, first + count):
        along, plain = parts[chunk, 0], parts[chunk, 1]
        parts[chunk] = 0
        for i in range(chunk * rows, min(x.shape[0], (chunk + 1) * rows)):
            add_products(dy[i], x[i], mean, along, plain)


@part
def joined(parts, k, totals, first, count):
    """The chunks' sums number k of some channels, in float64."""
    total = totals[k, first:first + count]
    for j in range(count):
        total[j] = 0
    for chunk in range(parts.shape[0]):
        part = parts[chunk, k, first:first + count]
        for j in range(count):
            total[j] += part[j]
    return total


@part(disjoint=True)
def input_gradient(dy, x, mean, coefficients, dx, task, tasks):
    """dx = coefficients[0] (dy - coefficients[1] - (x - mean) coefficients[2])"""
    first, count = span(x.shape[0], task, tasks)
    a, b, c = coefficients[0], coefficients[1], coefficients[2]
    for i in range(first, first + count):
        given, row, out = dy[i], x[i], dx[i]
        for j in range(a.size):
            out[j] = a[j] * (given[j] - b[j] - (row[j] - mean[j]) * c[j])


@part
def batch_products(dy, x, gamma, mean, inverse, dx, dgamma, dbeta, parts, totals, coefficients, rows, task, tasks):
    chunk_products(dy, x, mean, parts, rows, task, tasks)


@part
def join_products(dy, x, gamma, mean, inverse, dx, dgamma, dbeta, parts, totals, coefficients, rows, task, tasks):
    first, count = span(x.shape[1], task, tasks)
    along, plain = joined(parts, 0, totals, first, count), joined(parts, 1, totals, first, count)
    n = max(1, x.shape[0])
    for k in range(count):
        j = first + k
        dgamma[j], dbeta[j] = along[k] * inverse[j], plain[k]
        coefficients[0, j] = gamma[j] * inverse[j]
        coefficients[1, j] = plain[k] / n
        coefficients[2, j] = along[k] * inverse[j] * inverse[j] / n


@part
def batch_norm_grad(dy, x, gamma, mean, inverse, dx, dgamma, dbeta, parts, totals, coefficients, rows, task, tasks):
    input_gradient(dy, x, mean, coefficients, dx, task, tasks)


@part
def inference_products(dy, x, gamma, mean, variance, epsilon, dx, dgamma, dbeta, parts, totals, coefficients, rows,
                       task, tasks):
    chunk_products(dy, x, mean, parts, rows, task, tasks)


@part
def join_inference(dy, x, gamma, mean, variance, epsilon, dx, dgamma, dbeta, parts, totals, coefficients, rows,
                   task, tasks):
    first, count = span(x.shape[1], task, tasks)
    along, plain = joined(parts, 0, totals, first, count), joined(parts, 1, totals, first, count)
    for k in range(count):
        j = first + k
        inverse = 1 / math.sqrt(np.float64(variance[j]) + epsilon)
        dgamma[j], dbeta[j] = along[k] * inverse, plain[k]
        coefficients[0, j] = gamma[j] * inverse
        coefficients[1:, j] = 0                          # the moments do not depend on x


@part
def inference_grad(dy, x, gamma, mean, variance, epsilon, dx, dgamma, dbeta, parts, totals, coefficients, rows,
                   task, tasks):
    input_gradient(dy, x, mean, coefficients, dx, task, tasks)


# ---------------------------------------------------------------------------------------------------------- along rows


@part(fastmath=SUMS)
def row_moments(row, centred, epsilon):
    """(mean, 1 / sqrt(mean squared distance + epsilon)); the mean is 0 unless centred"""
    zero = row.dtype.type(0)
    total, squares = zero, zero
    if centred:
        for j in range(row.size):
            total += row[j]
    mean = row.dtype.type(total / row.size)
    for j in range(row.size):
        distance = row[j] - mean
        squares += distance * distance
    return mean, row.dtype.type(1 / math.sqrt(np.float64(squares) / row.size + epsilon))


@part(disjoint=True)
def layer_norm(x, gamma, beta, epsilon, y, task, tasks):
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        row, out = x[i], y[i]
        mean, inverse = row_moments(row, True, epsilon)
        for j in range(row.size):
            out[j] = (row[j] - mean) * inverse * gamma[j] + beta[j]


@part(disjoint=True)
def rms_norm(x, gamma, epsilon, y, task, tasks):
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        row, out = x[i], y[i]
        _, inverse = row_moments(row, False, epsilon)
        for j in range(row.size):
            out[j] = row[j] * inverse * gamma[j]


@part(fastmath=SUMS)
def row_products(dy, row, gamma, mean):
    """(sum of dy gamma (row - mean), sum of dy gamma)"""
    along, plain = row.dtype.type(0), row.dtype.type(0)
    for j in range(row.size):
        g = dy[j] * gamma[j]
        along += g * (row[j] - mean)
        plain += g
    return along, plain


@part(disjoint=True)
def row_gradient(dy, row, gamma, mean, inverse, slope, shift, dx, along, plain):
    """dx of a row, and its share in the sums over the rows"""
    for j in range(row.size):
        z = (row[j] - mean) * inverse
        dx[j] = inverse * (dy[j] * gamma[j] - shift - z * slope)
        along[j] += dy[j] * z
        plain[j] += dy[j]


@part
def gradient_of_rows(dy, x, gamma, centred, epsilon, dx, parts, rows, task, tasks):
    """dx, and parts[chunk] = (sum of dy z, sum of dy) over the rows of the chunk"""
    first, count = span(parts.shape[0], task, tasks)
    number, c = x.dtype.type, max(1, x.shape[1])
    for chunk in range(first, first + count):
        parts[chunk] = 0
        for i in range(chunk * rows, min(x.shape[0], (chunk + 1) * rows)):
            mean, inverse = row_moments(x[i], centred, epsilon)
            along, plain = row_products(dy[i], x[i], gamma, mean)
            shift = plain / number(c) if centred else number(0)
            row_gradient(dy[i], x[i], gamma, mean, inverse, along * inverse / number(c), shift, dx[i],
                         parts[chunk, 0], parts[chunk, 1])


@part
def layer_norm_grad(dy, x, gamma, epsilon, dx, dgamma, dbeta, parts, totals, rows, task, tasks):
    gradient_of_rows(dy, x, gamma, True, epsilon, dx, parts, rows, task, tasks)


@part
def join_layer_norm(dy, x, gamma, epsilon, dx, dgamma, dbeta, parts, totals, rows, task, tasks):
    first, count = span(x.shape[1], task, tasks)
    along, plain = joined(parts, 0, totals, first, count), joined(parts, 1, totals, first, count)
    for k in range(count):
        dgamma[first + k], dbeta[first + k] = along[k], plain[k]


@part
def rms_norm_grad(dy, x, gamma, epsilon, dx, dgamma, parts, totals, rows, task, tasks):
    gradient_of_rows(dy, x, gamma, False, epsilon, dx, parts, rows, task, tasks)


@part
def join_rms_norm(dy, x, gamma, epsilon, dx, dgamma, parts, totals, rows, task, tasks):
    first, count = span(x.shape[1], task, tasks)
    along = joined(parts, 0, totals, first, count)
    for k in range(count):
        dgamma[first + k] = along[k]
