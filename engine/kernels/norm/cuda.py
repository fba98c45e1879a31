"""CUDA kernels of the normalisations along rows, and their launchers: a block of one or more warps for each row, or a
warp of a block. Where `line_shape` finds rows short enough their threads hold them in registers, four neighbours at a
time where their number allows it.

Sums over rows: a block takes WIDE channels of one chunk of rows with TALL threads for each channel, and a second kernel
joins the chunks with one thread for each channel.
"""
import math

from numba import float64, int32

from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel, kernel_of, load1, load4, store1, store4
from engine.kernels.split import (
    WARPS,
    in_fours,
    least,
    line_shape,
    load_fours,
    load_line,
    row_threads,
    rows_of_chunk,
    shared_sum,
)

WIDE, TALL = 32, 4


@device
def column_sum(value, tx, ty):
    """The sum of a column of threads, for each of them."""
    held, total = cuda.shared.array((TALL, WIDE), float64), 0.0
    cuda.syncthreads()                       # an earlier sum has been read by all
    held[ty, tx] = value
    cuda.syncthreads()
    for k in range(TALL):
        total += held[k, tx]
    return total


@device
def row_moments(row, centred, epsilon, thread, held):
    """(mean, 1 / sqrt(mean squared distance + epsilon)); the mean is 0 unless centred"""
    total, squares = row.dtype.type(0), row.dtype.type(0)
    if centred:
        for j in range(thread, row.size, cuda.blockDim.x):
            total += row[j]
    mean = row.dtype.type(shared_sum(held, total, thread) / row.size)
    for j in range(thread, row.size, cuda.blockDim.x):
        squares += (row[j] - mean) * (row[j] - mean)
    variance = row.dtype.type(shared_sum(held, squares, thread) / row.size)
    return mean, row.dtype.type(1) / math.sqrt(variance + epsilon)


