"""CPU kernels of the normalisations along rows.

Sums over rows are taken in chunks of `rows` rows, each while it is in the cache: parts[chunk] holds two sums for each
channel. A second phase, shared out by channels, adds the chunks in their order in float64.
"""
import math

import numpy as np

from engine.kernels.simd import part, put
from engine.kernels.split import SUMS, span
from engine.kernels.stream import beside, ended, put_values


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
def layer_norm_values(inputs, first, _, moments, store, out):
    """gamma (x - mean) inverse + beta of a row"""
    row, gamma, beta = beside(inputs[0], first, out), beside(inputs[1], first, out), beside(inputs[2], first, out)
    mean, inverse = moments
    for j in range(out.size):
        put(store, out, j, (row[j] - mean) * inverse * gamma[j] + beta[j])


@part
def layer_norm(x, gamma, beta, epsilon, y, store, task, tasks):
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        moments = row_moments(x[i], True, epsilon)
        put_values(layer_norm_values, (x[i], gamma, beta), 0, 0, moments, (x,), (i + 1) * x.shape[1], store, y[i])
    ended(store)


@part(disjoint=True)
def rms_norm_values(inputs, first, _, moments, store, out):
    """gamma x inverse of a row"""
    row, gamma = beside(inputs[0], first, out), beside(inputs[1], first, out)
    for j in range(out.size):
        put(store, out, j, row[j] * moments[1] * gamma[j])


@part
def rms_norm(x, gamma, epsilon, y, store, task, tasks):
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        moments = row_moments(x[i], False, epsilon)
        put_values(rms_norm_values, (x[i], gamma), 0, 0, moments, (x,), (i + 1) * x.shape[1], store, y[i])
    ended(store)


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
