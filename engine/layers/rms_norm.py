"""RMS normalisation (Zhang, Sennrich 2019)."""
from engine.layers.layer import Layer, Weight, register


@register
class RMSNorm(Layer):
    """y = gamma x / sqrt(mean(x^2) + epsilon) along the last axis: layer normalisation without taking off the mean.

    >>> engine.Sequential([engine.RMSNorm()]).predict(np.array([[3.0, 4.0]])).round(4)
    array([[0.8485, 1.1314]], dtype=float32)
    """

    def __init__(self, epsilon=1e-5, name=None, trainable=True):
        super().__init__(name, trainable)
        if not epsilon > 0:
            raise ValueError(f"RMSNorm: expected epsilon above 0, got {epsilon!r}")
        self.epsilon = epsilon

    def weights(self, shape):
        return [Weight("gamma", shape[-1:], "ones")]

    def nodes(self, graph, x, weights, context):
        return graph.add("rms_norm", x, weights["gamma"], epsilon=float(self.epsilon))
