"""Half precision on the GPU: conversions, and the product on tensor cores (compute capability 8.0 and later).

A block computes rows x columns of C with one warp for each patch of `high` x `wide`. Slices of A and B, `depth` of the
inner size, come into shared memory by asynchronous copies of 16 bytes: the next slice is on its way while this one is
multiplied. `ldmatrix` hands the lanes of a warp their fragments, `mma` multiplies them: 16x16 of A by 16x8 of B. The
four transposed forms differ in which `ldmatrix` reads a slice. Rows that do not start on 16-byte boundaries, and what
lies outside the matrices, are written into the slice value by value.
"""
import functools

from numba import float32, int32, uint16, uint32

from engine import target
from engine.kernels.gpu import (
    THREADS,
    bits_of,
    blocks,
    copy_async,
    copy_commit,
    copy_wait,
    cuda,
    device,
    device_in,
    float_of,
    is_aligned,
    kernel,
    kernel_of,
    ldmatrix,
    ldmatrix_turned,
    load1,
    mma_bfloat16,
    mma_float16,
    shared_array,
    store1,
)
from engine.kernels.half import bits
from engine.kernels.matmul.cuda_tiles import Tile, tile_count

brief_of, half_of, bits_of_half = device(bits.brief_of), device(bits.half_of), device(bits.bits_of_half)
GROUP = 8                                    # halves of an access of 16 bytes
PAD = 8                                      # keeps the rows that one ldmatrix reads on different banks


class WarpTile(Tile):
    """A tile of which high x wide is the patch of a warp, not of a thread."""

    @property
    def threads(self):
        return 32 * super().threads


LARGE, SMALL = WarpTile(128, 128, 32, 64, 32), WarpTile(64, 64, 32, 32, 32)
SIMULATED = WarpTile(16, 16, 16, 16, 16)     # threads of the simulator are dear
ENOUGH = 64                                  # blocks of the large tile from which on it pays


def tile_for(m, n):
    if target.cuda.simulated:
        return SIMULATED
    return LARGE if tile_count(m, n, LARGE) >= ENOUGH else SMALL


# -------------------------------------------------------------------------------- what a kernel consists of, by tile


@functools.cache
def copier(extent, depth, threads, along):
    """Starts the copies of one slice; `along`: k is the contiguous axis of the operand, and of the slice."""
    rows, columns = (extent, depth) if along else (depth, extent)
    across, stride = columns // GROUP, columns + PAD
    groups = rows * columns // GROUP // threads

    def copy_slice(x, first, start, is_wide, thread, kept, at):
        for group in range(groups):
            place = thread + group * threads
            outer, inner = place // across, place % across * GROUP
            row = int32((first if along else start) + outer)
            column = int32((start if along else first) + inner)
            to, room = at + outer * stride + inner, int32(x.shape[1] - column)
            if is_wide and row < x.shape[0] and room > 0:
                copy_async(kept, to, x, row * x.shape[1] + column)
            else:
                for k in range(GROUP):
                    value = uint16(0)
                    if row < x.shape[0] and int32(k) < room:
                        value = load1(x, row * x.shape[1] + column + k)
                    store1(kept, to + k, value)

    return device_in(copy_slice)


