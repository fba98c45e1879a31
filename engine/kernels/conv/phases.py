"""Gradients by the input where the convolution has a stride. With stride (sh, sw), dx is sh sw interleaved images
("phases"), each a convolution of stride 1 of dy with those taps of w that reach it: nothing is scattered, every value
is one sum.
"""
from engine.kernels.matmul.packing import copy_transposed, least, padded
from engine.kernels.simd import lanes_of, part, pointer
from engine.kernels.split import span

TURN = 64                                    # channels whose weights are turned together


@part
def phase_of(number, size, taps, stride, pad, dilation):
    """Along one axis, the image's places i with (i + pad) % stride == number: the first one, how many, the first kernel
    tap that reaches them, the step to the next, how many, and padding and dilation of the convolution that they are."""
    first = (number - pad) % stride
    count = (size - first + stride - 1) // stride if first < size else 0
    step = 1
    while step * dilation % stride != 0:
        step += 1
    tap = 0
    while tap < least(step, taps) and tap * dilation % stride != number:
        tap += 1
    if tap >= least(step, taps):
        return first, count, 0, step, 0, 0, 1
    reach = (taps - 1 - tap) // step
    return (first, count, tap, step, reach + 1, ((tap + reach * step) * dilation - first - pad) // stride,
            step * dilation // stride)


@part
def reach_of(size, taps, stride, pad, dilation):
    """Along one axis, of all phases' places i: the most values of dy before i that one of them sees, and the most from
    i on."""
    before, behind = 0, 0
    for number in range(stride):
        _, _, _, _, found, pad_here, step = phase_of(number, size, taps, stride, pad, dilation)
        reach = (found - 1) * step + 1 - pad_here
        before = pad_here if pad_here > before else before
        behind = reach if reach > behind else behind
    return before, behind


@part
def taps_before(number, taps, stride, dilation):
    """How many taps of an axis belong to phases before this one."""
    count = 0
    for tap in range(taps):
        if tap * dilation % stride < number:
            count += 1
    return count


@part
def turned_place(r, s, w_shape, h, width, geometry):
    """Where tap (r, s) stands among the turned weights of a group, phase by phase, taps in reverse order: taps of the
    phases before, its number in its own phase, taps of that."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, _ = geometry
    a, b = r * dilation_h % stride_h, s * dilation_w % stride_w
    _, _, first_r, step_r, high, _, _ = phase_of(a, h, w_shape[0], stride_h, top, dilation_h)
    _, _, first_s, step_s, wide, _, _ = phase_of(b, width, w_shape[1], stride_w, left, dilation_w)
    before = (taps_before(a, w_shape[0], stride_h, dilation_h) * w_shape[1]
              + high * taps_before(b, w_shape[1], stride_w, dilation_w))
    return before, (high - 1 - (r - first_r) // step_r) * wide + wide - 1 - (s - first_s) // step_s, high * wide


@part
def turn_weights(w, h, width, geometry, turned, task, tasks):
    """turned[group, phase, strip of c, taps, o, c] = w[tap, c, o]: the weights of the convolutions that dx consists of,
    in strips of two vectors, as products like to read them."""
    r, s, channels, o = w.shape
    groups, lanes = geometry[6], lanes_of(pointer(w))
    strip = 2 * lanes
    wide = padded(channels, strip)
    n = o // groups
    pieces = (n + TURN - 1) // TURN
    first, count = span(groups * r * s * pieces, task, tasks)
    for item in range(first, first + count):
        piece, tap, group = item % pieces, item // pieces % (r * s), item // pieces // (r * s)
        at, rows = piece * TURN, least(TURN, n - piece * TURN)
        before, place, taps = turned_place(tap // s, tap % s, w.shape, h, width, geometry)
        whole = rows - rows % lanes
        for c in range(0, channels, strip):
            src, cols = pointer(w) + ((tap * channels + c) * o + group * n + at), least(strip, channels - c)
            to = (group * r * s + before) * n * wide + c * taps * n + (place * n + at) * strip
            dst = pointer(turned) + to
            if whole > 0:
                copy_transposed(whole, cols, src, o, dst, strip)
            for i in range(whole, rows):
                for j in range(cols):
                    dst[i * strip + j] = src[j * o + i]
