"""Several ops value by value in one pass over memory: y = f(a, b, ...) with f composed of the ops' own formulas.

`Fusion` is the expression: a tree of ops over inputs a, b, c, d and numbers, printed as `mul(silu(a), b)`. Its formula
is Python text put together from the formulas' calls, so it is compiled, cached on disk and named like any other: by
what it computes. The ops fused1 to fused4 take as many inputs, all of one shape; numbers (the limits of a clip, the
factor of a scale) are arguments of the kernel, so that other numbers are no other kernel.
`engine.graph.fuse_elementwise` writes these nodes.
"""
import ast
from dataclasses import dataclass

import numpy as np

from engine.kernels.formula import Formula
from engine.kernels.gpu import THREADS, cuda, fours, is_aligned, kernel_of, load4, store4
from engine.kernels.op import Cost, Op, demand, floats, same
from engine.kernels.simd.parts import part
from engine.kernels.stream import flat_streaming, map2_values, map3_values, map4_values, map_values, put_share

LETTERS = "abcd"                             # names of the inputs

# ------------------------------------------------------------------------------------------------------------ formulas


@dataclass(frozen=True)
class Step:
    """One op of a fusion. arguments: Steps, and ints, the numbers of the fusion's inputs; numbers: places among the
    fusion's numbers, which the formula takes last."""
    name: str
    formula: Formula
    arguments: tuple
    numbers: tuple = ()

    def __str__(self):
        return f"{self.name}({', '.join(LETTERS[a] if isinstance(a, int) else str(a) for a in self.arguments)})"

    def __len__(self):
        return 1 + sum(len(a) for a in self.arguments if isinstance(a, Step))


class Fusion:
    """A composed formula and its expression; equal expressions of equal formulas are the same kernel.

    step      the last op, over all others
    inputs    how many inputs
    numbers   how many numbers (one at least: a kernel's tuple of them must not be empty)
    """

    def __init__(self, step, inputs, numbers):
        self.step, self.inputs, self.numbers = step, inputs, max(1, numbers)
        self.formula = _Composed(self)

    def __repr__(self):
        return str(self.step)

    def __len__(self):
        return len(self.step)


class _Composed(Formula):
    """A formula whose text is put together instead of read."""

    def __init__(self, fusion):
        self._formulas, self._numbers = {}, fusion.numbers
        text = self._call(fusion.step)
        given = [*LETTERS[:fusion.inputs], *(f"n{k}" for k in range(fusion.numbers))]
        self._text = f"def formula({', '.join(given)}): return {text}"
        super().__init__(self._evaluate, "fused")
        namespace = dict(self._formulas, _number=float)
        exec(self._text, namespace)
        self._plain = namespace["formula"]

    def _evaluate(self, *numbers):
        return self._plain(*numbers)

    def _call(self, step):
        """The text of a step's call; each formula has a name by its order."""
        name = next((n for n, f in self._formulas.items() if f.digest == step.formula.digest), None)
        if name is None:
            name = f"f{len(self._formulas)}"
            self._formulas[name] = step.formula
        given = [LETTERS[a] if isinstance(a, int) else self._call(a) for a in step.arguments]
        return f"{name}({', '.join([*given, *(f'_number(n{k})' for k in step.numbers)])})"

    def _function_tree(self):
        if self._tree is None:
            self._tree = ast.parse(self._text)
        return self._tree

    def _names(self):
        return self._formulas


# ---------------------------------------------------------------------------------------------------------------- CPU


@part
def fused1_cpu(a, f, *rest):
    """out[i] = f(a[i], numbers...)"""
    numbers, (out, store, task, tasks) = rest[:-4], rest[-4:]
    put_share(map_values, (a,), f, numbers, out, store, task, tasks)


@part
def fused2_cpu(a, b, f, *rest):
    """out[i] = f(a[i], b[i], numbers...)"""
    numbers, (out, store, task, tasks) = rest[:-4], rest[-4:]
    put_share(map2_values, (a, b), f, numbers, out, store, task, tasks)


@part
def fused3_cpu(a, b, c, f, *rest):
    """out[i] = f(a[i], b[i], c[i], numbers...)"""
    numbers, (out, store, task, tasks) = rest[:-4], rest[-4:]
    put_share(map3_values, (a, b, c), f, numbers, out, store, task, tasks)


@part
def fused4_cpu(a, b, c, d, f, *rest):
    """out[i] = f(a[i], b[i], c[i], d[i], numbers...)"""
    numbers, (out, store, task, tasks) = rest[:-4], rest[-4:]
    put_share(map4_values, (a, b, c, d), f, numbers, out, store, task, tasks)


# --------------------------------------------------------------------------------------------------------------- CUDA
# Four values a thread, as in activation.py.


