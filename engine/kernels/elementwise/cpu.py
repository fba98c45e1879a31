"""CPU kernels of the elementwise family: loops over one line at a time, which LLVM vectorises.

`table` holds the four axes of a broadcast call, outer to inner: 4 sizes, 4 steps in a, 4 steps in b (0 where repeated).
"""

from engine.kernels.simd.parts import part
from engine.kernels.split import span
from engine.kernels.stream import BLOCK, block_of, pour, poured


@part(disjoint=True)
def copy_cpu(x, f, out, task, tasks):
    """out[i] = f(x[i]) for any dtype; f is the identity"""
    first, count = span(x.size, task, tasks)
    for k in range(count):
        out[first + k] = f(x[first + k])


@part(disjoint=True)
def map_with_cpu(x, f, p, q, out, work, streamed, task, tasks):
    """out[i] = f(x[i], p, q)"""
    p, q = x.dtype.type(p), x.dtype.type(q)
    first, count = span(x.size, task, tasks)
    last = first + count
    while first < last:
        n = block_of(streamed, last - first)
        to, at = (work, task * BLOCK) if streamed else (out, first)
        at, first = max(0, at), max(0, first)
        for k in range(n):
            to[at + k] = f(x[first + k], p, q)
        if streamed:
            pour(work, at, out, first, n)
        first += n
    poured(streamed)


@part(disjoint=True)
def scale_by_slope_with_cpu(dy, x, slope, p, q, dx, work, streamed, task, tasks):
    """dx[i] = dy[i] * slope(x[i], p, q)"""
    p, q = x.dtype.type(p), x.dtype.type(q)
    first, count = span(dy.size, task, tasks)
    last = first + count
    while first < last:
        n = block_of(streamed, last - first)
        to, at = (work, task * BLOCK) if streamed else (dx, first)
        at, first = max(0, at), max(0, first)
        for k in range(n):
            to[at + k] = dy[first + k] * slope(x[first + k], p, q)
        if streamed:
            pour(work, at, dx, first, n)
        first += n
    poured(streamed)


@part(forceinline=True)
def places(table, at):
    """(x, y, line, column): where the value `at` of the output comes from in a and in b, its line and place in it."""
    row = at // table[3]
    plane = row // table[2]
    i = plane // table[1]
    j, k, column = plane - i * table[1], row - plane * table[2], at - row * table[3]
    return (i * table[4] + j * table[5] + k * table[6] + column * table[7],
            i * table[8] + j * table[9] + k * table[10] + column * table[11], k, column)


@part(disjoint=True)
def zip_cpu(a, b, f, *rest):
    """out = f(a, b), line by line; along a line, an input either goes with it or stays one number"""
    table, (out, work, streamed, task, tasks) = rest[:-5], rest[-5:]
    at, count = span(out.size, task, tasks)
    last, line, column, x, y = at + count, table[2], 0, 0, 0
    while at < last:
        if line == table[2]:                 # a new plane; within one the next line is one step further
            x, y, line, column = places(table, at)
        n = block_of(streamed, min(table[3] - column, last - at))
        to, first = (work, task * BLOCK) if streamed else (out, at)
        at, first, x, y = max(0, at), max(0, first), max(0, x), max(0, y)
        if table[7] == table[11]:
            for k in range(n):
                to[first + k] = f(a[x + k], b[y + k])
        elif table[7] > 0:
            number = b[y]
            for k in range(n):
                to[first + k] = f(a[x + k], number)
        else:
            number = a[x]
            for k in range(n):
                to[first + k] = f(number, b[y + k])
        if streamed:
            pour(work, first, out, at, n)
        at, line = at + n, table[2] if streamed else line + 1
        x, y, column = x + table[6] - column * table[7], y + table[10] - column * table[11], 0
    poured(streamed)


@part(disjoint=True)
def zip_slope_cpu(dz, a, b, slope, *rest):
    """out = dz * slope(a, b), as `zip_cpu`; dz has the shape of out"""
    table, (out, work, streamed, task, tasks) = rest[:-5], rest[-5:]
    at, count = span(out.size, task, tasks)
    last, line, column, x, y = at + count, table[2], 0, 0, 0
    while at < last:
        if line == table[2]:                 # a new plane; within one the next line is one step further
            x, y, line, column = places(table, at)
        n = block_of(streamed, min(table[3] - column, last - at))
        to, first = (work, task * BLOCK) if streamed else (out, at)
        at, first, x, y = max(0, at), max(0, first), max(0, x), max(0, y)
        if table[7] == table[11]:
            for k in range(n):
                to[first + k] = dz[at + k] * slope(a[x + k], b[y + k])
        elif table[7] > 0:
            number = b[y]
            for k in range(n):
                to[first + k] = dz[at + k] * slope(a[x + k], number)
        else:
            number = a[x]
            for k in range(n):
                to[first + k] = dz[at + k] * slope(number, b[y + k])
        if streamed:
            pour(work, first, out, at, n)
        at, line = at + n, table[2] if streamed else line + 1
        x, y, column = x + table[6] - column * table[7], y + table[10] - column * table[11], 0
    poured(streamed)
