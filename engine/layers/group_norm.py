"""Group normalisation (Wu, He 2018)."""
from engine.layers.layer import Layer, Weight, register


@register
class GroupNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + epsilon) + beta, mean and variance of each sample over all places and the
    channels of a group. x (n, ..., channels); `groups` has to divide the channels.

    >>> engine.Sequential([engine.GroupNorm(2, epsilon=1e-12)]).predict(np.array([[1.0, 3.0, 10.0, 30.0]])).round(4)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    def __init__(self, groups=32, epsilon=1e-5, name=None, trainable=True):
        super().__init__(name, trainable)
        if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
            raise ValueError(f"GroupNorm: expected groups as a whole number of at least 1, got {groups!r}")
        if not epsilon > 0:
            raise ValueError(f"GroupNorm: expected epsilon above 0, got {epsilon!r}")
        self.groups, self.epsilon = groups, epsilon

    def output_shape(self, shape):
        if shape[-1] % self.groups:
            self.refuse(f"(n, ..., channels) with channels that {self.groups} groups divide", shape)
        return shape

    def weights(self, shape):
        return [Weight("gamma", shape[-1:], "ones"), Weight("beta", shape[-1:])]

    def nodes(self, graph, x, weights, context):
        return graph.add("group_norm", x, weights["gamma"], weights["beta"], groups=self.groups,
                         epsilon=float(self.epsilon))[0]
