"""Depthwise convolutions on the GPU: an output channel sees one input channel, so there is no product to speak of.

Forward and by the input, a thread sums the taps of one pixel for one channel or, where that is possible in accesses of
16 bytes, for four beside each other; neighbouring threads have neighbouring channels. By the weights, a block of 32
channels x 8 threads adds the pixels of one piece for one tap; pieces are added in their order.
"""
import numpy as np
from numba import int32

from engine.kernels.conv.cuda_gather import whole
from engine.kernels.gpu import (
    THREADS,
    blocks,
    cuda,
    device_in,
    kernel_of,
    load1,
    load4,
    shared_array,
    starts_aligned,
    store1,
    store4,
)
from engine.kernels.matmul.cuda import ENOUGH, join
from engine.kernels.matmul.cuda_tiles import PLAIN, finisher, looker
from engine.kernels.op import Spec

ACROSS, DOWN = 32, 8                         # channels and threads for each of them in a block that adds pixels
PIXELS = 1024                                # the fewest of a piece


def access(wide):
    """(read, write, lanes) of one value or of four"""
    if wide:
        return (device_in(lambda x, at: load4(x, at)),
                device_in(lambda x, at, v: store4(x, at, v[0], v[1], v[2], v[3])), 4)
    return device_in(lambda x, at: (load1(x, at),)), device_in(lambda x, at, v: store1(x, at, v[0])), 1