@kernel_of
def _held_norm(values, threads, fours):
    """beta is read only when centred."""
    def held_norm(x, gamma, beta, size, lines, centred, epsilon, y):
        shared, held, number = cuda.shared.array(WARPS, float64), cuda.local.array(values, x.dtype), x.dtype.type
        line, thread = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, int32(cuda.threadIdx.x)
        if line < lines:                     # a whole warp leaves
            begin, total, squares = line * size, number(0), number(0)
            if fours:
                load_fours(x, begin, size, thread, threads, 0, held)
            else:
                load_line(x, begin, 1, size, thread, threads, 0, held)
            if centred:
                for k in range(values):
                    total += held[k]
            mean = number(shared_sum(shared, total, thread) / size)
            for k in range(values):
                held[k] -= mean
                j = int32(4 * (thread + k // 4 * threads) + k % 4 if fours else thread + k * threads)
                squares += held[k] * held[k] if j < size else number(0)
            variance = number(shared_sum(shared, squares, thread) / size)
            inverse = number(1) / math.sqrt(variance + epsilon)
            if fours:
                for k in range(values // 4):
                    j = int32(4 * (thread + k * threads))
                    if j < size:
                        factors = load4(gamma, j)
                        for q in range(4):
                            held[4 * k + q] = held[4 * k + q] * inverse * factors[q]
                        if centred:
                            terms = load4(beta, j)
                            for q in range(4):
                                held[4 * k + q] += terms[q]
                        store4(y, begin + j, held[4 * k], held[4 * k + 1], held[4 * k + 2], held[4 * k + 3])
            else:
                for k in range(values):
                    j = int32(thread + k * threads)
                    if j < size:
                        z = held[k] * inverse * load1(gamma, j)
                        store1(y, begin + j, z + load1(beta, j) if centred else z)
    return held_norm


@kernel
def _row_norm(x, gamma, beta, centred, epsilon, y):
    """beta is read only when centred."""
    thread, row, out = cuda.threadIdx.x, x[cuda.blockIdx.x], y[cuda.blockIdx.x]
    held = cuda.shared.array(WARPS, float64)
    mean, inverse = row_moments(row, centred, epsilon, thread, held)
    for j in range(thread, row.size, cuda.blockDim.x):
        z = (row[j] - mean) * inverse * gamma[j]
        out[j] = z + beta[j] if centred else z


@kernel
def _row_norm_grad(dy, x, gamma, centred, epsilon, dx, moments):
    i, thread, number = cuda.blockIdx.x, cuda.threadIdx.x, x.dtype.type
    held = cuda.shared.array(WARPS, float64)
    row, given, out = x[i], dy[i], dx[i]
    mean, inverse = row_moments(row, centred, epsilon, thread, held)
    along, plain = number(0), number(0)
    for j in range(thread, row.size, cuda.blockDim.x):
        along += given[j] * gamma[j] * (row[j] - mean)
        plain += given[j] * gamma[j]
    slope = number(shared_sum(held, along, thread) / row.size) * inverse
    shift = number(shared_sum(held, plain, thread) / row.size) if centred else number(0)
    for j in range(thread, row.size, cuda.blockDim.x):
        out[j] = inverse * (given[j] * gamma[j] - shift - (row[j] - mean) * inverse * slope)
    if thread == 0:
        moments[i, 0] = mean
        moments[i, 1] = inverse


@kernel
def _chunk_row_products(dy, x, moments, rows, parts):
    """parts[chunk] = (sum of dy z, sum of dy) of each channel"""
    chunk, tx, ty = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y
    j, start, end = cuda.blockIdx.y * WIDE + tx, chunk * rows, least(x.shape[0], (chunk + 1) * rows)
    along, plain = x.dtype.type(0), x.dtype.type(0)
    if j < x.shape[1]:
        for i in range(start + ty, end, TALL):
            along += dy[i, j] * (x[i, j] - moments[i, 0]) * moments[i, 1]
            plain += dy[i, j]
    all_along, all_plain = column_sum(along, tx, ty), column_sum(plain, tx, ty)
    if j < x.shape[1] and ty == 0:
        parts[chunk, 0, j] = all_along
        parts[chunk, 1, j] = all_plain


@kernel
def join_rows(parts, k, out):
    j = cuda.grid(1)
    if j < out.size:
        total = 0.0
        for chunk in range(parts.shape[0]):
            total += parts[chunk, k, j]
        out[j] = total


# ----------------------------------------------------------------------------------------------------------- launchers


def grid_of(parts):
    return (parts.shape[0], -(-parts.shape[2] // WIDE)), (WIDE, TALL)


def _forward(x, gamma, beta, centred, epsilon, y):
    lines, size = x.shape
    threads, values, together = line_shape(size, x.dtype.itemsize)
    if lines and values:
        made = _held_norm(values, threads, in_fours(size, 1, values, x, gamma, beta, y), x.dtype)
        made[blocks(lines, together), (threads, together)](x, gamma, beta, size, lines, centred, epsilon, y)
    elif lines:
        _row_norm[lines, row_threads(size)](x, gamma, beta, centred, epsilon, y)


def layer_norm(x, gamma, beta, epsilon, y):
    _forward(x, gamma, beta, 1, x.dtype.type(epsilon), y)


def rms_norm(x, gamma, epsilon, y):
    _forward(x, gamma, gamma, 0, x.dtype.type(epsilon), y)


def _row_gradients(dy, x, gamma, centred, epsilon, dx, sums, parts, moments):
    """sums: where the gradients of gamma and, if there is one, beta go"""
    if x.shape[0]:
        _row_norm_grad[x.shape[0], row_threads(x.shape[1])](dy, x, gamma, centred, x.dtype.type(epsilon), dx, moments)
    _chunk_row_products[grid_of(parts)](dy, x, moments, rows_of_chunk(x.shape[1]), parts)
    for k, out in enumerate(sums):
        join_rows[blocks(x.shape[1]), THREADS](parts, k, out)


def layer_norm_grad(dy, x, gamma, epsilon, dx, dgamma, dbeta, parts, moments):
    _row_gradients(dy, x, gamma, 1, epsilon, dx, (dgamma, dbeta), parts, moments)


def rms_norm_grad(dy, x, gamma, epsilon, dx, dgamma, parts, moments):
    _row_gradients(dy, x, gamma, 0, epsilon, dx, (dgamma,), parts, moments)
