"""CPU kernels that move values.

`table` is (5 sizes, 5 steps in x, 5 steps in y, first place in x, first place in y), the axes from outer to inner.
"""
import numpy as np

from engine.kernels.simd.parts import part
from engine.kernels.split import span

TILE = 32                                    # rows and columns of a tile: two of them fit the nearest cache
BLOCK = 4096                                 # values of a block of lines


@part(disjoint=True)
def move_block(x, x_at, x_row, x_step, y, y_at, y_row, y_step, rows, columns):
    """y[y_at + i y_row + j y_step] = x[x_at + i x_row + j x_step]"""
    for i in range(rows):
        first, to = max(0, x_at + i * x_row), max(0, y_at + i * y_row)
        if x_step == 1 and y_step == 1:
            for j in range(columns):
                y[to + j] = x[first + j]
        elif x_step == 0 and y_step == 1:
            number = x[first]
            for j in range(columns):
                y[to + j] = number
        else:
            for j in range(columns):         # unsigned: an index that might be negative costs a comparison
                y[np.uint64(to + j * y_step)] = x[np.uint64(first + j * x_step)]


@part
def move_cpu(x, value, *rest):
    """The last two axes of the table go block by block; tasks share the blocks."""
    table, y, task, tasks = rest[:-3], rest[-3], rest[-2], rest[-1]
    n1, n2, rows, columns = table[1], table[2], table[3], table[4]
    width = min(columns, BLOCK) if table[9] < 2 else TILE
    height = max(1, BLOCK // max(1, width)) if table[9] < 2 else TILE
    across, down = (columns + width - 1) // max(1, width), (rows + height - 1) // height
    first, count = span(table[0] * n1 * n2 * down * across, task, tasks)
    for block in range(first, first + count):
        outer = block // across
        column = (block - outer * across) * width
        plane = outer // down
        row = (outer - plane * down) * height
        i, j, k = plane // (n1 * n2), plane // n2 % n1, plane % n2
        x_at = table[15] + i * table[5] + j * table[6] + k * table[7] + row * table[8] + column * table[9]
        y_at = table[16] + i * table[10] + j * table[11] + k * table[12] + row * table[13] + column * table[14]
        move_block(x, x_at, table[8], table[9], y, y_at, table[13], table[14], min(height, rows - row),
                   min(width, columns - column))


@part
def fill_cpu(x, value, *rest):
    """y = value everywhere, before `move_cpu` writes a part of it"""
    y, task, tasks = rest[-3], rest[-2], rest[-1]
    number = y.dtype.type(value)
    first, count = span(y.size, task, tasks)
    for k in range(count):
        y[first + k] = number


@part(disjoint=True)
def copy_cpu(x, y, task, tasks):
    """y = x, both flat"""
    first, count = span(x.size, task, tasks)
    for k in range(count):
        y[first + k] = x[first + k]


@part(disjoint=True)
def concat_cpu(*arguments):
    """concat_cpu(part, part, ..., out, task, tasks): parts (m, w_i) side by side in out (m, sum of w_i)"""
    out, task, tasks = arguments[-3], arguments[-2], arguments[-1]
    left = 0
    for given in arguments[:-3]:
        width = given.shape[1]
        at, count = span(given.size, task, tasks)
        last = at + count
        while at < last:
            row = at // width
            column = max(0, at - row * width)
            n = min(width - column, last - at)
            for k in range(n):
                out[row, left + column + k] = given[row, column + k]
            at += n
        left = max(0, left + width)


@part(disjoint=True)
def gather_cpu(x, indices, outside, y, task, tasks):
    """y[k] = x[indices[k]]"""
    outside = x.dtype.type(outside)
    first, count = span(indices.size, task, tasks)
    for k in range(first, first + count):
        row, ys = indices[k], y[k]
        if 0 <= row < x.shape[0]:
            xs = x[row]
            for j in range(ys.size):
                ys[j] = xs[j]
        else:
            for j in range(ys.size):
                ys[j] = outside


@part(disjoint=True)
def scatter_add_cpu(dy, indices, y, task, tasks):
    """y[indices[k]] += dy[k] from zeros, in the order of k; a task has every tasks-th row (frequent ones lie together)
    """
    for row in range(task, y.shape[0], tasks):
        ys = y[row]
        for j in range(ys.size):
            ys[j] = 0
    for k in range(indices.size):
        row = indices[k]
        if 0 <= row < y.shape[0] and row % tasks == task:
            ds, ys = dy[k], y[row]
            for j in range(ys.size):
                ys[j] += ds[j]


@part
def one_hot_cpu(labels, y, task, tasks):
    """y[k, labels[k]] = 1, the others 0"""
    first, count = span(labels.size, task, tasks)
    for k in range(first, first + count):
        label, ys = labels[k], y[k]
        inside = 0 <= label < ys.size
        for j in range(ys.size):
            ys[j] = 0 if inside else np.nan
        if inside:
            ys[label] = 1