@kernel_of
def _forward(epilogue, f, wide):
    (read, _, lanes), (finish, reads) = access(wide), finisher(epilogue, f)
    look = looker(reads)[1]

    def depthwise(x, w, bias, beside, numbers, y):
        step_h, step_w, top, left, down, across, _, taps_high, taps_wide, p, q = numbers
        sums, outputs, at = cuda.local.array(lanes, x.dtype), int32(w.shape[3]), int32(cuda.grid(1))
        height, width, pixel = int32(x.shape[1]), int32(x.shape[2]), int32(x.shape[3])
        number, channel = int32(at // (outputs // lanes)), int32(at % (outputs // lanes) * lanes)
        if number < x.shape[0] * p * q:
            of_image, image = int32(channel // (outputs // pixel)), int32(number // (p * q))
            above, before = int32(number // q % p * step_h - top), int32(number % q * step_w - left)
            for k in range(lanes):
                sums[k] = 0
            for r in range(taps_high):
                row = int32(above + r * down)
                if 0 <= row and row < height:
                    for s in range(taps_wide):
                        column = int32(before + s * across)
                        if 0 <= column and column < width:
                            given = read(x, ((image * height + row) * width + column) * pixel + of_image)
                            taken = read(w, (r * taps_wide + s) * outputs + channel)
                            for k in range(lanes):
                                sums[k] += given[k] * taken[k]
            for k in range(lanes):
                place = number * outputs + channel + k
                store1(y, place, finish(sums[k], channel + k, bias, look(beside, place)))
    return depthwise


@kernel_of
def _backward(epilogue, f, wide):
    (read, _, lanes), (finish, _) = access(wide), finisher(epilogue, f)

    def depthwise_back(dy, w, bias, numbers, dx):
        step_h, step_w, top, left, down, across, _, taps_high, taps_wide, h, wide_x = numbers
        sums, pixel, at = cuda.local.array(lanes, dy.dtype), int32(dx.shape[3]), int32(cuda.grid(1))
        height, width, outputs = int32(dy.shape[1]), int32(dy.shape[2]), int32(dy.shape[3])
        number, channel = int32(at // (pixel // lanes)), int32(at % (pixel // lanes) * lanes)
        if number < dy.shape[0] * h * wide_x:
            image, multiple = int32(number // (h * wide_x)), int32(outputs // pixel)
            below, behind = int32(number // wide_x % h + top), int32(number % wide_x + left)
            for k in range(lanes):
                sums[k] = 0
            for r in range(taps_high):
                row = int32((below - r * down) // step_h)
                if row * step_h == below - r * down and 0 <= row and row < height:
                    for s in range(taps_wide):
                        column = int32((behind - s * across) // step_w)
                        if column * step_w == behind - s * across and 0 <= column and column < width:
                            for t in range(multiple):
                                to = channel * multiple + t
                                given = read(dy, ((image * height + row) * width + column) * outputs + to)
                                taken = read(w, (r * taps_wide + s) * outputs + to)
                                for k in range(lanes):
                                    sums[k] += given[k] * taken[k]
            for k in range(lanes):
                store1(dx, number * pixel + channel + k, finish(sums[k], channel + k, bias, 0))
    return depthwise_back


@kernel_of
def _weights():
    """A block: 32 output channels, one tap (blockIdx.y), one piece of the pixels (blockIdx.z)"""
    height_of_block, width_of_block, size = DOWN, ACROSS, DOWN * ACROSS

    def depthwise_weights(x, dy, numbers, length, dw):
        step_h, step_w, top, left, down, across, _, _, taps_wide, p, q = numbers
        held, tx, ty = shared_array(size, x.dtype), int32(cuda.threadIdx.x), int32(cuda.threadIdx.y)
        channel, outputs = int32(cuda.blockIdx.x * width_of_block + tx), int32(dy.shape[3])
        r, s = int32(cuda.blockIdx.y // taps_wide), int32(cuda.blockIdx.y % taps_wide)
        start, count = int32(cuda.blockIdx.z * length), int32(dy.shape[0] * p * q)
        end = int32(start + length) if start + length < count else count
        total, of_image = x.dtype.type(0), int32(channel // (outputs // x.shape[3]))
        for number in range(start + ty, end, height_of_block):
            row = int32(number // q % p * step_h - top + r * down)
            column = int32(number % q * step_w - left + s * across)
            inside = 0 <= row and row < x.shape[1] and 0 <= column and column < x.shape[2]
            if inside and channel < outputs:
                at = ((number // (p * q) * x.shape[1] + row) * x.shape[2] + column) * x.shape[3] + of_image
                total += load1(x, at) * load1(dy, number * outputs + channel)
        store1(held, ty * width_of_block + tx, total)
        cuda.syncthreads()
        if ty == 0 and channel < outputs:
            for k in range(1, height_of_block):
                total += load1(held, k * width_of_block + tx)
            store1(dw, (cuda.blockIdx.z * dw.shape[1] + cuda.blockIdx.y) * outputs + channel, total)
    return depthwise_weights


# ----------------------------------------------------------------------------------------------------------- launchers


def parts_spec(w, y, dtype):
    """Scratch of the gradient by the weights: (pieces, r s, o); none where one piece does."""
    pixels, products = y[0] * y[1] * y[2], w[0] * w[1] * -(-w[3] // ACROSS)
    pieces = max(1, min(4 * ENOUGH // products, pixels // PIXELS))
    return (Spec((pieces, w[0] * w[1], w[3]), np.dtype(dtype)),) if pieces > 1 else ()


def in_fours(*arrays):
    """Whether arrays may be read four channels at a time."""
    return all(a.shape[3] % 4 == 0 and starts_aligned(a) for a in arrays)


def forward(epilogue, f, x, w, bias, beside, geometry, y):
    wide = x.shape[3] == y.shape[3] and in_fours(x, w)
    made = _forward(epilogue, f, wide, y.dtype)
    numbers = whole(*geometry, *w.shape[:2], *y.shape[1:3])
    made[blocks(y.size // (4 if wide else 1)), THREADS](x, w, bias, beside, numbers, y)


def backward(epilogue, f, dy, w, bias, geometry, dx):
    wide = dx.shape[3] == dy.shape[3] and in_fours(dy, w)
    made = _backward(epilogue, f, wide, dx.dtype)
    numbers = whole(*geometry, *w.shape[:2], *dx.shape[1:3])
    made[blocks(dx.size // (4 if wide else 1)), THREADS](dy, w, bias, numbers, dx)


def weights(x, dy, geometry, dw, parts):
    pieces, taps, outputs = parts[0].shape[0] if parts else 1, dw.shape[0] * dw.shape[1], dw.shape[3]
    numbers = whole(*geometry, *dw.shape[:2], *dy.shape[1:3])
    pixels = dy.shape[0] * dy.shape[1] * dy.shape[2]
    grid, out = (blocks(outputs, ACROSS), taps, pieces), dw.reshape((taps, outputs))
    made = _weights(dw.dtype)
    target = parts[0] if parts else out.reshape((1, taps, outputs))
    made[grid, (ACROSS, DOWN)](x, dy, numbers, max(1, -(-pixels // pieces)), target)
    if parts:
        join(PLAIN, None, *parts, 0, 0, out)
