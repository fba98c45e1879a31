"""Matrix products on the CPU: C = A B for every transposed form, dense layers, products times a slope.

Shape letters: A is (m, k), B is (k, n), C is (m, n) after the flags are applied; `width` is two vectors.

A task computes a rectangle of C. It takes a block of `mc` rows of A, small enough for the L2 cache, and goes over B in
strips of `width` columns; every strip meets all panels of at most ROWS rows of the block. One panel times one strip is
`micro`, whose sums stay in registers over `kc` steps of k. Blocking as in Goto and van de Geijn, Anatomy of
High-Performance Matrix Multiplication (ACM TOMS 2008), but with a k block so long that C is seldom read again:
on processors with a large L2 cache both operands can stream from there.

Operands are copied ("packed") only where that pays: B when it is used often or transposed, A when the distance of its
rows makes them fall on the same cache sets. Sums run over k in order, in one chain of fused multiply-adds for each
value of C: the bits do not depend on blocking, packing, tasks or threads.
"""
import numpy as np

from engine.kernels.op import Spec
from engine.kernels.simd import (
    ROWS, by_rows, cache_bytes, lanes, lanes_of, next_panels, outer_fma, part, pointer, prefetch, square_tile, tile, tile_load, tile_map,
    tile_map2, tile_store, transpose)

NARROW = 5                                   # from this height on a tile of one vector is faster than one of two
BEFORE, ON_THE_WAY = 1, 2                    # how B is packed: transposed copies, or by the first panel
AHEAD, PACKED_AHEAD = 8, 64                  # rows of B asked for before they are used: page after page, or dense


@part
def tiles(rows, vectors, panels, strips, kc, cols, left, right, soon, out, start, last, f, slope, copy, copy_strip):
    """panels x strips tiles of C, each rows x vectors: c = start + a[:, :kc] @ b[:kc], and after the last block of k
    f of that, or the slope of that and y. `cols`: columns in each tile (less than its width in B's last strip).
    `soon` is what to ask the memory for meanwhile, row by row. What is None, Numba drops: f and slope are formulas or
    None; `copy`, if not, is where to pack B on the way."""
    a, a_row, a_col, a_panel = left          # distances from row to row, along k, from panel to panel
    b, ldb, b_strip = right
    ask, ask_row, ask_strip = soon
    c, ldc, y = out
    before, before_row, before_col = start
    width = vectors * lanes_of(c)
    for _ in range(panels):
        for s in range(strips):
            acc = tile_load(tile(rows, vectors, c), before + s * before_col * width, before_row, cols)
            strip = b + s * b_strip
            for k in range(kc):
                prefetch(acc, ask + (s * ask_strip + k * ask_row), 0, 1)
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
def copy_rows(rows, cols, src, ld, dst, ldd):
    """dst[r, j] = src[r, j] for j < cols, zeros up to the end of a vector; all rows side by side, as many streams."""
    t, lanes = tile(1, 1, src), lanes_of(src)
    for j in range(0, cols, lanes):
        for r in range(rows):
            tile_store(tile_load(t, src + (r * ld + j), 0, cols - j), dst + (r * ldd + j), 0)


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
        j = least(s, cols - lanes)             # the last block overlaps the one before
        for k in range(0, kc, lanes):
            tile_store(transpose(tile_load(t, src + j * ld + k, ld, kc - k)), dst + k * ldd + j, ldd)


@part
def least(x, y):
    return x if x < y else y


@part
def padded(n, step):
    """n rounded up to a multiple of step."""
    return (n + step - 1) // step * step