@kernel_of
def _fused1_cuda(f):
    def fused1(a, numbers, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= out.size and is_aligned(a) and is_aligned(out):
            p, q, r, s = load4(a, i)
            store4(out, i, f(p, *numbers), f(q, *numbers), f(r, *numbers), f(s, *numbers))
        else:
            for k in range(4):
                if i + k < out.size:
                    out[i + k] = f(a[i + k], *numbers)
    return fused1


@kernel_of
def _fused2_cuda(f):
    def fused2(a, b, numbers, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= out.size and is_aligned(a) and is_aligned(b) and is_aligned(out):
            p, q, r, s = load4(a, i)
            t, u, v, w = load4(b, i)
            store4(out, i, f(p, t, *numbers), f(q, u, *numbers), f(r, v, *numbers), f(s, w, *numbers))
        else:
            for k in range(4):
                if i + k < out.size:
                    out[i + k] = f(a[i + k], b[i + k], *numbers)
    return fused2


@kernel_of
def _fused3_cuda(f):
    def fused3(a, b, c, numbers, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= out.size and is_aligned(a) and is_aligned(b) and is_aligned(c) and is_aligned(out):
            x, y, z = load4(a, i), load4(b, i), load4(c, i)
            store4(out, i, f(x[0], y[0], z[0], *numbers), f(x[1], y[1], z[1], *numbers),
                   f(x[2], y[2], z[2], *numbers), f(x[3], y[3], z[3], *numbers))
        else:
            for k in range(4):
                if i + k < out.size:
                    out[i + k] = f(a[i + k], b[i + k], c[i + k], *numbers)
    return fused3


@kernel_of
def _fused4_cuda(f):
    def fused4(a, b, c, d, numbers, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= out.size and is_aligned(a) and is_aligned(b) and is_aligned(c) and is_aligned(d) and is_aligned(
                out):
            x, y, z, t = load4(a, i), load4(b, i), load4(c, i), load4(d, i)
            store4(out, i, f(x[0], y[0], z[0], t[0], *numbers), f(x[1], y[1], z[1], t[1], *numbers),
                   f(x[2], y[2], z[2], t[2], *numbers), f(x[3], y[3], z[3], t[3], *numbers))
        else:
            for k in range(4):
                if i + k < out.size:
                    out[i + k] = f(a[i + k], b[i + k], c[i + k], d[i + k], *numbers)
    return fused4


def fused_cuda(factory, inputs):
    """The launcher of an op with so many inputs."""
    def launch(*arguments):
        arrays, f, out = arguments[:inputs], arguments[inputs], arguments[-1]
        numbers = tuple(out.dtype.type(n) for n in arguments[inputs + 1:-1])
        factory(f, out.dtype)[fours(out.size), THREADS](*arrays, numbers, out)
    return launch


# ------------------------------------------------------------------------------------------------------------- records


def fused_shapes(*inputs, of, numbers):
    demand(isinstance(of, Fusion), "of: a Fusion", repr(of))
    demand(len(inputs) == of.inputs, f"{of.inputs} inputs for {of!r}", len(inputs))
    demand(len(numbers) <= of.numbers, f"at most {of.numbers} numbers", len(numbers))
    floats(*inputs)
    demand(len({s.shape for s in inputs}) == 1, "inputs of one shape", ", ".join(str(s.shape) for s in inputs))
    return same(inputs)


def fused_reference(*inputs, of, numbers):
    f = np.vectorize(of.formula.python, otypes=[np.float64])
    return f(*inputs, *_padded(of, numbers)) if inputs[0].size else inputs[0].astype(np.float64)


def _padded(of, numbers):
    return (*map(float, numbers), *[0.0] * (of.numbers - len(numbers)))


def arrange_fused(inputs, outputs, attributes, threads):
    of = attributes["of"]
    given = {"f": of.formula, **{f"n{k}": n for k, n in enumerate(_padded(of, attributes["numbers"]))}}
    return flat_streaming(inputs, outputs, given, threads)


def fused_cost(inputs, outputs, attributes):
    return Cost(len(attributes["of"]) * outputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def _examples(inputs):
    """Fusions that use each input, one of them twice, a formula with numbers, and a formula twice."""
    from engine.kernels.activation import ACTIVATIONS
    from engine.kernels.elementwise import CLIP
    mul, add = Formula(lambda a, b: a * b, "mul"), Formula(lambda a, b: a + b, "add")
    step = Step("tanh", ACTIVATIONS["tanh"].f, (0,))
    for k in range(1, inputs):
        step = Step("mul" if k % 2 else "add", mul if k % 2 else add, (step, k))
    yield Fusion(step, inputs, 0), ()
    if inputs != 2:                          # numbers are handled alike: compiled for one op is enough
        return
    clipped = Step("clip", CLIP, (Step("mul", mul, (step, 0)),), (0, 1))
    yield Fusion(Step("tanh", ACTIVATIONS["tanh"].f, (clipped,)), inputs, 2), (-0.4, 0.6)


def fused_samples(inputs):
    def samples(rng):
        for shape in ((0,), (1,), (7,), (3, 5), (33, 17)):
            for of, numbers in _examples(inputs):
                yield tuple(rng.standard_normal(shape) for _ in range(inputs)), {"of": of, "numbers": numbers}
    return samples


KERNELS = ((fused1_cpu, _fused1_cuda), (fused2_cpu, _fused2_cuda), (fused3_cpu, _fused3_cuda),
           (fused4_cpu, _fused4_cuda))
FUSED = tuple(Op(f"fused{n}", fused_reference, fused_shapes, cpu, fused_cuda(factory, n), fused_samples(n),
                 arrange_fused, cost=fused_cost, attributes={"of": None, "numbers": ()}, inplace={0: 0})
              for n, (cpu, factory) in enumerate(KERNELS, 1))
OPS = FUSED
