"""Convolutions on the CPU, one task of a grid each: forward and the gradient by the input (that by the weights:
`cpu_weights.py`).

All three are products, computed in the register tiles of `engine/kernels/matmul/tiles.py`:

    y (pixels, o)       = patches (pixels, r s c) w (r s c, o)
    dx (pixels, c)      = patches of dy (pixels, r s o) turned w (r s o, c)
    dw (r s c, o)       = patches (pixels, r s c).T dy (pixels, o)

Patches are copied a block at a time into memory that stays in the L2 cache (`patches.py`), never as a whole; a 1x1
convolution of stride 1 reads the image itself. With a stride, dx is one such product for each of its phases
(`phases.py`).

Weights that stay (`kept`) are copied once into strips, in the order in which a product reads them: while some strips
are multiplied, the next ones come from afar. The forward ways are one unit, and so are the backward ones: activations
and what else is done to a panel that has its sums are hooks (`ended` in `tiles.py`).

Groups are products beside each other. Sums run over k in order, in one chain of multiply-adds for each value, so the
bits do not depend on blocking, tasks or threads.
"""
from engine.kernels.conv.depthwise import depthwise, depthwise_input_gradient
from engine.kernels.conv.lines import back_by_lines, by_lines
from engine.kernels.conv.narrow import add_up, transposed_weights
from engine.kernels.conv.patches import patches
from engine.kernels.conv.phases import phase_of, taps_before, turn_weights
from engine.kernels.conv.winograd import convolve_tiles, weight_tiles
from engine.kernels.matmul.cpu import UNIT, task_rectangle, zeros
from engine.kernels.matmul.packing import least, pack_panels, padded, panel_values
from engine.kernels.matmul.tiles import (
    AHEAD,
    PACKED_AHEAD,
    SPREAD,
    WIDE,
    block_strips,
    finish,
    full_strips,
    moved,
    narrow_strip,
)
from engine.kernels.simd import ROWS, hook, lanes_of, part, pointer, tile, tile_load, tile_store, unit
from engine.kernels.split import number_of, place_of, span

PRODUCT, DEPTHWISE, WINOGRAD, NARROW, LINES = 0, 1, 2, 3, 4         # the ways of a convolution
TURNING = PRODUCT, NARROW, LINES             # that want a gradient's weights turned before


@part
def distance(count, lanes):
    """As in `blocking.py`."""
    return padded(count, lanes) + lanes


