"""Convolutions on the GPU as products whose left side is read out of images (implicit GEMM, Chetlur et al. 2014).

    conv2d           y (n p q, o)      = patches of x (n p q, r s c)  w (r s c, o)       bias, residual, activation in
                                                                                         the epilogue
    by the input     dx (n h w, c)     = patches of dy (n h w, r s o) w' (r s o, c)
    by the weights   dw (r s c, o)     = patches of x, turned (r s c, n p q)  dy (n p q, o)

The loop is that of the product (`matmul/cuda_tiles.py`), the readers stand in `cuda_gather.py`: no patch is ever
written to memory. A group is a product of its own (blockIdx.z). With a stride, the pixels of dx fall into phases that
see different taps: each phase is a product over its own taps alone, so no zero is multiplied. Where a product has too
few tiles for a GPU, its sum is cut into pieces (blockIdx.y), which are added in their order. Depthwise convolutions
have kernels of their own (`cuda_depthwise.py`).
"""
import functools
import math

import numpy as np
from numba import int32, int64

from engine.kernels.conv import cuda_depthwise
from engine.kernels.conv.cuda_gather import (
    first_tap,
    patches,
    phase_in_grid,
    pixels,
    place_of_phase,
    turned,
    whole,
)
from engine.kernels.gpu import (
    block_anew,
    block_z_anew,
    cuda,
    device,
    device_in,
    is_aligned,
    kernel_of,
    starts_aligned,
    thread_anew,
)
from engine.kernels.matmul.cuda import BUSY, ENOUGH, cuts_for, join, pieces_of, tile_for
from engine.kernels.matmul.cuda_tiles import (
    BIAS,
    LARGE,
    MEDIUM,
    PLAIN,
    RESIDUAL,
    SIMULATED,
    SMALL_DOUBLE,
    Tile,
    as_it_is,
    locator,
    pipeline,
    reader,
    registers,
    tile_count,
    writer,
)
from engine.kernels.op import Spec

first_tap_device = device(first_tap)
# images have many pixels, and often few channels
TALL, NARROW = Tile(128, 64, 16, 8, 4), Tile(128, 32, 16, 8, 4)


