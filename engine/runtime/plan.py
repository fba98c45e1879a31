"""A plan: a graph bound to one target and one batch size. Every buffer is allocated once, every call is resolved.

    plan = Plan(graph, target, bound={"w": array})
    plan.run(x=batch)                        # fills the feeds, runs every call
    plan.fetch("y")                          # an output, on the host
    print(plan)                              # a readable program, one line a call
"""
import threading
from functools import partial

import numpy as np

from engine import target as targets
from engine.errors import EngineError, ShapeError, unknown
from engine.kernels.entry import threads
from engine.kernels.program import Program, prepare
from engine.progress import compiling
from engine.runtime import memory, profile
from engine.runtime.fixed import fixed_first, updated
from engine.transfers import Conveyor

HOT = 1 << 22                                # bytes: scratch of calls that need no more is one place in the caches


class Plan:
    """graph: what to compute; target: where; bound: name -> array on that target for parameters, state and feeds
    (those not bound are allocated here, zeroed); version: the `Version` of the parameters, if somebody keeps count:
    then what depends on them alone is computed when they have changed, else in every run."""

    def __init__(self, graph, target, bound=None, version=None):
        self.target, self._version, self._prepared = target, version, None
        self.graph, self._fixed = (graph, 0) if version is None else fixed_first(graph)
        self._changes = version is not None and any(v.kind == "parameter" for v in updated(graph))
        self.profile = None
        self._lock = threading.Lock()
        self._places = memory.aliases(self.graph, self._fixed)
        self._own = dict(bound or {})        # name -> array of values that live outside the arena
        self._reserve()
        self._arrays = {value: self._array(value) for value in graph.values.values() if self._used(value)}
        self._bind()

    def _used(self, value):
        root = self.root(value)
        return value.kind != "computed" or root in self._offsets or root.kind != "computed"

    def _reserve(self):
        """Plans the arena and allocates it together with all that was not given."""
        spans = memory.lifetimes(self.graph, self._places, self._fixed)
        sizes, hot = {v: v.spec.nbytes for v in spans}, 0
        for number, node in enumerate(self.graph.nodes):
            work = self._work_of(node)
            for place, kept in enumerate(work[:self._keeps(node)[1]]):
                spans[number, place], sizes[number, place] = (0, len(self.graph.nodes)), kept.nbytes
            needed = sum(memory.rounded(s.nbytes) for s in work[self._keeps(node)[1]:])
            if needed > HOT:
                spans[number], sizes[number] = (number, number), needed
            else:
                hot = max(hot, needed)
        self._offsets, self.arena_bytes = memory.pack(spans, sizes)
        self._arena, self._hot = self.target.empty(self.arena_bytes), self.target.empty(hot)
        self._reserve_feeds()
        for value in self.graph.values.values():
            if value.kind == "constant":
                self._own[value.name] = self.target.place(value.data)
            elif value.kind != "computed" and value not in self._places and value.name not in self._own:
                self._own[value.name] = self.target.part(self.target.empty(value.spec.nbytes), 0, value.shape,
                                                         value.dtype)
            given = self._own.get(value.name)
            if given is not None and (tuple(given.shape) != value.shape or given.dtype != value.dtype):
                raise EngineError(f"plan: {value!r} was bound to an array of {given.dtype}{list(given.shape)}")

    def _reserve_feeds(self):
        """On a GPU the feeds that were not given lie side by side: a conveyor brings all of them at once."""
        self._conveyor, self._feeds, size = None, {}, 0
        if self.target is targets.cpu:
            return
        for value in self.graph.values.values():
            if value.kind == "feed" and value not in self._places and value.name not in self._own:
                self._feeds[value.name] = size
                size += -(-value.spec.nbytes // targets.DEVICE_ALIGNMENT) * targets.DEVICE_ALIGNMENT
        if self._feeds:
            block = self.target.empty(max(size, 1))
            self._conveyor = Conveyor(self.target, block)
            for name, offset in self._feeds.items():
                value = self.graph.values[name]
                self._own[name] = self.target.part(block, offset, value.shape, value.dtype)

    def _array(self, value):
        root, offset = self._places.get(value, memory.Place(value, 0))
        if root.kind == "computed":
            return self.target.part(self._arena, self._offsets[root] + offset, value.shape, value.dtype)
        own = self._own[root.name]
        if root is value:
            return own
        flat = own.reshape((root.size,))
        first = offset // value.dtype.itemsize
        return flat[first:first + value.size].reshape(value.shape)

    def _bind(self):
        self.preparation, self.program = Program(self.target), Program(self.target)
        self._nodes = {self.preparation: [], self.program: []}       # the node of each call
        for number, node in enumerate(self.graph.nodes):
            inputs = [self._arrays[v] for v in node.inputs]
            outputs = [self._arrays[v] for v in node.outputs]
            if node.op.views and node.outputs[0] not in self.graph.parts:
                continue
            program = self.preparation if number < self._fixed else self.program
            before = len(program.calls)
            call = program.add(node.op, inputs, outputs, node.attributes, partial(self._work, number))
            self._nodes[program] += [node] * (len(program.calls) - before)
            phases, _ = self._keeps(node)
            if phases and len(program.calls) > before:
                self.preparation.calls.append(call.split(phases))
                self._nodes[self.preparation].append(node)
        prepare(self.preparation, self.program)
        compiling.finish()

    def _keeps(self, node):
        """How many phases of a node's kernels this plan runs only once, and how many work arrays it keeps for that."""
        return node.op.keeps if node.attributes.get("kept") and self.target is targets.cpu else (0, 0)

    def _work_of(self, node):
        """Specs of the work arrays of a node's call."""
        if all(v.size == 0 for v in node.outputs):
            return ()
        made = node.op.arrange([v.spec for v in node.inputs], [v.spec for v in node.outputs], node.attributes,
                               threads.get())
        return made.work if self.target is targets.cpu else made.gpu_work

    def _work(self, number, specs):
        """Work arrays of a node's call. Those it keeps have places of their own; scratch stands side by side: much of
        it has a place in the arena for just that time, of little all calls share the same."""
        memory_of, at = (self._arena, self._offsets[number]) if number in self._offsets else (self._hot, 0)
        arrays = []
        for place, needed in enumerate(specs):
            own = self._offsets.get((number, place))
            if own is None:
                arrays.append(self.target.part(memory_of, at, needed.shape, needed.dtype))
                at += memory.rounded(needed.nbytes)
            else:
                arrays.append(self.target.part(self._arena, own, needed.shape, needed.dtype))
        return arrays

    @property
    def bytes(self):
        """Bytes that the plan allocated for computed values and scratch."""
        return self.arena_bytes + self._hot.nbytes

    def array(self, name):
        """The array, on the target, of a feed, parameter, state or output."""
        value = self.graph.outputs.get(name) or self.graph.values.get(name)
        if value is None:
            raise unknown("plan", name, [*self.graph.outputs, *self.graph.values])
        return self._arrays[value]

    def feed(self, name, array):
        """Copies a host array into a feed."""
        self._feed({name: array})

    def _feed(self, arrays):
        """Copies host arrays into feeds. On a GPU they are on their way when this returns, and the arrays free."""
        carried = []
        for name, array in arrays.items():
            destination = self.array(name)
            if not isinstance(array, np.ndarray):
                array = np.asarray(array, destination.dtype)
            if tuple(array.shape) != tuple(destination.shape):
                raise ShapeError(f"feed {name}: expected shape {tuple(destination.shape)}, got {array.shape}")
            array = array.astype(destination.dtype, copy=False)
            if name in self._feeds:
                carried.append((self._feeds[name], array))
            else:
                self.target.fill(destination, array)
        if carried:
            self._conveyor.put(carried)

    def fetch(self, name):
        """An output (or parameter or state) as a new host array."""
        return np.array(self.target.fetch(self.array(name)))

    def run(self, rounds=1, **feeds):
        """Fills the given feeds and works through the program `rounds` times (an epoch is many rounds of one step)."""
        with self._lock:
            self._feed(feeds)
            self.prepare()
            self.program.run(rounds)
            if self._changes:
                self._version.changed()

    def prepare(self):
        """Computes what depends on the weights alone, if they have changed since."""
        if self.preparation.calls and self._prepared != self._version.count:
            self._prepared = self._version.count
            self.preparation.run()

    def root(self, value):
        """The value that owns a value's memory."""
        return self._places.get(value, memory.Place(value, 0)).root

    @property
    def calls(self):
        """(node, call) of what is prepared, and then of every run."""
        return [pair for program in (self.preparation, self.program)
                for pair in zip(self._nodes[program], program.calls, strict=True)]

    def profile_run(self, rounds=50):
        """Times every call (see `engine.runtime.profile`); `print(plan)` then shows times and shares of the peak."""
        profile.profile(self, rounds)
        return self

    def __str__(self):
        return profile.describe(self)
