"""Softmax, log-softmax and logsumexp along an axis, with their gradients from the output.

    softmax        y = exp(x - top) / s, s = sum(exp(x - top))    dx = y (dy - sum(dy y))
    log_softmax    y = x - top - log(s)                           dx = dy - exp(y) sum(dy)
    logsumexp      y = top + log(s)                               dx = dy softmax(x)

top is the largest value: huge values do not overflow. NaN in a line gives NaN all along it, and so does a line of -inf
alone for softmax and log_softmax, as in NumPy; its logsumexp is -inf.

Shapes: x (outer, size, inner), the lines lie along `size`. Long lines that are contiguous (inner = 1) go one by one.
Others go side by side, some columns of a *tile* at a time: what stands in x[at + row row_step + j column_step] stands
in tile[row, j], so that loops over j are vectorised, whatever the steps. Short contiguous lines are such columns too.
"""
import numpy as np

from engine.kernels import elementary
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats, share, spec
from engine.kernels.reduce import reduced_shape, three_axes
from engine.kernels.reduce.cpu import LANES
from engine.kernels.simd import lanes_of, part, pointer, put, row_max, tile, tile_load, tile_max, tile_store
from engine.kernels.softmax.cuda import logsumexp_cuda, softmax_cuda, softmax_grad_cuda
from engine.kernels.split import SUMS, span
from engine.kernels.stream import beside, ended, put_values, streaming

TILE = 8192                                  # values of a tile, where lines are not too long for eight columns
SHORT = LANES                                # from here on a contiguous line goes by itself; four vectors at least

# ----------------------------------------------------------------------------------------------------- NumPy reference


def axes_of(x, axis):
    """`axis` as NumPy takes it."""
    return tuple(axis) if isinstance(axis, list) else axis


def softmax_reference(x, axis):
    e = np.exp(x - x.max(axes_of(x, axis), keepdims=True, initial=-np.inf))
    return e / e.sum(axes_of(x, axis), keepdims=True)


def log_softmax_reference(x, axis):
    z = x - x.max(axes_of(x, axis), keepdims=True, initial=-np.inf)
    return z - np.log(np.exp(z).sum(axes_of(x, axis), keepdims=True))


def softmax_grad_reference(dy, y, axis):
    return y * (dy - (dy * y).sum(axes_of(y, axis), keepdims=True))


def log_softmax_grad_reference(dy, y, axis):
    return dy - np.exp(y) * dy.sum(axes_of(y, axis), keepdims=True)


def logsumexp_reference(x, axis, keepdims):
    return np.logaddexp.reduce(x.reshape(three_axes(x, axis)), 1).reshape(reduced_shape(x, axis, keepdims))


# ---------------------------------------------------------------------------------------------------------------- CPU


@part(disjoint=True)
def tile_exp(x, at, size, row_step, column_step, logarithm, tiles, values, tops, sums, first, width):
    """tops and sums of `width` columns, from `first` on; in the tile x - top (logarithm = 1) or exp(x - top) (0)"""
    at, values, first = max(0, at), max(0, values), max(0, first)
    row_step, column_step = max(0, row_step), max(0, column_step)
    zero, lowest = x.dtype.type(0), x.dtype.type(-np.inf)
    for j in range(width):
        tops[first + j] = lowest
        sums[first + j] = zero
    for row in range(size):
        for j in range(width):
            v = x[at + row * row_step + j * column_step]
            tiles[values + row * width + j] = v
            tops[first + j] = v if v > tops[first + j] or v != v else tops[first + j]
    for row in range(size):
        for j in range(width):
            top = tops[first + j]
            z = tiles[values + row * width + j] - (zero if top == lowest else top)
            e = elementary.exp(z)
            sums[first + j] += e
            tiles[values + row * width + j] = z if logarithm else e


@part(disjoint=True)
def tile_out(size, row_step, column_step, logarithm, tiles, values, sums, first, y, at, width):
    """y = (x - top) - log(s) or exp(x - top) / s from the tile"""
    at, values, first = max(0, at), max(0, values), max(0, first)
    row_step, column_step = max(0, row_step), max(0, column_step)
    for j in range(width):
        sums[first + j] = elementary.log(sums[first + j]) if logarithm else 1 / sums[first + j]
    for row in range(size):
        for j in range(width):
            v, s = tiles[values + row * width + j], sums[first + j]
            y[at + row * row_step + j * column_step] = v - s if logarithm else v * s


@part(disjoint=True, fastmath=SUMS)
def total(x, at, size):
    """The sum of a line, in vector lanes"""
    at, found = max(0, at), x.dtype.type(0)
    for j in range(size):
        found += x[at + j]
    return found


@part
def line_top(x, at, size, found):
    """The largest of x[at:at + size], NaN if there is one; left in found[0] too. `size` is four vectors at least."""
    p = pointer(x) + at
    top, width = tile_load(tile(1, 4, p), p, 0), 4 * lanes_of(p)
    for j in range(width, size - width, width):
        top = tile_max(tile_load(top, p + j, 0), top)
    top = tile_max(tile_load(top, p + (size - width), 0), top)         # some values once more
    tile_store(row_max(top), found, 0, 1)
    return found[0]


