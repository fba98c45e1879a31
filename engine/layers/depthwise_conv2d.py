"""Depthwise convolution: every channel has kernels of its own (Sifre 2014; Howard et al. 2017)."""
from engine.layers.conv2d import Conv2D
from engine.layers.layer import Weight, register
from engine.layers.windows import whole


@register
class DepthwiseConv2D(Conv2D):
    """x (n, h, w, c) -> (n, p, q, c depth_multiplier): output channel c m + k comes from channel c alone.

    kernel (r, s, 1, c depth_multiplier); the other arguments are Conv2D's.
    """

    def __init__(self, kernel_size, strides=1, padding="valid", depth_multiplier=1, dilation=1, activation=None,
                 use_bias=True, data_format="channels_last", kernel_initializer="glorot_uniform",
                 bias_initializer="zeros", input_shape=None, name=None, trainable=True):
        super().__init__(1, kernel_size, strides, padding, dilation, 1, activation, use_bias, data_format,
                         kernel_initializer, bias_initializer, input_shape, name, trainable)
        self.depth_multiplier = whole(depth_multiplier, "depth_multiplier", "DepthwiseConv2D")

    def output_shape(self, shape):
        return (*super().output_shape(shape)[:2], shape[2] * self.depth_multiplier)

    def weights(self, shape):
        made = shape[2] * self.depth_multiplier
        kernel = Weight("kernel", (*self.kernel_size, 1, made), self.kernel_initializer)
        return [kernel, Weight("bias", (made,), self.bias_initializer)] if self.use_bias else [kernel]

    def groups_of(self, channels):
        return channels
