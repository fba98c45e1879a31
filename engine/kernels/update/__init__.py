"""Updates: what an optimiser does to the weights, in one pass over all weights of a model.

All arrays are flat: p weights, g gradients, and the states of the optimiser, changed in place; rate (1,) is this step's
learning rate; t = counter[1] + 1 counts steps. The formulas are those of torch.optim; d is weight_decay, and g stands
for g + d p except in adamw:

    sgd                p -= rate g
    sgd_momentum       v = momentum v + g;  p -= rate v                                          Polyak 1964
                       nesterov: p -= rate (g + momentum v)                                      Nesterov 1983
    rmsprop            s = alpha s + (1 - alpha) g^2;  p -= rate g / (sqrt(s) + epsilon)         Hinton 2012
    rmsprop_momentum   centered: m = alpha m + (1 - alpha) g and sqrt(s - m^2);
                       b = momentum b + g / (sqrt(..) + epsilon);  p -= rate b                   Graves 2013
    adagrad            s += g^2;  p -= rate g / (sqrt(s) + epsilon)                              Duchi et al. 2011
    adam               m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;                 Kingma, Ba 2014
                       p -= rate / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + epsilon)
    adamw              p *= 1 - rate d, then adam with the bare g                                Loshchilov, Hutter 2017
    clip_by_value      g into [low, high]
    clip_by_norm       g *= min(1, max_norm / (|g| + 1e-6)), |g| over all values                 Pascanu et al. 2013

A weight of 0 whose gradient is 0 stays 0: the padding between weights needs no care. The kernels read and write the
outputs only, which are the memory of the inputs (`updates`).
"""
import numpy as np

from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, flat, floats, integers, same, share, spec
from engine.kernels.split import CHUNK, chunks
from engine.kernels.update import cpu, cuda
from engine.kernels.update.rules import RULES

# ----------------------------------------------------------------------------------------------------- NumPy reference


def sgd_reference(p, g, rate, counter, weight_decay):
    return p - rate * (g + weight_decay * p)


def sgd_momentum_reference(p, g, v, rate, counter, weight_decay, momentum, nesterov):
    g = g + weight_decay * p
    v = momentum * v + g
    return p - rate * (g + momentum * v if nesterov else v), v


def rmsprop_reference(p, g, s, rate, counter, weight_decay, alpha, epsilon):
    g = g + weight_decay * p
    s = alpha * s + (1 - alpha) * g ** 2
    return p - rate * g / (np.sqrt(s) + epsilon), s


def rmsprop_momentum_reference(p, g, s, m, b, rate, counter, weight_decay, alpha, epsilon, momentum, centered):
    g = g + weight_decay * p
    s = alpha * s + (1 - alpha) * g ** 2
    if centered:
        m = alpha * m + (1 - alpha) * g
    b = momentum * b + g / (np.sqrt(s - m ** 2 if centered else s) + epsilon)
    return p - rate * b, s, m, b


def adagrad_reference(p, g, s, rate, counter, weight_decay, epsilon):
    g = g + weight_decay * p
    s = s + g ** 2
    return p - rate * g / (np.sqrt(s) + epsilon), s


def adam_reference(p, g, m, v, rate, counter, weight_decay, beta1, beta2, epsilon):
    g = g + weight_decay * p
    t = counter[1] + 1
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return p - rate * (m / (1 - beta1 ** t)) / (np.sqrt(v / (1 - beta2 ** t)) + epsilon), m, v


def adamw_reference(p, g, m, v, rate, counter, weight_decay, beta1, beta2, epsilon):
    return adam_reference(p * (1 - rate * weight_decay), g, m, v, rate, counter, 0.0, beta1, beta2, epsilon)


def clip_by_norm_reference(g, max_norm):
    return g * np.minimum(1, max_norm / (np.sqrt(np.sum(g ** 2)) + 1e-6))


# ------------------------------------------------------------------------------------------------------------ records


def update_shapes(p, g, *others, epsilon=None, **attributes):
    """For all updates: others are the states, rate and counter."""
    *states, rate, counter = others
    floats(p, g, *states)
    floats(rate)
    integers(counter, "the counter")
    for array in (p, g, *states):
        demand(array.shape == p.shape and p.ndim == 1, f"weights, gradients and states of one flat shape, {p.shape}",
               array.shape)
    demand(rate.shape == (1,), "a rate of shape (1,)", rate.shape)
    demand(counter.shape == (2,), "a counter of shape (2,), [seed, step]", counter.shape)
    demand(epsilon is None or p.dtype.type(epsilon) > 0, "an epsilon above 0", epsilon,
           "without it the padding between weights would become NaN")
    return tuple(spec(array) for array in (p, *states))


def start(rng, shape, states):
    """Random weights, and as many states: squares or their roots, and what is under a root must not be below the square
    of its mean."""
    weights, *made = (rng.standard_normal(shape) for _ in range(1 + states))
    return weights, *(np.abs(x) + (4 if k == 0 and states > 1 else 0) for k, x in enumerate(made))


