"""Patches of an image as rows of a product: what every convolution on the CPU reads, a block of them at a time.

A *window* says which values of an image an output pixel sees, a *grid* how output pixels are numbered. Values of a
patch are in the order of the weights: kernel rows, kernel columns, channels. Where the kernel's columns touch and one
group has all channels, the values of a kernel row lie side by side in the image, and are copied as one run.

    image   pointer to the first value of the group's channels, h, w, distance from pixel to pixel
    window  s (kernel columns), channels of the group, taps in a run, stride, padding before, dilation (rows, columns)
    grid    p, q: rows and columns of the output
"""
from engine.kernels.matmul.tiles import least
from engine.kernels.simd import lanes_of, part, tile, tile_load, tile_store

TOGETHER = 4                                 # vectors of a long run that are copied at once


@part
def clamp(x, low, high):
    return low if x < low else high if x > high else x


@part
def copy_values(src, dst, count):
    """dst[:count] = src[:count]; up to a whole vector, zeros behind."""
    t, one, lanes, j = tile(1, TOGETHER, src), tile(1, 1, src), lanes_of(src), 0
    while j + TOGETHER * lanes <= count:
        tile_store(tile_load(t, src + j, 0), dst + j, 0)
        j += TOGETHER * lanes
    while j < count:
        tile_store(tile_load(one, src + j, 0, count - j), dst + j, 0)
        j += lanes


@part
def zero_values(dst, count):
    """dst[:count] = 0, and up to a whole vector behind."""
    one = tile(1, 1, dst)
    for j in range(0, count, lanes_of(dst)):
        tile_store(one, dst + j, 0)


@part
def patches(image, window, grid, first, rows, k, kc, out, ld):
    """out[i * ld: i * ld + kc] = values k .. k + kc - 1 of the patch of output pixel first + i; zeros stand for what is
    outside the image. May write a vector further."""
    x, h, w, c = image
    s, channels, together, stride_h, stride_w, top, left, dilation_h, dilation_w = window
    p, q = grid
    run, runs = together * channels, s // together           # values of a run, runs of a kernel row
    number, rest = first // (p * q), first % (p * q)
    i, j = rest // q, rest % q
    for row in range(rows):
        to, done = out + row * ld, 0
        tap, at = k // run, k % run
        y, column = i * stride_h - top + tap // runs * dilation_h, tap % runs
        while done < kc:
            count = least(run - at, kc - done)
            begin = j * stride_w - left + column * dilation_w        # the image's column of the run's first value
            low = count
            if 0 <= y < h:
                low = clamp(-begin * channels - at, 0, count)
            high = clamp((w - begin) * channels - at, low, count)
            zero_values(to + done, low)
            copy_values(x + (((number * h + y) * w + begin) * c + at + low), to + (done + low), high - low)
            zero_values(to + (done + high), count - high)
            done, at, column = done + count, 0, column + 1
            if column == runs:
                y, column = y + dilation_h, 0
        j += 1
        if j == q:
            i, j = i + 1, 0
            if i == p:
                number, i = number + 1, 0
