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
from numba import njit

from engine.kernels.op import Spec
from engine.kernels.simd import (
    ROWS, by_rows, cache_bytes, lanes, lanes_of, next_height, outer_fma, pointer, prefetch, square_tile, tile, tile_load, tile_map,
    tile_map2, tile_store, transpose)

AHEAD = 8                                    # rows of B asked for before they are used


@njit(error_model="numpy")
def micro(rows, vectors, kc, a, a_row, a_col, b, ldb, c, ldc, cols, start, start_row, last, f, slope, y):
    """c[:rows, :cols] = start + a[:rows, :kc] @ b[:kc, :cols], and after the last block of k f or the slope of that.
    f and slope are formulas or None; Numba drops what stands behind a None."""
    acc = tile_load(tile(rows, vectors, c), start, start_row, cols)
    for k in range(kc):
        prefetch(acc, b + (k + AHEAD) * ldb, 0, 1)
        acc = outer_fma(acc, a + k * a_col, a_row, b + k * ldb, cols)
    if f is not None:
        if last:
            acc = tile_map(acc, f)
    if slope is not None:
        if last:
            acc = tile_map2(acc, slope, tile_load(acc, y, ldc, cols))
    tile_store(acc, c, ldc, cols)


@njit(error_model="numpy")
def copy_rows(rows, cols, src, ld, dst, ldd):
    """dst[r, j] = src[r, j] for j < cols, zeros up to the end of a vector."""
    t, lanes = tile(1, 1, src), lanes_of(src)
    for r in range(rows):
        for j in range(0, cols, lanes):
            prefetch(t, src + (r + AHEAD) * ld + j, 0, 1)
            tile_store(tile_load(t, src + r * ld + j, 0, cols - j), dst + r * ldd + j, 0)


@njit(error_model="numpy")
def copy_transposed(kc, cols, src, ld, dst, ldd):
    """dst[k, j] = src[j, k] for j < cols, a square block in registers at a time; rows of dst up to a whole block."""
    t, lanes = square_tile(src), lanes_of(src)
    if cols < lanes:
        for k in range(kc):
            for j in range(cols):
                dst[k * ldd + j] = src[j * ld + k]
        return
    for s in range(0, cols, lanes):
        j = min(s, cols - lanes)             # the last block overlaps the one before
        for k in range(0, kc, lanes):
            tile_store(transpose(tile_load(t, src + j * ld + k, ld, kc - k)), dst + k * ldd + j, ldd)


@njit(inline="always")
def pack_strip(kc, cols, b, b_row, b_col, dst):
    """`cols` columns of B, kc rows, at a distance of two vectors."""
    if b_col == 1:
        copy_rows(kc, cols, b, b_row, dst, 2 * lanes_of(b))
    else:
        copy_transposed(kc, cols, b, b_col, dst, 2 * lanes_of(b))

@njit(inline="always")
def pack_panel(rows, kc, a, a_row, a_col, dst, ld):
    """`rows` rows of A, kc columns: rows at a distance of `ld`, or (A transposed) ROWS values for each k together."""
    if a_col == 1:
        copy_rows(rows, kc, a, a_row, dst, ld)
    else:
        copy_rows(kc, rows, a, a_col, dst, padded(ROWS, lanes_of(a)))


@njit(inline="always")
def padded(n, step):
    """n rounded up to a multiple of step."""
    return (n + step - 1) // step * step


@njit(inline="always")
def panel_loop(rows, cols, kc, a, a_row, a_col, packed, panel, fill, b, ldb, c, ldc, start, start_row, last, f,
               slope, y):
    """One strip of B times all panels of a block of A; `panel` > 0: A's panels are packed at that distance, by the
    first strip (`fill`)."""
    lanes, i = lanes_of(c), 0
    row, col = a_row, a_col
    if panel > 0:
        row, col = (padded(kc, lanes) + lanes, 1) if a_col == 1 else (1, padded(ROWS, lanes))
    while i < rows:
        height = next_height(rows - i)
        at = a + i * a_row
        if panel > 0:
            at = packed
            packed += panel
            if fill:
                pack_panel(height, kc, a + i * a_row, a_row, a_col, at, row)
        if cols > lanes:
            by_rows(micro, height, (2, kc, at, row, col, b, ldb, c + i * ldc, ldc, cols, start + i * start_row, start_row,
                                    last, f, slope, y + i * ldc))
        else:
            by_rows(micro, height, (1, kc, at, row, col, b, ldb, c + i * ldc, ldc, cols, start + i * start_row, start_row,
                                    last, f, slope, y + i * ldc))
        i += height


@njit(inline="always")
def rectangle(m, n, k, a, a_row, a_col, b, b_row, b_col, c, ldc, start, start_row, start_col, f, slope, y, work,
              kc, mc, pack_a, pack_b):
    """c[:m, :n] = f(start + a[:m, :k] @ b[:k, :n]), or slope(that, y), on one thread; distances in elements."""
    lanes = lanes_of(c)
    width = 2 * lanes
    strips, k_blocks = (n + width - 1) // width, (max(k, 1) + kc - 1) // kc
    strip = padded(kc, lanes) * width if pack_b else 0
    panel = padded(ROWS, lanes) * (padded(kc, lanes) + lanes) if pack_a else 0
    packed_b = work + (k_blocks * strips if m > mc else 1) * strip
    work, packed_b = packed_b, work
    for i in range(0, m, mc):
        for q in range(k_blocks):
            p = q * kc
            steps = min(kc, k - p)
            for s in range(strips):
                j = s * width
                cols = min(width, n - j)
                bs, ldb = b + (p * b_row + j * b_col), b_row
                if pack_b:
                    at = packed_b + (q * strips + s if m > mc else 0) * strip
                    if i == 0:
                        pack_strip(steps, cols, bs, b_row, b_col, at)
                    bs, ldb = at, width
                cij = c + (i * ldc + j)
                before, before_row = cij, ldc
                if q == 0:
                    before, before_row = start + (i * start_row + j * start_col), start_row
                panel_loop(min(mc, m - i), cols, steps, a + (i * a_row + p * a_col), a_row, a_col, work, panel, s == 0,
                           bs, ldb, cij, ldc, before, before_row, q == k_blocks - 1, f,
                           slope, y + (i * ldc + j))