def update(name, states, rule, kernel, launcher, reference, attributes, **more):
    """The record of an update with so many states; `more` are numbers that the kernels get and callers do not."""
    def shapes(*arrays, **given):
        demand(len(arrays) == states + 4, f"{states + 4} inputs: weights, gradients, {states} states, rate, counter",
               len(arrays))
        return update_shapes(*arrays, **given)

    def arrange(inputs, outputs, given, threads):
        numbers = [int(v) if isinstance(v, bool) else v for v in (*given.values(), *more.values())]
        return flat(inputs, outputs, {"rule": RULES[rule], **dict(enumerate(numbers))}, threads)

    def samples(rng):
        for size in (0, 1, 7, 131):
            for number, weight_decay in enumerate((0.0, 0.1)):
                choice = {k: bool(number) for k in ("nesterov", "centered") if k in attributes}
                (p, *s), g = start(rng, size, states), rng.standard_normal(size)
                p[size // 2:size // 2 + 2] = g[size // 2:size // 2 + 2] = 0
                yield (p, g, *s, np.array([0.05]), np.array([3, 5 * number])), {"weight_decay": weight_decay, **choice}

    def cost(inputs, outputs, given):
        return Cost(8 * inputs[0].size, sum(s.nbytes for s in (inputs[1], *outputs, *outputs)))

    # 1 - beta^t has fewer digits than beta^t
    return Op(name, reference, shapes, kernel, launcher, samples, arrange, cost=cost, terms=lambda *a, **k: 32,
              attributes={"weight_decay": 0.0, **attributes},
              updates={0: 0, **{k: k + 1 for k in range(1, states + 1)}})


def clip_by_value_shapes(g, low, high):
    floats(g)
    demand(low <= high, "low to be at most high", f"low={low}, high={high}")
    return same((g,))


def clip_by_norm_shapes(g, max_norm):
    floats(g)
    demand(max_norm > 0, "a max_norm above 0", max_norm)
    return same((g,))


def arrange_clip_by_value(inputs, outputs, attributes, threads):
    return flat(inputs, outputs, {"rule": RULES["clipped_at"], **attributes}, threads)


def arrange_clip_by_norm(inputs, outputs, attributes, threads):
    size = inputs[0].size
    sums = (Spec((chunks(size),), np.dtype("float64")),)
    return Arrangement(((size,),), ((size,),), (float(attributes["max_norm"]),), sums, (CHUNK,), share(size, threads),
                       sums)


def _clip_samples(**attributes):
    def samples(rng):
        for size, scale in ((0, 1), (1, 3), (7, 0.01), (8195, 2)):
            yield (rng.standard_normal(size) * scale,), attributes
        yield (rng.standard_normal((3, 5)) * 1e3,), attributes
    return samples


ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
UPDATES = (
    update("sgd", 0, "sgd_at", cpu.sgd, cuda.sgd, sgd_reference, {}),
    update("sgd_momentum", 1, "sgd_momentum_at", cpu.sgd_momentum, cuda.sgd_momentum, sgd_momentum_reference,
           {"momentum": 0.9, "nesterov": False}),
    update("rmsprop", 1, "rmsprop_at", cpu.rmsprop, cuda.rmsprop, rmsprop_reference, {"alpha": 0.99, "epsilon": 1e-8}),
    update("rmsprop_momentum", 3, "rmsprop_momentum_at", cpu.rmsprop_momentum, cuda.rmsprop_momentum,
           rmsprop_momentum_reference, {"alpha": 0.99, "epsilon": 1e-8, "momentum": 0.9, "centered": False}),
    update("adagrad", 1, "adagrad_at", cpu.adagrad, cuda.adagrad, adagrad_reference, {"epsilon": 1e-10}),
    update("adam", 2, "adam_at", cpu.adam, cuda.adam, adam_reference, ADAM, decoupled=False),
    update("adamw", 2, "adam_at", cpu.adam, cuda.adam, adamw_reference, {**ADAM, "weight_decay": 0.01}, decoupled=True),
)
OPS = (
    *UPDATES,
    Op("clip_by_value", lambda g, low, high: np.clip(g, low, high), clip_by_value_shapes, cpu.clip_by_value,
       cuda.clip_by_value, _clip_samples(low=-0.5, high=1.0), arrange_clip_by_value,
       attributes={"low": -1.0, "high": 1.0}, inplace={0: 0}),
    Op("clip_by_norm", clip_by_norm_reference, clip_by_norm_shapes, (cpu.squares, cpu.scale_to_norm), cuda.clip_by_norm,
       _clip_samples(max_norm=2.0), arrange_clip_by_norm, terms=lambda g, max_norm: 8, attributes={"max_norm": 1.0},
       inplace={0: 0}),
)
