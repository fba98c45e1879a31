"""How a product is blocked and shared out, from its shape and this computer's caches: what `cpu.py`'s kernels take
after `work`. Measured with 48 KB of L1 and 2 MB of L2 a core.

    kc      length of a k block
    mc      rows of A that are multiplied with a strip of B while it stays in L2
    ns      strips of B in a group
    pack_a  1: A's panels are copied, those of a transposed A on the way, others before
    pack_b  0: B is read where it is, 1: transposed copies, 2: the first panel copies
    m_tasks how many tasks share the rows; the others share the columns. 0: one row, and all share k, kc at a time: then
            each reads whole rows of B, else pieces of rows, which lie on few sets of a cache, with what other tasks
            read in between
"""
from typing import NamedTuple

import numpy as np

from engine.kernels.matmul.tiles import BEFORE, LOW, ON_THE_WAY, SHORT, WIDE
from engine.kernels.op import Spec
from engine.kernels.shares import most
from engine.kernels.simd import ROWS, VECTOR_BYTES, cache_bytes, lanes

# Multiply-adds, or three times the values of all arrays, that one thread does in about 10 us. Waking a second one takes
# 2 to 5 us on an idle machine, and milliseconds on a busy one, where the thread has to wait for a core.
SERIAL_BELOW = 500_000
UNIT = 4                                     # rows that a task has a multiple of: low panels are as fast as tall ones
TILES, DOTS, TURNED, COLUMN = 0, 1, 2, 3     # the ways of a product
COPIED_BESIDE, COPIED_FROM_ROWS = 8, 8 * ROWS               # strips of B, for an A that is not transposed; its rows
COPIED_BY_FEW = 64                           # strips of B from which an A of few rows is copied too
LONG_ROW = 8192                              # bytes of a row of C from which tasks do not meet in its pages
COPIED_FROM = 2048                           # values of B, for a transposed A
WAY_BYTES = 4096                             # of the nearest cache of a processor with pages of that size
CHUNKS, CHUNKED_BEYOND = 16, 1 << 20         # of k, for one row and more bytes of B
LONG_ENOUGH = 256                            # a k block of a transposed A whose rows meet in a cache, or B's do
DOTS_UP_TO, TURNED_UP_TO, PACKED_FROM, CROOKED_FROM = 4, 96, 160, 5 * ROWS           # rows of A


class Blocking(NamedTuple):
    """See the module's text."""
    kc: int
    mc: int
    ns: int
    pack_a: int
    pack_b: int
    m_tasks: int


def plan_matmul(m, n, k, transpose_a, transpose_b, dtype, threads, accumulate=False, chunks=False):
    """(tasks, Specs of the work arrays, numbers) for the kernels of a product; `chunks`: it may be one in chunks."""
    way, lane = TILES, lanes(np.dtype(dtype))
    if n == 1 and not transpose_a:
        way = COLUMN
    elif transpose_b and not transpose_a:
        if m <= DOTS_UP_TO:
            way = DOTS
        elif m <= TURNED_UP_TO and m % lane == 0 and n >= 2 * m and k >= 64:
            way = TURNED                     # A and C have far fewer values to turn than B
    elif transpose_a and not transpose_b and m % lane == 0 and m >= 8 * lane and (
            1 < n < 2 * lane and k >= 8 or n < 4 * lane and 32 * lane <= k and m <= 128 * lane):
        way = TURNED                         # C is narrow, C.T is not; or the short side is the cheaper one to copy
    if chunks and way == TILES and in_chunks(m, n, k, transpose_b, dtype):
        tasks, work, blocking = plan_chunks(n, k, dtype, threads)
    else:
        tasks, work, blocking = _plan(m, n, k, transpose_a, transpose_b, dtype, threads, way)
    return tasks, work, (int(accumulate), way, *blocking)


def plan_dense(m, n, k, dtype, threads, chunks=False):
    """(tasks, Specs of the work arrays, numbers) for those of a dense layer; `chunks`: it may be in chunks."""
    if chunks and in_chunks(m, n, k, False, dtype):
        return plan_chunks(n, k, dtype, threads)
    return _plan(m, n, k, False, False, dtype, threads)


