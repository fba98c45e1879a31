"""Images of another size: enlarged by repeating or by interpolation, padded by reflection. Channels last.

Shapes: x (n, h, w, c), y (n, p, q, c).

| op | value i of an axis, size s in x and p in y, is taken at |
|---|---|
| upsample_nearest | floor(i s / p) |
| upsample_bilinear | (i + 1/2) s / p - 1/2, at least 0; with align_corners at i (s - 1) / (p - 1) |
| pad_reflect | i - before, reflected at the first and the last value, which are not repeated |

A place between two values is their mean, weighted by nearness; both axes by turns. All three are one kernel with a
table for each axis: value i is (1 - weight) x[first] + weight x[second]. Smaller sizes than x's work too. The gradient
of a row of x is added up from the rows of y in their order: no two tasks write one value. (Zeros around an image: the
op `pad`.)
"""
import math

import numpy as np

from engine.kernels.blocks import clear
from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats, share
from engine.kernels.pool.cuda import split_place
from engine.kernels.simd import broadcast, lanes_of, pointer, tile, tile_load, tile_store
from engine.kernels.simd.parts import part
from engine.kernels.split import span

NEAREST, BETWEEN, CORNERS, REFLECT = 0, 1, 2, 3

# ------------------------------------------------------------------------------------------------------------ formulas


def place_at(i, mode, size, count, before):
    """(first, second, weight): value i of `count` is (1 - weight) x[first] + weight x[second], of `size` values"""
    if mode == NEAREST:
        return i * size // count, 0, 0.0
    if mode == REFLECT:
        k = abs(i - before)
        return (k if k < size else 2 * (size - 1) - k), 0, 0.0
    at = 0.0
    if mode == CORNERS:
        if count > 1:
            at = i * (size - 1) / (count - 1)
    else:
        at = (i + 0.5) * size / count - 0.5
        if at < 0:
            at = 0.0
    first = int(math.floor(at))
    second = first + 1
    if second > size - 1:
        second = size - 1
    return first, second, at - first


# ----------------------------------------------------------------------------------------------------- NumPy reference


def matrix(mode, size, count, before):
    """(count, size): y = matrix x along one axis."""
    found = np.zeros((count, size))
    for i in range(count):
        if mode in (NEAREST, REFLECT):
            found[i, i * size // count if mode == NEAREST else
                  np.pad(np.arange(size), (before, count - size - before), "reflect")[i]] = 1
        else:
            last = max(1, count - 1)
            at = i * (size - 1) / last if mode == CORNERS else np.clip((i + 0.5) * size / count - 0.5, 0, size - 1)
            found[i] = np.clip(1 - np.abs(np.arange(size) - at), 0, 1)
    return found


def _both(axes, image, made):
    return [matrix(mode, image[k], made[k], before) for k, (mode, before) in enumerate(axes)]


def resize_reference(axes, x, size):
    rows, columns = _both(axes, x.shape[1:3], size)
    return np.einsum("pr,qs,nrsc->npqc", rows, columns, x)


def resize_grad_reference(axes, dy, size):
    rows, columns = _both(axes, size, dy.shape[1:3])
    return np.einsum("pr,qs,npqc->nrsc", rows, columns, dy)


# ---------------------------------------------------------------------------------------------------------------- CPU
# places (tasks, 2, 2, longest) and weights (tasks, 2, longest) hold the tables of both axes; each task fills its own.

place_of = part(place_at)


@part
def fill_tables(places, weights, mode, size, count, before):
    for i in range(count):
        places[0, i], places[1, i], weights[i] = place_of(i, mode, size, count, before)


@part
def resize_cpu(x, mode_r, before_r, mode_s, before_s, y, places, weights, task, tasks):
    h, w, c, p, q = x.shape[1], x.shape[2], x.shape[3], y.shape[1], y.shape[2]
    rows, columns, heavy, wide = places[task, 0], places[task, 1], weights[task, 0], weights[task, 1]
    fill_tables(rows, heavy, mode_r, h, p, before_r)
    fill_tables(columns, wide, mode_s, w, q, before_s)
    px, py, number = pointer(x), pointer(y), x.dtype.type
    one = tile(1, 1, px)
    first, count = span(y.shape[0] * p, task, tasks)
    for row in range(first, first + count):
        image = row // p
        i = row - image * p
        low, down, below = (image * h + rows[0, i]) * w, (rows[1, i] - rows[0, i]) * w * c, heavy[i]
        for j in range(q):
            at, right, beside = (low + columns[0, j]) * c, (columns[1, j] - columns[0, j]) * c, wide[j]
            for channel in range(0, c, lanes_of(px)):
                value = tile_load(one, px + (at + channel), 0, c - channel)
                if beside != 0:              # so that a weight of 0 keeps infinities out
                    other = tile_load(one, px + (at + right + channel), 0, c - channel)
                    value = value + (other - value) * broadcast(one, number(beside))
                if below != 0:
                    lower = tile_load(one, px + (at + down + channel), 0, c - channel)
                    if beside != 0:
                        other = tile_load(one, px + (at + down + right + channel), 0, c - channel)
                        lower = lower + (other - lower) * broadcast(one, number(beside))
                    value = value + (lower - value) * broadcast(one, number(below))
                tile_store(value, py + ((row * q + j) * c + channel), 0, c - channel)


