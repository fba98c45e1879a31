"""The transposed convolution, which makes images larger (Zeiler et al. 2010)."""
import numpy as np

from engine.layers.activations import find
from engine.layers.layer import Layer, Weight, register
from engine.layers.windows import around, channels_last, spread, whole


@register
class Conv2DTranspose(Layer):
    """What the gradient of a convolution with these arguments makes of its output: (n, h, w, c) -> (n, p, q, filters).

    kernel (r, s, filters / groups, c). p = (h - 1) stride + dilation (r - 1) + 1 - padding + output_padding, where
    padding is the sum of both sides; with padding="same" p = h stride.
    """

    def __init__(self, filters, kernel_size, strides=1, padding="valid", output_padding=0, dilation=1, groups=1,
                 activation=None, use_bias=True, data_format="channels_last", kernel_initializer="glorot_uniform",
                 bias_initializer="zeros", input_shape=None, name=None, trainable=True):
        super().__init__(name, trainable)
        kind = "Conv2DTranspose"
        self.filters, self.groups = whole(filters, "filters", kind), whole(groups, "groups", kind)
        self.kernel_size = spread(kernel_size, 2, kind, "kernel_size")
        self.strides, self.dilation = spread(strides, 2, kind, "strides"), spread(dilation, 2, kind, "dilation")
        self.padding = padding
        self.output_padding = spread(output_padding, 2, kind, "output_padding", 0)
        around((1, 1), (1, 1), (1, 1), padding, kind)        # refuses what is no padding
        self.activation, self.use_bias = find(activation), use_bias
        self.data_format = channels_last(data_format, kind)
        self.kernel_initializer, self.bias_initializer = kernel_initializer, bias_initializer
        self.input_shape = None if input_shape is None else tuple(input_shape)
        if any(more >= step for more, step in zip(self.output_padding, self.strides)):
            raise ValueError(f"{kind}: expected output_padding below strides {self.strides}, got {self.output_padding}")
        if padding == "same" and any(self.output_padding):
            raise ValueError(f"{kind}: padding=\"same\" already says the output's size; output_padding has to be 0")
        if filters % groups:
            raise ValueError(f"{kind}: expected filters that {groups} groups can share, got {filters}")

    def _geometry(self, size):
        """(padding, output_padding) for an image of `size`."""
        made = tuple(s * step for s, step in zip(size, self.strides))       # with "same"
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation)]
        padding = tuple(v for side in around(made, reach, self.strides, self.padding, self.name) for v in side)
        if self.padding != "same":
            return padding, self.output_padding
        return padding, tuple(want - got for want, got in zip(made, self._made(size, padding, (0, 0))))

    def _made(self, size, padding, more):
        return tuple((s - 1) * self.strides[i] + self.dilation[i] * (self.kernel_size[i] - 1) + 1
                     - padding[2 * i] - padding[2 * i + 1] + more[i] for i, s in enumerate(size))

    def output_shape(self, shape):
        if len(shape) != 3:
            self.refuse("(n, rows, columns, channels)", shape)
        if shape[2] % self.groups or not shape[2]:
            self.refuse(f"(n, rows, columns, a multiple of {self.groups} channels)", shape)
        made = self._made(shape[:2], *self._geometry(shape[:2]))
        if min(made) < 1:
            self.refuse(f"of which padding {self.padding} leaves something", shape)
        return (*made, self.filters)

    def weights(self, shape):
        kernel = Weight("kernel", (*self.kernel_size, self.filters // self.groups, shape[2]), self.kernel_initializer)
        return [kernel, Weight("bias", (self.filters,), self.bias_initializer)] if self.use_bias else [kernel]

    def nodes(self, graph, x, weights, context):
        padding, more = self._geometry(x.shape[1:3])
        bias = weights["bias"] if self.use_bias else graph.constant(np.zeros(self.filters, x.dtype), "no_bias")
        y = graph.add("conv2d_transpose", x, weights["kernel"], bias, stride=self.strides, padding=padding,
                      output_padding=more, dilation=self.dilation, groups=self.groups)
        return y if self.activation is None else self.activation.nodes(graph, y)
