"""Random numbers from a counter: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

A block of four 32-bit words is a function of where it is needed, so any thread can make any block, and a mask is made
again in the backward pass instead of being kept:

    words = philox(counter = (block, stream, step low, step high), key = (seed low, seed high))

`counter` is the int64 array [seed, step] on the target, `stream` a number of its own for each use (each Dropout layer,
each weight). Value i is word i % 4 of block i // 4. The words are the same bits on every target and for any number of
threads; numbers made from them differ between CPU and GPU by roundings at most. float64 holds the same numbers as
float32, with more digits.

    uniform   low + (high - low) * word / 2**32
    normal    mean + std * sqrt(-2 log u) * (cos 2 pi v, sin 2 pi v), u and v from two words (Box, Muller 1958)
    dropout   x / (1 - rate) where word / 2**32 < 1 - rate, else 0 (Srivastava et al. 2014)
"""
import math

import numpy as np

from engine.kernels.formula import Formula
from engine.kernels.gpu import THREADS, blocks, cuda, device, is_aligned, kernel, kernel_of, load4, store4
from engine.kernels.op import FLOATS, Arrangement, Op, Spec, demand, floats, integers, same, share
from engine.kernels.simd import (
    NEAR,
    WORDS,
    broadcast,
    is_past,
    low_product,
    lower,
    numbered,
    part,
    pointer,
    prefetch,
    swapped,
    tile_load,
    tile_of_words,
    tile_put,
    to_boundary,
    where_at_most,
    woven,
)
from engine.kernels.split import span
from engine.kernels.stream import ended, streaming

# ------------------------------------------------------------------------------------------------------------ formulas

# The numbers of Philox. All are uint64: in Numba a Python number next to a uint64 would make a float64.
FIRST, SECOND = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
FIRST_KEY, SECOND_KEY = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW, HALF, ONE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(1)
WORD, TURN = 2.0 ** -32, 2.0 ** -32 * 2 * math.pi
AHEAD = 2                                    # tiles before its turn a tile's values are asked for
SHUFFLE = 2 ** 32 - 1                        # the stream of `shuffled`


def philox_at(a, b, c, d, k0, k1):
    """The four words for counter (a, b, c, d) and key (k0, k1): uint64 numbers (or arrays of them) below 2**32.

    Between the rounds the upper halves hold rubbish. The masks before the products cost nothing: a vector product of
    uint64 that are known to be short is one instruction.
    """
    for _ in range(10):
        p, q = (a & LOW) * FIRST, (c & LOW) * SECOND
        a, b, c, d = (q >> HALF) ^ b ^ k0, q, (p >> HALF) ^ d ^ k1, p
        k0, k1 = k0 + FIRST_KEY, k1 + SECOND_KEY
    return a & LOW, b & LOW, c & LOW, d & LOW


def key_at(counter, stream):
    """(stream, step low, step high, seed low, seed high): what all blocks of one call share."""
    seed, step = np.uint64(counter[0]), np.uint64(counter[1])
    return np.uint64(stream), step & LOW, step >> HALF, seed & LOW, seed >> HALF


def normal_pair(u, v):
    """Two independent normal numbers from two words."""
    radius, angle = math.sqrt(-2 * math.log((u + 0.5) * WORD)), v * TURN
    return radius * math.cos(angle), radius * math.sin(angle)


def turned_pair(u, v):
    """The same, with an angle of at most an eighth of a turn and its quarter: a GPU's cosine of any angle keeps an
    array in memory for the largest ones. Taylor's polynomials, whose rests are below 1e-16."""
    radius, t = math.sqrt(-2 * math.log((u + 0.5) * WORD)), 4 * WORD * v
    quarter = 0.0 if t < 0.5 else 1.0 if t < 1.5 else 2.0 if t < 2.5 else 3.0 if t < 3.5 else 4.0
    r = (t - quarter) * (math.pi / 2)
    z = r * r
    s = r * (1 + z * (-1 / 6 + z * (1 / 120 + z * (-1 / 5040 + z * (1 / 362880 + z * (
        -1 / 39916800 + z * (1 / 6227020800 - z / 1307674368000)))))))
    c = 1 + z * (-1 / 2 + z * (1 / 24 + z * (-1 / 720 + z * (1 / 40320 + z * (-1 / 3628800 + z * (
        1 / 479001600 + z * (-1 / 87178291200 + z / 20922789888000)))))))
    x = c if quarter == 0 or quarter == 4 else -c if quarter == 2 else -s if quarter == 1 else s
    y = s if quarter == 0 or quarter == 4 else -s if quarter == 2 else c if quarter == 1 else -c
    return radius * x, radius * y


NORMAL_PAIR, TURNED_PAIR = Formula(normal_pair), Formula(turned_pair)

