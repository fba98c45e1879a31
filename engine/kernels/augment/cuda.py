"""CUDA kernels of the augmentations: a block is a sample, and each of its threads draws the sample's numbers."""
import math

import numpy as np

from engine.kernels.augment import draws
from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel
from engine.kernels.random import key_device, philox_device
from engine.kernels.split import LANES, block_sum

TRIES = draws.TRIES
whole, between, folded = device(draws.whole_at), device(draws.between_at), device(draws.folded_at)
sides, span_of, share_of = device(draws.sides_at), device(draws.span_at), device(draws.share_at)
direction, looked = device(draws.direction_at), device(draws.looked_at)


@device
def words_at(counter, stream, block):
    stream, step0, step1, key0, key1 = key_device(counter, stream)
    return philox_device(np.uint64(block), stream, step0, step1, key0, key1)


@kernel
def _shift(x, counter, c, padding, reflect, horizontal, vertical, stream, out):
    r = cuda.blockIdx.x
    h, w = x.shape[1], x.shape[2] // c
    down, right, over, under = words_at(counter, stream, r)
    down, right = whole(down, 2 * padding + 1) - padding, whole(right, 2 * padding + 1) - padding
    turned, upended = over < np.uint64(horizontal), under < np.uint64(vertical)
    for at in range(cuda.threadIdx.x, h * w * c, cuda.blockDim.x):
        i = at // (w * c)
        column = at - i * (w * c)
        j = column // c
        k = column - j * c
        i_from = folded((h - 1 - i if upended else i) + down, h, reflect)
        j_from = folded((w - 1 - j if turned else j) + right, w, reflect)
        inside = 0 <= i_from and i_from < h and 0 <= j_from and j_from < w
        out[r, i, column] = x[r, i_from, j_from * c + k] if inside else x.dtype.type(0)


@kernel
def _erase(x, counter, c, probability, low, high, ratio_low, ratio_high, inside, value, stream, out):
    r = cuda.blockIdx.x
    h, w = x.shape[1], x.shape[2] // c
    wanted, area, ratio, down = words_at(counter, stream, 2 * r)
    right = words_at(counter, stream, 2 * r + 1)[0]
    height, width = sides(between(area, low, high) * (h * w), math.exp(between(ratio, ratio_low, ratio_high)))
    top, bottom = span_of(down, height, h, inside)
    left, end = span_of(right, width, w, inside)
    if between(wanted, 0.0, 1.0) >= probability:
        bottom = top
    for at in range(cuda.threadIdx.x, h * w * c, cuda.blockDim.x):
        i = at // (w * c)
        j = at - i * (w * c)
        hidden = top <= i and i < bottom and left * c <= j and j < end * c
        out[r, i, j] = x.dtype.type(value) if hidden else x[r, i, j]


@kernel
def _window(counter, h, w, angle, low, high, ratio, move, inside, stream, out):
    r = cuda.grid(1)
    if r < out.shape[0]:
        turn, area, aspect, down = words_at(counter, stream, 2 * r)
        right = words_at(counter, stream, 2 * r + 1)[0]
        height, width = sides(between(area, low, high), math.exp(between(aspect, -ratio, ratio)))
        room, space = move, move
        if inside:
            height, width = height if height < 1 else 1.0, width if width < 1 else 1.0
            room, space = (1 - height) / 2, (1 - width) / 2
        turned = direction(between(turn, -angle, angle))
        moved, shifted = between(down, -room, room), between(right, -space, space)
        (out[r, 0], out[r, 1], out[r, 2], out[r, 3], out[r, 4],
         out[r, 5]) = looked(h, w, height, width, turned, moved, shifted)


@device
def pixel(x, r, i, j, k):
    """x[r, i, j, k], zero outside."""
    inside = 0 <= i and i < x.shape[1] and 0 <= j and j < x.shape[2]
    return x[r, i, j, k] if inside else x.dtype.type(0)


