"""The product on the GPU: C (m, n) = op(A) op(B), a tile of C for each block, values of it in each thread's registers.

A block takes a `Tile` of C: rows x columns, and `depth` of the inner size at a time. It holds two slices of A and B in
shared memory: while one is multiplied, the next one is on its way from global memory into registers (CUTLASS's
"software pipeline", https://docs.nvidia.com/cutlass). A thread computes high x wide values: for each k it reads
high + wide values from shared memory and multiplies high * wide times.

    slice of A in shared memory     depth x rows       (whichever way A lies: k first, so that reads are of 16 bytes)
    slice of B in shared memory     depth x columns

An operand's tile lies in memory *along k* (A as it is, B transposed) or *across* (A transposed, B as it is): four
neighbours that are read together go into one column or into one row of the slice. Sizes may be odd: outside the
matrices a slice holds zeros, and where rows do not start on 16-byte boundaries values are read one by one. No copy is
ever made. All sums run over k in order; a tall product is cut along k into pieces whose number depends on the shapes
only, and the pieces' sums are added in their order.
"""
import functools
from typing import NamedTuple

import numpy as np
from numba import int32

from engine import target
from engine.kernels.gpu import (
    THREADS,
    blocks,
    cuda,
    device_in,
    is_aligned,
    kernel_of,
    load1,
    load4,
    shared_array,
    store1,
    store4,
    unrolled,
)
from engine.kernels.op import Spec

BAND = 8                                     # tile rows that go through the columns together: their B stays in L2
ENOUGH = 128                                 # blocks that keep a GPU busy
PIECE = 256                                  # the shortest piece of k worth a block
SIMULATED_PIECE = 16
MOST_BLOCKS = 65535                          # along a grid's second axis


class Tile(NamedTuple):
    """What a block computes and how its threads share it. Four neighbours are the unit of all access."""
    rows: int
    columns: int
    depth: int
    high: int
    wide: int

    @property
    def threads(self):
        return self.rows // self.high * (self.columns // self.wide)


LARGE, MEDIUM, SMALL = Tile(128, 128, 8, 8, 8), Tile(64, 64, 16, 4, 4), Tile(32, 32, 16, 4, 4)
SMALL_DOUBLE = Tile(32, 32, 8, 4, 4)         # float64 takes twice the registers
SIMULATED = Tile(8, 8, 4, 4, 4)              # threads of the simulator are dear


def tile_for(m, n, dtype):
    """The largest tile that leaves enough blocks, or a fair number of them; float64 never takes the largest."""
    single = np.dtype(dtype).itemsize == 4
    if target.cuda.simulated:
        return SIMULATED
    if single and tile_count(m, n, LARGE) >= ENOUGH:
        return LARGE
    if min(m, n) > SMALL.rows and tile_count(m, n, MEDIUM) >= ENOUGH // 8:
        return MEDIUM
    return SMALL if single else SMALL_DOUBLE


def batched_tile(count, m, n, dtype):
    """The largest tile that leaves enough blocks of all products together, and that one product fills."""
    if target.cuda.simulated:
        return SIMULATED
    for tile in (LARGE, MEDIUM) if np.dtype(dtype).itemsize == 4 else (MEDIUM,):
        if min(m, n) > tile.rows // 2 and count * tile_count(m, n, tile) >= ENOUGH:
            return tile
    return tile_for(m, n, dtype)


