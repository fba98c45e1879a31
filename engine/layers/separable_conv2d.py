"""Depthwise separable convolution: a depthwise one, then one of 1x1 across the channels (Chollet 2016)."""
from engine.layers.conv2d import Conv2D, convolve
from engine.layers.layer import Weight, register
from engine.layers.windows import whole


@register
class SeparableConv2D(Conv2D):
    """x (n, h, w, c) -> (n, p, q, filters).

    depthwise_kernel (r, s, 1, c depth_multiplier) without bias or activation, then pointwise_kernel
    (1, 1, c depth_multiplier, filters), bias and activation; the other arguments are Conv2D's.
    """

    def __init__(self, filters, kernel_size, strides=1, padding="valid", depth_multiplier=1, dilation=1,
                 activation=None, use_bias=True, data_format="channels_last", kernel_initializer="glorot_uniform",
                 bias_initializer="zeros", input_shape=None, name=None, trainable=True):
        super().__init__(filters, kernel_size, strides, padding, dilation, 1, activation, use_bias, data_format,
                         kernel_initializer, bias_initializer, input_shape, name, trainable)
        self.depth_multiplier = whole(depth_multiplier, "depth_multiplier", "SeparableConv2D")

    def weights(self, shape):
        made = shape[2] * self.depth_multiplier
        found = [Weight("depthwise_kernel", (*self.kernel_size, 1, made), self.kernel_initializer),
                 Weight("pointwise_kernel", (1, 1, made, self.filters), self.kernel_initializer)]
        return found + ([Weight("bias", (self.filters,), self.bias_initializer)] if self.use_bias else [])

    def nodes(self, graph, x, weights, context):
        y = convolve(graph, x, weights["depthwise_kernel"], None, stride=self.strides,
                     padding=self._padding(x.shape[1:3]), dilation=self.dilation, groups=x.shape[3])
        y = convolve(graph, y, weights["pointwise_kernel"], weights.get("bias"))
        return y if self.activation is None else self.activation.nodes(graph, y)
