"""CPU kernels of pooling: a strip of channels, one vector wide, at a time; tasks share the rows of the images.

`edges` (tasks, 2, 3, longest) holds the windows of both axes (see `windows`); each task fills its own.
"""
import math

from engine.kernels.blocks import clear
from engine.kernels.simd import (
    broadcast,
    lanes_of,
    part,
    pointer,
    tile,
    tile_load,
    tile_max,
    tile_store,
    where_equal,
    where_larger,
)
from engine.kernels.split import span

# ------------------------------------------------------------------------------------------------------------- extremes


@part
def taps_inside(start, taps, step, size):
    """(first, last + 1) of the taps k of a window, at start + k step, that lie in 0 .. size - 1"""
    first, last = 0, taps
    if start < 0:
        first = (step - 1 - start) // step
    if start + (taps - 1) * step >= size:
        last = (size - start + step - 1) // step
    return first, last


@part
def max_pool_cpu(x, kr, ks, stride_r, stride_s, top, left, step_r, step_s, y, places, task, tasks):
    """y = the largest value of each window, places = which tap of the window it is (nothing where places is empty)"""
    h, w, c, p, q = x.shape[1], x.shape[2], x.shape[3], y.shape[1], y.shape[2]
    px, py, pk, kept = pointer(x), pointer(y), pointer(places), places.size > 0
    one = tile(1, 1, px)
    first, count = span(y.shape[0] * p, task, tasks)
    for row in range(first, first + count):
        image = row // p
        up = (row - image * p) * stride_r - top
        r0, r1 = taps_inside(up, kr, step_r, h)
        for j in range(q):
            across = j * stride_s - left
            s0, s1 = taps_inside(across, ks, step_s, w)
            corner, to = ((image * h + up) * w + across) * c, (row * q + j) * c
            for channel in range(0, c, lanes_of(px)):
                best, place = broadcast(one, -math.inf), broadcast(one, r0 * ks + s0)
                for r in range(r0, r1):
                    line = px + (corner + r * step_r * w * c + channel)
                    for s in range(s0, s1):
                        value = tile_load(one, line + s * step_s * c, 0, c - channel)
                        place = where_larger(value, best, broadcast(one, r * ks + s), place)
                        best = tile_max(value, best)
                tile_store(best, py + (to + channel), 0, c - channel)
                if kept:
                    tile_store(place, pk + (to + channel), 0, c - channel)


