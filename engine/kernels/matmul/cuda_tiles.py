"""What a tiled product's CUDA kernel consists of, by its `Tile`: readers of slices, the inner product, who computes
what, writers with an epilogue. `cuda.py` puts kernels together from these; a convolution has readers of its own.

All are made inside a kernel's factory: a tile's numbers are constants in them.
"""
import functools
from typing import NamedTuple

from numba import int32

from engine.kernels.gpu import (
    cuda,
    device_in,
    is_aligned,
    load1,
    load4,
    shared_array,
    store1,
    store4,
    unrolled,
)

BAND = 8                                     # tile rows that go through the columns together: their B stays in L2


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


def tile_count(m, n, tile):
    return -(-m // tile.rows) * -(-n // tile.columns)


LARGE, MEDIUM, SMALL = Tile(128, 128, 8, 8, 8), Tile(64, 64, 16, 4, 4), Tile(32, 32, 16, 4, 4)
SMALL_DOUBLE = Tile(32, 32, 8, 4, 4)         # float64 takes twice the registers
SIMULATED = Tile(8, 8, 4, 4, 4)              # threads of the simulator are dear


def registers(*arguments):
    """The most registers of a thread, for a kernel factory's arguments: two blocks of 256 threads are on a
    multiprocessor, one of which computes while the other waits; of fewer threads there are three or six."""
    tile, = (a for a in arguments if isinstance(a, Tile))
    return 128 if tile.threads >= 256 else 168


@functools.cache
def reader(extent, depth, threads, along):
    """(fetch, keep): a thread's groups of four from an operand's tile into registers, and from there into the slice.
    What fetch takes as `of`: the tile's first row or column, and whether access may be of 16 bytes."""
    groups = extent * depth // 4 // threads
    neighbours = depth // 4 if along else extent // 4
    stride = extent + 4                      # the four more keep the banks apart when columns are written

    def fetch(x, of, start, end, thread, held):
        first, is_wide = of
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
def column_adder(tile):
    """sums += the columns of a slice of B: each thread adds one (or a few) of them, k in order."""
    columns, depth, threads, stride = tile.columns, tile.depth, tile.threads, tile.columns + 4
    strips = -(-columns // threads)

    def add_columns(right, at, thread, sums):
        for strip in range(strips):
            column = int32(thread + strip * threads)
            if column < columns:
                for k in range(depth):
                    sums[strip] += load1(right, at + k * stride + column)

    return device_in(add_columns)


@functools.cache
def no_adder():
    return device_in(lambda right, at, thread, sums: None)


def pipeline(tile, fetch_a, keep_a, fetch_b, keep_b, adds=False):
    """sums = a thread's values of a tile of C, for k from start to end; `adds`: and column_sums = the sums of its
    columns of B, where `wanted`.

    fetch(x, of, k, end, thread, held)    a slice's values for a thread, from k on; zeros beyond the end. `of`: whatever
                                          the kernel hands on to it
    keep(held, kept, at, thread)          puts them into shared memory
    """
    rows, columns, depth, high, wide = tile
    threads = tile.threads
    multiply, add_columns = multiplier(tile), column_adder(tile) if adds else no_adder()
    left_size, right_size = depth * (rows + 4), depth * (columns + 4)
    two_left, two_right = 2 * left_size, 2 * right_size
    a_values, b_values = rows * depth // threads, columns * depth // threads

    def accumulate(a, b, of_a, of_b, start, end, ty, tx, sums, column_sums, wanted):
        left, right = shared_array(two_left, a.dtype), shared_array(two_right, a.dtype)
        next_a, next_b = cuda.local.array(a_values, a.dtype), cuda.local.array(b_values, a.dtype)
        one_a, one_b = cuda.local.array(high, a.dtype), cuda.local.array(wide, a.dtype)
        thread, side = cuda.threadIdx.x, int32(0)
        for i in range(high * wide):
            sums[i] = 0
        fetch_a(a, of_a, start, end, thread, next_a)
        fetch_b(b, of_b, start, end, thread, next_b)
        keep_a(next_a, left, 0, thread)
        keep_b(next_b, right, 0, thread)
        cuda.syncthreads()
        k = int32(start)
        while k < end:
            k = int32(k + depth)
            if k < end:
                fetch_a(a, of_a, k, end, thread, next_a)
                fetch_b(b, of_b, k, end, thread, next_b)
            multiply(left, right, side * left_size, side * right_size, ty, tx, one_a, one_b, sums)
            if wanted:
                add_columns(right, side * right_size, thread, column_sums)
            side = int32(1 - side)
            if k < end:                      # the other side was last read before the last barrier
                keep_a(next_a, left, side * left_size, thread)
                keep_b(next_b, right, side * right_size, thread)
            cuda.syncthreads()

    return device_in(accumulate)


@functools.cache
def accumulator(tile, turned_a, turned_b, adds=False):
    """sums = a thread's values of the tile of op(A) op(B) from first_row, first_column; `adds`: and the sums of columns
    of op(B), in the blocks of the first rows of tiles alone"""
    fetch_a, keep_a = reader(tile.rows, tile.depth, tile.threads, not turned_a)
    fetch_b, keep_b = reader(tile.columns, tile.depth, tile.threads, turned_b)
    accumulate = pipeline(tile, fetch_a, keep_a, fetch_b, keep_b, adds)

    def accumulate_product(a, b, first_row, first_column, start, end, ty, tx, sums, column_sums):
        wide_a, wide_b = is_aligned(a) and a.shape[1] % 4 == 0, is_aligned(b) and b.shape[1] % 4 == 0
        accumulate(a, b, (first_row, wide_a), (first_column, wide_b), start, end, ty, tx, sums, column_sums,
                   first_row == 0)

    return device_in(accumulate_product)


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

    def locate(m, n, block, thread):
        tiles_down, tiles_across = int32((m + rows - 1) // rows), int32((n + columns - 1) // columns)
        in_band = int32(BAND * tiles_across)
        band = int32(block // in_band)
        place = int32(block - band * in_band)
        left_over = int32(tiles_down - band * BAND)
        height = left_over if left_over < BAND else int32(BAND)
        column = int32(place // height)
        row = int32(band * BAND + place - column * height)
        group, lane = int32(thread // lanes), int32(thread % lanes)
        return (int32(row * rows), int32(column * columns), int32(4 * (group // groups * down + lane // across)),
                int32(4 * (group % groups * across + lane % across)))

    return device_in(locate)


# What is made of a sum before it is stored: finish(sum, column, bias, other), `other` the value of an array of C's
# shape (a residual, an output of the layer before) at the same place.

PLAIN, BIAS, RESIDUAL, SLOPE = "plain", "bias", "residual", "slope"


def finisher(epilogue, f):
    """(finish, whether it takes `other`) of an epilogue: f(sum + bias), f(sum + bias, other) or f(sum, other)."""
    if epilogue == BIAS:
        return device_in(lambda value, column, bias, other: f(value + load1(bias, column))), False
    if epilogue == RESIDUAL:
        return device_in(lambda value, column, bias, other: f(value + load1(bias, column), other)), True
    if epilogue == SLOPE:
        return device_in(lambda value, column, bias, other: f(value, other)), True
    return device_in(lambda value, column, bias, other: value), False


def looker(reads):
    """(four, one, aligned): four values or one at a flat place of the array beside C, and whether its access may be of
    16 bytes; where there is none, zeros."""
    if reads:
        return (device_in(lambda x, at: load4(x, at)), device_in(lambda x, at: load1(x, at)),
                device_in(lambda x: is_aligned(x)))
    return (device_in(lambda x, at: (x, x, x, x)), device_in(lambda x, at: x), device_in(lambda x: True))


def as_it_is(row, of):
    return row


def writer(tile, epilogue, f=None, place=as_it_is):
    """Writes a thread's values, each as `finisher` says, in columns up to `last`; place(row, of): which row of C that
    is."""
    rows, columns, _, high, wide = tile
    high_step, wide_step = rows * 4 // high, columns * 4 // wide
    finish, reads = finisher(epilogue, f)
    look4, look1, may_look4 = looker(reads)
    place = device_in(place)

    def write(sums, bias, beside, first_row, first_column, ty, tx, m, last, of, c):
        n = int32(c.shape[1])
        is_wide = is_aligned(c) and may_look4(beside) and n % 4 == 0 and last % 4 == 0 and first_column % 4 == 0
        for i in unrolled(high):             # a loop that stays one keeps `sums` in memory
            row = int32(first_row + i // 4 * high_step + ty + i % 4)
            for strip in range(wide // 4):
                column, s = int32(first_column + strip * wide_step + tx), i * wide + 4 * strip
                room, at = int32(last - column), place(row, of) * n + column
                if row < m and is_wide and room > 0:
                    others = look4(beside, at)
                    store4(c, at, finish(sums[s], column, bias, others[0]),
                           finish(sums[s + 1], column + 1, bias, others[1]),
                           finish(sums[s + 2], column + 2, bias, others[2]),
                           finish(sums[s + 3], column + 3, bias, others[3]))
                elif row < m and not is_wide:
                    for j in range(4):
                        if int32(j) < room:
                            store1(c, at + j, finish(sums[s + j], column + j, bias, look1(beside, at + j)))

    return device_in(write)
