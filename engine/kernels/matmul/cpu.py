"""Matrix products on the CPU, one task of a grid each: C = A B in every transposed form, dense layers, gradients.

Shape letters: A is (m, k), B is (k, n), C is (m, n) after the flags are applied. A task computes a rectangle of C (or
whole products of a batch); `tiles.py` says how, `blocking.py` chooses the numbers that follow `work`.

One row times a large B is read as it comes from memory: tasks share k, in chunks that depend on the shape alone; a
second phase adds the chunks' sums up, in order.
"""
from engine.kernels.matmul.blocking import (
    COLUMN,
    DOTS,
    TILES,
    TURNED,
    UNIT,
    grains,
    plan_batched,
    plan_dense,
    plan_matmul,
    plan_slope,
)
from engine.kernels.matmul.few_rows import rows_by_dots, turned
from engine.kernels.matmul.packing import least
from engine.kernels.matmul.tiles import WIDE, finish, rectangle
from engine.kernels.simd import lanes_of, part, pointer, tile, tile_load, tile_store
from engine.kernels.split import number_of, place_of, span

__all__ = ["BATCHED_PHASES", "DENSE_PHASES", "MATMUL_PHASES", "SLOPE_PHASES", "UNIT", "dense_phases", "grains",
           "matmul_phases", "plan_batched", "plan_dense", "plan_matmul", "plan_slope"]


