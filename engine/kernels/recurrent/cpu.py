"""CPU kernels of the recurrent ops. A task takes some sequences through all steps: no task waits for another.

A task packs u once (`engine.kernels.blocks`); it stays in L2 for all steps. CHUNK sequences go together: what a step
hands to the next one lies side by side in the task's work, whatever the distance of the sequences in the arrays. The
chain of multiply-adds behind a value does not depend on who computes it: the bits are the same for any number of tasks.
"""
import numpy as np

from engine.kernels.blocks import clear, multiply, pack, pack_transposed, packed_size
from engine.kernels.matmul.blocking import SERIAL_BELOW
from engine.kernels.op import Spec
from engine.kernels.simd import ROWS, lanes_of, part, pointer
from engine.kernels.split import span

CHUNK = 4 * ROWS                             # sequences that go through the steps together


def plan(n, steps, units, gates, dtype, threads, packed):
    """(tasks, Specs of the work array); packed: the sizes (k, n) of the matrices that a task packs. Behind them come
    CHUNK lines of sums and two of states, and a line of zeros."""
    tasks = 1 if n * steps * units * units * gates < SERIAL_BELOW else max(1, min(threads, n))
    size = sum(packed_size(*p, dtype) for p in packed) + CHUNK * (gates + 2) * units + units
    size = -(-size // 64) * 64               # strips begin on cache lines
    return tasks, (Spec((tasks * size,), np.dtype(dtype)),)


@part(disjoint=True)
def copy(source, count, to):
    """to[:count] = source[:count]"""
    for k in range(count):
        to[k] = source[k]


@part
def packed_values(k, n, like):
    """`packed_size` for kernels."""
    width = 2 * lanes_of(like)
    return (n + width - 1) // width * width * k + width * lanes_of(like)


@part
def chunk_of(first, count, start):
    """First row and number of rows of the chunk that starts at row `start` of a task's share."""
    left = count - start
    return first + start, CHUNK if left > CHUNK else left


@part
def place(step, steps, reverse):
    """Where the step stands that is read as number `step`."""
    return steps - 1 - step if reverse else step


@part
def shifted(y, row, reverse, before):
    """before[row, s] = what y holds of the step read before s, zeros for the one read first"""
    steps, units = y.shape[1], y.shape[2]
    source, to = pointer(y) + row * steps * units, pointer(before) + row * steps * units
    clear(to + (steps - 1) * units * reverse, units)
    copy(source + units * reverse, (steps - 1) * units, to + units * (1 - reverse))


# ---------------------------------------------------------------------------------------------------------------- LSTM


@part(disjoint=True)
def lstm_cell(units, sigmoid, tanh, sums, cell, gates, cells, y, state):
    """One step of one sequence: gates from their sums, then the cell and the output."""
    for j in range(units):
        i, f = sigmoid(sums[j]), sigmoid(sums[units + j])
        g, o = tanh(sums[2 * units + j]), sigmoid(sums[3 * units + j])
        c = f * cell[j] + i * g
        h = o * tanh(c)
        gates[j], gates[units + j], gates[2 * units + j], gates[3 * units + j] = i, f, g, o
        cell[j], cells[j] = c, c
        y[j], state[j] = h, h


@part
def lstm_cpu(z, u, sigmoid, tanh, reverse, y, cells, gates, work, task, tasks):
    """y, cells, gates of all steps; the sums of step s start from z[:, s]."""
    n, steps, units = y.shape
    first, count = span(n, task, tasks)
    wide, packed = 4 * units, pointer(work) + work.size // tasks * task
    state = packed + packed_values(units, wide, packed)
    cell, sums = state + CHUNK * units, state + 2 * CHUNK * units
    pack(units, wide, pointer(u), wide, packed)
    for start in range(0, count, CHUNK):
        row, rows = chunk_of(first, count, start)
        clear(state, 2 * CHUNK * units)
        for step in range(steps):
            at = row * steps + place(step, steps, reverse)
            multiply(rows, wide, units, (state, units, 1), packed, (pointer(z) + at * wide, steps * wide, 1), sums,
                     wide)
            for r in range(rows):
                line = at + r * steps
                lstm_cell(units, sigmoid, tanh, sums + r * wide, cell + r * units, pointer(gates) + line * wide,
                          pointer(cells) + line * units, pointer(y) + line * units, state + r * units)


@part(disjoint=True)
def lstm_cell_grad(units, sigmoid_slope, tanh, tanh_slope, dy, gates, cells, earlier, dcell, dh, dz, kept):
    """One step of one sequence backwards: dh and dcell come from the step behind, dcell goes to the step before."""
    for j in range(units):
        i, f, g, o = gates[j], gates[units + j], gates[2 * units + j], gates[3 * units + j]
        t, d = tanh(cells[j]), dy[j] + dh[j]
        dc = dcell[j] + d * o * tanh_slope(t)
        di, df = dc * g * sigmoid_slope(i), dc * earlier[j] * sigmoid_slope(f)
        dg, do = dc * i * tanh_slope(g), d * t * sigmoid_slope(o)
        dcell[j] = dc * f
        dz[j], dz[units + j], dz[2 * units + j], dz[3 * units + j] = di, df, dg, do
        kept[j], kept[units + j], kept[2 * units + j], kept[3 * units + j] = di, df, dg, do


@part
def lstm_grad_cpu(dy, u, y, cells, gates, sigmoid_slope, tanh, tanh_slope, reverse, dz, before, work, task, tasks):
    """Backpropagation through time: dz of all steps, and the outputs shifted by one step."""
    n, steps, units = y.shape
    first, count = span(n, task, tasks)
    wide, packed = 4 * units, pointer(work) + work.size // tasks * task
    dh = packed + packed_values(wide, units, packed)
    dcell, kept = dh + CHUNK * units, dh + 2 * CHUNK * units
    zeros = kept + CHUNK * wide
    clear(zeros, units)
    pack_transposed(wide, units, pointer(u), wide, packed)
    for start in range(0, count, CHUNK):
        row, rows = chunk_of(first, count, start)
        clear(dh, 2 * CHUNK * units)
        for step in range(steps - 1, -1, -1):
            at = row * steps + place(step, steps, reverse)
            for r in range(rows):
                line = at + r * steps
                own = pointer(cells) + line * units
                earlier = zeros
                if step > 0:
                    earlier = own + units * (2 * reverse - 1)
                lstm_cell_grad(units, sigmoid_slope, tanh, tanh_slope, pointer(dy) + line * units,
                               pointer(gates) + line * wide, own, earlier, dcell + r * units, dh + r * units,
                               pointer(dz) + line * wide, kept + r * wide)
            multiply(rows, units, wide, (kept, wide, 1), packed, (zeros, 0, 1), dh, units)
        for r in range(row, row + rows):
            shifted(y, r, reverse, before)


# ----------------------------------------------------------------------------------------------------------------- GRU


@part(disjoint=True)
def gru_cell(units, sigmoid, tanh, sums, z, gates, kept, y, state):
    """One step of one sequence; sums: r and v with z, and q = h u + b of the candidate without."""
    for j in range(units):
        r, v, q = sigmoid(sums[j]), sigmoid(sums[units + j]), sums[2 * units + j]
        g = tanh(z[2 * units + j] + r * q)
        h = g + v * (state[j] - g)
        gates[j], gates[units + j], gates[2 * units + j] = r, v, g
        kept[j], y[j], state[j] = q, h, h


@part
def gru_cpu(z, u, bias, sigmoid, tanh, reverse, y, kept, gates, work, task, tasks):
    """y, kept (the candidate's recurrent sums) and gates of all steps."""
    n, steps, units = y.shape
    first, count = span(n, task, tasks)
    wide, packed = 3 * units, pointer(work) + work.size // tasks * task
    last = packed + packed_values(units, 2 * units, packed)
    state = last + packed_values(units, units, packed)
    sums = state + 2 * CHUNK * units
    pack(units, 2 * units, pointer(u), wide, packed)
    pack(units, units, pointer(u) + 2 * units, wide, last)
    for start in range(0, count, CHUNK):
        row, rows = chunk_of(first, count, start)
        clear(state, CHUNK * units)
        for step in range(steps):
            at = row * steps + place(step, steps, reverse)
            multiply(rows, 2 * units, units, (state, units, 1), packed, (pointer(z) + at * wide, steps * wide, 1), sums,
                     wide)
            multiply(rows, units, units, (state, units, 1), last, (pointer(bias), 0, 1), sums + 2 * units, wide)
            for r in range(rows):
                line = at + r * steps
                gru_cell(units, sigmoid, tanh, sums + r * wide, pointer(z) + line * wide, pointer(gates) + line * wide,
                         pointer(kept) + line * units, pointer(y) + line * units, state + r * units)


@part(disjoint=True)
def gru_cell_grad(units, sigmoid_slope, tanh_slope, dy, gates, kept, earlier, dh, dz, dq, work):
    """One step of one sequence backwards; dh becomes the part that goes straight to the step before."""
    for j in range(units):
        r, v, g = gates[j], gates[units + j], gates[2 * units + j]
        d = dy[j] + dh[j]
        dv = d * (earlier[j] - g) * sigmoid_slope(v)
        dg = (d - d * v) * tanh_slope(g)
        dr = dg * kept[j] * sigmoid_slope(r)
        dz[j], dz[units + j], dz[2 * units + j] = dr, dv, dg
        dq[j], dq[units + j], dq[2 * units + j] = dr, dv, dg * r
        work[j], work[units + j], work[2 * units + j] = dr, dv, dg * r
        dh[j] = d * v


@part
def gru_grad_cpu(dy, u, y, kept, gates, sigmoid_slope, tanh_slope, reverse, dz, dq, before, work, task, tasks):
    """Backpropagation through time: dz by the input's sums, dq by the recurrent sums, and the shifted outputs."""
    n, steps, units = y.shape
    first, count = span(n, task, tasks)
    wide, packed = 3 * units, pointer(work) + work.size // tasks * task
    dh = packed + packed_values(wide, units, packed)
    own = dh + 2 * CHUNK * units
    zeros = own + CHUNK * wide
    clear(zeros, units)
    pack_transposed(wide, units, pointer(u), wide, packed)
    for start in range(0, count, CHUNK):
        row, rows = chunk_of(first, count, start)
        clear(dh, CHUNK * units)
        for step in range(steps - 1, -1, -1):
            at = row * steps + place(step, steps, reverse)
            for r in range(rows):
                line = at + r * steps
                earlier = zeros
                if step > 0:
                    earlier = pointer(y) + (line + 2 * reverse - 1) * units
                gru_cell_grad(units, sigmoid_slope, tanh_slope, pointer(dy) + line * units,
                              pointer(gates) + line * wide, pointer(kept) + line * units, earlier, dh + r * units,
                              pointer(dz) + line * wide, pointer(dq) + line * wide, own + r * wide)
            multiply(rows, units, wide, (own, wide, 1), packed, (dh, units, 1), dh, units)
        for r in range(row, row + rows):
            shifted(y, r, reverse, before)


# ---------------------------------------------------------------------------------------------------------- simple RNN


@part(disjoint=True)
def rnn_cell(units, f, sums, y, state):
    for j in range(units):
        h = f(sums[j])
        y[j], state[j] = h, h


@part
def rnn_cpu(z, u, f, reverse, y, work, task, tasks):
    """y of all steps."""
    n, steps, units = y.shape
    first, count = span(n, task, tasks)
    packed = pointer(work) + work.size // tasks * task
    state = packed + packed_values(units, units, packed)
    sums = state + 2 * CHUNK * units
    pack(units, units, pointer(u), units, packed)
    for start in range(0, count, CHUNK):
        row, rows = chunk_of(first, count, start)
        clear(state, CHUNK * units)
        for step in range(steps):
            at = row * steps + place(step, steps, reverse)
            multiply(rows, units, units, (state, units, 1), packed, (pointer(z) + at * units, steps * units, 1), sums,
                     units)
            for r in range(rows):
                rnn_cell(units, f, sums + r * units, pointer(y) + (at + r * steps) * units, state + r * units)


@part(disjoint=True)
def rnn_cell_grad(units, slope, dy, y, dh, dz, kept):
    for j in range(units):
        d = (dy[j] + dh[j]) * slope(y[j])
        dz[j], kept[j] = d, d


@part
def rnn_grad_cpu(dy, u, y, slope, reverse, dz, before, work, task, tasks):
    """Backpropagation through time: dz of all steps, and the outputs shifted by one step."""
    n, steps, units = y.shape
    first, count = span(n, task, tasks)
    packed = pointer(work) + work.size // tasks * task
    dh = packed + packed_values(units, units, packed)
    kept = dh + 2 * CHUNK * units
    zeros = kept + CHUNK * units
    clear(zeros, units)
    pack_transposed(units, units, pointer(u), units, packed)
    for start in range(0, count, CHUNK):
        row, rows = chunk_of(first, count, start)
        clear(dh, CHUNK * units)
        for step in range(steps - 1, -1, -1):
            at = row * steps + place(step, steps, reverse)
            for r in range(rows):
                line = (at + r * steps) * units
                rnn_cell_grad(units, slope, pointer(dy) + line, pointer(y) + line, dh + r * units, pointer(dz) + line,
                              kept + r * units)
            multiply(rows, units, units, (kept, units, 1), packed, (zeros, 0, 1), dh, units)
        for r in range(row, row + rows):
            shifted(y, r, reverse, before)
