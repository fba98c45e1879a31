"""Large outputs are written past the caches.

A store into memory that no cache holds first reads what it overwrites. When an output is so large that nobody finds it
in a cache afterwards, that read is a third of the traffic of z = x + y, half of y = f(x). So a kernel computes a block
of values into scratch that stays in the first-level cache, and `pour` copies the block with stores that go straight to
memory. Small outputs are computed where they lie: one loop serves both.

    for at, n in blocks of the task's share:
        to, place = (work, own block) if streams else (out, at)
        for k in range(n):
            to[place + k] = f(x[at + k])
        if streams:
            pour(work, own block, out, at, n)
"""
from engine.kernels.op import Spec, flat
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

BLOCK = 2048                                 # values of a block: with as many of two inputs, half a first-level cache


def streams(inputs, outputs):
    """Whether a call's outputs go past the caches: where its arrays together are a good part of the last cache (which
    other programs use as well), and far larger than a core's own."""
    return sum(s.nbytes for s in (*inputs, *outputs)) >= max(8 * cache_bytes(2), cache_bytes(3) // 4)


def streaming(arrangement, inputs, outputs):
    """The arrangement with what such a kernel takes last: scratch of one block for each task, and whether to use it."""
    large = streams(inputs, outputs)
    size = arrangement.tasks * BLOCK if large else 0
    return arrangement._replace(work=(Spec((size,), outputs[0].dtype),), blocking=(int(large),))


def flat_streaming(inputs, outputs, attributes, threads):
    """`flat` for kernels that stream."""
    return streaming(flat(inputs, outputs, attributes, threads), inputs, outputs)


@part(forceinline=True)
def block_of(streamed, rest):
    """How many of the remaining values are computed at once."""
    return BLOCK if streamed and rest > BLOCK else rest


@part
def pour(work, start, out, first, count):
    """out[first + k] = work[start + k], k < count, past the caches but for what is not a whole vector"""
    source, to = pointer(work) + start, pointer(out) + first
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
