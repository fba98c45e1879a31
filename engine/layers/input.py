"""The input's shape, said ahead of the data."""
from engine.layers.layer import Layer, register


@register
class Input(Layer):
    """States the shape of one sample, so that the model is built at once: `Input((28, 28))`, `Input(784)`."""

    def __init__(self, shape, name=None):
        super().__init__(name)
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)

    def output_shape(self, shape):
        if tuple(shape) != self.shape:
            self.refuse(f"(n{''.join(f', {s}' for s in self.shape)})", shape)
        return shape

    def nodes(self, graph, x, weights, context):
        return x
