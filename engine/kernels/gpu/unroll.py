"""`for k in unrolled(8):` is written out eight times before Numba compiles a kernel.

Numba's CUDA compiler leaves a long loop body rolled, and a rolled inner product spends its time on counting and on
waiting for shared memory. The loop's count is an expression of module-level names and of the numbers of the kernel's
factory. Line numbers stay those of the file, so errors, profilers and the emulator point at the loop's own lines.
In the simulator, which compiles nothing, the loop is an ordinary one.
"""
import ast
import copy
import inspect
import textwrap

from engine import target

unrolled = range


def expand(function):
    """`function` with its unrolled loops written out; the function itself where there are none."""
    if target.cuda.simulated or not target.cuda.present() or "unrolled" not in function.__code__.co_names:
        return function
    lines, first = inspect.getsourcelines(function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    variables = inspect.getclosurevars(function)
    names = {**variables.builtins, **variables.globals, **variables.nonlocals}
    definition = _Unroll(names).visit(tree.body[0])
    definition.decorator_list = []
    outer = ast.parse(f"def outer({', '.join(variables.nonlocals)}): return {definition.name}")
    outer.body[0].body.insert(0, definition)
    made = {}
    exec(compile(ast.fix_missing_locations(outer), inspect.getsourcefile(function), "exec"), function.__globals__, made)
    result = made["outer"](**variables.nonlocals)
    result.__module__, result.__qualname__ = function.__module__, function.__qualname__
    return result


class _Unroll(ast.NodeTransformer):
    """Replaces loops over `unrolled(n)` by n copies of their bodies, the counter by its value."""

    def __init__(self, names):
        self.names = names

    def visit_For(self, node):
        self.generic_visit(node)
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "unrolled"):
            return node
        count = eval(compile(ast.Expression(call.args[0]), "<unrolled>", "eval"), dict(self.names))
        return [_Fixed(node.target.id, k).visit(copy.deepcopy(line)) for k in range(count) for line in node.body]


class _Fixed(ast.NodeTransformer):
    """One name replaced by a number."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def visit_Name(self, node):
        return ast.copy_location(ast.Constant(self.value), node) if node.id == self.name else node