@part(disjoint=True, interleaved=True, fastmath=SUMS)
def line_exp(x, top, held):
    """s of a contiguous line, of which exp(x - top) is left in `held`"""
    s = x.dtype.type(0)
    for j in range(held.size):
        e = elementary.exp(x[j] - top)
        held[j] = e
        s += e
    return s


@part
def next_exp(x, at, last, size, columns, row_step, logarithm, tiles, values, tops, sums, kept, width):
    """(first value, distance of columns, how many) of the columns that come next, whose tops, sums and tile are made"""
    group = at // columns
    column = at - group * columns
    begin = group * columns * size
    if width == 1:
        top = line_top(x, begin, size, pointer(tops) + kept)
        safe = top if top > -np.inf or top != top else x.dtype.type(0)
        sums[kept] = line_exp(x[begin:begin + size], safe, tiles[values:values + size])
        return begin, 1, 1
    n, step = min(width, last - at, columns - column), 1 if row_step > 1 else size
    begin += column * step
    tile_exp(x, begin, size, row_step, step, logarithm, tiles, values, tops, sums, kept, n)
    return begin, step, n


@part(disjoint=True)
def scaled(inputs, first, _, scale, store, y):
    """exp(x - top) / s"""
    exps = beside(inputs[0], first, y)
    for j in range(y.size):
        put(store, y, j, exps[j] * scale)


@part(disjoint=True)
def shifted(inputs, first, _, shift, store, y):
    """x - top - log(s)"""
    x = beside(inputs[0], first, y)
    for j in range(y.size):
        put(store, y, j, x[j] - shift)


