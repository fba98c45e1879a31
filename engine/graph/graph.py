"""A graph: nodes of ops in the order in which they run, over named values.

    g = Graph()
    x = g.feed("x", (32, 64), "float32")
    w = g.parameter("w", (64, 10), "float32")
    y = g.add("matmul", x, w)
    g.outputs["y"] = y
    print(g)
"""
import contextlib
from dataclasses import dataclass, field

import numpy as np

from engine.errors import DtypeError, EngineError, ShapeError
from engine.kernels import TABLE
from engine.kernels.op import Op, Spec

KINDS = ("feed", "parameter", "state", "constant", "computed")


@dataclass(frozen=True, eq=False)
class Value:
    """An array that does not exist yet. kind: feed (given before each run), parameter (trained), state (kept between
    runs), constant (fixed), computed (by a node)."""
    name: str
    shape: tuple
    dtype: np.dtype
    kind: str = "computed"
    trainable: bool = False
    data: np.ndarray = None                  # of a constant

    @property
    def spec(self):
        return Spec(self.shape, self.dtype)

    @property
    def size(self):
        return self.spec.size

    @property
    def ndim(self):
        return len(self.shape)

    def __repr__(self):
        return f"{self.name}:{self.spec}"


@dataclass(frozen=True, eq=False)
class Node:
    """One op applied to values."""
    op: Op
    inputs: tuple
    outputs: tuple
    attributes: dict = field(default_factory=dict)
    label: str = ""

    def __repr__(self):
        given = {k: v for k, v in self.attributes.items() if self.op.attributes.get(k) != v}
        shown = [str(v.name) for v in self.inputs] + [f"{k}={v!r}" for k, v in given.items()]
        outs = ", ".join(repr(o) for o in self.outputs)
        return f"{outs} = {self.op.name}({', '.join(shown)})"


class Graph:
    """Nodes in order, values by name, and the outputs that a plan keeps.

    outputs     name -> Value that can be fetched after a run
    parts       Value -> (flat Value, offset in elements): a value that lives inside another one's memory
    """

    def __init__(self):
        self.nodes = []
        self.values = {}
        self.outputs = {}
        self.parts = {}
        self._scopes = []
        self._taken = {}

    def feed(self, name, shape, dtype):
        return self._value(name, shape, dtype, "feed")

    def parameter(self, name, shape, dtype, trainable=True):
        return self._value(name, shape, dtype, "parameter", trainable)

    def state(self, name, shape, dtype):
        return self._value(name, shape, dtype, "state")

    def constant(self, array, name="constant"):
        array = np.asarray(array, order="C")
        return self._keep(Value(self._free(name), array.shape, array.dtype, "constant", data=array))

    def add(self, op, *inputs, **attributes):
        """Appends a node; returns its output value (a tuple of them when the op has several)."""
        op = TABLE[op] if isinstance(op, str) else op
        for place, value in enumerate(inputs):
            if not isinstance(value, Value) or self.values.get(value.name) is not value:
                raise EngineError(f"{self.label or op.name}: input {place} of {op.name}: expected a value of this "
                                  f"graph, got {value!r}")
        try:
            specs = op.infer(*(v.spec for v in inputs), **attributes)
        except (ShapeError, DtypeError) as error:
            raise type(error)(f"{self.label}: {error}" if self.label else str(error)) from None
        outputs = tuple(self._keep(Value(self._free(f"{self.label}.{op.name}" if self.label else op.name),
                                         tuple(s.shape), np.dtype(s.dtype))) for s in specs)
        self.nodes.append(Node(op, inputs, outputs, op.complete(attributes), self.label))
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def label(self):
        return "/".join(self._scopes)

    @contextlib.contextmanager
    def scope(self, label):
        """Nodes added inside carry the label (a layer's name); errors name it."""
        self._scopes.append(label)
        try:
            yield
        finally:
            self._scopes.pop()

    def place(self, value, inside, offset):
        """The value lives in the memory of the one-dimensional value `inside`, `offset` elements from its start."""
        if offset + value.size > inside.size or value.dtype != inside.dtype:
            raise EngineError(f"place: {value!r} at {offset} does not fit into {inside!r}")
        self.parts[value] = (inside, offset)

    def piece(self, inside, offset, shape):
        """A new value of that shape that lives in the one-dimensional value `inside`, `offset` elements from its
        start."""
        value = self._value(self._free(f"{inside.name}[{offset}]"), shape, inside.dtype, inside.kind)
        self.place(value, inside, offset)
        return value

    def producer(self):
        """Value -> the node that computes it."""
        return {out: node for node in self.nodes for out in node.outputs}

    def users(self):
        """Value -> the nodes that take it, each as often as it does."""
        users = {}
        for node in self.nodes:
            for value in node.inputs:
                users.setdefault(value, []).append(node)
        return users

    def kept(self):
        """The values that are looked at from outside: outputs, and those with a place in another value's memory."""
        return set(self.outputs.values()) | set(self.parts)

    def with_nodes(self, nodes):
        """A graph with the same values, outputs and parts but other nodes (what passes return)."""
        new = Graph()
        new.nodes = list(nodes)
        new.values = dict(self.values)
        new.outputs, new.parts, new._taken = dict(self.outputs), dict(self.parts), dict(self._taken)
        return new

    def parameters(self):
        return [v for v in self.values.values() if v.kind == "parameter"]

    def _value(self, name, shape, dtype, kind, trainable=False):
        if name in self.values:
            raise EngineError(f"graph: the name {name!r} is taken by {self.values[name]!r}")
        return self._keep(Value(name, tuple(shape), np.dtype(dtype), kind, trainable))

    def _keep(self, value):
        self.values[value.name] = value
        return value

    def _free(self, name):
        """The name, or the name with the first number that makes it new."""
        while True:
            count = self._taken.get(name, -1) + 1
            self._taken[name] = count
            candidate = f"{name}_{count}" if count else name
            if candidate not in self.values:
                return candidate

    def __str__(self):
        lines = [f"graph: {len(self.nodes)} nodes"]
        for kind in ("feed", "parameter", "state"):
            lines += [f"  {kind} {v!r}" for v in self.values.values() if v.kind == kind]
        lines += [f"  {node!r}" for node in self.nodes]
        lines += [f"  output {name} = {value.name}" for name, value in self.outputs.items()]
        return "\n".join(lines)
