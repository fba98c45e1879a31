"""Patches of an image as rows of a product: what every convolution on the CPU reads, a block of them at a time.

A *window* says which values of an image an output pixel sees, a *grid* how output pixels are numbered. Values of a
patch are in the order of the weights: kernel rows, kernel columns, channels. Where the kernel's columns touch and one
group has all channels, the values of a kernel row lie side by side in the image, and are copied as one run.

    image   pointer to the first value of the group's channels, h, w, distance from pixel to pixel
    window  s (kernel columns), channels of the group, taps in a run, stride, padding before, dilation (rows, columns)
    grid    p, q: rows and columns of the output
"""
from engine.kernels.matmul.packing import least
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
def run_inside(count, src, step, begin, values, dst, ld):
    """dst[i * ld: + values] = src[i * step + begin: + values] for i < count; zeros up to a whole vector."""
    one, lanes = tile(1, 1, src), lanes_of(src)
    if values <= lanes:                      # short runs of a first layer
        for i in range(count):
            tile_store(tile_load(one, src + (i * step + begin), 0, values), dst + i * ld, 0)
    else:
        for i in range(count):
            copy_values(src + (i * step + begin), dst + i * ld, values)


@part
def run_at_edge(count, line, size, step, begin, values, dst, ld):
    """As `run_inside` where the run leaves the image's line of `size` values: zeros stand for what is outside."""
    one, lanes = tile(1, 1, dst), lanes_of(dst)
    for i in range(count):
        to, place = dst + i * ld, begin + i * step
        low = clamp(-place, 0, values)
        high = clamp(size - place, low, values)
        if values <= lanes:
            tile_store(one, to, 0)
            tile_store(tile_load(one, line + (place + low), 0, high - low), to + low, 0)
            continue
        zero_values(to, low)
        copy_values(line + (place + low), to + low, high - low)
        zero_values(to + high, values - high)


@part
def line_of_patches(x, h, w, c, window, i, j, count, k, kc, out, ld):
    """As `patches` for `count` output pixels of one line, from (i, j) on; x: pointer to one image."""
    s, channels, together, stride_h, stride_w, top, left, dilation_h, dilation_w = window
    run, runs, done = together * channels, s // together, 0  # values of a run, runs of a kernel row
    tap, at = k // run, k % run
    y, column = i * stride_h - top + tap // runs * dilation_h, tap % runs
    while done < kc:
        values, to = least(run - at, kc - done), out + done
        first = j * stride_w - left + column * dilation_w    # the image's column of the first pixel's run
        if y < 0 or y >= h:
            for pixel in range(count):
                zero_values(to + pixel * ld, values)
        else:
            line = x + y * w * c
            # pixels whose whole run is inside
            low = clamp((stride_w - 1 - first) // stride_w, 0, count)
            high = clamp((w - together - first + stride_w) // stride_w, low, count)
            if together == 1:                # a channel of the run says nothing about its place in the line
                run_inside(high - low, line + (first + low * stride_w) * c, stride_w * c, at, values, to + low * ld, ld)
                for pixel in range(low):
                    zero_values(to + pixel * ld, values)
                for pixel in range(high, count):
                    zero_values(to + pixel * ld, values)
            else:
                step, begin = stride_w * c, first * c + at
                run_at_edge(low, line, w * c, step, begin, values, to, ld)
                run_inside(high - low, line, step, begin + low * step, values, to + low * ld, ld)
                run_at_edge(count - high, line, w * c, step, begin + high * step, values, to + high * ld, ld)
        done, at, column = done + values, 0, column + 1
        if column == runs:
            y, column = y + dilation_h, 0


@part
def patches(image, window, grid, first, rows, k, kc, out, ld):
    """out[i * ld: i * ld + kc] = values k .. k + kc - 1 of the patch of output pixel first + i; zeros stand for what is
    outside the image. May write a vector further."""
    x, h, w, c = image
    p, q = grid
    number, rest, done = first // (p * q), first % (p * q), 0
    i, j = rest // q, rest % q
    while done < rows:
        count = least(q - j, rows - done)
        line_of_patches(x + number * h * w * c, h, w, c, window, i, j, count, k, kc, out + done * ld, ld)
        done, i, j = done + count, i + 1, 0
        if i == p:
            number, i = number + 1, 0
