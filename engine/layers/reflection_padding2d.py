"""Reflected images around images."""
from engine.layers.layer import register
from engine.layers.zero_padding2d import ZeroPadding2D


@register
class ReflectionPadding2D(ZeroPadding2D):
    """As ZeroPadding2D, but with the image's own values, reflected at its edges (which are not repeated).

    >>> x = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    >>> engine.Sequential([engine.ReflectionPadding2D((0, 2))]).predict(x).ravel()
    array([3., 2., 1., 2., 3., 2., 1.], dtype=float32)
    """

    def output_shape(self, shape):
        out = super().output_shape(shape)
        if any(p >= s for s, pair in zip(shape, self._pairs()) for p in pair):
            self.refuse("larger than what is reflected of it", shape, f"the padding is {self.padding}")
        return out

    def nodes(self, graph, x, weights, context):
        return graph.add("pad_reflect", x, padding=tuple(p for pair in self._pairs() for p in pair))
