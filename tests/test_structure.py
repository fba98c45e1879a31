"""The rooms: which kind of line may stand in which file, checked on the syntax trees. Imports point only downward."""
import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ENGINE = ROOT / "engine"
FILES = sorted(p for p in ENGINE.rglob("*.py"))
# From the top to the bottom: a file may import from its own row and from rows below.
ROWS = (
    ("__init__", "__main__"),
    ("zoo",),
    ("model",),
    ("training", "streaming", "summary", "doors", "history", "callbacks", "saving", "torch_weights", "torch_file"),
    ("state", "network"),
    ("layers", "losses", "optimizers", "schedules", "metrics", "initializers", "data"),
    ("registry",),
    ("runtime",),
    ("graph",),
    ("kernels",),
    ("target", "transfers", "progress"),
    ("settings", "errors", "version"),
)


def name_of(path):
    return path.relative_to(ENGINE).as_posix()


def tree_of(path):
    return ast.parse(path.read_text())


def room(path):
    part = path.relative_to(ENGINE).parts[0]
    return part.removesuffix(".py")


def row(name):
    for number, names in enumerate(ROWS):
        if name in names:
            return number
    raise AssertionError(f"{name} is in no row of ROWS: say where it belongs")


def imports(tree):
    """Names of the engine's rooms that a file imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "engine":
            parts = node.module.split(".")
            yield from ((parts[1],) if len(parts) > 1 else (alias.name for alias in node.names))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "engine" and len(parts) > 1:
                    yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downward(path):
    here = row(room(path))
    for name in imports(tree_of(path)):
        assert row(name) >= here, f"{name_of(path)} imports engine.{name}, which stands above it"


def decorators(node):
    return " ".join(ast.unparse(d) for d in node.decorator_list)


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("path", [p for p in FILES if room(p) != "kernels"], ids=name_of)
def test_compiled_code_stands_in_kernels(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and path.name != "__main__.py":
            names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
            assert not any(n.split(".")[0] == "llvmlite" for n in names), f"{name_of(path)} imports llvmlite"
        if isinstance(node, ast.FunctionDef):
            assert not re.search(r"\b(njit|jit|cfunc)\b", decorators(node)), f"{name_of(path)}: {node.name} is compiled"
        if isinstance(node, ast.Name):
            assert node.id != "prange", f"{name_of(path)} uses prange"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "kernels"], ids=name_of)
def test_no_raise_inside_compiled_functions(path):
    for function in functions(tree_of(path)):
        if re.search(r"\b(njit|jit|kernel|cfunc)\b", decorators(function)):
            assert not any(isinstance(n, ast.Raise) for n in ast.walk(function)), f"{name_of(path)}: {function.name}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "kernels"], ids=name_of)
def test_kernel_functions_are_short(path):
    for function in functions(tree_of(path)):
        length = function.end_lineno - function.lineno + 1
        assert length <= 60, f"{name_of(path)}: {function.name} has {length} lines"


def calls(tree, name):
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func).split(".")[-1] == name
            and (name != "open" or ast.unparse(n.func) == "open")]


ONLY = [
    ("to_device", {"target.py"}),
    ("copy_to_host", {"target.py"}),
    ("is_available", {"target.py"}),
    ("open", {"saving.py", "torch_file.py", "callbacks.py", "kernels/cache.py", "kernels/emulator/cache.py"}),
    ("print", {"progress.py", "__main__.py"}),
    ("prange", {"kernels/team.py"}),
    ("on_threads", {"kernels/team.py"}),
]


@pytest.mark.parametrize("name,allowed", ONLY, ids=lambda v: v if isinstance(v, str) else "")
def test_word_stands_only_in_its_room(name, allowed):
    found = {name_of(p) for p in FILES if calls(tree_of(p), name)}
    extra = {p for p in found if name == "open" and p.startswith("data/")}
    assert found - extra <= allowed, f"{name}( stands in {sorted(found - extra - allowed)}"


def test_environment_is_read_in_one_file():
    found = {name_of(p) for p in FILES if re.search(r"\bos\.environ\b|\bgetenv\b", p.read_text())}
    assert found == {"settings.py"}


def test_llvm_stands_in_few_files():
    """Where LLVM is written: the register tiles, the plan's calls, the bit casts of the elementary functions, and the
    emulator, which makes host code of the IR of CUDA kernels, and the seam to CUDA."""
    found = {name_of(p) for p in FILES if re.search(r"^\s*(from|import) llvmlite", p.read_text(), re.M)}
    rooms = ("kernels/simd", "kernels/elementary", "kernels/emulator/", "kernels/gpu/")
    files = ("__main__.py", "kernels/entry.py", "kernels/cache.py")
    assert all(p in files or p.startswith(rooms) for p in found), found


def test_nothing_is_compiled_at_import():
    """No eager signatures in decorators: importing the engine must not compile."""
    for path in FILES:
        for function in functions(tree_of(path)):
            for decorator in function.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).split(".")[-1] in ("njit", "jit"):
                    assert not decorator.args, f"{name_of(path)}: {function.name} has an eager signature"


def test_pickle_is_nowhere():
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
                assert not set(names) & {"pickle", "marshal", "shelve", "dill"}, name_of(path)
