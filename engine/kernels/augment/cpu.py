"""CPU kernels of the augmentations: a task is some of the samples, and a sample's numbers come from its own block."""
import math

import numpy as np

from engine.kernels.augment import draws
from engine.kernels.random import key_of, philox
from engine.kernels.simd import flattened, part
from engine.kernels.split import span

TRIES = draws.TRIES
whole, between, folded = part(draws.whole_at), part(draws.between_at), part(draws.folded_at)
sides, span_of, share_of = part(draws.sides_at), part(draws.span_at), part(draws.share_at)
direction, looked = part(draws.direction_at), part(draws.looked_at)


@part(forceinline=True)
def words_at(counter, stream, block):
    """Four words of one block, as uint64."""
    stream, step0, step1, key0, key1 = key_of(counter, stream)
    return philox(np.uint64(block), stream, step0, step1, key0, key1)


@part(disjoint=True)
def copy_row(given, out):
    for j in range(out.size):
        out[j] = given[j]


@part(disjoint=True)
def turn_row(given, c, out):
    """The pixels of a row in reverse order, each with its c channels as they are."""
    w = out.size // c
    if c == 3:                               # known by heart: a loop of three turns costs more than what it copies
        for j in range(w):
            k = 3 * (w - 1 - j)
            out[3 * j], out[3 * j + 1], out[3 * j + 2] = given[k], given[k + 1], given[k + 2]
    else:
        for j in range(w):
            for k in range(c):
                out[j * c + k] = given[(w - 1 - j) * c + k]


@part
def shift(x, counter, c, padding, reflect, horizontal, vertical, stream, out, task, tasks):
    """out[r, i, j] = x[r, i', j'], the image moved by up to `padding` and turned over; x and out are (n, h, w c)."""
    first, count = span(x.shape[0], task, tasks)
    h, w = x.shape[1], x.shape[2] // c
    for r in range(first, first + count):
        down, right, over, under = words_at(counter, stream, r)
        down, right = whole(down, 2 * padding + 1) - padding, whole(right, 2 * padding + 1) - padding
        turned, upended = over < np.uint64(horizontal), under < np.uint64(vertical)
        # the columns start..end - 1 lie inside; mirrored, columns count from the right
        start, end = max(0, -right), min(w, w - right)
        left = w - end if turned else start
        size = max(0, end - start)
        for i in range(h):
            row = out[r, i]
            at = folded((h - 1 - i if upended else i) + down, h, reflect)
            if at < 0 or at >= h:
                row[:] = 0
                continue
            given = x[r, at]
            inside, target = given[(start + right) * c:(start + right + size) * c], row[left * c:(left + size) * c]
            if turned:
                turn_row(inside, c, target)
            else:
                copy_row(inside, target)
            for j in range(w - size):        # what lies outside: on one side, as the shift is either left or right
                j = j if left > 0 else size + j
                at = folded((w - 1 - j if turned else j) + right, w, reflect)
                for k in range(c):
                    row[j * c + k] = given[at * c + k] if 0 <= at < w else 0


@part
def erase(x, counter, c, probability, low, high, ratio_low, ratio_high, inside, value, stream, out, task, tasks):
    """out = x but for a box of `value`; x and out are (n, h, w c), the ratios logarithms"""
    first, count = span(x.shape[0], task, tasks)
    h, w = x.shape[1], x.shape[2] // c
    for r in range(first, first + count):
        for i in range(h):
            copy_row(x[r, i], out[r, i])
        wanted, area, ratio, down = words_at(counter, stream, 2 * r)
        right, _, _, _ = words_at(counter, stream, 2 * r + 1)
        if between(wanted, 0.0, 1.0) < probability:
            height, width = sides(between(area, low, high) * (h * w), math.exp(between(ratio, ratio_low, ratio_high)))
            top, bottom = span_of(down, height, h, inside)
            left, end = span_of(right, width, w, inside)
            for i in range(top, bottom):
                out[r, i, left * c:end * c] = value


@part
def window(counter, h, w, angle, low, high, ratio, move, inside, stream, out, task, tasks):
    """out[r] = the six numbers of sample r (see the package's text); `ratio` is a logarithm"""
    for r in range(out.shape[0]):
        turn, area, aspect, down = words_at(counter, stream, 2 * r)
        right, _, _, _ = words_at(counter, stream, 2 * r + 1)
        height, width = sides(between(area, low, high), math.exp(between(aspect, -ratio, ratio)))
        room, space = move, move
        if inside:
            height, width = min(height, 1.0), min(width, 1.0)
            room, space = (1 - height) / 2, (1 - width) / 2
        turned = direction(between(turn, -angle, angle))
        down, right = between(down, -room, room), between(right, -space, space)
        (out[r, 0], out[r, 1], out[r, 2], out[r, 3], out[r, 4],
         out[r, 5]) = looked(h, w, height, width, turned, down, right)


@part(forceinline=True)
def looked_up(x, r, i, j, k):
    """x[r, i, j, k], zero outside"""
    return x[r, i, j, k] if 0 <= i < x.shape[1] and 0 <= j < x.shape[2] else x.dtype.type(0)


@part(disjoint=True, forceinline=True)
def between_pixels(over, under, at, c, weights, out, to):
    """out[to..] = what lies between the pixels at `at` and the next one of two rows; each has c channels"""
    a, b, d, e = weights
    for k in range(c):
        out[to + k] = a * over[at + k] + b * over[at + c + k] + d * under[at + k] + e * under[at + c + k]


