"""Convolutions that read the image where it lies: of few channels, where copying patches takes longer than the product.

The values that a kernel row sees lie side by side in a line of the image (dilation 1 along it), those of the next pixel
`stride c` further. So a block of pixels of a line, times the weights, is a product whose left operand is the line
itself, in as many stretches as the kernel has rows; all sums over the taps stay in registers. The gradient by the
weights is the same turned around: for each kernel row

    dw[r, (s c), o] = sum over lines i, pixels j of line[i sh + r dh - top][j sw c + (s c)] dy[i, j, o]

The gradient by the input is the same product of dy's lines and turned weights, for each phase of a stride
(`phases.py`), written to where the phase's pixels lie.

Lines are copied once, with the zeros around them, a block of them at a time.

Where o fills less than half a vector, `g` neighbouring pixels of dy are one row of g o values: a step then multiplies
what all of them see with all their gradients, and of the sums those count that belong together:

    dw[r, (s c), o] = sum over e < g of sums[r, (s c) + e sw c, e o + o]

    image   pointer, h, w, c
    kernel  r, s
    grid    p, q of the output
"""
from engine.kernels.conv.patches import clamp, copy_values, zero_values
from engine.kernels.conv.phases import phase_of, reach_of, taps_before
from engine.kernels.matmul.packing import least, padded
from engine.kernels.matmul.tiles import AHEAD, TALL, ended, full_strips, narrow_strip
from engine.kernels.simd import (
    ROWS,
    VECTORS,
    lanes_of,
    outer_fma,
    part,
    pointer,
    prefetch,
    tile,
    tile_load,
    tile_store,
)
from engine.kernels.split import span

EVEN = 4                                     # rows of a product that are a multiple of it make tall panels only
EVEN_NARROW = ROWS - TALL or ROWS            # the same of a product of one vector, from TALL rows on
MANY = VECTORS.registers == 32
NINE = 9                                     # values in each of three kernel rows: a 3x3 kernel over three channels


@part
def padded_lines(image, first, count, left, wide, dst):
    """dst (count, wide, c) = lines first, first + 1, ... of one image, from column -left on; zeros outside. May write
    two vectors further."""
    x, h, w, c = image
    left = least(left, wide)
    inside = clamp(wide - left, 0, w)
    for i in range(first, first + count):
        if i < 0 or i >= h:
            zero_values(dst, wide * c)
        else:
            zero_values(dst, left * c)
            copy_values(x + i * w * c, dst + left * c, inside * c)
            zero_values(dst + (left + inside) * c, (wide - left - inside) * c)
        dst += wide * c


@part
def line_of_products(q, n, run, left, right, out, start, behind):
    """One line of the output: q pixels, n channels; `left`: the image, as products see it, `run` values a stretch.
    Panels run over the line's end where the `behind` pixels after it are to be computed later."""
    a, a_row, lines, a_line = left
    b, ldb, b_strip = right
    y, ldc = out
    lanes, done, end = lanes_of(y), 0, (0, y, 0)
    full = n // (2 * lanes)
    # otherwise the last panel of a line begins early enough to be a tall one, and computes some pixels again
    while full > 0 and done < q:
        rows = q - done - (q - done) % EVEN if q - done >= EVEN else q - done
        if padded(q, EVEN) - q <= behind:
            rows = padded(q, EVEN)
        elif 0 < done and rows < EVEN:
            done, rows = q - EVEN, EVEN
        full_strips(rows, full, run, (a + done * a_row, a_row, 1, lines, a_line), (b, ldb, b_strip),
                    (y + done * ldc, ldc), start, (AHEAD * ldb, 0), end, y, 0)
        done += rows
    done, j = 0, full * 2 * lanes
    while j < n and done < q:
        rows = q - done - (q - done) % EVEN_NARROW if q - done >= TALL else q - done
        if tall_rows(q) - q <= behind:
            rows = tall_rows(q)
        elif 0 < done and rows < TALL:
            done, rows = q - TALL, TALL
        narrow_strip(rows, n - j, run, (a + done * a_row, a_row, 1, lines, a_line), (b + full * b_strip, ldb, 0),
                     (y + (done * ldc + j), ldc), (start[0] + j * start[2], start[1], start[2]), end)
        done += rows


