"""Reductions along axes: sums, means, extremes, and where they stand.

| op | y | gradient |
|---|---|---|
| sum, mean | the sum along `axis`, the sum / n; of nothing 0 and NaN | dy, dy / n for every value |
| max, min | the largest, smallest value; NaN if one is NaN | dy for the first value that is it, 0 for the others |
| argmax | int64 index of the first largest value; of the first NaN if there is one | |
| sum_to | the sum over those axes along which `shape` has size 1 or lacks the axis | dy repeated |
| squared_norm | the sum of x^2 over everything | 2 x dy |

`axis` is a whole number, a tuple of neighbouring axes, or None for all; `keepdims` leaves axes of size 1 behind.

A reduction is `g(f(x1), g(f(x2), ...)) / divisor` with two formulas, g(a, b) and f(x). Every call is seen as five axes
(k0, r0, k1, r1, c) of which r0 and r1 are reduced and k0, k1, c kept, c innermost. The axes r are cut into pieces
whose size depends on the shapes alone; a first phase reduces each piece, a second one the pieces' results. Within a
piece the values are added in LANES interleaved sums, or, where neighbours in memory belong to different outputs
(c > 1), row by row: both orders are fixed, short and vectorised.

Shapes of single reductions: x (outer, axis, inner), y (outer, inner).
"""
import math

import numpy as np

from engine.kernels.elementwise import IDENTITY, larger, smaller
from engine.kernels.formula import Formula
from engine.kernels.op import Arrangement, Cost, Op, Spec, axis_of, demand, floats, share, spec
from engine.kernels.reduce.cpu import (
    LANES,
    PIECE,
    PIECE_ROWS,
    argmax_cpu,
    extreme_grad_cpu,
    fold_parts_cpu,
    fold_pieces_cpu,
)
from engine.kernels.reduce.cuda import argmax_cuda, extreme_grad_cuda, fold_cuda

# ------------------------------------------------------------------------------------------------------------ formulas

SQUARE = Formula(lambda x: x * x, "square")
PLUS, LARGER, SMALLER = Formula(lambda a, b: a + b, "plus"), Formula(larger), Formula(smaller)

# ----------------------------------------------------------------------------------------------------- NumPy reference


def sum_to_reference(x, shape):
    x = x.sum(tuple(range(x.ndim - len(shape))))
    return x.sum(tuple(k for k, size in enumerate(shape) if size == 1), keepdims=True)


def argmax_reference(x, axis, keepdims):
    return x.reshape(three_axes(x, axis)).argmax(1).reshape(reduced_shape(x, axis, keepdims)).astype(np.int64)


def extreme_grad_reference(dy, x, y, axis):
    outer, size, inner = three_axes(x, axis)
    x, dy, y = x.reshape(outer, size, inner), dy.reshape(outer, 1, inner), y.reshape(outer, 1, inner)
    hit = (x == y) | np.isnan(x)
    return np.where(hit & (hit.cumsum(1) == 1), dy, 0.0)


# -------------------------------------------------------------------------------------------- shapes and arrangements


