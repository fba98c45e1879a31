"""CUDA kernels of the elementwise family and their launchers: four values a thread in accesses of 16 bytes; where
inputs are broadcast, a grid over rows and columns, or over values by the table (see cpu.py)."""
import numpy as np
from numba import int32, int64

from engine.kernels.gpu import (
    THREADS,
    blocks,
    cuda,
    device_in,
    fours,
    is_aligned,
    kernel_of,
    load1,
    load4,
    store1,
    store4,
)

MOST_ROWS = 32768                            # of blocks along y: beyond, each takes several rows


@kernel_of
def _map_with_cuda(f):
    def map_values_with(x, p, q, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= x.size and is_aligned(x) and is_aligned(out):
            a, b, c, d = load4(x, i)
            store4(out, i, f(a, p, q), f(b, p, q), f(c, p, q), f(d, p, q))
        else:
            for k in range(4):
                if i + k < x.size:
                    out[i + k] = f(x[i + k], p, q)
    return map_values_with


@kernel_of
def _scale_by_slope_with_cuda(slope):
    def scale_by_slope_with(dy, at, p, q, dx):
        i = 4 * cuda.grid(1)
        if i + 4 <= dy.size and is_aligned(dy) and is_aligned(at) and is_aligned(dx):
            a, b, c, d = load4(dy, i)
            s, t, u, v = load4(at, i)
            store4(dx, i, a * slope(s, p, q), b * slope(t, p, q), c * slope(u, p, q), d * slope(v, p, q))
        else:
            for k in range(4):
                if i + k < dy.size:
                    dx[i + k] = dy[i + k] * slope(at[i + k], p, q)
    return scale_by_slope_with


def scaler(scales):
    """(four, one): values at a flat place of dz with which f is multiplied, and the product; without dz, f alone."""
    if scales:
        return device_in(lambda dz, at: load4(dz, at)), device_in(lambda value, dz, at: load1(dz, at) * value)
    return device_in(lambda dz, at: (dz, dz, dz, dz)), device_in(lambda value, dz, at: value)


def times(scales):
    return device_in((lambda d, value: d * value) if scales else (lambda d, value: value))


def ready(scales):
    return device_in((lambda dz: is_aligned(dz)) if scales else (lambda dz: True))


@kernel_of
def _zip_equal_cuda(f, scales):
    """Inputs of the output's shape, four values a thread"""
    (four, one), product, may = scaler(scales), times(scales), ready(scales)

    def zip_equal(dz, a, b, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= out.size and is_aligned(a) and is_aligned(b) and is_aligned(out) and may(dz):
            (p, q, r, s), (t, u, v, w), d = load4(a, i), load4(b, i), four(dz, i)
            store4(out, i, product(d[0], f(p, t)), product(d[1], f(q, u)), product(d[2], f(r, v)),
                   product(d[3], f(s, w)))
        else:
            for k in range(4):
                if i + k < out.size:
                    store1(out, i + k, one(f(load1(a, i + k), load1(b, i + k)), dz, i + k))
    return zip_equal


@kernel_of
def _zip_one_cuda(f, scales, first):
    """A single value, a (`first`) or b, with all values of the other; four a thread"""
    (four, one), product, may = scaler(scales), times(scales), ready(scales)
    apply = device_in((lambda number, x: f(number, x)) if first else (lambda number, x: f(x, number)))

    def zip_one(dz, single, x, out):
        i, number = 4 * cuda.grid(1), load1(single, 0)
        if i + 4 <= out.size and is_aligned(x) and is_aligned(out) and may(dz):
            (p, q, r, s), d = load4(x, i), four(dz, i)
            store4(out, i, product(d[0], apply(number, p)), product(d[1], apply(number, q)),
                   product(d[2], apply(number, r)), product(d[3], apply(number, s)))
        else:
            for k in range(4):
                if i + k < out.size:
                    store1(out, i + k, one(apply(number, load1(x, i + k)), dz, i + k))
    return zip_one


@kernel_of
def _zip_rows_cuda(f, scales):
    """Two axes, rows and columns: the grid's places are the output's, so nothing is divided"""
    one = scaler(scales)[1]

    def zip_rows(dz, a, b, rows, columns, a_row, a_column, b_row, b_column, out):
        j = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if j < columns:
            i, step = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.y * cuda.blockDim.y
            for row in range(i, rows, step):
                value = f(load1(a, row * a_row + j * a_column), load1(b, row * b_row + j * b_column))
                store1(out, row * columns + j, one(value, dz, row * columns + j))
    return zip_rows


@kernel_of
def _zip_cuda(f, scales, index):
    """Up to four axes; `index`: the integers of the divisions, of 32 bits where the output is small enough"""
    one = scaler(scales)[1]

    def zip_values(dz, a, b, table, out):
        at = index(cuda.grid(1))
        if at < out.size:
            x, y, rest = index(0), index(0), at
            for axis in range(3, -1, -1):
                outer = index(rest // table[axis])
                place = index(rest - outer * table[axis])
                x = index(x + place * table[4 + axis])
                y = index(y + place * table[8 + axis])
                rest = outer
            store1(out, at, one(f(load1(a, x), load1(b, y)), dz, at))
    return zip_values


def map_with_cuda(x, f, p, q, out):
    number = x.dtype.type
    _map_with_cuda(f, x.dtype)[fours(x.size), THREADS](x, number(p), number(q), out)


def scale_by_slope_with_cuda(dy, at, slope, p, q, dx):
    number = at.dtype.type
    _scale_by_slope_with_cuda(slope, dy.dtype)[fours(dy.size), THREADS](dy, at, number(p), number(q), dx)


def zip_cuda(a, b, f, *rest):
    _launch(f, False, 0, a, b, *rest)


def zip_slope_cuda(dz, a, b, slope, *rest):
    _launch(slope, True, dz, a, b, *rest)


def _launch(f, scales, dz, a, b, *rest):
    """out = f(a, b), or dz f(a, b), by the simplest kernel that the shapes allow"""
    *table, out = rest
    dtype, size = out.dtype, out.size
    if a.size == b.size == size:
        _zip_equal_cuda(f, scales, dtype)[fours(size), THREADS](dz, a, b, out)
    elif (a.size == 1 and b.size == size) or (b.size == 1 and a.size == size):
        first = a.size == 1
        made = _zip_one_cuda(f, scales, first, dtype)
        made[fours(size), THREADS](dz, *((a, b) if first else (b, a)), out)
    elif table[0] == table[1] == 1:
        rows, columns = table[2:4]
        wide = min(THREADS, max(4, 1 << (columns - 1).bit_length()))
        grid = blocks(columns, wide), min(MOST_ROWS, blocks(rows, THREADS // wide))
        made = _zip_rows_cuda(f, scales, dtype)
        made[grid, (wide, THREADS // wide)](dz, a, b, rows, columns, *table[6:8], *table[10:12], out)
    else:
        index, number = (int32, np.int32) if size < 2 ** 31 - THREADS else (int64, np.int64)
        made = _zip_cuda(f, scales, index, dtype)
        made[blocks(size), THREADS](dz, a, b, tuple(map(number, table)), out)
