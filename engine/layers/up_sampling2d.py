"""Images enlarged."""
from engine.layers.layer import Layer, register
from engine.layers.windows import spread


@register
class UpSampling2D(Layer):
    """Images x (n, height, width, channels) enlarged `size` times: a whole number, or (rows, columns).

    interpolation   "nearest" repeats values, "bilinear" takes weighted means of neighbours
    align_corners   bilinear: the corners' values stay at the corners (PyTorch's sense)

    >>> x = np.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    >>> engine.Sequential([engine.UpSampling2D((1, 2), "bilinear")]).predict(x).ravel()
    array([0., 1., 3., 4.], dtype=float32)
    """

    def __init__(self, size=2, interpolation="nearest", align_corners=False, name=None):
        super().__init__(name)
        self.size, self.interpolation, self.align_corners = size, interpolation, align_corners
        spread(size, 2, "UpSampling2D", "size")
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(f'UpSampling2D: expected interpolation "nearest" or "bilinear", got {interpolation!r}')
        if align_corners and interpolation == "nearest":
            raise ValueError("UpSampling2D: align_corners has a meaning for bilinear interpolation only")

    def output_shape(self, shape):
        if len(shape) != 3:
            self.refuse("(n, height, width, channels)", shape)
        rows, columns = spread(self.size, 2, self.name, "size")
        return shape[0] * rows, shape[1] * columns, shape[2]

    def nodes(self, graph, x, weights, context):
        size = self.output_shape(x.shape[1:])[:2]
        if self.interpolation == "nearest":
            return graph.add("upsample_nearest", x, size=size)
        return graph.add("upsample_bilinear", x, size=size, align_corners=bool(self.align_corners))
