"""Scaled dot-product attention (Vaswani et al. 2017), fused: out = softmax(factor q k^T + mask) v.

Shapes: q (..., l, d) queries, k (..., s, d) keys, v (..., s, e) values, out (..., l, e); the leading axes, one or two
of them (sequences, heads), are the same for all. mask broadcasts to (..., l, s) and is added to the scores: -inf hides
a key, a single 0.0 stands for none; a boolean one becomes numpy.where(visible, 0, -inf). causal: query i sees the keys
0 .. i. A query that sees no key gives zeros.

The l x s scores are never kept: each block of them is made, used and forgotten, under the largest score so far, and
what was summed before is scaled when a larger one comes (Milakov, Gimelshein 2018; Dao et al. 2022). Kept for the
backward pass is one number for each query, its log sum of exponentials; the backward pass makes the weights w again:

    dv = w^T dout,  dw = dout v^T,  ds = w * (dw - sum(dout * out)),  dq = factor ds k,  dk = factor ds^T q
"""
import math

import numpy as np

from engine.kernels.attention import cpu, cuda
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats, spec

# ----------------------------------------------------------------------------------------------------- NumPy reference


def _factor(d, scale):
    return 1 / math.sqrt(max(1, d)) if scale is None else float(scale)


def _weights(q, k, mask, causal, scale):
    """(weights, log sums of exponentials)"""
    scores = _factor(q.shape[-1], scale) * q @ k.swapaxes(-1, -2) + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(top == -np.inf, 0, top))
    total = e.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return e / np.where(total == 0, 1, total), (top + np.log(total))[..., 0]


def attention_reference(q, k, v, mask, causal=False, scale=None):
    weights, log_sums = _weights(q, k, mask, causal, scale)
    return weights @ v, log_sums


def attention_grad_reference(dout, q, k, v, mask, out, log_sums, causal=False, scale=None):
    factor, (w, _) = _factor(q.shape[-1], scale), _weights(q, k, mask, causal, scale)
    ds = factor * w * (dout @ v.swapaxes(-1, -2) - (dout * out).sum(-1, keepdims=True))
    return ds @ k, ds.swapaxes(-1, -2) @ q, w.swapaxes(-1, -2) @ dout


# -------------------------------------------------------------------------------------------- shapes and arrangements


def attention_shapes(q, k, v, mask, causal=False, scale=None):
    dtype = floats(q, k, v, mask)
    demand(q.ndim in (3, 4), "q of shape (n, length, d) or (n, heads, length, d)", q.shape)
    demand(k.ndim == q.ndim and k.shape[:-2] == q.shape[:-2] and k.shape[-1] == q.shape[-1],
           f"k of shape {(*q.shape[:-2], 'keys', q.shape[-1])}", k.shape, "k and q need the same d")
    demand(v.shape[:-1] == k.shape[:-1], f"v of shape {(*k.shape[:-1], 'e')}, a value for each key", v.shape)
    full = (*q.shape[:-1], k.shape[-2])
    demand(mask.ndim <= len(full) and all(m in (1, s) for m, s in zip(mask.shape[::-1], full[::-1])),
           f"a mask that broadcasts to (..., queries, keys), {full}", mask.shape, "0.0 stands for none")
    return Spec((*q.shape[:-1], v.shape[-1]), dtype), Spec(q.shape[:-1], dtype)


def attention_grad_shapes(dout, q, k, v, mask, out, log_sums, causal=False, scale=None):
    expected, sums = attention_shapes(q, k, v, mask, causal, scale)
    floats(dout, q, out, log_sums)
    demand(dout.shape == out.shape == expected.shape, f"dout and out of shape {expected.shape}",
           f"{dout.shape} and {out.shape}")
    demand(log_sums.shape == sums.shape, f"log sums of shape {sums.shape}", log_sums.shape)
    return spec(q), spec(k), spec(v)


def _steps(mask, ndim):
    """Distances in the mask from sequence to sequence, head to head, query to query, key to key; 0 along axes that it
    repeats. With one leading axis, that is the heads'."""
    found, step = [], 1
    for size in reversed((1,) * (4 - mask.ndim) + tuple(mask.shape) if ndim == 4 else
                         (1,) + (1,) * (3 - mask.ndim) + tuple(mask.shape)):
        found.insert(0, step if size > 1 else 0)
        step *= size
    return tuple(found)


