"""Batch normalisation (Ioffe, Szegedy 2015) in training and inference, with the addition and activation behind it.

Shapes: x seen as (n, c), c the last axis (channels last: all other axes are rows); gamma, beta, mean, variance (c,).

    batch_norm            y = f(z), z = gamma (x - mean) inverse + beta, inverse = 1 / sqrt(var + epsilon), mean and var
                          (c,) of the batch; the running ones move: m = momentum m + (1 - momentum) mean, and alike with
                          the unbiased variance (n - 1), as PyTorch (its momentum is one minus this one); for a single
                          row that variance is 0
                          outputs y, the two running ones (in place), mean and inverse for the backward pass
    batch_norm_add        y = f(z + other), other of the shape of x: the end of a residual block (He et al. 2015)
    batch_norm_inference  y = f(z) with the running mean and variance

f is `activation`, or nothing. Training is bound by passes over memory: with f and the addition inside, nothing but y
is written, and the backward pass makes f'(z) of x again instead of reading y. `engine/graph/fuse_norm.py` puts them
inside.

Variances are sums of squared distances from the mean (two looks at a chunk of rows in the cache): no cancellation.
"""
import numpy as np

from engine.kernels.activation import Activation
from engine.kernels.batch_norm import cpu, cuda
from engine.kernels.formula import Formula
from engine.kernels.norm import alike, channels_of, norm_op
from engine.kernels.op import Spec, demand, rows, share, spec
from engine.kernels.split import chunks, rows_of_chunk

FLOAT64 = np.dtype("float64")

# ------------------------------------------------------------------------------------------------------------ formulas

SAME, ONE = Formula(lambda z: z, "same"), Formula(lambda z: 1, "one")


def _formula(activation):
    return SAME if activation is None else activation.f


def _slope(activation):
    """f'(z) as a formula of z, whichever way the activation has it."""
    if activation is None:
        return ONE
    f, slope = activation.f, activation.slope
    return slope if activation.slope_of == "x" else Formula(lambda z: slope(f(z)), f"{activation.name}_slope_of_x")


# ----------------------------------------------------------------------------------------------------- NumPy reference


def _axes(x):
    return tuple(range(x.ndim - 1))


def _applied(z, activation):
    return z if activation is None else activation.reference(z)


def batch_norm_reference(x, gamma, beta, mean, variance, momentum, epsilon, activation, other=0.0):
    n = x.size // max(1, x.shape[-1])
    if n == 0:
        return x.copy(), mean.copy(), variance.copy(), np.zeros_like(gamma), np.full_like(gamma, epsilon ** -0.5)
    m, v = x.mean(_axes(x)), x.var(_axes(x))
    inverse = 1 / np.sqrt(v + epsilon)
    keep = 1 - momentum
    return (_applied((x - m) * inverse * gamma + beta + other, activation), momentum * mean + keep * m,
            momentum * variance + keep * v * (n / max(1, n - 1)), m, inverse)


def batch_norm_add_reference(x, gamma, beta, mean, variance, other, momentum, epsilon, activation):
    return batch_norm_reference(x, gamma, beta, mean, variance, momentum, epsilon, activation, other)


