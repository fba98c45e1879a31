"""Activations: y = f(x) value by value, and dx = dy * f'(x).

An activation is two formulas. The derivative is written from the input x or from the output y, whichever is cheaper
and exact; ops that keep only y can fuse the second kind. Formulas are stable for huge inputs and let NaN through.

| activation | f(x) | source |
|---|---|---|
| relu | max(x, 0) | Nair, Hinton 2010 |
| relu6 | min(max(x, 0), 6) | Howard et al. 2017 |
| leaky_relu | x if x > 0 else 0.01 x | Maas et al. 2013 |
| elu | x if x > 0 else exp(x) - 1 | Clevert et al. 2015 |
| selu | s * (x if x > 0 else a (exp(x) - 1)) | Klambauer et al. 2017 |
| gelu | x/2 (1 + erf(x / sqrt 2)) | Hendrycks, Gimpel 2016 |
| gelu_tanh | x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) | the same |
| silu | x sigmoid(x) | Elfwing et al. 2017 |
| softplus | log(1 + exp(x)) | Dugas et al. 2001 |
| mish | x tanh(softplus(x)) | Misra 2019 |
| hard_sigmoid | clip(x / 6 + 1/2, 0, 1) | Howard et al. 2019 |
| hard_swish | x hard_sigmoid(x) | Howard et al. 2019 |
| step | 1 if x >= 0 else 0 (no gradient) | Rosenblatt 1958 |
"""
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import EngineError
from engine.kernels.elementary.normal import normal, times_normal
from engine.kernels.formula import Formula
from engine.kernels.gpu import THREADS, cuda, fours, is_aligned, kernel_of, load4, store4
from engine.kernels.op import Op, demand, floats, same
from engine.kernels.simd.parts import part
from engine.kernels.stream import flat_streaming, map_values, put_share, slope_values

# ------------------------------------------------------------------------------------------------------------ formulas

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
GELU_C = math.sqrt(2 / math.pi)
INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


def sigmoid_at(x):
    # exp of a negative number only: it cannot overflow, and both tails keep their full relative accuracy
    e = math.exp(-abs(x))
    return (1 if x >= 0 else e) / (1 + e)


def softplus_at(x):
    return (0 if x < 0 else x) + math.log1p(math.exp(-abs(x)))


def gelu_slope(x):
    return normal(x) + x * INV_SQRT_2PI * math.exp(-0.5 * x * x)


def gelu_tanh_at(x):
    # (1 + tanh u) / 2 is sigmoid(2 u), which keeps its relative accuracy where tanh u is nearly -1
    return x * sigmoid_at(2 * GELU_C * (x + 0.044715 * x * x * x))


def gelu_tanh_slope(x):
    s = sigmoid_at(2 * GELU_C * (x + 0.044715 * x * x * x))
    return s + 2 * x * s * (1 - s) * GELU_C * (1 + 3 * 0.044715 * x * x)


def silu_slope(x):
    s = sigmoid_at(x)
    return s + x * s * (1 - s)


def mish_slope(x):
    t = math.tanh(softplus_at(x))
    return t + x * sigmoid_at(x) * (1 - t * t)


@dataclass(frozen=True)
class Activation:
    """f and its derivative as formulas; `slope_of` says whether the derivative takes the input x or the output y."""
    name: str
    f: Formula
    slope: Formula = None                    # None: no gradient passes
    slope_of: str = "x"
    truth: Callable = None                   # f in NumPy, written on its own; None: the formula value by value

    @functools.cached_property
    def op(self):
        """The op y = f(x)."""
        def arrange(inputs, outputs, attributes, threads):
            return flat_streaming(inputs, outputs, {"f": self.f}, threads)

        def grad(graph, node, dy):
            at = node.inputs[0] if self.slope_of == "x" else node.outputs[0]
            return (graph.add(self.slope_op, dy, at),)

        return Op(self.name, self.reference, map_shapes, map_cpu, map_cuda, _samples, arrange,
                  None if self.slope is None else grad, inplace={0: 0}, activation=self,
                  formula=lambda attributes: (self.f, ()))

    @functools.cached_property
    def slope_op(self):
        """The op dx = dy * f'(x), or None."""
        if self.slope is None:
            return None

        def arrange(inputs, outputs, attributes, threads):
            return flat_streaming(inputs, outputs, {"slope": self.slope}, threads)

        def reference(dy, at):
            return dy * np.vectorize(self.slope.python, otypes=[np.float64])(at) if at.size else dy * at

        def samples(rng):
            for (x,), _ in _samples(rng):
                x = np.clip(x, -1e3, 1e3)
                yield (rng.standard_normal(x.shape), self.reference(x) if self.slope_of == "y" else x), {}

        return Op(f"{self.name}_grad", reference, slope_shapes, scale_by_slope_cpu, scale_by_slope_cuda, samples,
                  arrange, inplace={0: 0}, slope=self, formula=lambda attributes: (times_slope(self.slope), ()))

    def nodes(self, graph, x):
        """Adds y = f(x) to a graph."""
        return graph.add(self.op, x)

    @property
    def reference(self):
        """f in NumPy: written on its own for the built-in activations, the formula value by value for a user's."""
        return self.truth or (lambda x: np.vectorize(self.f.python, otypes=[np.float64])(x) if x.size else x)

    def __repr__(self):
        return self.name


@functools.cache
def times_slope(slope):
    """The formula dy * slope(x)."""
    return Formula(lambda dy, x: dy * slope(x), f"times_{slope.name}")


