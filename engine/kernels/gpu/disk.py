"""Compiled GPU kernels on disk: Numba's own files under a key of ours.

`cuda.jit(cache=True)` keeps a kernel's PTX and machine code, but finds a kernel that calls device functions of its
factory only in the process that made it: their keys hold random numbers (numba 0.68, numba-cuda 0.30). The emulator's
fingerprint covers a kernel's code, its constants and all that it calls, and is the same in every process.
"""
from numba import config

from engine import settings


def keep_on_disk(kernel, options):
    """Lets a `cuda.jit` kernel be found on disk, by sources, versions, argument types, compute capability and options;
    where something that it names has no fingerprint, it is compiled in every process."""
    from engine.kernels.emulator import cache  # which only compiling needs
    mark = cache.fingerprint(kernel.py_func, False)
    folder = settings.cache_folder() / "cuda" / cache.digest()
    if mark is None or not cache.can_cache():
        return
    folder.mkdir(parents=True, exist_ok=True)
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        kernel.enable_caching()
    finally:
        config.CACHE_DIR = before
    kept = repr(sorted(options.items()))
    kernel._cache._index_key = lambda signature, codegen: (signature, codegen.magic_tuple(), mark, kept)
