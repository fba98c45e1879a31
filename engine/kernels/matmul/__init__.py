"""Matrix products: C (m, n) = op(A) op(B), many of them in one call, and the dense layer y = f(x w + b).

Shapes: m rows, k inner, n columns; for dense x (n, i), w (i, o), b (o,), y (n, o). op(A) is A or its transpose, so the
three products of a dense layer are one op: y = x w, dw = x^T dy, dx = dy w^T (Goodfellow et al. 2016, 6.5). A batched
product has one more axis, C[i] = op(A[i]) op(B[i]); of more leading axes `reshape` makes that one, at no cost.
"""

from engine.kernels.activation import Activation, activation
from engine.kernels.matmul import cpu, cuda
from engine.kernels.matmul.slope import slope_op
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats

# ------------------------------------------------------------------------------------------------------------ formulas

LINEAR = activation("linear", lambda x: x, lambda y: 1, "y")

# ----------------------------------------------------------------------------------------------------- NumPy reference


def matmul_reference(a, b, transpose_a=False, transpose_b=False):
    return (a.T if transpose_a else a) @ (b.T if transpose_b else b)


def batched_matmul_reference(a, b, transpose_a=False, transpose_b=False):
    return (a.swapaxes(1, 2) if transpose_a else a) @ (b.swapaxes(1, 2) if transpose_b else b)


def dense_reference(x, w, bias, activation=None):
    z = x @ w + bias
    return z if activation is None else activation.reference(z)


# ------------------------------------------------------------------------------------------------------------- records


def matmul_shapes(a, b, transpose_a=False, transpose_b=False):
    dtype = floats(a, b)
    demand(a.ndim == 2 and b.ndim == 2, "two matrices", f"shapes {a.shape} and {b.shape}")
    m, k = a.shape[::-1] if transpose_a else a.shape
    k2, n = b.shape[::-1] if transpose_b else b.shape
    demand(k == k2, f"inner sizes that agree: {k} columns of the left", f"{k2} rows of the right",
           "is transpose_a or transpose_b missing?")
    return Spec((m, n), dtype)


def matmul_arrange(inputs, outputs, attributes, threads):
    (m, n), k = outputs[0].shape, inputs[0].size // max(1, outputs[0].shape[0])
    flags = int(attributes["transpose_a"]), int(attributes["transpose_b"])
    tasks, work, blocking = cpu.plan_matmul(m, n, k, *flags, outputs[0].dtype, threads, chunks=True)
    return Arrangement(tuple(s.shape for s in inputs), (outputs[0].shape,), flags, work, blocking, tasks,
                       cuda.parts_spec(m, n, k, outputs[0].dtype), cpu.grains(outputs[0], tasks, blocking[-1]),
                       cpu.matmul_phases(blocking))


def matmul_cost(inputs, outputs, attributes):
    a, c = inputs[0], outputs[0]
    return Cost(2 * c.shape[1] * a.size, sum(s.nbytes for s in (*inputs, *outputs)))


def matmul_grad(graph, node, dc):
    a, b = node.inputs
    ta, tb = node.attributes["transpose_a"], node.attributes["transpose_b"]
    da = graph.add(node.op, b, dc, transpose_a=tb, transpose_b=True) if ta else \
        graph.add(node.op, dc, b, transpose_b=not tb)
    db = graph.add(node.op, dc, a, transpose_a=True, transpose_b=ta) if tb else \
        graph.add(node.op, a, dc, transpose_a=not ta)
    return da, db


def batched_matmul_shapes(a, b, transpose_a=False, transpose_b=False):
    demand(a.ndim == b.ndim == 3, "two stacks of matrices, (count, rows, columns)", f"shapes {a.shape} and {b.shape}",
           "reshape joins leading axes")
    demand(a.shape[0] == b.shape[0], f"as many matrices on the right as on the left, {a.shape[0]}", b.shape[0])
    product = matmul_shapes(*(Spec(s.shape[1:], s.dtype) for s in (a, b)), transpose_a, transpose_b)
    return Spec((a.shape[0], *product.shape), product.dtype)


def batched_matmul_arrange(inputs, outputs, attributes, threads):
    count, m, n = outputs[0].shape
    flags = int(attributes["transpose_a"]), int(attributes["transpose_b"])
    k = inputs[0].shape[1 if flags[0] else 2]
    tasks, work, blocking = cpu.plan_batched(count, m, n, k, *flags, outputs[0].dtype, threads)
    return Arrangement(tuple(s.shape for s in inputs), (outputs[0].shape,), flags, work, blocking, tasks, grains=count)


