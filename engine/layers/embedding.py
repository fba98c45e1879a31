"""Vectors looked up by number (Bengio et al. 2003)."""
import numpy as np

from engine.errors import DataError
from engine.layers.layer import Layer, Weight, register


@register
class Embedding(Layer):
    """y (n, ..., dim) = the rows of a trained table (vocab, dim) that the indices x (n, ...) name. Has to come first.

    x holds whole numbers from 0 to vocab - 1 (int64, or what converts to it without loss). A model refuses others; in
    a graph of one's own they give rows of NaN, as labels do that are no class.

    >>> model = engine.Sequential([engine.Embedding(1000, 16), engine.GlobalAvgPool(), engine.Dense(2)])
    >>> model.predict(np.array([[3, 14, 15], [9, 2, 6]])).shape
    (2, 2)
    """
    input_dtype = "int64"

    def __init__(self, vocab, dim, embeddings_initializer="normal", input_shape=None, name=None, trainable=True):
        super().__init__(name, trainable)
        for what, value in (("vocab", vocab), ("dim", dim)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Embedding: expected {what} as a whole number of at least 1, got {value!r}")
        self.vocab, self.dim, self.embeddings_initializer = vocab, dim, embeddings_initializer
        self.input_shape = None if input_shape is None else tuple(input_shape)

    def output_shape(self, shape):
        return (*shape, self.dim)

    def weights(self, shape):
        return [Weight("embeddings", (self.vocab, self.dim), self.embeddings_initializer)]

    def check_input(self, x):
        wrong = (x < 0) | (x >= self.vocab)
        if wrong.any():
            place = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise DataError(f"{self.name}: expected indices from 0 to {self.vocab - 1} (vocab={self.vocab}), got "
                            f"{x[place]} at {place}, {int(wrong.sum())} such in all; vocab has to be the largest index "
                            f"plus 1")

    def nodes(self, graph, x, weights, context):
        if x.dtype != np.dtype(self.input_dtype):
            raise DataError(f"{self.name}: expected indices (int64), got {x.dtype}; an Embedding has to be the first "
                            f"layer of a model")
        return graph.add("gather", weights["embeddings"], x)
