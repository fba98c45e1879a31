"""The record of one operation: everything the engine knows about an op stands in one `Op`.

Shape letters used in all families: n batch, i inputs (features in), o outputs (features out), c classes or columns,
m, k, n of a product `(m, k) @ (k, n)`.

**How an op runs.** `shapes` checks the inputs and gives the outputs; it is the only place that refuses bad input.
`arrange` says how the arrays are handed to the kernels: as which simpler shapes (an elementwise op sees everything as
one dimension), which numbers go along, how many tasks the CPU kernel is split into. Both targets get the same views:

    cpu:   kernel(inputs..., scalars..., outputs..., work..., blocking..., task, tasks)     @part, one task of a grid
    cuda:  launcher(inputs..., scalars..., outputs...)                                      starts the grid itself

A tuple of CPU kernels is a sequence of phases with a barrier in between and the same arguments; where an arrangement
names some (`phases`), a call has and compiles these only.
"""
import math
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple

import numpy as np

from engine import target as targets
from engine.errors import DtypeError, EngineError, ShapeError, TargetError, UnknownName

FLOATS = (np.dtype("float32"), np.dtype("float64"))
INTEGER = np.dtype("int64")
BYTE = np.dtype("uint8")                     # images as stored
HALF = np.dtype("uint16")                    # storage of float16 and bfloat16, see engine/kernels/half
# A region of threads costs microseconds. Below this many elementary operations a call runs as one task.
SERIAL_BELOW = 100_000


class Spec(NamedTuple):
    """Shape and dtype of an array that need not exist."""
    shape: tuple
    dtype: np.dtype

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def nbytes(self):
        return self.size * np.dtype(self.dtype).itemsize

    def __str__(self):
        return f"{np.dtype(self.dtype).name}{list(self.shape)}".replace(" ", "")


def spec(array):
    """The `Spec` of anything with a shape and a dtype."""
    return Spec(tuple(array.shape), np.dtype(array.dtype))


class Arrangement(NamedTuple):
    """How the arrays of one call are handed to its kernels (see the module's text)."""
    inputs: tuple                            # a shape for each input
    outputs: tuple                           # a shape for each output
    scalars: tuple = ()                      # int, float or Formula
    work: tuple = ()                         # Specs of scratch arrays (CPU only)
    blocking: tuple = ()                     # ints, Formulas and Stores that only the CPU kernel needs
    tasks: int = 1
    gpu_work: tuple = ()                     # Specs of scratch arrays that the CUDA launcher gets after the outputs
    grains: int = 0                          # pieces that the tasks share by `span`, equally or not; 0: equally only
    phases: tuple = ()                       # which of the op's CPU phases this call needs; (): all


class Cost(NamedTuple):
    """Arithmetic and traffic of one call."""
    flops: float
    bytes: float


def flat(inputs, outputs, attributes, threads):
    """Arrangement of an elementwise op: every array has one dimension; attributes follow in their declared order."""
    return Arrangement(tuple((s.size,) for s in inputs), tuple((s.size,) for s in outputs), tuple(attributes.values()),
                       tasks=share(max(s.size for s in (*inputs, *outputs)), threads), grains=outputs[0].size)


def rows(inputs, outputs, attributes, threads):
    """Arrangement of an op along the last axis: 2-D arrays become (product of the leading sizes, last size)."""
    def two(shape):
        return (math.prod(shape[:-1]), shape[-1]) if len(shape) >= 2 else shape
    return Arrangement(tuple(two(s.shape) for s in inputs), tuple(two(s.shape) for s in outputs),
                       tuple(attributes.values()), tasks=share(max(s.size for s in (*inputs, *outputs)), threads))


def share(operations, threads, below=SERIAL_BELOW):
    """Tasks for a call of so many elementary operations: one when small, else one for each thread."""
    return 1 if operations < below else threads


