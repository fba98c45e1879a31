"""The gradient by the weights on the CPU: dw (r s c, o) = patches (pixels, r s c).T dy (pixels, o), a block of pixels
at a time; the text of `cpu.py` says how patches, groups and sums are handled."""
from engine.kernels.conv.cpu import DEPTHWISE, LINES, WINOGRAD, block_of_tiles, distance
from engine.kernels.conv.depthwise import depthwise_weight_gradient
from engine.kernels.conv.lines import add_chunks, sums_of_chunks
from engine.kernels.conv.patches import patches
from engine.kernels.conv.winograd import sum_tiles, weights_of_sums
from engine.kernels.matmul.cpu import UNIT, task_rectangle, zeros
from engine.kernels.matmul.packing import least, panel_values
from engine.kernels.matmul.tiles import WIDE
from engine.kernels.simd import lanes_of, part, pointer
from engine.kernels.split import number_of, place_of, span


@part
def weights_of_group(k0, rows, columns, pixels, image, window, grid, right, out, work, zero, kc, mc, ns, pack, gather):
    """Rows k0 .. k0 + rows - 1 of dw, `columns` of them: the sum over all pixels, a block of them at a time."""
    dy, ldb = right
    dw, ldc = out
    lanes = lanes_of(dy)
    ld, b_strip = distance(mc, lanes), kc * 2 * lanes
    held, size, i = work + (ns * b_strip + 2 * lanes * lanes) * pack, 0, 0
    turned = held
    if gather & 1:
        turned = held + (kc * ld + WIDE * lanes)
    if gather & 2:
        size = panel_values(kc, lanes)
    while i == 0 or i < pixels:              # without pixels, a sum of nothing
        steps = least(kc, pixels - i)
        for k in range(k0, k0 + rows, mc):
            count = least(mc, k0 + rows - k)
            a, a_col = image[0] + (i * image[3] + k), image[3]
            if gather & 1:
                patches(image, window, grid, i, steps, k, count, held, ld)
                a, a_col = held, ld
            before, before_row, before_col = dw + k * ldc, ldc, 1
            if i == 0:
                before, before_row, before_col = zero
            block_of_tiles(count, columns, steps, (a, 1, a_col, 1, 0), (dy + i * ldb, ldb, 2 * lanes),
                           (dw + k * ldc, ldc), (before, before_row, before_col), (0, dw, 0), ns, work, b_strip,
                           pack if k == k0 else 2 * pack, turned, size)
        i += kc


@part
def sums_by_tiles(x, dy, pad, sums, own, mc, m_tasks, task, tasks):
    """A task's places and channels of the sums over tiles."""
    number, p, q, n = dy.shape
    h, width, c = x.shape[1], x.shape[2], x.shape[3]
    lanes, zero = lanes_of(own), zeros(own, lanes_of(own))
    row, column = place_of(task, m_tasks, tasks // m_tasks)
    i0, lines = span(6, row, m_tasks)
    k, count = span(c // lanes, column, tasks // m_tasks)
    sum_tiles((pointer(x) + k * lanes, h, width, c), count * lanes, (pointer(dy), p, q, n),
              number * ((p + 3) // 4) * ((q + 3) // 4), (i0, i0 + lines), pad, pointer(sums), k * lanes, c, zero,
              own + WIDE * lanes, mc)


@part
def weight_gradient_kernel(x, dy, sh, sw, top, left, dh, dw, groups, dweights, sums, work, kc, mc, ns, pack, gather,
                           m_tasks, way, task, tasks):
    """dw of y = conv(x, w)"""
    geometry = (sh, sw, top, left, dh, dw, groups)
    own, lanes = pointer(work) + work.shape[0] // tasks * number_of(task), lanes_of(pointer(dy))
    n = dy.shape[3] // groups
    if way == DEPTHWISE:
        depthwise_weight_gradient(x, dy, geometry, dweights, task, tasks)
        return
    if way == WINOGRAD:
        sums_by_tiles(x, dy, (top, left), sums, own, mc, m_tasks, task, tasks)
        return
    if way == LINES:
        sums_of_chunks(x, dy, dweights.shape, geometry, pointer(sums), zeros(own, lanes), own + WIDE * lanes, kc, mc,
                       ns, task, tasks)
        return
    _, h, width, c = x.shape
    number, p, q, o = dy.shape
    r, s, channels, _ = dweights.shape
    zero = zeros(own, lanes)
    i, rows, j, columns = task_rectangle(r * s * channels, n, UNIT, task, m_tasks, tasks // m_tasks, lanes)
    together = s if dw == 1 and groups == 1 else 1
    window = (s, channels, together, sh, sw, top, left, dh, dw)
    for group in range(groups):
        for first in range(0, columns, ns * 2 * lanes):
            at = group * n + j + first
            weights_of_group(i, rows, least(ns * 2 * lanes, columns - first), number * p * q,
                             (pointer(x) + group * channels, h, width, c), window, (p, q), (pointer(dy) + at, o),
                             (pointer(dweights) + at, o), own + WIDE * lanes, zero, kc, mc, ns, pack, gather)


@part
def weight_gradient_finish(x, dy, sh, sw, top, left, dh, dw, groups, dweights, sums, work, kc, mc, ns, pack, gather,
                           m_tasks, way, task, tasks):
    """Second phase: dw from the sums over tiles or over chunks."""
    if way == WINOGRAD:
        weights_of_sums(pointer(sums), x.shape[3], dy.shape[3], pointer(dweights), task, tasks)
    elif way == LINES:
        add_chunks(pointer(sums), dweights.shape, sw * x.shape[3], kc, ns, pointer(dweights), task, tasks)


WEIGHT_GRADIENT_PHASES = weight_gradient_kernel, weight_gradient_finish
