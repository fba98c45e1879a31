"""CUDA kernels of the softmax family and their launchers.

A line that `line_shape` finds short enough is read once and written once: its threads hold it in registers, a warp or a
block of them, four neighbours at a time where their number allows it. The threads of a block meet once: each warp sums
e = exp(x - its own largest value), then all know the largest of all, and what their e have to be multiplied by.
Longer lines are read again by each step. Where lines lie side by side (row_step > 1) and there are enough of them, each
thread has a line of its own, so that neighbouring threads read neighbours.
"""
import math

from numba import int32

from engine.kernels.gpu import (
    THREADS,
    blocks,
    cuda,
    device,
    kernel,
    kernel_of,
    warp_max,
    warp_sum,
)
from engine.kernels.split import (
    WARP,
    WARPS,
    in_fours,
    line_shape,
    load_fours,
    load_line,
    shared_max,
    shared_sum,
    store_fours,
    store_line,
)

SIDE_BY_SIDE = 32                            # lines next to each other from which on each thread takes one


@device
def begin_of(line, size, columns, row_step):
    """Where a line starts."""
    if row_step == 1:
        return line * size
    group = line // columns
    return group * columns * size + line - group * columns


@device
def met(tops, sums, top, s, thread, threads):
    """(largest, sum of exp(x - largest)) of a line, for each of its threads, from those of each warp, in one meeting of
    the block; tops, sums: shared arrays of one value a warp."""
    if thread % WARP == 0:
        tops[thread // WARP], sums[thread // WARP] = top, s
    cuda.syncthreads()
    lane = thread % WARP
    there = lane < threads // WARP
    top = tops[lane] if there else tops[0]
    largest = warp_max(top)
    share = sums.dtype.type(1) if top == largest else math.exp(top - largest)        # inf - inf would be NaN
    return largest, warp_sum(sums[lane] * share if there else sums.dtype.type(0))


@kernel_of
def _softmax_lines(values, threads, fours):
    def softmax_lines(x, size, lines, columns, row_step, logarithm, y):
        tops, sums = cuda.shared.array(WARPS, x.dtype), cuda.shared.array(WARPS, x.dtype)
        held, lowest = cuda.local.array(values, x.dtype), x.dtype.type(-math.inf)
        line, thread = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, int32(cuda.threadIdx.x)
        if line < lines:                     # a whole warp leaves
            begin, s = begin_of(line, size, columns, row_step), x.dtype.type(0)
            top = warp_max(load_fours(x, begin, size, thread, threads, -math.inf, held) if fours else
                           load_line(x, begin, row_step, size, thread, threads, -math.inf, held))
            base = top if top > lowest else x.dtype.type(0)          # inf - inf would be NaN
            for k in range(values):
                e = math.exp(held[k] - base)
                s += e
                held[k] = held[k] if logarithm else e
            s, largest = warp_sum(s), top
            if threads > WARP:
                largest, s = met(tops, sums, top, s, thread, threads)
            factor, shift = math.exp(top - largest) / s, math.log(s) if s > 0 else s     # a line of -inf alone: NaN
            for k in range(values):
                held[k] = (held[k] - largest) - shift if logarithm else held[k] * factor
            if fours:
                store_fours(y, begin, size, thread, threads, held)
            else:
                store_line(y, begin, row_step, size, thread, threads, held)
    return softmax_lines


@kernel
def _softmax_long(x, size, columns, row_step, logarithm, y):
    shared, thread, s = cuda.shared.array(WARPS, x.dtype), cuda.threadIdx.x, x.dtype.type(0)
    begin, top = begin_of(cuda.blockIdx.x, size, columns, row_step), x.dtype.type(-math.inf)
    for k in range(thread, size, cuda.blockDim.x):
        v = x[begin + k * row_step]
        top = v if v > top else top
    top = shared_max(shared, top, thread)
    for k in range(thread, size, cuda.blockDim.x):
        s += math.exp(x[begin + k * row_step] - top)
    s = shared_sum(shared, s, thread)
    for k in range(thread, size, cuda.blockDim.x):
        z = x[begin + k * row_step] - top
        y[begin + k * row_step] = z - math.log(s) if logarithm else math.exp(z) / s


@kernel
def _softmax_columns(x, size, columns, logarithm, y):
    line = cuda.grid(1)
    if line < x.size // size:
        begin, top = begin_of(line, size, columns, columns), x.dtype.type(-math.inf)
        s = x.dtype.type(0)
        for k in range(begin, begin + size * columns, columns):
            top = x[k] if x[k] > top else top
        for k in range(begin, begin + size * columns, columns):
            s += math.exp(x[k] - top)
        factor, shift = x.dtype.type(1) / s, math.log(s) if logarithm else s
        for k in range(begin, begin + size * columns, columns):
            z = x[k] - top
            y[k] = z - shift if logarithm else math.exp(z) * factor


@kernel_of
def _logsumexp_lines(values, threads, fours):
    def logsumexp_lines(x, size, lines, columns, row_step, y):
        tops, sums = cuda.shared.array(WARPS, x.dtype), cuda.shared.array(WARPS, x.dtype)
        held, lowest = cuda.local.array(values, x.dtype), x.dtype.type(-math.inf)
        line, thread = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, int32(cuda.threadIdx.x)
        if line < lines:
            begin, s = begin_of(line, size, columns, row_step), x.dtype.type(0)
            top = warp_max(load_fours(x, begin, size, thread, threads, -math.inf, held) if fours else
                           load_line(x, begin, row_step, size, thread, threads, -math.inf, held))
            base = top if top > lowest else x.dtype.type(0)
            for k in range(values):          # inf - inf would be NaN
                s += x.dtype.type(1) if held[k] == base else math.exp(held[k] - base)
            s = warp_sum(s)
            if threads > WARP:
                top, s = met(tops, sums, top, s, thread, threads)
            if thread == 0:
                y[line] = lowest if s == x.dtype.type(0) else top + math.log(s)
    return logsumexp_lines


@kernel
def _logsumexp_long(x, size, columns, row_step, y):
    shared, thread, s = cuda.shared.array(WARPS, x.dtype), cuda.threadIdx.x, x.dtype.type(0)
    begin, lowest = begin_of(cuda.blockIdx.x, size, columns, row_step), x.dtype.type(-math.inf)
    top = lowest
    for k in range(thread, size, cuda.blockDim.x):
        v = x[begin + k * row_step]
        top = v if v > top else top
    top = shared_max(shared, top, thread)
    top = x.dtype.type(0) if top == lowest else top
    for k in range(thread, size, cuda.blockDim.x):
        v = x[begin + k * row_step]
        s += x.dtype.type(1) if v == top else math.exp(v - top)
    s = shared_sum(shared, s, thread)
    if thread == 0:
        y[cuda.blockIdx.x] = lowest if s == x.dtype.type(0) else top + math.log(s)


@kernel_of
def _softmax_grad_lines(values, threads, fours):
    def softmax_grad_lines(dy, y, size, lines, columns, row_step, logarithm, dx):
        shared = cuda.shared.array(WARPS, y.dtype)
        given, made = cuda.local.array(values, y.dtype), cuda.local.array(values, y.dtype)
        line, thread = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, int32(cuda.threadIdx.x)
        if line < lines:
            begin, s = begin_of(line, size, columns, row_step), y.dtype.type(0)
            if fours:
                load_fours(dy, begin, size, thread, threads, 0, given)
                load_fours(y, begin, size, thread, threads, 0, made)
            else:
                load_line(dy, begin, row_step, size, thread, threads, 0, given)
                load_line(y, begin, row_step, size, thread, threads, 0, made)
            for k in range(values):
                s += given[k] if logarithm else given[k] * made[k]
            s = shared_sum(shared, s, thread)
            for k in range(values):
                given[k] = given[k] - math.exp(made[k]) * s if logarithm else made[k] * (given[k] - s)
            if fours:
                store_fours(dx, begin, size, thread, threads, given)
            else:
                store_line(dx, begin, row_step, size, thread, threads, given)
    return softmax_grad_lines


@kernel
def _softmax_grad_long(dy, y, size, columns, row_step, logarithm, dx):
    shared, thread, s = cuda.shared.array(WARPS, y.dtype), cuda.threadIdx.x, y.dtype.type(0)
    begin = begin_of(cuda.blockIdx.x, size, columns, row_step)
    for k in range(begin + thread * row_step, begin + size * row_step, cuda.blockDim.x * row_step):
        s += dy[k] if logarithm else dy[k] * y[k]
    s = shared_sum(shared, s, thread)
    for k in range(begin + thread * row_step, begin + size * row_step, cuda.blockDim.x * row_step):
        dx[k] = dy[k] - math.exp(y[k]) * s if logarithm else y[k] * (dy[k] - s)


@kernel
def _softmax_grad_columns(dy, y, size, columns, logarithm, dx):
    line = cuda.grid(1)
    if line < y.size // size:
        begin, s = begin_of(line, size, columns, columns), y.dtype.type(0)
        for k in range(begin, begin + size * columns, columns):
            s += dy[k] if logarithm else dy[k] * y[k]
        for k in range(begin, begin + size * columns, columns):
            dx[k] = dy[k] - math.exp(y[k]) * s if logarithm else y[k] * (dy[k] - s)


def softmax_cuda(x, size, columns, row_step, logarithm, y):
    lines, (threads, values, together) = x.size // size, line_shape(size, x.dtype.itemsize)
    if row_step > 1 and columns >= SIDE_BY_SIDE:
        _softmax_columns[blocks(lines), THREADS](x, size, columns, logarithm, y)
    elif values:
        made = _softmax_lines(values, threads, in_fours(size, row_step, values, x, y), x.dtype)
        made[blocks(lines, together), (threads, together)](x, size, lines, columns, row_step, logarithm, y)
    else:
        _softmax_long[lines, threads](x, size, columns, row_step, logarithm, y)


def logsumexp_cuda(x, size, columns, row_step, y):
    threads, values, together = line_shape(size, y.dtype.itemsize)
    if values:
        made = _logsumexp_lines(values, threads, in_fours(size, row_step, values, x), x.dtype)
        made[blocks(y.size, together), (threads, together)](x, size, y.size, columns, row_step, y)
    else:
        _logsumexp_long[y.size, threads](x, size, columns, row_step, y)


def softmax_grad_cuda(dy, y, size, columns, row_step, logarithm, dx):
    lines, (threads, values, together) = y.size // size, line_shape(size, 2 * y.dtype.itemsize)
    if row_step > 1 and columns >= SIDE_BY_SIDE:
        _softmax_grad_columns[blocks(lines), THREADS](dy, y, size, columns, logarithm, dx)
    elif values:
        made = _softmax_grad_lines(values, threads, in_fours(size, row_step, values, dy, y, dx), y.dtype)
        made[blocks(lines, together), (threads, together)](dy, y, size, lines, columns, row_step, logarithm, dx)
    else:
        _softmax_grad_long[lines, threads](dy, y, size, columns, row_step, logarithm, dx)
