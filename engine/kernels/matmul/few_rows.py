"""Few rows of A times a transposed B: a product that reads the large B as it lies, and turns what is small.

Operands and formulas as in `tiles.py`.
"""
from engine.kernels.matmul.packing import least, padded
from engine.kernels.matmul.tiles import LOW, WIDE, finish, rectangle
from engine.kernels.simd import (
    column_sum,
    lanes_of,
    part,
    row_sum,
    square_tile,
    tile,
    tile_fma,
    tile_load,
    tile_store,
    transpose,
)

DOTS_SIDE_BY_SIDE = 1024                     # from here on rows of W come from afar, best one after the other


@part
def turned(m, n, k, left, right, out, start, f, slope, zeros, work, kc, mc, ns, pack_a, pack_b):
    """As `rectangle`, for m a multiple of the lanes: C.T = B.T A.T is computed and turned. Where B is transposed in
    memory and A has few rows, that turns A and C in registers instead of the large B. Of a B that is not
    transposed, a copy with columns of zeros is taken where more than one row of C.T were left alone."""
    a, a_row, a_col = left
    b, b_row, b_col = right
    c, ldc, y = out
    t, lanes = square_tile(c), lanes_of(c)
    before, before_row, before_col = start
    turn, rows, left = work + padded(n, lanes) * m, n, (b, b_col, b_row)
    if b_col == 1 and n % LOW > 1:
        rows = padded(n, LOW)
        copy_wider(k, n, b, b_row, turn, rows)
        left, turn = (turn, 1, rows), turn + padded(k * rows, lanes)
    rectangle(rows, m, k, left, (a, a_col, a_row), (work, m, work), (zeros, 0, 0), None, None, turn, kc, mc, ns, pack_a,
              pack_b)
    for i in range(0, m, lanes):
        for j in range(0, n, lanes):
            cols = least(lanes, n - j)
            acc = transpose(tile_load(t, work + (j * m + i), m))
            acc = acc + tile_load(t, before + (i * before_row + j * before_col), before_row, cols)
            tile_store(acc, c + (i * ldc + j), ldc, cols)
    finish(m, n, c, ldc, y, ldc, f, slope)


@part
def copy_wider(rows, cols, src, ld, dst, ldd):
    """dst (rows, ldd) = src (rows, cols), and zeros."""
    row, lanes = tile(1, 1, src), lanes_of(src)
    for i in range(rows):
        for j in range(0, ldd, lanes):
            tile_store(tile_load(row, src + (i * ld + j), 0, cols - j), dst + (i * ldd + j), 0, ldd - j)


@part
def dots(k, x, w, ldw, c, add):
    """c[:lanes] = w[:lanes, :k] @ x[:k], or c += that: partial sums of all rows at once, added by one transpose."""
    acc = square_tile(c)
    whole = k - k % lanes_of(c)
    for p in range(0, whole, lanes_of(c)):
        acc = tile_fma(acc, tile_load(acc, w + p, ldw), tile_load(acc, x + p, 0))
    if whole < k:
        acc = tile_fma(acc, tile_load(acc, w + whole, ldw, k - whole), tile_load(acc, x + whole, 0, k - whole))
    found = column_sum(transpose(acc))
    if add:
        found = found + tile_load(found, c, 0)
    tile_store(found, c, 0)


@part
def dot(k, x, y, c, add):
    """c[0] = x[:k] . y[:k], or c[0] += that: WIDE vectors of partial sums."""
    whole = k - k % (WIDE * lanes_of(c))
    acc = tile(1, WIDE, c)
    for p in range(0, whole, WIDE * lanes_of(c)):
        acc = tile_fma(acc, tile_load(acc, y + p, 0), tile_load(acc, x + p, 0))
    if whole < k:
        acc = tile_fma(acc, tile_load(acc, y + whole, 0, k - whole), tile_load(acc, x + whole, 0, k - whole))
    acc = row_sum(acc)
    if add:
        acc = acc + tile_load(acc, c, 0, 1)
    tile_store(acc, c, 0, 1)


@part
def rows_by_dots(m, n, k, a, a_row, w, ldw, c, ldc, add):
    """c[:m, :n] = a[:m, :k] @ w[:n, :k].T, or c += that, for few rows of A, where transposing W would take longer than
    the product."""
    lanes = lanes_of(c)
    blocks = n - n % lanes if k < DOTS_SIDE_BY_SIDE else 0
    for i in range(m):
        for j in range(0, blocks, lanes):
            dots(k, a + i * a_row, w + j * ldw, ldw, c + (i * ldc + j), add)
        for j in range(blocks, n):
            dot(k, a + i * a_row, w + j * ldw, c + (i * ldc + j), add)
