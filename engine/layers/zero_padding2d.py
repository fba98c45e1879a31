"""Zeros around images."""
from engine.layers.layer import Layer, register
from engine.layers.windows import around


@register
class ZeroPadding2D(Layer):
    """Zeros around images x (n, height, width, channels): a number of places, (rows, columns) with a number or a pair
    (before, after) each.

    >>> engine.Sequential([engine.ZeroPadding2D(((0, 1), (2, 0)))]).build((3, 3, 1)).network.output_shape
    (4, 5, 1)
    """

    def __init__(self, padding=1, name=None):
        super().__init__(name)
        self.padding = padding
        self._pairs()

    def _pairs(self):
        if isinstance(self.padding, str):
            raise ValueError(f"{type(self).__name__}: expected padding in numbers, got {self.padding!r}")
        return around((1, 1), (1, 1), (1, 1), self.padding, self.name or type(self).__name__)

    def output_shape(self, shape):
        if len(shape) != 3:
            self.refuse("(n, height, width, channels)", shape)
        return (*(s + sum(pair) for s, pair in zip(shape, self._pairs())), shape[2])

    def nodes(self, graph, x, weights, context):
        (top, bottom), (left, right) = self._pairs()
        return graph.add("pad", x, before=(0, top, left, 0), after=(0, bottom, right, 0))
