"""Residual block (He et al. 2015): y = x + f(x)."""
from engine.layers.layer import LAYERS, Layer, register


@register
class Residual(Layer):
    """Adds the input of a chain of layers to its output; both must have the same shape.

    >>> Residual([Dense(64, activation="relu"), Dense(64)])
    """

    def __init__(self, layers, name=None, trainable=True):
        super().__init__(name, trainable)
        self.layers = list(layers)

    @classmethod
    def from_config(cls, arguments, extra=()):
        return cls(**{**arguments, "layers": [LAYERS.build(c, extra) for c in arguments["layers"]]})

    def sublayers(self, shape):
        pairs = []
        for layer in self.layers:
            pairs.append((layer, shape))
            shape = layer.output_shape(shape)
        return pairs

    def output_shape(self, shape):
        out = shape
        for layer, given in self.sublayers(shape):
            out = layer.output_shape(given)
        if tuple(out) != tuple(shape):
            self.refuse(f"that its layers keep (they give (n, {', '.join(map(str, out))}))", shape)
        return shape

    def nodes(self, graph, x, weights, context):
        y = x
        for layer in self.layers:
            y = context.call(layer, y)
        return graph.add("add", x, y)
