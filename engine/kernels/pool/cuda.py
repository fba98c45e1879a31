"""CUDA kernels of pooling and their launchers: one thread for each value that is written, neighbours along channels."""
import math

from numba import int64, uint32, uint64

from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel_of, whole_of
from engine.kernels.split import greatest, least

# A division of numbers without a sign takes a third of the instructions of one with a sign, which rounds down.


@device
def over(a, b):
    """a // b of numbers along an axis, not negative"""
    return int64(uint32(a) // uint32(b))


@device
def over_long(a, b):
    """The same of products of such numbers."""
    return int64(uint64(a) // uint64(b))


@device
def split_place(at, rows, columns, c):
    """(image, row, column, channel) of a flat place; all numbers without a sign"""
    pixel = at // c
    line = pixel // columns
    image = line // rows
    return int64(image), int64(line - image * rows), int64(pixel - line * columns), int64(at - pixel * c)


# ------------------------------------------------------------------------------------------------------------- extremes


@device
def taps_inside(start, taps, step, size):
    """(first, last + 1) of the taps k of a window, at start + k step, that lie in 0 .. size - 1"""
    first = 0 if start >= 0 else over(step - 1 - start, step)
    return first, least(taps, over(greatest(0, size - start + step - 1), step))


@kernel_of
def _max_pool(whole):
    def max_pool(x, window, y, places):
        at = whole(cuda.grid(1))
        kr, ks, stride_r, stride_s, top, left, step_r, step_s = window
        if at < y.size:
            image, i, j, k = split_place(at, whole(y.shape[1]), whole(y.shape[2]), whole(y.shape[3]))
            up, across = i * stride_r - top, j * stride_s - left
            r0, r1 = taps_inside(up, kr, step_r, x.shape[1])
            s0, s1 = taps_inside(across, ks, step_s, x.shape[2])
            best, place = y.dtype.type(-math.inf), r0 * ks + s0
            for r in range(r0, r1):
                for s in range(s0, s1):
                    value = x[image, up + r * step_r, across + s * step_s, k]
                    if value > best or value != value:
                        best = value
                        place = r * ks + s
            y[image, i, j, k] = best
            if places.size > 0:
                places[image, i, j, k] = place
    return max_pool


@device
def reaching(at, taps, stride, step, end):
    """(first, last + 1) of the windows that may have a tap at place `at` (counted from the padding's start)"""
    below = at - (taps - 1) * step
    return 0 if below <= 0 else over(below + stride - 1, stride), least(end, over(at, stride) + 1)


@kernel_of
def _max_pool_grad(whole):
    def max_pool_grad(dy, places, window, dx):
        at = whole(cuda.grid(1))
        kr, ks, stride_r, stride_s, top, left, step_r, step_s = window
        if at < dx.size:
            image, row, column, k = split_place(at, whole(dx.shape[1]), whole(dx.shape[2]), whole(dx.shape[3]))
            down, across = row + top, column + left
            i0, i1 = reaching(down, kr, stride_r, step_r, dy.shape[1])
            j0, j1 = reaching(across, ks, stride_s, step_s, dy.shape[2])
            total = dx.dtype.type(0)
            for i in range(i0, i1):
                r = over(down - i * stride_r, step_r)
                for j in range(j0, j1):
                    s = over(across - j * stride_s, step_s)
                    here = r * step_r == down - i * stride_r and s * step_s == across - j * stride_s
                    if here and places[image, i, j, k] == r * ks + s:
                        total += dy[image, i, j, k]
            dx[image, row, column, k] = total
    return max_pool_grad


# --------------------------------------------------------------------------------------------------------------- means


@device
def window_of(k, size, axis):
    """(begin, end in the image, how many places count) of window k; see `windows` in cpu.py"""
    step, parts, pad, longer, low, high = axis
    begin, end = over_long(k * step, parts) - pad, over_long((k + 1) * step + parts - 1, parts) - pad + longer
    return greatest(0, begin), least(size, end), greatest(1, least(high, end) - greatest(low, begin))


@device
def windows_over(at, count, axis):
    """(first, last + 1) of the windows that hold the place `at`"""
    step, parts, pad, longer, low, high = axis
    below = at + pad - longer
    first = 0 if below < 0 else over_long(below * parts, step)
    return first, least(count, over_long((at + pad + 1) * parts + step - 1, step))


@kernel_of
def _avg_pool(whole):
    def avg_pool(x, rows, columns, y):
        at = whole(cuda.grid(1))
        if at < y.size:
            image, i, j, k = split_place(at, whole(y.shape[1]), whole(y.shape[2]), whole(y.shape[3]))
            r0, r1, high = window_of(i, x.shape[1], rows)
            s0, s1, wide = window_of(j, x.shape[2], columns)
            total = x.dtype.type(0)
            for r in range(r0, r1):
                for s in range(s0, s1):
                    total += x[image, r, s, k]
            y[image, i, j, k] = total / x.dtype.type(high * wide)
    return avg_pool


@kernel_of
def _avg_pool_grad(whole):
    def avg_pool_grad(dy, rows, columns, dx):
        at = whole(cuda.grid(1))
        if at < dx.size:
            image, row, column, k = split_place(at, whole(dx.shape[1]), whole(dx.shape[2]), whole(dx.shape[3]))
            i0, i1 = windows_over(row, dy.shape[1], rows)
            j0, j1 = windows_over(column, dy.shape[2], columns)
            total = dx.dtype.type(0)
            for i in range(i0, i1):
                _, _, high = window_of(i, dx.shape[1], rows)
                for j in range(j0, j1):
                    _, _, wide = window_of(j, dx.shape[2], columns)
                    total += dy[image, i, j, k] / dx.dtype.type(high * wide)
            dx[image, row, column, k] = total
    return avg_pool_grad


# ----------------------------------------------------------------------------------------------------------- launchers


def max_pool_cuda(x, *rest):
    *window, y, places = rest
    _max_pool(whole_of(y), y.dtype)[blocks(y.size), THREADS](x, tuple(window), y, places)


def max_pool_grad_cuda(dy, places, *rest):
    *window, dx = rest
    _max_pool_grad(whole_of(dx), dx.dtype)[blocks(dx.size), THREADS](dy, places, tuple(window), dx)


def avg_pool_cuda(x, *rest):
    *axes, y = rest
    _avg_pool(whole_of(y), y.dtype)[blocks(y.size), THREADS](x, tuple(axes[:6]), tuple(axes[6:]), y)


def avg_pool_grad_cuda(dy, *rest):
    *axes, dx = rest
    _avg_pool_grad(whole_of(dx), dx.dtype)[blocks(dx.size), THREADS](dy, tuple(axes[:6]), tuple(axes[6:]), dx)