@part
def resize_grad_cpu(dy, mode_r, before_r, mode_s, before_s, dx, places, weights, task, tasks):
    """Row by row of dx: what the rows of y that were taken from it send back, each value to one or two places."""
    h, w, c, p, q = dx.shape[1], dx.shape[2], dx.shape[3], dy.shape[1], dy.shape[2]
    rows, columns, heavy, wide = places[task, 0], places[task, 1], weights[task, 0], weights[task, 1]
    fill_tables(rows, heavy, mode_r, h, p, before_r)
    fill_tables(columns, wide, mode_s, w, q, before_s)
    pd, px, number = pointer(dy), pointer(dx), dx.dtype.type
    one = tile(1, 1, px)
    first, count = span(dx.shape[0] * h, task, tasks)
    for row in range(first, first + count):
        image = row // h
        clear(px + row * w * c, w * c)
        for i in range(p):
            share = 0.0
            if rows[0, i] == row - image * h:
                share = 1 - heavy[i]
            if heavy[i] != 0 and rows[1, i] == row - image * h:
                share += heavy[i]
            if share == 0:
                continue
            for j in range(q):
                left, right = broadcast(one, number(share * (1 - wide[j]))), broadcast(one, number(share * wide[j]))
                for channel in range(0, c, lanes_of(px)):
                    given = tile_load(one, pd + (((image * p + i) * q + j) * c + channel), 0, c - channel)
                    out = px + ((row * w + columns[0, j]) * c + channel)
                    tile_store(tile_load(one, out, 0, c - channel) + given * left, out, 0, c - channel)
                    if wide[j] != 0:
                        out = px + ((row * w + columns[1, j]) * c + channel)
                        tile_store(tile_load(one, out, 0, c - channel) + given * right, out, 0, c - channel)


# --------------------------------------------------------------------------------------------------------------- CUDA

place_on = device(place_at)


@device
def share_of(place, i, mode, size, count, before):
    """How much of value i comes from `place`"""
    first, second, weight = place_on(i, mode, size, count, before)
    share = 1.0 - weight if first == place else 0.0
    return share + weight if weight != 0 and second == place else share


@kernel
def _resize(x, mode_r, before_r, mode_s, before_s, y):
    at = cuda.grid(1)
    if at < y.size:
        image, i, j, k = split_place(at, y.shape[1], y.shape[2], y.shape[3])
        r0, r1, below = place_on(i, mode_r, x.shape[1], y.shape[1], before_r)
        s0, s1, beside = place_on(j, mode_s, x.shape[2], y.shape[2], before_s)
        number = x.dtype.type
        value = x[image, r0, s0, k]
        if beside != 0:
            value += (x[image, r0, s1, k] - value) * number(beside)
        if below != 0:
            lower = x[image, r1, s0, k]
            if beside != 0:
                lower += (x[image, r1, s1, k] - lower) * number(beside)
            value += (lower - value) * number(below)
        y[image, i, j, k] = value


@kernel
def _resize_grad(dy, mode_r, before_r, mode_s, before_s, dx):
    at = cuda.grid(1)
    if at < dx.size:
        image, row, column, k = split_place(at, dx.shape[1], dx.shape[2], dx.shape[3])
        total = dx.dtype.type(0)
        for i in range(dy.shape[1]):
            high = share_of(row, i, mode_r, dx.shape[1], dy.shape[1], before_r)
            if high != 0:
                for j in range(dy.shape[2]):
                    wide = share_of(column, j, mode_s, dx.shape[2], dy.shape[2], before_s)
                    if wide != 0:
                        total += dy[image, i, j, k] * dx.dtype.type(high * wide)
        dx[image, row, column, k] = total


def resize_cuda(x, mode_r, before_r, mode_s, before_s, y):
    _resize[blocks(y.size), THREADS](x, mode_r, before_r, mode_s, before_s, y)


def resize_grad_cuda(dy, mode_r, before_r, mode_s, before_s, dx):
    _resize_grad[blocks(dx.size), THREADS](dy, mode_r, before_r, mode_s, before_s, dx)


# ------------------------------------------------------------------------------------------------------------- records


def _sized(x, size):
    floats(x)
    demand(x.ndim == 4 and min(x.shape[1:]) > 0, "x of shape (n, height, width, channels), none of which is 0 but n",
           x.shape, "images have their channels last here")
    demand(len(size) == 2 and min(size) >= 1, "size as two whole numbers of at least 1", tuple(size))
    return Spec((x.shape[0], *size, x.shape[3]), x.dtype)


