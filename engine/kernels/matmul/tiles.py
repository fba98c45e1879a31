"""How a product is computed on one thread: rectangles of C as panels x strips of register tiles.

`rectangle` takes `mc` rows of A at a time, few enough to stay in the L2 cache, and goes over B in groups of `ns`
strips. A strip is two vectors of columns wide, a panel of A some rows (`next_panels`) high. One panel times one strip
is a tile, whose sums stay in registers over `kc` steps of k. This is the blocking of Goto and van de Geijn, Anatomy of
High-Performance Matrix Multiplication (ACM TOMS 2008), with a much longer k block: an L2 cache of megabytes feeds both
operands fast enough, and C is seldom read again.

Operands are copied ("packed") only where that pays: A when the distance of its rows makes them fall on the same cache
sets; B when it is transposed (in registers, before), or large and used by many panels (the first panel of each strip
stores what it reads). Sums run over k in order, in one chain of multiply-adds for each value of C, so the bits do not
depend on blocking, packing, tasks or threads.

An operand is a tuple: a pointer, then distances in elements. `f` and `slope` are formulas or None; what stands behind
`is not None` of a None, Numba drops.
"""
from engine.kernels.simd import (
    HEIGHTS,
    ROWS,
    by_rows,
    lanes_of,
    next_panels,
    outer_fma,
    part,
    prefetch,
    row_sum,
    square_tile,
    tile,
    tile_fma,
    tile_load,
    tile_map,
    tile_map2,
    tile_store,
    transpose,
)

BEFORE, ON_THE_WAY = 1, 2                    # how B is packed (0: not at all)
NARROW = 5                                   # from this height on a tile of one vector is faster than one of two
WIDE = 8                                     # vectors of a tile of one row: as many chains as the adders can hide
TALL = max(h for h in HEIGHTS if h <= 8)     # scalar products at once: chains, as for WIDE
AHEAD, PACKED_AHEAD = 8, 64                  # rows of B asked for before they are used


@part
def least(x, y):
    return min(y, x)


@part
def padded(n, step):
    """n rounded up to a multiple of step."""
    return (n + step - 1) // step * step


@part
def tiles(rows, vectors, panels, strips, kc, cols, left, right, out, start, last, f, slope, copy, copy_strip):
    """panels x strips tiles of C, each rows x vectors: c = start + a[:, :kc] @ b[:kc], and after the last block of k
    f of that, or slope of that and y. `cols`: columns in each tile (less than its width in B's last strip).
    `copy`, if not None, is where to pack B."""
    a, a_row, a_col, a_panel = left          # distances from row to row, along k, from panel to panel
    b, ldb, b_strip, ahead = right
    c, ldc, y = out
    before, before_row, before_col = start
    width = vectors * lanes_of(c)
    for _ in range(panels):
        for s in range(strips):
            acc = tile_load(tile(rows, vectors, c), before + s * before_col * width, before_row, cols)
            strip = b + s * b_strip
            for k in range(kc):
                prefetch(acc, strip + (k * ldb + ahead), 0, 1)
                row = tile_load(tile(1, vectors, c), strip + k * ldb, 0, cols)
                if copy is not None:
                    tile_store(row, copy + (s * copy_strip + k * width), 0)
                acc = outer_fma(acc, a + k * a_col, a_row, row)
            if f is not None:
                if last:
                    acc = tile_map(acc, f)
            if slope is not None:
                if last:
                    acc = tile_map2(acc, slope, tile_load(acc, y + s * width, ldc, cols))
            tile_store(acc, c + s * width, ldc, cols)
        a, c, y, before = a + a_panel, c + rows * ldc, y + rows * ldc, before + rows * before_row


