"""Compiled GPU kernels on disk, files for each kernel and its argument types, under a key of ours.

`cuda.jit(cache=True)` finds a kernel that calls device functions of its factory only in the process that made it: their
keys hold random numbers (numba 0.68, numba-cuda 0.30). The emulator's fingerprint covers a kernel's code, its constants
and all that it calls, and is the same in every process. What is kept, and how it is written, is Numba's.
"""
import time

from engine import settings
from engine.progress import compiling

KERNEL = "kernel"                            # what is in a file of Numba's that has only one thing in it


class Kept:
    """Stands in a `cuda.jit` kernel where Numba's cache would: found by sources, versions, argument types, compute
    capability and options. Where something that the kernel names has no fingerprint, it is compiled in every process.
    """

    def __init__(self, made, options):
        from engine.kernels.emulator import cache  # which only compiling needs
        self.made, self.options = made, repr(sorted(options.items()))
        self.folder, self.key, self.started = settings.cache_folder() / "cuda" / cache.digest(), cache.key, 0.0
        self.mark = cache.fingerprint(made.py_func, False) if cache.can_cache() else None
        self.names, self.found = {}, {}      # by argument types; a fork cannot ask for the GPU; what was read

    def name(self, signature):
        """The name of the files of the kernel compiled for these arguments, or None."""
        if self.mark is not None and signature not in self.names:
            codegen = self.made.targetctx.codegen()
            self.names[signature] = self.key(self.mark, signature, codegen.magic_tuple(), self.options)
        return self.names.get(signature)

    def states(self, signature):
        """What Numba makes the kernel of again, or None where it has to be compiled; read once."""
        name = self.name(signature)
        if name and self.found.get(signature) is None:
            self.found[signature] = _file(self.folder, name).load(KERNEL)
        return self.found.get(signature)

    def load_overload(self, signature, context):
        """What Numba asks before it compiles: the kernel, or None."""
        states = self.states(signature)
        self.found.pop(signature, None)
        if states is not None:
            from numba.cuda import dispatcher
            return dispatcher._Kernel._rebuild(**states)
        compiling.announce()
        self.started = time.perf_counter()
        return None

    def save_overload(self, signature, kernel):
        """What Numba calls when it has compiled."""
        compiling.add(self.made.py_func.__name__, self.started)
        name = self.name(signature)
        if name:
            self.folder.mkdir(parents=True, exist_ok=True)
            _file(self.folder, name).save(KERNEL, kernel._reduce_states())


def _file(folder, name):
    from numba.core.caching import IndexDataCacheFile  # which only a GPU needs
    return IndexDataCacheFile(str(folder), name, "")     # the stamp of the sources is in the name


def keep_on_disk(made, options):
    """Lets a `cuda.jit` kernel be found on disk, and its compiling be said."""
    made._cache = Kept(made, options)