def conv_tile(kind, m, n, dtype, k=0):
    """The tile of a product of m pixels (or taps) and n channels, whose sums of k terms may be cut. The largest leaves
    no registers for places in images, float64 few for those of the gradient by the input."""
    tile = tile_for(m, n, dtype, k)
    if tile == SIMULATED:
        return tile
    if np.dtype(dtype).itemsize == 8:
        return SMALL_DOUBLE if kind == "input" else tile
    if n <= NARROW.columns and tile_count(m, n, NARROW) >= ENOUGH:
        return NARROW
    tall = tile_count(m, n, TALL)
    inside = 8 * tall <= 5 * tile_count(m, n, MEDIUM)    # it covers at most a quarter more than the other would
    if tile == LARGE or n <= TALL.columns and tall >= ENOUGH or (
            tile == MEDIUM and inside and tall * cuts_for(m, n, k) >= BUSY // 2):
        return TALL
    return tile


# ------------------------------------------------------------------------------------------------------------- kernels

tiled = functools.partial(kernel_of, max_registers=registers)
# Each writes y[blockIdx.y]: a piece of its sums, or the one result.


@tiled
def _convolve(epilogue, f, tile, wide):
    """y = conv(x, w) with an epilogue"""
    groups, values = tile.rows * tile.depth // 4 // tile.threads, tile.high * tile.wide
    begin, fetch_a = patches(tile.rows, tile.depth, tile.threads, True, wide)
    fetch_b, keep_b = reader(tile.columns, tile.depth, tile.threads, False)
    accumulate = pipeline(tile, fetch_a, reader(tile.rows, tile.depth, tile.threads, True)[1], fetch_b, keep_b)
    locate, write = locator(tile), writer(tile, epilogue, f)

    def convolve(x, w, bias, beside, numbers, length, y):
        step_h, step_w, top, left, down, across, parts, taps_high, taps_wide, p, q = numbers
        sums, bases = cuda.local.array(values, x.dtype), cuda.local.array(groups, int64)
        rows, columns = cuda.local.array(groups, int32), cuda.local.array(groups, int32)
        tap, spare = cuda.local.array(3, int32), cuda.local.array(3, int32)
        channels, outputs = int32(x.shape[3] // parts), int32(w.shape[1] // parts)
        m, group = int32(x.shape[0] * p * q), int32(cuda.blockIdx.z)
        first_row, first_column, ty, tx = locate(m, outputs, cuda.blockIdx.x, cuda.threadIdx.x)
        start, terms = int32(cuda.blockIdx.y * length), int32(taps_high * taps_wide * channels)
        end = int32(start + length) if start + length < terms else terms
        begin(x.shape, (p, q, step_h, step_w, -top, -left), first_row, m, start, channels, taps_wide, group * channels,
              int32(cuda.threadIdx.x), bases, rows, columns, tap)
        wide_b = is_aligned(w) and outputs % 4 == 0 and w.shape[1] % 4 == 0
        accumulate(x, w, ((channels, taps_wide, down, across), bases, rows, columns, tap, spare),
                   (int32(group * outputs + first_column), wide_b), start, end, ty, tx, sums, sums, False)
        first_row, first_column, ty, tx = locate(m, outputs, block_anew(), thread_anew())
        group = int32(cuda.blockIdx.z)
        write(sums, bias, beside, first_row, int32(group * outputs + first_column), ty, tx, m,
              int32((group + 1) * outputs), 0, y[cuda.blockIdx.y])
    return convolve


@tiled
def _convolve_back(epilogue, f, tile, strided, wide):
    """dx = the gradient of conv(x, w) by x for dy, with an epilogue"""
    groups, values = tile.rows * tile.depth // 4 // tile.threads, tile.high * tile.wide
    rows_here, columns_here = tile.rows, tile.columns
    begin, fetch_a = patches(tile.rows, tile.depth, tile.threads, False, wide)
    keep_a, keep_b = (reader(extent, tile.depth, tile.threads, True)[1] for extent in (tile.rows, tile.columns))
    accumulate = pipeline(tile, fetch_a, keep_a, turned(tile.columns, tile.depth, tile.threads, wide),
                          keep_b)
    locate, write = locator(tile), writer(tile, epilogue, f, place_of_phase if strided else as_it_is)

    phase_of = device_in(phase_in_grid)

    def convolve_back(dy, w, bias, beside, numbers, length, dx):
        step_h, step_w, top, left, down, across, parts, taps_high, taps_wide, h, wide, step_r, step_s = numbers
        sums, bases = cuda.local.array(values, dy.dtype), cuda.local.array(groups, int64)
        rows, columns = cuda.local.array(groups, int32), cuda.local.array(groups, int32)
        tap, spare = cuda.local.array(3, int32), cuda.local.array(3, int32)
        if not strided:                      # all that follows becomes simpler where these are constants
            step_h, step_w, step_r, step_s = int32(1), int32(1), int32(1), int32(1)
        group, i, j, p, q = phase_of(cuda.blockIdx.z, step_h, step_w, h, wide)
        m, channels, outputs = int32(dy.shape[0] * p * q), int32(dy.shape[3] // parts), int32(dx.shape[2] // parts)
        if cuda.blockIdx.x >= (m + rows_here - 1) // rows_here * ((outputs + columns_here - 1) // columns_here):
            return                           # the phase has fewer pixels than others: the whole block leaves
        r, s = first_tap_device(i + top, down, step_h, step_r), first_tap_device(j + left, across, step_w, step_s)
        high = int32((taps_high - r + step_r - 1) // step_r) if 0 <= r and r < taps_high else int32(0)
        broad = int32((taps_wide - s + step_s - 1) // step_s) if 0 <= s and s < taps_wide else int32(0)
        first_row, first_column, ty, tx = locate(m, outputs, cuda.blockIdx.x, cuda.threadIdx.x)
        start, terms = int32(cuda.blockIdx.y * length), int32(high * broad * channels)
        end = int32(start + length) if start + length < terms else terms
        broad = broad if broad > 0 else int32(1)
        above, before = (i + top - r * down) // step_h, (j + left - s * across) // step_w
        begin(dy.shape, (p, q, int32(1), int32(1), above, before), first_row, m, start, channels, broad,
              group * channels, int32(cuda.threadIdx.x), bases, rows, columns, tap)
        up, back = int32(-step_r * down // step_h), int32(-step_s * across // step_w)
        accumulate(dy, w, ((channels, broad, up, back), bases, rows, columns, tap, spare),
                   ((first_column, outputs, int32(group * channels), taps_wide, r, step_r, s, step_s, channels, broad),
                    tap, spare), start, end, ty, tx, sums, sums, False)
        group, i, j, p, q = phase_of(block_z_anew(), step_h, step_w, h, wide)
        m = int32(dy.shape[0] * p * q)
        first_row, first_column, ty, tx = locate(m, outputs, block_anew(), thread_anew())
        write(sums, bias, beside, first_row, int32(group * outputs + first_column), ty, tx, m,
              int32((group + 1) * outputs), (p, q, step_h, step_w, i, j, h, wide), dx[cuda.blockIdx.y])
    return convolve_back


@tiled
def _weights(tile, wide):
    """dw = the gradient of conv(x, w) by w for dy"""
    groups, values = tile.rows * tile.depth // 4 // tile.threads, tile.high * tile.wide
    begin, fetch_a = pixels(tile.rows, tile.depth, tile.threads, wide)
    fetch_b, keep_b = reader(tile.columns, tile.depth, tile.threads, False)
    accumulate = pipeline(tile, fetch_a, reader(tile.rows, tile.depth, tile.threads, False)[1], fetch_b, keep_b)
    locate, write, places_size = locator(tile), writer(tile, PLAIN), 3 * groups

    def convolve_weights(x, dy, numbers, length, dw):
        step_h, step_w, top, left, down, across, parts, taps_high, taps_wide, p, q = numbers
        sums, places = cuda.local.array(values, x.dtype), cuda.local.array(places_size, int32)
        tap, spare = cuda.local.array(3, int32), cuda.local.array(3, int32)
        channels, outputs = int32(x.shape[3] // parts), int32(dy.shape[1] // parts)
        m, group = int32(taps_high * taps_wide * channels), int32(cuda.blockIdx.z)
        first_row, first_column, ty, tx = locate(m, outputs, cuda.blockIdx.x, cuda.threadIdx.x)
        start, terms = int32(cuda.blockIdx.y * length), int32(dy.shape[0])
        end = int32(start + length) if start + length < terms else terms
        begin(p, q, start, first_row, channels, taps_wide, int32(cuda.threadIdx.x), places, tap)
        wide_b = is_aligned(dy) and outputs % 4 == 0 and dy.shape[1] % 4 == 0
        geometry = step_h, step_w, top, left, down, across
        room, offset = int32(m - first_row), int32(group * channels)
        accumulate(x, dy, ((room, channels, taps_wide, p, q, geometry, offset), places, tap, spare),
                   (int32(group * outputs + first_column), wide_b), start, end, ty, tx, sums, sums, False)
        first_row, first_column, ty, tx = locate(m, outputs, block_anew(), thread_anew())
        group = int32(cuda.blockIdx.z)
        write(sums, 0, 0, first_row, int32(group * outputs + first_column), ty, tx, m, int32((group + 1) * outputs), 0,
              dw[cuda.blockIdx.y])
    return convolve_weights


# ----------------------------------------------------------------------------------------------------------- launchers


def pieces_for(kind, m, n, k, products, dtype):
    """Pieces into which the sums of so many products of this size are cut."""
    tile = conv_tile(kind, m, n, dtype, k)
    return pieces_of(tile, products * tile_count(m, n, tile), m, n * products, k)


def steps_of(strides, dilation):
    """How far apart the taps lie that one phase sees."""
    return tuple(stride // math.gcd(stride, apart) for stride, apart in zip(strides, dilation))


def sizes_of(kind, x, w, y, groups, strides, dilation):
    """(m, n, k, products) of a convolution "forward", by its "input" or by its "weights"; shapes x, w, y."""
    taps = w[0] * w[1]
    if kind == "forward":
        return math.prod(y[:3]), w[3] // groups, taps * w[2], groups
    if kind == "weights":
        return taps * w[2], w[3] // groups, math.prod(y[:3]), groups
    phases, steps = strides[0] * strides[1], steps_of(strides, dilation)
    m = x[0] * -(-x[1] // strides[0]) * -(-x[2] // strides[1])
    return m, w[2], -(-w[0] // steps[0]) * -(-w[1] // steps[1]) * w[3] // groups, groups * phases


def parts_spec(kind, x, w, y, groups, strides, dilation, dtype):
    """Scratch of a convolution: the result's size for each piece of its sums; none where they are not cut."""
    if w[2] == 1 and groups > 1:
        return cuda_depthwise.parts_spec(w, y, dtype) if kind == "weights" else ()
    pieces = pieces_for(kind, *sizes_of(kind, x, w, y, groups, strides, dilation), dtype)
    rows, columns = {"forward": (math.prod(y[:3]), y[3]), "input": (math.prod(x[:3]), x[3]),
                     "weights": (math.prod(w[:3]), w[3])}[kind]
    return (Spec((pieces, rows, columns), np.dtype(dtype)),) if pieces > 1 else ()


def in_fours(array, groups):
    """Whether four channels beside each other lie in one group and on a 16-byte boundary."""
    return array.shape[3] // groups % 4 == 0 and array.shape[3] % 4 == 0 and starts_aligned(array)


def matrix(array):
    """(..., channels) as a matrix."""
    *outer, channels = array.shape           # the simulator's shapes have no [-1]
    return array.reshape((math.prod(outer), channels))


def _launch(made, tile, sizes, arguments, out, parts, epilogue, f, bias, beside):
    """The tiles of all products and pieces into `out`, or into the parts and those into out."""
    m, n, k, products = sizes
    pieces = parts[0].shape[0] if parts else 1
    length = max(1, -(-k // (pieces * tile.depth)) * tile.depth)
    grid = tile_count(m, n, tile), pieces, products
    made[grid, tile.threads](*arguments, whole(length)[0], *(parts or (out.reshape((1, *out.shape)),)))
    if parts:
        join(epilogue, f, *parts, bias, beside, out)


def _forward(epilogue, f, x, w, bias, beside, geometry, y, parts):
    groups = geometry[6]
    if w.shape[2] == 1 and groups > 1:
        return cuda_depthwise.forward(epilogue, f, x, w, bias, beside, geometry, y)
    sizes = sizes_of("forward", x.shape, w.shape, y.shape, groups, geometry[:2], geometry[4:6])
    tile, cut = conv_tile("forward", *sizes[:2], y.dtype, sizes[2]), bool(parts)
    made = _convolve(PLAIN if cut else epilogue, None if cut else f, tile, in_fours(x, groups), y.dtype)
    numbers = whole(*geometry, *w.shape[:2], *y.shape[1:3])
    whole(sizes[0], math.prod(x.shape[1:]))
    beside = beside if isinstance(beside, int) else matrix(beside)
    given = (0, 0) if cut else (bias, beside)
    return _launch(made, tile, sizes, (x, matrix(w), *given, numbers), matrix(y), parts, epilogue, f, bias, beside)


def _backward(epilogue, f, dy, w, bias, geometry, dx, parts):
    (step_h, step_w), groups = geometry[:2], geometry[6]
    if w.shape[2] == 1 and groups > 1:
        return cuda_depthwise.backward(epilogue, f, dy, w, bias, geometry, dx)
    sizes = sizes_of("input", dx.shape, w.shape, dy.shape, groups, geometry[:2], geometry[4:6])
    tile, cut = conv_tile("input", *sizes[:2], dx.dtype, sizes[2]), bool(parts)
    made = _convolve_back(PLAIN if cut else epilogue, None if cut else f, tile, step_h * step_w > 1,
                          in_fours(dy, groups) and in_fours(w, groups), dx.dtype)
    numbers = whole(*geometry, *w.shape[:2], *dx.shape[1:3], *steps_of(geometry[:2], geometry[4:6]))
    whole(math.prod(dx.shape[:3]), math.prod(dy.shape[1:]))
    arguments = dy, matrix(w), 0 if cut else bias, 0, numbers
    return _launch(made, tile, sizes, arguments, matrix(dx), parts, epilogue, f, bias, 0)


def _split(rest, numbers):
    """(the first `numbers`, the formula if there is one, the output, the parts)"""
    *given, = rest
    geometry, given = given[:numbers], given[numbers:]
    f = given.pop(0) if not hasattr(given[0], "shape") else None
    return geometry, f, given[0], tuple(given[1:])


def conv2d_cuda(x, w, bias, *rest):
    geometry, f, y, parts = _split(rest, 7)
    _forward(BIAS, f, x, w, bias, 0, geometry, y, parts)


def conv2d_residual_cuda(x, w, bias, residual, *rest):
    """y = f(conv(x, w) + bias, residual), f a formula of two numbers"""
    geometry, f, y, parts = _split(rest, 7)
    _forward(RESIDUAL, f, x, w, bias, residual, geometry, y, parts)


def conv2d_plain_cuda(x, w, *rest):
    geometry, _, y, parts = _split(rest, 7)
    _forward(PLAIN, None, x, w, 0, 0, geometry, y, parts)


def input_gradient_cuda(dy, w, *rest):
    geometry, _, dx, parts = _split(rest, 7)
    _backward(PLAIN, None, dy, w, 0, geometry, dx, parts)


def transpose_cuda(x, w, bias, *rest):
    geometry, f, y, parts = _split(rest, 7)
    _backward(BIAS, f, x, w, bias, geometry, y, parts)


def weight_gradient_cuda(x, dy, *rest):
    geometry, _, dw, parts = _split(rest, 7)
    groups = geometry[6]
    if dw.shape[2] == 1 and groups > 1:
        return cuda_depthwise.weights(x, dy, geometry, dw, parts)
    sizes = sizes_of("weights", x.shape, dw.shape, dy.shape, groups, geometry[:2], geometry[4:6])
    tile = conv_tile("weights", *sizes[:2], dw.dtype, sizes[2])
    numbers = whole(*geometry, *dw.shape[:2], *dy.shape[1:3])
    whole(sizes[2], math.prod(x.shape[1:]))
    made = _weights(tile, in_fours(x, groups), dw.dtype)
    return _launch(made, tile, sizes, (x, matrix(dy), numbers), matrix(dw), parts, PLAIN, None, 0, 0)