def plan_slope(m, n, k, transpose_a, transpose_b, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) for `slope_kernel`."""
    return _plan(m, n, k, transpose_a, transpose_b, dtype, threads)


def plan_update(m, n, k, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) for the kernels of `update.py`: A is transposed, tasks share the rows.
    The first work array is for the rows of C that come at once, so few that they stay in L2."""
    tasks, work, blocking = _plan(m, n, k, True, False, dtype, threads, rows_only=True)
    at_once = max(4 * ROWS, cache_bytes(2) // 8 // (max(n, 1) * np.dtype(dtype).itemsize) // ROWS * ROWS)
    return tasks, (Spec((tasks * at_once * n,), np.dtype(dtype)), *work), (at_once, *blocking[:-1])


def plan_batched(count, m, n, k, transpose_a, transpose_b, dtype, threads, accumulate=False):
    """(tasks, Specs of the work arrays, numbers) for `batched_kernel`: tasks share the products."""
    tasks = 1 if count * operations(m, n, k) < SERIAL_BELOW else max(1, min(count, threads))
    _, work, blocking = _plan(m, n, k, transpose_a, transpose_b, dtype, 1)
    return tasks, (Spec((tasks * work[0].size,), work[0].dtype),), (int(accumulate), *blocking[:-1])


def in_chunks(m, n, k, transpose_b, dtype):
    """Whether a product's sums are cut into chunks of k. That is so for any number of threads, and chunks are the same
    for all: how sums are cut shows in their bits."""
    return m == 1 and not transpose_b and k * n * np.dtype(dtype).itemsize > CHUNKED_BEYOND


def plan_chunks(n, k, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) of a product of one row in chunks."""
    kc, lane = near_equal(k, ceil(k, CHUNKS)), lanes(np.dtype(dtype))
    tasks = least(threads, ceil(k, kc))
    return (tasks, (Spec((tasks * WIDE * lane + ceil(k, kc) * n,), np.dtype(dtype)),),
            Blocking(kc, 1, max(1, ceil(n, 2 * lane)), 0, 0, 0))


def operations(m, n, k):
    """See `SERIAL_BELOW`."""
    return m * n * k + 3 * (m * n + m * k + n * k)


def _plan(m, n, k, transpose_a, transpose_b, dtype, threads, way=TILES, rows_only=False):
    dtype = np.dtype(dtype)
    tasks = 1 if operations(m, n, k) < SERIAL_BELOW else threads
    if way == TURNED:                        # the longer side of C is shared; computed is (n, k) (k, m)
        m_tasks, n_tasks, rows = 1, least(tasks, ceil(n, 2 * lanes(dtype))), n
        if transpose_a:
            m_tasks, n_tasks, rows = least(tasks, m // lanes(dtype)), 1, up(n, LOW) if n % LOW > 1 else n
        numbers = block(ceil(rows, n_tasks), ceil(m, m_tasks), k, bool(transpose_a), not transpose_a, dtype, 1)
        blocking, size = numbers._replace(m_tasks=m_tasks), turned_values(m, n, k, numbers, m_tasks, n_tasks, dtype)
    else:
        blocking = block(m, n, k, transpose_a, transpose_b, dtype, tasks, rows_only)
        m_tasks, n_tasks = blocking.m_tasks, least(tasks // blocking.m_tasks, ceil(n, 2 * lanes(dtype)))
        size = work_values(m, n, k, blocking, n_tasks, dtype)
    return m_tasks * n_tasks, (Spec((m_tasks * n_tasks * size,), dtype),), blocking


def block(m, n, k, transpose_a, transpose_b, dtype, tasks, rows_only=False):
    """The `Blocking` of a product shared by so many tasks; `rows_only`: they do not share the columns."""
    size, width, l2 = dtype.itemsize, 2 * lanes(dtype), cache_bytes(2)
    strips = max(1, ceil(n, width))
    pack_b = 0
    if transpose_b:
        pack_b = BEFORE
    elif strips > 2 and packs_b(m, n, k, size):
        pack_b = ON_THE_WAY
    # Tasks that share the rows would copy all of B each, others all of A; on the way that costs little, unless B comes
    # from afar. Those that share the columns write to the same rows, which costs more where there is little else to do.
    copies = copies_a(m, n, k, transpose_a, size)
    tall = m >= 8 * n                        # each would read all of A, for a few strips
    cheaper = pack_b == ON_THE_WAY and copies and (m >= 2 * n or m >= n and k * n * size <= 4 * l2)
    long = m < 4 * ROWS * tasks and n * size >= LONG_ROW * tasks         # a task's part of a row of C
    wide = n >= 8 * m and k * n * size > l2  # each would read all of a B that comes from afar, for a few panels
    costs = pack_b == BEFORE or pack_b and k * n * size > l2 // 4        # to copy all of B
    pays = k > SHORT or m < 2 * ROWS * tasks or long
    columns = m < 4 * ROWS or wide or (costs and not tall and not cheaper and pays)
    n_tasks = tasks if strips >= tasks and columns and not rows_only else 1
    m_tasks = tasks // n_tasks if m >= 2 * tasks else 1
    if pack_b == ON_THE_WAY and m < 5 * ROWS * m_tasks:
        pack_b = 0                           # every task needs a first panel of ROWS rows, the one of half a share too
    # packed, both operands stream from L2; otherwise a task's part of B's k block has to stay there
    fit = l2 // 4 // (ceil(strips, n_tasks) * width * size)
    kc = near_equal(k, 8192 // size if pack_b else max(128, min(8192 // size, fit)))
    if copies and transpose_a:               # each step of a panel is a line that needs a place in the nearest cache
        kc = near_equal(k, min(kc, LONG_ENOUGH if m * size % WAY_BYTES == 0 or not pack_b else 2 * LONG_ENOUGH))
        if kc < k:                           # of a sum over many rows, A's panels and B's block share half of L2
            beside = least(ceil(m, m_tasks), 42 * ROWS) + ceil(strips, n_tasks) * width
            kc = near_equal(k, max(128, min(kc, l2 // 2 // (beside * size))))
    near = cache_bytes(1) // 2 // (width * size) if m == 1 else l2 // 2 // (kc * width * size)      # one row: C, not B
    ns = min(most(strips, n_tasks), max(1, near))
    # a strip of B in L2 meets many panels of A, even where those come from afar: one after the other, as they lie;
    # copied panels are written shortly before they are read
    mc = near_equal(most(m, m_tasks), max(42 * ROWS, 0 if copies else l2 // 2 // (kc * size) // ROWS * ROWS))
    return Blocking(kc, mc, ns, int(copies), pack_b, m_tasks)


def packs_b(m, n, k, size):
    """Whether the first panel copies strips of a B that is not transposed, for the others: where B is large, where a
    strip's rows fall on few sets of the nearest cache and B is larger than that, and where rows begin anywhere, so that
    most of their vectors lie in two cache lines."""
    if n * size % VECTOR_BYTES:
        return m >= CROOKED_FROM
    return m >= PACKED_FROM and k * n * size > (cache_bytes(1) if n * size >= WAY_BYTES // 2 else cache_bytes(2) // 4)


def copies_a(m, n, k, transpose_a, size):
    """Whether panels of A are copied, where there is enough to compute: a transposed one on the way, others before. A
    copy's values for one step lie in one cache line, and all steps' addresses are one register and numbers; A's own
    rows may fall on the same sets of a cache, and a processor that shares its core lacks time for their addresses."""
    width = 2 * VECTOR_BYTES // size
    if transpose_a:
        return m >= 2 * ROWS and n >= 2 * width and k * n >= COPIED_FROM
    return m >= COPIED_FROM_ROWS and n >= COPIED_BESIDE * width or m >= 2 * ROWS and n >= COPIED_BY_FEW * width


def work_values(m, n, k, blocking, n_tasks, dtype):
    """Values of work that one task needs: zeros to start from, strips of B (transposed by whole blocks, beyond their
    end), panels of A."""
    lane = lanes(dtype)
    strips = (most(ceil(n, 2 * lane), n_tasks) + 1) * ceil(max(k, 1), blocking.kc) + blocking.ns
    panels = ceil(min(m, blocking.mc), ROWS) + 4            # the last rows make up to 4 low panels
    return (WIDE * lane + ((strips * blocking.kc + lane) * 2 * lane if blocking.pack_b else 0)
            + (panels * (ROWS * up(blocking.kc, lane) + lane) if blocking.pack_a else 0))


def turned_values(m, n, k, numbers, m_tasks, n_tasks, dtype):
    """As `work_values` for the way TURNED: C.T, a copy of a narrow B, and what the product needs."""
    width = 2 * lanes(dtype)
    rows, columns = most(m, m_tasks) + width, most(n, n_tasks) + width
    copy = up(k * up(n, LOW), width) if n < 2 * width and n % LOW > 1 else 0       # of a B that is not transposed
    return up(columns, width) * rows + copy + work_values(columns, rows, k, numbers, 1, dtype)


def grains(c, tasks, m_tasks):
    """How many pieces of C, whose Spec is given, so many tasks share: UNIT rows or a strip each; 0 where both sides are
    shared."""
    if m_tasks == tasks:
        return ceil(c.shape[0], UNIT)
    return ceil(c.shape[-1], 2 * lanes(np.dtype(c.dtype))) if m_tasks == 1 else 0


def least(tasks, pieces):
    return max(1, min(tasks, pieces))


def near_equal(n, most):
    """The length of the pieces when n is cut into the fewest near-equal ones of at most `most`."""
    return max(1, ceil(n, max(1, ceil(n, most))))


def ceil(n, step):
    return -(-n // step)


def up(n, step):
    return ceil(n, step) * step
