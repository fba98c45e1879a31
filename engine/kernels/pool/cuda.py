"""CUDA kernels of pooling and their launchers: one thread for each value that is written, neighbours along channels."""
import math

from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel
from engine.kernels.split import greatest, least

# ------------------------------------------------------------------------------------------------------------- extremes


@device
def taps_inside(start, taps, step, size):
    """(first, last + 1) of the taps k of a window, at start + k step, that lie in 0 .. size - 1"""
    first = 0 if start >= 0 else (step - 1 - start) // step
    return first, least(taps, (size - start + step - 1) // step)


@device
def split_place(at, rows, columns, c):
    """(image, row, column, channel) of a flat place."""
    channel, at = at % c, at // c
    column, at = at % columns, at // columns
    return at // rows, at % rows, column, channel


@kernel
def _max_pool(x, window, y, places):
    at = cuda.grid(1)
    kr, ks, stride_r, stride_s, top, left, step_r, step_s = window
    if at < y.size:
        image, i, j, k = split_place(at, y.shape[1], y.shape[2], y.shape[3])
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


@device
def reaching(at, taps, stride, step, end):
    """(first, last + 1) of the windows that may have a tap at place `at` (counted from the padding's start)"""
    below = at - (taps - 1) * step
    return 0 if below <= 0 else (below + stride - 1) // stride, least(end, at // stride + 1)


@kernel
def _max_pool_grad(dy, places, window, dx):
    at = cuda.grid(1)
    kr, ks, stride_r, stride_s, top, left, step_r, step_s = window
    if at < dx.size:
        image, row, column, k = split_place(at, dx.shape[1], dx.shape[2], dx.shape[3])
        down, across = row + top, column + left
        i0, i1 = reaching(down, kr, stride_r, step_r, dy.shape[1])
        j0, j1 = reaching(across, ks, stride_s, step_s, dy.shape[2])
        total = dx.dtype.type(0)
        for i in range(i0, i1):
            r = (down - i * stride_r) // step_r
            for j in range(j0, j1):
                s = (across - j * stride_s) // step_s
                here = r * step_r == down - i * stride_r and s * step_s == across - j * stride_s
                if here and places[image, i, j, k] == r * ks + s:
                    total += dy[image, i, j, k]
        dx[image, row, column, k] = total


# --------------------------------------------------------------------------------------------------------------- means


@device
def window_of(k, size, axis):
    """(begin, end in the image, how many places count) of window k; see `windows` in cpu.py"""
    step, parts, pad, longer, low, high = axis
    begin, end = k * step // parts - pad, ((k + 1) * step + parts - 1) // parts - pad + longer
    return greatest(0, begin), least(size, end), greatest(1, least(high, end) - greatest(low, begin))


@device
def windows_over(at, count, axis):
    """(first, last + 1) of the windows that hold the place `at`"""
    step, parts, pad, longer, low, high = axis
    below = at + pad - longer
    first = 0 if below < 0 else below * parts // step
    return first, least(count, ((at + pad + 1) * parts + step - 1) // step)


@kernel
def _avg_pool(x, rows, columns, y):
    at = cuda.grid(1)
    if at < y.size:
        image, i, j, k = split_place(at, y.shape[1], y.shape[2], y.shape[3])
        r0, r1, high = window_of(i, x.shape[1], rows)
        s0, s1, wide = window_of(j, x.shape[2], columns)
        total = x.dtype.type(0)
        for r in range(r0, r1):
            for s in range(s0, s1):
                total += x[image, r, s, k]
        y[image, i, j, k] = total / x.dtype.type(high * wide)


@kernel
def _avg_pool_grad(dy, rows, columns, dx):
    at = cuda.grid(1)
    if at < dx.size:
        image, row, column, k = split_place(at, dx.shape[1], dx.shape[2], dx.shape[3])
        i0, i1 = windows_over(row, dy.shape[1], rows)
        j0, j1 = windows_over(column, dy.shape[2], columns)
        total = dx.dtype.type(0)
        for i in range(i0, i1):
            _, _, high = window_of(i, dx.shape[1], rows)
            for j in range(j0, j1):
                _, _, wide = window_of(j, dx.shape[2], columns)
                total += dy[image, i, j, k] / dx.dtype.type(high * wide)
        dx[image, row, column, k] = total


# ----------------------------------------------------------------------------------------------------------- launchers


def max_pool_cuda(x, *rest):
    *window, y, places = rest
    _max_pool[blocks(y.size), THREADS](x, tuple(window), y, places)


def max_pool_grad_cuda(dy, places, *rest):
    *window, dx = rest
    _max_pool_grad[blocks(dx.size), THREADS](dy, places, tuple(window), dx)


def avg_pool_cuda(x, *rest):
    *axes, y = rest
    _avg_pool[blocks(y.size), THREADS](x, tuple(axes[:6]), tuple(axes[6:]), y)


def avg_pool_grad_cuda(dy, *rest):
    *axes, dx = rest
    _avg_pool_grad[blocks(dx.size), THREADS](dy, tuple(axes[:6]), tuple(axes[6:]), dx)
