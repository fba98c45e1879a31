"""CPU kernels of the reductions: pieces of fixed size, then the pieces' results. All arrays are flat."""

from engine.kernels.simd.parts import part
from engine.kernels.split import span

LANES = 64                                   # interleaved sums of a line
PIECE = 8192                                 # values of a line that one piece holds
PIECE_ROWS = 256                             # rows that one piece holds
COLUMNS = 1024                               # columns that are reduced together: their sums stay in the nearest cache


@part(disjoint=True)
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


@part(disjoint=True)
def fold_rows(x, at, rows, row_step, column_step, f, g, start, y, to, width):
    """y[to + j] = g over f(x[at + j column_step + row row_step]) for each row"""
    at, to, row, step = max(0, at), max(0, to), 0, max(0, row_step)
    for j in range(width):
        y[to + j] = start
    if column_step == 1:
        while row + 4 <= rows:               # four rows at a time: y goes through memory a quarter as often
            b, c, d = at + step, at + 2 * step, at + 3 * step
            for j in range(width):
                y[to + j] = g(g(g(g(y[to + j], f(x[at + j])), f(x[b + j])), f(x[c + j])), f(x[d + j]))
            row, at = row + 4, at + 4 * step
    while row < rows:
        for j in range(width):
            y[to + j] = g(y[to + j], f(x[at + j * column_step]))
        row, at = row + 1, at + step


@part
def fold_pieces_cpu(x, k1, r0, r1, columns, row_step, f, g, start, divisor, length, out, parts, lanes, pieces, task,
                    tasks):
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
        begin = ((i * r0 + outer) * k1 + group - i * k1) * r1 * columns + first * row_step
        rows = min(length, r1 - first)
        width = min(last - at, columns - column, COLUMNS if row_step > 1 else LANES)
        if columns == 1:
            written[at] = fold_line(x, begin, rows, f, g, start, lanes, task * LANES)
        else:
            column_step = 1 if row_step > 1 else r1
            fold_rows(x, begin + column * column_step, rows, row_step, column_step, f, g, start, written, at, width)
        at += width


@part
def fold_parts_cpu(x, k1, r0, r1, columns, row_step, f, g, start, divisor, length, out, parts, lanes, pieces, task,
                   tasks):
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


@part
def first_of(x, at, y, size, step):
    """The index of the first value of x[at], x[at + step], ... that is y, or that is NaN"""
    at, step = max(0, at), max(0, step)
    k = 0
    while k + LANES <= size:                 # counting in all lanes is faster than asking one value after the other
        found = 0
        for j in range(LANES):
            v = x[at + (k + j) * step]
            found += (v == y) | (v != v)
        if found:
            break
        k += LANES
    while k < size:
        v = x[at + k * step]
        if v == y or v != v:
            return k
        k += 1
    return 0


@part(disjoint=True)
def argmax_rows(x, at, rows, row_step, column_step, out, to, width, best, lane):
    """out[to + j] = the row of the first largest of x[at + j column_step + row row_step]"""
    at, to, lane, step = max(0, at), max(0, to), max(0, lane), max(0, column_step)
    for j in range(width):
        best[lane + j] = x[at + j * step]
        out[to + j] = 0
    for row in range(1, rows):
        at += max(0, row_step)
        for j in range(width):
            v, b = x[at + j * step], best[lane + j]
            wins = (v > b) | ((v != v) & (b == b))
            best[lane + j] = v if wins else b
            out[to + j] = row if wins else out[to + j]


@part
def argmax_cpu(x, size, columns, row_step, larger, out, lanes, same, task, tasks):
    """out[group, column] = the row of the first largest of x[group, :, column], laid out as `fold_pieces_cpu` has it"""
    at, count = span(out.size, task, tasks)
    last = at + count
    while at < last:
        group = at // columns
        column = at - group * columns
        begin, width = group * size * columns, min(last - at, columns - column, LANES)
        if columns == 1:
            top = fold_line(x, begin, size, same, larger, x[begin], lanes, task * LANES)
            out[at] = first_of(x, begin, top, size, 1)
        else:
            step = 1 if row_step > 1 else size
            argmax_rows(x, begin + column * step, size, row_step, step, out, at, width, lanes, task * LANES)
        at += width


@part(disjoint=True)
def extreme_grad_cpu(dy, x, y, size, inner, dx, task, tasks):
    """dx[i, k, j] = dy[i, j] where x[i, k, j] is the first that is y[i, j], else 0"""
    first, count = span(dy.size // inner, task, tasks)
    for k in range(count * size * inner):
        dx[first * size * inner + k] = 0
    for k in range(first * inner, (first + count) * inner):
        at = k // inner * (size - 1) * inner + k
        dx[at + first_of(x, at, y[k], size, inner) * inner] = dy[k]
