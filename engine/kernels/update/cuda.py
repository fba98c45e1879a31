"""CUDA kernels of the updates and their launchers: four weights a thread, in accesses of 16 bytes, for SGD and Adam.

All weights of a network lie one behind the other, so a step is one launch, whatever the number of layers.
"""
import math

from numba import float64

from engine.kernels.gpu import (
    THREADS,
    blocks,
    cuda,
    device,
    fours,
    is_aligned,
    kernel,
    kernel_of,
    load4,
    store4,
    unrolled,
)
from engine.kernels.split import CHUNK, LANES, block_sum, least
from engine.kernels.update.rules import adam_numbers

adam_numbers_device = device(adam_numbers)


@kernel_of
def _sgd(rule):
    def sgd(g, rate, decay, p):
        i, step = 4 * cuda.grid(1), g.dtype.type(rate[0])
        if i + 4 <= g.size and is_aligned(g) and is_aligned(p):
            a, b, c, d = load4(g, i)
            q, r, s, t = load4(p, i)
            store4(p, i, rule(q, a, step, decay), rule(r, b, step, decay), rule(s, c, step, decay),
                   rule(t, d, step, decay))
        else:
            for k in range(i, i + 4):
                if k < g.size:
                    p[k] = rule(p[k], g[k], step, decay)
    return sgd


@kernel_of
def _sgd_momentum(rule):
    def sgd_momentum(g, rate, decay, momentum, nesterov, p, v):
        i, step = 4 * cuda.grid(1), g.dtype.type(rate[0])
        new_p, new_v = cuda.local.array(4, g.dtype), cuda.local.array(4, g.dtype)
        if i + 4 <= g.size and is_aligned(g) and is_aligned(p) and is_aligned(v):
            g4, p4, v4 = load4(g, i), load4(p, i), load4(v, i)
            for k in unrolled(4):
                new_p[k], new_v[k] = rule(p4[k], g4[k], v4[k], step, decay, momentum, nesterov)
            store4(p, i, new_p[0], new_p[1], new_p[2], new_p[3])
            store4(v, i, new_v[0], new_v[1], new_v[2], new_v[3])
        else:
            for k in range(i, i + 4):
                if k < g.size:
                    p[k], v[k] = rule(p[k], g[k], v[k], step, decay, momentum, nesterov)
    return sgd_momentum


@kernel_of
def _rmsprop(rule):
    def rmsprop(g, rate, decay, alpha, rest, epsilon, p, s):
        i = cuda.grid(1)
        if i < g.size:
            p[i], s[i] = rule(p[i], g[i], s[i], g.dtype.type(rate[0]), decay, alpha, rest, epsilon)
    return rmsprop


@kernel_of
def _rmsprop_momentum(rule):
    def rmsprop_momentum(g, rate, decay, alpha, rest, epsilon, momentum, centered, p, s, m, b):
        i = cuda.grid(1)
        if i < g.size:
            p[i], s[i], m[i], b[i] = rule(p[i], g[i], s[i], m[i], b[i], g.dtype.type(rate[0]), decay, alpha, rest,
                                          epsilon, momentum, centered)
    return rmsprop_momentum


@kernel_of
def _adagrad(rule):
    def adagrad(g, rate, decay, epsilon, p, s):
        i = cuda.grid(1)
        if i < g.size:
            p[i], s[i] = rule(p[i], g[i], s[i], g.dtype.type(rate[0]), decay, epsilon)
    return adagrad