@part
def pack_transposed(first, last, n, kc, b, b_col, packed, size):
    """Strips first .. last of a transposed B, kc rows: rows at a distance of two vectors, `size` values a strip."""
    width = 2 * lanes_of(b)
    for j in range(first * width, least(last * width, n), width):
        copy_transposed(kc, least(width, n - j), b + j * b_col, b_col, packed, width)
        packed += size


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
def group(rows, strips, edge, kc, left, right, soon, out, start, last, f, slope, packed, packed_strip):
    """A block of A times a group of B's strips, the last of which has `edge` columns (0: all are full). With
    `packed_strip` > 0 the first panel packs B on its way, for the other panels."""
    a, a_row, a_col, a_panel = left
    b, ldb, b_strip = right
    ask, ask_row, ask_strip = soon
    c, ldc, y = out
    before, before_row, before_col = start
    lanes, i = lanes_of(c), 0
    full = strips - (edge > 0)
    while i < rows:
        height, panels = next_panels(rows - i)
        pack = i == 0 and packed_strip > 0
        if pack:
            panels = 1
        step = a_panel if a_panel > 0 else height * a_row
        for s, count, cols in ((0, full, 2 * lanes), (full, strips - full, edge)):
            j = s * 2 * lanes
            at = (a, a_row, a_col, step)
            to = (c + (i * ldc + j), ldc, y + (i * ldc + j))
            of = (b + s * b_strip, ldb, b_strip)
            next_of = (ask + s * ask_strip, ask_row, ask_strip)
            since = (before + (i * before_row + j * before_col), before_row, before_col)
            if count > 0 and pack:
                by_rows(tiles, height, ROWS, (2, 1, count, kc, cols, at, of, (of[0] + AHEAD * ldb, ldb, b_strip), to, since, last, f, slope,
                                              packed + s * packed_strip, packed_strip))
            elif count > 0 and (cols > lanes or height < NARROW):
                by_rows(tiles, height, 1, (2, panels, count, kc, cols, at, of, next_of, to, since, last, f, slope,
                                           None, 0))
            elif count > 0:
                by_rows(tiles, height, NARROW, (1, panels, count, kc, cols, at, of, next_of, to, since, last, f, slope,
                                           None, 0))
        if pack:
            b, ldb, b_strip = packed, 2 * lanes, packed_strip
        a += panels * step
        i += panels * height


@part
def rectangle(m, n, k, left, right, out, start, f, slope, work, kc, mc, ns, pack_a, pack_b):
    """c[:m, :n] = f(start + a[:m, :k] @ b[:k, :n]) or slope(that, y), on one thread; distances in elements."""
    a, a_row, a_col = left
    b, b_row, b_col = right
    c, ldc, y = out
    lanes = lanes_of(c)
    width = 2 * lanes
    strips, k_blocks = (n + width - 1) // width, (max(k, 1) + kc - 1) // kc
    b_size = padded(kc, lanes) * width
    a_size = padded(ROWS, lanes) * (padded(kc, lanes) + lanes) if pack_a else 0
    keep = m > mc                            # all of B's packed strips are used again
    packed_a = work + (k_blocks * strips if keep else ns) * b_size * (pack_b > 0)
    for i in range(0, m, mc):
        rows = least(mc, m - i)
        for q in range(k_blocks):
            p = q * kc
            steps = least(kc, k - p)
            ai, row, col = a + (i * a_row + p * a_col), a_row, a_col
            if pack_a:
                pack_panels(rows, steps, ai, a_row, a_col, packed_a, a_size)
                ai, row, col = packed_a, padded(kc, lanes) + lanes, 1
                if a_col != 1:
                    row, col = 1, padded(ROWS, lanes)
            for s in range(0, strips, ns):
                j, end = s * width, least(strips, s + ns)
                packed, packed_strip = work + (q * strips + s if keep else 0) * b_size, 0
                bs = (b + (p * b_row + j), b_row, width)
                soon = (bs[0] + AHEAD * b_row, b_row, width)
                if pack_b:
                    if i == 0 and pack_b == ON_THE_WAY:
                        packed_strip = b_size
                        soon = (bs[0] + (end - s) * width, b_row, width)
                    else:
                        bs, soon = (packed, width, b_size), (packed + PACKED_AHEAD * width, width, b_size)
                        if i == 0:
                            pack_transposed(s, end, n, steps, b + p * b_row, b_col, packed, b_size)
                ij = i * ldc + j
                before = (c + ij, ldc, 1)
                if q == 0:
                    before = (start[0] + (i * start[1] + j * start[2]), start[1], start[2])
                group(rows, end - s, n % width if end == strips else 0, steps, (ai, row, col, a_size), bs, soon,
                      (c + ij, ldc, y + ij), before, q == k_blocks - 1, f, slope, packed, packed_strip)


@part
def task_rectangle(m, n, task, m_tasks, n_tasks, lanes):
    """First row, rows, first column, columns of a task's part of C; columns are cut between strips, rows between
    full panels where there are enough of them."""
    width = 2 * lanes
    strips, unit = (n + width - 1) // width, ROWS if m >= 8 * ROWS * m_tasks else 2
    row, column = task // n_tasks, task % n_tasks
    panels = (m + unit - 1) // unit
    i0, i1 = panels * row // m_tasks * unit, least(m, panels * (row + 1) // m_tasks * unit)
    j0, j1 = strips * column // n_tasks * width, least(n, strips * (column + 1) // n_tasks * width)
    return i0, i1 - i0, j0, j1 - j0


