"""Moving values: other shapes, other orders of axes, parts, joints, and rows found by index.

| op | y | gradient |
|---|---|---|
| reshape, flatten | the same values under another shape; a plan calls nothing for it | reshape |
| transpose | axes in another order (without `axes`: reversed) | transpose back |
| broadcast_to | repeated along axes of size 1 or missing, as in NumPy | sum_to |
| slice | x[starts:stops:steps], steps of at least 1; what is negative counts from the end | slice_grad |
| slice_grad | zeros of `shape` with dy at the places that a slice took | slice |
| pad | `value` around x, `before` and `after` places for each axis | slice |
| concat | inputs one after the other along `axis` | slices |
| gather | x[indices] along axis 0; a row of `outside` (NaN) for an index not from 0 to rows - 1 | scatter_add |
| scatter_add | zeros (rows, ...) with dy[k] added to row indices[k]; wrong indices are passed over | gather |
| one_hot | 1 at the label, 0 elsewhere; a row of NaN for a label that is no class | |

No kernel reads outside its arrays. Data decide whether an index is wrong, so that shows as NaN and not as a refusal.

The ops from transpose to pad are one kernel, `move_cpu`: x and y are seen as five common axes, each with its size, its
step in x and its step in y; neighbouring axes that make one run are joined. `table` holds these numbers.

Shapes: gather's x (rows, width), indices (n,), y (n, width); concat's parts (m, w_i), out (m, sum of w_i).
"""
import math

import numpy as np

from engine.errors import DtypeError
from engine.kernels.elementwise import broadcast, sum_to_input
from engine.kernels.op import FLOATS, Arrangement, Cost, Op, Spec, axis_of, demand, flat, floats, integers, share
from engine.kernels.shape.cpu import concat_cpu, copy_cpu, fill_cpu, gather_cpu, move_cpu, one_hot_cpu, scatter_add_cpu
from engine.kernels.shape.cuda import (
    concat_cuda,
    copy_cuda,
    fill_and_move_cuda,
    gather_cuda,
    move_cuda,
    one_hot_cuda,
    scatter_add_cuda,
)
from engine.kernels.shape.moves import (
    arrange_move,
    broadcast_moves,
    cuts,
    movable,
    pad_moves,
    permutation,
    slice_grad_moves,
    slice_moves,
    transpose_moves,
)

# ----------------------------------------------------------------------------------------------------- NumPy reference


def slice_reference(x, starts, stops, steps):
    return x[tuple(slice(*cut) for cut in zip(starts, stops, steps or (1,) * len(starts)))]


def slice_grad_reference(dy, shape, starts, stops, steps):
    y = np.zeros(shape)
    slice_reference(y, starts, stops, steps)[...] = dy
    return y


def pad_reference(x, before, after, value):
    return np.pad(x, list(zip(before, after)), constant_values=value) if x.ndim else x


def gather_reference(x, indices, outside):
    y = np.full((*indices.shape, *x.shape[1:]), outside)
    right = (indices >= 0) & (indices < len(x))
    y[right] = x[indices[right]]
    return y


def scatter_add_reference(dy, indices, rows):
    y = np.zeros((rows, *dy.shape[indices.ndim:]))
    right = (indices >= 0) & (indices < rows)
    np.add.at(y, indices[right], dy[right])
    return y


def one_hot_reference(labels, classes, dtype):
    y = (labels[..., None] == np.arange(classes)).astype(dtype)
    y[(labels < 0) | (labels >= classes)] = np.nan
    return y


# -------------------------------------------------------------------------------------------- shapes and arrangements