def batch_norm_grad_reference(dy, x, gamma, beta, mean, inverse, activation):
    n = max(1, x.size // max(1, x.shape[-1]))
    z = (x - mean) * inverse
    if activation is not None and x.size:
        dy = dy * np.vectorize(_slope(activation).python, otypes=[np.float64])(gamma * z + beta)
    dgamma, dbeta = (dy * z).sum(_axes(x)), dy.sum(_axes(x))
    return gamma * inverse * (dy - dbeta / n - z * dgamma / n), dgamma, dbeta


def inference_reference(x, gamma, beta, mean, variance, epsilon, activation):
    return _applied(gamma * (x - mean) / np.sqrt(variance + epsilon) + beta, activation)


def inference_grad_reference(dy, x, gamma, mean, variance, epsilon):
    inverse = 1 / np.sqrt(variance + epsilon)
    return dy * gamma * inverse, (dy * (x - mean) * inverse).sum(_axes(x)), dy.sum(_axes(x))


# -------------------------------------------------------------------------------------------- shapes and arrangements


def _activation(given):
    demand(given is None or isinstance(given, Activation), "an Activation or None", repr(given))


def batch_norm_shapes(x, gamma, beta, mean, variance, momentum, epsilon, activation):
    demand(0 <= momentum <= 1, "a momentum from 0 to 1", momentum)
    demand(epsilon > 0, "an epsilon above 0", epsilon)
    _activation(activation)
    return (channels_of(x, gamma, beta, mean, variance), *(spec(mean),) * 4)


def batch_norm_add_shapes(x, gamma, beta, mean, variance, other, momentum, epsilon, activation):
    alike(other, x, "other")
    found = batch_norm_shapes(x, gamma, beta, mean, variance, momentum, epsilon, activation)
    demand(activation is None or activation.slope_of == "y", "an activation whose slope is a function of y",
           repr(activation), "x with the other input added is not kept")
    return found


def batch_norm_grad_shapes(dy, x, gamma, beta, mean, inverse, activation):
    alike(dy, x)
    _activation(activation)
    demand(activation is None or activation.slope is not None, "an activation with a slope", repr(activation))
    return channels_of(x, gamma, beta, mean, inverse), spec(gamma), spec(gamma)


def inference_shapes(x, gamma, beta, mean, variance, epsilon, activation):
    _activation(activation)
    return channels_of(x, gamma, beta, mean, variance)


def inference_grad_shapes(dy, x, gamma, mean, variance, epsilon):
    alike(dy, x)
    return channels_of(x, gamma, mean, variance), spec(gamma), spec(gamma)


def _arranged(held, formula):
    """`rows`, with the formula in place of the activation, and scratch: sums of chunks, and `held`(tasks) lines."""
    def arrange(inputs, outputs, attributes, threads):
        given = [a for name, a in attributes.items() if name != "activation"] + [formula(attributes)]
        made = rows(inputs, outputs, {k: a for k, a in enumerate(given)}, threads)
        (n, c), dtype, tasks = made.inputs[0], inputs[0].dtype, share(4 * inputs[0].size, threads)
        line, length = cpu.line_of(c), cpu.chunk_rows(c)
        lines = tuple(Spec((*sizes, line), dtype) for sizes in held(tasks))
        sums = Spec((chunks(n, length), 2, c), dtype), Spec((2, c), FLOAT64), Spec((tasks, 2, line), dtype)
        parts = Spec((chunks(n, rows_of_chunk(c)), 2, c), FLOAT64)
        return made._replace(work=(*sums, *lines), gpu_work=(parts, Spec((3, c), dtype)), tasks=tasks,
                             blocking=(length,))
    return arrange


def _f(attributes):
    return _formula(attributes["activation"])


_in_training = _arranged(lambda tasks: ((3,),), _f)
arrange_grad = _arranged(lambda tasks: ((tasks, 3), (3,)), lambda attributes: _slope(attributes.get("activation")))


def arrange_training(inputs, outputs, attributes, threads):
    made = _in_training(inputs, outputs, attributes, threads)
    return made._replace(gpu_work=made.gpu_work[:1])


def arrange_inference(inputs, outputs, attributes, threads):
    made = rows(inputs, outputs, {"epsilon": attributes["epsilon"], "f": _f(attributes)}, threads)
    tasks = share(4 * inputs[0].size, threads)
    return made._replace(work=(Spec((tasks, 3, cpu.line_of(made.inputs[0][1])), inputs[0].dtype),), tasks=tasks)


# ----------------------------------------------------------------------------------------------------------- gradients


def batch_norm_gradient(graph, node, dy, *_):
    x, gamma, beta = node.inputs[:3]
    mean, inverse = node.outputs[3:]
    return (*graph.add("batch_norm_grad", dy, x, gamma, beta, mean, inverse,
                       activation=node.attributes["activation"]), None, None)


def _before(graph, node, dy):
    """The gradient that comes out of f, where f's slope is a function of y."""
    activation = node.attributes["activation"]
    return dy if activation is None else graph.add(activation.slope_op, dy, node.outputs[0])


def batch_norm_add_gradient(graph, node, dy, *_):
    x, gamma, beta = node.inputs[:3]
    dz = _before(graph, node, dy)
    return (*graph.add("batch_norm_grad", dz, x, gamma, beta, *node.outputs[3:]), None, None, dz)


def inference_gradient(graph, node, dy):
    x, gamma, beta, mean, variance = node.inputs
    activation, epsilon = node.attributes["activation"], node.attributes["epsilon"]
    if activation is not None and activation.slope_of == "x":
        z = graph.add(node.op, *node.inputs, epsilon=epsilon)
        dz = graph.add(activation.slope_op, dy, z)
    else:
        dz = _before(graph, node, dy)
    return (*graph.add("batch_norm_inference_grad", dz, x, gamma, mean, variance, epsilon=epsilon), None, None)


# ------------------------------------------------------------------------------------------------------------- samples

SHAPES = ((7, 5), (1, 3), (4, 3, 6), (67, 33), (300, 2), (600, 33))


def _activations():
    from engine.kernels.activation import ACTIVATIONS
    return None, ACTIVATIONS["leaky_relu"], ACTIVATIONS["silu"]


MANY_CHUNKS = 8500, 3                        # more than the threads that join them on a GPU


def _batch_samples(rng):
    for number, shape in enumerate(((0, 3), *SHAPES, MANY_CHUNKS)):
        c = shape[-1]
        yield ((rng.standard_normal(shape) + 3, rng.random(c) + 0.5, rng.standard_normal(c), rng.standard_normal(c),
                rng.random(c) + 0.5),
               {"momentum": 0.9, "epsilon": 1e-3, "activation": _activations()[number % 3 if number < 5 else 0]})


def _batch_add_samples(rng):
    for (x, *vectors), attributes in _batch_samples(rng):
        other = rng.standard_normal(x.shape)
        yield (x, *vectors, other), {**attributes, "activation": _activations()[attributes["activation"] is not None]}


def _batch_grad_samples(rng):
    for (x, gamma, beta, *_), attributes in _batch_samples(rng):
        if x.size:
            inverse = 1 / np.sqrt(x.var(_axes(x)) + 1e-3)
            yield ((rng.standard_normal(x.shape), x, gamma, beta, x.mean(_axes(x)), inverse),
                   {"activation": attributes["activation"]})


def _inference_samples(rng):
    for inputs, attributes in _batch_samples(rng):
        yield inputs, {k: a for k, a in attributes.items() if k != "momentum"}


def _inference_grad_samples(rng):
    for (x, gamma, _, mean, variance), attributes in _inference_samples(rng):
        if x.size:
            yield (rng.standard_normal(x.shape), x, gamma, mean, variance), {"epsilon": attributes["epsilon"]}


# ------------------------------------------------------------------------------------------------------------- records


TRAINING = {"momentum": 0.99, "epsilon": 1e-3, "activation": None}
KEPT = {"updates": {1: 3, 2: 4}, "byproducts": frozenset({1, 2, 3, 4})}
OPS = (
    norm_op("batch_norm", batch_norm_reference, batch_norm_shapes, (cpu.chunk_moments, cpu.join_moments, cpu.normalise),
            cuda.batch_norm, _batch_samples, arrange_training, batch_norm_gradient, TRAINING, **KEPT),
    norm_op("batch_norm_add", batch_norm_add_reference, batch_norm_add_shapes,
            (cpu.chunk_moments_add, cpu.join_moments_add, cpu.normalise_add), cuda.batch_norm_add, _batch_add_samples,
            arrange_training, batch_norm_add_gradient, TRAINING, **KEPT),
    norm_op("batch_norm_grad", batch_norm_grad_reference, batch_norm_grad_shapes,
            (cpu.batch_products, cpu.join_products, cpu.batch_norm_grad), cuda.batch_norm_grad, _batch_grad_samples,
            arrange_grad, attributes={"activation": None}),
    norm_op("batch_norm_inference", inference_reference, inference_shapes, cpu.inference, cuda.inference,
            _inference_samples, arrange_inference, inference_gradient, {"epsilon": 1e-3, "activation": None}),
    norm_op("batch_norm_inference_grad", inference_grad_reference, inference_grad_shapes,
            (cpu.inference_products, cpu.join_inference, cpu.inference_grad), cuda.inference_grad,
            _inference_grad_samples, arrange_grad, None, {"epsilon": 1e-3}),
)
