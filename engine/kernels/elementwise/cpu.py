"""CPU kernels of the elementwise family: loops over one line at a time, which LLVM vectorises.

`table` holds the four axes of a broadcast call, outer to inner: 4 sizes, 4 steps in a, 4 steps in b (0 where repeated).
"""

from engine.kernels.simd.parts import part
from engine.kernels.split import span


@part(disjoint=True)
def map_with_cpu(x, f, p, q, out, task, tasks):
    """out[i] = f(x[i], p, q)"""
    p, q = x.dtype.type(p), x.dtype.type(q)
    first, count = span(x.size, task, tasks)
    for k in range(count):
        out[first + k] = f(x[first + k], p, q)


@part(disjoint=True)
def scale_by_slope_with_cpu(dy, at, slope, p, q, dx, task, tasks):
    """dx[i] = dy[i] * slope(at[i], p, q)"""
    p, q = at.dtype.type(p), at.dtype.type(q)
    first, count = span(dy.size, task, tasks)
    for k in range(count):
        dx[first + k] = dy[first + k] * slope(at[first + k], p, q)


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
    table, out, task, tasks = rest[:-3], rest[-3], rest[-2], rest[-1]
    at, count = span(out.size, task, tasks)
    last = at + count
    line, column, x, y = table[2], 0, 0, 0
    while at < last:
        if line == table[2]:                 # a new plane; within one the next line is one step further
            x, y, line, column = places(table, at)
        n = min(table[3] - column, last - at)
        first, x, y = max(0, at), max(0, x), max(0, y)
        if table[7] == table[11]:
            for k in range(n):
                out[first + k] = f(a[x + k], b[y + k])
        elif table[7] > 0:
            number = b[y]
            for k in range(n):
                out[first + k] = f(a[x + k], number)
        else:
            number = a[x]
            for k in range(n):
                out[first + k] = f(number, b[y + k])
        at, line = at + n, line + 1
        x, y, column = x + table[6] - column * table[7], y + table[10] - column * table[11], 0


@part(disjoint=True)
def zip_slope_cpu(dz, a, b, slope, *rest):
    """out = dz * slope(a, b), as `zip_cpu`; dz has the shape of out"""
    table, out, task, tasks = rest[:-3], rest[-3], rest[-2], rest[-1]
    at, count = span(out.size, task, tasks)
    last = at + count
    line, column, x, y = table[2], 0, 0, 0
    while at < last:
        if line == table[2]:                 # a new plane; within one the next line is one step further
            x, y, line, column = places(table, at)
        n = min(table[3] - column, last - at)
        first, x, y = max(0, at), max(0, x), max(0, y)
        if table[7] == table[11]:
            for k in range(n):
                out[first + k] = dz[first + k] * slope(a[x + k], b[y + k])
        elif table[7] > 0:
            number = b[y]
            for k in range(n):
                out[first + k] = dz[first + k] * slope(a[x + k], number)
        else:
            number = a[x]
            for k in range(n):
                out[first + k] = dz[first + k] * slope(number, b[y + k])
        at, line = at + n, line + 1
        x, y, column = x + table[6] - column * table[7], y + table[10] - column * table[11], 0
