"""The largest value of each channel."""
from engine.layers.layer import Layer, register
from engine.layers.windows import axes_of


@register
class GlobalMaxPool(Layer):
    """y (n, c) = the largest value of each channel of x (n, l, c) or (n, h, w, c).

    >>> engine.Sequential([engine.GlobalMaxPool()]).predict(np.arange(4).reshape(1, 2, 2, 1))
    array([[3.]], dtype=float32)
    """

    def __init__(self, name=None):
        super().__init__(name)

    def output_shape(self, shape):
        axes_of(self, shape)
        return shape[-1:]

    def nodes(self, graph, x, weights, context):
        return graph.add("max", x, axis=tuple(range(1, x.ndim - 1)))
