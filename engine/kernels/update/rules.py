"""The rules of the optimisers for one weight, as formulas: new weight and states from old ones and typed numbers.

d, the weight decay, is `decay`; `rest` is 1 - alpha, `rest1` and `rest2` 1 - beta: computed before they are made short.
"""
import math

from engine.kernels.formula import Formula


def sgd_at(p, g, rate, decay):
    return p - rate * (g + decay * p)


def sgd_momentum_at(p, g, v, rate, decay, momentum, nesterov):
    g = g + decay * p
    v = momentum * v + g
    return p - rate * (g + momentum * v if nesterov else v), v


def rmsprop_at(p, g, s, rate, decay, alpha, rest, epsilon):
    g = g + decay * p
    s = alpha * s + rest * g * g
    return p - rate * g / (math.sqrt(s) + epsilon), s


def rmsprop_momentum_at(p, g, s, m, b, rate, decay, alpha, rest, epsilon, momentum, centered):
    g = g + decay * p
    s = alpha * s + rest * g * g
    m = m + rest * (g - m) if centered else m
    b = momentum * b + g / (math.sqrt(s - m * m if centered else s) + epsilon)
    return p - rate * b, s, m, b


def adagrad_at(p, g, s, rate, decay, epsilon):
    g = g + decay * p
    s = s + g * g
    return p - rate * g / (math.sqrt(s) + epsilon), s


def adam_at(p, g, m, v, rate, shrink, decay, rest1, beta2, rest2, scale, epsilon):
    """rate is divided by 1 - beta1^t, scale is 1 / sqrt(1 - beta2^t): a division more would be a third of the time"""
    g = g + decay * p
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    return shrink * p - rate * m / (math.sqrt(v) * scale + epsilon), m, v


def clipped_at(g, low, high):
    return low if g < low else high if g > high else g


RULES = {f.__name__: Formula(f) for f in (sgd_at, sgd_momentum_at, rmsprop_at, rmsprop_momentum_at, adagrad_at, adam_at,
                                          clipped_at)}


def adam_numbers(rate, counter, decay, beta1, beta2, decoupled):
    """(rate / (1 - beta1^t), shrink, decay, 1 / sqrt(1 - beta2^t)), in float64 for all weights alike."""
    t = counter[1] + 1
    shrink = 1 - rate[0] * decay if decoupled else 1.0
    return rate[0] / (1 - beta1 ** t), shrink, 0.0 if decoupled else decay, 1 / math.sqrt(1 - beta2 ** t)
