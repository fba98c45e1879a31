"""Depthwise convolutions: every output channel sees one input channel (groups = c, o = c times a multiplier).

There is no product to speak of: a tile is one row of channels, multiplied value by value. With a multiplier above one
the channels of x are not those of y, and plain loops do it.

    y[n, i, j, ch]  = f(start + sum of x[n, i sh - top + r dh, j sw - left + s dw, ch // multiplier] w[r, s, 0, ch])
"""
from engine.kernels.conv.patches import clamp
from engine.kernels.matmul.packing import least
from engine.kernels.matmul.tiles import ended
from engine.kernels.simd import lanes_of, part, pointer, tile, tile_fma, tile_load, tile_store
from engine.kernels.split import span

BESIDE = 4                                   # vectors of channels of one pixel that are computed together
PIXELS, OF_PIXELS = 4, 2                     # pixels of a line that are computed together, and vectors of channels


@part
def inside(begin, step, count, size):
    """The first i below `count`, and the one behind the last, for which 0 <= begin + i * step < size."""
    low = 0 if begin >= 0 else (-begin + step - 1) // step
    high = (size - begin + step - 1) // step if size > begin else 0
    low = least(low, count)
    return low, clamp(high, low, count)


@part
def channels_at(t, step, channels, x, x_pixel, x_row, x_col, w, w_row, w_col, start, start_col, y, y_pixel, high, wide):
    """y = start + the sum over high x wide taps of x times w, for the pixels that are the rows of a tile like t and all
    channels, `step` of them at once; distances from tap to tap may be negative."""
    for j in range(0, channels, step):
        cols = channels - j
        acc = tile_load(t, start + j * start_col, 0, cols)
        for r in range(high):
            for s in range(wide):
                acc = tile_fma(acc, tile_load(t, x + (r * x_row + s * x_col + j), x_pixel, cols),
                               tile_load(t, w + (r * w_row + s * w_col + j), 0, cols))
        tile_store(acc, y + j, y_pixel, cols)


@part
def multiplied_at(channels, multiplier, x, x_row, x_col, w, w_row, w_col, start, start_col, y, high, wide):
    """As `channels_at`, where each channel of x has `multiplier` outputs."""
    for j in range(channels * multiplier):
        y[j] = start[j * start_col]
    for r in range(high):
        for s in range(wide):
            at, of = x + (r * x_row + s * x_col), w + (r * w_row + s * w_col)
            for j in range(channels):
                for t in range(j * multiplier, (j + 1) * multiplier):
                    y[t] += at[j] * of[t]


@part
def gathered_at(channels, multiplier, x, x_row, x_col, w, w_row, w_col, start, start_col, y, high, wide):
    """The reverse of `multiplied_at`: each channel of y sums over `multiplier` channels of x."""
    for j in range(channels):
        y[j] = start[j * start_col]
    for r in range(high):
        for s in range(wide):
            at, of = x + (r * x_row + s * x_col), w + (r * w_row + s * w_col)
            for j in range(channels):
                for t in range(j * multiplier, (j + 1) * multiplier):
                    y[j] += at[t] * of[t]


