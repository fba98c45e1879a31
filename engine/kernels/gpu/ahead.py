"""All kernels of a program compiled before its first launch, by several processes at once.

A CUDA kernel takes Numba seconds, most of them Python's, and a network has some forty. Launchers do nothing but launch:
called once with a list in place of the GPU, they say which kernels they will want for which arguments. What of these is
not on disk is compiled by forks (`engine/kernels/together.py`) that never touch the GPU, and is then loaded.

    with gathered() as wanted: launcher(x, y)            # launches nothing
    compile_ahead(wanted)
"""
import contextlib
import functools
from types import SimpleNamespace

from engine.kernels.entry import no_collection, threads
from engine.kernels.gpu.prepared import Notes
from engine.kernels.together import compile_together
from engine.progress import compiling

_wanted = Notes()
gathered = _wanted.taken                     # (kernel, argument types) of this thread's launches, which launch nothing


def gather(made, arguments):
    """Enters what a launch wants; False where it is not to be gathered but launched. made(): the `cuda.jit` kernel"""
    if _wanted.now is None:
        return False
    kernel = made()
    _wanted.now.append((kernel, tuple(kernel.typeof_pyval(a) for a in arguments)))
    return True


def compile_ahead(wanted):
    """Leaves in the disk cache what is missing there of a list that `gathered` gave, if it is more than one kernel."""
    missing = {}
    for kernel, types in wanted:
        name = kernel._cache.name(types)
        if name and types not in kernel.overloads and kernel._cache.states(types) is None:
            missing[name] = functools.partial(_compile, kernel, types)
    if len(missing) > 1 and threads.get() > 1 and links_without_a_gpu():
        with no_collection(), _capability_known(), compiling.span():
            compile_together([[make] for make in missing.values()], threads.get())


def links_without_a_gpu():
    """Whether the package makes machine code without a driver: numba-cuda does, by nvJitLink; numba's own does not."""
    from numba.cuda import dispatcher
    return hasattr(dispatcher, "launch")


def _compile(kernel, types):
    """Compiles a kernel as its own `compile` would, into the disk cache and no further."""
    from numba.cuda import dispatcher
    if kernel._cache.load_overload(types, kernel.targetctx) is None:             # another process may have been first
        made = dispatcher._Kernel(kernel.py_func, types, **kernel.targetoptions)
        made._codelibrary.get_cubin()        # for the very GPU that a launch asks for: 9.0 is not 9.0a
        kernel._cache.save_overload(types, made)


@contextlib.contextmanager
def _capability_known():
    """Numba asks the driver for the GPU while it compiles, which refuses a fork: what it answers here is said again."""
    from numba.cuda import codegen, dispatcher
    asked, library = dispatcher.get_current_device, codegen.CUDACodeLibrary
    known, ensure = SimpleNamespace(compute_capability=tuple(asked().compute_capability)), library._ensure_cc
    target = ensure(None, None)              # what code is made for: from 9.0 on with instructions of that GPU alone
    dispatcher.get_current_device = lambda: known
    library._ensure_cc = lambda self, cc: target if cc is None else cc
    try:
        yield
    finally:
        dispatcher.get_current_device, library._ensure_cc = asked, ensure
