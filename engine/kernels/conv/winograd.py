"""3x3 convolutions of stride 1 by Winograd's method: a quarter of the multiplications (Lavin, Gray 2015, Fast
Algorithms for Convolutional Neural Networks; Winograd 1980).

Four outputs of a one-dimensional convolution with three taps are read off the product of two polynomials, whose values
at six points are multiplied one by one. In two dimensions a tile of 4x4 outputs sees 6x6 inputs:

    y = A^T [(G g G^T) * (B^T d B)] A          d (6, 6) of the image, g (3, 3) weights, * place by place

Summed over channels, each of the 36 places is a product of matrices, (tiles, c) by (c, o). The gradient by the weights
turns the same three around, with products (c, tiles) by (tiles, o):

    dg = G^T [sum over tiles of (B^T d B) * (A dy A^T)] G

The points are 0, 3/4, -3/4,
3/2, -3/2 and infinity: their powers are exact, and of all that were tried they lose least: float32 results are within
4e-6 of the largest output (a sum in order: 4e-7; the usual points 0, 1, -1, 2, -2: 1.3e-5).

    image   pointer, h, w, c; grid: p, q of the output; pad: top, left

A block of tiles at a time goes through all three steps while it stays in a cache.
"""
import numpy as np

from engine.kernels.conv.patches import clamp, copy_values, zero_values
from engine.kernels.matmul.packing import copy_transposed, least, padded
from engine.kernels.matmul.tiles import AHEAD, SPREAD, ended, full_strips, moved, narrow_strip
from engine.kernels.simd import (
    broadcast,
    lanes_of,
    part,
    prefetch,
    tile,
    tile_fma,
    tile_load,
    tile_store,
)
from engine.kernels.split import span

A, B = 0.75, 1.5                             # the points are 0, A, -A, B, -B and infinity
A2, B2, A3, B3 = A ** 2, B ** 2, A ** 3, B ** 3
BOTH, SUM = A2 * B2, A2 + B2
PLACES, SIDE, OUT, TAPS = 36, 6, 4, 3
ROWS_AHEAD = 4                               # rows of weights asked for before they are used
# values at the points, each divided by the product of its distances to the others
G0, GA, GB = 1 / BOTH, 1 / (2 * A2 * (A2 - B2)), 1 / (2 * B2 * (B2 - A2))
GA1, GA2, GB1, GB2 = GA * A, GA * A2, GB * B, GB * B2
WEIGHT_POINTS = np.array([[G0, 0, 0], [GA, GA * A, GA * A2], [GA, -GA * A, GA * A2], [GB, GB * B, GB * B2],
                          [GB, -GB * B, GB * B2], [0, 0, 1]])


@part
def greater(x, y):
    return x if x > y else y                 # noqa: FURB136 (Numba compiles `max` as a function of its own)


@part
def times(x, number):
    return x * broadcast(x, number)


@part
def plus(total, x, number):
    """total + x * number, number a plain one"""
    return tile_fma(total, x, broadcast(x, number))


@part
def of_image(src, step, dst, dst_step):
    """B^T d for one line of six."""
    t = tile(1, 1, src)
    d0, d1, d2 = tile_load(t, src, 0), tile_load(t, src + step, 0), tile_load(t, src + 2 * step, 0)
    d3, d4, d5 = tile_load(t, src + 3 * step, 0), tile_load(t, src + 4 * step, 0), tile_load(t, src + 5 * step, 0)
    even, odd = plus(d4, d2, -B2), plus(d3, d1, -B2)
    tile_store(plus(even, odd, A), dst + dst_step, 0)
    tile_store(plus(even, odd, -A), dst + 2 * dst_step, 0)
    even, odd = plus(d4, d2, -A2), plus(d3, d1, -A2)
    tile_store(plus(even, odd, B), dst + 3 * dst_step, 0)
    tile_store(plus(even, odd, -B), dst + 4 * dst_step, 0)
    tile_store(plus(plus(d4, d2, -SUM), d0, BOTH), dst, 0)
    tile_store(plus(plus(d5, d3, -SUM), d1, BOTH), dst + 5 * dst_step, 0)


@part
def of_gradient(src, step, dst, dst_step):
    """A z for one line of four."""
    t = tile(1, 1, src)
    z0, z1 = tile_load(t, src, 0), tile_load(t, src + step, 0)
    z2, z3 = tile_load(t, src + 2 * step, 0), tile_load(t, src + 3 * step, 0)
    even, odd = plus(z0, z2, A2), plus(times(z1, A), z3, A3)
    tile_store(z0, dst, 0)
    tile_store(even + odd, dst + dst_step, 0)
    tile_store(even - odd, dst + 2 * dst_step, 0)
    even, odd = plus(z0, z2, B2), plus(times(z1, B), z3, B3)
    tile_store(even + odd, dst + 3 * dst_step, 0)
    tile_store(even - odd, dst + 4 * dst_step, 0)
    tile_store(z3, dst + 5 * dst_step, 0)


