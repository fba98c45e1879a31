"""The gradient by an input of few channels: dx as a sum of runs, where a product would leave most of a vector empty.

    columns (pixels, r s c) = dy (pixels, o) w^T (o, r s c)
    dx[i sh + r dh - top, j sw + s - left, c] += columns[(i, j), r s c]

Pixels are taken in order, image by image into a padded copy of dx; kernel columns lie side by side (dilation 1), so the
s c values of a kernel row are one run. An image belongs to one task: sums have one order.
"""
from engine.kernels.conv.patches import zero_values
from engine.kernels.conv.winograd import at_place
from engine.kernels.matmul.packing import least
from engine.kernels.matmul.tiles import AHEAD, ended, moved
from engine.kernels.simd import lanes_of, part, tile, tile_load, tile_store
from engine.kernels.split import span


@part
def transposed_weights(w, k, o, turned, task, tasks):
    """turned (o, k) = w (k, o).T; a task's rows."""
    first, count = span(o, task, tasks)
    for i in range(first, first + count):
        for j in range(k):
            turned[i * k + j] = w[j * o + i]


@part
def add_runs(columns, pixels, q, j, k, runs, run, padded, line, step, row_step):
    """Adds the runs of pixels (i, j), (i, j + 1), ... to the padded image; `padded` points to where row i begins."""
    one, lanes = tile(1, 1, padded), lanes_of(padded)
    for pixel in range(pixels):
        for r in range(runs):
            src, dst = columns + (pixel * k + r * run), padded + (r * row_step + j * step)
            for e in range(0, run, lanes):
                tile_store(tile_load(one, dst + e, 0) + tile_load(one, src + e, 0, run - e), dst + e, 0)
        j += 1
        if j == q:
            j, padded = 0, padded + line


@part
def take_inside(padded, high, wide, top, left, start, end, dx, h, w, c):
    """dx of one image = start + what of the padded image lies inside, zeros where that ends."""
    for i in range(h):
        row, to = padded + ((i + top) * wide + left) * c, dx + i * w * c
        inside = least(w, wide - left) if i + top < high else 0
        for j in range(w):
            for k in range(c):
                value = start[0][k * start[2]]
                if j < inside:
                    value += row[j * c + k]
                to[j * c + k] = value
        ended(end, w, c, to, c, i * w)


@part
def add_up(first, images, dy, kernel, geometry, turned, dx, start, end, zero, work, block):
    """dx of images first .. first + images - 1; `block`: pixels whose columns are held at once."""
    y, p, q, o = dy
    r, s, _ = kernel
    stride_h, stride_w, top, left, dilation_h, _, _ = geometry
    out, h, w, c = dx
    high, wide = (p - 1) * stride_h + (r - 1) * dilation_h + 1, (q - 1) * stride_w + s
    k, lanes = r * s * c, lanes_of(work)
    columns = work + (high * wide * c + 2 * lanes)
    for image in range(first, first + images):
        zero_values(work, high * wide * c)
        for i in range(0, p * q, block):
            count = least(block, p * q - i)
            at_place(count, k, o, (y + (image * p * q + i) * o, o, 1), (turned, k, 2 * lanes), (columns, k), zero,
                     (AHEAD * k, 0))
            add_runs(columns, count, q, i % q, k, r, s * c, work + i // q * stride_h * wide * c, stride_h * wide * c,
                     stride_w * c, dilation_h * wide * c)
        take_inside(work, high, wide, top, left, start, moved(end, image * h * w, 0), out + image * h * w * c, h, w, c)
