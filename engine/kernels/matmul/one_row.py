"""One row of A times B: hardly more than reading B, as it lies in memory.

Some rows of B are read side by side, each from left to right, as the memory likes it, and C, which stays in the nearest
cache, takes what they add. (A tile of all k steps would read B in columns: a fifth slower where B is in L2.) Each value
of C is one chain of multiply-adds over k in order, as in a tile.
"""
from engine.kernels.simd import lanes_of, outer_fma, part, tile, tile_load, tile_store

SIDE_BY_SIDE = 8                             # rows of B; with C's, as many streams as a processor follows by itself
STRETCH = 4                                  # vectors of a tile: as many chains as hide a multiply-add's latency


@part(forceinline=True)
def add_rows(count, like, left, right, c):
    """c += a b, where a has so many values and b so many rows, of the width of the tile `like`."""
    (a, a_col), (b, ldb) = left, right
    acc = tile_load(like, c, 0)
    for k in range(count):
        acc = outer_fma(acc, a + k * a_col, 0, tile_load(like, b + k * ldb, 0))
    tile_store(acc, c, 0)


@part(forceinline=True)
def add_across(count, columns, left, right, c):
    """c[:columns] += a b, for whole pairs of vectors."""
    b, ldb = right
    step = STRETCH * lanes_of(c)
    whole = columns - columns % step
    for j in range(0, whole, step):
        add_rows(count, tile(1, STRETCH, c), left, (b + j, ldb), c + j)
    for j in range(whole, columns, 2 * lanes_of(c)):
        add_rows(count, tile(1, 2, c), left, (b + j, ldb), c + j)


@part
def one_row(columns, kc, left, right, c, start):
    """c[:columns] = start + a b, for whole pairs of vectors; operands as in `tiles.py`, B's strips side by side."""
    a, _, a_col, lines, a_line = left
    b, ldb, _ = right
    before, _, before_col = start
    pair, width, whole = tile(1, 2, c), 2 * lanes_of(c), kc - kc % SIDE_BY_SIDE
    for j in range(0, columns, width):
        tile_store(tile_load(pair, before + j * before_col, 0), c + j, 0)
    for _ in range(lines):
        for k in range(0, whole, SIDE_BY_SIDE):
            add_across(SIDE_BY_SIDE, columns, (a + k * a_col, a_col), (b + k * ldb, ldb), c)
        for k in range(whole, kc):
            add_across(1, columns, (a + k * a_col, a_col), (b + k * ldb, ldb), c)
        a, b = a + a_line, b + kc * ldb