@part
def warp(x, numbers, edge, out, task, tasks):
    """out[r, i, j] = x[r] between the four pixels around (a i + b j + c, d i + e j + f)"""
    first, count = span(x.shape[0], task, tasks)
    _, h, w, channels = x.shape
    number = x.dtype.type
    one = number(1)
    for r in range(first, first + count):
        a, b, c = np.float64(numbers[r, 0]), np.float64(numbers[r, 1]), np.float64(numbers[r, 2])
        d, e, f = np.float64(numbers[r, 3]), np.float64(numbers[r, 4]), np.float64(numbers[r, 5])
        given, made = flattened(x[r]), flattened(out[r])
        for i in range(h):
            for j in range(w):
                y, z = a * i + b * j + c, d * i + e * j + f
                if edge:
                    y, z = min(max(y, 0.0), h - 1.0), min(max(z, 0.0), w - 1.0)
                if not (-1 < y < h and -1 < z < w):
                    out[r, i, j] = 0
                    continue
                top, left = int(y + 1) - 1, int(z + 1) - 1       # floor, for what is above -1
                p, q = number(y - top), number(z - left)
                weights = (one - p) * (one - q), (one - p) * q, p * (one - q), p * q
                if 0 <= top < h - 1 and 0 <= left < w - 1:
                    start = top * w * channels
                    between_pixels(given[start:], given[start + w * channels:], left * channels, channels, weights,
                                   made, (i * w + j) * channels)
                else:
                    for k in range(channels):
                        out[r, i, j, k] = (
                            weights[0] * looked_up(x, r, top, left, k) + weights[1] * looked_up(x, r, top, left + 1, k)
                            + weights[2] * looked_up(x, r, top + 1, left, k)
                            + weights[3] * looked_up(x, r, top + 1, left + 1, k))


@part(forceinline=True)
def luminance(red, green, blue, x):
    """ITU-R BT.601, in the precision of the array x"""
    number = x.dtype.type
    return number(0.299) * red + number(0.587) * green + number(0.114) * blue


@part(disjoint=True)
def lighten(x, factor, low, high, out):
    """out = x * factor within low .. high; returns the sum of its luminance, in the order of the pixels"""
    size, c = x.shape
    total = 0.0
    if c == 1:
        for i in range(size):
            out[i, 0] = min(max(x[i, 0] * factor, low), high)
            total += out[i, 0]
    else:
        for i in range(size):
            red, green, blue = x[i, 0] * factor, x[i, 1] * factor, x[i, 2] * factor
            red, green, blue = min(max(red, low), high), min(max(green, low), high), min(max(blue, low), high)
            out[i, 0], out[i, 1], out[i, 2] = red, green, blue
            total += luminance(red, green, blue, out)
    return total


@part(disjoint=True)
def deepen(depth, offset, tone, low, high, out):
    """out = out * depth + offset, then away from (towards) each pixel's luminance by `tone`; within low .. high"""
    size, c = out.shape
    if c == 1:
        for i in range(size):
            out[i, 0] = min(max(out[i, 0] * depth + offset, low), high)
    else:
        rest = out.dtype.type(1) - tone
        for i in range(size):
            red, green, blue = out[i, 0] * depth + offset, out[i, 1] * depth + offset, out[i, 2] * depth + offset
            red, green, blue = min(max(red, low), high), min(max(green, low), high), min(max(blue, low), high)
            grey = rest * luminance(red, green, blue, out)
            red, green, blue = red * tone + grey, green * tone + grey, blue * tone + grey
            out[i, 0], out[i, 1] = min(max(red, low), high), min(max(green, low), high)
            out[i, 2] = min(max(blue, low), high)


@part
def colour(x, counter, brightness, contrast, saturation, low, high, stream, out, task, tasks):
    """out = x brighter, of more contrast and more colour by factors of its own; x and out are (n, h w, c)"""
    first, count = span(x.shape[0], task, tasks)
    _, size, c = x.shape
    number = x.dtype.type
    low, high = number(low), number(high)
    for r in range(first, first + count):
        light, depth, tone, _ = words_at(counter, stream, r)
        light = number(between(light, 1 - brightness, 1 + brightness))
        depth = number(between(depth, 1 - contrast, 1 + contrast))
        tone = number(between(tone, 1 - saturation, 1 + saturation))
        total = lighten(x[r], light, low, high, out[r]) / max(1, size)
        deepen(depth, (number(1) - depth) * number(total), tone, low, high, out[r])


@part
def partner_of(counter, stream, r, n, alpha):
    """(sample to mix with, share of the sample itself, at least 1/2)"""
    _, _, other, _ = words_at(counter, stream, r * TRIES)
    share = 0.5
    for k in range(TRIES):
        u, v, _, _ = words_at(counter, stream, r * TRIES + k)
        total, found = share_of(u, v, alpha)
        if total <= 1:
            share = found
            break
    return whole(other, n), max(share, 1 - share)


@part(disjoint=True)
def blend(mine, given, p, q, out):
    for j in range(out.size):
        out[j] = p * mine[j] + q * given[j]


@part
def mix(x, counter, alpha, stream, out, task, tasks):
    """out[r] = share x[r] + (1 - share) x[other]; x and out are (n, m)"""
    first, count = span(x.shape[0], task, tasks)
    number = x.dtype.type
    for r in range(first, first + count):
        other, share = partner_of(counter, stream, r, x.shape[0], alpha)
        blend(x[r], x[other], number(share), number(1 - share), out[r])


@part(disjoint=True)
def from_uint8(x, out, task, tasks):
    """out = x as floating-point numbers"""
    first, count = span(x.size, task, tasks)
    x, out = x[first:first + count], out[first:first + count]
    for i in range(out.size):
        out[i] = x[i]