@functools.cache
def fragments(tile, turned_a, turned_b, brief):
    """sums += the product of one slice of A and one of B, for a warp's patch."""
    rows, columns, depth, high, wide = tile
    a_stride, b_stride = (rows if turned_a else depth) + PAD, (depth if turned_b else columns) + PAD
    tiles, pairs = high // 16, wide // 16
    mma = (mma_bfloat16 if brief else mma_float16)
    read_a = ldmatrix_turned if turned_a else ldmatrix
    read_b = ldmatrix if turned_b else ldmatrix_turned

    def multiply(left, right, a_at, b_at, row, column, lane, a, b, sums):
        low, upper, middle = int32(lane % 8), int32(lane // 16 * 8), int32(lane // 8 % 2 * 8)
        for k in range(0, depth, 16):        # written out it would take more than 128 registers
            for i in range(tiles):
                at = (k + upper + low) * a_stride + row + 16 * i + middle if turned_a else \
                    (row + 16 * i + middle + low) * a_stride + k + upper
                found = read_a(left, a_at + at)
                for q in range(4):
                    a[4 * i + q] = found[q]
            for j in range(pairs):
                at = (column + 16 * j + upper + low) * b_stride + k + middle if turned_b else \
                    (k + middle + low) * b_stride + column + 16 * j + upper
                found = read_b(right, b_at + at)
                for q in range(4):
                    b[4 * j + q] = found[q]
            for i in range(tiles):
                for j in range(2 * pairs):
                    c = 4 * (2 * pairs * i + j)
                    found = mma(sums[c], sums[c + 1], sums[c + 2], sums[c + 3], a[4 * i], a[4 * i + 1], a[4 * i + 2],
                                a[4 * i + 3], b[2 * j], b[2 * j + 1])
                    for q in range(4):
                        sums[c + q] = found[q]

    return device_in(multiply)


@functools.cache
def writer(tile):
    """Writes a warp's patch: a lane holds pairs of neighbours of rows lane / 4 and lane / 4 + 8."""
    tiles, eighths = tile.high // 16, tile.wide // 8

    def write(sums, row, column, lane, c):
        for i in range(tiles):
            for j in range(eighths):
                for q in range(4):
                    y = int32(row + 16 * i + lane // 4 + q // 2 * 8)
                    x = int32(column + 8 * j + lane % 4 * 2 + q % 2)
                    if y < c.shape[0] and x < c.shape[1]:
                        store1(c, y * c.shape[1] + x, sums[4 * (eighths * i + j) + q])

    return device_in(write)


# ------------------------------------------------------------------------------------------------------------- kernels


@functools.partial(kernel_of, max_registers=128, capability=(8, 0))
def _matmul_half(tile, turned_a, turned_b, brief):
    rows, columns, depth, high, wide = tile
    copy_a = copier(rows, depth, tile.threads, not turned_a)
    copy_b = copier(columns, depth, tile.threads, turned_b)
    multiply, write = fragments(tile, turned_a, turned_b, brief), writer(tile)
    a_size = (depth * (rows + PAD)) if turned_a else (rows * (depth + PAD))
    b_size = (columns * (depth + PAD)) if turned_b else (depth * (columns + PAD))
    two_a, two_b, values, warps = 2 * a_size, 2 * b_size, high * wide // 32, columns // wide
    a_words, b_words = high // 4, wide // 4

    def matmul_half(a, b, c):
        left, right = shared_array(two_a, uint16), shared_array(two_b, uint16)
        sums = cuda.local.array(values, float32)
        one_a, one_b = cuda.local.array(a_words, int32), cuda.local.array(b_words, int32)
        tiles_across = (c.shape[1] + columns - 1) // columns
        thread, lane, warp = cuda.threadIdx.x, int32(cuda.threadIdx.x % 32), int32(cuda.threadIdx.x // 32)
        first_row = int32(cuda.blockIdx.x // tiles_across * rows)
        first_column = int32(cuda.blockIdx.x % tiles_across * columns)
        row, column = int32(warp // warps * high), int32(warp % warps * wide)
        end, side, k = int32(a.shape[0] if turned_a else a.shape[1]), int32(0), int32(0)
        wide_a, wide_b = is_aligned(a) and a.shape[1] % GROUP == 0, is_aligned(b) and b.shape[1] % GROUP == 0
        for i in range(values):
            sums[i] = 0
        copy_a(a, first_row, k, wide_a, thread, left, 0)
        copy_b(b, first_column, k, wide_b, thread, right, 0)
        copy_commit()
        while k < end:
            k = int32(k + depth)
            if k < end:                      # the other side was last read before the last barrier
                copy_a(a, first_row, k, wide_a, thread, left, (1 - side) * a_size)
                copy_b(b, first_column, k, wide_b, thread, right, (1 - side) * b_size)
            copy_commit()                    # an empty group where nothing was left to copy: the wait stays the same
            copy_wait(1)
            cuda.syncthreads()
            multiply(left, right, side * a_size, side * b_size, row, column, lane, one_a, one_b, sums)
            side = int32(1 - side)
            cuda.syncthreads()
        write(sums, first_row + row, first_column + column, lane, c)
    return matmul_half


@kernel
def _to_half(x, brief, out):
    i = cuda.grid(1)
    if i < x.size:
        word = bits_of(float32(x[i]))
        out[i] = brief_of(word) if brief else half_of(word)


@kernel
def _from_half(h, brief, out):
    i = cuda.grid(1)
    if i < h.size:
        word = uint32(h[i])
        out[i] = float_of(uint32(word << uint32(16) if brief else bits_of_half(word)))


def to_half(x, brief, out):
    _to_half[blocks(x.size), THREADS](x, brief, out)


def from_half(h, brief, out):
    _from_half[blocks(h.size), THREADS](h, brief, out)


def matmul_half(a, b, transpose_a, transpose_b, brief, c):
    """c (m, n) = op(a) @ op(b), halves with float32 sums"""
    tile = tile_for(*c.shape)
    made = _matmul_half(tile, bool(transpose_a), bool(transpose_b), bool(brief), c.dtype)
    made[tile_count(*c.shape, tile), tile.threads](a, b, c)
