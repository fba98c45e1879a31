"""CPU kernels of the elementwise family: loops over one line at a time, which LLVM vectorises.

`table` holds the four axes of a broadcast call, outer to inner: 4 sizes, 4 steps in a, 4 steps in b (0 where repeated).
"""

from engine.kernels.simd.parts import part
from engine.kernels.split import span
from engine.kernels.stream import block, block_of, done, map_block, poured, slope_block, stream_blocks


@part(disjoint=True)
def copy_cpu(x, f, out, task, tasks):
    """out[i] = f(x[i]) for any dtype; f is the identity"""
    first, count = span(x.size, task, tasks)
    for k in range(count):
        out[first + k] = f(x[first + k])


@part
def map_with_cpu(x, f, p, q, out, work, streamed, task, tasks):
    """out[i] = f(x[i], p, q)"""
    stream_blocks(map_block, (x,), f, (x.dtype.type(p), x.dtype.type(q)), out, work, streamed, task, tasks)


@part
def scale_by_slope_with_cpu(dy, x, slope, p, q, dx, work, streamed, task, tasks):
    """dx[i] = dy[i] * slope(x[i], p, q)"""
    stream_blocks(slope_block, (dy, x), slope, (x.dtype.type(p), x.dtype.type(q)), dx, work, streamed, task, tasks)


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
def zip_block(a, b, f, out):
    for k in range(out.size):
        out[k] = f(a[k], b[k])


@part(disjoint=True, apart=True)
def zip_number_block(a, number, f, out):
    for k in range(out.size):
        out[k] = f(a[k], number)


@part(disjoint=True, apart=True)
def number_zip_block(number, b, f, out):
    for k in range(out.size):
        out[k] = f(number, b[k])


@part
def zip_cpu(a, b, f, *rest):
    """out = f(a, b), line by line; along a line, an input either goes with it or stays one number"""
    table, (out, work, streamed, task, tasks) = rest[:-5], rest[-5:]
    at, count = span(out.size, task, tasks)
    last, line, column, x, y = at + count, table[2], 0, 0, 0
    while at < last:
        if line == table[2]:                 # a new plane; within one the next line is one step further
            x, y, line, column = places(table, at)
        n = block_of(streamed, min(table[3] - column, last - at))
        to = block(out, work, streamed, task, at, n)
        if table[7] == table[11]:
            zip_block(a[x:x + n], b[y:y + n], f, to)
        elif table[7] > 0:
            zip_number_block(a[x:x + n], b[y], f, to)
        else:
            number_zip_block(a[x], b[y:y + n], f, to)
        at, line = done(streamed, to, out, at), table[2] if streamed else line + 1
        x, y, column = x + table[6] - column * table[7], y + table[10] - column * table[11], 0
    poured(streamed)


@part(disjoint=True, apart=True)
def zip_slope_block(dz, a, b, slope, out):
    for k in range(out.size):
        out[k] = dz[k] * slope(a[k], b[k])


@part(disjoint=True, apart=True)
def zip_number_slope_block(dz, a, number, slope, out):
    for k in range(out.size):
        out[k] = dz[k] * slope(a[k], number)


@part(disjoint=True, apart=True)
def number_zip_slope_block(dz, number, b, slope, out):
    for k in range(out.size):
        out[k] = dz[k] * slope(number, b[k])


@part
def zip_slope_cpu(dz, a, b, slope, *rest):
    """out = dz * slope(a, b), as `zip_cpu`; dz has the shape of out"""
    table, (out, work, streamed, task, tasks) = rest[:-5], rest[-5:]
    at, count = span(out.size, task, tasks)
    last, line, column, x, y = at + count, table[2], 0, 0, 0
    while at < last:
        if line == table[2]:                 # a new plane; within one the next line is one step further
            x, y, line, column = places(table, at)
        n = block_of(streamed, min(table[3] - column, last - at))
        to = block(out, work, streamed, task, at, n)
        if table[7] == table[11]:
            zip_slope_block(dz[at:at + n], a[x:x + n], b[y:y + n], slope, to)
        elif table[7] > 0:
            zip_number_slope_block(dz[at:at + n], a[x:x + n], b[y], slope, to)
        else:
            number_zip_slope_block(dz[at:at + n], a[x], b[y:y + n], slope, to)
        at, line = done(streamed, to, out, at), table[2] if streamed else line + 1
        x, y, column = x + table[6] - column * table[7], y + table[10] - column * table[11], 0
    poured(streamed)
