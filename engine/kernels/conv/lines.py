"""Convolutions that read the image where it lies: of few channels, where copying patches takes longer than the product.

The values that a kernel row sees lie side by side in a line of the image (dilation 1 along it), those of the next pixel
`stride c` further. So a block of pixels of a line, times the weights, is a product whose left operand is the line
itself, in as many stretches as the kernel has rows; all sums over the taps stay in registers. The gradient by the
weights is the same turned around: for each kernel row

    dw[r, (s c), o] = sum over lines i, pixels j of line[i sh + r dh - top][j sw c + (s c)] dy[i, j, o]

Lines are copied once, with the zeros around them, a block of them at a time.

    image   pointer, h, w, c
    kernel  r, s
    grid    p, q of the output
"""
from engine.kernels.conv.patches import clamp, copy_values, zero_values
from engine.kernels.matmul.tiles import AHEAD, TALL, ended, full_strips, least, narrow_strip, padded
from engine.kernels.simd import ROWS, lanes_of, part, pointer, tile, tile_load, tile_store
from engine.kernels.split import span

EVEN = 4                                     # rows of a product that are a multiple of it make tall panels only
EVEN_NARROW = ROWS - TALL or ROWS            # the same of a product of one vector, from TALL rows on


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
def line_of_products(q, n, run, left, right, out, start):
    """One line of the output: q pixels, n channels; `left`: the image, as products see it, `run` values a stretch."""
    a, a_row, lines, a_line = left
    b, ldb = right
    y, ldc = out
    lanes, done, end = lanes_of(y), 0, (0, y, 0)
    full = n // (2 * lanes)
    # the last panel of a line begins early enough to be a tall one, and computes some pixels again
    while full > 0 and done < q:
        rows = q - done - (q - done) % EVEN if q - done >= EVEN else q - done
        if 0 < done and rows < EVEN:
            done, rows = q - EVEN, EVEN
        full_strips(rows, full, run, (a + done * a_row, a_row, 1, 0, lines, a_line), (b, ldb, 2 * lanes),
                    (y + done * ldc, ldc), start, (AHEAD * ldb, 0), end, y, 0)
        done += rows
    done, j = 0, full * 2 * lanes
    while j < n and done < q:
        rows = q - done - (q - done) % EVEN_NARROW if q - done >= TALL else q - done
        if 0 < done and rows < TALL:
            done, rows = q - TALL, TALL
        narrow_strip(rows, n - j, run, (a + done * a_row, a_row, 1, 0, lines, a_line), (b + j, ldb, 0),
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
                             (pointer(w), o), (to, o), start)
            ended(end, q, o, to, o, (done + j) * q)
        done += count


@part
def sums_of_chunks(x, dy, w_shape, geometry, sums, zero, work, chunks, block, task, tasks):
    """sums[chunk, r, (s c), o] for a task's chunks of the output's lines, `tall_rows` of (s c)."""
    stride_h, stride_w, top, left, dilation_h, _, _ = geometry
    _, h, width, c = x.shape
    r, s, _, o = w_shape
    number, p, q, _ = dy.shape
    wide, rows = (q - 1) * stride_w + s, tall_rows(s * c)
    line, lanes = wide * c, lanes_of(work)
    full = o // (2 * lanes)
    chunk0, mine = span(chunks, task, tasks)
    for chunk in range(chunk0, chunk0 + mine):
        done, lines = span(number * p, chunk, chunks)
        end, begin, held = done + lines, done, sums + chunk * r * rows * o
        if lines == 0:
            zero_values(held, r * rows * o)
        while done < end:
            i = done % p
            count = least(least(block, end - done), p - i)
            padded_lines((pointer(x) + done // p * h * width * c, h, width, c), i * stride_h - top,
                         (count - 1) * stride_h + (r - 1) * dilation_h + 1, left, wide, work)
            b = pointer(dy) + done * q * o
            for row in range(r):
                to = held + row * rows * o
                at = (work + row * dilation_h * line, 1, stride_w * c, 0, count, stride_h * line)
                since, since_row, since_col = to, o, 1
                if done == begin:
                    since, since_row, since_col = zero
                if full > 0:
                    full_strips(rows, full, q, at, (b, o, 2 * lanes), (to, o), (since, since_row, since_col),
                                (AHEAD * o, 0), (0, to, 0), to, 0)
                j = full * 2 * lanes
                if j < o:
                    narrow_strip(rows, o - j, q, at, (b + j, o, 0), (to + j, o),
                                 (since + j * since_col, since_row, since_col), (0, to, 0))
            done += count


@part
def tall_rows(rows):
    """So many rows, or a few more, that tall panels make up."""
    return TALL if rows < TALL else TALL + padded(rows - TALL, EVEN_NARROW)


@part
def add_chunks(sums, w_shape, chunks, dw, task, tasks):
    """dw[r, (s c), o] = the sum over chunks; a task's rows."""
    r, s, c, o = w_shape
    run, rows, lanes, one = s * c, tall_rows(s * c), lanes_of(dw), tile(1, 1, dw)
    first, count = span(r * run, task, tasks)
    for row in range(first, first + count):
        at = sums + (row // run * rows + row % run) * o
        for j in range(0, o, lanes):
            total = one
            for chunk in range(chunks):
                total = total + tile_load(one, at + (chunk * r * rows * o + j), 0, o - j)
            tile_store(total, dw + (row * o + j), 0, o - j)