@part
def depthwise(x, w, geometry, y, start, end, task, tasks):
    """A task's rows of y."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, _ = geometry
    _, h, width, c = x.shape
    number, p, q, o = y.shape
    r, s = w.shape[0], w.shape[1]
    x_row, x_col, w_row, w_col = dilation_h * width * c, dilation_w * c, s * o, o
    lanes, one, few = lanes_of(pointer(y)), tile(1, BESIDE, pointer(y)), tile(PIXELS, OF_PIXELS, pointer(y))
    # pixels of a line that see all columns of the kernel
    whole, _ = inside(-left, stride_w, q, width)
    _, behind = inside((s - 1) * dilation_w - left, stride_w, q, width)
    first, count = span(number * p, task, tasks)
    for row in range(first, first + count):
        begin, j = row % p * stride_h - top, 0
        r0, r1 = inside(begin, dilation_h, r, h)
        line = pointer(x) + (row // p * h + begin + r0 * dilation_h) * width * c
        while j < q:
            if o == c and whole <= j < behind and behind - whole >= PIXELS:
                j = least(j, behind - PIXELS)        # the last of them are computed again
                channels_at(few, OF_PIXELS * lanes, c, line + (j * stride_w - left) * c, stride_w * c, x_row, x_col,
                            pointer(w) + r0 * w_row, w_row, w_col, start[0], start[2], pointer(y) + (row * q + j) * o,
                            o, r1 - r0, s)
                j += PIXELS
                continue
            column, to = j * stride_w - left, pointer(y) + (row * q + j) * o
            s0, s1 = inside(column, dilation_w, s, width)
            at, of = line + (column + s0 * dilation_w) * c, pointer(w) + (r0 * w_row + s0 * w_col)
            if o == c:
                channels_at(one, BESIDE * lanes, c, at, 0, x_row, x_col, of, w_row, w_col, start[0], start[2], to, 0,
                            r1 - r0, s1 - s0)
            else:
                multiplied_at(c, o // c, at, x_row, x_col, of, w_row, w_col, start[0], start[2], to, r1 - r0, s1 - s0)
            j += 1
        ended(end, q, o, pointer(y) + row * q * o, o, row * q)


@part
def taps_reaching(i, taps, stride, dilation, size):
    """The kernel's taps with (i - tap * dilation) a multiple of the stride, from 0 to stride * (size - 1): the first,
    the step to the next, how many, and the place that the first one reads."""
    step = 1
    while step * dilation % stride != 0:
        step += 1
    tap = 0
    while tap < taps and ((i - tap * dilation) % stride != 0 or i - tap * dilation >= stride * size):
        tap += 1
    count = 0
    while tap + count * step < taps and i - (tap + count * step) * dilation >= 0:
        count += 1
    return tap, step, count, (i - tap * dilation) // stride


@part
def depthwise_input_gradient(dy, w, geometry, dx, start, end, task, tasks):
    """A task's rows of dx."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, _ = geometry
    _, p, q, o = dy.shape
    r, s = w.shape[0], w.shape[1]
    number, h, width, c = dx.shape
    lanes, one = lanes_of(pointer(dx)), tile(1, BESIDE, pointer(dx))
    first, count = span(number * h, task, tasks)
    for row in range(first, first + count):
        r0, step_r, high, y_row = taps_reaching(row % h + top, r, stride_h, dilation_h, p)
        for j in range(width):
            s0, step_s, wide, y_col = taps_reaching(j + left, s, stride_w, dilation_w, q)
            to = pointer(dx) + (row * width + j) * c
            at = pointer(dy) + ((row // h * p + y_row) * q + y_col) * o
            of = pointer(w) + (r0 * s + s0) * o
            back_row, back_col = -(step_r * dilation_h // stride_h) * q * o, -(step_s * dilation_w // stride_w) * o
            if o == c:
                channels_at(one, BESIDE * lanes, c, at, 0, back_row, back_col, of, step_r * s * o, step_s * o, start[0],
                            start[2], to, 0, high, wide)
            else:
                gathered_at(c, o // c, at, back_row, back_col, of, step_r * s * o, step_s * o, start[0], start[2], to,
                            high, wide)
        ended(end, width, c, pointer(dx) + row * width * c, c, row * width)


@part
def tap_sum(t, cols, number, high, wide, x, x_image, x_row, x_col, dy, y_image, y_row, y_col, out):
    """out[:cols] = the sum over all pixels of x times dy, for a tile like t of one row."""
    acc = tile_load(t, out, 0, 0)
    for n in range(number):
        for i in range(high):
            at, of = x + (n * x_image + i * x_row), dy + (n * y_image + i * y_row)
            for j in range(wide):
                acc = tile_fma(acc, tile_load(t, at + j * x_col, 0, cols), tile_load(t, of + j * y_col, 0, cols))
    tile_store(acc, out, 0, cols)


@part
def tap_sum_multiplied(first, last, multiplier, number, high, wide, x, x_image, x_row, x_col, dy, y_image, y_row, y_col,
                       out):
    """As `tap_sum` for output channels first .. last - 1, where each channel of x has `multiplier` outputs."""
    for j in range(first, last):
        total = out[j] * 0
        for n in range(number):
            for row in range(high):
                at, of = n * x_image + row * x_row + j // multiplier, n * y_image + row * y_row + j
                for column in range(wide):
                    total += x[at + column * x_col] * dy[of + column * y_col]
        out[j] = total


@part
def depthwise_weight_gradient(x, dy, geometry, dweights, task, tasks):
    """A task's taps and channels of dw."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, _ = geometry
    _, h, width, c = x.shape
    number, p, q, o = dy.shape
    r, s, lanes = dweights.shape[0], dweights.shape[1], lanes_of(pointer(dy))
    block = BESIDE * lanes
    blocks = (o + block - 1) // block
    first, count = span(r * s * blocks, task, tasks)
    many, one = tile(1, BESIDE, pointer(dy)), tile(1, 1, pointer(dy))
    for item in range(first, first + count):
        tap, begin = item // blocks, item % blocks * block
        end = least(o, begin + block)
        row, column = tap // s * dilation_h - top, tap % s * dilation_w - left
        i0, i1 = inside(row, stride_h, p, h)
        j0, j1 = inside(column, stride_w, q, width)
        row, column = row + i0 * stride_h, column + j0 * stride_w
        at, of = pointer(x) + (row * width + column) * c, pointer(dy) + (i0 * q + j0) * o
        to, high, wide = pointer(dweights) + tap * o, i1 - i0, j1 - j0
        x_row, x_col, x_image, y_image = stride_h * width * c, stride_w * c, h * width * c, p * q * o
        if o != c:
            tap_sum_multiplied(begin, end, o // c, number, high, wide, at, x_image, x_row, x_col, of, y_image, q * o, o,
                               to)
        elif end - begin == block:
            tap_sum(many, block, number, high, wide, at + begin, x_image, x_row, x_col, of + begin, y_image, q * o, o,
                    to + begin)
        else:
            for j in range(begin, end, lanes):
                tap_sum(one, end - j, number, high, wide, at + j, x_image, x_row, x_col, of + j, y_image, q * o, o,
                        to + j)
