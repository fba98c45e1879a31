"""Self-attention with several heads (Vaswani et al. 2017)."""
import numpy as np

from engine.kernels.matmul import DENSE
from engine.layers.layer import Layer, Weight, register

PROJECTIONS = ("query", "key", "value")


@register
class MultiHeadAttention(Layer):
    """Each step of x (n, length, features) looks at all steps, or with causal at those up to itself; y like x.

    Queries, keys and values are x W + b, cut into `heads` pieces of key_dim (features / heads unless given); what the
    heads found is put side by side and goes through an output product. dropout: the rate at which attention weights
    are dropped in training (scores are then kept, and not made block by block).

    PyTorch's nn.MultiheadAttention: query_kernel, key_kernel, value_kernel are the thirds of in_proj_weight,
    transposed, and their biases those of in_proj_bias; output_kernel is out_proj.weight transposed.

    >>> Sequential([MultiHeadAttention(4, causal=True, input_shape=(16, 32)), Flatten(), Dense(10)])
    """

    def __init__(self, heads, key_dim=None, causal=False, use_bias=True, dropout=0.0,
                 kernel_initializer="glorot_uniform", bias_initializer="zeros", input_shape=None, name=None,
                 trainable=True):
        super().__init__(name, trainable)
        for word, given in (("heads", heads), ("key_dim", 1 if key_dim is None else key_dim)):
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise ValueError(f"MultiHeadAttention: expected {word} to be a whole number of at least 1, got "
                                 f"{given!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"MultiHeadAttention: expected dropout from 0 up to (not including) 1, got {dropout!r}")
        self.heads, self.key_dim, self.causal, self.use_bias, self.dropout = heads, key_dim, causal, use_bias, dropout
        self.kernel_initializer, self.bias_initializer = kernel_initializer, bias_initializer
        self.input_shape = None if input_shape is None else tuple(input_shape)

    def output_shape(self, shape):
        if len(shape) != 2:
            self.refuse("(n, length, features)", shape)
        if self.key_dim is None and shape[1] % self.heads:
            self.refuse(f"(n, length, a multiple of the {self.heads} heads)", shape, "key_dim says otherwise")
        return shape

    def weights(self, shape):
        features, width = shape[1], self.heads * (self.key_dim or shape[1] // self.heads)
        found = []
        for word, sizes in (*((p, (features, width)) for p in PROJECTIONS), ("output", (width, features))):
            found.append(Weight(f"{word}_kernel", sizes, self.kernel_initializer))
            if self.use_bias:
                found.append(Weight(f"{word}_bias", sizes[1:], self.bias_initializer))
        return found

    def nodes(self, graph, x, weights, context):
        n, length, features = x.shape
        rows = graph.add("reshape", x, shape=(n * length, features))
        q, k, v = (self._split(graph, self._product(graph, rows, weights, p), n, length) for p in PROJECTIONS)
        if context.training and self.dropout:
            y = self._with_dropout(graph, q, k, v, context)
        else:
            y = graph.add("attention", q, k, v, graph.constant(np.zeros((), x.dtype), "no_mask"),
                          causal=bool(self.causal))[0]
        y = graph.add("transpose", y, axes=(0, 2, 1, 3))
        y = self._product(graph, graph.add("reshape", y, shape=(n * length, -1)), weights, "output")
        return graph.add("reshape", y, shape=x.shape)

    def _product(self, graph, rows, weights, word):
        if self.use_bias:
            return graph.add(DENSE, rows, weights[f"{word}_kernel"], weights[f"{word}_bias"])
        return graph.add("matmul", rows, weights[f"{word}_kernel"])

    def _split(self, graph, rows, n, length):
        """(n length, heads d) as (n, heads, length, d)."""
        parts = graph.add("reshape", rows, shape=(n, length, self.heads, rows.shape[1] // self.heads))
        return graph.add("transpose", parts, axes=(0, 2, 1, 3))

    def _with_dropout(self, graph, q, k, v, context):
        """The same step by step, so that weights can be dropped."""
        (n, heads, length, d), counts = q.shape, q.shape[0] * self.heads
        q, k, v = (graph.add("reshape", a, shape=(counts, length, d)) for a in (q, k, v))
        scores = graph.add("scale", graph.add("batched_matmul", q, k, transpose_b=True), factor=d ** -0.5)
        if self.causal:
            hidden = np.triu(np.full((length, length), -np.inf, q.dtype), 1)
            scores = graph.add("add", scores, graph.constant(hidden, "hidden"))
        kept = graph.add("dropout", graph.add("softmax", scores), context.counter, rate=float(self.dropout),
                         stream=next(context.streams))
        return graph.add("reshape", graph.add("batched_matmul", kept, v), shape=(n, heads, length, d))
