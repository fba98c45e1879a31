"""Products inside a kernel, of operands that stay in the nearest caches: c = start + a @ b, where b was packed before.

`pack` and `pack_transposed` copy b (k, n) once into strips of two vectors, zeros beyond its last column; `multiply`
then uses it many times, a register tile of C at a time. Each value of C is one chain of multiply-adds over k in order:
neither the rows that are multiplied together nor what else a task does change a bit of it.

For one large product see `engine.kernels.matmul`; here nothing is blocked, so k steps of a strip should fit into L1
or L2. Operands are pointers with distances in elements.
"""
import numpy as np

from engine.kernels.simd import (
    ROWS,
    by_rows,
    lanes,
    lanes_of,
    next_panels,
    outer_fma,
    part,
    square_tile,
    tile,
    tile_load,
    tile_store,
    transpose,
)


def packed_size(k, n, dtype):
    """Values that a packed (k, n) matrix takes; transposing writes whole squares, beyond the end."""
    lane = lanes(np.dtype(dtype))
    return -(-n // (2 * lane)) * 2 * lane * k + 2 * lane * lane


@part
def clear(p, count):
    """p[:count] = 0"""
    for k in range(0, count, lanes_of(p)):
        tile_store(tile(1, 1, p), p + k, 0, count - k)


@part
def strips_of(n, like):
    """Strips of two vectors that cover n columns."""
    return (n + 2 * lanes_of(like) - 1) // (2 * lanes_of(like))


@part
def pack(k, n, b, b_row, packed):
    """Row r of strip s, of b[r * b_row + j], goes to packed[(s * k + r) * width]."""
    t, width = tile(1, 2, b), 2 * lanes_of(b)
    for s in range(strips_of(n, b)):
        for r in range(k):
            tile_store(tile_load(t, b + (r * b_row + s * width), 0, n - s * width), packed + (s * k + r) * width, 0)


@part
def pack_transposed(k, n, b, b_row, packed):
    """As `pack` for the transpose of what lies in memory: of b[j * b_row + r]."""
    t, lane = square_tile(b), lanes_of(b)
    for j in range(0, strips_of(n, b) * 2 * lane, lane):
        to = packed + (j // (2 * lane) * k * 2 * lane + j % (2 * lane))
        if j + lane <= n:
            for r in range(0, k, lane):      # rows beyond k are overwritten by the next strip
                tile_store(transpose(tile_load(t, b + (j * b_row + r), b_row, k - r)), to + r * 2 * lane, 2 * lane)
        else:
            for r in range(k):
                tile_store(tile(1, 1, b), to + r * 2 * lane, 0)
                for i in range(n - j):
                    to[r * 2 * lane + i] = b[(j + i) * b_row + r]


@part
def tile_product(rows, k, columns, a, a_row, a_col, strip, start, start_row, c, c_row):
    """`rows` rows of C, two vectors wide: the sums stay in registers."""
    acc, width = tile_load(tile(rows, 2, c), start, start_row, columns), 2 * lanes_of(c)
    for p in range(k):
        acc = outer_fma(acc, a + p * a_col, a_row, tile_load(tile(1, 2, c), strip + p * width, 0))
    tile_store(acc, c, c_row, columns)


@part
def multiply(m, n, k, left, packed, before, c, c_row):
    """c[:m, :n] = before + a[:m, :k] @ b; left and before: a pointer, the distance of rows, the distance of columns
    (0: the same one again). A strip of b meets all panels of a while it is near."""
    a, a_row, a_col = left
    start, start_row, start_col = before
    width = 2 * lanes_of(c)
    for s in range(strips_of(n, c)):
        i = 0
        while i < m:
            height, panels = next_panels(m - i)
            for _ in range(panels):
                by_rows(tile_product, height, 1, ROWS, (
                    k, n - s * width, a + i * a_row, a_row, a_col, packed + s * k * width,
                    start + (i * start_row + s * width * start_col), start_row, c + (i * c_row + s * width), c_row))
                i += height
