"""Large outputs are written past the caches.

A store into memory that no cache holds first reads what it overwrites. When an output is so large that nobody finds it
in a cache afterwards, that read is a third of the traffic of z = x + y, half of y = f(x). So a kernel computes a block
of values into scratch that stays in the first-level cache, and `pour` copies the block with stores that go straight to
memory. Small outputs are computed where they lie, as one block.

What takes more than a few cycles a value is not streamed: it would compute and write in turns, while ordinary stores go
on behind the computing.

    while first < last:                                  # the task's share
        n = block_of(streamed, last - first)
        to = block(out, work, streamed, task, first, n)
        map_block(x[first:first + n], f, to)
        first = done(streamed, to, out, first)
    poured(streamed)
"""
from engine.kernels.op import Spec, flat, formulas_in
from engine.kernels.simd import (
    cache_bytes,
    lanes_of,
    part,
    pointer,
    stream_end,
    tile,
    tile_load,
    tile_stream,
    to_boundary,
)
from engine.kernels.split import span

BLOCK = 8192                                 # values of a block: it stays in the nearest caches; shorter ones cost more


def streams(inputs, outputs, formulas):
    """Whether a call's outputs go past the caches: where its arrays together are a good part of the last cache (which
    other programs use as well), and far larger than a core's own, and memory is all that it waits for."""
    size = sum(s.nbytes for s in (*inputs, *outputs))
    return size >= max(8 * cache_bytes(2), cache_bytes(3) // 4) and all(f.is_plain for f in formulas)


def streaming(arrangement, inputs, outputs):
    """The arrangement with what such a kernel takes last: scratch of one block for each task, and whether to use it."""
    streamed = streams(inputs, outputs, formulas_in(arrangement.scalars))
    size = arrangement.tasks * BLOCK if streamed else 0
    return arrangement._replace(work=(Spec((size,), outputs[0].dtype),), blocking=(int(streamed),))


def flat_streaming(inputs, outputs, attributes, threads):
    """`flat` for kernels that stream."""
    return streaming(flat(inputs, outputs, attributes, threads), inputs, outputs)


@part(forceinline=True)
def block_of(streamed, rest):
    """How many of the remaining values are computed at once."""
    return BLOCK if streamed and rest > BLOCK else rest


@part(forceinline=True)
def block(out, work, streamed, task, first, count):
    """Where `count` values of `out`, from `first` on, are computed."""
    return work[task * BLOCK:task * BLOCK + count] if streamed else out[first:first + count]


@part(forceinline=True)
def done(streamed, computed, out, first):
    """To be called with what `block` gave and is full; returns where the next block begins."""
    if streamed:
        pour(computed, out, first)
    return first + computed.size


@part(apart=True)
def pour(values, out, first):
    """out[first + k] = values[k], past the caches but for what is not a whole vector"""
    source, to, count = pointer(values), pointer(out) + first, values.size
    lanes, head = lanes_of(to), to_boundary(to)
    head = head if head < count else count
    whole = count - (count - head) % lanes
    for k in range(head):
        to[k] = source[k]
    for k in range(head, whole, lanes):
        tile_stream(tile_load(tile(1, 1, to), source + k, 0), to + k, 0)
    for k in range(whole, count):
        to[k] = source[k]


@part
def poured(streamed):
    """To be called when a task is done: others may read what it poured."""
    if streamed:
        stream_end()


@part(forceinline=True)
def beside(array, first, to):
    """The values of an input from `first` on, as many as `to` has"""
    return array[first:first + to.size]


@part
def stream_blocks(compute, inputs, f, numbers, out, work, streamed, task, tasks):
    """The task's share of `out`, block by block: compute(inputs, first, f, numbers, to) puts the values from `first` on
    into `to`. `inputs` is a tuple of arrays as long as `out` (see `beside`), f a formula, `numbers` its last."""
    first, count = span(out.size, task, tasks)
    last = first + count
    while first < last:
        to = block(out, work, streamed, task, first, block_of(streamed, last - first))
        compute(inputs, first, f, numbers, to)
        first = done(streamed, to, out, first)
    poured(streamed)


@part(disjoint=True, apart=True)
def map_block(inputs, first, f, numbers, out):
    """out = f(x, numbers...)"""
    x = beside(inputs[0], first, out)
    for k in range(out.size):
        out[k] = f(x[k], *numbers)


@part(disjoint=True, apart=True)
def slope_block(inputs, first, slope, numbers, dx):
    """dx = dy * slope(x, numbers...)"""
    dy, x = beside(inputs[0], first, dx), beside(inputs[1], first, dx)
    for k in range(dx.size):
        dx[k] = dy[k] * slope(x[k], *numbers)