@kernel_of
def _adam(rule):
    def adam(g, rate, counter, weight_decay, beta1, beta2, decoupled, rest1, narrow_beta2, rest2, epsilon, p, m, v):
        i, number = 4 * cuda.grid(1), g.dtype.type
        held = cuda.shared.array(4, float64)
        if cuda.threadIdx.x == 0:            # the powers of one thread serve the block: in float64 they are dear
            held[0], held[1], held[2], held[3] = adam_numbers_device(rate, counter, weight_decay, beta1, beta2,
                                                                     decoupled)
        cuda.syncthreads()
        step, shrink, decay, root = number(held[0]), number(held[1]), number(held[2]), number(held[3])
        new_p, new_m = cuda.local.array(4, g.dtype), cuda.local.array(4, g.dtype)
        new_v = cuda.local.array(4, g.dtype)
        if i + 4 <= g.size and is_aligned(g) and is_aligned(p) and is_aligned(m) and is_aligned(v):
            g4, p4, m4, v4 = load4(g, i), load4(p, i), load4(m, i), load4(v, i)
            for k in unrolled(4):
                new_p[k], new_m[k], new_v[k] = rule(p4[k], g4[k], m4[k], v4[k], step, shrink, decay, rest1,
                                                    narrow_beta2, rest2, root, epsilon)
            store4(p, i, new_p[0], new_p[1], new_p[2], new_p[3])
            store4(m, i, new_m[0], new_m[1], new_m[2], new_m[3])
            store4(v, i, new_v[0], new_v[1], new_v[2], new_v[3])
        else:
            for k in range(i, i + 4):
                if k < g.size:
                    p[k], m[k], v[k] = rule(p[k], g[k], m[k], v[k], step, shrink, decay, rest1, narrow_beta2, rest2,
                                            root, epsilon)
    return adam


@kernel_of
def _clip_by_value(rule):
    def clip_by_value(g, low, high, out):
        i = cuda.grid(1)
        if i < g.size:
            out[i] = rule(g[i], low, high)
    return clip_by_value


@kernel
def _squares(g, sums):
    chunk, thread, total = cuda.blockIdx.x, cuda.threadIdx.x, 0.0
    for i in range(chunk * CHUNK + thread, least(g.size, (chunk + 1) * CHUNK), LANES):
        value = float64(g[i])                # reading takes longer than this, and the square of 1e20 stays finite
        total += value * value
    total = block_sum(total, thread)
    if thread == 0:
        sums[chunk] = total


@kernel
def _scale_to_norm(g, max_norm, sums, out):
    thread, total = cuda.threadIdx.x, 0.0
    for c in range(thread, sums.size, LANES):
        total += sums[c]
    factor = max_norm / (math.sqrt(block_sum(total, thread)) + 1e-6)
    factor = g.dtype.type(1.0 if factor > 1.0 else factor)
    for i in range(cuda.grid(1), g.size, cuda.gridsize(1)):
        out[i] = g[i] * factor


def sgd(p, g, rate, counter, rule, decay, p_out):
    _sgd(rule, g.dtype)[fours(g.size), THREADS](g, rate, g.dtype.type(decay), p_out)


def sgd_momentum(p, g, v, rate, counter, rule, decay, momentum, nesterov, p_out, v_out):
    number = g.dtype.type
    _sgd_momentum(rule, g.dtype)[fours(g.size), THREADS](g, rate, number(decay), number(momentum), nesterov,
                                                         p_out, v_out)


def rmsprop(p, g, s, rate, counter, rule, decay, alpha, epsilon, p_out, s_out):
    numbers = map(g.dtype.type, (decay, alpha, 1 - alpha, epsilon))
    _rmsprop(rule, g.dtype)[blocks(g.size), THREADS](g, rate, *numbers, p_out, s_out)


def rmsprop_momentum(p, g, s, m, b, rate, counter, rule, decay, alpha, epsilon, momentum, centered, *outs):
    numbers = map(g.dtype.type, (decay, alpha, 1 - alpha, epsilon, momentum))
    _rmsprop_momentum(rule, g.dtype)[blocks(g.size), THREADS](g, rate, *numbers, centered, *outs)


def adagrad(p, g, s, rate, counter, rule, decay, epsilon, p_out, s_out):
    number = g.dtype.type
    _adagrad(rule, g.dtype)[blocks(g.size), THREADS](g, rate, number(decay), number(epsilon), p_out, s_out)


def adam(p, g, m, v, rate, counter, rule, decay, beta1, beta2, epsilon, decoupled, *outs):
    numbers = decay, beta1, beta2, decoupled, *map(g.dtype.type, (1 - beta1, beta2, 1 - beta2, epsilon))
    _adam(rule, g.dtype)[fours(g.size), THREADS](g, rate, counter, *numbers, *outs)


def clip_by_value(g, rule, low, high, out):
    _clip_by_value(rule, g.dtype)[blocks(g.size), THREADS](g, g.dtype.type(low), g.dtype.type(high), out)


def clip_by_norm(g, max_norm, out, sums):
    _squares[sums.size, LANES](g, sums)
    _scale_to_norm[min(blocks(g.size, LANES), 1024), LANES](g, max_norm, sums, out)
