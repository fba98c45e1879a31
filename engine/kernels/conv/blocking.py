"""How a convolution is blocked and shared out, from its shape and this computer's caches: what `cpu.py`'s kernels take
after `work`. Measured with 48 KB of L1 and 2 MB of L2 a core.

A convolution is a product of m rows (pixels), k inner values (taps and channels) and n columns (channels); a gradient
by weights has m rows (taps and channels) and k inner values (pixels).

    kc      length of a k block
    mc      rows that are multiplied with a strip of weights while it stays in L2
    ns      strips of weights in a group
    pack    1: the first panel copies the weights, 2: they are kept as copied
    gather  1: patches are copied, 0: the image's rows are those of the product; 2 more where panels of these rows are
            copied turned, for many strips of weights
    m_tasks how many tasks share the rows; the others share the columns
"""
import math
from typing import NamedTuple

import numpy as np

from engine.kernels.conv.lines import sum_rows
from engine.kernels.conv.phases import reach_of
from engine.kernels.conv.winograd import OUT, PLACES, SIDE, TAPS
from engine.kernels.matmul.blocking import SERIAL_BELOW, ceil, least, near_equal, up
from engine.kernels.matmul.tiles import TALL, WIDE
from engine.kernels.op import Spec
from engine.kernels.shares import most
from engine.kernels.simd import ROWS, cache_bytes, lanes

PACKED_FROM = 160                            # rows of a task from which a copy of large weights pays
TURNED_ROWS, TURNED_BESIDE = 16 * ROWS, 8    # rows and strips of weights from which turned copies of panels pay
SUMMED_ROWS, SUMMED_BESIDE = 8 * ROWS, 4     # the same of a gradient by the weights, that copies them on its way
LONGEST = 4096                               # bytes of a k block
ALIKE = 1.05                                 # so much longer may tasks take that share the rows: they read images once
SLOW = 4                                     # multiply-adds of a product in the time of one of a depthwise convolution
WEIGHT_TILE, IMAGE_TILE = 300, 220           # multiply-adds in the time of a transform of one tile, Winograd's
FEWEST_TILES, MOST_WASTE = 48, 1.8           # of his for gradients: tiles, and values computed for each that is there
NEAR_PLACES = 5 / 8                          # of L2: weights at the 36 places that stay there
FRESH_ROWS, FRESH_STRIPS, FRESH_TILES = 64, 2, 96            # of a block of weights at the places, and of tiles beside
FEWEST_SUMMED = 96                           # tiles of a block of a gradient, also where its sums leave the L2 cache
WIDEST = 8                                   # strips of a gradient's columns that are summed together
NEAR = 256                                   # bytes from pixel to pixel up to which the image is read in place
NEAR_LINE = 512                              # bytes from pixel to pixel up to which lines are read in place; with a
#                                              stride, forward, twice as many
CHUNKS = 16                                  # of a gradient's lines, each with a sum of its own
SLICE = 16                                   # panels of a gradient's rows that are gathered together


class Blocking(NamedTuple):
    """See the module's text."""
    kc: int
    mc: int
    ns: int
    pack: int
    gather: int
    m_tasks: int


