"""CPU kernels of the updates: the rule for each weight of this task's share."""
import math

import numpy as np

from engine.kernels.simd.parts import part
from engine.kernels.split import SUMS, span
from engine.kernels.update.rules import adam_numbers

numbers_of_step = part(adam_numbers)


@part(disjoint=True)
def sgd(p, g, rate, counter, rule, decay, p_out, task, tasks):
    number = g.dtype.type
    rate, decay = number(rate[0]), number(decay)
    first, count = span(g.size, task, tasks)
    p, g = p_out[first:first + count], g[first:first + count]
    for i in range(count):
        p[i] = rule(p[i], g[i], rate, decay)


@part(disjoint=True)
def sgd_momentum(p, g, v, rate, counter, rule, decay, momentum, nesterov, p_out, v_out, task, tasks):
    number = g.dtype.type
    rate, decay, momentum = number(rate[0]), number(decay), number(momentum)
    first, count = span(g.size, task, tasks)
    p, g, v = p_out[first:first + count], g[first:first + count], v_out[first:first + count]
    for i in range(count):
        p[i], v[i] = rule(p[i], g[i], v[i], rate, decay, momentum, nesterov)


@part(disjoint=True)
def rmsprop(p, g, s, rate, counter, rule, decay, alpha, epsilon, p_out, s_out, task, tasks):
    number = g.dtype.type
    rate, decay, rest = number(rate[0]), number(decay), number(1 - alpha)
    alpha, epsilon = number(alpha), number(epsilon)
    first, count = span(g.size, task, tasks)
    p, g, s = p_out[first:first + count], g[first:first + count], s_out[first:first + count]
    for i in range(count):
        p[i], s[i] = rule(p[i], g[i], s[i], rate, decay, alpha, rest, epsilon)


@part(disjoint=True)
def rmsprop_momentum(p, g, s, m, b, rate, counter, rule, decay, alpha, epsilon, momentum, centered, p_out, s_out,
                     m_out, b_out, task, tasks):
    number = g.dtype.type
    rate, decay, rest, momentum = number(rate[0]), number(decay), number(1 - alpha), number(momentum)
    alpha, epsilon = number(alpha), number(epsilon)
    first, count = span(g.size, task, tasks)
    end = first + count
    p, g, s, m, b = p_out[first:end], g[first:end], s_out[first:end], m_out[first:end], b_out[first:end]
    for i in range(count):
        p[i], s[i], m[i], b[i] = rule(p[i], g[i], s[i], m[i], b[i], rate, decay, alpha, rest, epsilon, momentum,
                                      centered)


@part(disjoint=True)
def adagrad(p, g, s, rate, counter, rule, decay, epsilon, p_out, s_out, task, tasks):
    number = g.dtype.type
    rate, decay, epsilon = number(rate[0]), number(decay), number(epsilon)
    first, count = span(g.size, task, tasks)
    p, g, s = p_out[first:first + count], g[first:first + count], s_out[first:first + count]
    for i in range(count):
        p[i], s[i] = rule(p[i], g[i], s[i], rate, decay, epsilon)


@part(disjoint=True)
def adam(p, g, m, v, rate, counter, rule, decay, beta1, beta2, epsilon, decoupled, p_out, m_out, v_out, task,
         tasks):
    number = g.dtype.type
    step, shrink, decay, scale = numbers_of_step(rate, counter, decay, beta1, beta2, decoupled)
    step, shrink, decay, scale, epsilon = number(step), number(shrink), number(decay), number(scale), number(epsilon)
    rest1, rest2, beta2 = number(1 - beta1), number(1 - beta2), number(beta2)
    first, count = span(g.size, task, tasks)
    end = first + count
    p, g, m, v = p_out[first:end], g[first:end], m_out[first:end], v_out[first:end]
    for i in range(count):
        p[i], m[i], v[i] = rule(p[i], g[i], m[i], v[i], step, shrink, decay, rest1, beta2, rest2, scale, epsilon)


@part(disjoint=True)
def clip_by_value(g, rule, low, high, out, task, tasks):
    low, high = g.dtype.type(low), g.dtype.type(high)
    first, count = span(g.size, task, tasks)
    g, out = g[first:first + count], out[first:first + count]
    for i in range(count):
        out[i] = rule(g[i], low, high)


@part(fastmath=SUMS)
def squares(g, max_norm, out, sums, chunk, task, tasks):
    """sums[c] = the sum of g^2 over chunk c, in float64"""
    first, count = span(sums.size, task, tasks)
    for c in range(first, first + count):
        part, total = g[c * chunk:min(g.size, (c + 1) * chunk)], 0.0
        for i in range(part.size):
            value = np.float64(part[i])
            total += value * value
        sums[c] = total


@part(disjoint=True)
def scale_to_norm(g, max_norm, out, sums, chunk, task, tasks):
    """out = g * min(1, max_norm / (norm + 1e-6)); every task adds the chunks' sums in the same order"""
    total = 0.0
    for c in range(sums.size):
        total += sums[c]
    factor = max_norm / (math.sqrt(total) + 1e-6)
    factor = g.dtype.type(1.0 if factor > 1 else factor)
    first, count = span(g.size, task, tasks)
    g, out = g[first:first + count], out[first:first + count]
    for i in range(count):
        out[i] = g[i] * factor
