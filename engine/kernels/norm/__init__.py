"""Normalisation: batch norm (training and inference), layer norm, RMS norm, with their gradients.

Shapes: x seen as (n, c), c the last axis (channels last: all other axes are rows); gamma, beta (c,).

    batch_norm            y = gamma (x - mean) inverse + beta, inverse = 1 / sqrt(var + epsilon), mean and var (c,) of
                          the batch (Ioffe, Szegedy 2015); the running ones move: m = momentum m + (1 - momentum) mean,
                          and alike with the unbiased variance (n - 1), as PyTorch (its momentum is one minus this one);
                          for a single row that variance is 0
                          outputs y, the two running ones (in place), mean and inverse for the backward pass
    batch_norm_inference  the same with the running mean and variance
    layer_norm            mean and var of each row (Ba et al. 2016)
    rms_norm              y = gamma x / sqrt(mean(x^2) + epsilon) (Zhang, Sennrich 2019)

Variances are sums of squared distances from the mean (two passes): no cancellation. The backward passes of rows take
their mean and variance anew: a second look at a row in the cache is cheaper than arrays to keep.
"""
import numpy as np

from engine.kernels.norm import cpu, cuda
from engine.kernels.op import Cost, Op, Spec, demand, floats, rows, share, spec
from engine.kernels.split import chunks, rows_of_chunk

FLOAT64 = np.dtype("float64")

# ----------------------------------------------------------------------------------------------------- NumPy reference


def _axes(x):
    return tuple(range(x.ndim - 1))


def batch_norm_reference(x, gamma, beta, mean, variance, momentum, epsilon):
    n = x.size // max(1, x.shape[-1])
    if n == 0:
        return x.copy(), mean.copy(), variance.copy(), np.zeros_like(gamma), np.full_like(gamma, epsilon ** -0.5)
    m, v = x.mean(_axes(x)), x.var(_axes(x))
    inverse = 1 / np.sqrt(v + epsilon)
    keep = 1 - momentum
    return ((x - m) * inverse * gamma + beta, momentum * mean + keep * m,
            momentum * variance + keep * v * (n / max(1, n - 1)), m, inverse)


