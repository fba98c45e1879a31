"""CPU kernels of the reductions: pieces of fixed size, then the pieces' results. All arrays are flat."""
from numba import njit

from engine.kernels.entry import Disjoint
from engine.kernels.split import span

LANES = 64                                   # interleaved sums of a line
PIECE = 8192                                 # values of a line that one piece holds
PIECE_ROWS = 256                             # rows that one piece holds
COLUMNS = 1024                               # columns that are reduced together: their sums stay in the nearest cache


@njit(error_model="numpy", pipeline_class=Disjoint)
def fold_line(x, at, size, f, g, start, lanes, lane):
    """g over f(x[at]), f(x[at + 1]), ...: from 2 LANES values on in LANES interleaved parts, joined in a tree"""
    at, lane = max(0, at), max(0, lane)
    result = start
    if size < 2 * LANES:
        for k in range(size):
            result = g(result, f(x[at + k]))
        return result
    for k in range(LANES):
        lanes[lane + k] = f(x[at + k])
    for row in range(1, size // LANES):
        for k in range(LANES):
            lanes[lane + k] = g(lanes[lane + k], f(x[at + row * LANES + k]))
    for k in range(size % LANES):
        lanes[lane + k] = g(lanes[lane + k], f(x[at + size // LANES * LANES + k]))
    half = LANES // 2
    while half > 0:
        for k in range(half):
            lanes[lane + k] = g(lanes[lane + k], lanes[lane + half + k])
        half //= 2
    return lanes[lane]


@njit(error_model="numpy", pipeline_class=Disjoint)
def fold_pieces_cpu(x, k1, r0, r1, columns, f, g, start, divisor, out, parts, lanes, pieces, length, task, tasks):
    """parts[group, piece, column] = g over `length` rows; where there is one piece for each output it is out itself"""
    start = x.dtype.type(start)
    written = out if pieces == 1 else parts
    in_line = pieces // r0
    at, count = span(written.size, task, tasks)
    last = at + count
    while at < last:
        cell = at // columns
        group, column = cell // pieces, at - cell * columns
        piece = cell - group * pieces
        outer, i = piece // in_line, group // k1
        first = (piece - outer * in_line) * length
        begin = max(0, (((i * r0 + outer) * k1 + group - i * k1) * r1 + first) * columns + column)
        rows, width = min(length, r1 - first), min(last - at, columns - column, COLUMNS)
        if columns == 1:
            written[at] = fold_line(x, begin, rows, f, g, start, lanes, task * LANES)
        else:
            to = max(0, at)
            for j in range(width):
                written[to + j] = start
            for row in range(rows):
                for j in range(width):
                    written[to + j] = g(written[to + j], f(x[begin + row * columns + j]))
        at += width


@njit(error_model="numpy")
def fold_parts_cpu(x, k1, r0, r1, columns, f, g, start, divisor, out, parts, lanes, pieces, length, task, tasks):
    """out = g over the pieces' results, joined in a tree, / divisor"""
    if pieces == 1 and divisor == 1:
        return
    held = out if pieces == 1 else parts
    at, count = span(out.size, task, tasks)
    last = at + count
    while at < last:
        group = at // columns
        column = at - group * columns
        width, begin = min(last - at, columns - column), group * pieces * columns + column
        rows = pieces
        while rows > 1:
            half = (rows + 1) // 2
            for row in range(rows - half):
                for j in range(begin + row * columns, begin + row * columns + width):
                    held[j] = g(held[j], held[j + half * columns])
            rows = half
        for j in range(width):
            out[at + j] = held[begin + j] / x.dtype.type(divisor)
        at += width


@njit(error_model="numpy")
def first_of(x, at, y, size, inner):
    """The index of the first value of x[at], x[at + inner], ... that is y, or that is NaN"""
    for k in range(size):
        v = x[at + k * inner]
        if v == y or v != v:
            return k
    return 0


@njit(error_model="numpy")
def argmax_cpu(x, size, inner, larger, out, lanes, same, task, tasks):
    """out[i, j] = the place of the first largest x[i, :, j] of x (outer, size, inner)"""
    first, count = span(out.size, task, tasks)
    for k in range(first, first + count):
        i = k // inner
        at = i * (size - 1) * inner + k
        top = x[at]
        if inner == 1:
            top = fold_line(x, at, size, same, larger, top, lanes, task * LANES)
        else:
            for row in range(size):
                top = larger(top, x[at + row * inner])
        out[k] = first_of(x, at, top, size, inner)


@njit(error_model="numpy", pipeline_class=Disjoint)
def extreme_grad_cpu(dy, x, y, size, inner, dx, task, tasks):
    """dx[i, k, j] = dy[i, j] where x[i, k, j] is the first that is y[i, j], else 0"""
    first, count = span(dy.size // inner, task, tasks)
    for k in range(count * size * inner):
        dx[first * size * inner + k] = 0
    for k in range(first * inner, (first + count) * inner):
        at = k // inner * (size - 1) * inner + k
        dx[at + first_of(x, at, y[k], size, inner) * inner] = dy[k]
