"""Updates that take their gradient from a product at once: what an optimiser does to the weights w (m, n) of a dense
layer whose gradient is g = A^T B (Goodfellow et al. 2016, 6.5).

    matmul_<update>    g (m, n) = a (k, m)^T b (k, n);   then an update of `engine.kernels.update`, of w and its states

On the CPU a task computes some rows of g, uses them while they are in its cache, and computes the next ones in the same
place. So the gradient never goes to memory, and no core takes from another what that one has just written. w and its
states are matrices, changed in place; rate and counter as in `engine.kernels.update`.
"""
import numpy as np

from engine.kernels.matmul import cuda, matmul_shapes
from engine.kernels.matmul.blocking import TILES, UNIT, grains, plan_matmul, plan_update
from engine.kernels.matmul.cpu import task_rectangle, zeros
from engine.kernels.matmul.packing import least
from engine.kernels.matmul.tiles import FIRST, LATER, WIDE, blocks
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand
from engine.kernels.simd import lanes_of, part, pointer
from engine.kernels.split import number_of
from engine.kernels.update import UPDATES
from engine.kernels.update import cpu as updates
from engine.kernels.update import start

LARGE = 1 << 14                              # weights of a layer from which this pays

# ---------------------------------------------------------------------------------------------------------------- CPU


@part
def share(a, g, work, task, tasks):
    """(first row of g that is a task's, last + 1, its own parts of g's rows and of the work)"""
    number, some, much = number_of(task), g.shape[0] // tasks, work.shape[0] // tasks
    first, rows, _, _ = task_rectangle(a.shape[1], 1, UNIT, task, tasks, 1, lanes_of(pointer(g)))
    return first, first + rows, g[number * some:(number + 1) * some], work[number * much:(number + 1) * much]


@part
def next_rows(a, b, i, p, own, blocking):
    """(rows i, i + 1, ... of g = A^T B, as many as come at once, flat; where their weights begin and end in p; the next
    i). The weights come near meanwhile."""
    (first, end, g, work), (at_once, kc, mc, ns, pack_a, pack_b) = own, blocking
    (k, m), n, to, free = a.shape, b.shape[1], pointer(g), pointer(work)
    rows, lanes, series = least(at_once, end - i), lanes_of(to), FIRST
    if i > first:
        series = LATER
    blocks(rows, n, k, (pointer(a) + i, 1, m), (pointer(b), n, 1), (to, n), zeros(free, lanes), (0, to, n),
           (pointer(p) + i * n, n), series, free + WIDE * lanes, kc, mc, ns, pack_a, pack_b)
    return g[:rows * n], i * n, (i + rows) * n, i + rows


@part
def sgd(a, b, p, rate, counter, rule, decay, p_out, g, work, at_once, kc, mc, ns, pack_a, pack_b, task, tasks):
    own, blocking = share(a, g, work, task, tasks), (at_once, kc, mc, ns, pack_a, pack_b)
    i, end, _, _ = own
    while i < end:
        g, at, to, i = next_rows(a, b, i, p_out, own, blocking)
        p = p_out[at:to]
        updates.sgd(p, g, rate, counter, rule, decay, p, 0, 1)


@part
def sgd_momentum(a, b, p, v, rate, counter, rule, decay, momentum, nesterov, p_out, v_out, g, work, at_once, kc, mc, ns,
                 pack_a, pack_b, task, tasks):
    own, blocking = share(a, g, work, task, tasks), (at_once, kc, mc, ns, pack_a, pack_b)
    i, end, _, _ = own
    while i < end:
        g, at, to, i = next_rows(a, b, i, p_out, own, blocking)
        p, v = p_out[at:to], v_out[at:to]
        updates.sgd_momentum(p, g, v, rate, counter, rule, decay, momentum, nesterov, p, v, 0, 1)


@part
def rmsprop(a, b, p, s, rate, counter, rule, decay, alpha, epsilon, p_out, s_out, g, work, at_once, kc, mc, ns, pack_a,
            pack_b, task, tasks):
    own, blocking = share(a, g, work, task, tasks), (at_once, kc, mc, ns, pack_a, pack_b)
    i, end, _, _ = own
    while i < end:
        g, at, to, i = next_rows(a, b, i, p_out, own, blocking)
        p, s = p_out[at:to], s_out[at:to]
        updates.rmsprop(p, g, s, rate, counter, rule, decay, alpha, epsilon, p, s, 0, 1)