def plan_product(m, n, k, gather, scatter, packed, dtype, threads, groups=1, kept=False):
    """(tasks, Specs of the work arrays, numbers) of a convolution as a product; `scatter`: its rows are not those of
    the output, which is written from a copy; `packed`: the weights are in strips already; `kept`: they stay, in the
    first work array, packed for all calls."""
    dtype = np.dtype(dtype)
    size, width, l2 = dtype.itemsize, 2 * lanes(dtype), cache_bytes(2)
    tasks = tasks_for(groups * m * n * k, threads)
    strips = max(1, ceil(n, width))
    few = m < n                              # tasks that share the rows would copy the weights each
    if kept:                                 # else what counts are the panels and strips of the busiest one
        few = strips * up(ceil(m, tasks), 4) > ALIKE * ceil(strips, tasks) * up(m, 4)
    n_tasks = tasks if few and strips >= tasks else 1
    m_tasks = least(tasks, ceil(m, 4)) if n_tasks == 1 else 1
    rows, columns = most(m, m_tasks), most(strips, n_tasks) * width
    pack = 0
    if kept:
        pack = 2
    elif not packed and ceil(m, m_tasks) >= PACKED_FROM and k * n * size > l2 // 4:
        pack = 1
    kc = near_equal(k, LONGEST // size if pack or packed else max(128, min(LONGEST // size, l2 // 4 // (n * size))))
    if kept:
        kc = near_equal(k, LONGEST // 2 // size)
    fit = max(l2 * 3 // 8 // (kc * size) if kc * size >= 1024 else 0, l2 // 4 // ((kc + min(n, 512)) * size))
    mc = up(near_equal(rows, max(4 * ROWS, fit // ROWS * ROWS)), ROWS) if gather else 42 * ROWS
    ns = min(most(strips, n_tasks), max(1, l2 * 3 // 8 // (kc * width * size)))
    if kept:                                 # while these are read, the next ones are on their way
        ns = min(ns, max(1, l2 // 16 // (kc * width * size)))
    values = WIDE * lanes(dtype)
    if pack == 1:
        values += most(strips, n_tasks) * ceil(k, kc) * kc * width + width * lanes(dtype)
    if gather:
        values += mc * distance(kc, dtype) + WIDE * lanes(dtype)
    turn = rows >= TURNED_ROWS and columns >= TURNED_BESIDE * width
    if turn:
        values += panels_values(mc, kc, dtype)
    if scatter:
        values += mc * columns + width
    tasks = m_tasks * n_tasks
    u = kept_values(n, k, kc, groups, dtype) if kept else 0
    return (tasks, (Spec((u,), dtype), Spec((tasks * values,), dtype)),
            Blocking(kc, mc, ns, pack, int(gather) + 2 * turn, m_tasks))


def kept_values(n, k, kc, groups, dtype):
    """Values of packed weights that are kept: whole k blocks of full strips."""
    width = 2 * lanes(dtype)
    return groups * up(k, kc) * (n // width * width)


def plan_weights(m, n, k, gather, dtype, threads, groups=1):
    """(tasks, Specs of the work arrays, numbers) of a gradient by weights: `mc` rows are gathered together."""
    dtype = np.dtype(dtype)
    size, width, l2 = dtype.itemsize, 2 * lanes(dtype), cache_bytes(2)
    tasks = tasks_for(groups * m * n * k, threads)
    strips = max(1, ceil(n, width))
    n_tasks = tasks if m < 2 * ROWS * tasks and strips >= tasks else 1
    m_tasks = least(tasks, ceil(m, 4)) if n_tasks == 1 else 1
    mc = up(near_equal(most(m, m_tasks), SLICE * ROWS), ROWS)
    ns = min(most(strips, n_tasks), WIDEST)
    turn = mc >= SUMMED_ROWS and ns >= SUMMED_BESIDE
    kc = near_equal(k, max(64, l2 * 5 // 8 // ((ns * width + (1 + turn) * mc) * size)))
    # the first panel that copies has to be a tall one
    pack = ceil(m, m_tasks) >= 5 * ROWS and mc >= 4 * ROWS and n >= 4 * width and kc >= ROWS
    values = WIDE * lanes(dtype) + (ns * kc * width + width * lanes(dtype)) * pack
    if gather:
        values += kc * distance(mc, dtype) + WIDE * lanes(dtype)
    if turn:
        values += panels_values(mc, kc, dtype)
    tasks = m_tasks * n_tasks
    return tasks, (Spec((tasks * values,), dtype),), Blocking(kc, mc, ns, int(pack), int(gather) + 2 * turn, m_tasks)


def panels_values(rows, kc, dtype):
    """Values of the turned copies of the panels of so many rows."""
    return rows // ROWS * (ROWS * up(kc, lanes(dtype)) + lanes(dtype))


def plan_winograd(tiles, k, n, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) of a convolution by Winograd's method: `mc` tiles are a block, and of
    these `ns` strips of channels. Weights whose 36 places stay in L2 are brought there once (pack 2), others a block of
    `kc` rows at a time: that takes less time than to read four times as many values from afar."""
    dtype = np.dtype(dtype)
    lane, size, l2 = lanes(dtype), dtype.itemsize, cache_bytes(2)
    width = 2 * lane
    strips, near = ceil(n, width), PLACES * k * n * size <= l2 * NEAR_PLACES
    few = tiles < ROWS * threads or not near and tiles < n
    n_tasks = least(threads, strips) if few else 1
    m_tasks = 1 if few else least(threads, ceil(tiles, ROWS))
    if near:
        kc, ns, beside, fit = k, most(strips, n_tasks), 0, l2 * 5 // 8 // (PLACES * (k + n + width) * size)
    else:
        kc, ns = up(near_equal(k, FRESH_ROWS), lane), least(FRESH_STRIPS, most(strips, n_tasks))
        beside = PLACES * (ns * kc * width + lane) + TAPS * TAPS * lane * ns * width
        fit = FRESH_TILES
    block = up(near_equal(most(tiles, m_tasks), max(8 * ROWS, fit // ROWS * ROWS)), ROWS)
    values = (2 * WIDE * lane + PLACES * (lane + k + lane + block * (k + lane + ns * width + lane) + 2 * lane)
              + max(beside, TAPS * TAPS * lane * ns * width))
    u = PLACES * k * strips * width if near else 0
    tasks = m_tasks * n_tasks
    return (tasks, (Spec((u,), dtype), Spec((tasks * values,), dtype)),
            Blocking(kc, block, ns, 2 if near else 0, 0, m_tasks))


def plan_winograd_weights(tiles, k, n, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) of a gradient by weights by Winograd's method: `mc` tiles are a
    block; tasks share the six lines of places, more of them the channels."""
    dtype = np.dtype(dtype)
    lane = lanes(dtype)
    m_tasks = least(threads, SIDE)
    n_tasks = least(threads // m_tasks, k // lane)
    fit = cache_bytes(2) * 5 // 8 // (PLACES * (k + n + 2 * lane) * dtype.itemsize)
    block = near_equal(tiles, max(fit, FEWEST_SUMMED))
    values = WIDE * lane + PLACES * (lane + max(k, n) + lane + block * (k + n + 2 * lane) + 2 * lane)
    tasks = m_tasks * n_tasks
    return (tasks, (Spec((PLACES * k * n,), dtype), Spec((tasks * values,), dtype)),
            Blocking(1, block, 1, 0, 0, m_tasks))


def plan_narrow(images, k, output, padded, dtype, threads):
    """(tasks, Specs of the last two work arrays, numbers) of an input gradient of few channels: `mc` pixels at once."""
    dtype = np.dtype(dtype)
    tasks = least(tasks_for(images * output * k * lanes(dtype), threads), images)
    block = near_equal(output, max(4 * ROWS, cache_bytes(2) // 8 // (k * dtype.itemsize)))
    values = 2 * WIDE * lanes(dtype) + padded + 2 * lanes(dtype) + block * k + 2 * lanes(dtype)
    return tasks, (Spec((0,), dtype), Spec((tasks * values,), dtype)), Blocking(1, block, 1, 0, 0, tasks)


def plan_lines(w, numbers, x, y, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) of a convolution that reads lines: `mc` of the output at once."""
    dtype, lines = np.dtype(dtype), y[0] * y[1]
    tasks = least(tasks_for(math.prod(w) * lines * y[2], threads), lines)
    block, values = lines_at_once(w, numbers, x, y, 0, dtype)
    values += WIDE * lanes(dtype) + TALL * numbers[1] * x[3]                # panels that run over a line's end
    return tasks, (Spec((0,), dtype), Spec((tasks * values,), dtype)), Blocking(1, block, 1, 0, 0, tasks)


def plan_lines_weights(w, numbers, x, y, dtype, threads):
    """(tasks, Specs of the work arrays, numbers) of a gradient by weights that reads lines: `kc` chunks of lines, which
    depend on shapes only, of each `mc` lines at once, and `ns` pixels together."""
    dtype, (number, p, q, o), (r, s, c, _) = np.dtype(dtype), y, w
    wanted = tasks_for(math.prod(w) * number * p * q, threads)
    chunks = least(CHUNKS if math.prod(w) * number * p * q >= SERIAL_BELOW else 1, number * p)
    block, values = lines_at_once(w, numbers, x, y, q * o, dtype)
    rows = {g: sum_rows(r, (s + (g - 1) * numbers[1]) * c, g * o, lanes(dtype))
            for g in range(1, max(1, lanes(dtype) // o) + 1) if q % g == 0}
    together = min(rows, key=lambda g: rows[g] / g)
    tasks, rows = least(wanted, chunks), rows[together]
    values += WIDE * lanes(dtype) + rows
    return (tasks, (Spec((chunks * r * rows * together * o + lanes(dtype),), dtype), Spec((tasks * values,), dtype)),
            Blocking(chunks, block, together, 0, 0, tasks))


def plan_lines_back(w, numbers, dy, dx, dtype, threads):
    """(tasks, Specs of the last two work arrays, numbers) of an input gradient that reads lines: `mc` of each phase at
    once."""
    dtype, lane = np.dtype(dtype), lanes(np.dtype(dtype))
    stride_h, stride_w, top, left, dilation_h, dilation_w, _ = numbers
    before, behind = reach_of(dx[1], w[0], stride_h, top, dilation_h)
    line = (sum(reach_of(dx[2], w[1], stride_w, left, dilation_w)) + ceil(dx[2], stride_w) - 1) * dy[3]
    most, beside = ceil(dx[1], stride_h), stride_h * dx[2] * dx[3]
    fit = (cache_bytes(2) * 3 // 8 // dtype.itemsize - (before + behind - 1) * line) // (line + beside)
    block = near_equal(most, max(1, fit))
    tasks = least(tasks_for(math.prod(w) * math.prod(dy[:3]), threads), dx[0] * most)
    values = 2 * WIDE * lane + (before + block - 1 + behind) * line + 2 * lane
    return tasks, (Spec((0,), dtype), Spec((tasks * values,), dtype)), Blocking(1, block, 1, 0, 0, tasks)


def lines_at_once(w, numbers, x, y, beside, dtype):
    """(lines of the output whose lines of the image, and `beside` values each, stay in L2; values of the image's)"""
    stride_h, stride_w, _, _, dilation_h, _, _ = numbers
    line = ((y[2] - 1) * stride_w + w[1]) * x[3]
    fit = (cache_bytes(2) * 3 // 8 // dtype.itemsize - (w[0] - 1) * dilation_h * line) // (stride_h * line + beside)
    block = near_equal(y[1], max(1, fit))
    return block, ((block - 1) * stride_h + (w[0] - 1) * dilation_h + 1) * line + 2 * lanes(dtype)


def pays_lines(kernel, numbers, c, o, dtype, direction="forward"):
    """Whether a convolution, or its gradient by the "weights", reads lines where they lie: few channels, so that a
    panel's pixels are near each other, and weights that stay in L2. Or its gradient by the "input", of which each phase
    of a stride is a convolution of stride 1 with its own taps."""
    stride_h, stride_w, _, _, dilation_h, dilation_w, groups = numbers
    size, taps, step = np.dtype(dtype).itemsize, math.prod(kernel), stride_w
    strided = direction == "forward" and step > 1
    near, share = (2 * NEAR_LINE, 3 / 8) if strided else (NEAR_LINE, 1 / 4)
    if direction == "input":
        taps, step = ceil(kernel[0], stride_h // math.gcd(stride_h, dilation_h)) * ceil(kernel[1], stride_w), 1
    return (groups == dilation_w == 1 and kernel != (1, 1) and step * c * size <= near
            and taps * c * o * size <= cache_bytes(2) * share)


def pays_narrow(kernel, numbers, c, o, dtype):
    """Whether an input gradient has so few channels that it is better added up from runs (`narrow.py`)."""
    _, _, _, _, _, dilation_w, groups = numbers
    return groups == dilation_w == 1 and 2 * c <= lanes(np.dtype(dtype)) and o >= 4 and kernel[1] * c >= 4


def fits_winograd(kernel, numbers, k, n, dtype):
    """Whether Winograd's method computes a convolution (its geometry in `numbers`): 3x3, of stride 1, whole vectors of
    channels."""
    stride_h, stride_w, _, _, dilation_h, dilation_w, groups = numbers
    lane = lanes(np.dtype(dtype))
    return (kernel == (TAPS, TAPS) and stride_h == stride_w == dilation_h == dilation_w == groups == 1
            and k % lane == n % lane == 0)


def pays_winograd(kernel, numbers, k, n, images, output, dtype):
    """Whether a convolution, or a gradient by the input, goes by Winograd's method: where it saves more multiply-adds
    for each weight than its transforms cost."""
    if not fits_winograd(kernel, numbers, k, n, dtype):
        return False
    tiles, pixels = images * ceil(output[0], OUT) * ceil(output[1], OUT), images * output[0] * output[1]
    return WEIGHT_TILE + tiles * (PLACES + IMAGE_TILE / n + IMAGE_TILE / k) < TAPS * TAPS * pixels


def pays_winograd_weights(kernel, numbers, k, n, images, output, dtype):
    """The same of a gradient by the weights, which has sums to read and write at every place."""
    tiles = images * ceil(output[0], OUT) * ceil(output[1], OUT)
    return (fits_winograd(kernel, numbers, k, n, dtype) and tiles >= FEWEST_TILES
            and tiles * OUT * OUT <= MOST_WASTE * images * output[0] * output[1])


def turned_values(w, dtype):
    """Values of turned weights: of each group, whole strips."""
    return w[0] * w[1] * w[3] * up(w[2], 2 * lanes(np.dtype(dtype)))


def distance(count, dtype):
    """Values from one gathered row of `count` values to the next: whole vectors, and one more, so that the rows of a
    panel fall on different cache sets."""
    return up(count, lanes(np.dtype(dtype))) + lanes(np.dtype(dtype))


def tasks_for(operations, threads):
    return 1 if operations < SERIAL_BELOW else threads