@part
def block_of_tiles(rows, n, steps, left, right, out, start, end, strips_at_once, packed, packed_strip, pack, turned,
                   size):
    """A block of rows times a k block of all n columns. pack: 0 the weights are read where they are, 1 the first panel
    copies them to `packed`, 2 they are read from there. size: if not 0, panels of the rows are copied to `turned`, as
    many values each. `end`: see `ended`."""
    b, ldb, b_strip = right
    c, ldc = out
    before, before_row, before_col = start
    width = 2 * lanes_of(c)
    full, copies = n // width, 0
    if size > 0 and rows >= 2 * ROWS:
        copies = 1                           # of a transposed operand, by the first strip on its way
    if copies and left[2] == 1:
        copies, first = 2, ROWS * (pack == 1)
        pack_panels((rows - first) // ROWS, rows - first, steps, left[0] + first * left[1], left[1], turned, size)
    for s in range(0, full, strips_at_once):
        j, count = s * width, least(strips_at_once, full - s)
        of, ahead, copy = (b + s * b_strip, ldb, b_strip), (AHEAD * ldb, 0), 0
        if ldb == width:
            ahead = WIDE * AHEAD * width, 0
        if pack == 1:
            copy = packed_strip
        elif pack == 2:
            of, ahead = (packed + s * packed_strip, width, packed_strip), (count * packed_strip, least(rows, SPREAD))
        since = before + j * before_col, before_row, before_col
        if copies:
            block_strips(rows, count, steps, left, of, (c + j, ldc), since, PACKED_AHEAD * width, moved(end, 0, j),
                         (c, 0), packed + s * packed_strip, copy, turned, size, copies if s == 0 else 2)
        else:
            full_strips(rows, count, steps, left, of, (c + j, ldc), since, ahead, moved(end, 0, j),
                        packed + s * packed_strip, copy)
    j = full * width
    if j < n:
        narrow_strip(rows, n - j, steps, left, (b + full * b_strip, ldb, 0), (c + j, ldc),
                     (before + j * before_col, before_row, before_col), moved(end, 0, j))


@part
def scatter(first, rows, n, grid, src, place):
    """Rows of src, n values each, to the pixels of an output whose grid is spread over a larger image."""
    y, h, w, c, row, column, step_h, step_w = place
    p, q = grid
    one, lanes, done = tile(1, 1, y), lanes_of(y), 0
    while done < rows:
        line, j = (first + done) // q, (first + done) % q
        count = least(q - j, rows - done)
        to = y + ((line // p * h + row + line % p * step_h) * w + column + j * step_w) * c
        for i in range(count):
            for k in range(0, n, lanes):
                found = tile_load(one, src + ((done + i) * n + k), 0, n - k)
                tile_store(found, to + (i * step_w * c + k), 0, n - k)
        done += count


@part
def convolve(first, m, n, k, image, window, grid, right, place, start, end, scattered, work, kc, mc, ns, pack, gather):
    """Output pixels first .. first + m - 1, n channels of them: start + patches @ weights, on one thread. `right`: the
    weights, the distances of their rows and of their strips, and where they are packed, if they are: there, how many
    strips a k block has; `place`: the output (see `scatter`); `end`: see `ended`."""
    b, ldb, b_step, packed, strips = right
    lanes, width = lanes_of(b), 2 * lanes_of(b)
    k_blocks, b_strip = ((k if k > 0 else 1) + kc - 1) // kc, kc * width
    packed_a = work
    if pack == 1:
        packed, strips = work, (n + width - 1) // width
        packed_a = work + (k_blocks * strips * b_strip + lanes * width)
    ld = distance(kc, lanes)
    turned, size = packed_a, 0
    if gather & 1:
        turned = packed_a + (mc * ld + WIDE * lanes)
    held = turned
    if gather & 2:
        size = panel_values(kc, lanes)
        held = turned + mc // ROWS * size
    for i in range(first, first + m, mc):
        rows = least(mc, first + m - i)
        c, ldc = place[0] + i * place[3], place[3]
        if scattered:
            c, ldc = held, n
        for q in range(k_blocks):
            p = q * kc
            steps, closing = least(kc, k - p), moved(end, i, 0)
            a, a_row = image[0] + (i * image[3] + p), image[3]
            if gather & 1 and steps > 0:
                patches(image, window, grid, i, rows, p, steps, packed_a, ld)
                a, a_row = packed_a, ld
            before, before_row, before_col = c, ldc, 1
            if q == 0:
                before, before_row, before_col = start[0] + i * start[1], start[1], start[2]
            if q < k_blocks - 1:
                closing = 0, closing[1], 0
            block_of_tiles(rows, n, steps, (a, a_row, 1, 1, 0), (b + p * ldb, ldb, b_step), (c, ldc),
                           (before, before_row, before_col), closing, ns, packed + q * strips * b_strip, b_strip,
                           2 if pack == 1 and i > first else pack, turned, size)
        if scattered:
            scatter(i, rows, n, grid, held, place)


@part
def forward(x, w, geometry, y, u, start, end, own, kc, mc, ns, pack, gather, m_tasks, task, tasks):
    """A task's part of y = start + conv(x, w)."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, groups = geometry
    _, h, width, c = x.shape
    r, s, channels, o = w.shape
    number, p, q, _ = y.shape
    n, m, k, lanes = o // groups, number * p * q, r * s * channels, lanes_of(pointer(y))
    i, rows, j, columns = task_rectangle(m, n, UNIT, task, m_tasks, tasks // m_tasks, lanes)
    together = s if dilation_w == 1 and groups == 1 else 1
    window = (s, channels, together, stride_h, stride_w, top, left, dilation_h, dilation_w)
    strips, each = n // (2 * lanes), padded(k, kc) * 2 * lanes
    for group in range(groups):
        at = group * n + j
        convolve(i, rows, columns, k, (pointer(x) + group * channels, h, width, c), window, (p, q),
                 (pointer(w) + at, o, 2 * lanes, pointer(u) + (group * strips * each + j * kc), strips),
                 (pointer(y) + at, p, q, o, 0, 0, 1, 1), (start[0] + at * start[2], start[1], start[2]),
                 moved(end, 0, at), 0, own, kc, mc, ns, pack, gather)


@part
def by_tiles(x, weights, n, y, pad, u, start, end, own, kc, mc, ns, pack, m_tasks, task, tasks):
    """A task's tiles or channels of y = start + conv(x, weights); pack 2: their places are in `u`."""
    number, p, q, _ = y.shape
    lanes, k = lanes_of(own), x.shape[3]
    width = 2 * lanes
    zero, tiles = zeros(own, lanes), number * ((p + 3) // 4) * ((q + 3) // 4)
    row, column = place_of(task, m_tasks, tasks // m_tasks)
    _, _, j, columns = task_rectangle(1, n, 1, column, 1, tasks // m_tasks, lanes)
    first, count = span(tiles, row, m_tasks)
    made = pointer(u), 0, 0
    if pack == 2:
        made = pointer(u) + j * k, k * padded(n, width), k * width
    w, w_row, w_tap, back = weights
    convolve_tiles(first, count, columns, (pointer(x), x.shape[1], x.shape[2], k), (p, q), pad,
                   (w + (j * w_row if back else j), w_row, w_tap, back), made, (pointer(y) + j, p, q, n),
                   (start[0] + j * start[2], start[1], start[2]), moved(end, 0, j), zero, own + WIDE * lanes, mc, kc,
                   ns)


@part
def turned_taps(w):
    """The weights of a gradient by the input, for `by_tiles`."""
    _, _, c, o = w.shape
    return pointer(w) + 8 * c * o, o, -c * o, 1


@part
def packed_strips(w, groups, kc, u, task, tasks):
    """u[group, k block, strip, row, column] = weights (k, groups x columns), the full strips of each group; tasks share
    the rows."""
    r, s, channels, o = w.shape
    n, k, lanes = o // groups, r * s * channels, lanes_of(pointer(w))
    strips, two = n // (2 * lanes), tile(1, 2, pointer(w))
    first, count = span(groups * k, task, tasks)
    for row in range(first, first + count):
        group, p = row // k, row % k
        to = (group * padded(k, kc) + p // kc * kc) * strips * 2 * lanes + p % kc * 2 * lanes
        for strip in range(strips):
            tile_store(tile_load(two, pointer(w) + (p * o + group * n + strip * 2 * lanes), 0),
                       pointer(u) + (to + strip * kc * 2 * lanes), 0)


@part
def prepare(w, groups, u, kc, ns, pack, way, task, tasks):
    """The weights as the way wants them."""
    _, _, c, o = w.shape
    if way == WINOGRAD and pack == 2:
        weight_tiles((pointer(w), o, c * o, 0), c, o, pointer(u), ns, pointer(u), task, tasks)
    elif way == PRODUCT and pack == 2:
        packed_strips(w, groups, kc, u, task, tasks)


@unit
def forth(x, w, geometry, y, u, start, end, own, numbers, task, tasks):
    """A task's part of y = start + conv(x, w), in any way; `end`: see `ended`."""
    kc, mc, ns, pack, gather, m_tasks, way = numbers
    if way == DEPTHWISE:
        depthwise(x, w, geometry, y, start, end, task, tasks)
    elif way == WINOGRAD:
        _, _, c, o = w.shape
        by_tiles(x, (pointer(w), o, c * o, 0), o, y, (geometry[2], geometry[3]), u, start, end, own, kc, mc, ns, pack,
                 m_tasks, task, tasks)
    elif way == LINES:
        by_lines(x, w, geometry, y, start, end, own, mc, task, tasks)
    else:
        forward(x, w, geometry, y, u, start, end, own, kc, mc, ns, pack, gather, m_tasks, task, tasks)


@part
def conv2d_weights(x, w, bias, sh, sw, top, left, dh, dw, groups, f, y, u, work, kc, mc, ns, pack, gather, m_tasks, way,
                   task, tasks):
    """First phase: the weights as the way wants them."""
    prepare(w, groups, u, kc, ns, pack, way, task, tasks)


@part
def conv2d_kernel(x, w, bias, sh, sw, top, left, dh, dw, groups, f, y, u, work, kc, mc, ns, pack, gather, m_tasks, way,
                  task, tasks):
    """y = f(conv(x, w) + bias): sums start from the bias."""
    own, to, o = pointer(work) + work.shape[0] // tasks * number_of(task), pointer(y), y.shape[3]
    done = hook(finish, (task, o, to, o, to, o), f, None)
    forth(x, w, (sh, sw, top, left, dh, dw, groups), y, u, (pointer(bias), 0, 1), (done, to, o), own,
          (kc, mc, ns, pack, gather, m_tasks, way), task, tasks)


@part
def plain_weights(x, w, sh, sw, top, left, dh, dw, groups, y, u, work, kc, mc, ns, pack, gather, m_tasks, way, task,
                  tasks):
    """First phase: the weights as the way wants them."""
    prepare(w, groups, u, kc, ns, pack, way, task, tasks)


@part
def plain_kernel(x, w, sh, sw, top, left, dh, dw, groups, y, u, work, kc, mc, ns, pack, gather, m_tasks, way, task,
                 tasks):
    """y = conv(x, w)"""
    own, lanes = pointer(work) + work.shape[0] // tasks * number_of(task), lanes_of(pointer(y))
    forth(x, w, (sh, sw, top, left, dh, dw, groups), y, u, zeros(own, lanes), (0, pointer(y), 0), own + WIDE * lanes,
          (kc, mc, ns, pack, gather, m_tasks, way), task, tasks)


# ---------------------------------------------------------------------------------------------- gradient by the input


@part
def backward(dy, w, geometry, dx, turned, start, end, own, kc, mc, ns, pack, gather, m_tasks, task, tasks):
    """A task's part of dx = start + the input gradient, phase by phase."""
    stride_h, stride_w, top, left, dilation_h, dilation_w, groups = geometry
    _, p, q, o = dy.shape
    r, s, channels, _ = w.shape
    number, h, width, c = dx.shape
    n, lanes, scattered = o // groups, lanes_of(pointer(dx)), stride_h * stride_w > 1
    for phase in range(stride_h * stride_w):
        a, b = phase // stride_w, phase % stride_w
        row, high, _, _, taps_h, pad_h, step_h = phase_of(a, h, r, stride_h, top, dilation_h)
        column, wide, _, _, taps_w, pad_w, step_w = phase_of(b, width, s, stride_w, left, dilation_w)
        before = taps_before(a, r, stride_h, dilation_h) * s + taps_h * taps_before(b, s, stride_w, dilation_w)
        i, rows, j, columns = task_rectangle(number * high * wide, channels, UNIT, task, m_tasks, tasks // m_tasks,
                                             lanes)
        together = taps_w if step_w == 1 and groups == 1 and taps_w > 0 else 1
        window = (taps_w, n, together, 1, 1, pad_h, pad_w, step_h, step_w)
        for group in range(groups):
            at, k = group * channels + j, taps_h * taps_w * n
            weights = pointer(turned) + ((group * r * s + before) * n * padded(channels, 2 * lanes) + j * k)
            convolve(i, rows, columns, k, (pointer(dy) + group * n, p, q, o), window, (high, wide),
                     (weights, 2 * lanes, k * 2 * lanes, weights, 0),
                     (pointer(dx) + at, h, width, c, row, column, stride_h, stride_w),
                     (start[0] + at * start[2], start[1], start[2]), moved(end, 0, at), scattered, own, kc, mc, ns,
                     pack, gather)


@unit
def back(dy, w, geometry, dx, turned, u, start, end, own, numbers, task, tasks):
    """A task's part of dx = start + the input gradient, in any way; `end`: see `ended`."""
    kc, mc, ns, pack, gather, m_tasks, way = numbers
    if way == DEPTHWISE:
        depthwise_input_gradient(dy, w, geometry, dx, start, end, task, tasks)
    elif way == WINOGRAD:
        pad = w.shape[0] - 1 - geometry[2], w.shape[1] - 1 - geometry[3]
        by_tiles(dy, turned_taps(w), w.shape[2], dx, pad, u, start, end, own, kc, mc, ns, pack, m_tasks, task, tasks)
    elif way == LINES:
        back_by_lines(dy, w, geometry, dx, turned, start, end, own, mc, task, tasks)
    elif way == NARROW:
        first, images = span(dx.shape[0], task, tasks)
        zero = zeros(own, lanes_of(own))
        add_up(first, images, (pointer(dy), dy.shape[1], dy.shape[2], dy.shape[3]), w.shape[:3], geometry,
               pointer(turned), (pointer(dx), dx.shape[1], dx.shape[2], dx.shape[3]), start, end, zero,
               own + WIDE * lanes_of(own), mc)
    else:
        backward(dy, w, geometry, dx, turned, start, end, own, kc, mc, ns, pack, gather, m_tasks, task, tasks)


@part
def turn(w, h, width, geometry, turned, u, own, ns, pack, way, task, tasks):
    """The weights as the way wants them."""
    if way == NARROW:
        transposed_weights(pointer(w), w.shape[0] * w.shape[1] * w.shape[2], w.shape[3], pointer(turned), task, tasks)
    elif way == WINOGRAD and pack == 2:
        weight_tiles(turned_taps(w), w.shape[3], w.shape[2], pointer(u), ns, own, task, tasks)
    elif way == PRODUCT or way == LINES:
        turn_weights(w, h, width, geometry, turned, task, tasks)


@part
def input_gradient_turn(dy, w, sh, sw, top, left, dh, dw, groups, dx, turned, u, work, kc, mc, ns, pack, gather,
                        m_tasks, way, task, tasks):
    """First phase: the weights, turned."""
    turn(w, dx.shape[1], dx.shape[2], (sh, sw, top, left, dh, dw, groups), turned, u,
         pointer(work) + work.shape[0] // tasks * number_of(task), ns, pack, way, task, tasks)


@part
def input_gradient_kernel(dy, w, sh, sw, top, left, dh, dw, groups, dx, turned, u, work, kc, mc, ns, pack, gather,
                          m_tasks, way, task, tasks):
    """dx of y = conv(x, w)"""
    own, lanes = pointer(work) + work.shape[0] // tasks * number_of(task), lanes_of(pointer(dx))
    back(dy, w, (sh, sw, top, left, dh, dw, groups), dx, turned, u, zeros(own, lanes), (0, pointer(dx), 0),
         own + WIDE * lanes, (kc, mc, ns, pack, gather, m_tasks, way), task, tasks)


@part
def transpose_turn(x, w, bias, sh, sw, top, left, dh, dw, groups, f, y, turned, u, work, kc, mc, ns, pack, gather,
                   m_tasks, way, task, tasks):
    """First phase of a transposed convolution: the weights, turned."""
    turn(w, y.shape[1], y.shape[2], (sh, sw, top, left, dh, dw, groups), turned, u,
         pointer(work) + work.shape[0] // tasks * number_of(task), ns, pack, way, task, tasks)


@part
def transpose_kernel(x, w, bias, sh, sw, top, left, dh, dw, groups, f, y, turned, u, work, kc, mc, ns, pack, gather,
                     m_tasks, way, task, tasks):
    """y = f(the input gradient of a convolution, of x, + bias)"""
    own, to, c = pointer(work) + work.shape[0] // tasks * number_of(task), pointer(y), y.shape[3]
    done = hook(finish, (task, c, to, c, to, c), f, None)
    back(x, w, (sh, sw, top, left, dh, dw, groups), y, turned, u, (pointer(bias), 0, 1), (done, to, c), own,
         (kc, mc, ns, pack, gather, m_tasks, way), task, tasks)


CONV2D_PHASES = conv2d_weights, conv2d_kernel
CONV2D_PLAIN_PHASES = plain_weights, plain_kernel
INPUT_GRADIENT_PHASES = input_gradient_turn, input_gradient_kernel
TRANSPOSE_PHASES = transpose_turn, transpose_kernel
