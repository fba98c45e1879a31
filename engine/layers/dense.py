"""y = f(x w + b)"""
from engine.kernels.matmul import DENSE
from engine.layers.activations import find
from engine.layers.layer import Layer, Weight, register


@register
class Dense(Layer):
    """Every output sees every input: y (n, units) = f(x (n, i) @ kernel (i, units) + bias (units,)).

    activation: a name of `engine.kernels.activation.ACTIVATIONS` ("relu", "gelu", ...), "softmax", "log_softmax", an
    `engine.activation(...)` of your own, or None.

    >>> Dense(64, activation="relu")
    """

    def __init__(self, units, activation=None, use_bias=True, kernel_initializer="glorot_uniform",
                 bias_initializer="zeros", input_shape=None, name=None, trainable=True):
        super().__init__(name, trainable)
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise ValueError(f"Dense: expected units to be a whole number of at least 1, got {units!r}")
        self.units, self.activation, self.use_bias = units, find(activation), use_bias
        self.kernel_initializer, self.bias_initializer = kernel_initializer, bias_initializer
        self.input_shape = None if input_shape is None else tuple(input_shape)

    def output_shape(self, shape):
        if len(shape) != 1:
            self.refuse("(n, features)", shape, "is a Flatten() missing before it?" if len(shape) > 1 else "")
        return (self.units,)

    def weights(self, shape):
        kernel = Weight("kernel", (shape[0], self.units), self.kernel_initializer)
        return [kernel, Weight("bias", (self.units,), self.bias_initializer)] if self.use_bias else [kernel]

    def nodes(self, graph, x, weights, context):
        if self.use_bias:
            y = graph.add(DENSE, x, weights["kernel"], weights["bias"])
        else:
            y = graph.add("matmul", x, weights["kernel"])
        return y if self.activation is None else self.activation.nodes(graph, y)
