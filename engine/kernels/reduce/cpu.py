"""CPU kernels of the reductions: pieces of fixed size, then the pieces' results. All arrays are flat."""
from numba import njit

from engine.kernels.entry import Disjoint
from engine.kernels.split import span

LANES = 64                                   # interleaved sums of a line
PIECE = 8192                                 # values of a line that one piece holds
PIECE_ROWS = 256                             # rows that one piece holds
COLUMNS = 1024                               # columns that are reduced together: their sums stay in the nearest cache


@njit(error_model="numpy", pipeline_class=Disjoint)
def fold_rows(x, at, step, rows, f, g, y, first, width):
    """y[first + j] = g over f(x[at + j]), f(x[at + step + j]), ..., `rows` of them, onto what y holds"""
    at, first = max(0, at), max(0, first)
    for row in range(rows):
        for j in range(width):
            y[first + j] = g(y[first + j], f(x[at + row * step + j]))


@njit(error_model="numpy")
def fold_line(x, at, size, f, g, start, lanes, first):
    """g over f(x[at]), f(x[at + 1]), ...: from 2 LANES values on in LANES interleaved parts, joined in a tree"""
    result = start
    if size < 2 * LANES:
        for k in range(size):
            result = g(result, f(x[at + k]))
        return result
    for k in range(LANES):
        lanes[first + k] = start
    rest = size % LANES
    fold_rows(x, at, LANES, size // LANES, f, g, lanes, first, LANES)
    for k in range(rest):
        lanes[first + k] = g(lanes[first + k], f(x[at + size - rest + k]))
    half = LANES // 2
    while half > 0:
        for k in range(first, first + half):
            lanes[k] = g(lanes[k], lanes[half + k])
        half //= 2
    return lanes[first]


@njit(error_model="numpy")
def fold_pieces_cpu(x, k1, r0, r1, columns, f, g, start, divisor, out, parts, lanes, pieces, same, task, tasks):
    """parts[i, k, piece, column] = one piece; where there is but one for each output, out is written at once"""
    start, divisor = x.dtype.type(start), x.dtype.type(divisor)
    written = out if pieces == 1 else parts
    in_line = max(1, pieces // max(1, r0))
    at, count = span(written.size, task, tasks)
    last = at + count
    while at < last:
        cell = at // columns
        group, column = cell // pieces, at - cell * columns
        piece = cell - group * pieces
        i = group // k1
        begin = (i * r0 * k1 + group - i * k1) * r1 * columns + column
        width = min(last - at, columns - column, COLUMNS)
        if columns == 1:
            first = piece % in_line * PIECE
            written[at] = fold_line(x, begin + piece // in_line * k1 * r1 + first, min(PIECE, r1 - first), f, g, start,
                                    lanes, task * LANES)
        else:
            for j in range(at, at + width):
                written[j] = start
            row, end = piece * PIECE_ROWS, min(r0 * r1, piece * PIECE_ROWS + PIECE_ROWS)
            while row < end:                 # rows lie `columns` apart as long as the place along r0 does not change
                outer = row // r1
                rows = min(end, outer * r1 + r1) - row
                fold_rows(x, begin + (outer * (k1 - 1) * r1 + row) * columns, columns, rows, f, g, written, at, width)
                row += rows
        if pieces == 1:
            for j in range(at, at + width):
                written[j] /= divisor
        at += width


@njit(error_model="numpy")
def fold_parts_cpu(x, k1, r0, r1, columns, f, g, start, divisor, out, parts, lanes, pieces, same, task, tasks):
    """out = g over the pieces' results, / divisor"""
    if pieces > 1:
        start, divisor = x.dtype.type(start), x.dtype.type(divisor)
        at, count = span(out.size, task, tasks)
        last = at + count
        while at < last:
            group = at // columns
            column = at - group * columns
            width = min(last - at, columns - column)
            begin = group * pieces * columns + column
            if columns == 1:
                out[at] = fold_line(parts, begin, pieces, same, g, start, lanes, task * LANES)
            else:
                for j in range(at, at + width):
                    out[j] = start
                fold_rows(parts, begin, columns, pieces, same, g, out, at, width)
            for j in range(at, at + width):
                out[j] /= divisor
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
