"""CUDA kernels of batch normalisation and their launchers.

Sums over rows: a block takes WIDE channels of one chunk of rows with TALL threads for each channel, and a second kernel
joins the chunks: WIDE channels in a block, up to JOINERS threads for each, whose sums are added in their order.
"""
import math

from numba import float64, int32, uint64

from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel, kernel_of, load1, store1
from engine.kernels.norm.cuda import TALL, WIDE, column_sum, grid_of
from engine.kernels.split import greatest, least, rows_of_chunk

JOINERS = 32
EACH = 4                                     # values of a thread, THREADS apart: one division finds all their channels


@device
def joined(held, value, tx, ty):
    """The sum of a column of threads in their order, for each of them; held: shared, a value for each thread."""
    total = 0.0
    cuda.syncthreads()                       # an earlier sum has been read by all
    held[ty, tx] = value
    cuda.syncthreads()
    for k in range(cuda.blockDim.y):
        total += held[k, tx]
    return total


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
    held, tx, ty = cuda.shared.array((JOINERS, WIDE), float64), cuda.threadIdx.x, cuda.threadIdx.y
    j, n, step, centre, squares = cuda.blockIdx.x * WIDE + tx, x.shape[0], cuda.blockDim.y, 0.0, 0.0
    if j < x.shape[1]:
        for chunk in range(ty, parts.shape[0], step):
            centre += (least(n, (chunk + 1) * rows) - chunk * rows) * parts[chunk, 0, j]
    centre = joined(held, centre, tx, ty) / greatest(1, n)
    if j < x.shape[1]:
        for chunk in range(ty, parts.shape[0], step):
            distance = parts[chunk, 0, j] - centre
            squares += parts[chunk, 1, j] + (least(n, (chunk + 1) * rows) - chunk * rows) * distance * distance
    squares = joined(held, squares, tx, ty)
    if j < x.shape[1] and ty == 0:
        mean[j] = centre
        inverse[j] = 1.0 / math.sqrt(squares / greatest(1, n) + epsilon)
        if n > 0:
            run_mean[j] += (1.0 - momentum) * (centre - run_mean[j])
            run_variance[j] += (1.0 - momentum) * (squares / greatest(1, n - 1) - run_variance[j])


# ------------------------------------------------------------------------------------------------------------- forward


@device
def first_value(c):
    """(the flat place of a thread's first value, its channel)"""
    k = cuda.blockIdx.x * EACH * THREADS + cuda.threadIdx.x
    return k, int32(uint64(k) % uint64(c))


@device
def next_channel(j, step, c):
    """The channel of the value THREADS places further; step: THREADS % c"""
    return int32(j + step if j + step < c else j + step - c)


@device
def take(x, k, held):
    """A thread's values, on their way together: after a store they would wait for it."""
    for each in range(EACH):
        at = k + each * THREADS
        held[each] = load1(x, at) if at < x.size else x.dtype.type(0)


@kernel_of
def _normalise(f):
    def normalise(x, gamma, beta, mean, inverse, step, y):
        k, j = first_value(gamma.size)
        held = cuda.local.array(EACH, x.dtype)
        take(x, k, held)
        for each in range(EACH):
            if k < x.size:
                scale = load1(inverse, j) * load1(gamma, j)
                store1(y, k, f((held[each] - load1(mean, j)) * scale + load1(beta, j)))
            k, j = k + THREADS, next_channel(j, step, gamma.size)
    return normalise


@kernel_of
def _normalise_and_add(f):
    def normalise_and_add(x, gamma, beta, mean, inverse, other, step, y):
        k, j = first_value(gamma.size)
        held, others = cuda.local.array(EACH, x.dtype), cuda.local.array(EACH, x.dtype)
        take(x, k, held)
        take(other, k, others)
        for each in range(EACH):
            if k < x.size:
                scale = load1(inverse, j) * load1(gamma, j)
                store1(y, k, f((held[each] - load1(mean, j)) * scale + load1(beta, j) + others[each]))
            k, j = k + THREADS, next_channel(j, step, gamma.size)
    return normalise_and_add


@kernel_of
def _inference(f):
    def inference_values(x, gamma, beta, mean, variance, epsilon, step, y):
        k, j = first_value(gamma.size)
        held = cuda.local.array(EACH, x.dtype)
        take(x, k, held)
        for each in range(EACH):
            if k < x.size:
                scale = load1(gamma, j) / math.sqrt(load1(variance, j) + epsilon)
                store1(y, k, f((held[each] - load1(mean, j)) * scale + load1(beta, j)))
            k, j = k + THREADS, next_channel(j, step, gamma.size)
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


@device
def joined_products(held, parts, j, inside, tx, ty):
    """(the sum of dz (x - mean), the sum of dz) of channel j over all chunks, for each thread of its column"""
    along, plain = 0.0, 0.0
    if inside:
        for chunk in range(ty, parts.shape[0], cuda.blockDim.y):
            along += parts[chunk, 0, j]
            plain += parts[chunk, 1, j]
    return joined(held, along, tx, ty), joined(held, plain, tx, ty)


