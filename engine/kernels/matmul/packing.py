"""Copies of operands in the order in which tiles read them; see `tiles.py`."""
from engine.kernels.simd import ROWS, lanes_of, part, square_tile, tile_load, tile_store, transpose


@part
def least(x, y):
    return x if x < y else y                 # noqa: FURB136 (Numba compiles `min` as a function of its own)


@part
def padded(n, step):
    """n rounded up to a multiple of step."""
    return (n + step - 1) // step * step


@part
def panel_values(kc, lanes):
    """Values of a panel of ROWS rows that is copied turned, and of what its last vector has too much."""
    return ROWS * padded(kc, lanes) + lanes


@part
def pack_panels(panels, rows, kc, a, a_row, packed, size):
    """Panels of ROWS rows of A, of `rows` rows that it has at least, `size` values each, as `near_tiles` reads them:
    what belongs to one k together."""
    lanes = lanes_of(a)
    for p in range(panels):
        cols = lanes if ROWS <= lanes <= rows else ROWS       # a whole vector is read at once, if A has as many rows
        copy_transposed(kc, cols, a, a_row, packed + p * size, ROWS)
        a, rows = a + ROWS * a_row, rows - ROWS


@part
def copy_transposed(kc, cols, src, ld, dst, ldd):
    """dst[k, j] = src[j, k] for j < cols, a square block in registers at a time; rows of dst up to a whole block."""
    t, lanes = square_tile(src), lanes_of(src)
    if cols < lanes:
        for k in range(kc):
            for j in range(cols):
                dst[k * ldd + j] = src[j * ld + k]
        return
    for s in range(0, cols, lanes):
        j = least(s, cols - lanes)           # the last block overlaps the one before
        for k in range(0, kc, lanes):
            tile_store(transpose(tile_load(t, src + (j * ld + k), ld, kc - k)), dst + (k * ldd + j), ldd)


@part
def pack_transposed(strips, kc, b, b_col, packed, size):
    """Full strips of a transposed B, kc rows: rows at a distance of two vectors, `size` values a strip."""
    width = 2 * lanes_of(b)
    for s in range(strips):
        copy_transposed(kc, width, b + s * width * b_col, b_col, packed + s * size, width)
