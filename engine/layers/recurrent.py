"""What LSTM, GRU and SimpleRNN have in common: one product for the inputs of all steps, then the op over the steps."""
from engine.kernels.matmul import DENSE
from engine.layers.layer import Layer, Weight


class Recurrent(Layer):
    """Base of the recurrent layers. A subclass says how many `gates` its kernels hold side by side and adds its op."""
    gates = 1

    def __init__(self, units, return_sequences=False, reverse=False, kernel_initializer="glorot_uniform",
                 recurrent_initializer="orthogonal", bias_initializer="zeros", input_shape=None, name=None,
                 trainable=True):
        super().__init__(name, trainable)
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise ValueError(f"{type(self).__name__}: expected units to be a whole number of at least 1, got {units!r}")
        self.units, self.return_sequences, self.reverse = units, return_sequences, reverse
        self.kernel_initializer, self.recurrent_initializer = kernel_initializer, recurrent_initializer
        self.bias_initializer = bias_initializer
        self.input_shape = None if input_shape is None else tuple(input_shape)

    def output_shape(self, shape):
        if len(shape) != 2 or shape[0] < 1:
            self.refuse("(n, steps, features)", shape, "Reshape((steps, features)) makes sequences"
                        if len(shape) != 2 else "a sequence needs a step")
        return (shape[0], self.units) if self.return_sequences else (self.units,)

    def weights(self, shape):
        wide = self.gates * self.units
        return [Weight("kernel", (shape[1], wide), self.kernel_initializer),
                Weight("recurrent_kernel", (self.units, wide), self.recurrent_initializer),
                Weight("bias", (wide,), self.bias_initializer)]

    def nodes(self, graph, x, weights, context):
        n, steps, features = x.shape
        rows = graph.add("reshape", x, shape=(n * steps, features))
        z = graph.add(DENSE, rows, weights["kernel"], weights["bias"])
        y = self.steps(graph, graph.add("reshape", z, shape=(n, steps, z.shape[1])), weights)
        if self.return_sequences:
            return y
        last = 0 if self.reverse else steps - 1
        y = graph.add("slice", y, starts=(0, last), stops=(n, last + 1))
        return graph.add("reshape", y, shape=(n, self.units))

    def steps(self, graph, z, weights):
        """Adds the op: from z (n, t, gates units) to y (n, t, units)."""
        raise NotImplementedError(f"{type(self).__name__}: a recurrent layer needs a method steps(graph, z, weights)")
