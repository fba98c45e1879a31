"""Flatten: (n, ...) -> (n, product)."""
import math

from engine.layers.layer import Layer, register


@register
class Flatten(Layer):
    """Every sample becomes one row; costs nothing."""

    def __init__(self, name=None):
        super().__init__(name)

    def output_shape(self, shape):
        return (math.prod(shape),)

    def nodes(self, graph, x, weights, context):
        return graph.add("reshape", x, shape=(x.shape[0], math.prod(x.shape[1:])))
