"""What works value by value, and large outputs written past the caches.

A store into memory that no cache holds first reads what it overwrites. When an output is so large that nobody finds it
in a cache afterwards, that read is a third of the traffic of z = x + y and of y = f(x). So a kernel's inner loop, which
stands in a part of its own, is told how to store:

    compute(inputs, first, f, numbers, store, out)       all of `out`, whose first value belongs to place `first`

NEAR is an ordinary store; PAST goes straight to memory, in whole vectors. Which one is chosen with the arrangement
(`streaming`), and each makes an entry of its own: a call that needs one does not wait for the other to be compiled.
"""
from engine.kernels.op import flat
from engine.kernels.simd import (
    NEAR,
    PAST,
    cache_bytes,
    is_past,
    lanes_of,
    part,
    pointer,
    prefetch_inputs,
    put,
    stream_end,
    to_boundary,
)
from engine.kernels.split import span

BLOCK = 16                                   # vectors that are computed while the next so many come from memory


def streams(inputs, outputs):
    """Whether a call's outputs go past the caches: where its arrays together are a good part of the last cache (which
    other programs use as well), and far larger than a core's own."""
    size = sum(s.nbytes for s in (*inputs, *outputs))
    return size >= max(8 * cache_bytes(2), cache_bytes(3) // 4)


def streaming(arrangement, inputs, outputs):
    """The arrangement with what such a kernel takes last: how to store."""
    return arrangement._replace(blocking=(*arrangement.blocking, PAST if streams(inputs, outputs) else NEAR))


def flat_streaming(inputs, outputs, attributes, threads):
    """`flat` for kernels that stream."""
    return streaming(flat(inputs, outputs, attributes, threads), inputs, outputs)


@part(forceinline=True)
def beside(array, first, to):
    """The values of an input from `first` on, as many as `to` has"""
    return array[first:first + to.size]


@part
def put_values(compute, inputs, first, f, numbers, coming, ahead, store, out):
    """All values of `out`; past the caches go whole vectors, those that begin at a multiple of their size. Where they
    do, inputs come from memory as well, and a formula of twenty steps leaves a processor no view of what to fetch: so
    each block asks for as many values of the arrays `coming`, which begin at place `ahead` for the first."""
    if is_past(store):
        at, size = min(out.size, to_boundary(pointer(out))), BLOCK * lanes_of(pointer(out))
        last = out.size - (out.size - at) % lanes_of(pointer(out))
        compute(inputs, first, f, numbers, NEAR, out[:at])
        while at < last:
            end = min(last, at + size)
            prefetch_inputs(coming, out, ahead + at, end - at)
            compute(inputs, first + at, f, numbers, store, out[at:end])
            at = end
        compute(inputs, first + last, f, numbers, NEAR, out[last:])
    else:
        compute(inputs, first, f, numbers, store, out)


@part
def put_from(compute, inputs, first, f, numbers, store, out):
    """`put_values` of which each block asks for the inputs of the next one."""
    put_values(compute, inputs, first, f, numbers, inputs, first + BLOCK * lanes_of(pointer(out)), store, out)


@part
def ended(store):
    """To be called when a task is done: others may read what it streamed."""
    if is_past(store):
        stream_end()


@part
def put_share(compute, inputs, f, numbers, out, store, task, tasks):
    """The task's share of `out`. `inputs` is a tuple of arrays as long as `out` (see `beside`), f a formula, `numbers`
    its last."""
    first, count = span(out.size, task, tasks)
    put_from(compute, inputs, first, f, numbers, store, out[first:first + count])
    ended(store)


# ----------------------------------------------------------------------------------------------------------- the loops


@part(disjoint=True, apart=True, interleaved=True)
def map_values(inputs, first, f, numbers, store, out):
    """f(x, numbers...)"""
    x = beside(inputs[0], first, out)
    for k in range(out.size):
        put(store, out, k, f(x[k], *numbers))


@part(disjoint=True, apart=True, interleaved=True)
def slope_values(inputs, first, slope, numbers, store, dx):
    """dy * slope(x, numbers...)"""
    dy, x = beside(inputs[0], first, dx), beside(inputs[1], first, dx)
    for k in range(dx.size):
        put(store, dx, k, dy[k] * slope(x[k], *numbers))


@part(disjoint=True, apart=True, interleaved=True)
def map2_values(inputs, first, f, numbers, store, out):
    """f(a, b, numbers...)"""
    a, b = beside(inputs[0], first, out), beside(inputs[1], first, out)
    for k in range(out.size):
        put(store, out, k, f(a[k], b[k], *numbers))


@part(disjoint=True, apart=True, interleaved=True)
def map3_values(inputs, first, f, numbers, store, out):
    """f(a, b, c, numbers...)"""
    a, b, c = beside(inputs[0], first, out), beside(inputs[1], first, out), beside(inputs[2], first, out)
    for k in range(out.size):
        put(store, out, k, f(a[k], b[k], c[k], *numbers))


@part(disjoint=True, apart=True, interleaved=True)
def map4_values(inputs, first, f, numbers, store, out):
    """f(a, b, c, d, numbers...)"""
    a, b = beside(inputs[0], first, out), beside(inputs[1], first, out)
    c, d = beside(inputs[2], first, out), beside(inputs[3], first, out)
    for k in range(out.size):
        put(store, out, k, f(a[k], b[k], c[k], d[k], *numbers))
