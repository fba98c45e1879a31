"""CUDA kernels of batch normalisation and their launchers.

Sums over rows: a block takes WIDE channels of one chunk of rows with TALL threads for each channel, and a second kernel
joins the chunks with one thread for each channel.
"""
import math

from numba import float64

from engine.kernels.gpu import THREADS, blocks, cuda, kernel, kernel_of
from engine.kernels.norm.cuda import TALL, WIDE, column_sum, grid_of
from engine.kernels.split import greatest, least, rows_of_chunk

# ------------------------------------------------------------------------------------------------- moments of channels


@kernel
def _chunk_moments(x, rows, parts):
    chunk, tx, ty = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y
    j, start, end = cuda.blockIdx.y * WIDE + tx, chunk * rows, least(x.shape[0], (chunk + 1) * rows)
    total, squares = x.dtype.type(0), x.dtype.type(0)
    if j < x.shape[1]:
        for i in range(start + ty, end, TALL):
            total += x[i, j]
    mean = x.dtype.type(column_sum(total, tx, ty) / greatest(1, end - start))
    if j < x.shape[1]:
        for i in range(start + ty, end, TALL):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
    together = column_sum(squares, tx, ty)
    if j < x.shape[1] and ty == 0:
        parts[chunk, 0, j] = mean
        parts[chunk, 1, j] = together


@kernel
def _join_moments(x, momentum, epsilon, rows, parts, run_mean, run_variance, mean, inverse):
    j, n = cuda.grid(1), x.shape[0]
    if j < x.shape[1]:
        centre, squares = 0.0, 0.0
        for chunk in range(parts.shape[0]):
            centre += (least(n, (chunk + 1) * rows) - chunk * rows) * parts[chunk, 0, j]
        centre /= greatest(1, n)
        for chunk in range(parts.shape[0]):
            distance = parts[chunk, 0, j] - centre
            squares += parts[chunk, 1, j] + (least(n, (chunk + 1) * rows) - chunk * rows) * distance * distance
        mean[j] = centre
        inverse[j] = 1.0 / math.sqrt(squares / greatest(1, n) + epsilon)
        if n > 0:
            run_mean[j] += (1.0 - momentum) * (centre - run_mean[j])
            run_variance[j] += (1.0 - momentum) * (squares / greatest(1, n - 1) - run_variance[j])


# ------------------------------------------------------------------------------------------------------------- forward


@kernel_of
def _normalise(f):
    def normalise(x, gamma, beta, mean, inverse, y):
        k, c = cuda.grid(1), x.shape[1]
        if k < x.size:
            i = k // c
            j = k - i * c
            y[i, j] = f((x[i, j] - mean[j]) * (inverse[j] * gamma[j]) + beta[j])
    return normalise


@kernel_of
def _normalise_and_add(f):
    def normalise_and_add(x, gamma, beta, mean, inverse, other, y):
        k, c = cuda.grid(1), x.shape[1]
        if k < x.size:
            i = k // c
            j = k - i * c
            y[i, j] = f((x[i, j] - mean[j]) * (inverse[j] * gamma[j]) + beta[j] + other[i, j])
    return normalise_and_add


@kernel_of
def _inference(f):
    def inference_values(x, gamma, beta, mean, variance, epsilon, y):
        k, c = cuda.grid(1), x.shape[1]
        if k < x.size:
            i = k // c
            j = k - i * c
            y[i, j] = f((x[i, j] - mean[j]) * (gamma[j] / math.sqrt(variance[j] + epsilon)) + beta[j])
    return inference_values


# ------------------------------------------------------------------------------------------------------------ backward
# dz = dy slope(z), z = (x - mean) inverse gamma + beta


@kernel_of
def _chunk_products(slope):
    def chunk_products(dy, x, gamma, beta, mean, inverse, rows, parts):
        """parts[chunk] = (sum of dz (x - mean), sum of dz) of each channel"""
        chunk, tx, ty = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y
        j, start, end = cuda.blockIdx.y * WIDE + tx, chunk * rows, least(x.shape[0], (chunk + 1) * rows)
        along, plain = x.dtype.type(0), x.dtype.type(0)
        if j < x.shape[1]:
            scale = inverse[j] * gamma[j]
            for i in range(start + ty, end, TALL):
                distance = x[i, j] - mean[j]
                dz = dy[i, j] * slope(distance * scale + beta[j])
                along += dz * distance
                plain += dz
        all_along, all_plain = column_sum(along, tx, ty), column_sum(plain, tx, ty)
        if j < x.shape[1] and ty == 0:
            parts[chunk, 0, j] = all_along
            parts[chunk, 1, j] = all_plain
    return chunk_products


