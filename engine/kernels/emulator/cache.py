"""What the emulator keeps on disk: its own compiled scheduler, and the kernels' host objects.

An object is found in two ways. By the kernel's **fingerprint**: its code, its constants and those of everything it
calls; then Numba need not even start. Where something it names has no fingerprint, by its IR: then only LLVM is spared.
"""
import contextlib
import functools
import hashlib
import json
import os
import re
import types as python_types

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from numba import config

from engine import settings

_PLAIN = (int, float, complex, bool, str, bytes, type(None), np.number, np.dtype, type, numba.types.Type)
_KNOWN_MODULES = ("numba", "numpy", "math", "cmath", "operator", "builtins")


@functools.cache
def digest():
    """Names the emulator's sources and everything they are compiled with."""
    made = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, np.__version__, llvm.get_host_cpu_name(),
                                llvm.get_host_cpu_features().flatten(), _cuda_package())).encode())
    folder = os.path.dirname(os.path.abspath(__file__))
    for name in sorted(f for f in os.listdir(folder) if f.endswith(".py")):
        with open(os.path.join(folder, name), "rb") as file:
            made.update(file.read())
    return made.hexdigest()[:16]


def _cuda_package():
    """Which package numba.cuda is: the built-in one, or a version of numba-cuda."""
    from importlib.metadata import PackageNotFoundError, version
    try:
        return version("numba-cuda")
    except PackageNotFoundError:
        return "built-in"


def cache_folder():
    """Where the compiled scheduler and the kernels' objects live."""
    return settings.cache_folder() / "emulator" / digest()


@functools.cache
def can_cache():
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(cache_folder(), os.W_OK)


@contextlib.contextmanager
def own_cache():
    """Numba's cache folder is the emulator's meanwhile."""
    before, config.CACHE_DIR = config.CACHE_DIR, str(cache_folder())
    try:
        yield
    finally:
        config.CACHE_DIR = before


def key(*parts):
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def read(name):
    """(object code, facts) by key, or None."""
    path = cache_folder() / f"{name}.object"
    if not path.exists():
        return None
    with open(path, "rb") as file:
        facts, code = file.read().split(b"\n", 1)
    return code, json.loads(facts)


def write(name, code, facts):
    if can_cache():
        path = cache_folder() / f"{name}.object"
        part = path.with_suffix(f".{os.getpid()}")
        with open(part, "wb") as file:
            file.write(json.dumps(facts).encode() + b"\n" + code)
        os.replace(part, path)                   # another process sees the whole file or none


def stable(texts):
    """IR without the counters that Numba puts into names (each is replaced by its rank): the same in every process."""
    for pattern in (r"(?<=B)\d+v(\d+)(?=B)", r"(?<=mem)_(\d+)(?=\")"):
        numbers = sorted({int(v) for v in re.findall(pattern, "".join(texts))})
        rank = {number: place for place, number in enumerate(numbers)}
        texts = [re.sub(pattern, lambda m: f"v{rank[int(m.group(1))]}", text) for text in texts]
    return sorted(re.sub(r"^; ModuleID.*", "", text, flags=re.M) for text in texts)


# --------------------------------------------------------------------------------------------------------- fingerprint

class _NoFingerprint(Exception):
    """Something that a kernel names cannot be told apart from its later versions."""


def fingerprint(function, with_lines):
    """Text that changes whenever what the kernel computes may change, or None where that cannot be known."""
    parts, seen = [], set()
    try:
        _add_function(function, parts, seen, with_lines)
    except _NoFingerprint:
        return None
    return key(*parts)


def _add_function(function, parts, seen, with_lines):
    if id(function) in seen:
        return
    seen.add(id(function))
    _add_code(function.__code__, parts, with_lines)
    parts.append(repr(function.__defaults__))
    names = set(_names(function.__code__))
    for name, value in sorted(function.__globals__.items(), key=lambda item: str(item[0])):
        if name in names:
            parts.append(name)
            _add_value(value, parts, seen, with_lines)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        parts.append(name)
        _add_value(cell.cell_contents, parts, seen, with_lines)


def _names(code):
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            yield from _names(constant)


def _add_code(code, parts, with_lines):
    parts += [code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, code.co_name]
    if with_lines:
        parts += [code.co_filename, code.co_firstlineno, list(code.co_lines())]
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            _add_code(constant, parts, with_lines)
        else:
            parts.append(repr(constant))


def _add_value(value, parts, seen, with_lines):
    if isinstance(value, python_types.ModuleType):
        if value.__name__.split(".")[0] not in _KNOWN_MODULES:
            raise _NoFingerprint(value.__name__)
        parts.append(value.__name__)
    elif isinstance(value, _PLAIN):
        parts.append(repr(value))
    elif isinstance(value, (tuple, list)):
        parts.append(f"{type(value).__name__} {len(value)}")
        for item in value:
            _add_value(item, parts, seen, with_lines)
    elif isinstance(value, np.ndarray):
        parts += [value.dtype, value.shape, value.tobytes().hex()]
    elif hasattr(value, "py_func"):              # a device function
        parts.append(repr(sorted(getattr(value, "targetoptions", {}).items(), key=lambda item: str(item[0]))))
        _add_function(value.py_func, parts, seen, with_lines)
    elif hasattr(value, "_defn") and hasattr(value._defn, "__code__"):       # an intrinsic
        _add_intrinsic(value._defn, parts, seen, with_lines)
    else:
        raise _NoFingerprint(repr(value))


def _add_intrinsic(function, parts, seen, with_lines):
    """An intrinsic and the helpers it writes IR with; what those name beyond functions and values is a library's."""
    if id(function) in seen:
        return
    seen.add(id(function))
    _add_code(function.__code__, parts, False)
    cells = [c.cell_contents for c in function.__closure__ or ()]
    named = [function.__globals__[n] for n in sorted(set(_names(function.__code__))) if n in function.__globals__]
    for value in (*cells, *named):
        if isinstance(value, python_types.FunctionType):
            _add_intrinsic(value, parts, seen, with_lines)
        elif isinstance(value, (*_PLAIN, tuple, list, dict)):
            parts.append(repr(value))
