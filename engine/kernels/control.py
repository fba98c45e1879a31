"""What leads a compiled training step through an epoch: which samples come next, how far it is, sums over batches.

A step runs many times without Python in between, so all that changes from step to step lies in small arrays on the
target and is changed there:

    counter   int64 [seed, step]   random numbers and bias correction depend on it
    position  int64 [batch]        index of the batch within the epoch
    order     int64 [N]            the samples in the order of this epoch
    rates     float [S]            the learning rate of each step of the epoch

n batch, N samples of the data set. Indices are clamped into their arrays: a wrong one gives a wrong sample, never wild
memory.
"""
import math

import numpy as np

from engine.kernels.gpu import THREADS, blocks, cuda, device, kernel
from engine.kernels.op import Arrangement, Op, Spec, demand, floats, integers, same, share, spec
from engine.kernels.simd.parts import part
from engine.kernels.split import greatest, least, span

# ----------------------------------------------------------------------------------------------------- NumPy reference


def take_batch_reference(data, order, position, size):
    at = np.clip(position[0] * size + np.arange(size), 0, len(order) - 1)
    return data[np.clip(order[at], 0, len(data) - 1)]


def advance_reference(counter, by):
    counter = counter.copy()
    counter[-1] += by
    return counter


def pick_reference(rates, position):
    return rates[np.clip(position, 0, len(rates) - 1)]


def accumulate_reference(total, value, weight):
    return total + weight * value.reshape(total.shape)


def record_reference(history, value, position):
    history = history.copy()
    history[np.clip(position[0], 0, len(history) - 1)] = value.reshape(())
    return history


# ---------------------------------------------------------------------------------------------------------------- CPU


@part(forceinline=True)
def clamped(index, size):
    return min(max(index, 0), size - 1)


@part
def take_batch_cpu(data, order, position, out, task, tasks):
    """out[r] = data[order[position * size + r]]"""
    start = position[0] * out.shape[0]
    first, count = span(out.shape[0], task, tasks)
    for r in range(count):
        sample = clamped(order[clamped(start + first + r, order.size)], data.shape[0])
        given, row = data[sample], out[first + r]
        for j in range(row.size):
            row[j] = given[j]


@part
def advance_cpu(counter, by, out, task, tasks):
    """out[-1] += by; out is counter's memory"""
    out[out.size - 1] += by


@part
def pick_cpu(rates, position, out, task, tasks):
    """out = rates[position]"""
    out[0] = rates[clamped(position[0], rates.size)]


@part
def accumulate_cpu(total, value, weight, out, task, tasks):
    """out += weight * value in out's precision; out is total's memory"""
    number = out.dtype.type
    for i in range(out.size):
        out[i] += number(weight) * number(value[i])


@part
def record_cpu(history, value, position, out, task, tasks):
    """out[position] = value; out is history's memory"""
    out[clamped(position[0], out.size)] = out.dtype.type(value[0])


# --------------------------------------------------------------------------------------------------------------- CUDA


@device
def inside(index, size):
    return least(greatest(index, 0), size - 1)


@kernel
def _take_batch_cuda(data, order, position, out):
    i = cuda.grid(1)
    rows, width = out.shape
    if i < rows * width:
        r = i // width
        j = i - r * width
        at = inside(position[0] * rows + r, order.size)
        out[r, j] = data[inside(order[at], data.shape[0]), j]


@kernel
def _advance_cuda(by, out):
    out[out.size - 1] += by


@kernel
def _pick_cuda(rates, position, out):
    out[0] = rates[inside(position[0], rates.size)]


@kernel
def _accumulate_cuda(value, weight, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] += weight * out.dtype.type(value[i])


@kernel
def _record_cuda(value, position, out):
    out[inside(position[0], out.size)] = out.dtype.type(value[0])


def take_batch_cuda(data, order, position, out):
    _take_batch_cuda[blocks(out.size), THREADS](data, order, position, out)


def advance_cuda(counter, by, out):
    _advance_cuda[1, 1](by, out)


def pick_cuda(rates, position, out):
    _pick_cuda[1, 1](rates, position, out)


def accumulate_cuda(total, value, weight, out):
    _accumulate_cuda[blocks(out.size), THREADS](value, out.dtype.type(weight), out)


def record_cuda(history, value, position, out):
    _record_cuda[1, 1](value, position, out)


# ------------------------------------------------------------------------------------------------------------ records


