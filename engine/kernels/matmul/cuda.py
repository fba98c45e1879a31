"""The product on the GPU: C (m, n) = op(A) op(B), a tile of C for each block, values of it in each thread's registers.

An epilogue works on the sums before they are stored: a bias, a residual and an activation (`dense`), or the derivative
of the activation before (`matmul_slope`). The gradient of a bias is the sums of the columns of what a product reads
anyway (`matmul_sums`).

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

import numpy as np
from numba import int32

from engine import target
from engine.kernels.gpu import THREADS, block_anew, blocks, cuda, kernel_of, load1, store1, thread_anew
from engine.kernels.matmul.cuda_tiles import (
    BIAS,
    LARGE,
    MEDIUM,
    PLAIN,
    RESIDUAL,
    SIMULATED,
    SLOPE,
    SMALL,
    SMALL_DOUBLE,
    accumulator,
    finisher,
    locator,
    looker,
    registers,
    tile_count,
    writer,
)
from engine.kernels.op import Spec
from engine.kernels.split import WARP

ENOUGH = 128                                 # blocks that keep a GPU busy
BUSY = 512                                   # blocks of 256 threads that hide memory's latency, and end together
PIECE = 256                                  # the shortest piece of k worth a block; twice that where the parts
FEW_VALUES, MOST_PIECES = 1 << 16, 128       # hold more values than this; and the most pieces worth their joining
JOINERS = 8                                  # threads that share the parts of a value, where these are many
SIMULATED_PIECE = 16
MOST_BLOCKS = 65535                          # along a grid's second axis


def cuts_for(m, n, k):
    """Pieces of k that are worth a block each."""
    return max(1, min(MOST_PIECES, k // (PIECE if m * n <= FEW_VALUES else 2 * PIECE)))


def tile_for(m, n, dtype, k=0):
    """The largest tile that leaves enough blocks, or a fair number of them, or would with k cut into pieces, and that
    lies more than half inside; float64 never takes the largest."""
    single, cuts = np.dtype(dtype).itemsize == 4, cuts_for(m, n, k)
    if target.cuda.simulated:
        return SIMULATED
    large, medium = (tile_count(m, n, tile) for tile in (LARGE, MEDIUM))
    if single and min(m, n) > LARGE.rows // 2 and (large >= ENOUGH or large * cuts >= BUSY // 2):
        return LARGE
    if min(m, n) > SMALL.rows and (medium >= ENOUGH // 8 or medium * cuts >= BUSY // 2):
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


def pieces_for(m, n, k, dtype):
    """Pieces into which k is cut."""
    tile = tile_for(m, n, dtype, k)
    return pieces_of(tile, tile_count(m, n, tile), m, n, k)


def pieces_of(tile, tiles, m, n, k):
    """Pieces of k for so many tiles: enough blocks for the GPU, none shorter than PIECE; more of longer ones, as long
    as the tiles do not keep it busy by themselves."""
    few = min(ENOUGH // max(1, tiles), k // (SIMULATED_PIECE if tile == SIMULATED else PIECE))
    wanted = BUSY * min(2, 256 // tile.threads)
    many = min(wanted // max(1, tiles), cuts_for(m, n, k)) if 2 * tiles < wanted and tile != SIMULATED else 1
    return max(1, few, many)


# ------------------------------------------------------------------------------------------------------------- kernels

tiled = functools.partial(kernel_of, max_registers=registers)


@tiled
def _product(epilogue, f, tile, turned_a, turned_b):
    """c = op(a) op(b) with an epilogue; what it does not take is the number 0 (an array costs a launch more)"""
    accumulate, locate = accumulator(tile, turned_a, turned_b), locator(tile)
    write, values = writer(tile, epilogue, f), tile.high * tile.wide

    def product(a, b, bias, beside, c):
        sums = cuda.local.array(values, a.dtype)
        m, n = int32(c.shape[0]), int32(c.shape[1])
        first_row, first_column, ty, tx = locate(m, n, cuda.blockIdx.x, cuda.threadIdx.x)
        accumulate(a, b, first_row, first_column, int32(0), int32(a.shape[0] if turned_a else a.shape[1]), ty,
                   tx, sums, sums)
        first_row, first_column, ty, tx = locate(m, n, block_anew(), thread_anew())
        write(sums, bias, beside, first_row, first_column, ty, tx, m, n, 0, c)
    return product


@tiled
def _batched(tile, turned_a, turned_b):
    """c[i] = op(a[i]) op(b[i]) for i from `first` on, one for each place of the grid's second axis"""
    accumulate, locate = accumulator(tile, turned_a, turned_b), locator(tile)
    write, values = writer(tile, PLAIN), tile.high * tile.wide

    def product_batch(a, b, first, c):
        sums, which = cuda.local.array(values, a.dtype), first + cuda.blockIdx.y
        m, n = int32(c.shape[1]), int32(c.shape[2])
        first_row, first_column, ty, tx = locate(m, n, cuda.blockIdx.x, cuda.threadIdx.x)
        accumulate(a[which], b[which], first_row, first_column, int32(0),
                   int32(a.shape[1] if turned_a else a.shape[2]), ty, tx, sums, sums)
        write(sums, 0, 0, first_row, first_column, ty, tx, m, n, 0, c[which])
    return product_batch


