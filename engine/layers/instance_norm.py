"""Instance normalisation (Ulyanov et al. 2016)."""
from engine.layers.layer import Layer, Weight, register


@register
class InstanceNorm(Layer):
    """y = (x - mean) / sqrt(var + epsilon), mean and variance of each channel of each sample over its places;
    x (n, l, channels) or (n, height, width, channels). With `affine`, times gamma plus beta for each channel.

    >>> engine.Sequential([engine.InstanceNorm(epsilon=1e-12)]).predict(np.array([[[1.0], [3.0]]])).ravel().round(4)
    array([-1.,  1.], dtype=float32)
    """

    def __init__(self, epsilon=1e-5, affine=True, name=None, trainable=True):
        super().__init__(name, trainable)
        if not epsilon > 0:
            raise ValueError(f"InstanceNorm: expected epsilon above 0, got {epsilon!r}")
        self.epsilon, self.affine = epsilon, affine

    def output_shape(self, shape):
        if len(shape) < 2:
            self.refuse("(n, ..., channels) with places that a channel is normalised over", shape)
        return shape

    def weights(self, shape):
        kept = {"trainable": bool(self.affine)}
        return [Weight("gamma", shape[-1:], "ones", **kept), Weight("beta", shape[-1:], **kept)]

    def nodes(self, graph, x, weights, context):
        return graph.add("group_norm", x, weights["gamma"], weights["beta"], groups=x.shape[-1],
                         epsilon=float(self.epsilon))[0]
