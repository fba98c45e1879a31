"""How a product is blocked and shared out, from its shape and this computer's caches: what `cpu.py`'s kernels take
after `work`. Measured with 48 KB of L1, 2 MB of L2 a core.

    kc      length of a k block
    mc      rows of A that stay in L2 while B goes by
    ns      strips of B in a group
    pack_a  1: A's panels are copied
    pack_b  0: B is read where it is, 1: transposed copies, 2: the first panel copies
    m_tasks how many tasks share the rows; the others share the columns
"""
from typing import NamedTuple

import numpy as np

from engine.kernels.matmul.tiles import BEFORE, ON_THE_WAY, WIDE
from engine.kernels.op import Spec
from engine.kernels.simd import ROWS, cache_bytes, lanes

# Multiply-adds that one thread does in about 10 us. Waking a second one takes 2 to 5 us on an idle machine, and
# milliseconds on a busy one, where the thread has to wait for a core.
SERIAL_BELOW = 500_000
DOTS_UP_TO = 4                               # rows of A


class Blocking(NamedTuple):
    """See the module's text."""
    kc: int
    mc: int
    ns: int
    pack_a: int
    pack_b: int
    m_tasks: int


def plan_matmul(m, n, k, transpose_a, transpose_b, dtype, threads, accumulate=False):
    """(tasks, Specs of the work arrays, numbers) for `matmul_kernel`."""
    tasks, work, blocking = _plan(m, n, k, transpose_a, transpose_b, dtype, threads)
    dots = int(bool(transpose_b) and not transpose_a and m <= DOTS_UP_TO)
    return tasks, work, (int(accumulate), dots, *blocking)


def plan_dense(m, n, k, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) for `dense_kernel`."""
    return _plan(m, n, k, False, False, dtype, threads)


def plan_slope(m, n, k, transpose_a, transpose_b, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) for `slope_kernel`."""
    return _plan(m, n, k, transpose_a, transpose_b, dtype, threads)


def plan_batched(count, m, n, k, transpose_a, transpose_b, dtype, threads, accumulate=False):
    """(tasks, Specs of the work arrays, numbers) for `batched_kernel`: tasks share the products."""
    tasks = 1 if count * m * n * k < SERIAL_BELOW else max(1, min(count, threads))
    _, work, blocking = _plan(m, n, k, transpose_a, transpose_b, dtype, 1)
    return tasks, (Spec((tasks * work[0].size,), work[0].dtype),), (int(accumulate), *blocking[:-1])


def _plan(m, n, k, transpose_a, transpose_b, dtype, threads):
    dtype = np.dtype(dtype)
    tasks = 1 if m * n * k < SERIAL_BELOW else threads
    blocking = block(m, n, k, transpose_a, transpose_b, dtype, tasks)
    m_tasks, n_tasks = blocking.m_tasks, tasks // blocking.m_tasks
    size = work_values(m, n, k, blocking, n_tasks, dtype)
    return m_tasks * n_tasks, (Spec((m_tasks * n_tasks * size,), dtype),), blocking


def block(m, n, k, transpose_a, transpose_b, dtype, tasks):
    """The `Blocking` of a product shared by so many tasks."""
    size, width, l2 = dtype.itemsize, 2 * lanes(dtype), cache_bytes(2)
    strips = max(1, ceil(n, width))
    kc = near_equal(k, 4 * 2048 // size)
    if transpose_b:
        pack_b = BEFORE
    else:
        pack_b = ON_THE_WAY if m >= 8 * ROWS and k * n * size > l2 // 4 else 0
    ns = strips if k * n * size <= l2 // 4 else 1
    lda = m if transpose_a else k
    pack_a = int(n >= 16 * width and m * k * size > l2 // 4 and (lda * size % 4096 == 0 or bool(transpose_a)))
    n_tasks = tasks if strips >= tasks and (pack_b or m < 4 * ROWS) else 1
    m_tasks = tasks // n_tasks if m >= 2 * tasks else 1
    mc = near_equal(ceil(m, m_tasks), max(4 * ROWS, l2 // 2 // (kc * size) // ROWS * ROWS))
    return Blocking(kc, mc, min(ns, ceil(strips, n_tasks)), pack_a, pack_b, m_tasks)


def work_values(m, n, k, blocking, n_tasks, dtype):
    """Values of work that one task needs: zeros to start from, strips of B, panels of A."""
    lane = lanes(dtype)
    kc = ceil(blocking.kc, lane) * lane
    strips = ceil(ceil(n, 2 * lane), n_tasks) * ceil(max(k, 1), blocking.kc) + blocking.ns
    panels = ceil(min(m, blocking.mc), ROWS) + 4            # the last rows make up to 4 low panels
    return (WIDE * lane + (strips * kc * 2 * lane if blocking.pack_b else 0)
            + (panels * ceil(ROWS, lane) * lane * (kc + lane) if blocking.pack_a else 0))


def near_equal(n, most):
    """The length of the pieces when n is cut into the fewest near-equal ones of at most `most`."""
    return max(1, ceil(n, max(1, ceil(n, most))))


def ceil(n, step):
    return -(-n // step)
