"""CPU kernels of the elementwise family: loops over one line at a time, which LLVM vectorises."""
from numba import njit

from engine.kernels.entry import Disjoint
from engine.kernels.split import span


@njit(error_model="numpy", pipeline_class=Disjoint)
def map_with_cpu(x, f, p, q, out, task, tasks):
    """out[i] = f(x[i], p, q)"""
    p, q = x.dtype.type(p), x.dtype.type(q)
    first, count = span(x.size, task, tasks)
    for k in range(count):
        out[first + k] = f(x[first + k], p, q)


@njit(error_model="numpy", pipeline_class=Disjoint)
def scale_by_slope_with_cpu(dy, at, slope, p, q, dx, task, tasks):
    """dx[i] = dy[i] * slope(at[i], p, q)"""
    p, q = at.dtype.type(p), at.dtype.type(q)
    first, count = span(dy.size, task, tasks)
    for k in range(count):
        dx[first + k] = dy[first + k] * slope(at[first + k], p, q)


@njit(error_model="numpy", forceinline=True)
def line_of(a, i, j, k):
    """The line of a 4-D array at (i, j, k); along an axis of size 1 there is but one."""
    return a[min(i, a.shape[0] - 1), min(j, a.shape[1] - 1), min(k, a.shape[2] - 1)]


@njit(error_model="numpy", forceinline=True)
def place_of(out, at):
    """(i, j, k, column) of the value `at` of a 4-D array, counted in memory."""
    row = at // out.shape[3]
    plane = row // out.shape[2]
    i = plane // out.shape[1]
    return i, plane - i * out.shape[1], row - plane * out.shape[2], at - row * out.shape[3]


@njit(error_model="numpy", pipeline_class=Disjoint)
def zip_line(x, y, column, f, z):
    """z[k] = f(x[column + k], y[column + k]); x or y may be one number for the whole line"""
    if x.size > 1 and y.size > 1:
        xs, ys = x[column:column + z.size], y[column:column + z.size]
        for k in range(z.size):
            z[k] = f(xs[k], ys[k])
    elif x.size > 1:
        xs, number = x[column:column + z.size], y[0]
        for k in range(z.size):
            z[k] = f(xs[k], number)
    else:
        number, ys = x[0], y[column:column + z.size]
        for k in range(z.size):
            z[k] = f(number, ys[k])


@njit(error_model="numpy", pipeline_class=Disjoint)
def zip_cpu(a, b, f, out, task, tasks):
    """out = f(a, b), all with four axes; a and b have size 1 along the axes where they are repeated"""
    at, count = span(out.size, task, tasks)
    last = at + count
    while at < last:
        i, j, k, column = place_of(out, at)
        line = out[i, j, k][column:column + last - at]
        zip_line(line_of(a, i, j, k), line_of(b, i, j, k), column, f, line)
        at += line.size


@njit(error_model="numpy", pipeline_class=Disjoint)
def slope_line(dy, x, y, column, slope, z):
    """z[k] = dy[k] * slope(x[column + k], y[column + k])"""
    if x.size > 1 and y.size > 1:
        xs, ys = x[column:column + z.size], y[column:column + z.size]
        for k in range(z.size):
            z[k] = dy[k] * slope(xs[k], ys[k])
    elif x.size > 1:
        xs, number = x[column:column + z.size], y[0]
        for k in range(z.size):
            z[k] = dy[k] * slope(xs[k], number)
    else:
        number, ys = x[0], y[column:column + z.size]
        for k in range(z.size):
            z[k] = dy[k] * slope(number, ys[k])


@njit(error_model="numpy", pipeline_class=Disjoint)
def zip_slope_cpu(dy, a, b, slope, out, task, tasks):
    """out = dy * slope(a, b); dy has the shape of out"""
    at, count = span(out.size, task, tasks)
    last = at + count
    while at < last:
        i, j, k, column = place_of(out, at)
        d, line = dy[i, j, k][column:column + last - at], out[i, j, k][column:column + last - at]
        slope_line(d, line_of(a, i, j, k), line_of(b, i, j, k), column, slope, line)
        at += line.size
