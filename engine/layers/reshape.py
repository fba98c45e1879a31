"""Reshape of every sample."""
import math

from engine.layers.layer import Layer, register


@register
class Reshape(Layer):
    """Every sample gets `target_shape` (without the batch axis; one entry may be -1); costs nothing."""

    def __init__(self, target_shape, name=None):
        super().__init__(name)
        self.target_shape = tuple(target_shape)

    def output_shape(self, shape):
        size, known = math.prod(shape), math.prod(s for s in self.target_shape if s != -1)
        fits = size == known if -1 not in self.target_shape else known > 0 and size % known == 0
        if not fits or self.target_shape.count(-1) > 1:
            self.refuse(f"with as many values as {self.target_shape}", shape)
        return tuple(size // known if s == -1 else s for s in self.target_shape)

    def nodes(self, graph, x, weights, context):
        return graph.add("reshape", x, shape=(x.shape[0], *self.output_shape(x.shape[1:])))