@tiled
def _piece(tile, turned_a, turned_b):
    """parts[piece] = op(a) op(b) over a piece of k"""
    accumulate, locate = accumulator(tile, turned_a, turned_b), locator(tile)
    write, values = writer(tile, PLAIN), tile.high * tile.wide

    def product_piece(a, b, length, parts):
        sums = cuda.local.array(values, a.dtype)
        m, n = int32(parts.shape[1]), int32(parts.shape[2])
        first_row, first_column, ty, tx = locate(m, n, cuda.blockIdx.x, cuda.threadIdx.x)
        k, start = a.shape[0] if turned_a else a.shape[1], cuda.blockIdx.y * length
        end = start + length if start + length < k else k
        accumulate(a, b, first_row, first_column, int32(start), int32(end), ty, tx, sums, sums)
        write(sums, 0, 0, first_row, first_column, ty, tx, m, n, 0, parts[cuda.blockIdx.y])
    return product_piece


@tiled
def _piece_and_sums(tile, turned_a, turned_b):
    """parts[piece] = op(a) op(b) and column_parts[piece] = the sums of op(b)'s columns, over a piece of k"""
    accumulate, locate = accumulator(tile, turned_a, turned_b, True), locator(tile)
    write, values = writer(tile, PLAIN), tile.high * tile.wide
    columns, threads, strips = tile.columns, tile.threads, -(-tile.columns // tile.threads)

    def product_and_sums(a, b, length, parts, column_parts):
        sums, column_sums = cuda.local.array(values, a.dtype), cuda.local.array(strips, a.dtype)
        m, n, piece = int32(parts.shape[1]), int32(parts.shape[2]), cuda.blockIdx.y
        first_row, first_column, ty, tx = locate(m if m > 0 else int32(1), n, cuda.blockIdx.x, cuda.threadIdx.x)
        k, start = a.shape[0] if turned_a else a.shape[1], piece * length
        end = start + length if start + length < k else k
        for strip in range(strips):
            column_sums[strip] = 0
        accumulate(a, b, first_row, first_column, int32(start), int32(end), ty, tx, sums, column_sums)
        thread = thread_anew()
        first_row, first_column, ty, tx = locate(m if m > 0 else int32(1), n, block_anew(), thread)
        write(sums, 0, 0, first_row, first_column, ty, tx, m, n, 0, parts[piece])
        for strip in range(strips):
            column = int32(thread + strip * threads)
            if first_row == 0 and column < columns and first_column + column < n:
                store1(column_parts, piece * n + first_column + column, column_sums[strip])
    return product_and_sums


@kernel_of
def _join(epilogue, f):
    """c = the sum of the parts in their order, with an epilogue"""
    finish, reads = finisher(epilogue, f)
    look = looker(reads)[1]

    def join_parts(parts, bias, beside, c):
        i = int32(cuda.grid(1))
        size, n = int32(c.shape[0] * c.shape[1]), int32(c.shape[1])
        if i < size:
            total = load1(parts, i)
            for piece in range(1, parts.shape[0]):
                total += load1(parts, piece * size + i)
            store1(c, i, finish(total, i % n, bias, look(beside, i)))
    return join_parts


@kernel_of
def _join_many(epilogue, f):
    """c = the sum of many parts, with an epilogue: JOINERS threads for a value, whose sums are added in their order"""
    finish, reads = finisher(epilogue, f)
    look = looker(reads)[1]

    def join_many_parts(parts, bias, beside, c):
        held = cuda.shared.array((JOINERS, WARP), parts.dtype)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        i = int32(cuda.blockIdx.x * WARP + tx)
        size, n, total = int32(c.shape[0] * c.shape[1]), int32(c.shape[1]), parts.dtype.type(0)
        if i < size:
            for piece in range(ty, parts.shape[0], JOINERS):
                total += load1(parts, piece * size + i)
        held[ty, tx] = total
        cuda.syncthreads()
        if ty == 0 and i < size:
            for other in range(1, JOINERS):
                total += held[other, tx]
            store1(c, i, finish(total, i % n, bias, look(beside, i)))
    return join_many_parts


@kernel_of
def _join_both():
    """c and sums = the sums of their parts in their order"""
    def join_parts_and_sums(parts, column_parts, c, sums):
        i = int32(cuda.grid(1))
        size, n = int32(c.shape[0] * c.shape[1]), int32(sums.shape[0])
        if i < size:
            total = load1(parts, i)
            for piece in range(1, parts.shape[0]):
                total += load1(parts, piece * size + i)
            store1(c, i, total)
        elif i - size < n:
            total = load1(column_parts, i - size)
            for piece in range(1, column_parts.shape[0]):
                total += load1(column_parts, piece * n + i - size)
            store1(sums, i - size, total)
    return join_parts_and_sums


# ----------------------------------------------------------------------------------------------------------- launchers


def parts_spec(m, n, k, dtype):
    """Scratch of a product: one (m, n) for each piece of k; none where k is not cut."""
    pieces = pieces_for(m, n, k, dtype)
    return (Spec((pieces, m, n), np.dtype(dtype)),) if pieces > 1 else ()


def sums_spec(m, n, k, dtype):
    """Scratch of a product with column sums: as `parts_spec`, and (pieces, n) for the sums."""
    parts = parts_spec(m, n, k, dtype)
    return (*parts, Spec((parts[0].shape[0], n), np.dtype(dtype))) if parts else ()


def _pieces_of(parts, k):
    """(tile, grid, length) of a launch that computes `parts`."""
    pieces, m, n = parts.shape
    tile = tile_for(m, n, parts.dtype, k)
    return tile, (max(1, tile_count(m, n, tile)), pieces), -(-k // (pieces * tile.depth)) * tile.depth


def join(epilogue, f, parts, bias, beside, c):
    """c = the sum of the parts, with an epilogue"""
    if parts.shape[0] < 2 * JOINERS:
        _join(epilogue, f, c.dtype)[blocks(c.size), THREADS](parts, bias, beside, c)
    else:
        _join_many(epilogue, f, c.dtype)[blocks(c.size, WARP), (WARP, JOINERS)](parts, bias, beside, c)


def _launch(epilogue, f, a, b, transpose_a, transpose_b, bias, beside, c, parts):
    k = a.shape[0] if transpose_a else a.shape[1]
    if parts:
        tile, grid, length = _pieces_of(*parts, k)
        _piece(tile, bool(transpose_a), bool(transpose_b), c.dtype)[grid, tile.threads](a, b, length, *parts)
        return join(epilogue, f, *parts, bias, beside, c)
    tile = tile_for(*c.shape, c.dtype, k)
    made = _product(epilogue, f, tile, bool(transpose_a), bool(transpose_b), c.dtype)
    made[tile_count(*c.shape, tile), tile.threads](a, b, bias, beside, c)


def matmul(a, b, transpose_a, transpose_b, c, *parts):
    """c (m, n) = op(a) @ op(b); parts: scratch as `parts_spec` says"""
    _launch(PLAIN, None, a, b, transpose_a, transpose_b, 0, 0, c, parts)


def batched_matmul(a, b, transpose_a, transpose_b, c):
    """c (count, m, n) = op(a[i]) @ op(b[i]) for each i"""
    count, m, n = c.shape
    tile = batched_tile(count, m, n, c.dtype)
    made = _batched(tile, bool(transpose_a), bool(transpose_b), c.dtype)
    for first in range(0, count, MOST_BLOCKS):
        made[(tile_count(m, n, tile), min(count - first, MOST_BLOCKS)), tile.threads](a, b, first, c)


def dense(x, w, bias, f, y, *parts):
    """y (n, o) = f(x (n, i) @ w (i, o) + bias (o,)); parts: scratch as `parts_spec` says"""
    _launch(BIAS, f, x, w, 0, 0, bias, 0, y, parts)


def dense_residual(x, w, bias, residual, f, y, *parts):
    """y (n, o) = f(x (n, i) @ w (i, o) + bias (o,), residual (n, o)); parts: scratch as `parts_spec` says"""
    _launch(RESIDUAL, f, x, w, 0, 0, bias, residual, y, parts)


def matmul_slope(a, b, y, transpose_a, transpose_b, slope, c, *parts):
    """c (m, n) = slope(op(a) @ op(b), y (m, n)) value by value; parts: scratch as `parts_spec` says"""
    _launch(SLOPE, slope, a, b, transpose_a, transpose_b, 0, y, c, parts)


def matmul_sums(a, b, transpose_a, transpose_b, c, sums, *parts):
    """c (m, n) = op(a) @ op(b), sums (n,) = the sums of op(b)'s columns; parts: scratch as `sums_spec` says"""
    if not parts:                            # one piece: its parts are the results
        whole = c.reshape((1, *c.shape)), sums.reshape((1, *sums.shape))
    tile, grid, length = _pieces_of((parts or whole)[0], a.shape[0] if transpose_a else a.shape[1])
    made = _piece_and_sums(tile, bool(transpose_a), bool(transpose_b), c.dtype)
    made[grid, tile.threads](a, b, max(1, length), *(parts or whole))
    if parts:
        _join_both(c.dtype)[blocks(c.size + sums.size), THREADS](*parts, c, sums)
