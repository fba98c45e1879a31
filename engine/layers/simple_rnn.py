"""The simple recurrent network (Elman 1990)."""
from engine.kernels.activation import Activation
from engine.layers.activations import find
from engine.layers.layer import register
from engine.layers.recurrent import Recurrent


@register
class SimpleRNN(Recurrent):
    """h = f(x kernel + h' recurrent_kernel + bias) at each step of x (n, steps, features), h' the output before; gives
    the last output (n, units), or with return_sequences those of all steps (n, steps, units). reverse reads from the
    last step to the first.

    activation: "tanh", "relu", or another whose derivative is a function of its value. PyTorch's nn.RNN: its weights
    transposed, and the sum of its two biases.

    >>> Sequential([SimpleRNN(32, activation="relu", input_shape=(28, 28)), Dense(10)])
    """

    def __init__(self, units, activation="tanh", return_sequences=False, reverse=False,
                 kernel_initializer="glorot_uniform", recurrent_initializer="orthogonal", bias_initializer="zeros",
                 input_shape=None, name=None, trainable=True):
        super().__init__(units, return_sequences, reverse, kernel_initializer, recurrent_initializer, bias_initializer,
                         input_shape, name, trainable)
        self.activation = find(activation)
        if not isinstance(self.activation, Activation) or self.activation.slope_of != "y":
            raise ValueError(f"SimpleRNN: expected an activation whose derivative is a function of its value (tanh, "
                             f"relu, sigmoid, elu, ...), got {activation!r}")

    def steps(self, graph, z, weights):
        return graph.add("simple_rnn", z, weights["recurrent_kernel"], activation=self.activation,
                         reverse=bool(self.reverse))