@part
def group(rows, strips, edge, kc, left, right, out, start, last, f, slope, packed, packed_strip):
    """A block of A times a group of B's strips, the last of which has `edge` columns (0: all are full). With
    `packed_strip` > 0 the first panel packs B on its way, for the other panels."""
    a, a_row, a_col, a_panel = left
    b, ldb, b_strip, ahead = right
    c, ldc, y = out
    before, before_row, before_col = start
    lanes, i = lanes_of(c), 0
    width, full = 2 * lanes, strips - (edge > 0)
    while i < rows:
        height, panels = next_panels(rows - i)
        pack = i == 0 and packed_strip > 0
        panels = 1 if pack else panels
        step = a_panel if a_panel > 0 else height * a_row
        wide = full * width // (WIDE * lanes) if height == 1 and b_strip == width else 0
        at = (a, a_row, a_col, step)
        for s, count, cols in ((0, wide, WIDE * lanes), (wide * (WIDE // 2), full - wide * (WIDE // 2), width),
                               (full, strips - full, edge)):
            j = s * width
            to = (c + (i * ldc + j), ldc, y + (i * ldc + j))
            since = (before + (i * before_row + j * before_col), before_row, before_col)
            of = (b + s * b_strip, ldb, b_strip, ahead)
            if count > 0 and pack:
                by_rows(tiles, height, ROWS, ROWS, (2, 1, count, kc, cols, at, of, to, since, last, f, slope,
                                                    packed + s * packed_strip, packed_strip))
            elif count > 0 and cols > width:
                of = (b, ldb, WIDE * lanes, ahead)
                by_rows(tiles, height, 1, 1, (WIDE, 1, count, kc, cols, at, of, to, since, last, f, slope, None, 0))
            elif count > 0 and (cols > lanes or height < NARROW):
                by_rows(tiles, height, 1, ROWS, (2, panels, count, kc, cols, at, of, to, since, last, f, slope, None,
                                                 0))
            elif count > 0:
                by_rows(tiles, height, NARROW, ROWS, (1, panels, count, kc, cols, at, of, to, since, last, f, slope,
                                                      None, 0))
        if pack:
            b, ldb, b_strip, ahead = packed, width, packed_strip, PACKED_AHEAD * width
        a += panels * step
        i += panels * height


@part
def rectangle(m, n, k, left, right, out, start, f, slope, work, kc, mc, ns, pack_a, pack_b):
    """c[:m, :n] = f(start + a[:m, :k] @ b[:k, :n]) or slope(that, y), on one thread."""
    a, a_row, a_col = left
    b, b_row, b_col = right
    c, ldc, y = out
    lanes = lanes_of(c)
    width = 2 * lanes
    strips, k_blocks = (n + width - 1) // width, ((k if k > 0 else 1) + kc - 1) // kc
    b_size = padded(kc, lanes) * width
    a_size = padded(ROWS, lanes) * (padded(kc, lanes) + lanes) if pack_a else 0
    keep = m > mc                            # all of B's packed strips are used again
    packed_a = work + (k_blocks * strips if keep else ns) * b_size * (pack_b > 0)
    for i in range(0, m, mc):
        rows = least(mc, m - i)
        for q in range(k_blocks):
            p = q * kc
            steps = least(kc, k - p)
            at = (a + (i * a_row + p * a_col), a_row, a_col, 0)
            if pack_a:
                pack_panels(rows, steps, at[0], a_row, a_col, packed_a, a_size)
                at = (packed_a, padded(kc, lanes) + lanes, 1, a_size)
                if a_col != 1:
                    at = (packed_a, 1, padded(ROWS, lanes), a_size)
            for s in range(0, strips, ns):
                j, end = s * width, least(strips, s + ns)
                packed, packed_strip = work + (q * strips + s if keep else 0) * b_size, 0
                of = (b + (p * b_row + j), b_row, width, AHEAD * b_row)
                if pack_b == ON_THE_WAY and i == 0:
                    packed_strip = b_size
                elif pack_b:
                    of = (packed, width, b_size, PACKED_AHEAD * width)
                    if i == 0:
                        pack_transposed(s, end, n, steps, b + p * b_row, b_col, packed, b_size)
                ij = i * ldc + j
                since = (c + ij, ldc, 1)
                if q == 0:
                    since = (start[0] + (i * start[1] + j * start[2]), start[1], start[2])
                group(rows, end - s, n % width if end == strips else 0, steps, at, of, (c + ij, ldc, y + ij), since,
                      q == k_blocks - 1, f, slope, packed, packed_strip)


# ------------------------------------------------------------------------------------------------------------ packing


@part
def copy_rows(rows, cols, src, ld, dst, ldd):
    """dst[r, j] = src[r, j] for j < cols, zeros up to the end of a vector; all rows side by side, as many streams."""
    t, lanes = tile(1, 1, src), lanes_of(src)
    for j in range(0, cols, lanes):
        for r in range(rows):
            tile_store(tile_load(t, src + (r * ld + j), 0, cols - j), dst + (r * ldd + j), 0)


@part
def pack_panels(rows, kc, a, a_row, a_col, packed, size):
    """All panels of a block of A, `size` values each: rows at a distance that no cache minds, or, where A is
    transposed, the values for one k together."""
    lanes, i = lanes_of(a), 0
    while i < rows:
        height, count = next_panels(rows - i)
        for _ in range(count):
            if a_col == 1:
                copy_rows(height, kc, a + i * a_row, a_row, packed, padded(kc, lanes) + lanes)
            else:
                copy_rows(kc, height, a + i * a_row, a_col, packed, padded(ROWS, lanes))
            packed += size
            i += height


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
def pack_transposed(first, last, n, kc, b, b_col, packed, size):
    """Strips first .. last of a transposed B, kc rows: rows at a distance of two vectors, `size` values a strip."""
    width = 2 * lanes_of(b)
    for j in range(first * width, least(last * width, n), width):
        copy_transposed(kc, least(width, n - j), b + j * b_col, b_col, packed, width)
        packed += size


# ----------------------------------------------------------------------------------------------------- scalar products


@part
def dots(rows, panels, k, x, w, ldw, c, add):
    """c[j] = x[:k] . w[j, :k] for panels * rows rows of w, added to what is there if `add`: one vector of partial
    sums for each."""
    lanes = lanes_of(c)
    for _ in range(panels):
        acc = tile(rows, 1, c)
        for p in range(0, k - lanes + 1, lanes):
            acc = tile_fma(acc, tile_load(acc, w + p, ldw), tile_load(acc, x + p, 0))
        rest = k % lanes
        if rest > 0:
            p = k - rest
            acc = tile_fma(acc, tile_load(acc, w + p, ldw, rest), tile_load(acc, x + p, 0, rest))
        acc = row_sum(acc)
        if add:
            acc = acc + tile_load(acc, c, 1, 1)
        tile_store(acc, c, 1, 1)
        w, c = w + rows * ldw, c + rows


@part
def rows_by_dots(m, n, k, a, a_row, w, ldw, c, ldc, add):
    """c[:m, :n] = a[:m, :k] @ w[:n, :k].T for few rows of A, where transposing W would take longer than the product."""
    for i in range(m):
        full, x, ci = n // TALL * TALL, a + i * a_row, c + i * ldc
        by_rows(dots, TALL, TALL, TALL, (full // TALL, k, x, w, ldw, ci, add))
        by_rows(dots, 1, 1, 1, (n - full, k, x, w + full * ldw, ldw, ci + full, add))
