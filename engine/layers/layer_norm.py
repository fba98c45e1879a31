"""Layer normalisation (Ba et al. 2016)."""
from engine.layers.layer import Layer, Weight, register


@register
class LayerNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + epsilon) + beta along the last axis of x, each row by its own moments.

    >>> engine.Sequential([engine.LayerNorm(epsilon=1e-12)]).predict(np.array([[1.0, 2.0, 3.0]])).round(4)
    array([[-1.2247,  0.    ,  1.2247]], dtype=float32)
    """

    def __init__(self, epsilon=1e-5, name=None, trainable=True):
        super().__init__(name, trainable)
        if not epsilon > 0:
            raise ValueError(f"LayerNorm: expected epsilon above 0, got {epsilon!r}")
        self.epsilon = epsilon

    def weights(self, shape):
        return [Weight("gamma", shape[-1:], "ones"), Weight("beta", shape[-1:])]

    def nodes(self, graph, x, weights, context):
        return graph.add("layer_norm", x, weights["gamma"], weights["beta"], epsilon=float(self.epsilon))
