"""Formulas: scalar Python functions that kernels apply to every value, on both targets, fused and vectorised.

A person writes `def swish(x): return x / (1 + math.exp(-x))`. For a kernel over float32 the numbers in it become
float32 (else Numba would compute in float64), and on the CPU the name `math` is bound to
`engine.kernels.elementary`, whose functions LLVM vectorises; on the GPU it stays `math`. Functions that the formula
calls are treated alike. The digest covers the code of all of them, so a compiled kernel is found again on disk
by what it computes, not by where it was written.
"""
import ast
import builtins
import dis
import functools
import hashlib
import inspect
import math
import types

import numpy as np
from numba import config

from engine import target
from engine.errors import EngineError
from engine.kernels.elementary.dtypes import COMPILED
from engine.kernels.simd.parts import PartType, part

# contraction to fused multiply-adds and ignoring the sign of zero are safe; NaN and infinity keep their meaning
FASTMATH = {"contract", "nsz"}


# instructions that read alike, and those that are nothing to a reader
CALLS = {"LOAD_METHOD": "LOAD_ATTR", "CALL_METHOD": "CALL_FUNCTION", "PUSH_NULL": "", "NOP": "", "CACHE": "",
         "EXTENDED_ARG": ""}


class _Compiled:
    """What a kernel's caller puts in place of a formula: `_numba_type_` is all that Numba asks of it."""

    def __init__(self, dispatcher, name):
        self.dispatcher = dispatcher
        self._numba_type_ = PartType(dispatcher, f"Formula({name})")


class Formula:
    """A scalar function of one or more numbers, usable inside any kernel.

    >>> swish = Formula(lambda x: x / (1 + math.exp(-x)), name="swish")
    >>> round(swish(1.0), 6)
    0.731059
    """

    def __init__(self, function, name=None):
        if isinstance(function, Formula):
            function = function.python
        self.python = function
        self.name = name or function.__name__
        self._compiled = {}
        self._tree = None
        self._digest = None

    def __call__(self, *numbers):
        return self.python(*numbers)

    def __repr__(self):
        return f"<formula {self.name}>"

    @property
    def source(self):
        """The Python text that is compiled (the function's own)."""
        return ast.unparse(self._function_tree())

    @property
    def digest(self):
        """Names what the formula computes: its code, its constants and those of the functions that it calls."""
        if self._digest is None:
            parts = [self.source] + [f"{k}={v.digest if isinstance(v, Formula) else v!r}"
                                     for k, v in sorted(self._names().items()) if not inspect.ismodule(v)]
            self._digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        return self._digest

    def cpu(self, dtype):
        """The function for values of `dtype` on the CPU, as kernels take it (compiled where used, and inlined)."""
        dispatcher = self._cpu(dtype)
        if config.DISABLE_JIT:                           # `part` gave the Python function back
            return dispatcher
        return _Compiled(dispatcher, f"{self.name},{self.digest},{np.dtype(dtype).name}")

    def _cpu(self, dtype):
        from engine.kernels import elementary
        return self._compile("cpu", np.dtype(dtype), elementary, "_cpu",
                             part(fastmath=FASTMATH, forceinline=True))

    def cuda(self, dtype):
        """The compiled device function for values of `dtype` on the GPU."""
        from engine.kernels import elementary  # in the simulator: it answers inf where Python's math raises
        return self._compile("cuda", np.dtype(dtype), elementary if target.cuda.simulated else math, "cuda",
                             target.cuda.module.jit(device=True))

    def _compile(self, place, dtype, mathematics, method, compiler):
        key = place, dtype
        if key not in self._compiled:
            tree = _TypedNumbers().visit(ast.parse(self.source))
            code = compile(ast.fix_missing_locations(tree), f"<formula {self.name}>", "exec")
            namespace = {"_number": dtype.type}
            for name, value in self._names().items():
                if isinstance(value, Formula) and place == "cpu" and value.python in COMPILED:
                    namespace[name] = value.python       # an elementary function; the GPU gets its Python text
                elif isinstance(value, Formula):
                    namespace[name] = getattr(value, method)(dtype)
                elif value is math:
                    namespace[name] = mathematics
                else:
                    namespace[name] = dtype.type(value) if isinstance(value, (int, float, np.number)) else value
            exec(code, namespace)
            self._compiled[key] = compiler(namespace["formula"])
        return self._compiled[key]

    def _function_tree(self):
        """The function's definition under the name `formula`, without decorators; a lambda becomes a `def`."""
        if self._tree is None:
            try:
                node = _definition(self.python)
            except (OSError, TypeError, SyntaxError) as error:
                raise EngineError(f"formula {self.name}: expected a Python function whose source text can be read (in "
                                  f"a file or a notebook cell), got {self.python!r}: {error}") from None
            body = node.body if isinstance(node, ast.FunctionDef) else [ast.Return(node.body)]
            if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                body = body[1:]                          # the docstring computes nothing
            arguments = ", ".join(a.arg for a in node.args.args)
            tree = ast.parse(f"def formula({arguments}): pass")
            tree.body[0].body = body
            self._tree = ast.fix_missing_locations(tree)
        return self._tree

    def _names(self):
        """What the formula's free names mean: modules, numbers and other formulas."""
        variables = inspect.getclosurevars(self.python)
        used = {n.id for n in ast.walk(self._function_tree()) if isinstance(n, ast.Name)}
        # `erfc` in `math.erfc` is no name of its own, though the function's module may have one that reads like it
        found = {k: v for k, v in {**variables.globals, **variables.nonlocals}.items() if k in used}
        for name, value in found.items():
            if isinstance(value, types.FunctionType):
                found[name] = Formula(value)
            elif isinstance(value, types.BuiltinFunctionType) and getattr(math, value.__name__, None) is value:
                raise EngineError(f"formula {self.name}: write math.{name}(...) with `import math`, so that each "
                                  f"target can put its own {name} in place")
            elif not isinstance(value, (Formula, types.ModuleType, int, float, np.number)):
                raise EngineError(f"formula {self.name}: expected {name} to be a number, a function or the module "
                                  f"math, got {type(value).__name__}")
        return {k: v for k, v in found.items() if not hasattr(builtins, k)}