@njit(inline="always")
def task_rectangle(m, n, task, m_tasks, n_tasks, lanes):
    """First row, rows, first column, columns of a task's part of C; columns are cut between strips, rows between
    full panels where there are enough of them."""
    width = 2 * lanes
    strips, unit = (n + width - 1) // width, ROWS if m >= 8 * ROWS * m_tasks else 2
    row, column = task // n_tasks, task % n_tasks
    panels = (m + unit - 1) // unit
    i0, i1 = panels * row // m_tasks * unit, min(m, panels * (row + 1) // m_tasks * unit)
    j0, j1 = strips * column // n_tasks * width, min(n, strips * (column + 1) // n_tasks * width)
    return i0, i1 - i0, j0, j1 - j0


@njit(error_model="numpy")
def matmul_kernel(a, b, transpose_a, transpose_b, c, work, accumulate, kc, mc, pack_a, pack_b, m_tasks, task, tasks):
    """C = op(A) op(B), or C += that; op transposes where the flag is 1. `plan_matmul` gives what follows `c`."""
    m, n = c.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    a_row, a_col = (1, a.shape[1]) if transpose_a else (a.shape[1], 1)
    b_row, b_col = (1, b.shape[1]) if transpose_b else (b.shape[1], 1)
    pa, pb, pc, lanes = pointer(a), pointer(b), pointer(c), lanes_of(pointer(c))
    i, rows, j, columns = task_rectangle(m, n, task, m_tasks, tasks // m_tasks, lanes)
    own = pointer(work) + work.shape[0] // tasks * task
    for v in range(2 * lanes):               # the start of every sum
        own[v] = 0
    start, start_row, start_col = own, 0, 0
    if accumulate:
        start, start_row, start_col = pc + (i * n + j), n, 1
    rectangle(rows, columns, k, pa + i * a_row, a_row, a_col, pb + j * b_col, b_row, b_col, pc + (i * n + j), n,
              start, start_row, start_col, None, None, pc, own + 2 * lanes, kc, mc, pack_a, pack_b)


@njit(error_model="numpy")
def dense_kernel(x, w, bias, f, y, work, kc, mc, pack_a, pack_b, m_tasks, task, tasks):
    """Y = f(X W + bias): the bias is where the sums start, f is applied before the store."""
    (m, k), n, lanes = x.shape, w.shape[1], lanes_of(pointer(y))
    i, rows, j, columns = task_rectangle(m, n, task, m_tasks, tasks // m_tasks, lanes)
    rectangle(rows, columns, k, pointer(x) + i * k, k, 1, pointer(w) + j, n, 1, pointer(y) + (i * n + j), n,
              pointer(bias) + j, 0, 1, f, None, pointer(y), pointer(work) + work.shape[0] // tasks * task, kc, mc,
              pack_a, pack_b)


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
    """(tasks, values of work, (kc, mc, pack_a, pack_b, m_tasks))."""
    dtype = np.dtype(dtype)
    size, lane = dtype.itemsize, lanes(dtype)
    width = 2 * lane
    kmax = 8192 // size
    k_blocks = max(1, -(-k // kmax))
    kc = max(1, -(-k // k_blocks))
    pack_b = bool(transpose_b) or (m >= 96 and k * n * size > 512 * 1024)
    lda = m if transpose_a else k
    pack_a = n >= 256 and m * k * size > 512 * 1024 and (lda * size % 1024 == 0 or transpose_a)
    mc = max(ROWS, cache_bytes(2) // 2 // (kc * size) // ROWS * ROWS)
    tasks = 1 if m * n * k < 100_000 else threads
    n_tasks = tasks if -(-n // width) >= tasks and (pack_b or m < 4 * ROWS) else 1
    m_tasks = tasks // n_tasks
    if m_tasks > -(-m // 2):
        m_tasks, tasks = 1, n_tasks
    return tasks, tasks * work_values(m, n, k, kc, mc, pack_a, pack_b, n_tasks, lane), (kc, mc, int(pack_a), int(pack_b), m_tasks)


def work_values(m, n, k, kc, mc, pack_a, pack_b, n_tasks, lane):
    """Values of work that one task needs: zeros to start from, its strips of B, its panels of A."""
    def up(value, step):
        return -(-value // step) * step
    width = 2 * lane
    strips = -(-(-(-n // width)) // n_tasks) * -(-max(k, 1) // kc)
    panels = -(-min(m, mc) // ROWS) + 4
    return (width + pack_b * strips * up(kc, lane) * width + pack_a * panels * up(ROWS, lane) * (up(kc, lane) + lane))


MATMUL_PHASES = matmul_kernel
DENSE_PHASES = dense_kernel
