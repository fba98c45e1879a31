"""What pooling layers share: where windows lie, and what one window over the whole image is."""
from engine.kernels.pool import windows_of
from engine.layers.layer import Layer
from engine.layers.windows import around, axes_of, beyond_edge, image, like_input, spread


class Pooling(Layer):
    """Windows of `pool_size`, `strides` apart (None: side by side), over x (n, l, c) or (n, h, w, c)."""

    def __init__(self, pool_size, strides, padding, ceil_mode, dilation, name):
        super().__init__(name)
        self.pool_size, self.strides, self.padding = pool_size, strides, padding
        self.ceil_mode, self.dilation = ceil_mode, dilation
        given = [v for v in (pool_size, strides, padding, dilation) if isinstance(v, (list, tuple))]
        axes = len(given[0]) if given else 1
        self._places((1,) * axes, axes)      # what is wrong by itself is refused before there are data

    def _places(self, shape, axes):
        """{kernel, stride, dilation, padding, beyond} of images: an axis that x lacks has windows of one place."""
        name = self.name or type(self).__name__
        kernel = spread(self.pool_size, axes, name, "pool_size")
        stride = kernel if self.strides is None else spread(self.strides, axes, name, "strides")
        dilation = spread(self.dilation, axes, name, "dilation")
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
        size = shape[:axes]
        pads = around(size, reach, stride, self.padding, name)
        if any(p >= k for pair, k in zip(pads, reach) for p in pair):
            raise ValueError(f"{name}: expected a padding smaller than the window's {reach[0]} places, got "
                             f"{self.padding!r}: a window must not lie in the padding alone")
        beyond = beyond_edge(size, reach, stride, pads) if self.ceil_mode else [0] * axes
        short, more = (1,) * (2 - axes), [(0, 0)] * (2 - axes)
        return {"kernel": (*kernel, *short), "stride": (*stride, *short), "dilation": (*dilation, *short),
                "padding": tuple(k for pair in (*pads, *more) for k in pair), "beyond": (*beyond, 0)[:2]}

    def output_shape(self, shape):
        axes = axes_of(self, shape)
        at = self._places(shape, axes)
        size = (*shape[:axes], 1)[:2]
        found = windows_of(size, at["kernel"], at["stride"], wider(at), at["dilation"])
        if min(found) < 1:
            self.refuse(f"with at least one window of {at['kernel'][:axes]}", shape, "pool less often, or pad")
        return (*found[:axes], shape[-1])

    def pooled(self, graph, x, op, **attributes):
        """The nodes of `op` on x seen as images."""
        y = graph.add(op, image(graph, x), **attributes)
        return like_input(graph, y[0] if isinstance(y, tuple) else y, x)


def wider(at):
    """The padding, with what lies beyond it at the bottom and the right."""
    top, bottom, left, right = at["padding"]
    return top, bottom + at["beyond"][0], left, right + at["beyond"][1]


class GlobalPooling(Layer):
    """One number for each channel of x (n, l, c) or (n, h, w, c): the reduction `op` over all places."""
    op = ""

    def __init__(self, name=None):
        super().__init__(name)

    def output_shape(self, shape):
        axes_of(self, shape)
        return shape[-1:]

    def nodes(self, graph, x, weights, context):
        return graph.add(self.op, x, axis=tuple(range(1, x.ndim - 1)))