@kernel
def _join_products(gamma, inverse, n, parts, dgamma, dbeta, coefficients):
    held, tx, ty = cuda.shared.array((JOINERS, WIDE), float64), cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * WIDE + tx
    along, plain = joined_products(held, parts, j, j < gamma.size, tx, ty)
    if j < gamma.size and ty == 0:
        rest = float64(inverse[j])
        dgamma[j] = along * rest
        dbeta[j] = plain
        coefficients[0, j] = gamma[j] * rest
        coefficients[1, j] = plain / greatest(1, n)
        coefficients[2, j] = along * rest * rest / greatest(1, n)


@kernel
def _join_inference(gamma, variance, epsilon, parts, dgamma, dbeta, coefficients):
    held, tx, ty = cuda.shared.array((JOINERS, WIDE), float64), cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * WIDE + tx
    along, plain = joined_products(held, parts, j, j < gamma.size, tx, ty)
    if j < gamma.size and ty == 0:
        inverse = 1.0 / math.sqrt(float64(variance[j]) + epsilon)
        dgamma[j] = along * inverse
        dbeta[j] = plain
        coefficients[0, j] = gamma[j] * inverse
        coefficients[1, j] = 0.0             # the moments do not depend on x
        coefficients[2, j] = 0.0


@kernel_of
def _input_gradient(slope):
    def input_gradient(dy, x, gamma, beta, mean, inverse, coefficients, step, dx):
        k, j = first_value(gamma.size)
        held, given = cuda.local.array(EACH, x.dtype), cuda.local.array(EACH, x.dtype)
        take(x, k, held)
        take(dy, k, given)
        for each in range(EACH):
            if k < x.size:
                distance = held[each] - load1(mean, j)
                dz = given[each] * slope(distance * (load1(inverse, j) * load1(gamma, j)) + load1(beta, j))
                store1(dx, k, coefficients[0, j] * (dz - coefficients[1, j] - distance * coefficients[2, j]))
            k, j = k + THREADS, next_channel(j, step, gamma.size)
    return input_gradient


# ----------------------------------------------------------------------------------------------------------- launchers


def joining(parts):
    return -(-parts.shape[2] // WIDE), (WIDE, min(JOINERS, parts.shape[0]))


def _moments(x, momentum, epsilon, run_mean, run_variance, mean, inverse, parts):
    rows = rows_of_chunk(x.shape[1])
    _chunk_moments[grid_of(parts)](x, rows, parts)
    _join_moments[joining(parts)](x, momentum, epsilon, rows, parts, run_mean, run_variance, mean, inverse)


def _each(made, x, *arguments):
    """Launches a kernel that computes one value for each of x; the last argument is where they go."""
    *given, out = arguments
    made[blocks(x.size, EACH * THREADS), THREADS](*given, THREADS % x.shape[1], out)


def batch_norm(x, gamma, beta, old_mean, old_variance, momentum, epsilon, f, y, run_mean, run_variance, mean, inverse,
               parts):
    _moments(x, momentum, epsilon, run_mean, run_variance, mean, inverse, parts)
    _each(_normalise(f, x.dtype), x, x, gamma, beta, mean, inverse, y)


def batch_norm_add(x, gamma, beta, old_mean, old_variance, other, momentum, epsilon, f, y, run_mean, run_variance, mean,
                   inverse, parts):
    _moments(x, momentum, epsilon, run_mean, run_variance, mean, inverse, parts)
    _each(_normalise_and_add(f, x.dtype), x, x, gamma, beta, mean, inverse, other, y)


def inference(x, gamma, beta, mean, variance, epsilon, f, y):
    _each(_inference(f, x.dtype), x, x, gamma, beta, mean, variance, x.dtype.type(epsilon), y)


def batch_norm_grad(dy, x, gamma, beta, mean, inverse, slope, dx, dgamma, dbeta, parts, coefficients):
    n, c = x.shape
    _chunk_products(slope, x.dtype)[grid_of(parts)](dy, x, gamma, beta, mean, inverse, rows_of_chunk(c), parts)
    _join_products[joining(parts)](gamma, inverse, n, parts, dgamma, dbeta, coefficients)
    _each(_input_gradient(slope, x.dtype), x, dy, x, gamma, beta, mean, inverse, coefficients, dx)


def inference_grad(dy, x, gamma, mean, variance, epsilon, one, dx, dgamma, dbeta, parts, coefficients):
    """Nothing depends on z: gamma stands where beta and inverse are not looked at."""
    c = x.shape[1]
    _chunk_products(one, x.dtype)[grid_of(parts)](dy, x, gamma, gamma, mean, gamma, rows_of_chunk(c), parts)
    _join_inference[joining(parts)](gamma, variance, epsilon, parts, dgamma, dbeta, coefficients)
    _each(_input_gradient(one, x.dtype), x, dy, x, gamma, gamma, mean, gamma, coefficients, dx)
