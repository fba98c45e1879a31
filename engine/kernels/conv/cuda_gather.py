"""How slices of a convolution's product come out of images and weights: readers for `matmul/cuda_tiles.pipeline`.

Places in an image are reckoned once before the loop; in it a reader goes from slice to slice by adding: a *tap* is the
kernel row, kernel column and channel where a thread's four values begin, a *pixel* is image, row and column. Each
reader comes in two: `wide`, where four channels beside each other belong to one tap and begin on a 16-byte boundary, so
that they come in one access, and value by value.

    patches    A (pixels, taps): values of the patch that an output pixel sees        forward, and by the input
    turned     B (taps, channels) from weights (r, s, channels, o), k along o         by the input
    pixels     A (taps, pixels): the same patches, the sum running over pixels        by the weights

`of` of each is a tuple: numbers, then arrays of the thread.
"""
import functools

import numpy as np
from numba import int32

from engine.kernels.gpu import device_in, load1, load4
from engine.kernels.op import demand

FAR = -(1 << 30)                             # a row outside of every image


@functools.cache
def tap_mover():
    """(set_tap, step_tap): the tap of a place in k, and `by` places further."""
    def set_tap(k, channels, taps_wide, tap):
        at = int32(k // channels)
        tap[0], tap[1], tap[2] = int32(at // taps_wide), int32(at % taps_wide), int32(k - at * channels)

    def step_tap(by, channels, taps_wide, tap):
        tap[2] += by
        while tap[2] >= channels:
            tap[2] -= channels
            tap[1] += 1
            if tap[1] == taps_wide:
                tap[0], tap[1] = tap[0] + 1, 0

    return device_in(set_tap), device_in(step_tap)


@functools.cache
def patches(extent, depth, threads, moves, wide):
    """(begin, fetch) of A (pixels, taps); `moves`: fetch steps the tap on."""
    groups, neighbours = extent * depth // 4 // threads, depth // 4
    set_tap, step_tap = tap_mover()

    def begin(shape, grid, first_row, m, k, channels, taps_wide, offset, thread, bases, rows, columns, tap):
        """grid: rows and columns of pixels, their steps, and where the first one's patch begins in the image."""
        p, q, step_h, step_w, start_h, start_w = grid
        for group in range(groups):
            pixel = int32(first_row + (thread + group * threads) // neighbours)
            image, rest = pixel // (p * q), pixel % (p * q)
            bases[group] = image * shape[1] * shape[2] * shape[3] + offset
            rows[group] = int32(rest // q * step_h + start_h if pixel < m else FAR)
            columns[group] = int32(rest % q * step_w + start_w)
        set_tap(int32(k + thread % neighbours * 4), channels, taps_wide, tap)

    def fetch_wide(x, of, k, end, thread, held):
        (channels, taps_wide, down, across), bases, rows, columns, tap, _ = of
        height, width, pixel = int32(x.shape[1]), int32(x.shape[2]), int32(x.shape[3])
        inside = k + thread % neighbours * 4 < end
        for group in range(groups):
            row, column = int32(rows[group] + tap[0] * down), int32(columns[group] + tap[1] * across)
            for q in range(4):
                held[4 * group + q] = 0
            if inside and 0 <= row and row < height and 0 <= column and column < width:
                values = load4(x, bases[group] + int32(int32(row * width + column) * pixel + tap[2]))
                for q in range(4):
                    held[4 * group + q] = values[q]
        if moves:
            step_tap(int32(depth), channels, taps_wide, tap)

    def fetch(x, of, k, end, thread, held):
        (channels, taps_wide, down, across), bases, rows, columns, tap, spare = of
        height, width, pixel = int32(x.shape[1]), int32(x.shape[2]), int32(x.shape[3])
        inner = int32(k + thread % neighbours * 4)
        for group in range(groups):
            spare[0], spare[1], spare[2] = tap[0], tap[1], tap[2]
            for q in range(4):
                row, column = int32(rows[group] + spare[0] * down), int32(columns[group] + spare[1] * across)
                held[4 * group + q] = 0
                if inner + q < end and 0 <= row and row < height and 0 <= column and column < width:
                    held[4 * group + q] = load1(x, bases[group] + (row * width + column) * pixel + spare[2])
                step_tap(int32(1), channels, taps_wide, spare)
        if moves:
            step_tap(int32(depth), channels, taps_wide, tap)

    return device_in(begin), device_in(fetch_wide if wide else fetch)


@functools.cache
def turned(extent, depth, threads, wide):
    """fetch of B (taps, channels): w as (r s channels, o), a slice's k along o; steps the tap on."""
    groups, neighbours = extent * depth // 4 // threads, depth // 4
    step_tap = tap_mover()[1]

    def fetch_wide(w, of, k, end, thread, held):
        (first, outputs, offset, kernel_wide, r, step_r, s, step_s, channels, taps_wide), tap, _ = of
        line = int32(int32(r + tap[0] * step_r) * kernel_wide + s + tap[1] * step_s)
        at, width = int32(offset + tap[2]), int32(w.shape[1])
        for group in range(groups):
            channel = int32(first + (thread + group * threads) // neighbours)
            for q in range(4):
                held[4 * group + q] = 0
            if channel < outputs and k + thread % neighbours * 4 < end:
                values = load4(w, (line * outputs + channel) * width + at)
                for q in range(4):
                    held[4 * group + q] = values[q]
        step_tap(int32(depth), channels, taps_wide, tap)

    def fetch(w, of, k, end, thread, held):
        (first, outputs, offset, kernel_wide, r, step_r, s, step_s, channels, taps_wide), tap, spare = of
        inner, width = int32(k + thread % neighbours * 4), int32(w.shape[1])
        for group in range(groups):
            channel = int32(first + (thread + group * threads) // neighbours)
            spare[0], spare[1], spare[2] = tap[0], tap[1], tap[2]
            for q in range(4):
                held[4 * group + q] = 0
                if channel < outputs and inner + q < end:
                    line = (r + spare[0] * step_r) * kernel_wide + s + spare[1] * step_s
                    held[4 * group + q] = load1(w, (line * outputs + channel) * width + offset + spare[2])
                step_tap(int32(1), channels, taps_wide, spare)
        step_tap(int32(depth), channels, taps_wide, tap)

    return device_in(fetch_wide if wide else fetch)


@functools.cache
def pixels(extent, depth, threads, wide):
    """(begin, fetch) of A (taps, pixels): a slice's k over pixels, four neighbours along the taps."""
    groups, neighbours = extent * depth // 4 // threads, extent // 4
    (set_tap, step_tap), step_pixel = tap_mover(), pixel_mover(depth)

    def begin(p, q, k, first_row, channels, taps_wide, thread, places, tap):
        for group in range(groups):
            pixel = int32(k + (thread + group * threads) // neighbours)
            places[3 * group], places[3 * group + 1] = int32(pixel // (p * q)), int32(pixel // q % p)
            places[3 * group + 2] = int32(pixel % q)
        set_tap(int32(first_row + thread % neighbours * 4), channels, taps_wide, tap)

    def fetch_wide(x, of, k, end, thread, held):
        (room, _, _, p, q, geometry, offset), places, tap, _ = of
        step_h, step_w, top, left, down, across = geometry
        height, width, pixel = int32(x.shape[1]), int32(x.shape[2]), int32(x.shape[3])
        for group in range(groups):
            row = int32(places[3 * group + 1] * step_h - top + tap[0] * down)
            column = int32(places[3 * group + 2] * step_w - left + tap[1] * across)
            inside = k + (thread + group * threads) // neighbours < end and thread % neighbours * 4 < room
            for e in range(4):
                held[4 * group + e] = 0
            if inside and 0 <= row and row < height and 0 <= column and column < width:
                line = int32(places[3 * group] * height + row)
                values = load4(x, (line * width + column) * pixel + offset + tap[2])
                for e in range(4):
                    held[4 * group + e] = values[e]
            step_pixel(group, p, q, places)

    def fetch(x, of, k, end, thread, held):
        (room, channels, taps_wide, p, q, geometry, offset), places, tap, spare = of
        step_h, step_w, top, left, down, across = geometry
        height, width, pixel = int32(x.shape[1]), int32(x.shape[2]), int32(x.shape[3])
        inner = int32(thread % neighbours * 4)
        for group in range(groups):
            inside = k + (thread + group * threads) // neighbours < end
            above, before = int32(places[3 * group + 1] * step_h - top), int32(places[3 * group + 2] * step_w - left)
            line = int32(places[3 * group] * height)
            spare[0], spare[1], spare[2] = tap[0], tap[1], tap[2]
            for e in range(4):
                row, column = int32(above + spare[0] * down), int32(before + spare[1] * across)
                held[4 * group + e] = 0
                if inside and inner + e < room and 0 <= row and row < height and 0 <= column and column < width:
                    at = ((line + row) * width + column) * pixel + offset + spare[2]
                    held[4 * group + e] = load1(x, at)
                step_tap(int32(1), channels, taps_wide, spare)
            step_pixel(group, p, q, places)

    return device_in(begin), device_in(fetch_wide if wide else fetch)


@functools.cache
def pixel_mover(depth):
    """Steps the pixel of a thread's group on by a slice."""
    def step_pixel(group, p, q, places):
        j = int32(places[3 * group + 2] + depth)
        while j >= q:
            j = int32(j - q)
            i = int32(places[3 * group + 1] + 1)
            if i == p:
                i = int32(0)
                places[3 * group] += int32(1)
            places[3 * group + 1] = i
        places[3 * group + 2] = j

    return device_in(step_pixel)


def first_tap(place, dilation, stride, step):
    """The first of `step` taps that reaches a pixel of an output of this stride from `place`; -1: none does."""
    for tap in range(step):
        if (place - tap * dilation) % stride == 0:
            return int32(tap)
    return int32(-1)


def phase_in_grid(block, stride_h, stride_w, h, w):
    """(group, first row and column of the phase, its rows and columns) of a place along z in the grid."""
    group = int32(block // (stride_h * stride_w))
    phase = int32(block - group * stride_h * stride_w)
    i, j = int32(phase // stride_w), int32(phase % stride_w)
    return group, i, j, int32((h - i + stride_h - 1) // stride_h), int32((w - j + stride_w - 1) // stride_w)


def place_of_phase(row, of):
    """Where a pixel of one phase (every stride_h-th row, every stride_w-th column) lies in the whole image."""
    p, q, stride_h, stride_w, i, j, height, width = of
    image, rest = row // (p * q), row % (p * q)
    return (image * height + rest // q * stride_h + i) * width + rest % q * stride_w + j


def whole(*numbers):
    """Numbers as kernels take them, in 32 bits."""
    demand(all(abs(v) < 2 ** 31 for v in numbers), "fewer than 2**31 pixels, terms and values of an image",
           max(numbers), "split the batch")
    return tuple(map(np.int32, numbers))
