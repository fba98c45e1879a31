"""CPU kernels of the elementwise family: loops over one line at a time, which LLVM vectorises.

`table` holds the four axes of a broadcast call, outer to inner: 4 sizes, 4 steps in a, 4 steps in b (0 where repeated).
"""

from engine.kernels.simd import part, put
from engine.kernels.split import span
from engine.kernels.stream import beside, ended, map_values, put_from, put_share, slope_values


@part(disjoint=True)
def copy_cpu(x, f, out, task, tasks):
    """out[i] = f(x[i]) for any dtype; f is the identity"""
    first, count = span(x.size, task, tasks)
    for k in range(count):
        out[first + k] = f(x[first + k])


@part
def map_with_cpu(x, f, p, q, out, store, task, tasks):
    """out[i] = f(x[i], p, q)"""
    put_share(map_values, (x,), f, (x.dtype.type(p), x.dtype.type(q)), out, store, task, tasks)


@part
def scale_by_slope_with_cpu(dy, x, slope, p, q, dx, store, task, tasks):
    """dx[i] = dy[i] * slope(x[i], p, q)"""
    put_share(slope_values, (dy, x), slope, (x.dtype.type(p), x.dtype.type(q)), dx, store, task, tasks)


@part(forceinline=True)
def places(table, at):
    """(x, y, line, column): where the value `at` of the output comes from in a and in b, its line and place in it."""
    row = at // table[3]
    plane = row // table[2]
    i = plane // table[1]
    j, k, column = plane - i * table[1], row - plane * table[2], at - row * table[3]
    return (i * table[4] + j * table[5] + k * table[6] + column * table[7],
            i * table[8] + j * table[9] + k * table[10] + column * table[11], k, column)


@part(disjoint=True, apart=True)
def zip_values(inputs, first, f, numbers, store, out):
    a, b = beside(inputs[0], first, out), beside(inputs[1], first, out)
    for k in range(out.size):
        put(store, out, k, f(a[k], b[k]))


@part(disjoint=True, apart=True)
def zip_number_values(inputs, first, f, numbers, store, out):
    a, number = beside(inputs[0], first, out), inputs[1]
    for k in range(out.size):
        put(store, out, k, f(a[k], number))


@part(disjoint=True, apart=True)
def number_zip_values(inputs, first, f, numbers, store, out):
    number, b = inputs[0], beside(inputs[1], first, out)
    for k in range(out.size):
        put(store, out, k, f(number, b[k]))


@part
def zip_lines(two_lines, line_number, number_line, a, b, dz, f, table, out, store, task, tasks):
    """out, line by line; along a line, an input either goes with it or stays one number. dz goes with out (and is out
    where the loops do not read it)."""
    at, count = span(out.size, task, tasks)
    last, line, column, x, y = at + count, table[2], 0, 0, 0
    while at < last:
        if line == table[2]:                 # a new plane; within one the next line is one step further
            x, y, line, column = places(table, at)
        n = min(table[3] - column, last - at)
        to, beside_to = out[at:at + n], dz[at:at + n]
        if table[7] == table[11]:
            put_from(two_lines, (a[x:x + n], b[y:y + n], beside_to), 0, f, (), store, to)
        elif table[7] > 0:
            put_from(line_number, (a[x:x + n], b[y], beside_to), 0, f, (), store, to)
        else:
            put_from(number_line, (a[x], b[y:y + n], beside_to), 0, f, (), store, to)
        at, line = at + n, line + 1
        x, y, column = x + table[6] - column * table[7], y + table[10] - column * table[11], 0
    ended(store)


@part
def zip_cpu(a, b, f, *rest):
    """out = f(a, b)"""
    table, (out, store, task, tasks) = rest[:-4], rest[-4:]
    zip_lines(zip_values, zip_number_values, number_zip_values, a, b, out, f, table, out, store, task, tasks)


@part(disjoint=True, apart=True)
def zip_slope_values(inputs, first, slope, numbers, store, out):
    a, b, dz = beside(inputs[0], first, out), beside(inputs[1], first, out), beside(inputs[2], first, out)
    for k in range(out.size):
        put(store, out, k, dz[k] * slope(a[k], b[k]))


@part(disjoint=True, apart=True)
def zip_number_slope_values(inputs, first, slope, numbers, store, out):
    a, number, dz = beside(inputs[0], first, out), inputs[1], beside(inputs[2], first, out)
    for k in range(out.size):
        put(store, out, k, dz[k] * slope(a[k], number))


@part(disjoint=True, apart=True)
def number_zip_slope_values(inputs, first, slope, numbers, store, out):
    number, b, dz = inputs[0], beside(inputs[1], first, out), beside(inputs[2], first, out)
    for k in range(out.size):
        put(store, out, k, dz[k] * slope(number, b[k]))


@part
def zip_slope_cpu(dz, a, b, slope, *rest):
    """out = dz * slope(a, b); dz has the shape of out"""
    table, (out, store, task, tasks) = rest[:-4], rest[-4:]
    zip_lines(zip_slope_values, zip_number_slope_values, number_zip_slope_values, a, b, dz, slope, table, out, store,
              task, tasks)