def reflected_size(size, padding):
    """The size of images of `size` with padding (top, bottom, left, right) around."""
    demand(len(padding) == 4 and all(0 <= pad < size[k // 2] for k, pad in enumerate(padding)),
           "padding as (top, bottom, left, right), each less than the image's own size", tuple(padding),
           f"a reflection of {size[0]} x {size[1]} places has no more")
    return size[0] + padding[0] + padding[1], size[1] + padding[2] + padding[3]


def reflect_shapes(x, padding):
    _sized(x, (1, 1))
    return _sized(x, reflected_size(x.shape[1:3], padding))


def reflect_grad_shapes(dy, size, padding):
    found = _sized(dy, size)
    wanted = reflected_size(size, padding)
    demand(dy.shape[1:3] == wanted, f"dy of {wanted[0]} x {wanted[1]} places", dy.shape)
    return found


def _arranged(axes):
    def arrange(inputs, outputs, attributes, threads):
        tasks, shapes = share(4 * max(inputs[0].size, outputs[0].size), threads), (inputs[0].shape, outputs[0].shape)
        longest = max(max(shape[1:3]) for shape in shapes)
        scalars = tuple(int(k) for axis in axes(attributes) for k in axis)
        return Arrangement(shapes[:1], shapes[1:], scalars,
                           (Spec((tasks, 2, 2, longest), np.dtype("int64")), Spec((tasks, 2, longest), np.dtype("f8"))),
                           tasks=tasks)
    return arrange


def _nearest(attributes):
    return ((NEAREST, 0),) * 2


def _bilinear(attributes):
    return ((CORNERS if attributes["align_corners"] else BETWEEN, 0),) * 2


def _reflect(attributes):
    top, _, left, _ = attributes["padding"]
    return (REFLECT, top), (REFLECT, left)


def _ops(name, axes, shapes, grad_shapes, made_size, attributes, samples):
    """An op and its gradient; made_size(x's size, attributes) gives that of y."""
    def reference(x, **given):
        return resize_reference(axes(given), x, made_size(x.shape[1:3], given))

    def gradient(graph, node, dy):
        kept = {k: v for k, v in node.attributes.items() if k != "size"}
        return (graph.add(f"{name}_grad", dy, size=node.inputs[0].shape[1:3], **kept),)

    def grad_samples(rng):
        for (x,), given in samples(rng):
            kept = {k: v for k, v in given.items() if k != "size"}
            yield (rng.standard_normal(reference(x, **given).shape),), {"size": x.shape[1:3], **kept}

    return (Op(name, reference, shapes, resize_cpu, resize_cuda, samples, _arranged(axes), gradient, _terms, _cost,
               attributes),
            Op(f"{name}_grad", lambda dy, size, **given: resize_grad_reference(axes(given), dy, size), grad_shapes,
               resize_grad_cpu, resize_grad_cuda, grad_samples, _arranged(axes), None, _terms, _cost,
               {"size": (1, 1), **{k: v for k, v in attributes.items() if k != "size"}}))


def _terms(x, **attributes):
    return 4 + x.shape[1] * x.shape[2]


def _cost(inputs, outputs, attributes):
    return Cost(8 * max(inputs[0].size, outputs[0].size), inputs[0].nbytes + outputs[0].nbytes)


SIZES = (((1, 1, 1, 1), (1, 1)), ((2, 3, 2, 5), (6, 6)), ((1, 4, 5, 17), (7, 3)), ((1, 2, 3, 2), (1, 5)))


def _nearest_samples(rng):
    for shape, size in SIZES:
        yield (rng.standard_normal(shape),), {"size": size}


def _bilinear_samples(rng):
    for corners in (False, True):
        for shape, size in SIZES:
            yield (rng.standard_normal(shape),), {"size": size, "align_corners": corners}


def _reflect_samples(rng):
    for shape, padding in (((1, 1, 1, 1), (0, 0, 0, 0)), ((2, 3, 4, 3), (2, 1, 3, 3)), ((1, 5, 2, 17), (0, 4, 1, 0))):
        yield (rng.standard_normal(shape),), {"padding": padding}


def _given_size(size, attributes):
    return attributes["size"]


OPS = (
    *_ops("upsample_nearest", _nearest, _sized, _sized, _given_size, {"size": (1, 1)}, _nearest_samples),
    *_ops("upsample_bilinear", _bilinear, lambda x, size, align_corners: _sized(x, size),
          lambda dy, size, align_corners: _sized(dy, size), _given_size, {"size": (1, 1), "align_corners": False},
          _bilinear_samples),
    *_ops("pad_reflect", _reflect, reflect_shapes, reflect_grad_shapes,
          lambda size, attributes: reflected_size(size, attributes["padding"]), {"padding": (0, 0, 0, 0)},
          _reflect_samples),
)
