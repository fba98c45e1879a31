"""Optimisers: one fused update of all trained weights, which the model keeps in one flat array.

The formulas are those of torch.optim, so that the same start and the same batches give the same losses.
"""
from engine import schedules
from engine.registry import Configured, Registry

OPTIMIZERS = Registry("optimizer")


class Optimizer(Configured):
    """learning_rate: a number or a schedule; clip_value: gradients into [-v, v]; clip_norm: the global L2 norm of all
    gradients at most this. Subclasses name an op of `engine.kernels.update`, its states and its attributes."""
    op = None
    states = ()

    def __init__(self, learning_rate, weight_decay=0.0, clip_value=None, clip_norm=None):
        self.learning_rate = schedules.get(learning_rate)
        self.weight_decay, self.clip_value, self.clip_norm = float(weight_decay), clip_value, clip_norm
        for what in ("clip_value", "clip_norm"):
            if getattr(self, what) is not None and not getattr(self, what) > 0:
                raise ValueError(f"{type(self).__name__}: expected {what} above 0, got {getattr(self, what)!r}")

    def attributes(self):
        """The op's attributes."""
        return {"weight_decay": self.weight_decay}

    def nodes(self, graph, parameters, gradients, states, rate, counter):
        """Adds the update; all of parameters, gradients and states are flat values of one length."""
        if self.clip_value is not None:
            gradients = graph.add("clip_by_value", gradients, low=-float(self.clip_value), high=float(self.clip_value))
        if self.clip_norm is not None:
            gradients = graph.add("clip_by_norm", gradients, max_norm=float(self.clip_norm))
        return graph.add(self.op, parameters, gradients, *states, rate, counter, **self.attributes())


@OPTIMIZERS.aliases()
class SGD(Optimizer):
    """p -= rate * g, with momentum v = momentum * v + g (Polyak 1964) or Nesterov's look-ahead."""

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, weight_decay=0.0, clip_value=None,
                 clip_norm=None):
        super().__init__(learning_rate, weight_decay, clip_value, clip_norm)
        self.momentum, self.nesterov = float(momentum), bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov=True needs a momentum above 0")
        self.op = "sgd_momentum" if self.momentum else "sgd"
        self.states = ("velocity",) if self.momentum else ()

    def attributes(self):
        own = {"momentum": self.momentum, "nesterov": self.nesterov} if self.momentum else {}
        return {**super().attributes(), **own}


@OPTIMIZERS.aliases()
class RMSprop(Optimizer):
    """Divides by a running root mean square of the gradient (Hinton 2012)."""
    op, states = "rmsprop", ("square",)

    def __init__(self, learning_rate=1e-3, alpha=0.99, epsilon=1e-8, weight_decay=0.0, clip_value=None,
                 clip_norm=None):
        super().__init__(learning_rate, weight_decay, clip_value, clip_norm)
        self.alpha, self.epsilon = alpha, epsilon

    def attributes(self):
        return {**super().attributes(), "alpha": self.alpha, "epsilon": self.epsilon}


@OPTIMIZERS.aliases()
class Adagrad(Optimizer):
    """Divides by the root of the sum of all squared gradients (Duchi et al. 2011)."""
    op, states = "adagrad", ("sum",)

    def __init__(self, learning_rate=0.01, epsilon=1e-10, weight_decay=0.0, clip_value=None, clip_norm=None):
        super().__init__(learning_rate, weight_decay, clip_value, clip_norm)
        self.epsilon = epsilon

    def attributes(self):
        return {**super().attributes(), "epsilon": self.epsilon}


@OPTIMIZERS.aliases()
class Adam(Optimizer):
    """Adam (Kingma, Ba 2014), bias-corrected."""
    op, states = "adam", ("m", "v")

    def __init__(self, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, clip_value=None,
                 clip_norm=None):
        super().__init__(learning_rate, weight_decay, clip_value, clip_norm)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def attributes(self):
        return {**super().attributes(), "beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}


@OPTIMIZERS.aliases()
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov, Hutter 2017)."""
    op = "adamw"

    def __init__(self, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.01, clip_value=None,
                 clip_norm=None):
        super().__init__(learning_rate, beta1, beta2, epsilon, weight_decay, clip_value, clip_norm)


def get(given):
    """An optimiser from an object, a class, a name or a configuration."""
    return OPTIMIZERS.build(given)
