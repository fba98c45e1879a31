"""Products that do more on their way: a residual in the epilogue, and the sums that are a bias's gradient.

    dense_residual   y (n, o) = f(x (n, i) w (i, o) + b (o,) + r (n, o))                      He et al. 2015
    matmul_sums      c (m, n) = op(A) op(B),   s (n,) = sum_k op(B)[k, n]        dw = x^T dz and db = sum(dz) at once
"""
import functools
from dataclasses import replace

from engine.kernels.formula import Formula
from engine.kernels.matmul import (
    DENSE,
    LINEAR,
    MATMUL,
    cpu,
    cuda,
    dense_arrange,
    dense_shapes,
    matmul_cost,
    matmul_shapes,
)
from engine.kernels.matmul.blocking import TILES, TURNED
from engine.kernels.matmul.cpu import UNIT, matmul_dots, matmul_tiles, matmul_turned, task_rectangle
from engine.kernels.matmul.tiles import WIDE, rectangle
from engine.kernels.op import Arrangement, Op, Spec, demand, floats
from engine.kernels.simd import lanes_of, part, pointer
from engine.kernels.split import number_of, span

# ------------------------------------------------------------------------------------------------------------ formulas


@functools.cache
def joined(f):
    """(sum, residual) -> f(sum + residual)"""
    return Formula(lambda total, residual: f(total + residual), f"{f.name}_of_sum")


# ----------------------------------------------------------------------------------------------------- NumPy reference


def dense_residual_reference(x, w, bias, residual, activation=None):
    z = x @ w + bias + residual
    return z if activation is None else activation.reference(z)


def matmul_sums_reference(a, b, transpose_a=False, transpose_b=False):
    return MATMUL.reference(a, b, transpose_a, transpose_b), b.sum(1 if transpose_b else 0)


# ---------------------------------------------------------------------------------------------------------------- CPU