@part
def matmul_kernel(a, b, transpose_a, transpose_b, c, work, accumulate, kc, mc, ns, pack_a, pack_b, m_tasks, task, tasks):
    """C = op(A) op(B), or C += that; op transposes where the flag is 1. `plan_matmul` gives what follows `c`."""
    m, n = c.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    a_row, a_col = (1, a.shape[1]) if transpose_a else (a.shape[1], 1)
    b_row, b_col = (1, b.shape[1]) if transpose_b else (b.shape[1], 1)
    lanes = lanes_of(pointer(c))
    i, rows, j, columns = task_rectangle(m, n, task, m_tasks, tasks // m_tasks, lanes)
    own, pc = pointer(work) + work.shape[0] // tasks * task, pointer(c) + (i * n + j)
    for v in range(2 * lanes):               # where every sum starts
        own[v] = 0
    start = (own, 0, 0)
    if accumulate:
        start = (pc, n, 1)
    rectangle(rows, columns, k, (pointer(a) + i * a_row, a_row, a_col), (pointer(b) + j * b_col, b_row, b_col),
              (pc, n, pc), start, None, None, own + 2 * lanes, kc, mc, ns, pack_a, pack_b)


@part
def dense_kernel(x, w, bias, f, y, work, kc, mc, ns, pack_a, pack_b, m_tasks, task, tasks):
    """Y = f(X W + bias): the bias is where the sums start, f is applied before the store."""
    (m, k), n, lanes = x.shape, w.shape[1], lanes_of(pointer(y))
    i, rows, j, columns = task_rectangle(m, n, task, m_tasks, tasks // m_tasks, lanes)
    py = pointer(y) + (i * n + j)
    rectangle(rows, columns, k, (pointer(x) + i * k, k, 1), (pointer(w) + j, n, 1), (py, n, py),
              (pointer(bias) + j, 0, 1), f, None, pointer(work) + work.shape[0] // tasks * task, kc, mc, ns, pack_a,
              pack_b)


# ----------------------------------------------------------------------------------------------------------- blocking


def plan_matmul(m, n, k, transpose_a, transpose_b, dtype, threads, accumulate=False):
    """(tasks, Specs of the work arrays, blocking) for `matmul_kernel` on this computer."""
    tasks, size, blocking = plan_blocks(m, n, k, transpose_a, transpose_b, dtype, threads)
    return tasks, (Spec((size,), dtype),), (int(accumulate), *blocking)


def plan_dense(m, n, k, dtype, threads):
    """(tasks, Specs of the work arrays, blocking) for `dense_kernel` on this computer."""
    tasks, size, blocking = plan_blocks(m, n, k, False, False, dtype, threads)
    return tasks, (Spec((size,), dtype),), blocking


def plan_blocks(m, n, k, transpose_a, transpose_b, dtype, threads):
    """(tasks, values of work, (kc, mc, ns, pack_a, pack_b, m_tasks))."""
    dtype = np.dtype(dtype)
    size, lane = dtype.itemsize, lanes(dtype)
    width = 2 * lane
    kmax = 8192 // size
    k_blocks = max(1, -(-k // kmax))
    kc = max(1, -(-k // k_blocks))
    pack_b = BEFORE if transpose_b else ON_THE_WAY if m >= 96 and k * n * size > 512 * 1024 else 0
    lda = m if transpose_a else k
    pack_a = int(n >= 256 and m * k * size > 512 * 1024 and (lda * size % 1024 == 0 or bool(transpose_a)))
    mc = max(ROWS, cache_bytes(2) // 2 // (kc * size) // ROWS * ROWS)
    mc = max(1, -(-m // -(-m // mc))) if m else 1
    strips = -(-n // width)
    ns = 1
    if k * n * size <= cache_bytes(2) // 4:
        ns = max(1, strips)
    tasks = 1 if m * n * k < 100_000 else threads
    n_tasks = tasks if strips >= tasks and (pack_b or m < 4 * ROWS) else 1
    m_tasks = tasks // n_tasks
    if m_tasks > -(-m // 2):
        m_tasks, tasks = 1, n_tasks
    ns = min(ns, max(1, -(-strips // n_tasks)))
    blocking = kc, mc, ns, pack_a, pack_b, m_tasks
    return tasks, tasks * work_values(m, n, k, *blocking, n_tasks, lane), blocking


def work_values(m, n, k, kc, mc, ns, pack_a, pack_b, m_tasks, n_tasks, lane):
    """Values of work that one task needs: zeros to start from, its strips of B, its panels of A."""
    def up(value, step):
        return -(-value // step) * step
    width = 2 * lane
    strips = max(ns, -(-(-(-n // width)) // n_tasks) * -(-max(k, 1) // kc))
    panels = -(-min(m, mc) // ROWS) + 6
    return (width + (pack_b > 0) * strips * up(kc, lane) * width + pack_a * panels * up(ROWS, lane) * (up(kc, lane) + lane))


MATMUL_PHASES = matmul_kernel
DENSE_PHASES = dense_kernel