@part
def of_products(src, step):
    """A^T m for one line of six: four tiles."""
    t = tile(1, 1, src)
    m0, m1, m2 = tile_load(t, src, 0), tile_load(t, src + step, 0), tile_load(t, src + 2 * step, 0)
    m3, m4, m5 = tile_load(t, src + 3 * step, 0), tile_load(t, src + 4 * step, 0), tile_load(t, src + 5 * step, 0)
    even_a, odd_a, even_b, odd_b = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (m0 + even_a + even_b, plus(times(odd_a, A), odd_b, B), plus(times(even_a, A2), even_b, B2),
            plus(plus(m5, odd_a, A3), odd_b, B3))


@part
def image_tile(x, x_row, x_col, side, i0, i1, v, apart, held):
    """Lines i0 .. i1 - 1 of the six by six places of one tile and one vector of channels; `side` 4: of a gradient."""
    lanes = lanes_of(x)
    for j in range(side):
        if side == SIDE:
            of_image(x + j * x_col, x_row, held + j * lanes, SIDE * lanes)
        else:
            of_gradient(x + j * x_col, x_row, held + j * lanes, SIDE * lanes)
    for i in range(i0, i1):
        if side == SIDE:
            of_image(held + i * SIDE * lanes, lanes, v + i * SIDE * apart, apart)
        else:
            of_gradient(held + i * SIDE * lanes, lanes, v + i * SIDE * apart, apart)


@part
def output_tile(m, apart, bias, y, y_row, y_col, high, wide, held):
    """Up to 4 x 4 outputs of one tile and one vector of channels."""
    lanes, t = lanes_of(m), tile(1, 1, m)
    for j in range(SIDE):
        first, second, third, fourth = of_products(m + j * apart, SIDE * apart)
        tile_store(first, held + j * lanes, 0)
        tile_store(second, held + (SIDE + j) * lanes, 0)
        tile_store(third, held + (2 * SIDE + j) * lanes, 0)
        tile_store(fourth, held + (3 * SIDE + j) * lanes, 0)
    start = tile_load(t, bias, 0)
    for i in range(high):
        first, second, third, fourth = of_products(held + i * SIDE * lanes, lanes)
        to = y + i * y_row
        tile_store(first + start, to, 0)
        if wide > 1:
            tile_store(second + start, to + y_col, 0)
        if wide > 2:
            tile_store(third + start, to + 2 * y_col, 0)
        if wide > 3:
            tile_store(fourth + start, to + 3 * y_col, 0)


@part
def surrounded(x, h, w, c, row, column, side, held):
    """A tile at the image's edge with zeros around, (side, side, c)."""
    low, high = clamp(-column, 0, side), clamp(w - column, 0, side)
    for i in range(side):
        to, y = held + i * side * c, row + i
        if 0 <= y < h and low < high:
            zero_values(to, low * c)
            copy_values(x + (y * w + column + low) * c, to + low * c, (high - low) * c)
            zero_values(to + high * c, (side - high) * c)
        else:
            zero_values(to, side * c)


@part
def image_tiles(image, channels, grid, pad, side, lines, first, count, v, ld, apart, edge, held):
    """v[place * apart + tile * ld + channel] for tiles first .. first + count - 1 and some channels of the image."""
    x, h, w, c = image
    i0, i1 = lines
    down, across, lanes = (grid[0] + OUT - 1) // OUT, (grid[1] + OUT - 1) // OUT, lanes_of(x)
    for number in range(count):
        at = first + number
        n, i, j = at // (down * across), at // across % down, at % across
        row, column = i * OUT - pad[0], j * OUT - pad[1]
        of, x_row, x_col = x + ((n * h + row) * w + column) * c, w * c, c
        if row < 0 or column < 0 or row + side > h or column + side > w:
            surrounded(x + n * h * w * c, h, w, c, row, column, side, edge)
            of, x_row = edge, side * c
        for k in range(0, channels, lanes):
            image_tile(of + k, x_row, x_col, side, i0, i1, v + (number * ld + k), apart, held)


@part
def output_tiles(first, count, n, m, ld, apart, start, end, place, grid, held):
    """start + A^T m A of tiles first .. first + count - 1, n channels, to the output; `place`: its pointer, rows,
    columns and channels."""
    y, p, q, c = place
    down, across, lanes = (p + OUT - 1) // OUT, (q + OUT - 1) // OUT, lanes_of(y)
    for number in range(count):
        at = first + number
        image, i, j = at // (down * across), at // across % down, at % across
        pixel = (image * p + i * OUT) * q + j * OUT
        high, wide = least(OUT, p - i * OUT), least(OUT, q - j * OUT)
        for k in range(0, n, lanes):
            output_tile(m + (number * ld + k), apart, start[0] + k * start[2], y + (pixel * c + k), q * c, c, high,
                        wide, held)
        for row in range(high):
            ended(end, wide, n, y + (pixel + row * q) * c, c, pixel + row * q)