@part
def residual_kernel(x, w, bias, residual, f, y, work, kc, mc, ns, pack_a, pack_b, m_tasks, task, tasks):
    """Y = f(X W + bias, R), f while a block of Y is in the cache"""
    m, k, n, lanes = x.shape[0], x.shape[1], w.shape[1], lanes_of(pointer(y))
    i, rows, j, columns = task_rectangle(m, n, UNIT, task, m_tasks, tasks // m_tasks, lanes)
    own, ij = pointer(work) + work.shape[0] // tasks * number_of(task), i * n + j
    rectangle(rows, columns, k, (pointer(x) + i * k, k, 1), (pointer(w) + j, n, 1),
              (pointer(y) + ij, n, pointer(residual) + ij), (pointer(bias) + j, 0, 1), None, f, own + WIDE * lanes, kc,
              mc, ns, pack_a, pack_b)


@part
def product_kernel(a, b, transpose_a, transpose_b, c, sums, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks,
                   task, tasks):
    """C = op(A) op(B)"""
    if way == TILES:
        matmul_tiles(a, b, transpose_a, transpose_b, c, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks,
                     task, tasks)
    elif way == TURNED:
        matmul_turned(a, b, transpose_a, transpose_b, c, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks,
                      task, tasks)
    else:
        matmul_dots(a, b, transpose_a, transpose_b, c, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks,
                    task, tasks)


@part(disjoint=True)
def sums_kernel(a, b, transpose_a, transpose_b, c, sums, work, accumulate, way, kc, mc, ns, pack_a, pack_b, m_tasks,
                task, tasks):
    """sums = the sums of op(B)'s columns, k in order; tasks share the columns"""
    first, count = span(sums.size, task, tasks)
    steps = b.shape[1] if transpose_b else b.shape[0]
    for j in range(count):
        sums[first + j] = 0
    if transpose_b:
        for j in range(count):
            total = sums.dtype.type(0)
            for k in range(steps):
                total += b[first + j, k]
            sums[first + j] = total
    else:
        for k in range(steps):
            for j in range(count):
                sums[first + j] += b[k, first + j]


# ------------------------------------------------------------------------------------------------------------- records


def residual_shapes(x, w, bias, residual, activation=None):
    made = dense_shapes(x, w, bias, activation)
    floats(x, residual)
    demand(residual.shape == made.shape, f"a residual of the output's shape, {made.shape}", residual.shape)
    return made


def residual_arrange(inputs, outputs, attributes, threads):
    made = dense_arrange(inputs[:3], outputs, attributes, threads, chunks=False)
    f = joined((attributes["activation"] or LINEAR).f)
    return made._replace(inputs=tuple(s.shape for s in inputs), scalars=(f,))


def residual_grad(graph, node, dy):
    x, w, bias, residual = node.inputs
    a = node.attributes["activation"]
    if a is None:
        dz = dy
    elif a.slope_of == "y":
        dz = graph.add(a.slope_op, dy, node.outputs[0])
    else:
        dz = graph.add(a.slope_op, dy, graph.add(DENSE_RESIDUAL, x, w, bias, residual))
    return (graph.add(MATMUL, dz, w, transpose_b=True), graph.add(MATMUL, x, dz, transpose_a=True),
            graph.add("sum", dz, axis=0), dz)


def sums_shapes(a, b, transpose_a=False, transpose_b=False):
    made = matmul_shapes(a, b, transpose_a, transpose_b)
    return made, Spec(made.shape[1:], made.dtype)


def sums_arrange(inputs, outputs, attributes, threads):
    (m, n), k = outputs[0].shape, inputs[1].shape[1 if attributes["transpose_b"] else 0]
    flags = int(attributes["transpose_a"]), int(attributes["transpose_b"])
    tasks, work, blocking = cpu.plan_matmul(m, n, k, *flags, outputs[0].dtype, threads)
    return Arrangement(tuple(s.shape for s in inputs), tuple(s.shape for s in outputs), flags, work, blocking, tasks,
                       cuda.sums_spec(m, n, k, outputs[0].dtype), cpu.grains(outputs[0], tasks, blocking[-1]))


def sums_grad(graph, node, dc, ds):
    a, b = node.inputs
    da, db = MATMUL.grad(graph, replace(node, op=MATMUL), dc) if dc is not None else (None, None)
    if ds is not None:
        rows = graph.add("reshape", ds, shape=(ds.size, 1) if node.attributes["transpose_b"] else (1, ds.size))
        spread = graph.add("broadcast_to", rows, shape=b.shape)
        db = spread if db is None else graph.add("add", db, spread)
    return da, db


def residual_samples(rng):
    from engine.kernels.activation import ACTIVATIONS
    for n, i, o in ((1, 1, 1), (0, 3, 2), (2, 0, 3), (17, 33, 31), (20, 530, 9)):
        for a in (None, ACTIVATIONS["tanh"], ACTIVATIONS["silu"]):
            yield ((rng.standard_normal((n, i)), rng.standard_normal((i, o)), rng.standard_normal(o),
                    rng.standard_normal((n, o))), {"activation": a})


def sums_samples(rng):
    for m, k, n in ((1, 1, 1), (0, 3, 2), (2, 0, 3), (17, 33, 31), (10, 600, 9), (65, 40, 67)):
        for ta, tb in ((True, False), (False, True), (False, False)):
            yield ((rng.standard_normal((k, m) if ta else (m, k)), rng.standard_normal((n, k) if tb else (k, n))),
                   {"transpose_a": ta, "transpose_b": tb})


DENSE_RESIDUAL = Op("dense_residual", dense_residual_reference, residual_shapes, residual_kernel, cuda.dense_residual,
                    residual_samples, residual_arrange, residual_grad, DENSE.terms, matmul_cost, {"activation": None})
MATMUL_SUMS = Op("matmul_sums", matmul_sums_reference, sums_shapes, (product_kernel, sums_kernel), cuda.matmul_sums,
                 sums_samples, sums_arrange, sums_grad, MATMUL.terms, matmul_cost,
                 {"transpose_a": False, "transpose_b": False})
OPS = (DENSE_RESIDUAL, MATMUL_SUMS)
