"""Local response normalisation (Krizhevsky et al. 2012)."""
from engine.layers.layer import Layer, register


@register
class LRN(Layer):
    """y = x / (k + alpha / size * sum of the squares of `size` neighbouring channels)^beta, as in PyTorch.

    The AlexNet paper's alpha is that of alpha / size: its 1e-4 over 5 channels is alpha = 5e-4 here, with k = 2.

    >>> engine.Sequential([engine.LRN(size=1, alpha=3.0, beta=0.5)]).predict(np.array([[1.0]]))
    array([[0.5]], dtype=float32)
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=1.0, name=None):
        super().__init__(name)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"LRN: expected size as a whole number of at least 1, got {size!r}")
        if alpha < 0 or not k > 0:
            raise ValueError(f"LRN: expected alpha of at least 0 and k above 0, got alpha={alpha!r} and k={k!r}")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def nodes(self, graph, x, weights, context):
        return graph.add("local_response_norm", x, size=self.size, alpha=float(self.alpha), beta=float(self.beta),
                         k=float(self.k))