@functools.cache
def _parsed(text):
    return ast.parse(text)


def _definition(function):
    """The `def` or `lambda` node of a function, found in the file or cell that holds it."""
    code = function.__code__
    lines, _ = inspect.findsource(function)
    kind = ast.Lambda if function.__name__ == "<lambda>" else ast.FunctionDef
    nodes = [n for n in ast.walk(_parsed("".join(lines))) if isinstance(n, kind) and code.co_firstlineno == (
        n.decorator_list[0].lineno if getattr(n, "decorator_list", None) else n.lineno)]
    if kind is ast.Lambda:                               # one of several on a line, or of a line that has changed
        nodes = [n for n in nodes if _same_code(n, code)]
    if not nodes:
        raise SyntaxError("its source has changed since it was defined")
    return nodes[0]


def _same_code(node, code):
    """Whether a lambda's node compiles to this code. (Where code stands in a line is not always known: Python 3.12 has
    no place for a lambda that is one constant, and `-X no_debug_ranges` none at all.)"""
    around = ast.parse(f"def around({', '.join(code.co_freevars)}): pass").body[0]
    around.body = [ast.Return(node)]
    module = compile(ast.fix_missing_locations(ast.Module([around], [])), "", "exec")
    return _reading(_inner(_inner(module))) == _reading(code)


def _inner(code):
    """The first function within a code."""
    return next(c for c in code.co_consts if isinstance(c, types.CodeType))


def _reading(code):
    """What a code does, as a list. How it calls functions of a module may differ from what was compiled in its place:
    there Python knows that the name was imported. Jumps lead to other places then."""
    made = []
    for instruction in dis.get_instructions(code):
        name, value = CALLS.get(instruction.opname, instruction.opname), instruction.argval
        if name:
            made.append((name, _reading(value) if isinstance(value, types.CodeType) else
                         None if "JUMP" in name else (type(value), value)))
    return made


class _TypedNumbers(ast.NodeTransformer):
    """Every number takes the values' own type; exponents stay as they are (x ** 2 is x * x)."""

    def visit_Constant(self, node):
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            return ast.Call(ast.Name("_number", ast.Load()), [node], [])
        return node

    def visit_Attribute(self, node):
        if ast.unparse(node) in ("math.pi", "math.e", "math.tau", "math.inf", "math.nan"):
            return ast.Call(ast.Name("_number", ast.Load()), [node], [])
        return node

    def visit_BinOp(self, node):
        node.left = self.visit(node.left)
        if not (isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant)):
            node.right = self.visit(node.right)
        return node
