"""The mean of a given number of windows."""
from engine.layers.layer import Layer, register
from engine.layers.windows import axes_of, image, like_input, spread


@register
class AdaptiveAvgPool(Layer):
    """y = the means of `output_size` windows along each axis, whatever the size of x (n, l, c) or (n, h, w, c).

    Window i of p over s places goes from floor(i s / p) to ceil((i + 1) s / p) - 1: windows may overlap, as in PyTorch.

    >>> engine.Sequential([engine.AdaptiveAvgPool((1, 2))]).predict(np.arange(6).reshape(1, 2, 3, 1)).ravel()
    array([2., 3.], dtype=float32)
    """

    def __init__(self, output_size, name=None):
        super().__init__(name)
        self.output_size = output_size
        spread(output_size, len(output_size) if isinstance(output_size, (list, tuple)) else 1, "AdaptiveAvgPool",
               "output_size")

    def output_shape(self, shape):
        axes = axes_of(self, shape)
        return (*spread(self.output_size, axes, self.name, "output_size"), shape[-1])

    def nodes(self, graph, x, weights, context):
        output = (*self.output_shape(x.shape[1:])[:-1], 1)[:2]
        return like_input(graph, graph.add("adaptive_avg_pool2d", image(graph, x), output=output), x)