@part
def softmax_cpu(x, size, columns, row_step, logarithm, y, tiles, tops, sums, width, store, task, tasks):
    """A task shares the lines; `columns` of them lie side by side in each of the groups"""
    at, count = span(x.size // size, task, tasks)
    last = at + count
    values, kept = task * size * width, task * LANES
    while at < last:
        begin, step, n = next_exp(x, at, last, size, columns, row_step, logarithm, tiles, values, tops, sums, kept,
                                  width)
        if width > 1:
            tile_out(size, row_step, step, logarithm, tiles, values, sums, kept, y, begin, n)
        elif logarithm:
            shift = tops[kept] + elementary.log(sums[kept])
            put_values(shifted, (x[begin:begin + size],), 0, 0, shift, (x,), begin + size, store, y[begin:begin + size])
        else:
            exps = tiles[values:values + size]
            put_values(scaled, (exps,), 0, 0, 1 / sums[kept], (x,), begin + size, store, y[begin:begin + size])
        at += n
    ended(store)


@part
def logsumexp_cpu(x, size, columns, row_step, y, tiles, tops, sums, width, task, tasks):
    """y = top + log(s)"""
    at, count = span(y.size, task, tasks)
    last = at + count
    values, kept = task * size * width, task * LANES
    while at < last:
        _, _, n = next_exp(x, at, last, size, columns, row_step, 0, tiles, values, tops, sums, kept, width)
        for j in range(n):                   # inf - inf is NaN in the tile: an infinite top is the answer itself
            top = tops[kept + j]
            y[at + j] = top + elementary.log(sums[kept + j]) if top < np.inf else top
        at += n


@part(disjoint=True)
def tile_grad(dy, y, at, size, row_step, column_step, logarithm, dx, sums, kept, width):
    """dx = dy - exp(y) sum(dy) (logarithm = 1) or y (dy - sum(dy y)) (0)"""
    at, kept, row_step, column_step = max(0, at), max(0, kept), max(0, row_step), max(0, column_step)
    one = dy.dtype.type(1)
    for j in range(width):
        sums[kept + j] = 0
    for row in range(size):
        for j in range(width):
            k = at + row * row_step + j * column_step
            sums[kept + j] += dy[k] * (one if logarithm else y[k])
    for row in range(size):
        for j in range(width):
            k, s = at + row * row_step + j * column_step, sums[kept + j]
            dx[k] = dy[k] - elementary.exp(y[k]) * s if logarithm else y[k] * (dy[k] - s)


@part(disjoint=True, fastmath=SUMS)
def product(a, b, at, size):
    """The sum of a[j] b[j] along a line, in vector lanes"""
    at, found = max(0, at), a.dtype.type(0)
    for j in range(size):
        found += a[at + j] * b[at + j]
    return found


@part(disjoint=True)
def softmax_grad_cpu(dy, y, size, columns, row_step, logarithm, dx, tiles, tops, sums, width, task, tasks):
    first, count = span(y.size // size, task, tasks)
    at, last = first, first + count
    while at < last:
        group = at // columns
        column = at - group * columns
        if row_step > 1:
            n = min(width, last - at, columns - column)
            tile_grad(dy, y, group * columns * size + column, size, row_step, 1, logarithm, dx, sums, task * LANES, n)
            at += n
        else:
            begin = max(0, at * size)
            s = total(dy, begin, size) if logarithm else product(dy, y, begin, size)
            if logarithm:
                for j in range(size):
                    dx[begin + j] = dy[begin + j] - elementary.exp(y[begin + j]) * s
            else:
                for j in range(size):
                    dx[begin + j] = y[begin + j] * (dy[begin + j] - s)
            at += 1


# -------------------------------------------------------------------------------------------- shapes and arrangements


def softmax_shapes(x, axis):
    floats(x)
    demand(len(x.shape) >= 1, "x with at least one axis", x.shape)
    three_axes(x, axis)
    return spec(x)


def grad_shapes(dy, y, axis):
    floats(dy, y)
    demand(dy.shape == y.shape, f"dy of the shape of y, {y.shape}", dy.shape)
    return softmax_shapes(y, axis)


def logsumexp_shapes(x, axis, keepdims):
    return Spec(reduced_shape(x, axis, keepdims), floats(x))


def arrange(*flags, streams=True):
    """Arrangement of lines along `axis`; flags go to the kernels behind the numbers that place the lines. The width is
    that of the tiles, 1 where each line is long and goes by itself."""
    def arrange_lines(inputs, outputs, attributes, threads):
        outer, size, inner = three_axes(inputs[0], attributes["axis"])
        short = inner > 1 or size < SHORT
        columns, row_step = (outer, 1) if short and inner == 1 else (inner, inner)
        width = max(8, min(LANES, TILE // max(1, size))) if short else 1
        tasks = share(4 * inputs[0].size, threads)
        held = Spec((tasks * LANES,), inputs[0].dtype)
        tile = Spec((tasks * width * size,), inputs[0].dtype)
        made = Arrangement(tuple((s.size,) for s in inputs), tuple((s.size,) for s in outputs),
                           (size, columns, row_step, *flags), (tile, held, held), (width,), tasks)
        return streaming(made, inputs, outputs) if streams else made
    return arrange_lines


# ------------------------------------------------------------------------------------------------------------- records

LINES = (((0, 3), -1), ((3, 0), 1), ((1, 1), -1), ((7, 5), -1), ((7,), 0), ((2, 3, 11), -1), ((7, 129), 1),
         ((3, 67), -1), ((5, 70), 0), ((2, 3, 2, 2), 1), ((2, 3, 4), (1, 2)), ((3, 4), None))


def _samples(rng):
    for shape, axis in LINES:
        yield (rng.standard_normal(shape) * 3,), {"axis": axis}
    yield (np.array([[1e4, -1e4, 0.0], [-np.inf, 0.0, 99.0], [1e30, -1e30, 1e30], [-np.inf, 99.0, np.inf]]),), {}
    yield (np.array([[np.nan, 99.0], [-np.inf, -np.inf]]),), {}


def _grad_samples(reference):
    def samples(rng):
        for shape, axis in LINES:
            yield (rng.standard_normal(shape), reference(rng.standard_normal(shape) * 2, axis)), {"axis": axis}
    return samples


def _logsumexp_samples(rng):
    for (x,), attributes in _samples(rng):
        yield (x,), attributes
    yield (np.where(np.arange(300) % 150 == 7, np.array([[-np.inf], [99.0]]), -np.inf),), {}
    yield (rng.standard_normal((3, 4)),), {"axis": 0, "keepdims": True}


def _terms(x, *rest, axis, keepdims=False):
    return three_axes(x, axis)[1]


def _cost(inputs, outputs, attributes):
    return Cost(5 * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def _gradient(name):
    def grad(graph, node, dy):
        return (graph.add(name, dy, node.outputs[0], axis=node.attributes["axis"]),)
    return grad


def _logsumexp_gradient(graph, node, dy):
    x, axis = node.inputs[0], node.attributes["axis"]
    dy = graph.add("reshape", dy, shape=reduced_shape(x, axis, True))
    return (graph.add("mul", graph.add("softmax", x, axis=axis), dy),)


def _record(name, reference, logarithm):
    return Op(name, reference, softmax_shapes, softmax_cpu, softmax_cuda, _samples,
              arrange(logarithm), _gradient(f"{name}_grad"), _terms, _cost,
              attributes={"axis": -1}, inplace={0: 0} if not logarithm else {})


def _grad_record(name, reference, of, logarithm):
    return Op(name, reference, grad_shapes, softmax_grad_cpu, softmax_grad_cuda, _grad_samples(of),
              arrange(logarithm, streams=False),
              terms=_terms, cost=_cost, attributes={"axis": -1}, inplace={0: 0})


OPS = (
    _record("softmax", softmax_reference, 0),
    _grad_record("softmax_grad", softmax_grad_reference, softmax_reference, 0),
    _record("log_softmax", log_softmax_reference, 1),
    _grad_record("log_softmax_grad", log_softmax_grad_reference, log_softmax_reference, 1),
    Op("logsumexp", logsumexp_reference, logsumexp_shapes, logsumexp_cpu, logsumexp_cuda, _logsumexp_samples,
       arrange(streams=False),
       _logsumexp_gradient, _terms, _cost, attributes={"axis": -1, "keepdims": False}),
)
