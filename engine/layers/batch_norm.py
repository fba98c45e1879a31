"""Batch normalisation (Ioffe, Szegedy 2015)."""
from engine.layers.layer import Layer, Weight, register


@register
class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + epsilon) + beta for each feature or channel (the last axis).

    In training mean and variance are the batch's, and the running ones move towards them by 1 - momentum (Keras's
    sense of momentum; PyTorch's is one minus it); otherwise, and where trainable is False, the running ones are used.
    The variance that the running one moves towards is the unbiased one, divided by n - 1, as in PyTorch (Keras divides
    by n): running statistics agree with PyTorch's, and its weights can be taken over as they are.

    An addition (the end of a Residual block) and an activation right behind it cost no pass over memory of their own.

    >>> model = engine.Sequential([engine.Dense(8, use_bias=False), engine.BatchNorm(), engine.ReLU()])
    >>> model.build(4).count_params()
    64
    """

    def __init__(self, momentum=0.99, epsilon=1e-3, name=None, trainable=True):
        super().__init__(name, trainable)
        if not 0 <= momentum <= 1:
            raise ValueError(f"BatchNorm: expected momentum from 0 to 1, got {momentum!r}")
        if not epsilon > 0:
            raise ValueError(f"BatchNorm: expected epsilon above 0, got {epsilon!r}")
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
