"""Activations as layers: `Activation("relu")`, or one name each: `ReLU()`, `GELU()`, ..."""
from engine.errors import unknown
from engine.kernels.activation import ACTIVATIONS
from engine.kernels.activation import Activation as Formulas
from engine.kernels.activation import activation as make
from engine.layers.layer import Layer, Weight, register

ROWWISE = ("softmax", "log_softmax")         # along the last axis, not value by value
_own = {}                                    # activations that a person registered by name


class Rowwise:
    """Softmax and its like under an activation's face."""

    def __init__(self, name):
        self.name = name

    def nodes(self, graph, x):
        return graph.add(self.name, x)

    def __eq__(self, other):
        return isinstance(other, Rowwise) and other.name == self.name

    def __hash__(self):
        return hash(self.name)

    def __repr__(self):
        return self.name


def add_activation(name, f, slope=None, slope_of="x"):
    """A named activation of one's own, from a scalar Python formula and its derivative, for any layer on both targets.

    >>> engine.add_activation("cube", lambda x: x * x * x, lambda x: 3 * x * x)
    >>> Dense(8, activation="cube")
    """
    if name in ACTIVATIONS or name in ROWWISE:
        raise ValueError(f"activation {name}: this name is built in; choose another")
    _own[name] = make(name, f, slope, slope_of)
    return _own[name]


def find(given):
    """An activation from None, a name or an activation."""
    if given is None or given == "linear" or isinstance(given, (Formulas, Rowwise)):
        return None if given == "linear" else given
    known = {**ACTIVATIONS, **_own, **{name: Rowwise(name) for name in ROWWISE}}
    if given not in known:
        raise unknown("activation", given, known)
    return known[given]


@register
class Activation(Layer):
    """f value by value (or along the last axis for softmax), by name or as an `engine.activation(...)`."""

    def __init__(self, activation, name=None):
        super().__init__(name)
        self.activation = find(activation)

    def nodes(self, graph, x, weights, context):
        return x if self.activation is None else self.activation.nodes(graph, x)


class _Named(Layer):
    """An activation layer whose class says which one."""
    activation = None

    def __init__(self, name=None):
        super().__init__(name)

    def nodes(self, graph, x, weights, context):
        return find(self.activation).nodes(graph, x)


@register
class ReLU(_Named):
    """max(x, 0)"""
    activation = "relu"


@register
class SELU(_Named):
    """The self-normalising unit; start its layers with lecun_normal."""
    activation = "selu"


@register
class SiLU(_Named):
    """x sigmoid(x), also called swish."""
    activation = "silu"


@register
class Softplus(_Named):
    """log(1 + exp(x))"""
    activation = "softplus"


@register
class Mish(_Named):
    """x tanh(softplus(x))"""
    activation = "mish"


@register
class HardSigmoid(_Named):
    """clip(x / 6 + 1/2, 0, 1)"""
    activation = "hard_sigmoid"


@register
class HardSwish(_Named):
    """x hard_sigmoid(x)"""
    activation = "hard_swish"


@register
class Sigmoid(_Named):
    """1 / (1 + exp(-x))"""
    activation = "sigmoid"


@register
class Tanh(_Named):
    """The hyperbolic tangent."""
    activation = "tanh"


@register
class Step(_Named):
    """1 if x >= 0 else 0: no gradient passes."""
    activation = "step"


@register
class Softmax(_Named):
    """exp(x) / sum(exp(x)) along the last axis."""
    activation = "softmax"


@register
class LogSoftmax(_Named):
    """log(softmax(x)) along the last axis."""
    activation = "log_softmax"


@register
class GELU(Layer):
    """x times the normal distribution function of x; `approximate=True` uses the tanh form."""

    def __init__(self, approximate=False, name=None):
        super().__init__(name)
        self.approximate = approximate

    def nodes(self, graph, x, weights, context):
        return find("gelu_tanh" if self.approximate else "gelu").nodes(graph, x)


@register
class LeakyReLU(Layer):
    """x if x > 0 else negative_slope * x"""

    def __init__(self, negative_slope=0.01, name=None):
        super().__init__(name)
        self.negative_slope = negative_slope
        a = float(negative_slope)
        if a < 0:
            raise ValueError(f"LeakyReLU: expected negative_slope of at least 0, got {a}")
        self._formulas = make("leaky_relu_of", lambda x: x if x > 0 else a * x, lambda y: 1 if y > 0 else a, "y")

    def nodes(self, graph, x, weights, context):
        return self._formulas.nodes(graph, x)


@register
class ELU(Layer):
    """x if x > 0 else alpha (exp(x) - 1)"""

    def __init__(self, alpha=1.0, name=None):
        super().__init__(name)
        self.alpha = alpha
        a = float(alpha)
        self._formulas = make("elu_of", _elu(a), lambda y: 1 if y > 0 else y + a, "y")

    def nodes(self, graph, x, weights, context):
        return self._formulas.nodes(graph, x)


def _elu(a):
    import math
    return lambda x: x if x > 0 else a * math.expm1(x)


@register
class PReLU(Layer):
    """x if x > 0 else alpha x, with a trained alpha for each channel (He et al. 2015)."""

    def __init__(self, alpha_initializer=0.25, name=None, trainable=True):
        super().__init__(name, trainable)
        self.alpha_initializer = alpha_initializer

    def weights(self, shape):
        start = self.alpha_initializer
        if isinstance(start, (int, float)):
            from engine.initializers import Constant
            start = Constant(float(start))
        return [Weight("alpha", shape[-1:], start)]

    def nodes(self, graph, x, weights, context):
        return graph.add("prelu", x, weights["alpha"])
