"""A product on whose way out a derivative is multiplied in: C = (op(A) op(B)) * f'(X), value by value.

That is a gradient on its way back through a layer and the activation before it, dz = (dy w^T) f'(y): C is still in the
nearest cache, or on a GPU in registers, when the slope is taken. X has C's shape: the activation's output where its
derivative is a function of y, its input otherwise. Shapes as in the family's text.
"""
import itertools

import numpy as np

from engine.kernels.activation import ACTIVATIONS, Activation, times_slope
from engine.kernels.matmul import cpu, cuda
from engine.kernels.matmul.blocking import TILES
from engine.kernels.op import Arrangement, Cost, Op, demand, floats

# ----------------------------------------------------------------------------------------------------- NumPy reference


def matmul_slope_reference(a, b, x, transpose_a, transpose_b, activation):
    c = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    return activation.slope_op.reference(c, x)


# ------------------------------------------------------------------------------------------------------------- records


def takes_slope(m, n, k, transpose_a, transpose_b, dtype):
    """Whether this product is best computed tile by tile on the CPU too: the other ways have no such end."""
    _, _, numbers = cpu.plan_matmul(m, n, k, int(transpose_a), int(transpose_b), dtype, 1)
    return numbers[1] == TILES


def sizes_of(a, b, transpose_a, transpose_b):
    """(m, n, k)"""
    m, k = a.shape[::-1] if transpose_a else a.shape
    return m, b.shape[0] if transpose_b else b.shape[1], k


def slope_op(shapes, samples, terms):
    """The record; `shapes`, `samples` and `terms` are those of the product."""
    def slope_shapes(a, b, x, transpose_a, transpose_b, activation):
        c = shapes(a, b, transpose_a, transpose_b)
        floats(a, x)
        demand(x.shape == c.shape, f"x of the shape of the product, {c.shape}", x.shape)
        demand(isinstance(activation, Activation) and activation.slope is not None, "an Activation with a derivative",
               repr(activation))
        return c

    def slope_samples(rng):
        for (a, b), attributes in itertools.islice(samples(rng), 0, None, 3):            # every form, most sizes
            a_ = a.T if attributes["transpose_a"] else a
            n = b.shape[0] if attributes["transpose_b"] else b.shape[1]
            f = ACTIVATIONS["tanh"]
            yield (a, b, f.reference(rng.standard_normal((a_.shape[0], n)))), {**attributes, "activation": f}

    return Op("matmul_slope", matmul_slope_reference, slope_shapes, cpu.SLOPE_PHASES, cuda.matmul_slope, slope_samples,
              arrange_slope, None, lambda a, b, x, **attributes: terms(a, b, **attributes), slope_cost,
              {"transpose_a": False, "transpose_b": False, "activation": None})


def arrange_slope(inputs, outputs, attributes, threads):
    flags = int(attributes["transpose_a"]), int(attributes["transpose_b"])
    m, n, k = sizes_of(*inputs[:2], *flags)
    tasks, work, blocking = cpu.plan_slope(m, n, k, *flags, outputs[0].dtype, threads)
    return Arrangement(tuple(s.shape for s in inputs), (outputs[0].shape,),
                       (*flags, times_slope(attributes["activation"].slope)), work, blocking, tasks,
                       cuda.parts_spec(m, n, k, outputs[0].dtype), cpu.grains(outputs[0], tasks, blocking[-1]))


def slope_cost(inputs, outputs, attributes):
    a, c = inputs[0], outputs[0]
    return Cost(2 * c.shape[1] * a.size, sum(np.prod(s.shape) * s.dtype.itemsize for s in (*inputs, *outputs)))