def reduced_axes(axis, ndim):
    """(first, last) of the neighbouring axes that `axis` names: a whole number, a tuple of them, or None for all."""
    if axis is None:
        return 0, ndim
    axes = sorted(axis_of(a, ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    demand(axes == list(range(axes[0], axes[0] + len(axes))), "an axis, a tuple of neighbouring axes, or None", axis,
           "axes that do not lie side by side are reduced one after the other, or with sum_to")
    return axes[0], axes[-1] + 1


def reduced_shape(x, axis, keepdims):
    first, last = reduced_axes(axis, len(x.shape))
    return x.shape[:first] + (1,) * (last - first if keepdims else 0) + x.shape[last:]


def three_axes(x, axis):
    """x as (outer, reduced, inner)."""
    first, last = reduced_axes(axis, len(x.shape))
    return math.prod(x.shape[:first]), math.prod(x.shape[first:last]), math.prod(x.shape[last:])


def reduce_shapes(x, axis, keepdims):
    return Spec(reduced_shape(x, axis, keepdims), floats(x))


def _not_empty(x, axis):
    demand(three_axes(x, axis)[1] > 0, "at least one value along the axis", f"x of shape {x.shape} with axis={axis}",
           "of nothing there is no extreme")


def extreme_shapes(x, axis, keepdims):
    _not_empty(x, axis)
    return reduce_shapes(x, axis, keepdims)


def argmax_shapes(x, axis, keepdims):
    floats(x)
    _not_empty(x, axis)
    return Spec(reduced_shape(x, axis, keepdims), np.dtype("int64"))


def extreme_grad_shapes(dy, x, y, axis):
    floats(dy, x, y)
    _not_empty(x, axis)
    kept = math.prod(reduced_shape(x, axis, False))
    demand(dy.size == kept and y.size == kept, f"dy and y of {kept} values, one for each output",
           f"{dy.shape} and {y.shape}")
    return spec(x)


def squared_norm_shapes(x):
    return Spec((), floats(x))


def sum_to_groups(given, shape):
    """[size, kept] of neighbouring axes that are all kept or all summed; None where x cannot be summed to `shape`."""
    wanted = (1,) * (len(given) - len(shape)) + tuple(shape)
    if len(wanted) > len(given) or any(s != w and w != 1 for s, w in zip(given, wanted)):
        return None
    groups = []
    for size, want in zip(given, wanted):
        if groups and groups[-1][1] == (size == want):
            groups[-1][0] *= size
        elif size != 1:
            groups.append([size, size == want])
    return groups


def sum_to_shapes(x, shape):
    groups = sum_to_groups(x.shape, shape)
    demand(groups is not None, f"a shape that broadcasts to x of shape {x.shape} (sizes, from the last, equal or 1)",
           tuple(shape))
    demand(len(five_axes(groups)) == 5, "at most two groups of neighbouring axes to sum over",
           f"{x.shape} to {tuple(shape)}", "sum over some of them first")
    return Spec(tuple(shape), floats(x))


def five_axes(groups):
    """The sizes (k0, r0, k1, r1, c) of groups of kept and summed axes, filled up from the last."""
    sizes, keep = [], True
    for size, kept in reversed(groups):
        if kept != keep:
            sizes.insert(0, 1)
            keep = not keep
        sizes.insert(0, size)
        keep = not keep
    return [1] * (5 - len(sizes)) + sizes


def arrange_fold(f, g, start, axes):
    """Arrangement of `fold_pieces_cpu`; axes(x, attributes) gives (k0, r0, k1, r1, c) and the divisor."""
    def arrange(inputs, outputs, attributes, threads):
        (k0, r0, k1, r1, columns), divisor = axes(inputs[0], attributes)
        if r0 * r1 == 0:
            r0, r1 = 1, 0
        row_step = columns
        if columns == r0 == 1 and r1 < 2 * LANES:        # short lines are reduced side by side, as columns
            k1, columns, row_step = 1, k1, 1
        length = PIECE if columns == 1 else PIECE_ROWS
        pieces = r0 * max(1, -(-r1 // length))
        tasks, dtype = share(inputs[0].size, threads), inputs[0].dtype
        parts = Spec((k0 * k1 * pieces * columns if pieces > 1 else 1,), dtype)
        return Arrangement(((inputs[0].size,),), ((outputs[0].size,),),
                           (k1, r0, r1, columns, row_step, f, g, start, float(divisor), length),
                           (parts, Spec((tasks * LANES,), dtype)), (pieces,), tasks, (parts,))
    return arrange


def _along(mean):
    def axes(x, attributes):
        outer, size, inner = three_axes(x, attributes["axis"])
        return (1, 1, outer, size, inner), (size or math.nan) if mean else 1
    return axes


def _down_to(x, attributes):
    return five_axes(sum_to_groups(x.shape, attributes["shape"])), 1


def _over_all(x, attributes):
    return (1, 1, 1, x.size, 1), 1


def arrange_argmax(inputs, outputs, attributes, threads):
    outer, size, inner = three_axes(inputs[0], attributes["axis"])
    tasks = share(inputs[0].size, threads)
    columns, row_step = (outer, 1) if inner == 1 and size < 2 * LANES else (inner, inner)
    return Arrangement(((inputs[0].size,),), ((outer * inner,),), (size, columns, row_step, LARGER),
                       (Spec((tasks * LANES,), inputs[0].dtype),), (IDENTITY,), tasks)


def arrange_extreme_grad(inputs, outputs, attributes, threads):
    outer, size, inner = three_axes(inputs[1], attributes["axis"])
    return Arrangement(((outer * inner,), (inputs[1].size,), (outer * inner,)), ((inputs[1].size,),), (size, inner),
                       tasks=share(inputs[1].size, threads))


# ------------------------------------------------------------------------------------------------------------- records


def reduction_terms(x, axis, keepdims):
    return three_axes(x, axis)[1]


def reduction_cost(inputs, outputs, attributes):
    return Cost(inputs[0].size, inputs[0].nbytes + outputs[0].nbytes)


def repeated(graph, gradient, x, axis):
    """A reduction's gradient, repeated along the axes that it reduced."""
    kept = graph.add("reshape", gradient, shape=reduced_shape(x, axis, True))
    return graph.add("broadcast_to", kept, shape=x.shape)


def _sum_gradient(graph, node, dy):
    return (repeated(graph, dy, node.inputs[0], node.attributes["axis"]),)


def _mean_gradient(graph, node, dy):
    x, axis = node.inputs[0], node.attributes["axis"]
    return (repeated(graph, graph.add("scale", dy, factor=1 / max(1, three_axes(x, axis)[1])), x, axis),)


def _extreme_gradient(graph, node, dy):
    return (graph.add(EXTREME_GRAD, dy, node.inputs[0], node.outputs[0], axis=node.attributes["axis"]),)


def _sum_to_gradient(graph, node, dy):
    return (graph.add("broadcast_to", dy, shape=node.inputs[0].shape),)


def _squared_norm_gradient(graph, node, dy):
    return (graph.add("mul", graph.add("scale", node.inputs[0], factor=2.0), dy),)


def _samples(shapes):
    def samples(rng):
        for shape, axis, keepdims in shapes:
            yield (np.asarray(rng.standard_normal(shape)),), {"axis": axis, "keepdims": keepdims}
    return samples


FULL = (((1,), None, False), ((5,), 0, True), ((), None, False), ((7, 3), 0, False), ((7, 3), -1, True),
        ((2, 5, 3), 1, False), ((3, 4, 2), (1, 2), False), ((2, 3, 4), (0, 1), True), ((0, 3), 1, False),
        ((3, 0), 0, True), ((300,), None, False), ((2, 1031), 1, False), ((1031, 2), 0, False),
        ((20011,), None, False), ((3, 9001), 1, False), ((2, 600, 30), 1, False), ((2, 9004), 1, False))
EMPTY = (((0,), None, False), ((0, 3), 0, False), ((3, 0), 1, True), ((0, 0), None, False))


def _extreme_samples(rng):
    yield from _samples(FULL)(rng)
    yield (np.array([[1.0, 3.0, 3.0, -math.inf], [-math.inf, -60.0, -60.0, -99.0]]),), {"axis": 1}
    yield (np.array([60.0, math.inf, 3.0, math.inf]),), {}


def _argmax_samples(rng):
    yield from _extreme_samples(rng)
    nan = math.nan
    yield (np.array([[1.0, nan, 3.0, nan], [nan, 1.0, 2.0, 3.0], [4.0, 4.0, 4.0, 4.0]]),), {"axis": 1}
    yield (np.array([[1.0, nan], [nan, 5.0], [4.0, nan]]),), {"axis": 0}
    yield (np.round(rng.standard_normal((3, 400))),), {"axis": 1}


def _extreme_grad_samples(rng):
    for (x,), attributes in _argmax_samples(rng):
        axis = attributes.get("axis")
        y = x.max(axis if axis is None else tuple(range(*reduced_axes(axis, x.ndim))))
        yield (np.asarray(rng.standard_normal(y.shape)), x, y), {"axis": axis}


def _sum_to_samples(rng):
    for given, shape in (((), ()), ((7,), ()), ((7,), (1,)), ((4, 5), (5,)), ((4, 5), (4, 1)), ((4, 5), (1, 1)),
                         ((2, 3, 4, 5), (3, 1, 1)), ((2, 3, 4, 5), (2, 1, 4, 1)), ((2, 3, 4, 5), (1, 3, 1, 5)),
                         ((2, 1, 3), (2, 1, 1)), ((0, 3), (3,)), ((3, 0), (3, 1)), ((4, 5), (4, 5)),
                         ((2, 600, 5), (600, 1)), ((301, 40), (40,)), ((2, 3, 5, 4, 3), (2, 1, 5, 1, 3)),
                         ((0, 3, 4), (1, 3, 1))):
        yield (np.asarray(rng.standard_normal(given)),), {"shape": shape}


def _squared_norm_samples(rng):
    for shape in ((), (0,), (1,), (7,), (3, 5), (129,), (20011,)):
        yield (np.asarray(rng.standard_normal(shape)),), {}


def reduction(name, reference, shapes, f, g, start, axes, samples, gradient, attributes, terms=reduction_terms):
    return Op(name, reference, shapes, (fold_pieces_cpu, fold_parts_cpu), fold_cuda, samples,
              arrange_fold(f, g, start, axes), gradient, terms, reduction_cost, attributes)


ALONG = {"axis": None, "keepdims": False}
EXTREME_GRAD = Op("extreme_grad", lambda dy, x, y, axis: extreme_grad_reference(dy, x, y, axis).reshape(x.shape),
                  extreme_grad_shapes, extreme_grad_cpu, extreme_grad_cuda, _extreme_grad_samples, arrange_extreme_grad,
                  attributes={"axis": None})


def _mean_reference(x, axis, keepdims):
    return np.sum(x, axis, keepdims=keepdims) / np.float64(three_axes(x, axis)[1])


def one_term(x, axis, keepdims):
    return 1


OPS = (
    reduction("sum", np.sum, reduce_shapes, IDENTITY, PLUS, 0.0, _along(False), _samples(FULL + EMPTY), _sum_gradient,
              ALONG),
    reduction("mean", _mean_reference, reduce_shapes, IDENTITY, PLUS, 0.0, _along(True), _samples(FULL + EMPTY),
              _mean_gradient, ALONG),
    reduction("max", np.max, extreme_shapes, IDENTITY, LARGER, -math.inf, _along(False), _extreme_samples,
              _extreme_gradient, ALONG, one_term),
    reduction("min", np.min, extreme_shapes, IDENTITY, SMALLER, math.inf, _along(False), _extreme_samples,
              _extreme_gradient, ALONG, one_term),
    EXTREME_GRAD,
    Op("argmax", argmax_reference, argmax_shapes, argmax_cpu, argmax_cuda, _argmax_samples, arrange_argmax,
       cost=reduction_cost, attributes=ALONG),
    reduction("sum_to", sum_to_reference, sum_to_shapes, IDENTITY, PLUS, 0.0, _down_to, _sum_to_samples,
              _sum_to_gradient,
              {"shape": ()}, lambda x, shape: x.size // max(1, math.prod(shape))),
    reduction("squared_norm", lambda x: np.sum(np.square(x)), squared_norm_shapes, SQUARE, PLUS, 0.0, _over_all,
              _squared_norm_samples, _squared_norm_gradient, {}, lambda x: x.size),
)