def whole_shape(x, shape):
    """`shape` with the -1 in it worked out."""
    shape = tuple(int(s) for s in shape)
    known = math.prod(s for s in shape if s != -1)
    demand(shape.count(-1) <= 1 and all(s >= -1 for s in shape), "sizes of at least 0 and at most one -1", shape)
    if -1 in shape:
        demand(known > 0 and x.size % known == 0, f"a shape for the {x.size} values of {tuple(x.shape)}", shape,
               f"the sizes without the -1 make {known}")
        return tuple(x.size // known if s == -1 else s for s in shape)
    demand(known == x.size, f"a shape for the {x.size} values of {tuple(x.shape)}", f"{shape} for {known}")
    return shape


def flattened(x, axis):
    """(product of the sizes before `axis`, product of the others)."""
    demand(0 <= axis <= len(x.shape), f"an axis from 0 to {len(x.shape)}", axis)
    return math.prod(x.shape[:axis]), math.prod(x.shape[axis:])


def transpose_shapes(x, axes):
    y = Spec(tuple(x.shape[a] for a in permutation(x, axes)), x.dtype)
    movable(*transpose_moves(x, y, {"axes": axes})[:3])
    return y


def broadcast_shapes(x, shape):
    y = Spec(tuple(int(s) for s in shape), x.dtype)
    demand(broadcast(x.shape, y.shape) == y.shape,
           f"a shape to which {tuple(x.shape)} broadcasts (sizes, from the last, equal, or 1 in x)", y.shape)
    movable(*broadcast_moves(x, y, {})[:3])
    return y


def slice_shapes(x, **attributes):
    y = Spec(tuple(len(r) for r in cuts(x.shape, attributes)), x.dtype)
    movable(*slice_moves(x, y, attributes)[:3])
    return y


def slice_grad_shapes(dy, shape, **attributes):
    y = Spec(tuple(shape), dy.dtype)
    taken = slice_shapes(y, **attributes)
    demand(taken.shape == dy.shape, f"dy of the shape of the slice, {taken.shape}", dy.shape)
    return y


def pad_shapes(x, before, after, value):
    demand(len(before) == len(after) == len(x.shape), f"before and after with {len(x.shape)} numbers, one for an axis",
           f"{tuple(before)} and {tuple(after)}")
    demand(all(n >= 0 for n in (*before, *after)), "numbers of at least 0", f"{tuple(before)} and {tuple(after)}",
           "slice cuts off")
    y = Spec(tuple(b + s + a for b, s, a in zip(before, x.shape, after)), x.dtype)
    movable(*pad_moves(x, y, {"before": before})[:3])
    return y


def concat_shapes(*parts, axis):
    demand(len(parts) >= 1, "at least one input", 0)
    first = parts[0]
    axis = axis_of(axis, len(first.shape))
    for part in parts[1:]:
        if part.dtype != first.dtype:
            raise DtypeError(f"expected inputs of one dtype, got {first.dtype}, {part.dtype}; convert with .astype")
        demand(part.shape[:axis] == first.shape[:axis] and part.shape[axis + 1:] == first.shape[axis + 1:]
               and len(part.shape) == len(first.shape), f"shapes that agree but for axis {axis}",
               f"{first.shape} and {part.shape}")
    return Spec((*first.shape[:axis], sum(p.shape[axis] for p in parts), *first.shape[axis + 1:]), first.dtype)


def arrange_concat(inputs, outputs, attributes, threads):
    axis = axis_of(attributes["axis"], len(inputs[0].shape))
    rows = math.prod(inputs[0].shape[:axis])
    two = [(rows, math.prod(s.shape[axis:])) for s in (*inputs, *outputs)]
    return Arrangement(tuple(two[:-1]), (two[-1],), tasks=share(outputs[0].size, threads))


def gather_shapes(x, indices, outside):
    demand(len(x.shape) >= 1, "x with at least one axis", x.shape)
    floats(x)
    integers(indices)
    return Spec((*indices.shape, *x.shape[1:]), x.dtype)


def arrange_gather(inputs, outputs, attributes, threads):
    x, indices = inputs
    width = math.prod(x.shape[1:])
    return Arrangement(((x.shape[0], width), (indices.size,)), ((indices.size, width),),
                       (float(attributes["outside"]),), tasks=share(outputs[0].size, threads))


def scatter_add_shapes(dy, indices, rows):
    floats(dy)
    integers(indices)
    demand(dy.shape[:len(indices.shape)] == indices.shape, f"dy that starts with the shape of indices, {indices.shape}",
           dy.shape)
    demand(rows >= 0, "rows of at least 0", rows)
    return Spec((rows, *dy.shape[len(indices.shape):]), dy.dtype)


def arrange_scatter_add(inputs, outputs, attributes, threads):
    dy, indices = inputs
    rows, width = outputs[0].shape[0], math.prod(outputs[0].shape[1:])
    return Arrangement(((indices.size, width), (indices.size,)), ((rows, width),),
                       tasks=share(dy.size + outputs[0].size, threads))


def one_hot_shapes(labels, classes, dtype):
    integers(labels, "labels")
    demand(classes >= 1, "classes of at least 1", classes)
    if np.dtype(dtype) not in FLOATS:
        raise DtypeError(f"expected dtype float32 or float64, got {dtype}")
    return Spec((*labels.shape, classes), np.dtype(dtype))


def arrange_one_hot(inputs, outputs, attributes, threads):
    size = inputs[0].size
    return Arrangement(((size,),), ((size, attributes["classes"]),), tasks=share(outputs[0].size, threads))


def arrange_copy(inputs, outputs, attributes, threads):
    return flat(inputs, outputs, {}, threads)


# ------------------------------------------------------------------------------------------------------------- samples


def _given(rng, cases):
    """Samples of one input from (shape, attributes)."""
    for shape, attributes in cases:
        yield (np.asarray(rng.standard_normal(shape)),), attributes


def _reshape_samples(rng):
    yield from _given(rng, [(given, {"shape": shape}) for given, shape in (
        ((), (1,)), ((6,), (2, 3)), ((2, 3), (-1,)), ((0, 3), (3, 0)), ((4, 5), (5, -1)), ((1,), ()))])
    yield (np.arange(6),), {"shape": (3, 2)}


def _flatten_samples(rng):
    yield from _given(rng, [((3, 2, 4), {}), ((3, 2, 4), {"axis": 0}), ((0, 3), {}), ((7,), {})])


def _transpose_samples(rng):
    yield from _given(rng, [(shape, {"axes": axes}) for shape, axes in (
        ((), ()), ((5,), None), ((3, 4), (1, 0)), ((37, 33), None), ((2, 3, 4), (0, 2, 1)), ((2, 3, 4), (1, 0, 2)),
        ((2, 3, 4, 5), (0, 3, 1, 2)), ((2, 3, 4, 5), (0, 2, 3, 1)), ((2, 3, 4, 5), (3, 2, 1, 0)), ((0, 3), (-1, 0)),
        ((2, 3, 2, 3, 2), (0, 3, 1, 4, 2)), ((2, 3, 2, 2, 3, 2), (0, 1, 4, 2, 5, 3)), ((1, 5, 1), (2, 1, 0)))])


def _broadcast_samples(rng):
    yield from _given(rng, [(given, {"shape": shape}) for given, shape in (
        ((), ()), ((), (3, 2)), ((3,), (5, 3)), ((5, 1), (5, 3)), ((3, 1, 1), (2, 3, 4, 5)),
        ((2, 1, 3, 1), (2, 4, 3, 5)), ((1, 3), (0, 3)), ((4,), (4,)), ((1, 1, 7), (1, 70, 7)))])


CUTS = (((7,), (2,), (5,), ()), ((7,), (-3,), (None,), ()), ((9,), (1,), (9,), (3,)), ((4, 5), (1, 0), (3, 5), ()),
        ((4, 5), (0, 1), (4, 4), (2, 2)), ((4, 5, 3), (1,), (99,), ()), ((4, 5), (3, 0), (3, 5), ()),
        ((4, 5), (), (), ()), ((3, 4, 2, 5), (1, 0, 0, 1), (3, 3, 2, 4), (1, 2, 1, 2)))


def _slice_samples(rng):
    yield from _given(rng, [(shape, {"starts": a, "stops": b, "steps": c}) for shape, a, b, c in CUTS])


def _slice_grad_samples(rng):
    for (x,), attributes in _slice_samples(rng):
        yield (slice_reference(x, **attributes).copy(),), {"shape": x.shape, **attributes}


def _pad_samples(rng):
    yield from _given(rng, [(shape, {"before": a, "after": b, "value": value}) for shape, a, b, value in (
        ((5,), (2,), (3,), 0), ((2, 3), (0, 1), (1, 2), 0.5), ((2, 5, 4, 3), (0, 1, 1, 0), (0, 1, 1, 0), 0.0),
        ((0, 3), (1, 0), (0, 0), -1.5), ((), (), (), 0.0))])


def _concat_samples(rng):
    for shapes, axis in ((((3,), (4,), (1,)), 0), (((2, 3), (0, 3), (4, 3)), 0), (((2, 3), (2, 1), (2, 2)), 1),
                         (((2, 3, 2), (2, 2, 2), (2, 0, 2)), -2), (((5, 7), (5, 33), (5, 1)), 1)):
        yield tuple(rng.standard_normal(shape) for shape in shapes), {"axis": axis}


def _gather_samples(rng):
    for shape, indices in (((5,), (3,)), ((5, 3), (7,)), ((4, 2, 3), (2, 3)), ((1, 3), ()), ((3, 2), (0,))):
        yield (rng.standard_normal(shape), np.asarray(rng.integers(0, shape[0], indices))), {}
    yield (rng.standard_normal((4, 3)), np.array([3, -1, 4, 0, 99, -2 ** 62])), {}
    yield (rng.standard_normal((4, 3)), np.array([3, -1, 4])), {"outside": 0.5}
    yield (np.zeros((0, 3)), np.array([0, 99])), {}


def _scatter_add_samples(rng):
    for (x, indices), _ in _gather_samples(rng):
        yield (np.asarray(rng.standard_normal((*indices.shape, *x.shape[1:]))), indices), {"rows": len(x)}
    yield (rng.standard_normal((61, 5)), rng.integers(0, 7, 61)), {"rows": 7}


def _one_hot_samples(rng):
    for shape, classes in (((), 1), ((5,), 3), ((2, 3), 4), ((0,), 3)):
        yield (np.asarray(rng.integers(0, classes, shape)),), {"classes": classes}
    yield (np.array([0, 2, -1, 3, 2 ** 40]),), {"classes": 3, "dtype": "float64"}


# ------------------------------------------------------------------------------------------------------------- records


def moved(inputs, outputs, attributes):
    """Cost of moving what comes out: no arithmetic."""
    return Cost(0, 2 * outputs[0].nbytes)


def nothing(inputs, outputs, attributes):
    return Cost(0, 0)


def _reshape_gradient(graph, node, dy):
    return (graph.add("reshape", dy, shape=node.inputs[0].shape),)


def _transpose_gradient(graph, node, dy):
    axes = permutation(node.inputs[0], node.attributes["axes"])
    return (graph.add("transpose", dy, axes=tuple(axes.index(a) for a in range(len(axes)))),)


def _broadcast_gradient(graph, node, dy):
    return (sum_to_input(graph, dy, node.inputs[0]),)


def _slice_gradient(graph, node, dy):
    return (graph.add("slice_grad", dy, shape=node.inputs[0].shape, **node.attributes),)


def _slice_grad_gradient(graph, node, dy):
    return (graph.add("slice", dy, **{k: v for k, v in node.attributes.items() if k != "shape"}),)


def part_of(graph, value, starts, shape):
    """The part of `value` that begins at `starts` and has `shape`."""
    return graph.add("slice", value, starts=tuple(starts), stops=tuple(a + n for a, n in zip(starts, shape)))


def _pad_gradient(graph, node, dy):
    return (part_of(graph, dy, node.attributes["before"], node.inputs[0].shape),)


def _concat_gradient(graph, node, dy):
    axis = axis_of(node.attributes["axis"], dy.ndim)
    found, start = [], 0
    for part in node.inputs:
        found.append(part_of(graph, dy, [start if k == axis else 0 for k in range(dy.ndim)], part.shape))
        start += part.shape[axis]
    return found


def _gather_gradient(graph, node, dy):
    x, indices = node.inputs
    return graph.add("scatter_add", dy, indices, rows=x.shape[0]), None


def _scatter_add_gradient(graph, node, dy):
    return graph.add("gather", dy, node.inputs[1], outside=0.0), None


CUT = {"starts": (), "stops": (), "steps": ()}
FILL_AND_MOVE = fill_cpu, move_cpu

OPS = (
    Op("reshape", lambda x, shape: x.reshape(shape), lambda x, shape: Spec(whole_shape(x, shape), x.dtype), copy_cpu,
       copy_cuda, _reshape_samples, arrange_copy, _reshape_gradient, cost=nothing, attributes={"shape": (-1,)},
       views={0: 0}),
    Op("flatten", lambda x, axis: x.reshape(flattened(x, axis)), lambda x, axis: Spec(flattened(x, axis), x.dtype),
       copy_cpu, copy_cuda, _flatten_samples, arrange_copy, _reshape_gradient, cost=nothing, attributes={"axis": 1},
       views={0: 0}),
    Op("transpose", np.transpose, transpose_shapes, move_cpu, move_cuda, _transpose_samples,
       arrange_move(transpose_moves), _transpose_gradient, cost=moved, attributes={"axes": None}),
    Op("broadcast_to", np.broadcast_to, broadcast_shapes, move_cpu, move_cuda, _broadcast_samples,
       arrange_move(broadcast_moves), _broadcast_gradient, cost=moved, attributes={"shape": ()}),
    Op("slice", slice_reference, slice_shapes, move_cpu, move_cuda, _slice_samples, arrange_move(slice_moves),
       _slice_gradient, cost=moved, attributes=CUT),
    Op("slice_grad", slice_grad_reference, slice_grad_shapes, FILL_AND_MOVE, fill_and_move_cuda, _slice_grad_samples,
       arrange_move(slice_grad_moves), _slice_grad_gradient, cost=moved, attributes={"shape": (), **CUT}),
    Op("pad", pad_reference, pad_shapes, FILL_AND_MOVE, fill_and_move_cuda, _pad_samples, arrange_move(pad_moves),
       _pad_gradient, cost=moved, attributes={"before": (), "after": (), "value": 0.0}),
    Op("concat", lambda *parts, axis: np.concatenate(parts, axis), concat_shapes, concat_cpu, concat_cuda,
       _concat_samples, arrange_concat, _concat_gradient, cost=moved, attributes={"axis": 0}),
    Op("gather", gather_reference, gather_shapes, gather_cpu, gather_cuda, _gather_samples, arrange_gather,
       _gather_gradient, cost=moved, attributes={"outside": math.nan}),
    Op("scatter_add", scatter_add_reference, scatter_add_shapes, scatter_add_cpu, scatter_add_cuda,
       _scatter_add_samples, arrange_scatter_add, _scatter_add_gradient, lambda dy, indices, rows: max(1, indices.size),
       attributes={"rows": 1}),
    Op("one_hot", one_hot_reference, one_hot_shapes, one_hot_cpu, one_hot_cuda, _one_hot_samples, arrange_one_hot,
       cost=moved, attributes={"classes": 1, "dtype": "float32"}),
)
