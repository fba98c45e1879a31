"""Batch normalisation (Ioffe, Szegedy 2015)."""
from engine.layers.layer import Layer, Weight, register


@register
class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + epsilon) + beta for each feature (the last axis).

    In training mean and variance are the batch's, and the running ones move towards them by 1 - momentum (Keras's
    sense of momentum; PyTorch's is one minus it); otherwise the running ones are used.
    """

    def __init__(self, momentum=0.99, epsilon=1e-3, name=None, trainable=True):
        super().__init__(name, trainable)
        self.momentum, self.epsilon = momentum, epsilon

    def weights(self, shape):
        c = shape[-1:]
        return [Weight("gamma", c, "ones"), Weight("beta", c), Weight("moving_mean", c, trainable=False),
                Weight("moving_variance", c, "ones", trainable=False)]

    def nodes(self, graph, x, weights, context):
        gamma, beta, mean, variance = (weights[k] for k in ("gamma", "beta", "moving_mean", "moving_variance"))
        if not context.training or context.frozen:
            return graph.add("batch_norm_inference", x, gamma, beta, mean, variance, epsilon=float(self.epsilon))
        return graph.add("batch_norm", x, gamma, beta, mean, variance, momentum=float(self.momentum),
                         epsilon=float(self.epsilon))[0]