@kernel
def _join_products(gamma, inverse, n, parts, dgamma, dbeta, coefficients):
    j = cuda.grid(1)
    if j < gamma.size:
        along, plain, rest = 0.0, 0.0, float64(inverse[j])
        for chunk in range(parts.shape[0]):
            along += parts[chunk, 0, j]
            plain += parts[chunk, 1, j]
        dgamma[j] = along * rest
        dbeta[j] = plain
        coefficients[0, j] = gamma[j] * rest
        coefficients[1, j] = plain / greatest(1, n)
        coefficients[2, j] = along * rest * rest / greatest(1, n)


@kernel
def _join_inference(gamma, variance, epsilon, parts, dgamma, dbeta, coefficients):
    j = cuda.grid(1)
    if j < gamma.size:
        along, plain, inverse = 0.0, 0.0, 1.0 / math.sqrt(float64(variance[j]) + epsilon)
        for chunk in range(parts.shape[0]):
            along += parts[chunk, 0, j]
            plain += parts[chunk, 1, j]
        dgamma[j] = along * inverse
        dbeta[j] = plain
        coefficients[0, j] = gamma[j] * inverse
        coefficients[1, j] = 0.0             # the moments do not depend on x
        coefficients[2, j] = 0.0


@kernel_of
def _input_gradient(slope):
    def input_gradient(dy, x, gamma, beta, mean, inverse, coefficients, dx):
        k, c = cuda.grid(1), x.shape[1]
        if k < x.size:
            i = k // c
            j = k - i * c
            distance = x[i, j] - mean[j]
            dz = dy[i, j] * slope(distance * (inverse[j] * gamma[j]) + beta[j])
            dx[i, j] = coefficients[0, j] * (dz - coefficients[1, j] - distance * coefficients[2, j])
    return input_gradient


# ----------------------------------------------------------------------------------------------------------- launchers


def _moments(x, momentum, epsilon, run_mean, run_variance, mean, inverse, parts):
    rows = rows_of_chunk(x.shape[1])
    _chunk_moments[grid_of(parts)](x, rows, parts)
    _join_moments[blocks(x.shape[1]), THREADS](x, momentum, epsilon, rows, parts, run_mean, run_variance, mean, inverse)


def batch_norm(x, gamma, beta, old_mean, old_variance, momentum, epsilon, f, y, run_mean, run_variance, mean, inverse,
               parts):
    _moments(x, momentum, epsilon, run_mean, run_variance, mean, inverse, parts)
    _normalise(f, x.dtype)[blocks(x.size), THREADS](x, gamma, beta, mean, inverse, y)


def batch_norm_add(x, gamma, beta, old_mean, old_variance, other, momentum, epsilon, f, y, run_mean, run_variance, mean,
                   inverse, parts):
    _moments(x, momentum, epsilon, run_mean, run_variance, mean, inverse, parts)
    _normalise_and_add(f, x.dtype)[blocks(x.size), THREADS](x, gamma, beta, mean, inverse, other, y)


def inference(x, gamma, beta, mean, variance, epsilon, f, y):
    _inference(f, x.dtype)[blocks(x.size), THREADS](x, gamma, beta, mean, variance, x.dtype.type(epsilon), y)


def batch_norm_grad(dy, x, gamma, beta, mean, inverse, slope, dx, dgamma, dbeta, parts, coefficients):
    n, c = x.shape
    _chunk_products(slope, x.dtype)[grid_of(parts)](dy, x, gamma, beta, mean, inverse, rows_of_chunk(c), parts)
    _join_products[blocks(c), THREADS](gamma, inverse, n, parts, dgamma, dbeta, coefficients)
    _input_gradient(slope, x.dtype)[blocks(x.size), THREADS](dy, x, gamma, beta, mean, inverse, coefficients, dx)


def inference_grad(dy, x, gamma, mean, variance, epsilon, one, dx, dgamma, dbeta, parts, coefficients):
    """Nothing depends on z: gamma stands where beta and inverse are not looked at."""
    c = x.shape[1]
    _chunk_products(one, x.dtype)[grid_of(parts)](dy, x, gamma, gamma, mean, gamma, rows_of_chunk(c), parts)
    _join_inference[blocks(c), THREADS](gamma, variance, epsilon, parts, dgamma, dbeta, coefficients)
    _input_gradient(one, x.dtype)[blocks(x.size), THREADS](dy, x, gamma, gamma, mean, gamma, coefficients, dx)