@kernel
def _warp(x, numbers, edge, out):
    r = cuda.blockIdx.x
    _, h, w, c = x.shape
    number = x.dtype.type
    for at in range(cuda.threadIdx.x, h * w, cuda.blockDim.x):
        i = at // w
        j = at - i * w
        y = np.float64(numbers[r, 0]) * i + np.float64(numbers[r, 1]) * j + np.float64(numbers[r, 2])
        z = np.float64(numbers[r, 3]) * i + np.float64(numbers[r, 4]) * j + np.float64(numbers[r, 5])
        if edge:
            y = 0.0 if y < 0 else h - 1.0 if y > h - 1 else y
            z = 0.0 if z < 0 else w - 1.0 if z > w - 1 else z
        around = -1 < y and y < h and -1 < z and z < w
        top, left = (int(math.floor(y)), int(math.floor(z))) if around else (-2, -2)
        p, q = (number(y - top), number(z - left)) if around else (number(0), number(0))
        for k in range(c):
            over = (number(1) - q) * pixel(x, r, top, left, k) + q * pixel(x, r, top, left + 1, k)
            under = (number(1) - q) * pixel(x, r, top + 1, left, k) + q * pixel(x, r, top + 1, left + 1, k)
            out[r, i, j, k] = (number(1) - p) * over + p * under


@device
def grey_of(x, r, i, c):
    number = x.dtype.type
    if c == 1:
        return x[r, i, 0]
    return number(0.299) * x[r, i, 0] + number(0.587) * x[r, i, 1] + number(0.114) * x[r, i, 2]


@device
def within(value, low, high):
    return low if value < low else high if value > high else value


@kernel
def _colour(x, counter, brightness, contrast, saturation, low, high, stream, out):
    r, thread = cuda.blockIdx.x, cuda.threadIdx.x
    _, size, c = x.shape
    number = x.dtype.type
    bottom, top, one = number(low), number(high), number(1)
    words = words_at(counter, stream, r)
    light = number(between(words[0], 1 - brightness, 1 + brightness))
    depth = number(between(words[1], 1 - contrast, 1 + contrast))
    tone = number(between(words[2], 1 - saturation, 1 + saturation))
    total = 0.0
    for i in range(thread, size, LANES):     # a thread comes back to the pixels that it wrote
        for k in range(c):
            out[r, i, k] = within(x[r, i, k] * light, bottom, top)
        total += grey_of(out, r, i, c)
    mean = (one - depth) * number(block_sum(total, thread) / size)
    for i in range(thread, size, LANES):
        for k in range(c):
            out[r, i, k] = within(out[r, i, k] * depth + mean, bottom, top)
        grey = (one - tone) * grey_of(out, r, i, c)
        for k in range(c):
            out[r, i, k] = within(out[r, i, k] * tone + grey, bottom, top)


@kernel
def _mix(x, counter, alpha, stream, out):
    r = cuda.blockIdx.x
    number = x.dtype.type
    other = whole(words_at(counter, stream, r * TRIES)[2], x.shape[0])
    share, k = 0.5, 0
    while k < TRIES:
        words = words_at(counter, stream, r * TRIES + k)
        total, found = share_of(words[0], words[1], alpha)
        k += 1
        if total <= 1:
            share, k = found, TRIES
    share = share if share > 0.5 else 1 - share
    for j in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        out[r, j] = number(share) * x[r, j] + number(1 - share) * x[other, j]


@kernel
def _from_uint8(x, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = out.dtype.type(x[i])


def shift(x, counter, *rest):
    _shift[x.shape[0], THREADS](x, counter, *rest)


def erase(x, counter, *rest):
    _erase[x.shape[0], THREADS](x, counter, *rest)


def window(counter, *rest):
    _window[blocks(rest[-1].shape[0]), THREADS](counter, *rest)


def warp(x, numbers, edge, out):
    _warp[x.shape[0], THREADS](x, numbers, edge, out)


def colour(x, counter, *rest):
    _colour[x.shape[0], LANES](x, counter, *rest)


def mix(x, counter, alpha, stream, out):
    _mix[x.shape[0], THREADS](x, counter, alpha, stream, out)


def from_uint8(x, out):
    _from_uint8[blocks(out.size), THREADS](x, out)