def traffic(inputs, outputs, attributes):
    """Cost of an op that touches every value once with one operation for each output value."""
    return Cost(sum(s.size for s in outputs), sum(s.nbytes for s in (*inputs, *outputs)))


def same(inputs, **attributes):
    """Output like the first input (for `shapes` of maps)."""
    return (spec(inputs[0]),)


@dataclass(frozen=True)
class Op:
    """One operation.

    name        the key in TABLE
    reference   reference(*arrays, **attributes) -> array or tuple: the truth, in NumPy, made for float64
    shapes      shapes(*specs, **attributes) -> Spec or tuple of Specs; raises ShapeError and DtypeError
    cpu         the kernel, or a tuple of kernels (phases)
    cuda        the launcher of the CUDA kernels
    samples     samples(rng) -> iterable of (inputs, attributes): float64 inputs, with awkward sizes (0, 1, prime, tail)
    arrange     arrange(inputs, outputs, attributes, threads) -> Arrangement
    grad        grad(graph, node, *output_gradients) -> one Value or None for each input; emits nodes
    terms       terms(*specs, **attributes) -> length of the sum behind one output value: it sets the tolerance
    cost        cost(inputs, outputs, attributes) -> Cost
    attributes  the attributes' names and defaults, in the order in which kernels get them
    inplace     {output index: input index}: the output may take that input's memory
    updates     {output index: input index}: the output IS that input's memory (parameters, counters)
    activation  the Activation that the op applies, if it is one: passes take it into the op before it
    slope       the Activation by whose derivative, taken at the second input, the op multiplies the first
    formula     formula(attributes) -> (Formula, numbers), for an op computed value by value where all shapes are one:
                its output from its inputs' values and then these numbers; passes compose them
    byproducts  indices of outputs through which no gradient flows (what the forward pass keeps for the backward pass)
    keeps       (phases, work arrays) of the CPU kernels: so many first phases look at input 1 alone, the weights, and
                fill so many first work arrays; where the attribute `kept` says that the weights stay, a plan runs
                these phases once
    views       {output index: input index}: the same values under another shape; a plan calls no kernel for it
    """
    name: str
    reference: Callable
    shapes: Callable
    cpu: Any
    cuda: Callable | None = None
    samples: Callable = lambda rng: ()
    arrange: Callable = flat
    grad: Callable | None = None
    terms: Callable = lambda *specs, **attributes: 1
    cost: Callable = traffic
    attributes: dict = field(default_factory=dict)
    inplace: dict = field(default_factory=dict)
    updates: dict = field(default_factory=dict)
    views: dict = field(default_factory=dict)
    byproducts: frozenset = frozenset()
    keeps: tuple = (0, 0)
    activation: Any = None
    slope: Any = None
    formula: Callable | None = None

    def __post_init__(self):
        if not self.name.isidentifier():
            raise EngineError(f"op: expected a name that is an identifier, got {self.name!r}")
        object.__setattr__(self, "phases", self.cpu if isinstance(self.cpu, tuple) else (self.cpu,))

    def __repr__(self):
        return f"<op {self.name}>"

    def show(self, what="source", *inputs, **attributes):
        """What runs on the CPU, as text: the kernels' Python "source", the generated "entry", its "llvm" or "asm".

        The last three are those for `inputs` (by default the op's largest sample, as float32), compiled anew.
        """
        from engine.kernels.show import show
        return show(self, what, inputs, attributes)

    def complete(self, attributes):
        """All attributes in declared order, defaults filled in."""
        extra = [a for a in attributes if a not in self.attributes]
        if extra:
            raise UnknownName(f"{self.name}: unknown attribute {extra[0]!r}; it takes "
                              f"{', '.join(self.attributes) or 'none'}")
        return {**self.attributes, **attributes}

    def infer(self, *inputs, **attributes):
        """The outputs' Specs for the inputs' Specs; errors name the op."""
        try:
            out = self.shapes(*inputs, **self.complete(attributes))
        except (ShapeError, DtypeError) as error:
            raise type(error)(f"{self.name}: {error}") from None
        except TypeError as error:
            if error.__traceback__.tb_next is None:      # the call itself did not fit: wrong number of inputs
                raise ShapeError(f"{self.name}: got {len(inputs)} inputs: {error}") from None
            raise
        return (out,) if isinstance(out, Spec) else tuple(out)

    def __call__(self, *inputs, **attributes):
        """Runs the op where its inputs live and returns new arrays (one, or a tuple).

        Inputs are NumPy arrays (CPU) or device arrays (GPU), C-contiguous, all float32 or all float64, or arrays of
        other libraries (see `engine.target.adopt`); plain numbers take the dtype of the arrays.
        """
        from engine.kernels.program import Program
        inputs = self._arrays(inputs)
        target = targets.of(inputs, self.name)
        outs = self.infer(*map(spec, inputs), **attributes)
        made = [target.part(target.empty(s.nbytes), 0, s.shape, s.dtype) for s in outs]
        for output, source in self.updates.items():
            target.copy(made[output], inputs[source])
            inputs[source] = made[output]
        program = Program(target)
        program.add(self, inputs, made, self.complete(attributes))
        program.run()
        return made[0] if len(made) == 1 else tuple(made)

    def _arrays(self, inputs):
        dtype = next((a.dtype for a in inputs if hasattr(a, "dtype") and a.dtype in FLOATS), np.dtype("float64"))
        arrays = []
        for place, array in enumerate(inputs):
            try:
                array = targets.adopt(array)
            except TargetError as error:
                raise TargetError(f"{self.name}: input {place}: {error}") from None
            if isinstance(array, (int, float)) and not isinstance(array, bool):
                array = np.asarray(array, dtype)
            if not hasattr(array, "dtype"):
                raise DtypeError(f"{self.name}: input {place}: expected an array, got {type(array).__name__}; "
                                 f"numpy.asarray(...) makes one")
            if array.dtype not in (*FLOATS, INTEGER, HALF, BYTE):
                raise DtypeError(f"{self.name}: input {place}: expected float32, float64 or int64, got {array.dtype}; "
                                 f"convert it with .astype")
            flags = getattr(array, "flags", None)
            if flags is not None and not flags["C_CONTIGUOUS"]:
                raise ShapeError(f"{self.name}: input {place}: expected a C-contiguous array, got strides "
                                 f"{array.strides} for shape {array.shape}; numpy.ascontiguousarray(...) copies it (a "
                                 f"product takes transpose_a/transpose_b instead)")
            arrays.append(array)
        return arrays


# ------------------------------------------------------------------------------------------- words for `shapes` to use

def floats(*inputs):
    """The one float dtype that all inputs share."""
    dtypes = [np.dtype(s.dtype) for s in inputs]
    if any(d not in FLOATS for d in dtypes):
        raise DtypeError(f"expected float32 or float64, got {', '.join(d.name for d in dtypes)}")
    if len(set(dtypes)) > 1:
        raise DtypeError(f"expected inputs of one dtype, got {', '.join(d.name for d in dtypes)}; convert with .astype")
    return dtypes[0]


def integers(given, what="indices"):
    """Refuses anything but int64."""
    if np.dtype(given.dtype) != INTEGER:
        raise DtypeError(f"expected {what} as int64, got {np.dtype(given.dtype).name}; convert with .astype('int64')")


def demand(condition, expected, got, hint=""):
    """Raises the standard sentence unless the condition holds."""
    if not condition:
        raise ShapeError(f"expected {expected}, got {got}" + (f"; {hint}" if hint else ""))


def axis_of(axis, ndim):
    """A non-negative axis; refuses one outside the array."""
    demand(-ndim <= axis < ndim, f"an axis of a {ndim}-dimensional array", axis)
    return axis % ndim
