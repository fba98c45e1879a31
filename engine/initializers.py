"""Initialisers: what a weight is before training. All draw from the counter-based generator, so that the same seed
gives the same bits on every target.

| name | distribution | source |
|---|---|---|
| GlorotUniform, GlorotNormal | variance 2 / (fan_in + fan_out) | Glorot, Bengio 2010 |
| HeUniform, HeNormal | variance 2 / fan_in | He et al. 2015 |
| LecunUniform, LecunNormal | variance 1 / fan_in | LeCun et al. 1998 |
| Orthogonal | orthonormal rows or columns | Saxe et al. 2014 |
"""
import math

import numpy as np

from engine.kernels import TABLE
from engine.registry import Configured, Registry

INITIALIZERS = Registry("initializer")


class Initializer(Configured):
    """Subclasses give `values(shape, dtype, counter, stream)`: an array on the host.

    counter: int64 [seed, step]; stream: a number of its own for each weight of a model.
    """

    def values(self, shape, dtype, counter, stream):
        raise NotImplementedError(f"{type(self).__name__}: an initialiser needs a method values(...)")


def _uniform(shape, dtype, counter, stream, low, high):
    return TABLE["uniform"](counter, shape=tuple(shape), low=float(low), high=float(high), stream=stream,
                            dtype=np.dtype(dtype).name)


def _normal(shape, dtype, counter, stream, mean, std):
    return TABLE["normal"](counter, shape=tuple(shape), mean=float(mean), std=float(std), stream=stream,
                           dtype=np.dtype(dtype).name)


def fans(shape):
    """(fan_in, fan_out) of a weight: for (i, o) those two; a convolution's leading axes count as its window."""
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


@INITIALIZERS.aliases()
class Constant(Initializer):
    """Every value the same."""

    def __init__(self, value=0.0):
        self.value = value

    def values(self, shape, dtype, counter, stream):
        return np.full(shape, self.value, dtype)


@INITIALIZERS.aliases()
class Zeros(Initializer):
    """0 everywhere."""

    def values(self, shape, dtype, counter, stream):
        return np.zeros(shape, dtype)


@INITIALIZERS.aliases()
class Ones(Initializer):
    """1 everywhere."""

    def values(self, shape, dtype, counter, stream):
        return np.ones(shape, dtype)


@INITIALIZERS.aliases("random_uniform")
class Uniform(Initializer):
    """Between low and high."""

    def __init__(self, low=-0.05, high=0.05):
        self.low, self.high = low, high

    def values(self, shape, dtype, counter, stream):
        return _uniform(shape, dtype, counter, stream, self.low, self.high)


@INITIALIZERS.aliases("random_normal")
class Normal(Initializer):
    """Normal with mean and standard deviation."""

    def __init__(self, mean=0.0, std=0.05):
        self.mean, self.std = mean, std

    def values(self, shape, dtype, counter, stream):
        return _normal(shape, dtype, counter, stream, self.mean, self.std)


class _Scaled(Initializer):
    """Variance `gain` / (fan_in, or the mean of both fans)."""
    gain, both, normal = 1.0, False, False

    def values(self, shape, dtype, counter, stream):
        fan_in, fan_out = fans(shape)
        variance = self.gain / max(1, (fan_in + fan_out) / 2 if self.both else fan_in)
        if self.normal:
            return _normal(shape, dtype, counter, stream, 0, math.sqrt(variance))
        limit = math.sqrt(3 * variance)
        return _uniform(shape, dtype, counter, stream, -limit, limit)


@INITIALIZERS.aliases("xavier_uniform")
class GlorotUniform(_Scaled):
    """Uniform with variance 2 / (fan_in + fan_out): keeps the size of signals under tanh and sigmoid."""
    both = True


@INITIALIZERS.aliases("xavier_normal")
class GlorotNormal(_Scaled):
    """Normal with variance 2 / (fan_in + fan_out)."""
    both, normal = True, True


@INITIALIZERS.aliases("kaiming_uniform")
class HeUniform(_Scaled):
    """Uniform with variance 2 / fan_in: keeps the size of signals under ReLU."""
    gain = 2.0


@INITIALIZERS.aliases("kaiming_normal")
class HeNormal(_Scaled):
    """Normal with variance 2 / fan_in."""
    gain, normal = 2.0, True


@INITIALIZERS.aliases()
class LecunUniform(_Scaled):
    """Uniform with variance 1 / fan_in."""


@INITIALIZERS.aliases()
class LecunNormal(_Scaled):
    """Normal with variance 1 / fan_in: what SELU is made for."""
    normal = True


@INITIALIZERS.aliases()
class Orthogonal(Initializer):
    """Orthonormal columns (or rows, when there are fewer of them), times gain."""

    def __init__(self, gain=1.0):
        self.gain = gain

    def values(self, shape, dtype, counter, stream):
        rows, cols = math.prod(shape[:-1]), shape[-1]
        drawn = _normal((max(rows, cols), min(rows, cols)), np.float64, counter, stream, 0, 1)
        q, r = np.linalg.qr(drawn)
        q = q * np.sign(np.diag(r))          # makes the distribution uniform (Mezzadri 2007)
        q = q if rows >= cols else q.T
        return np.ascontiguousarray(self.gain * q.reshape(shape), dtype)


def get(given):
    """An initialiser from an object, a class, a name or a configuration."""
    return INITIALIZERS.build(given)
