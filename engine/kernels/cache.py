"""Where compiled kernels are kept on disk: a folder for each version of their sources, of Numba, of the processor."""
import contextlib
import functools
import hashlib
import os
import platform

import llvmlite
import numba
import numpy as np
from numba import config
from numba.core.caching import FunctionCache, NullCache
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from engine import settings
from engine.progress import notice

try:
    import fcntl
except ImportError:                          # Windows: two processes may compile the same
    fcntl = None

_shipped = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@functools.cache
def source_digest():
    """Names everything that compiled kernels depend on: the kernels' sources, the versions and the processor."""
    folder = os.path.dirname(__file__)
    digest = hashlib.sha256()
    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(f for f in files if f.endswith(".py")):
            with open(os.path.join(base, name), "rb") as file:
                digest.update(name.encode() + file.read())
    codegen = cpu_target.target_context.codegen().magic_tuple()
    digest.update(repr((numba.__version__, llvmlite.__version__, np.__version__, platform.python_version(), codegen)
                       ).encode())
    return digest.hexdigest()[:16]


def cache_folder():
    """The folder of this version's compiled kernels."""
    return settings.cache_folder() / "kernels" / source_digest()


@functools.cache
def can_cache():
    """Whether the cache folder can be written; says so once when it cannot."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        if os.access(cache_folder(), os.W_OK):
            return True
        reason = "no permission"
    except OSError as error:
        reason = error.strerror
    notice(f"the cache folder {cache_folder()} cannot be written ({reason}): kernels are compiled anew in every "
           f"process; ENGINE_CACHE_DIR names another folder")
    return False


class _Cache(FunctionCache):
    """Numba's own loads all that it can compile before it loads what is compiled already; that takes longer. Compiled
    code needs the functions of Numba's memory management alone."""

    def load_overload(self, sig, target_context):
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


def cache_of(function):
    """Numba's cache of one function in the engine's folder. Only the engine's own kernels are cached: their sources
    name the folder, and what a person writes may call anything."""
    file = os.path.abspath(function.__code__.co_filename)
    if not file.startswith(_shipped + os.sep) or not can_cache():
        return NullCache()
    before, config.CACHE_DIR = config.CACHE_DIR, str(cache_folder())      # Numba looks there only now
    try:
        return _Cache(function)
    finally:
        config.CACHE_DIR = before


@contextlib.contextmanager
def alone(name):
    """Only one process at a time is within `alone(name)`: the others wait for what it compiles, and load it."""
    with contextlib.ExitStack() as stack:
        if fcntl and can_cache():
            with contextlib.suppress(OSError):           # a file system without locks
                file = stack.enter_context(open(cache_folder() / f"{name}.lock", "w"))
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