def activation(name, f, slope=None, slope_of="x", truth=None):
    """An activation from scalar Python functions; `slope` is the derivative as a function of x or (slope_of="y") of y;
    `truth` is f in NumPy, if it is to be checked against more than itself.

    >>> cube = activation("cube", lambda x: x * x * x, lambda x: 3 * x * x)
    """
    if slope_of not in ("x", "y"):
        raise EngineError(f"activation {name}: expected slope_of 'x' or 'y', got {slope_of!r}")
    return Activation(name, Formula(f, name), None if slope is None else Formula(slope, f"{name}_slope"), slope_of,
                      truth)


def relu_at(x):
    return 0 if x < 0 else x


def relu6_at(x):
    return 0 if x <= 0 else 6 if x >= 6 else x


def elu_at(x):
    return x if x > 0 else math.expm1(x)


def selu_at(x):
    return SELU_SCALE * (x if x > 0 else SELU_ALPHA * math.expm1(x))


def hard_sigmoid_at(x):
    return 0 if x <= -3 else 1 if x >= 3 else x / 6 + 0.5


def hard_swish_at(x):
    return 0 if x <= -3 else x if x >= 3 else x * (x / 6 + 0.5)


_BUILT_IN = (
    activation("sigmoid", sigmoid_at, lambda y: y * (1 - y), "y"),
    activation("tanh", lambda x: math.tanh(x), lambda y: 1 - y * y, "y"),
    activation("relu", relu_at, lambda y: 1 if y > 0 else 0, "y"),
    activation("relu6", relu6_at, lambda y: 1 if 0 < y < 6 else 0, "y"),
    activation("leaky_relu", lambda x: x if x > 0 else 0.01 * x, lambda y: 1 if y > 0 else 0.01, "y"),
    activation("elu", elu_at, lambda y: 1 if y > 0 else y + 1, "y"),
    activation("selu", selu_at, lambda y: SELU_SCALE if y > 0 else y + SELU_SCALE * SELU_ALPHA, "y"),
    activation("gelu", lambda x: times_normal(x), gelu_slope),
    activation("gelu_tanh", gelu_tanh_at, gelu_tanh_slope),
    activation("silu", lambda x: x * sigmoid_at(x), silu_slope),
    activation("softplus", softplus_at, sigmoid_at),
    activation("mish", lambda x: x * math.tanh(softplus_at(x)), mish_slope),
    activation("hard_sigmoid", hard_sigmoid_at, lambda x: 1 / 6 if abs(x) < 3 else 0),
    activation("hard_swish", hard_swish_at, lambda x: 0 if x <= -3 else 1 if x >= 3 else x / 3 + 0.5),
    activation("step", lambda x: 1 if x >= 0 else 0),
)

# ----------------------------------------------------------------------------------------------------- NumPy reference


def _sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def _phi(x):
    """The normal distribution function; NumPy has no erf."""
    return 0.5 * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2))


REFERENCES = {
    "sigmoid": _sigmoid, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * _phi(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))),
    "silu": lambda x: x * _sigmoid(x), "softplus": lambda x: np.logaddexp(0, x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)), "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1), "step": lambda x: np.where(x >= 0, 1.0, 0.0),
}

ACTIVATIONS = {a.name: replace(a, truth=REFERENCES[a.name]) for a in _BUILT_IN}

# ---------------------------------------------------------------------------------------------------------------- CPU


@part
def map_cpu(x, f, out, store, task, tasks):
    """out[i] = f(x[i])"""
    put_share(map_values, (x,), f, (), out, store, task, tasks)


@part
def scale_by_slope_cpu(dy, x, slope, dx, store, task, tasks):
    """dx[i] = dy[i] * slope(x[i]); x may be the output y"""
    put_share(slope_values, (dy, x), slope, (), dx, store, task, tasks)


# --------------------------------------------------------------------------------------------------------------- CUDA
# Four values a thread, in accesses of 16 bytes; the last few, and arrays that begin between them, one by one.


@kernel_of
def _map_cuda(f):
    def map_values(x, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= x.size and is_aligned(x) and is_aligned(out):
            p, q, r, s = load4(x, i)
            store4(out, i, f(p), f(q), f(r), f(s))
        else:
            for k in range(4):
                if i + k < x.size:
                    out[i + k] = f(x[i + k])
    return map_values


@kernel_of
def _scale_by_slope_cuda(slope):
    def scale_by_slope(dy, at, dx):
        i = 4 * cuda.grid(1)
        if i + 4 <= dy.size and is_aligned(dy) and is_aligned(at) and is_aligned(dx):
            a, b, c, d = load4(dy, i)
            p, q, r, s = load4(at, i)
            store4(dx, i, a * slope(p), b * slope(q), c * slope(r), d * slope(s))
        else:
            for k in range(4):
                if i + k < dy.size:
                    dx[i + k] = dy[i + k] * slope(at[i + k])
    return scale_by_slope


def map_cuda(x, f, out):
    _map_cuda(f, x.dtype)[fours(x.size), THREADS](x, out)


def scale_by_slope_cuda(dy, at, slope, dx):
    _scale_by_slope_cuda(slope, dy.dtype)[fours(dy.size), THREADS](dy, at, dx)


# ------------------------------------------------------------------------------------------------------------ records


def map_shapes(x):
    floats(x)
    return same((x,))


def slope_shapes(dy, at):
    floats(dy, at)
    demand(dy.shape == at.shape, f"dy of the shape of its partner, {at.shape}", dy.shape)
    return same((dy,))


def _samples(rng):
    for shape in ((0,), (1,), (7,), (3, 5), (33, 17)):
        yield (rng.standard_normal(shape) * 3,), {}
    yield (np.array([-1e30, -700.0, -88.0, -3.5, -2.5, -1e-20, 1e-20, 2.5, 3.5, 88.0, 700.0, 1e30]),), {}


OPS = tuple(op for a in ACTIVATIONS.values() for op in (a.op, a.slope_op) if op is not None)
