"""Convolution over images (LeCun et al. 1989; Fukushima 1980)."""
from engine.kernels.pool import windows_of
from engine.layers.activations import find
from engine.layers.layer import Layer, Weight, register
from engine.layers.windows import around, channels_last, spread, whole


@register
class Conv2D(Layer):
    """x (n, h, w, c) -> f(conv(x, kernel (r, s, c / groups, filters)) + bias), of shape (n, p, q, filters).

    kernel_size, strides, dilation   a whole number, or (rows, columns)
    padding      "valid" (none), "same" (p = ceil(h / stride)), a whole number for all sides, (rows, columns), or
                 ((top, bottom), (left, right))
    groups       the channels in so many groups, each with filters / groups outputs of its own

    >>> Conv2D(64, 3, padding="same", activation="relu")
    """

    def __init__(self, filters, kernel_size, strides=1, padding="valid", dilation=1, groups=1, activation=None,
                 use_bias=True, data_format="channels_last", kernel_initializer="glorot_uniform",
                 bias_initializer="zeros", input_shape=None, name=None, trainable=True):
        super().__init__(name, trainable)
        kind = type(self).__name__
        self.filters, self.groups = whole(filters, "filters", kind), whole(groups, "groups", kind)
        self.kernel_size = spread(kernel_size, 2, kind, "kernel_size")
        self.strides, self.dilation = spread(strides, 2, kind, "strides"), spread(dilation, 2, kind, "dilation")
        self.padding = padding
        around((1, 1), (1, 1), (1, 1), padding, kind)        # refuses what is no padding
        self.activation, self.use_bias = find(activation), use_bias
        self.data_format = channels_last(data_format, kind)
        self.kernel_initializer, self.bias_initializer = kernel_initializer, bias_initializer
        self.input_shape = None if input_shape is None else tuple(input_shape)
        if filters % groups:
            raise ValueError(f"{kind}: expected filters that {groups} groups can share, got {filters}")

    def _padding(self, size):
        """(top, bottom, left, right) for an image of `size` (rows, columns)."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation)]
        return tuple(v for side in around(size, reach, self.strides, self.padding, self.name) for v in side)

    def groups_of(self, channels):
        """Groups for an image of so many channels."""
        return self.groups

    def output_shape(self, shape):
        if len(shape) != 3:
            self.refuse("(n, rows, columns, channels)", shape,
                        "is the axis of channels missing? x[..., None] adds it" if len(shape) == 2 else "")
        if shape[2] % self.groups or not shape[2]:
            self.refuse(f"(n, rows, columns, a multiple of {self.groups} channels)", shape)
        made = windows_of(shape[:2], self.kernel_size, self.strides, self._padding(shape[:2]), self.dilation)
        if min(made) < 1:
            self.refuse(f"at least as large as its window {self.kernel_size} with padding {self.padding}", shape,
                        "is the image too small for so many layers, or are channels not the last axis?")
        return (*made, self.filters)

    def weights(self, shape):
        kernel = Weight("kernel", (*self.kernel_size, shape[2] // self.groups, self.filters), self.kernel_initializer)
        return [kernel, Weight("bias", (self.filters,), self.bias_initializer)] if self.use_bias else [kernel]

    def nodes(self, graph, x, weights, context):
        y = convolve(graph, x, weights["kernel"], weights.get("bias"), stride=self.strides,
                     padding=self._padding(x.shape[1:3]), dilation=self.dilation, groups=self.groups_of(x.shape[3]))
        return y if self.activation is None else self.activation.nodes(graph, y)


def convolve(graph, x, kernel, bias, **attributes):
    """The convolution's node, with or without a bias."""
    if bias is None:
        return graph.add("conv2d_plain", x, kernel, **attributes)
    return graph.add("conv2d", x, kernel, bias, **attributes)