def batched_matmul_cost(inputs, outputs, attributes):
    return Cost(2 * outputs[0].shape[2] * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def dense_shapes(x, w, bias, activation=None):
    dtype = floats(x, w, bias)
    demand(w.ndim == 2 and bias.shape == w.shape[1:], "w of shape (i, o) and bias (o,)", f"{w.shape} and {bias.shape}")
    demand(x.ndim == 2 and x.shape[1] == w.shape[0], f"x of shape (n, {w.shape[0]})", x.shape,
           "is a Flatten() missing before it?" if x.ndim > 2 else "")
    demand(activation is None or isinstance(activation, Activation), "an Activation or None", repr(activation))
    return Spec((x.shape[0], w.shape[1]), dtype)


def dense_arrange(inputs, outputs, attributes, threads, chunks=True):
    (n, o), i = outputs[0].shape, inputs[1].shape[0]
    tasks, work, blocking = cpu.plan_dense(n, o, i, outputs[0].dtype, threads, chunks)
    return Arrangement(tuple(s.shape for s in inputs), (outputs[0].shape,),
                       ((attributes["activation"] or LINEAR).f,), work, blocking, tasks,
                       cuda.parts_spec(n, o, i, outputs[0].dtype), cpu.grains(outputs[0], tasks, blocking[-1]),
                       cpu.dense_phases(blocking))


def dense_grad(graph, node, dy):
    x, w, bias = node.inputs
    a = node.attributes["activation"]
    if a is None:
        dz = dy
    elif a.slope_of == "y":
        dz = graph.add(a.slope_op, dy, node.outputs[0])
    else:                                    # y does not say where f was taken: compute that again
        dz = graph.add(a.slope_op, dy, graph.add(DENSE, x, w, bias))
    return (graph.add(MATMUL, dz, w, transpose_b=True), graph.add(MATMUL, x, dz, transpose_a=True),
            graph.add("sum", dz, axis=0))


def _sizes():
    return ((1, 1, 1), (0, 3, 2), (3, 0, 2), (2, 3, 0), (3, 5, 7), (17, 33, 31), (64, 65, 10), (20, 530, 9),
            (130, 257, 67))


def matmul_samples(rng):
    for m, k, n in _sizes():
        for ta, tb in ((False, False), (True, False), (False, True), (True, True)):
            yield ((rng.standard_normal((k, m) if ta else (m, k)), rng.standard_normal((n, k) if tb else (k, n))),
                   {"transpose_a": ta, "transpose_b": tb})


def batched_matmul_samples(rng):
    # one form: its gradient has two more, tests of the kernels have all, and on the GPU each is a kernel to compile
    for count, m, k, n in ((2, 1, 1, 1), (0, 3, 2, 1), (3, 2, 0, 4), (2, 3, 5, 7), (3, 17, 9, 31)):
        yield (rng.standard_normal((count, m, k)), rng.standard_normal((count, n, k))), {"transpose_b": True}


def dense_samples(rng):
    from engine.kernels.activation import ACTIVATIONS
    for n, i, o in _sizes():
        for a in (None, ACTIVATIONS["tanh"], ACTIVATIONS["silu"]):
            yield ((rng.standard_normal((n, i)), rng.standard_normal((i, o)), rng.standard_normal(o)),
                   {"activation": a})


def _terms(a, b, *rest, transpose_a=False, **attributes):
    return a.shape[-2] if transpose_a else a.shape[-1]


MATMUL = Op("matmul", matmul_reference, matmul_shapes, cpu.MATMUL_PHASES, cuda.matmul, matmul_samples, matmul_arrange,
            matmul_grad, _terms, matmul_cost, {"transpose_a": False, "transpose_b": False})
BATCHED_MATMUL = Op("batched_matmul", batched_matmul_reference, batched_matmul_shapes, cpu.BATCHED_PHASES,
                    cuda.batched_matmul, batched_matmul_samples, batched_matmul_arrange, matmul_grad, _terms,
                    batched_matmul_cost, {"transpose_a": False, "transpose_b": False})
DENSE = Op("dense", dense_reference, dense_shapes, cpu.DENSE_PHASES, cuda.dense, dense_samples, dense_arrange,
           dense_grad, _terms, matmul_cost, {"activation": None})
MATMUL_SLOPE = slope_op(matmul_shapes, matmul_samples, _terms)
OPS = (MATMUL, BATCHED_MATMUL, DENSE, MATMUL_SLOPE)