@part
def at_place(rows, n, steps, left, right, out, start, ahead):
    """One of the 36 products: a block of rows times all n columns."""
    a, a_row, a_col = left
    b, ldb, b_strip = right
    c, ldc = out
    at, end = (a, a_row, a_col, 1, 0), (0, out[0], 0)
    full = n // (2 * lanes_of(c))
    if full > 0:
        full_strips(rows, full, steps, at, (b, ldb, b_strip), out, start, ahead, end, c, 0)
    j = full * 2 * lanes_of(c)
    if j < n:
        narrow_strip(rows, n - j, steps, at, (b + full * b_strip, ldb, 0), (c + j, ldc),
                     (start[0] + j * start[2], start[1], start[2]), end)


@part
def convolve_tiles(first, tiles, n, image, grid, pad, weights, made, place, start, end, zero, work, block, kc, strips):
    """Tiles first .. first + tiles - 1 of start + conv(image, weights), n channels: `block` tiles at a time, and of
    these `strips` strips of channels. `made`: the weights at the 36 places, values from place to place, from strip to
    strip; or 0 values: a block of weights, `kc` rows, is then brought there as often as it is used, on the way from
    `weights` (see `weight_rows`)."""
    lanes, k = lanes_of(work), image[3]
    width, fresh = 2 * lanes, made[1] == 0
    u, each, u_strip = made
    columns = least(n, strips * width)
    ld, ldm = k + lanes, padded(columns, width) + lanes
    apart, apart_m = block * ld + lanes, block * ldm + lanes
    held, edge = work, work + PLACES * lanes
    v = edge + PLACES * (k + lanes)
    m = v + PLACES * apart
    if fresh:
        u, u_strip = m + PLACES * apart_m, kc * width
        each = strips * u_strip + lanes      # places at a distance that no cache minds
    for i in range(first, first + tiles, block):
        count = least(block, first + tiles - i)
        image_tiles(image, k, grid, pad, SIDE, (0, SIDE), i, count, v, ld, apart, edge, held)
        for j in range(0, n, columns):
            cols = least(columns, n - j)
            for p in range(0, k, kc):
                steps, of = least(kc, k - p), u + (j // width * u_strip + p * width)
                if fresh:
                    of = u
                    weight_rows(weights, p, steps, j, cols, of, u_strip, each, u + PLACES * each)
                for at in range(PLACES):
                    since = m + at * apart_m, ldm, 1
                    if p == 0:
                        since = zero
                    at_place(count, cols, steps, (v + (at * apart + p), ld, 1), (of + at * each, width, u_strip),
                             (m + at * apart_m, ldm), since, (each, least(count, SPREAD)))
            output_tiles(i, count, cols, m, ldm, apart_m, (start[0] + j * start[2], start[1], start[2]),
                         moved(end, 0, j), (place[0] + j, place[1], place[2], place[3]), grid, held)


@part
def of_weights(g0, g1, g2):
    """G g for one line of three: six tiles."""
    even_a, odd_a = plus(times(g0, GA), g2, GA2), times(g1, GA1)
    even_b, odd_b = plus(times(g0, GB), g2, GB2), times(g1, GB1)
    return times(g0, G0), even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, g2


@part
def weight_line(left, middle, right, u, each):
    """One line of six places."""
    first, second, third, fourth, fifth, sixth = of_weights(left, middle, right)
    tile_store(first, u, 0)
    tile_store(second, u + each, 0)
    tile_store(third, u + 2 * each, 0)
    tile_store(fourth, u + 3 * each, 0)
    tile_store(fifth, u + 4 * each, 0)
    tile_store(sixth, u + 5 * each, 0)


@part
def weight_vector(w, tap, far, u, each):
    """u[place * each] = G g G^T for one vector of channels of the weights g, their taps `tap` apart; asks for those
    `far` behind: a few values of each of many distant rows, which no processor foresees."""
    t = tile(1, 1, w)
    for number in range(TAPS * TAPS):
        prefetch(t, w + (number * tap + far), 0, 1)
    a0, a1, a2, a3, a4, a5 = of_weights(tile_load(t, w, 0), tile_load(t, w + 3 * tap, 0), tile_load(t, w + 6 * tap, 0))
    w += tap
    b0, b1, b2, b3, b4, b5 = of_weights(tile_load(t, w, 0), tile_load(t, w + 3 * tap, 0), tile_load(t, w + 6 * tap, 0))
    w += tap
    c0, c1, c2, c3, c4, c5 = of_weights(tile_load(t, w, 0), tile_load(t, w + 3 * tap, 0), tile_load(t, w + 6 * tap, 0))
    weight_line(a0, b0, c0, u, each)
    weight_line(a1, b1, c1, u + SIDE * each, each)
    weight_line(a2, b2, c2, u + 2 * SIDE * each, each)
    weight_line(a3, b3, c3, u + 3 * SIDE * each, each)
    weight_line(a4, b4, c4, u + 4 * SIDE * each, each)
    weight_line(a5, b5, c5, u + 5 * SIDE * each, each)


@part
def weight_rows(weights, row, rows, column, columns, u, u_strip, each, turned):
    """u[place * each + strip * u_strip + k * width + column] = G g G^T of some rows and columns of the weights, in
    strips of two vectors as products like to read them. `weights`: a pointer to the first tap, the distances of rows
    (of columns, where they are those of a gradient by the input: then they are turned on the way) and of taps."""
    w, w_row, w_tap, back = weights
    lanes, one = lanes_of(u), tile(1, 1, u)
    width = 2 * lanes
    for piece in range(0, rows, lanes):
        at, at_row, at_tap = w + ((row + piece) * w_row + column), w_row, w_tap
        if back:
            for tap in range(TAPS * TAPS):
                src = w + (tap * w_tap + column * w_row + row + piece)
                copy_transposed(lanes, columns, src, w_row, turned + tap * lanes * columns, columns)
                for j in range(columns):
                    prefetch(one, src + (j * w_row + lanes), 0, 1)
            at, at_row, at_tap = turned, columns, lanes * columns
        for k in range(lanes):
            for j in range(0, columns, lanes):
                weight_vector(at + (k * at_row + j), at_tap, ROWS_AHEAD * at_row,
                              u + (j // width * u_strip + (piece + k) * width + j % width), each)


@part
def weight_tiles(weights, k, n, u, strips, turned, task, tasks):
    """All weights at the 36 places, for `convolve_tiles`; a task's rows."""
    lanes = lanes_of(u)
    width = 2 * lanes
    first, count = span(k // lanes, task, tasks)
    for j in range(0, n, strips * width):
        weight_rows(weights, first * lanes, count * lanes, j, least(strips * width, n - j),
                    u + (j * k + first * lanes * width), k * width, k * padded(n, width), turned)


@part
def sum_tiles(x, channels, dy, tiles, lines, pad, sums, row, ldp, zero, work, block):
    """sums[place, row + k, n] for the places of some lines, `channels` channels of x and all of dy: over all tiles."""
    lanes, n, grid = lanes_of(work), dy[3], (dy[1], dy[2])
    ld, ldz = channels + lanes, n + lanes
    apart, apart_z = block * ld + lanes, block * ldz + lanes
    held, edge = work, work + PLACES * lanes
    v = edge + PLACES * (greater(x[3], n) + lanes)
    z = v + PLACES * apart
    for i in range(0, tiles, block):
        count = least(block, tiles - i)
        image_tiles(x, channels, grid, pad, SIDE, lines, i, count, v, ld, apart, edge, held)
        image_tiles(dy, n, grid, (0, 0), OUT, lines, i, count, z, ldz, apart_z, edge, held)
        for at in range(lines[0] * SIDE, lines[1] * SIDE):
            out = sums + (at * ldp + row) * n
            start, start_row, start_col = out, n, 1
            if i == 0:
                start, start_row, start_col = zero
            at_place(channels, n, count, (v + at * apart, 1, ld), (z + at * apart_z, ldz, 2 * lanes), (out, n),
                     (start, start_row, start_col), (AHEAD * ldz, 0))


@part
def weights_of_sums(sums, k, n, dw, task, tasks):
    """dw (3, 3, k, n) = G^T sums G; a task's rows."""
    lanes, t = lanes_of(sums), tile(1, 1, sums)
    first, count = span(k, task, tasks)
    for row in range(first, first + count):
        for j in range(0, n, lanes):
            at, to = sums + (row * n + j), dw + (row * n + j)
            for r in range(TAPS):
                left, middle, right = t, t, t
                for b in range(SIDE):
                    found = t
                    for a in range(SIDE):
                        found = plus(found, tile_load(t, at + (a * SIDE + b) * k * n, 0), WEIGHT_POINTS[a, r])
                    left = plus(left, found, WEIGHT_POINTS[b, 0])
                    middle = plus(middle, found, WEIGHT_POINTS[b, 1])
                    right = plus(right, found, WEIGHT_POINTS[b, 2])
                tile_store(left, to + r * TAPS * k * n, 0)
                tile_store(middle, to + (r * TAPS + 1) * k * n, 0)
                tile_store(right, to + (r * TAPS + 2) * k * n, 0)
