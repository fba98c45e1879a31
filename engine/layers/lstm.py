"""Long short-term memory (Hochreiter, Schmidhuber 1997; Gers et al. 2000)."""
from engine.layers.layer import register
from engine.layers.recurrent import Recurrent


@register
class LSTM(Recurrent):
    """Reads x (n, steps, features) step by step; gives the last output (n, units), or with return_sequences those of
    all steps (n, steps, units). reverse reads from the last step to the first.

    kernel (features, 4 units), recurrent_kernel (units, 4 units) and bias hold the gates side by side in PyTorch's
    order (input, forget, candidate, output): PyTorch's weights transposed, and the sum of its two biases.

    >>> Sequential([LSTM(32, input_shape=(28, 28)), Dense(10)])
    """
    gates = 4

    def steps(self, graph, z, weights):
        return graph.add("lstm", z, weights["recurrent_kernel"], reverse=bool(self.reverse))[0]