def _arranged(q, k, v, mask, inputs, outputs, attributes, threads, backward):
    length, d, keys, e = *q.shape[-2:], *v.shape[-2:]
    count = math.prod(q.shape[:-2])
    tasks, work, sizes = cpu.plan(count, length, keys, d, e, q.dtype, threads, backward)
    scalars = (max(1, q.shape[-3]), *_steps(mask, q.ndim), int(mask.size > 1 or mask.ndim > 0),
               int(attributes["causal"]), _factor(d, attributes["scale"]))

    def flat(s):
        return (s.size,) if s is mask else (count, *s.shape[q.ndim - 2:])
    return Arrangement(tuple(map(flat, inputs)), tuple(map(flat, outputs)), scalars, work, sizes, tasks,
                       (Spec((count, length), q.dtype),) if backward else ())


def attention_arrange(inputs, outputs, attributes, threads):
    return _arranged(*inputs, inputs, outputs, attributes, threads, 0)


def attention_grad_arrange(inputs, outputs, attributes, threads):
    return _arranged(*inputs[1:5], inputs, outputs, attributes, threads, 1)


def attention_gradient(graph, node, dout, *_):
    """No gradient flows into the mask."""
    return (*graph.add("attention_grad", dout, *node.inputs, *node.outputs, **node.attributes), None)


# ------------------------------------------------------------------------------------------------------------- samples

CAUSAL = {"causal": True}
SIZES = (((1,), 1, 1, 1, 1, (), {}), ((2,), 3, 5, 4, 3, (), {"scale": 0.3}), ((2, 3), 5, 5, 3, 2, (), CAUSAL),
         ((2, 2), 3, 4, 2, 3, (2, 1, 1, 4), {}), ((2,), 7, 5, 2, 2, (7, 5), CAUSAL), ((0, 2), 3, 4, 2, 1, (), {}),
         ((2, 1), 3, 0, 2, 1, (), {}), ((1, 2), 0, 3, 2, 2, (), {}), ((1, 2), 2, 3, 1, 1, (2, 2, 1), {}),
         ((1,), 50, 131, 17, 33, (50, 1), {}), ((1,), 140, 131, 3, 2, (), CAUSAL))


def _samples(rng):
    for lead, length, keys, d, e, shape, attributes in SIZES:
        mask = np.asarray(rng.standard_normal(shape)) if shape else np.zeros(())
        if len(shape) >= 2 and shape[-1] > 1:            # some keys hidden, and all of them from the second query
            mask = np.where(rng.random(shape) < 0.3, -np.inf, mask)
            if len(shape) == 2:
                mask[1] = -np.inf
        yield tuple(rng.standard_normal((*lead, *s)) for s in ((length, d), (keys, d), (keys, e))) + (mask,), attributes


def _grad_samples(rng):
    for (q, k, v, mask), attributes in _samples(rng):
        out, log_sums = attention_reference(q, k, v, mask, **attributes)
        yield (rng.standard_normal(out.shape), q, k, v, mask, out, log_sums), attributes


def _terms(*arrays, causal, scale):
    q, k = arrays[:2] if len(arrays) == 4 else arrays[1:3]
    return 4 * (q.shape[-1] + k.shape[-2] + q.shape[-2])


def _cost(products):
    def cost(inputs, outputs, attributes):
        q, v = (inputs[0], inputs[2]) if products == 2 else (inputs[1], inputs[3])
        macs = q.size * v.shape[-2] * (products + 1) // 2 + q.size // max(1, q.shape[-1]) * v.size // max(
            1, math.prod(v.shape[:-2])) * (products // 2)
        return Cost(2 * macs / (2 if attributes["causal"] else 1), sum(s.nbytes for s in (*inputs, *outputs)))
    return cost


# ------------------------------------------------------------------------------------------------------------- records

ATTRIBUTES = {"causal": False, "scale": None}
OPS = (
    Op("attention", attention_reference, attention_shapes, cpu.attention_cpu, cuda.attention, _samples,
       attention_arrange, attention_gradient, _terms, _cost(2), ATTRIBUTES, byproducts=frozenset({1})),
    Op("attention_grad", attention_grad_reference, attention_grad_shapes, cpu.attention_grad_cpu, cuda.attention_grad,
       _grad_samples, attention_grad_arrange, None, _terms, _cost(5), ATTRIBUTES),
)
