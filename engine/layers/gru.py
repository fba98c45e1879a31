"""The gated recurrent unit (Cho et al. 2014)."""
from engine.layers.layer import Weight, register
from engine.layers.recurrent import Recurrent


@register
class GRU(Recurrent):
    """Reads x (n, steps, features) step by step; gives the last output (n, units), or with return_sequences those of
    all steps (n, steps, units). reverse reads from the last step to the first.

    kernel (features, 3 units), recurrent_kernel (units, 3 units) and bias hold the gates side by side in PyTorch's
    order (reset, update, candidate), and the reset gate comes after the product, as in PyTorch: its weights
    transposed; bias is the sum of its two biases but for the candidate, whose second one is recurrent_bias (units,).

    >>> Sequential([GRU(32, input_shape=(28, 28)), Dense(10)])
    """
    gates = 3

    def weights(self, shape):
        return [*super().weights(shape), Weight("recurrent_bias", (self.units,), self.bias_initializer)]

    def steps(self, graph, z, weights):
        return graph.add("gru", z, weights["recurrent_kernel"], weights["recurrent_bias"],
                         reverse=bool(self.reverse))[0]