@part
def adagrad(a, b, p, s, rate, counter, rule, decay, epsilon, p_out, s_out, g, work, at_once, kc, mc, ns, pack_a, pack_b,
            task, tasks):
    own, blocking = share(a, g, work, task, tasks), (at_once, kc, mc, ns, pack_a, pack_b)
    i, end, _, _ = own
    while i < end:
        g, at, to, i = next_rows(a, b, i, p_out, own, blocking)
        p, s = p_out[at:to], s_out[at:to]
        updates.adagrad(p, g, s, rate, counter, rule, decay, epsilon, p, s, 0, 1)


@part
def adam(a, b, p, m, v, rate, counter, rule, decay, beta1, beta2, epsilon, decoupled, p_out, m_out, v_out, g, work,
         at_once, kc, mc, ns, pack_a, pack_b, task, tasks):
    own, blocking = share(a, g, work, task, tasks), (at_once, kc, mc, ns, pack_a, pack_b)
    i, end, _, _ = own
    while i < end:
        g, at, to, i = next_rows(a, b, i, p_out, own, blocking)
        p, m, v = p_out[at:to], m_out[at:to], v_out[at:to]
        updates.adam(p, g, m, v, rate, counter, rule, decay, beta1, beta2, epsilon, decoupled, p, m, v, 0, 1)


# ------------------------------------------------------------------------------------------------------------- records

KERNELS = {f.__name__: f for f in (sgd, sgd_momentum, rmsprop, adagrad, adam)} | {"adamw": adam}
SIZES = ((1, 1, 1), (0, 3, 2), (2, 0, 3), (7, 33, 31), (600, 70, 9))     # k, m, n


def takes_update(m, n, k, dtype):
    """Whether the product of a weight's gradient takes in the update on the CPU: if it is computed tile by tile, and
    the weight is large."""
    _, _, numbers = plan_matmul(m, n, k, 1, 0, dtype, 1)
    return m * n >= LARGE and numbers[1] == TILES


def with_product(base):
    """The record of an update that computes its own gradient."""
    states = len(base.updates) - 1

    def reference(a, b, p, *rest, **attributes):
        return base.reference(p, a.T @ b, *rest, **attributes)

    def shapes(a, b, p, *rest, **attributes):
        g = matmul_shapes(a, b, True)
        for array in (p, *rest[:-2]):
            demand(array.shape == g.shape, f"weights and states of the shape of the product, {g.shape}", array.shape)
        flat = [Spec((g.size,), array.dtype) for array in (p, g, *rest[:-2])]
        return tuple(Spec(g.shape, s.dtype) for s in base.shapes(*flat, *rest[-2:], **attributes))

    def arrange(inputs, outputs, attributes, threads):
        (k, m), n, dtype = inputs[0].shape, inputs[1].shape[1], outputs[0].dtype
        flat = [Spec((s.size,), s.dtype) for s in inputs[2:]]
        of_update = base.arrange([flat[0], flat[0], *flat[1:]], [flat[0]] * len(outputs), attributes, 1)
        tasks, work, numbers = plan_update(m, n, k, dtype, threads)
        return Arrangement((inputs[0].shape, inputs[1].shape, *(s.shape for s in flat)),
                           tuple((s.size,) for s in outputs), of_update.scalars, work, numbers, tasks,
                           (Spec((1 + sum(s.shape[0] for s in cuda.parts_spec(m, n, k, dtype)), m, n), dtype),),
                           grains(outputs[0], tasks, tasks))

    def launch(a, b, p, *given):
        *given, g = given                    # scratch: the gradient, and the parts that it is the sum of, if there are
        cuda.matmul(a, b, 1, 0, g[0], *([g[1:]] if len(g) > 1 else []))
        base.cuda(p, g[0].reshape(p.shape), *given)

    def samples(rng):
        for number, (k, m, n) in enumerate(SIZES):
            (p, *s), decay = start(rng, (m, n), states), 0.1 * (number % 2)
            yield ((rng.standard_normal((k, m)), rng.standard_normal((k, n)), p, *s, np.array([0.05]),
                    np.array([3, number])), {"weight_decay": decay})

    def cost(inputs, outputs, attributes):
        k, weights = inputs[0].shape[0], outputs[0].size
        return Cost((2 * k + 8) * weights, sum(s.nbytes for s in (*inputs[:2], *outputs, *outputs)))

    return Op(f"matmul_{base.name}", reference, shapes, KERNELS[base.name], launch, samples, arrange, cost=cost,
              terms=lambda a, *rest, **attributes: 32 + a.shape[0], attributes=base.attributes,
              updates={out: 2 + source - (source > 0) for out, source in base.updates.items()})


WITH_PRODUCT = {base.name: with_product(base) for base in UPDATES if base.name in KERNELS}
OPS = tuple(WITH_PRODUCT.values())