# ----------------------------------------------------------------------------------------------------- NumPy reference


def words_reference(size, counter, stream):
    """The words of `size` values, as a uint64 array."""
    key = key_at(np.asarray(counter, np.int64), stream)
    block = np.arange((size + 3) // 4, dtype=np.uint64)
    return np.stack(philox_at(block, *key), axis=-1).reshape(-1)[:size] if size else np.zeros(0, np.uint64)


def uniform_reference(counter, shape, low, high, stream, dtype):
    return (low + (high - low) * WORD * words_reference(math.prod(shape), counter, stream)).reshape(shape)


def normal_reference(counter, shape, mean, std, stream, dtype):
    size = math.prod(shape)
    words = words_reference(-(-size // 2) * 2, counter, stream).astype(np.float64).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log((words[:, :1] + 0.5) / 2 ** 32)), words[:, 1:] / 2 ** 32 * 2 * np.pi
    return (mean + std * radius * np.hstack([np.cos(angle), np.sin(angle)])).reshape(-1)[:size].reshape(shape)


def dropout_reference(x, counter, rate, stream):
    kept = words_reference(x.size, counter, stream).reshape(x.shape) < round((1 - rate) * 2 ** 32)
    return np.where(kept, x / (1 - rate), 0)


def shuffled(n, seed, epoch):
    """The numbers 0 to n - 1 in an order that depends on `seed` and `epoch` only, as int64 (on the host).

    Each number gets 64 random bits, by which they are sorted. No version of NumPy changes the order.
    """
    words = words_reference(2 * n, (seed, epoch), SHUFFLE)
    return np.argsort(words[0::2] << HALF | words[1::2], kind="stable").astype(np.int64)


# ---------------------------------------------------------------------------------------------------------------- CPU

philox = part(philox_at, forceinline=True)
key_of = part(key_at, forceinline=True)


@part(forceinline=True)
def block_span(size, task, tasks):
    """(first block, first value, end) of this task's share; the last block of all may be cut short."""
    first, count = span((size + 3) // 4, task, tasks)
    return first, 4 * first, min(4 * (first + count), size)


@part
def uniform_cpu(counter, low, unit, shift, stream, out, task, tasks):
    """out[i] = low + unit * (word >> shift)"""
    number = out.dtype.type
    low, unit, shift = number(low), number(unit), np.uint64(shift)
    stream, step0, step1, key0, key1 = key_of(counter, stream)
    block, start, end = block_span(out.size, task, tasks)
    out = out[start:end]
    whole = out.size // 4
    for k in range(whole):
        a, b, c, d = philox(np.uint64(block + k), stream, step0, step1, key0, key1)
        out[4 * k] = low + unit * number(np.uint32(a >> shift))
        out[4 * k + 1] = low + unit * number(np.uint32(b >> shift))
        out[4 * k + 2] = low + unit * number(np.uint32(c >> shift))
        out[4 * k + 3] = low + unit * number(np.uint32(d >> shift))
    words = philox(np.uint64(block + whole), stream, step0, step1, key0, key1)
    for i in range(4 * whole, out.size):
        out[i] = low + unit * number(np.uint32(words[i & 3] >> shift))


@part
def normal_cpu(counter, pair, mean, std, stream, out, task, tasks):
    """out[2 i], out[2 i + 1] = mean + std * pair(word, next word)"""
    number = out.dtype.type
    mean, std = number(mean), number(std)
    stream, step0, step1, key0, key1 = key_of(counter, stream)
    block, start, end = block_span(out.size, task, tasks)
    out = out[start:end]
    whole = out.size // 4
    for k in range(whole):
        a, b, c, d = philox(np.uint64(block + k), stream, step0, step1, key0, key1)
        x, y = pair(number(np.uint32(a)), number(np.uint32(b)))
        z, t = pair(number(np.uint32(c)), number(np.uint32(d)))
        out[4 * k], out[4 * k + 1] = mean + std * x, mean + std * y
        out[4 * k + 2], out[4 * k + 3] = mean + std * z, mean + std * t
    words = philox(np.uint64(block + whole), stream, step0, step1, key0, key1)
    for i in range(4 * whole, out.size):
        drawn = pair(number(np.uint32(words[i & 2])), number(np.uint32(words[i & 2 | 1])))
        out[i] = mean + std * drawn[i & 1]


@part(forceinline=True)
def words_of_blocks(first, key):
    """`philox_at` for the blocks from `first` on that make WORDS words, which come in order"""
    stream, step0, step1, k0, k1 = key
    a = numbered(first)
    b, c, d = broadcast(a, stream), broadcast(a, step0), broadcast(a, step1)
    for _ in range(9):
        p, q = low_product(a, FIRST), low_product(c, SECOND)
        a, b, c, d = swapped(q) ^ b ^ broadcast(a, k0), q, swapped(p) ^ d ^ broadcast(a, k1), p
        k0, k1 = k0 + FIRST_KEY, k1 + SECOND_KEY
    p, q = low_product(a, FIRST), low_product(c, SECOND)     # a and b, c and d are a lane each
    return woven(swapped(q) ^ lower(b) ^ broadcast(a, k0 & LOW), swapped(p) ^ lower(d) ^ broadcast(a, k1 & LOW))


@part(disjoint=True, apart=True)
def dropout_tiles(x, threshold, scale, first, key, store, out):
    """The values from block `first` on, in whole tiles"""
    p, q = pointer(x), pointer(out)
    kind, last = tile_of_words(p), threshold - ONE
    factor = broadcast(kind, scale)
    for k in range(out.size // WORDS):
        if is_past(store):                   # see `put_values`
            prefetch(kind, p + (k + AHEAD) * WORDS, 0, 1)
        words = words_of_blocks(first + np.uint64(k * (WORDS // 4)), key)
        values = tile_load(kind, p + k * WORDS, 0) * factor
        tile_put(store, where_at_most(words, last, values), q + k * WORDS)


@part(disjoint=True, apart=True)
def dropout_words(x, threshold, scale, first, key, out):
    """The values from block `first` on, word by word"""
    zero, (stream, step0, step1, key0, key1) = x.dtype.type(0), key
    for i in range(out.size):
        words = philox(first + np.uint64(i // 4), stream, step0, step1, key0, key1)
        out[i] = x[i] * scale if words[i & 3] < threshold else zero


@part
def dropout_cpu(x, counter, threshold, scale, stream, out, store, task, tasks):
    """out[i] = x[i] * scale if word < threshold else 0; tasks share whole tiles"""
    scale, threshold, key = x.dtype.type(scale), np.uint64(threshold), key_of(counter, stream)
    first, count = span((out.size + WORDS - 1) // WORDS, task, tasks)
    start, end = first * WORDS, min((first + count) * WORDS, out.size)
    whole = start + (end - start) // WORDS * WORDS if threshold > 0 else start
    block = np.uint64(start // 4)
    if is_past(store) and to_boundary(pointer(out)) == 0:
        dropout_tiles(x[start:whole], threshold, scale, block, key, store, out[start:whole])
    else:
        dropout_tiles(x[start:whole], threshold, scale, block, key, NEAR, out[start:whole])
    dropout_words(x[whole:end], threshold, scale, np.uint64(whole // 4), key, out[whole:end])
    ended(store)


# --------------------------------------------------------------------------------------------------------------- CUDA

philox_device, key_device = device(philox_at), device(key_at)


@kernel
def _uniform_cuda(counter, low, unit, shift, stream, out):
    block = cuda.grid(1)
    stream, step0, step1, key0, key1 = key_device(counter, stream)
    words = philox_device(np.uint64(block), stream, step0, step1, key0, key1)
    for k in range(4):
        i = 4 * block + k
        if i < out.size:
            out[i] = low + unit * out.dtype.type(np.uint32(words[k] >> np.uint64(shift)))


@kernel_of
def _normal_cuda(pair):
    def normal(counter, mean, std, stream, out):
        block = cuda.grid(1)
        stream, step0, step1, key0, key1 = key_device(counter, stream)
        words = philox_device(np.uint64(block), stream, step0, step1, key0, key1)
        number = out.dtype.type
        for k in range(2):
            i = 4 * block + 2 * k
            x, y = pair(number(np.uint32(words[2 * k])), number(np.uint32(words[2 * k + 1])))
            if i < out.size:
                out[i] = mean + std * x
            if i + 1 < out.size:
                out[i + 1] = mean + std * y
    return normal


@kernel
def _dropout_cuda(x, counter, threshold, scale, stream, out):
    block = cuda.grid(1)
    stream, step0, step1, key0, key1 = key_device(counter, stream)
    words = philox_device(np.uint64(block), stream, step0, step1, key0, key1)
    i, zero, most = 4 * block, x.dtype.type(0), np.uint64(threshold)
    if i + 4 <= out.size and is_aligned(x) and is_aligned(out):
        p, q, r, s = load4(x, i)
        store4(out, i, p * scale if words[0] < most else zero, q * scale if words[1] < most else zero,
               r * scale if words[2] < most else zero, s * scale if words[3] < most else zero)
    else:
        for k in range(4):
            if i + k < out.size:
                out[i + k] = x[i + k] * scale if words[k] < most else zero


def uniform_cuda(counter, low, unit, shift, stream, out):
    number = out.dtype.type
    _uniform_cuda[blocks((out.size + 3) // 4), THREADS](counter, number(low), number(unit), shift, stream, out)


def normal_cuda(counter, pair, mean, std, stream, out):
    number = out.dtype.type
    made = _normal_cuda(TURNED_PAIR, out.dtype)
    made[blocks((out.size + 3) // 4), THREADS](counter, number(mean), number(std), stream, out)


def dropout_cuda(x, counter, threshold, scale, stream, out):
    _dropout_cuda[blocks((out.size + 3) // 4), THREADS](x, counter, threshold, x.dtype.type(scale), stream, out)


# ------------------------------------------------------------------------------------------------------------ records


def _counted(counter, size, stream):
    """Refuses what the counter cannot count."""
    integers(counter, "the counter")
    demand(tuple(counter.shape) == (2,), "a counter of shape (2,), [seed, step]", tuple(counter.shape))
    demand(0 <= stream <= SHUFFLE, f"a stream from 0 to {SHUFFLE}", stream)
    demand(size <= 2 ** 34, "at most 2**34 random values in one call", size, "use several streams")


def drawn_shapes(counter, shape, stream, dtype, **numbers):
    _counted(counter, math.prod(shape), stream)
    demand(np.dtype(dtype) in FLOATS, "dtype float32 or float64", np.dtype(dtype).name)
    return Spec(tuple(int(s) for s in shape), np.dtype(dtype))


def dropout_shapes(x, counter, rate, stream):
    floats(x)
    _counted(counter, x.size, stream)
    demand(0 <= rate < 1, "a rate from 0 up to (not including) 1", rate, "it is the share of values that are dropped")
    return same((x,))


def _tasks(size, threads):
    return share(4 * size, threads)          # a value costs some four plain operations


def arrange_uniform(inputs, outputs, attributes, threads):
    out = outputs[0]
    shift = 8 if out.dtype == np.float32 else 0          # float32 has 24 digits: more would round up to `high`
    unit = (attributes["high"] - attributes["low"]) * 2.0 ** (shift - 32)
    return Arrangement(((2,),), ((out.size,),), (float(attributes["low"]), float(unit), shift, attributes["stream"]),
                       tasks=_tasks(out.size, threads))


def arrange_normal(inputs, outputs, attributes, threads):
    scalars = NORMAL_PAIR, float(attributes["mean"]), float(attributes["std"]), attributes["stream"]
    return Arrangement(((2,),), ((outputs[0].size,),), scalars, tasks=share(16 * outputs[0].size, threads))


def arrange_dropout(inputs, outputs, attributes, threads):
    size, rate = inputs[0].size, attributes["rate"]
    numbers = round((1 - rate) * 2 ** 32), 1 / (1 - rate), attributes["stream"]
    made = Arrangement(((size,), (2,)), ((size,),), numbers, tasks=_tasks(size, threads))
    return streaming(made, inputs, outputs)


def dropout_grad(graph, node, dy):
    """The same op on dy: the counter, and so the mask, is the same."""
    return graph.add(node.op, dy, node.inputs[1], **node.attributes), None


def _drawn_samples(**numbers):
    def samples(rng):
        for stream, (shape, dtype) in enumerate((((0,), "float32"), ((), "float64"), ((1,), "float32"),
                                                 ((3, 5), "float64"), ((7, 11), "float32"), ((2, 3, 13), "float32"))):
            yield (np.array([rng.integers(2 ** 62), stream]),), {"shape": shape, "dtype": dtype, "stream": stream,
                                                                 **numbers}
        yield (np.array([1, 2 ** 40 + 1]),), {"shape": (8219,), "stream": SHUFFLE}
    return samples


def _dropout_samples(rng):
    for shape, rate in (((0,), 0.5), ((1,), 0.5), ((3,), 0.0), ((5, 7), 0.25), ((4, 3, 11), 0.9), ((129,), 0.5)):
        yield (rng.standard_normal(shape), np.array([rng.integers(2 ** 62), 3])), {"rate": rate, "stream": 2}
    yield (np.array([np.inf, -np.inf, np.nan, 1e30] * 9), np.array([5, 2 ** 33])), {"rate": 0.5}


OPS = (
    Op("uniform", uniform_reference, drawn_shapes, uniform_cpu, uniform_cuda, _drawn_samples(low=-2.0, high=3.0),
       arrange_uniform, attributes={"shape": (), "low": 0.0, "high": 1.0, "stream": 0, "dtype": "float32"}),
    Op("normal", normal_reference, drawn_shapes, normal_cpu, normal_cuda, _drawn_samples(mean=0.5, std=2.0),
       arrange_normal, attributes={"shape": (), "mean": 0.0, "std": 1.0, "stream": 0, "dtype": "float32"}),
    Op("dropout", dropout_reference, dropout_shapes, dropout_cpu, dropout_cuda, _dropout_samples, arrange_dropout,
       dropout_grad, attributes={"rate": 0.5, "stream": 0}, inplace={0: 0}),
)