@part
def task_rectangle(m, n, unit, task, m_tasks, n_tasks, lanes):
    """First row, rows, first column, columns of a task's part of C; rows are cut at multiples of `unit`, columns
    between strips."""
    width, (row, column) = 2 * lanes, place_of(task, m_tasks, n_tasks)
    i, rows = span((m + unit - 1) // unit, row, m_tasks)
    j, strips = span((n + width - 1) // width, column, n_tasks)
    return i * unit, least(m - i * unit, rows * unit), j * width, least(n - j * width, strips * width)


@part
def operands(a, b, transpose_a, transpose_b):
    """Distances of op(A) and op(B) from row to row and from column to column, and k; for 2-D or the last axes."""
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    a_row, a_col = (1, k) if transpose_a else (k, 1)
    b_row, b_col = (1, n) if transpose_b else (n, 1)
    return a_row, a_col, b_row, b_col, m if transpose_a else k


@part
def zeros(work, lanes):
    """Where sums start from nothing: zeros at the head of a task's work."""
    for v in range(WIDE * lanes):
        work[v] = 0
    return work, 0, 0


@part
def chunks(n, k, left, right, work, kc, ns, task, tasks):
    """A task's chunks of the sums of one row: sums[chunk] = a[chunk] b[chunk], behind the tasks' zeros in `work`."""
    a, _, a_col = left
    b, b_row, _ = right
    head = WIDE * lanes_of(work)
    own, sums = work + number_of(task) * head, work + tasks * head
    start = zeros(own, lanes_of(work))
    first, count = span((k + kc - 1) // kc, task, tasks)
    for chunk in range(first, first + count):
        p, to = chunk * kc, sums + chunk * n
        rectangle(1, n, least(kc, k - p), (a + p * a_col, 0, a_col), (b + p * b_row, b_row, 1), (to, n, to), start,
                  None, None, own, kc, 1, ns, 0, 0)


@part
def sum_of_chunks(n, k, work, start, f, c, kc, task, tasks):
    """c = f(start + the sums of all chunks, in order); tasks share the columns."""
    lanes, one = lanes_of(c), tile(1, 1, c)
    before, _, before_col = start
    sums = work + tasks * WIDE * lanes
    first, count = span((n + lanes - 1) // lanes, task, tasks)
    stop = least(n, (first + count) * lanes)
    for j in range(first * lanes, stop, lanes):
        total = tile_load(one, before + j * before_col, 0, n - j)
        for chunk in range((k + kc - 1) // kc):
            total = total + tile_load(one, sums + (chunk * n + j), 0, n - j)
        tile_store(total, c + j, 0, n - j)
    j = first * lanes
    finish(1, stop - j, c + j, n, c + j, n, f, None)


@part
def own_part(a, b, transpose_a, transpose_b, c, work, accumulate, unit, m_tasks, task, tasks):
    """(rows, columns and k of a task's part of C, op(A), op(B), C, where its sums start, its part of the work)"""
    m, n = c.shape
    lanes = lanes_of(pointer(c))
    a_row, a_col, b_row, b_col, k = operands(a, b, transpose_a, transpose_b)
    i, rows, j, columns = task_rectangle(m, n, unit, task, m_tasks, tasks // m_tasks, lanes)
    own, pc = pointer(work) + work.shape[0] // tasks * number_of(task), pointer(c) + (i * n + j)
    start = zeros(own, lanes)
    if accumulate:
        start = pc, n, 1
    return ((rows, columns, k), (pointer(a) + i * a_row, a_row, a_col), (pointer(b) + j * b_col, b_row, b_col),
            (pc, n, pc), start, own)


@part
def matmul_tiles(a, b, transpose_a, transpose_b, c, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks, task,
                 tasks):
    """C = op(A) op(B), or C += that; op transposes where the flag is 1."""
    (rows, columns, k), left, right, out, start, own = own_part(a, b, transpose_a, transpose_b, c, work, accumulate,
                                                                UNIT, m_tasks, task, tasks)
    rectangle(rows, columns, k, left, right, out, start, None, None, own + WIDE * lanes_of(own), kc, mc, ns, pack_a,
              pack_b)


@part
def matmul_dots(a, b, transpose_a, transpose_b, c, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks, task,
                tasks):
    """The same for few rows of A and a transposed B, or for one column of a B that is not."""
    m, n = c.shape
    a_row, _, b_row, b_col, k = operands(a, b, transpose_a, transpose_b)
    i, rows, j, columns = task_rectangle(m, n, UNIT, task, m_tasks, tasks // m_tasks, lanes_of(pointer(c)))
    pa, pb, pc = pointer(a) + i * a_row, pointer(b) + j * b_col, pointer(c) + (i * n + j)
    if way == COLUMN:                        # C.T = B.T A.T, and a column lies in memory like a row
        rows_by_dots(1, rows, k, pointer(b), k, pa, a_row, pc, m, accumulate)
    else:
        rows_by_dots(rows, columns, k, pa, a_row, pb, b_col, pc, n, accumulate)


@part
def matmul_turned(a, b, transpose_a, transpose_b, c, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks, task,
                  tasks):
    """The same where it is best to compute C.T and to turn that."""
    (rows, columns, k), left, right, out, start, own = own_part(a, b, transpose_a, transpose_b, c, work, accumulate,
                                                                lanes_of(pointer(c)), m_tasks, task, tasks)
    turned(rows, columns, k, left, right, out, start, None, None, own, own + WIDE * lanes_of(own), kc, mc, ns, pack_a,
           pack_b)


@part
def matmul_chunks(a, b, transpose_a, transpose_b, c, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks, task,
                  tasks):
    """The same for one row, in chunks of k: each chunk's sums, which `matmul_sum_of_chunks` adds up."""
    a_row, a_col, b_row, b_col, k = operands(a, b, transpose_a, transpose_b)
    chunks(c.shape[1], k, (pointer(a), a_row, a_col), (pointer(b), b_row, b_col), pointer(work), kc, ns, task, tasks)


@part
def matmul_sum_of_chunks(a, b, transpose_a, transpose_b, c, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks,
                         task, tasks):
    """Second phase of a product in chunks: their sums."""
    start = pointer(work), 0, 0
    if accumulate:
        start = pointer(c), 0, 1
    sum_of_chunks(c.shape[1], b.shape[0], pointer(work), start, None, pointer(c), kc, task, tasks)


@part
def dense_tiles(x, w, bias, f, y, work, kc, mc, ns, pack_a, pack_b, m_tasks, task, tasks):
    """Y = f(X W + bias): the bias is where the sums start, f is applied before the store."""
    m, k, n, lanes = x.shape[0], x.shape[1], w.shape[1], lanes_of(pointer(y))
    i, rows, j, columns = task_rectangle(m, n, UNIT, task, m_tasks, tasks // m_tasks, lanes)
    own, py = pointer(work) + work.shape[0] // tasks * number_of(task), pointer(y) + (i * n + j)
    rectangle(rows, columns, k, (pointer(x) + i * k, k, 1), (pointer(w) + j, n, 1), (py, n, py),
              (pointer(bias) + j, 0, 1), f, None, own + WIDE * lanes, kc, mc, ns, pack_a, pack_b)


@part
def dense_chunks(x, w, bias, f, y, work, kc, mc, ns, pack_a, pack_b, m_tasks, task, tasks):
    """The same for one row, in chunks of k: each chunk's sums, which `dense_sum_of_chunks` adds up."""
    k, n = w.shape
    chunks(n, k, (pointer(x), k, 1), (pointer(w), n, 1), pointer(work), kc, ns, task, tasks)


@part
def dense_sum_of_chunks(x, w, bias, f, y, work, kc, mc, ns, pack_a, pack_b, m_tasks, task, tasks):
    """Second phase of a dense layer in chunks: their sums, bias and f."""
    sum_of_chunks(w.shape[1], w.shape[0], pointer(work), (pointer(bias), 0, 1), f, pointer(y), kc, task, tasks)


@part
def slope_kernel(a, b, y, transpose_a, transpose_b, slope, c, work, kc, mc, ns, pack_a, pack_b, m_tasks, task, tasks):
    """C = slope(op(A) op(B), Y) value by value, Y of C's shape: a gradient passing through an activation on its way,
    slope(d, y) = d * f'(y)."""
    m, n = c.shape
    lanes = lanes_of(pointer(c))
    a_row, a_col, b_row, b_col, k = operands(a, b, transpose_a, transpose_b)
    i, rows, j, columns = task_rectangle(m, n, UNIT, task, m_tasks, tasks // m_tasks, lanes)
    own, ij = pointer(work) + work.shape[0] // tasks * number_of(task), i * n + j
    rectangle(rows, columns, k, (pointer(a) + i * a_row, a_row, a_col), (pointer(b) + j * b_col, b_row, b_col),
              (pointer(c) + ij, n, pointer(y) + ij), zeros(own, lanes), None, slope, own + WIDE * lanes, kc, mc, ns,
              pack_a, pack_b)


@part
def batched_kernel(a, b, transpose_a, transpose_b, c, work, accumulate, kc, mc, ns, pack_a, pack_b, task, tasks):
    """C[i] = op(A[i]) op(B[i]) or C[i] += that, for 3-D arrays; a task computes whole products."""
    count, m, n = c.shape
    lanes = lanes_of(pointer(c))
    a_row, a_col, b_row, b_col, k = operands(a, b, transpose_a, transpose_b)
    own = pointer(work) + work.shape[0] // tasks * number_of(task)
    nothing = zeros(own, lanes)
    first, own_count = span(count, task, tasks)
    for i in range(first, first + own_count):
        pc, start = pointer(c) + i * m * n, nothing
        if accumulate:
            start = pc, n, 1
        rectangle(m, n, k, (pointer(a) + i * m * k, a_row, a_col), (pointer(b) + i * k * n, b_row, b_col), (pc, n, pc),
                  start, None, None, own + WIDE * lanes, kc, mc, ns, pack_a, pack_b)


MATMUL_PHASES = matmul_tiles, matmul_dots, matmul_turned, matmul_chunks, matmul_sum_of_chunks
DENSE_PHASES = dense_tiles, dense_chunks, dense_sum_of_chunks
PHASE_OF = {TILES: 0, DOTS: 1, COLUMN: 1, TURNED: 2}


def matmul_phases(numbers):
    """Which of MATMUL_PHASES a product has whose plan gives these numbers: a plan compiles no other."""
    return (3, 4) if numbers[-1] == 0 else (PHASE_OF[numbers[1]],)


def dense_phases(numbers):
    """The same for DENSE_PHASES."""
    return (1, 2) if numbers[-1] == 0 else (0,)


SLOPE_PHASES = slope_kernel
BATCHED_PHASES = batched_kernel
