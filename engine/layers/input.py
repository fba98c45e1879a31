"""The input's shape, said ahead of the data."""
from engine.layers.layer import Layer, register

FORMATS = ("channels_last", "channels_first")


@register
class Input(Layer):
    """States the shape of one sample, so that the model is built at once: `Input((28, 28))`, `Input(784)`.

    data_format   "channels_first": samples come as (channels, ...), as PyTorch has them; they are turned here, once, to
                  (..., channels), which is what all layers see

    >>> Input((3, 224, 224), data_format="channels_first")      # the next layer gets (n, 224, 224, 3)
    """

    def __init__(self, shape, data_format="channels_last", name=None):
        super().__init__(name)
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if data_format not in FORMATS:
            raise ValueError(f"Input: expected data_format {' or '.join(map(repr, FORMATS))}, got {data_format!r}")
        self.data_format = data_format

    def output_shape(self, shape):
        if tuple(shape) != self.shape:
            self.refuse(f"(n{''.join(f', {s}' for s in self.shape)})", shape)
        return shape if self.data_format == "channels_last" else (*shape[1:], *shape[:1])

    def nodes(self, graph, x, weights, context):
        if self.data_format == "channels_last" or x.ndim < 3:
            return x
        return graph.add("transpose", x, axes=(0, *range(2, x.ndim), 1))
