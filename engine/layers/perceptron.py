"""Rosenblatt's perceptron (1958)."""
from engine.kernels.matmul import DENSE
from engine.layers.activations import find
from engine.layers.layer import Layer, Weight, register


@register
class Perceptron(Layer):
    """y = step(x w + b): each unit says 0 or 1. Train it with loss="perceptron", which looks at x w + b and moves the
    weights only for samples on the wrong side; with SGD at rate 1 that is Rosenblatt's rule."""

    def __init__(self, units=1, name=None, trainable=True):
        super().__init__(name, trainable)
        self.units = units

    def output_shape(self, shape):
        if len(shape) != 1:
            self.refuse("(n, features)", shape, "is a Flatten() missing before it?" if len(shape) > 1 else "")
        return (self.units,)

    def weights(self, shape):
        return [Weight("kernel", (shape[0], self.units)), Weight("bias", (self.units,))]

    def nodes(self, graph, x, weights, context):
        return find("step").nodes(graph, graph.add(DENSE, x, weights["kernel"], weights["bias"]))
