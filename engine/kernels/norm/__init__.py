"""Normalisation along rows: layer norm, RMS norm, with their gradients. (Across rows: `engine/kernels/batch_norm`.)

Shapes: x seen as (n, c), c the last axis (channels last: all other axes are rows); gamma, beta (c,).

    layer_norm            y = gamma (x - mean) / sqrt(var + epsilon) + beta, mean and var of each row (Ba et al. 2016)
    rms_norm              y = gamma x / sqrt(mean(x^2) + epsilon) (Zhang, Sennrich 2019)

Variances are sums of squared distances from the mean (two passes): no cancellation. The backward passes take mean and
variance anew: a second look at a row in the cache is cheaper than arrays to keep.
"""
import numpy as np

from engine.kernels.norm import cpu, cuda
from engine.kernels.op import Cost, Op, Spec, demand, floats, rows, share, spec
from engine.kernels.split import chunks, rows_of_chunk
from engine.kernels.stream import streaming

FLOAT64 = np.dtype("float64")

# ----------------------------------------------------------------------------------------------------- NumPy reference


def _axes(x):
    return tuple(range(x.ndim - 1))


def layer_norm_reference(x, gamma, beta, epsilon):
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return gamma * (x - x.mean(-1, keepdims=True)) * inverse + beta


def layer_norm_grad_reference(dy, x, gamma, epsilon):
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    z, g = (x - x.mean(-1, keepdims=True)) * inverse, dy * gamma
    dx = inverse * (g - g.mean(-1, keepdims=True) - z * (g * z).mean(-1, keepdims=True))
    return dx, (dy * z).sum(_axes(x)), dy.sum(_axes(x))


def rms_norm_reference(x, gamma, epsilon):
    return gamma * x / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon)


def rms_norm_grad_reference(dy, x, gamma, epsilon):
    inverse = 1 / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon)
    z, g = x * inverse, dy * gamma
    return inverse * (g - z * (g * z).mean(-1, keepdims=True)), (dy * z).sum(_axes(x))


# ------------------------------------------------------------------------------------------------------------ records


def channels_of(x, *vectors):
    """The spec of x, checked: floats with channels last, and a value for each channel in each of the vectors."""
    floats(x, *vectors)
    demand(x.ndim >= 2 and x.shape[-1] > 0, "x of shape (n, ..., channels)", x.shape)
    for v in vectors:
        demand(v.shape == x.shape[-1:], f"a value for each of the {x.shape[-1]} channels", v.shape)
    return spec(x)


def alike(dy, x, name="dy"):
    """Checks that an array has the shape of x."""
    floats(dy, x)
    demand(dy.shape == x.shape, f"{name} of the shape of x, {x.shape}", dy.shape)


def layer_norm_shapes(x, gamma, beta, epsilon):
    return channels_of(x, gamma, beta)


def layer_norm_grad_shapes(dy, x, gamma, epsilon):
    alike(dy, x)
    return channels_of(x, gamma), spec(gamma), spec(gamma)


def rms_norm_shapes(x, gamma, epsilon):
    return channels_of(x, gamma)


def rms_norm_grad_shapes(dy, x, gamma, epsilon):
    return layer_norm_grad_shapes(dy, x, gamma, epsilon)[:2]


def _parts(n, c, dtype):
    """Two sums for each chunk of rows and channel."""
    return Spec((chunks(n, rows_of_chunk(c)), 2, c), dtype)


def arrange_rows(inputs, outputs, attributes, threads):
    """`rows` for kernels that stream."""
    return streaming(rows(inputs, outputs, attributes, threads), inputs, outputs)


def arrange_grad(inputs, outputs, attributes, threads):
    """`rows`, with scratch for sums over chunks of rows."""
    made = rows(inputs, outputs, attributes, threads)
    (n, c), dtype, tasks = made.inputs[0], inputs[0].dtype, share(4 * inputs[0].size, threads)
    return made._replace(work=(_parts(n, c, dtype), Spec((2, c), FLOAT64)), tasks=tasks, blocking=(rows_of_chunk(c),),
                         gpu_work=(_parts(n, c, FLOAT64), Spec((n, 2), dtype)))


def layer_norm_gradient(graph, node, dy):
    return graph.add("layer_norm_grad", dy, *node.inputs[:2], **node.attributes)


def rms_norm_gradient(graph, node, dy):
    return graph.add("rms_norm_grad", dy, *node.inputs, **node.attributes)


def _row_samples(rng):
    for shape in ((0, 3), (7, 5), (1, 3), (4, 3, 6), (5, 131), (600, 33), (9, 128), (3, 260), (2, 2052), (2, 8201)):
        yield (rng.standard_normal(shape) + 1, rng.random(shape[-1]) + 0.5, rng.standard_normal(shape[-1])), {}


def _rms_samples(rng):
    for (x, gamma, _), attributes in _row_samples(rng):
        yield (x, gamma), attributes


def _row_grad_samples(rng):
    for (x, gamma, _), attributes in _row_samples(rng):
        yield (rng.standard_normal(x.shape), x, gamma), attributes


def _terms(first, *rest, **attributes):
    return 4 * first.size // max(1, first.shape[-1]) + 4 * first.shape[-1]


def _cost(inputs, outputs, attributes):
    return Cost(8 * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def norm_op(name, reference, shapes, cpu, launcher, samples, arrange, grad=None, attributes=None, **more):
    """The record of a normalisation: all of them sum over columns or lines and touch each value a few times."""
    return Op(name, reference, shapes, cpu, launcher, samples, arrange, grad, _terms, _cost, attributes or {}, **more)


ROW = {"epsilon": 1e-5}
OPS = (
    norm_op("layer_norm", layer_norm_reference, layer_norm_shapes, cpu.layer_norm, cuda.layer_norm, _row_samples,
            arrange_rows, layer_norm_gradient, ROW),
    norm_op("layer_norm_grad", layer_norm_grad_reference, layer_norm_grad_shapes,
            (cpu.layer_norm_grad, cpu.join_layer_norm), cuda.layer_norm_grad,
            _row_grad_samples, arrange_grad, None, ROW),
    norm_op("rms_norm", rms_norm_reference, rms_norm_shapes, cpu.rms_norm, cuda.rms_norm, _rms_samples,
            arrange_rows, rms_norm_gradient, ROW),
    norm_op("rms_norm_grad", rms_norm_grad_reference, rms_norm_grad_shapes, (cpu.rms_norm_grad, cpu.join_rms_norm),
            cuda.rms_norm_grad, _row_grad_samples, arrange_grad, None, ROW),
)