def tile_count(m, n, tile):
    return -(-m // tile.rows) * -(-n // tile.columns)


def pieces_for(m, n, k, dtype):
    """Pieces into which k is cut: enough blocks for the GPU, none shorter than PIECE."""
    tile, shortest = tile_for(m, n, dtype), SIMULATED_PIECE if target.cuda.simulated else PIECE
    return max(1, min(ENOUGH // max(1, tile_count(m, n, tile)), k // shortest))


# -------------------------------------------------------------------------------- what a kernel consists of, by tile


@functools.cache
def reader(extent, depth, threads, along):
    """(fetch, keep): a thread's groups of four from an operand's tile into registers, and from there into the slice."""
    groups = extent * depth // 4 // threads
    neighbours = depth // 4 if along else extent // 4
    stride = extent + 4                      # the four more keep the banks apart when columns are written

    def fetch(x, first, start, end, is_wide, thread, held):
        for group in range(groups):
            place = thread + group * threads
            outer, inner = place // neighbours, place % neighbours * 4
            row = int32(first + outer if along else start + outer)
            column = int32(start + inner if along else first + inner)
            rows = int32(x.shape[0] if along else end)
            room = int32((end if along else x.shape[1]) - column)
            at = row * x.shape[1] + column
            for k in range(4):
                held[4 * group + k] = 0
            if row < rows:
                if is_wide and room > 0:
                    values = load4(x, at)
                    for k in range(4):
                        held[4 * group + k] = values[k]
                elif not is_wide:
                    for k in range(4):
                        if int32(k) < room:
                            held[4 * group + k] = load1(x, at + k)

    def keep(held, kept, at, thread):
        for group in range(groups):
            place = thread + group * threads
            outer, inner = place // neighbours, place % neighbours * 4
            if along:
                for k in range(4):
                    store1(kept, at + inner * stride + outer + k * stride, held[4 * group + k])
            else:
                store4(kept, at + outer * stride + inner, held[4 * group], held[4 * group + 1], held[4 * group + 2],
                       held[4 * group + 3])

    return device_in(fetch), device_in(keep)


@functools.cache
def multiplier(tile):
    """sums += the product of one slice of A and one of B, for a thread's high x wide values."""
    rows, columns, depth, high, wide = tile
    left_stride, right_stride = rows + 4, columns + 4
    high_step, wide_step = rows * 4 // high, columns * 4 // wide

    def multiply(left, right, left_at, right_at, ty, tx, a, b, sums):
        for k in unrolled(depth):
            for strip in range(high // 4):
                values = load4(left, left_at + k * left_stride + strip * high_step + ty)
                for i in range(4):
                    a[4 * strip + i] = values[i]
            for strip in range(wide // 4):
                values = load4(right, right_at + k * right_stride + strip * wide_step + tx)
                for j in range(4):
                    b[4 * strip + j] = values[j]
            for i in range(high):
                for j in range(wide):
                    sums[i * wide + j] += a[i] * b[j]

    return device_in(multiply)


@functools.cache
def accumulator(tile, turned_a, turned_b):
    """sums = a thread's values of the tile of op(A) op(B) from first_row, first_column, for k from start to end"""
    rows, columns, depth, high, wide = tile
    threads = tile.threads
    fetch_a, keep_a = reader(rows, depth, threads, not turned_a)
    fetch_b, keep_b = reader(columns, depth, threads, turned_b)
    multiply = multiplier(tile)
    left_size, right_size = depth * (rows + 4), depth * (columns + 4)
    two_left, two_right = 2 * left_size, 2 * right_size
    a_values, b_values = rows * depth // threads, columns * depth // threads

    def accumulate(a, b, first_row, first_column, start, end, ty, tx, sums):
        left, right = shared_array(two_left, a.dtype), shared_array(two_right, a.dtype)
        next_a, next_b = cuda.local.array(a_values, a.dtype), cuda.local.array(b_values, a.dtype)
        one_a, one_b = cuda.local.array(high, a.dtype), cuda.local.array(wide, a.dtype)
        wide_a, wide_b = is_aligned(a) and a.shape[1] % 4 == 0, is_aligned(b) and b.shape[1] % 4 == 0
        thread, side = cuda.threadIdx.x, int32(0)
        for i in range(high * wide):
            sums[i] = 0
        fetch_a(a, first_row, start, end, wide_a, thread, next_a)
        fetch_b(b, first_column, start, end, wide_b, thread, next_b)
        keep_a(next_a, left, 0, thread)
        keep_b(next_b, right, 0, thread)
        cuda.syncthreads()
        k = int32(start)
        while k < end:
            k = int32(k + depth)
            if k < end:
                fetch_a(a, first_row, k, end, wide_a, thread, next_a)
                fetch_b(b, first_column, k, end, wide_b, thread, next_b)
            multiply(left, right, side * left_size, side * right_size, ty, tx, one_a, one_b, sums)
            side = int32(1 - side)
            if k < end:                      # the other side was last read before the last barrier
                keep_a(next_a, left, side * left_size, thread)
                keep_b(next_b, right, side * right_size, thread)
            cuda.syncthreads()

    return device_in(accumulate)


@functools.cache
def locator(tile):
    """(first row, first column, ty, tx): the block's tile and the thread's first row and column in it.

    A thread's values are strips of four neighbours: four rows from ty on, four more rows / (high / 4) further down, and
    so on; columns likewise. So the lanes of a warp read neighbouring groups of four.

    Tiles are numbered so that BAND rows of tiles go through the columns together. A warp's lanes form a rectangle: its
    reads of one slice are the fewest bytes.
    """
    rows, columns, _, high, wide = tile
    across, down = min(8, columns // wide), min(4, rows // high)
    lanes, groups = across * down, columns // wide // across

    def locate(m, n):
        tiles_down, tiles_across = int32((m + rows - 1) // rows), int32((n + columns - 1) // columns)
        in_band = int32(BAND * tiles_across)
        band = int32(cuda.blockIdx.x // in_band)
        place = int32(cuda.blockIdx.x - band * in_band)
        left_over = int32(tiles_down - band * BAND)
        height = left_over if left_over < BAND else int32(BAND)
        column = int32(place // height)
        row = int32(band * BAND + place - column * height)
        group, lane = int32(cuda.threadIdx.x // lanes), int32(cuda.threadIdx.x % lanes)
        return (int32(row * rows), int32(column * columns), int32(4 * (group // groups * down + lane // across)),
                int32(4 * (group % groups * across + lane % across)))

    return device_in(locate)


@functools.cache
def writer(tile, finish):
    """Writes a thread's values: finish(sum, column, bias) of each; `bias` is whatever the kernel hands on."""
    rows, columns, _, high, wide = tile
    high_step, wide_step = rows * 4 // high, columns * 4 // wide

    def write(sums, bias, first_row, first_column, ty, tx, c):
        m, n = int32(c.shape[0]), int32(c.shape[1])
        is_wide = is_aligned(c) and n % 4 == 0
        for i in range(high):
            row = int32(first_row + i // 4 * high_step + ty + i % 4)
            for strip in range(wide // 4):
                column, at = int32(first_column + strip * wide_step + tx), i * wide + 4 * strip
                room = int32(n - column)
                if row < m and is_wide and room > 0:
                    store4(c, row * n + column, finish(sums[at], column, bias), finish(sums[at + 1], column + 1, bias),
                           finish(sums[at + 2], column + 2, bias), finish(sums[at + 3], column + 3, bias))
                elif row < m and not is_wide:
                    for j in range(4):
                        if int32(j) < room:
                            store1(c, row * n + column + j, finish(sums[at + j], column + j, bias))

    return device_in(write)


# ------------------------------------------------------------------------------------------------------------- kernels

# 128 registers: two blocks of the largest tile on a multiprocessor, whose one computes while the other waits
tiled = functools.partial(kernel_of, max_registers=128)


@tiled
def _product(tile, turned_a, turned_b):
    """c = op(a) op(b)"""
    accumulate, locate = accumulator(tile, turned_a, turned_b), locator(tile)
    write, values = writer(tile, device_in(lambda value, column, bias: value)), tile.high * tile.wide

    def product(a, b, c):
        sums = cuda.local.array(values, a.dtype)
        first_row, first_column, ty, tx = locate(int32(c.shape[0]), int32(c.shape[1]))
        accumulate(a, b, first_row, first_column, int32(0), int32(a.shape[0] if turned_a else a.shape[1]), ty,
                   tx, sums)
        write(sums, 0, first_row, first_column, ty, tx, c)
    return product


@tiled
def _batched(tile, turned_a, turned_b):
    """c[i] = op(a[i]) op(b[i]) for i from `first` on, one for each place of the grid's second axis"""
    accumulate, locate = accumulator(tile, turned_a, turned_b), locator(tile)
    write, values = writer(tile, device_in(lambda value, column, bias: value)), tile.high * tile.wide

    def product_batch(a, b, first, c):
        sums, which = cuda.local.array(values, a.dtype), first + cuda.blockIdx.y
        first_row, first_column, ty, tx = locate(int32(c.shape[1]), int32(c.shape[2]))
        accumulate(a[which], b[which], first_row, first_column, int32(0),
                   int32(a.shape[1] if turned_a else a.shape[2]), ty, tx, sums)
        write(sums, 0, first_row, first_column, ty, tx, c[which])
    return product_batch


@tiled
def _dense(f, tile):
    """y = f(x w + bias)"""
    accumulate, locate = accumulator(tile, False, False), locator(tile)
    write, values = writer(tile, device_in(lambda value, column, bias: f(value + bias[column]))), tile.high * tile.wide

    def dense_layer(x, w, bias, y):
        sums = cuda.local.array(values, x.dtype)
        first_row, first_column, ty, tx = locate(int32(y.shape[0]), int32(y.shape[1]))
        accumulate(x, w, first_row, first_column, int32(0), int32(x.shape[1]), ty, tx, sums)
        write(sums, bias, first_row, first_column, ty, tx, y)
    return dense_layer


@tiled
def _piece(tile, turned_a, turned_b):
    """parts[piece] = op(a) op(b) over a piece of k"""
    accumulate, locate = accumulator(tile, turned_a, turned_b), locator(tile)
    write, values = writer(tile, device_in(lambda value, column, bias: value)), tile.high * tile.wide

    def product_piece(a, b, length, parts):
        sums = cuda.local.array(values, a.dtype)
        first_row, first_column, ty, tx = locate(int32(parts.shape[1]), int32(parts.shape[2]))
        k, start = a.shape[0] if turned_a else a.shape[1], cuda.blockIdx.y * length
        end = start + length if start + length < k else k
        accumulate(a, b, first_row, first_column, int32(start), int32(end), ty, tx, sums)
        write(sums, 0, first_row, first_column, ty, tx, parts[cuda.blockIdx.y])
    return product_piece


@kernel_of
def _join(f):
    """y = f(the sum of the parts in their order + bias)"""
    def join_parts(parts, bias, y):
        i = cuda.grid(1)
        if i < y.size:
            row = i // y.shape[1]
            column = i - row * y.shape[1]
            total = parts[0, row, column]
            for piece in range(1, parts.shape[0]):
                total += parts[piece, row, column]
            y[row, column] = f(total + bias[column])
    return join_parts


@kernel_of
def _add_parts():
    """c = the sum of the parts in their order"""
    def add_parts(parts, c):
        i = cuda.grid(1)
        if i < c.size:
            row = i // c.shape[1]
            column = i - row * c.shape[1]
            total = parts[0, row, column]
            for piece in range(1, parts.shape[0]):
                total += parts[piece, row, column]
            c[row, column] = total
    return add_parts


# ----------------------------------------------------------------------------------------------------------- launchers


def parts_spec(m, n, k, dtype):
    """Scratch of a product: one (m, n) for each piece of k; none where k is not cut."""
    pieces = pieces_for(m, n, k, dtype)
    return (Spec((pieces, m, n), np.dtype(dtype)),) if pieces > 1 else ()


def _launch_pieces(a, b, transpose_a, transpose_b, parts):
    pieces, m, n = parts.shape
    tile, k = tile_for(m, n, parts.dtype), a.shape[0] if transpose_a else a.shape[1]
    length = -(-k // (pieces * tile.depth)) * tile.depth
    made = _piece(tile, bool(transpose_a), bool(transpose_b), parts.dtype)
    made[(tile_count(m, n, tile), pieces), tile.threads](a, b, length, parts)


def matmul(a, b, transpose_a, transpose_b, c, *parts):
    """c (m, n) = op(a) @ op(b); parts: scratch as `parts_spec` says"""
    if parts:
        _launch_pieces(a, b, transpose_a, transpose_b, *parts)
        _add_parts(c.dtype)[blocks(c.size), THREADS](*parts, c)
        return
    tile = tile_for(*c.shape, c.dtype)
    made = _product(tile, bool(transpose_a), bool(transpose_b), c.dtype)
    made[tile_count(*c.shape, tile), tile.threads](a, b, c)


def batched_matmul(a, b, transpose_a, transpose_b, c):
    """c (count, m, n) = op(a[i]) @ op(b[i]) for each i"""
    count, m, n = c.shape
    tile = batched_tile(count, m, n, c.dtype)
    made = _batched(tile, bool(transpose_a), bool(transpose_b), c.dtype)
    for first in range(0, count, MOST_BLOCKS):
        made[(tile_count(m, n, tile), min(count - first, MOST_BLOCKS)), tile.threads](a, b, first, c)


def dense(x, w, bias, f, y, *parts):
    """y (n, o) = f(x (n, i) @ w (i, o) + bias (o,)); parts: scratch as `parts_spec` says"""
    if parts:
        _launch_pieces(x, w, 0, 0, *parts)
        _join(f, y.dtype)[blocks(y.size), THREADS](*parts, bias, y)
        return
    tile = tile_for(*y.shape, y.dtype)
    _dense(f, tile, y.dtype)[tile_count(*y.shape, tile), tile.threads](x, w, bias, y)