def _position(position):
    integers(position, "the position")
    demand(position.size == 1, "a position of one number", tuple(position.shape))


def take_batch_shapes(data, order, position, size):
    integers(order, "the order")
    _position(position)
    demand(data.ndim >= 1 and data.shape[0] >= 1, "data with at least one sample", tuple(data.shape))
    demand(order.ndim == 1 and order.size >= 1, "an order of at least one index", tuple(order.shape))
    demand(size >= 0, "a batch size of at least 0", size)
    return Spec((int(size), *data.shape[1:]), data.dtype)


def advance_shapes(counter, by):
    integers(counter, "the counter")
    demand(counter.ndim == 1 and counter.size >= 1, "a counter of one dimension", tuple(counter.shape))
    return spec(counter)


def pick_shapes(rates, position):
    floats(rates)
    _position(position)
    demand(rates.ndim == 1 and rates.size >= 1, "a row of at least one rate", tuple(rates.shape))
    return Spec((1,), rates.dtype)


def accumulate_shapes(total, value, weight):
    floats(total)
    floats(value)
    demand(total.size == value.size, f"a value of the total's shape, {tuple(total.shape)}", tuple(value.shape))
    return same((total,))


def record_shapes(history, value, position):
    floats(history)
    floats(value)
    _position(position)
    demand(value.size == 1, "one value", tuple(value.shape))
    demand(history.ndim == 1 and history.size >= 1, "a history of one dimension", tuple(history.shape))
    return same((history,))


def arrange_take_batch(inputs, outputs, attributes, threads):
    data, order, _ = inputs
    width = math.prod(data.shape[1:])
    return Arrangement(((data.shape[0], width), (order.size,), (1,)), ((outputs[0].shape[0], width),),
                       tasks=share(outputs[0].size, threads))


def arrange_small(inputs, outputs, attributes, threads):
    """Everything in one dimension, one task."""
    return Arrangement(tuple((s.size,) for s in inputs), tuple((s.size,) for s in outputs), tuple(attributes.values()))


def _take_batch_samples(rng):
    for shape, size, position in (((1,), 1, 0), ((7,), 3, 1), ((5, 3), 2, 2), ((6, 2, 3), 0, 0), ((11, 2, 3, 2), 4, 1),
                                  ((9, 0), 2, 1), ((4, 3), 2, 99), ((4, 3), 2, -5)):
        order = rng.permutation(shape[0]).astype(np.int64)
        yield (rng.standard_normal(shape), order, np.array([position])), {"size": size}
    yield (rng.integers(0, 256, (6, 5)).astype(np.uint8), np.array([3, 0, 5]), np.array([0])), {"size": 3}
    yield (rng.integers(0, 9, (6, 2)), np.array([3, -7, 99, 2 ** 40]), np.array([0])), {"size": 4}
    yield (rng.standard_normal((300, 160)), rng.permutation(300), np.array([0])), {"size": 257}


def _advance_samples(rng):
    yield (np.array([5, 0]),), {}
    yield (np.array([41]),), {"by": 2}


def _pick_samples(rng):
    for position in (0, 4, 6, 99, -1):
        yield (rng.standard_normal(7), np.array([position])), {}


def _accumulate_samples(rng):
    for shape, weight in (((), 1.0), ((1,), 32.0), ((3, 5), 0.5), ((0,), 1.0)):
        yield (np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))), {"weight": weight}


def _record_samples(rng):
    for position in (0, 4, 99, -1):
        yield (rng.standard_normal(5), rng.standard_normal(1), np.array([position])), {}


OPS = (
    Op("take_batch", take_batch_reference, take_batch_shapes, take_batch_cpu, take_batch_cuda, _take_batch_samples,
       arrange_take_batch, attributes={"size": 1}),
    Op("advance", advance_reference, advance_shapes, advance_cpu, advance_cuda, _advance_samples, arrange_small,
       attributes={"by": 1}, updates={0: 0}),
    Op("pick", pick_reference, pick_shapes, pick_cpu, pick_cuda, _pick_samples, arrange_small),
    Op("accumulate", accumulate_reference, accumulate_shapes, accumulate_cpu, accumulate_cuda, _accumulate_samples,
       arrange_small, attributes={"weight": 1.0}, updates={0: 0}),
    Op("record", record_reference, record_shapes, record_cpu, record_cuda, _record_samples, arrange_small,
       updates={0: 0}),
)