@part
def by_lines(x, w, geometry, y, start, end, work, block, task, tasks):
    """A task's lines of y = start + conv(x, w)."""
    stride_h, stride_w, top, left, dilation_h, _, _ = geometry
    _, h, width, c = x.shape
    r, s, _, o = w.shape
    number, p, q, _ = y.shape
    wide = (q - 1) * stride_w + s
    done, lines = span(number * p, task, tasks)
    stop, line = done + lines, wide * c
    while done < stop:
        i = done % p
        count = least(least(block, stop - done), p - i)
        padded_lines((pointer(x) + done // p * h * width * c, h, width, c), i * stride_h - top,
                     (count - 1) * stride_h + (r - 1) * dilation_h + 1, left, wide, work)
        for j in range(count):
            to = pointer(y) + (done + j) * q * o
            line_of_products(q, o, s * c, (work + j * stride_h * line, stride_w * c, r, dilation_h * line),
                             (pointer(w), o, 2 * lanes_of(work)), (to, o), start, (stop - done - j - 1) * q)
            ended(end, q, o, to, o, (done + j) * q)
        done += count


@part
def back_by_lines(dy, w, geometry, dx, turned, start, end, work, block, task, tasks):
    """A task's lines of dx = start + the input gradient, `turned` the weights of its phases (`phases.py`): `block`
    lines of each phase at once. `end`: see `ended`."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, _ = geometry
    _, p, q, o = dy.shape
    r, s, c, _ = w.shape
    number, h, width, _ = dx.shape
    before_h, behind_h = reach_of(h, r, stride_h, top, dilation_h)
    before_w, behind_w = reach_of(width, s, stride_w, left, dilation_w)
    most, strip = (h + stride_h - 1) // stride_h, 2 * lanes_of(work)
    wide = before_w + (width + stride_w - 1) // stride_w - 1 + behind_w
    done, lines = span(number * most, task, tasks)
    stop, line = done + lines, wide * o
    while done < stop:
        i, image = done % most, pointer(dx) + done // most * h * width * c
        count = least(least(block, stop - done), most - i)
        padded_lines((pointer(dy) + done // most * p * q * o, p, q, o), i - before_h, before_h + count - 1 + behind_h,
                     before_w, wide, work)
        for phase in range(stride_h * stride_w):
            a, b = phase // stride_w, phase % stride_w
            row, high, _, _, taps_h, pad_h, step_h = phase_of(a, h, r, stride_h, top, dilation_h)
            column, places, _, _, taps_w, pad_w, _ = phase_of(b, width, s, stride_w, left, dilation_w)
            taps = taps_before(a, r, stride_h, dilation_h) * s + taps_h * taps_before(b, s, stride_w, dilation_w)
            at = work + ((before_h - pad_h) * line + (before_w - pad_w) * o)
            right = pointer(turned) + taps * o * padded(c, strip), strip, taps_h * taps_w * o * strip
            for j in range(least(count, high - i)):
                to = image + ((row + (i + j) * stride_h) * width + column) * c
                line_of_products(places, c, taps_w * o, (at + j * line, o, taps_h, step_h * line), right,
                                 (to, stride_w * c), start, 0)
        first, last = least(i * stride_h, h), least((i + count) * stride_h, h)
        at = (done // most * h + first) * width
        ended(end, (last - first) * width, c, pointer(dx) + at * c, c, at)
        done += count


@part
def three_nines(cols, kc, left, a_tap, right, out, start):
    """As `narrow_strip` for NINE values of three kernel rows each, `a_tap` apart: 27 sums, all the registers there are,
    for one look at the gradient."""
    a, _, a_col, lines, a_line = left
    b, ldb, _ = right
    c, ldc = out
    before, before_row, _ = start
    first = tile_load(tile(NINE, 1, c), before, before_row, cols)
    second = tile_load(first, before + NINE * before_row, before_row, cols)
    third = tile_load(first, before + 2 * NINE * before_row, before_row, cols)
    for line in range(lines):
        at, of = a + line * a_line, b + line * kc * ldb
        for k in range(kc):
            prefetch(first, of + (k + AHEAD) * ldb, 0, 1)
            row = tile_load(tile(1, 1, c), of + k * ldb, 0, cols)
            first = outer_fma(first, at + k * a_col, 1, row)
            second = outer_fma(second, at + (k * a_col + a_tap), 1, row)
            third = outer_fma(third, at + (k * a_col + 2 * a_tap), 1, row)
    tile_store(first, c, ldc, cols)
    tile_store(second, c + NINE * ldc, ldc, cols)
    tile_store(third, c + 2 * NINE * ldc, ldc, cols)


@part
def sums_of_chunks(x, dy, w_shape, geometry, sums, zero, work, chunks, block, together, task, tasks):
    """sums[chunk, r, (s c), (e o)] for a task's chunks of the output's lines, `sum_rows` of (s c); `together` pixels
    are one step."""
    stride_h, stride_w, top, left, dilation_h, _, _ = geometry
    _, h, width, c = x.shape
    r, s, _, o = w_shape
    number, p, q, _ = dy.shape
    step, columns, lanes = stride_w * c, together * o, lanes_of(work)
    wide, taps = (q - 1) * stride_w + s, s * c + (together - 1) * step
    rows, nines = sum_rows(r, taps, columns, lanes), in_nines(r, taps, columns, lanes)
    line, full = wide * c, columns // (2 * lanes)
    chunk0, mine = span(chunks, task, tasks)
    for chunk in range(chunk0, chunk0 + mine):
        done, lines = span(number * p, chunk, chunks)
        end, begin, held = done + lines, done, sums + chunk * r * rows * columns
        if lines == 0:
            zero_values(held, r * rows * columns)
        while done < end:
            i = done % p
            count = least(least(block, end - done), p - i)
            padded_lines((pointer(x) + done // p * h * width * c, h, width, c), i * stride_h - top,
                         (count - 1) * stride_h + (r - 1) * dilation_h + 1, left, wide, work)
            b = pointer(dy) + done * q * o
            for row in range(r):
                to = held + row * rows * columns
                tap = dilation_h * line
                at = (work + row * tap, 1, together * step, count, stride_h * line)
                since, since_row, since_col = to, columns, 1
                if done == begin:
                    since, since_row, since_col = zero
                if full > 0:
                    full_strips(rows, full, q // together, at, (b, columns, 2 * lanes), (to, columns),
                                (since, since_row, since_col), (AHEAD * columns, 0), (0, to, 0), to, 0)
                j = full * 2 * lanes
                if not nines and j < columns:
                    narrow_strip(rows, columns - j, q // together, at, (b + j, columns, 0), (to + j, columns),
                                 (since + j * since_col, since_row, since_col), (0, to, 0))
                elif nines and row % 3 == 0:
                    for j in range(0, columns, lanes):
                        three_nines(least(lanes, columns - j), q // together, at, tap, (b + j, columns, 0),
                                    (to + j, columns), (since + j * since_col, since_row, since_col))
            done += count


@part
def tall_rows(rows):
    """So many rows, or a few more, that tall panels make up."""
    return TALL if rows < TALL else TALL + padded(rows - TALL, EVEN_NARROW)


@part
def in_nines(r, taps, columns, lanes):
    """Whether sums are those of `three_nines`."""
    return MANY and taps == NINE and r % 3 == 0 and columns < 2 * lanes


@part
def sum_rows(r, taps, columns, lanes):
    """So many rows as the values of a kernel row, or a few more, that the tiles of so many columns make up."""
    if in_nines(r, taps, columns, lanes):
        return NINE
    return padded(taps, EVEN) if columns % (2 * lanes) == 0 else tall_rows(taps)


@part
def add_chunks(sums, w_shape, step, chunks, together, dw, task, tasks):
    """dw[r, (s c), o] = the sum over chunks and pixels e of sums[chunk, r, (s c) + e step, (e o)]; a task's rows."""
    r, s, c, o = w_shape
    run, columns, lanes, one = s * c, together * o, lanes_of(dw), tile(1, 1, dw)
    rows = sum_rows(r, run + (together - 1) * step, columns, lanes)
    first, count = span(r * run, task, tasks)
    for row in range(first, first + count):
        at = sums + (row // run * rows + row % run) * columns
        for j in range(0, o, lanes):
            total = one
            for chunk in range(chunks):
                for e in range(together):
                    place = (chunk * r * rows + e * step) * columns + e * o + j
                    total = total + tile_load(one, at + place, 0, o - j)
            tile_store(total, dw + (row * o + j), 0, o - j)