@part
def max_pool_grad_cpu(dy, places, kr, ks, stride_r, stride_s, top, left, step_r, step_s, dx, task, tasks):
    """dx = the sum of dy over the windows whose largest value stands there, row by row of dx"""
    h, w, c, p, q = dx.shape[1], dx.shape[2], dx.shape[3], dy.shape[1], dy.shape[2]
    pd, pk, px = pointer(dy), pointer(places), pointer(dx)
    one, overlap = tile(1, 1, px), stride_r <= (kr - 1) * step_r or stride_s <= (ks - 1) * step_s
    first, count = span(dx.shape[0] * h, task, tasks)
    for row in range(first, first + count):
        image = row // h
        down = row - image * h + top
        clear(px + row * w * c, w * c)
        for i in range(max(0, (down - (kr - 1) * step_r + stride_r - 1) // stride_r), min(p, down // stride_r + 1)):
            r = (down - i * stride_r) // step_r
            if r * step_r != down - i * stride_r:
                continue
            for j in range(q):
                across = j * stride_s - left
                s0, s1 = taps_inside(across, ks, step_s, w)
                at, to = ((image * p + i) * q + j) * c, (row * w + across) * c
                for channel in range(0, c, lanes_of(px)):
                    place = tile_load(one, pk + (at + channel), 0, c - channel)
                    given = tile_load(one, pd + (at + channel), 0, c - channel)
                    for s in range(s0, s1):
                        out = px + (to + s * step_s * c + channel)
                        sent = where_equal(place, broadcast(one, r * ks + s), given, one)
                        if overlap:
                            sent = tile_load(one, out, 0, c - channel) + sent
                        tile_store(sent, out, 0, c - channel)


# --------------------------------------------------------------------------------------------------------------- means


@part
def windows(edges, size, count, step, parts, pad, longer, low, high):
    """Window k reaches from floor(k step / parts) - pad to ceil((k + 1) step / parts) - pad + longer; edges[0, k] and
    edges[1, k] say where it begins and ends in the image, edges[2, k] how many of its places from low to high - 1
    count for the mean"""
    for k in range(count):
        begin, end = k * step // parts - pad, ((k + 1) * step + parts - 1) // parts - pad + longer
        edges[0, k], edges[1, k] = max(0, begin), min(size, end)
        edges[2, k] = max(1, min(high, end) - max(low, begin))


@part
def avg_pool_cpu(x, step_r, parts_r, top, longer_r, low_r, high_r, step_s, parts_s, left, longer_s, low_s, high_s, y,
                 edges, task, tasks):
    """y = the mean of each window"""
    h, w, c, p, q = x.shape[1], x.shape[2], x.shape[3], y.shape[1], y.shape[2]
    rows, columns = edges[task, 0], edges[task, 1]
    windows(rows, h, p, step_r, parts_r, top, longer_r, low_r, high_r)
    windows(columns, w, q, step_s, parts_s, left, longer_s, low_s, high_s)
    px, py, number = pointer(x), pointer(y), x.dtype.type
    one = tile(1, 1, px)
    first, count = span(y.shape[0] * p, task, tasks)
    for row in range(first, first + count):
        image = row // p
        i = row - image * p
        for j in range(q):
            share = broadcast(one, number(1) / number(rows[2, i] * columns[2, j]))
            for channel in range(0, c, lanes_of(px)):
                total = one
                for r in range(rows[0, i], rows[1, i]):
                    line = px + ((image * h + r) * w * c + channel)
                    for s in range(columns[0, j], columns[1, j]):
                        total = total + tile_load(one, line + s * c, 0, c - channel)
                tile_store(total * share, py + ((row * q + j) * c + channel), 0, c - channel)


@part
def overlapping(edges, count):
    """Whether a window begins before the one before it has ended"""
    for k in range(1, count):
        if edges[0, k] < edges[1, k - 1]:
            return True
    return False


@part
def avg_pool_grad_cpu(dy, step_r, parts_r, top, longer_r, low_r, high_r, step_s, parts_s, left, longer_s, low_s, high_s,
                      dx, edges, task, tasks):
    """dx = the sum of dy / size over the windows that hold the place, row by row of dx"""
    h, w, c, p, q = dx.shape[1], dx.shape[2], dx.shape[3], dy.shape[1], dy.shape[2]
    rows, columns = edges[task, 0], edges[task, 1]
    windows(rows, h, p, step_r, parts_r, top, longer_r, low_r, high_r)
    windows(columns, w, q, step_s, parts_s, left, longer_s, low_s, high_s)
    pd, px, number = pointer(dy), pointer(dx), dx.dtype.type
    one, overlap = tile(1, 1, px), overlapping(rows, p) or overlapping(columns, q)
    first, count = span(dx.shape[0] * h, task, tasks)
    for row in range(first, first + count):
        image = row // h
        clear(px + row * w * c, w * c)
        for i in range(p):
            if not rows[0, i] <= row - image * h < rows[1, i]:
                continue
            for j in range(q):
                share = broadcast(one, number(1) / number(rows[2, i] * columns[2, j]))
                for channel in range(0, c, lanes_of(px)):
                    given = tile_load(one, pd + (((image * p + i) * q + j) * c + channel), 0, c - channel) * share
                    for s in range(columns[0, j], columns[1, j]):
                        out = px + ((row * w + s) * c + channel)
                        if overlap:
                            tile_store(tile_load(one, out, 0, c - channel) + given, out, 0, c - channel)
                        else:
                            tile_store(given, out, 0, c - channel)
