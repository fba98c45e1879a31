"""Convolution along a sequence."""
from engine.kernels.pool import windows_of
from engine.layers.activations import find
from engine.layers.conv2d import convolve
from engine.layers.layer import Layer, Weight, register
from engine.layers.windows import around, whole


@register
class Conv1D(Layer):
    """x (n, length, c) -> f(conv(x, kernel (r, c / groups, filters)) + bias), of shape (n, p, filters).

    padding   "valid", "same", a whole number for both ends, or (before, after); the other arguments are Conv2D's.
    It is computed as the convolution of an image of one row, which costs nothing to see it as.
    """

    def __init__(self, filters, kernel_size, strides=1, padding="valid", dilation=1, groups=1, activation=None,
                 use_bias=True, kernel_initializer="glorot_uniform", bias_initializer="zeros", input_shape=None,
                 name=None, trainable=True):
        super().__init__(name, trainable)
        self.filters, self.groups = whole(filters, "filters", "Conv1D"), whole(groups, "groups", "Conv1D")
        self.kernel_size = whole(kernel_size, "kernel_size", "Conv1D")
        self.strides, self.dilation = whole(strides, "strides", "Conv1D"), whole(dilation, "dilation", "Conv1D")
        self.padding = padding
        self._ends(1)
        self.activation, self.use_bias = find(activation), use_bias
        self.kernel_initializer, self.bias_initializer = kernel_initializer, bias_initializer
        self.input_shape = None if input_shape is None else tuple(input_shape)
        if filters % groups:
            raise ValueError(f"Conv1D: expected filters that {groups} groups can share, got {filters}")

    def _geometry(self, length):
        """(kernel, stride, padding, dilation) over an image of one row."""
        return (1, self.kernel_size), (1, self.strides), (0, 0, *self._ends(length)), (1, self.dilation)

    def _ends(self, length):
        """(before, after): the padding of a sequence of this length."""
        given = [self.padding] if isinstance(self.padding, (list, tuple)) else self.padding
        reach = self.dilation * (self.kernel_size - 1) + 1
        return around([length], [reach], [self.strides], given, self.name or "Conv1D")[0]

    def output_shape(self, shape):
        if len(shape) != 2:
            self.refuse("(n, length, channels)", shape)
        if shape[1] % self.groups or not shape[1]:
            self.refuse(f"(n, length, a multiple of {self.groups} channels)", shape)
        length = windows_of((1, shape[0]), *self._geometry(shape[0]))[1]
        if length < 1:
            self.refuse(f"at least as long as its window {self.kernel_size} with padding {self.padding}", shape)
        return (length, self.filters)

    def weights(self, shape):
        kernel = Weight("kernel", (self.kernel_size, shape[1] // self.groups, self.filters), self.kernel_initializer)
        return [kernel, Weight("bias", (self.filters,), self.bias_initializer)] if self.use_bias else [kernel]

    def nodes(self, graph, x, weights, context):
        _, stride, padding, dilation = self._geometry(x.shape[1])
        row = graph.add("reshape", x, shape=(x.shape[0], 1, *x.shape[1:]))
        kernel = graph.add("reshape", weights["kernel"], shape=(1, *weights["kernel"].shape))
        y = convolve(graph, row, kernel, weights.get("bias"), stride=stride, padding=padding, dilation=dilation,
                     groups=self.groups)
        y = graph.add("reshape", y, shape=(y.shape[0], *y.shape[2:]))
        return y if self.activation is None else self.activation.nodes(graph, y)