def batch_norm_grad_reference(dy, x, gamma, mean, inverse):
    n = max(1, x.size // max(1, x.shape[-1]))
    z = (x - mean) * inverse
    dgamma, dbeta = (dy * z).sum(_axes(x)), dy.sum(_axes(x))
    return gamma * inverse * (dy - dbeta / n - z * dgamma / n), dgamma, dbeta


def inference_reference(x, gamma, beta, mean, variance, epsilon):
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def inference_grad_reference(dy, x, gamma, mean, variance, epsilon):
    inverse = 1 / np.sqrt(variance + epsilon)
    return dy * gamma * inverse, (dy * (x - mean) * inverse).sum(_axes(x)), dy.sum(_axes(x))


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


def _channels(x, *vectors):
    floats(x, *vectors)
    demand(x.ndim >= 2 and x.shape[-1] > 0, "x of shape (n, ..., channels)", x.shape)
    for v in vectors:
        demand(v.shape == x.shape[-1:], f"a value for each of the {x.shape[-1]} channels", v.shape)
    return spec(x)


def _alike(dy, x):
    floats(dy, x)
    demand(dy.shape == x.shape, f"dy of the shape of x, {x.shape}", dy.shape)


def batch_norm_shapes(x, gamma, beta, mean, variance, momentum, epsilon):
    demand(0 <= momentum <= 1, "a momentum from 0 to 1", momentum)
    demand(epsilon > 0, "an epsilon above 0", epsilon)
    return (_channels(x, gamma, beta, mean, variance), *(spec(mean),) * 4)


def batch_norm_grad_shapes(dy, x, gamma, mean, inverse):
    _alike(dy, x)
    return _channels(x, gamma, mean, inverse), spec(gamma), spec(gamma)


def inference_shapes(x, gamma, beta, mean, variance, epsilon):
    return _channels(x, gamma, beta, mean, variance)


def inference_grad_shapes(dy, x, gamma, mean, variance, epsilon):
    _alike(dy, x)
    return _channels(x, gamma, mean, variance), spec(gamma), spec(gamma)


def layer_norm_shapes(x, gamma, beta, epsilon):
    return _channels(x, gamma, beta)


def layer_norm_grad_shapes(dy, x, gamma, epsilon):
    _alike(dy, x)
    return _channels(x, gamma), spec(gamma), spec(gamma)


def rms_norm_shapes(x, gamma, epsilon):
    return _channels(x, gamma)


def rms_norm_grad_shapes(dy, x, gamma, epsilon):
    return layer_norm_grad_shapes(dy, x, gamma, epsilon)[:2]


def _parts(n, c, dtype):
    """Two sums for each chunk of rows and channel."""
    return Spec((chunks(n, rows_of_chunk(c)), 2, c), dtype)


def _arranged(work, gpu_work, blocking=True):
    """`rows`, with scratch arrays: work(n, c, tasks, dtype) and gpu_work(n, c, dtype)."""
    def arrange(inputs, outputs, attributes, threads):
        made = rows(inputs, outputs, attributes, threads)
        (n, c), dtype, tasks = made.inputs[0], inputs[0].dtype, share(4 * inputs[0].size, threads)
        return made._replace(work=work(n, c, tasks, dtype), gpu_work=gpu_work(n, c, dtype), tasks=tasks,
                             blocking=(rows_of_chunk(c),) if blocking else ())
    return arrange


ARRANGE_BATCH = _arranged(
    lambda n, c, tasks, dtype: (_parts(n, c, dtype), Spec((2, c), FLOAT64), Spec((tasks, c), dtype)),
    lambda n, c, dtype: (_parts(n, c, FLOAT64),))
ARRANGE_INFERENCE = _arranged(lambda n, c, tasks, dtype: (Spec((tasks, c), dtype),), lambda n, c, dtype: (), False)
ARRANGE_BATCH_GRAD = _arranged(
    lambda n, c, tasks, dtype: (_parts(n, c, dtype), Spec((2, c), FLOAT64), Spec((3, c), dtype)),
    lambda n, c, dtype: (_parts(n, c, FLOAT64), Spec((3, c), dtype)))
ARRANGE_ROW_GRAD = _arranged(lambda n, c, tasks, dtype: (_parts(n, c, dtype), Spec((2, c), FLOAT64)),
                             lambda n, c, dtype: (_parts(n, c, FLOAT64), Spec((n, 2), dtype)))


def batch_norm_gradient(graph, node, dy, *_):
    x, gamma = node.inputs[:2]
    return (*graph.add("batch_norm_grad", dy, x, gamma, node.outputs[3], node.outputs[4]), None, None)


def inference_gradient(graph, node, dy):
    x, gamma, _, mean, variance = node.inputs
    return (*graph.add("batch_norm_inference_grad", dy, x, gamma, mean, variance, **node.attributes), None, None)


def layer_norm_gradient(graph, node, dy):
    return graph.add("layer_norm_grad", dy, *node.inputs[:2], **node.attributes)


def rms_norm_gradient(graph, node, dy):
    return graph.add("rms_norm_grad", dy, *node.inputs, **node.attributes)


SHAPES = ((7, 5), (1, 3), (4, 3, 6), (67, 33), (300, 2), (600, 33))


def _batch_samples(rng):
    for shape in ((0, 3), *SHAPES):
        c = shape[-1]
        yield (rng.standard_normal(shape) + 3, rng.random(c) + 0.5, rng.standard_normal(c), rng.standard_normal(c),
               rng.random(c) + 0.5), {"momentum": 0.9, "epsilon": 1e-3}


def _batch_grad_samples(rng):
    for shape in SHAPES:
        x = rng.standard_normal(shape)
        m, v = x.mean(_axes(x)), x.var(_axes(x))
        yield (rng.standard_normal(shape), x, rng.random(shape[-1]) + 0.5, m, 1 / np.sqrt(v + 1e-3)), {}


def _inference_samples(rng):
    for inputs, attributes in _batch_samples(rng):
        yield inputs, {"epsilon": attributes["epsilon"]}


def _inference_grad_samples(rng):
    for (x, gamma, _, mean, variance), attributes in _inference_samples(rng):
        yield (rng.standard_normal(x.shape), x, gamma, mean, variance), attributes


def _row_samples(rng):
    for shape in ((0, 3), (7, 5), (1, 3), (4, 3, 6), (5, 131), (600, 33)):
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


def _op(name, reference, shapes, cpu, launcher, samples, arrange, grad=None, attributes=None, **more):
    return Op(name, reference, shapes, cpu, launcher, samples, arrange, grad, _terms, _cost, attributes or {}, **more)


ROW = {"epsilon": 1e-5}
OPS = (
    _op("batch_norm", batch_norm_reference, batch_norm_shapes, (cpu.chunk_moments, cpu.join_moments, cpu.normalise),
        cuda.batch_norm, _batch_samples, ARRANGE_BATCH, batch_norm_gradient, {"momentum": 0.99, "epsilon": 1e-3},
        updates={1: 3, 2: 4}, byproducts=frozenset({1, 2, 3, 4})),
    _op("batch_norm_grad", batch_norm_grad_reference, batch_norm_grad_shapes,
        (cpu.batch_products, cpu.join_products, cpu.batch_norm_grad), cuda.batch_norm_grad, _batch_grad_samples,
        ARRANGE_BATCH_GRAD),
    _op("batch_norm_inference", inference_reference, inference_shapes, cpu.inference, cuda.inference,
        _inference_samples, ARRANGE_INFERENCE, inference_gradient, {"epsilon": 1e-3}),
    _op("batch_norm_inference_grad", inference_grad_reference, inference_grad_shapes,
        (cpu.inference_products, cpu.join_inference, cpu.inference_grad), cuda.inference_grad, _inference_grad_samples,
        ARRANGE_BATCH_GRAD, None, {"epsilon": 1e-3}),
    _op("layer_norm", layer_norm_reference, layer_norm_shapes, cpu.layer_norm, cuda.layer_norm, _row_samples, rows,
        layer_norm_gradient, ROW),
    _op("layer_norm_grad", layer_norm_grad_reference, layer_norm_grad_shapes,
        (cpu.layer_norm_grad, cpu.join_layer_norm), cuda.layer_norm_grad,
        _row_grad_samples, ARRANGE_ROW_GRAD, None, ROW),
    _op("rms_norm", rms_norm_reference, rms_norm_shapes, cpu.rms_norm, cuda.rms_norm, _rms_samples, rows,
        rms_norm_gradient, ROW),
    _op("rms_norm_grad", rms_norm_grad_reference, rms_norm_grad_shapes, (cpu.rms_norm_grad, cpu.join_rms_norm),
        cuda.rms_norm_grad, _row_grad_samples, ARRANGE_ROW_GRAD, None, ROW),
)
