"""CPU kernels of the reductions: pieces of fixed size, then the pieces' results."""
from numba import njit

from engine.kernels.entry import Disjoint
from engine.kernels.split import span

LANES = 64                                   # interleaved sums of a line
PIECE = 8192                                 # values of a line that one piece holds
PIECE_ROWS = 256                             # rows that one piece holds
COLUMNS = 1024                               # columns that are reduced together: their sums stay in the nearest cache


@njit(error_model="numpy", pipeline_class=Disjoint)
def fold_line(x, f, g, start, lanes):
    """g over f(x[0]), f(x[1]), ..., in LANES interleaved parts that are then joined in a tree"""
    result = start
    if x.size < 2 * LANES:
        for k in range(x.size):
            result = g(result, f(x[k]))
        return result
    for k in range(LANES):
        lanes[k] = f(x[k])
    for row in range(1, x.size // LANES):
        line = x[row * LANES:row * LANES + LANES]
        for k in range(LANES):
            lanes[k] = g(lanes[k], f(line[k]))
    rest = x[x.size - x.size % LANES:]
    for k in range(rest.size):
        lanes[k] = g(lanes[k], f(rest[k]))
    half = LANES // 2
    while half > 0:
        for k in range(half):
            lanes[k] = g(lanes[k], lanes[half + k])
        half //= 2
    return lanes[0]


@njit(error_model="numpy", forceinline=True)
def row_of(x, i, k, row, columns, column, count):
    """`count` values from `column` on of a row; rows are counted through both reduced axes, (r0, r1)."""
    rows = x.shape[3] // columns
    at = row // rows
    first = (row - at * rows) * columns + column
    return x[i, at, k][first:first + count]


@njit(error_model="numpy", pipeline_class=Disjoint)
def fold_four(a, b, c, d, f, g, y):
    for k in range(y.size):
        y[k] = g(y[k], g(g(f(a[k]), f(b[k])), g(f(c[k]), f(d[k]))))


@njit(error_model="numpy", pipeline_class=Disjoint)
def fold_one(a, f, g, y):
    for k in range(y.size):
        y[k] = g(y[k], f(a[k]))


@njit(error_model="numpy")
def fold_rows(x, i, k, first, last, columns, column, f, g, start, y):
    """y = g over the rows first .. last - 1, for each column on its own; four rows at a time"""
    for j in range(y.size):
        y[j] = start
    n = y.size
    row = first
    while row + 4 <= last:
        fold_four(row_of(x, i, k, row, columns, column, n), row_of(x, i, k, row + 1, columns, column, n),
                  row_of(x, i, k, row + 2, columns, column, n), row_of(x, i, k, row + 3, columns, column, n), f, g, y)
        row += 4
    while row < last:
        fold_one(row_of(x, i, k, row, columns, column, n), f, g, y)
        row += 1


@njit(error_model="numpy")
def fold_pieces_cpu(x, columns, f, g, start, divisor, out, parts, lanes, pieces, same, task, tasks):
    """parts[i, k, piece, column] = one piece; where there is but one for each output, out is written at once"""
    start, divisor = x.dtype.type(start), x.dtype.type(divisor)
    written = out if pieces == 1 else parts
    rows = x.shape[1] * x.shape[3] // columns
    at, count = span(written.size, task, tasks)
    last = at + count
    while at < last:
        cell = at // columns
        group, column = cell // pieces, at - cell * columns
        piece = cell - group * pieces
        i, k = group // x.shape[2], group % x.shape[2]
        y = written[at:at + min(last - at, columns - column, COLUMNS)]
        if columns == 1:
            in_line = pieces // max(1, x.shape[1])
            first = piece % in_line * PIECE
            y[0] = fold_line(x[i, piece // in_line, k][first:first + PIECE], f, g, start, lanes[task])
        else:
            fold_rows(x, i, k, piece * PIECE_ROWS, min(rows, (piece + 1) * PIECE_ROWS), columns, column, f, g, start, y)
        if pieces == 1:
            for j in range(y.size):
                y[j] /= divisor
        at += y.size


@njit(error_model="numpy")
def fold_parts_cpu(x, columns, f, g, start, divisor, out, parts, lanes, pieces, same, task, tasks):
    """out = g over the pieces' results, / divisor"""
    if pieces > 1:
        start, divisor = x.dtype.type(start), x.dtype.type(divisor)
        at, count = span(out.size, task, tasks)
        last = at + count
        while at < last:
            group = at // columns
            column = at - group * columns
            part = parts[group * pieces * columns:(group + 1) * pieces * columns]
            y = out[at:at + min(last - at, columns - column, COLUMNS)]
            if columns == 1:
                y[0] = fold_line(part, same, g, start, lanes[task])
            else:
                for j in range(y.size):
                    y[j] = start
                for piece in range(pieces):
                    fold_one(part[piece * columns + column:piece * columns + column + y.size], same, g, y)
            for j in range(y.size):
                y[j] /= divisor
            at += y.size


@njit(error_model="numpy", forceinline=True)
def first_of(x, y, size, inner):
    """The index of the first value of x[0], x[inner], ... that is y, or that is NaN"""
    for k in range(size):
        if x[k * inner] == y or x[k * inner] != x[k * inner]:
            return k
    return 0


@njit(error_model="numpy")
def argmax_cpu(x, inner, larger, out, lanes, same, task, tasks):
    """out[i inner + j] = the place of the first largest of x[i, j], x[i, inner + j], x[i, 2 inner + j], ..."""
    size = x.shape[1] // inner
    first, count = span(out.size, task, tasks)
    for at in range(first, first + count):
        i = at // inner
        line = x[i][at - i * inner:]
        top = line[0]
        if inner == 1:
            top = fold_line(line, same, larger, top, lanes[task])
        else:
            for k in range(size):
                top = larger(top, line[k * inner])
        out[at] = first_of(line, top, size, inner)


@njit(error_model="numpy")
def extreme_grad_cpu(dy, x, y, inner, dx, task, tasks):
    """dx[i, k inner + j] = dy[i, j] where x[i, k inner + j] is the first that is y[i, j], else 0"""
    size = x.shape[1] // inner
    first, count = span(x.shape[0], task, tasks)
    for i in range(first, first + count):
        given, written = x[i], dx[i]
        for k in range(written.size):
            written[k] = 0
        for j in range(inner):
            written[j + first_of(given[j:], y[i, j], size, inner) * inner] = dy[i, j]
