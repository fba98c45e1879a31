"""Where every value of a graph lives: outside (parameters, feeds, state), in another value's memory, or in the arena.

The arena is planned by liveness: values that are never needed at the same time share memory.
"""
import bisect
from typing import NamedTuple

from engine.target import ALIGNMENT


class Place(NamedTuple):
    """root: the value that owns the memory; offset: bytes from its start."""
    root: object
    offset: int


def aliases(graph, fixed=0):
    """Value -> Place for values that live inside another value: parts, in-place updates, views, in-place maps."""
    places = {}
    last = _last_uses(graph, fixed)
    kept = graph.kept()
    for value, (inside, offset) in graph.parts.items():
        places[value] = Place(inside, offset * value.dtype.itemsize)

    def find(value):
        place = places.get(value, Place(value, 0))
        return place

    busy = {}                                # root -> position of the last use of anything in its memory
    for value, position in last.items():
        root = find(value).root
        busy[root] = max(busy.get(root, -1), position)
    for position, node in enumerate(graph.nodes):
        for out, source in {**node.op.updates, **node.op.views}.items():
            if node.outputs[out] in graph.parts:
                continue                     # it has a place of its own: the kernel copies
            places[node.outputs[out]] = find(node.inputs[source])
        for out, source in node.op.inplace.items():
            output, given = node.outputs[out], node.inputs[source]
            root = find(given).root
            if (output in places or output in kept or root.kind != "computed" or root in kept or output.size == 0
                    or busy.get(root, -1) != position or output.spec.nbytes != root.spec.nbytes
                    or sum(find(i).root is root for i in node.inputs) > 1):
                continue
            places[output] = find(given)
        for output in node.outputs:
            root = find(output).root
            busy[root] = max(busy.get(root, -1), last.get(output, position))
    return places


def _last_uses(graph, fixed):
    """Value -> position of its last use. What the first `fixed` nodes give the others is used for ever: they run once,
    the others again and again."""
    last, kept = {}, {value for node in graph.nodes[:fixed] for value in node.outputs}
    for position, node in enumerate(graph.nodes):
        for value in node.inputs:
            last[value] = len(graph.nodes) if position >= fixed and value in kept else position
    for value in graph.outputs.values():
        last[value] = len(graph.nodes)
    return last


def lifetimes(graph, places, fixed=0):
    """root Value -> (first, last) position of use, for computed values that own memory."""
    spans = {}
    last = _last_uses(graph, fixed)
    for position, node in enumerate(graph.nodes):
        for value in (*node.inputs, *node.outputs):
            root = places.get(value, Place(value, 0)).root
            if root.kind == "computed":
                first = spans.get(root, (position, position))[0]
                spans[root] = (first, max(position, last.get(value, position), spans.get(root, (0, 0))[1]))
    return spans


def pack(spans, sizes):
    """Offsets for buffers with lifetimes: (offsets {key: bytes}, size of the arena). The largest comes first; each gets
    the lowest place that is free all its life."""
    offsets, placed, end = {}, [], 0         # placed: (offset, end, first, last), by offset
    for key in sorted(spans, key=lambda k: -sizes[k]):
        (first, last), size, at = spans[key], rounded(sizes[key]), 0
        for begin, behind, since, until in placed:
            if since <= last and first <= until:
                if begin - at >= size:
                    break
                at = max(at, behind)
        offsets[key], end = at, max(end, at + size)
        bisect.insort(placed, (at, at + size, first, last))
    return offsets, end


def rounded(size):
    """Up to a whole number of aligned blocks."""
    return -(-size // ALIGNMENT) * ALIGNMENT
