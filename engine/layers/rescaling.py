"""Fixed changes of scale: what has to happen to every x, in training and afterwards, is a layer of the model."""
import math

import numpy as np

from engine.layers.layer import Layer, register


class _Scaling(Layer):
    """y = scale x + offset, numbers or one of each for every value of the last axis (channels)."""

    def numbers(self):
        """(scale, offset)"""
        raise NotImplementedError

    def output_shape(self, shape):
        for given in self.numbers():
            if np.ndim(given) and (not shape or np.shape(given) != shape[-1:]):
                self.refuse(f"(n, ..., {np.size(given)}), one number for each channel", shape)
        return shape

    def nodes(self, graph, x, weights, context):
        scale, offset = self.numbers()
        if not np.ndim(scale) and not np.ndim(offset):
            return graph.add("scale", x, factor=float(scale), offset=float(offset))
        channels = np.broadcast_arrays(np.asarray(scale, x.dtype), np.asarray(offset, x.dtype))
        factor, shift = (graph.constant(c, name) for c, name in zip(channels, ("scale", "offset")))
        return graph.add("add", graph.add("mul", x, factor), shift)


@register
class Rescaling(_Scaling):
    """y = scale x + offset; `Rescaling(1 / 255)` begins a model for images of bytes. Each a number or a list of one for
    every channel."""

    def __init__(self, scale, offset=0.0, name=None):
        super().__init__(name)
        self.scale, self.offset = _plain(scale), _plain(offset)

    def numbers(self):
        return self.scale, self.offset


@register
class Normalize(_Scaling):
    """y = (x - mean) / std, of which each is a number or a list of one for every channel: as measured on the training
    data."""

    def __init__(self, mean, std, name=None):
        super().__init__(name)
        self.mean, self.std = _plain(mean), _plain(std)
        if not np.all(np.asarray(self.std) > 0):
            raise ValueError(f"Normalize: expected std above 0, got {std!r}")

    def numbers(self):
        scale = 1 / np.asarray(self.std)
        return scale, -np.asarray(self.mean) * scale


def _plain(given):
    """A number, or a list of them: what JSON can hold."""
    made = np.asarray(given, np.float64)
    if made.ndim > 1 or not all(map(math.isfinite, made.ravel())):
        raise ValueError(f"expected a finite number or a list of one for each channel, got {given!r}")
    return made.tolist()
