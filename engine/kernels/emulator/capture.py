"""Stops Numba where it hands its IR to libNVVM, and takes the IR: no GPU, no toolkit, no libNVVM.

The three names replaced here are private to numba.cuda (the built-in one and numba-cuda agree on them). They are
replaced only while a kernel is captured, under a lock, and put back whatever happens.
"""
import functools
import re
import threading
import types as python_types
import warnings

from numba import types
from numba.core.errors import NumbaDebugInfoWarning

from engine import target
from engine.errors import EmulationError

CAPABILITY = (8, 0)                          # what kernels are compiled for: cp.async and bf16 need 8.0
_lock = threading.Lock()


class _Captured(Exception):
    """Ends Numba's compilation at the point where libNVVM would begin."""


def _parts():
    import numba.cuda.codegen as codegen
    import numba.cuda.cudadrv.nvvm as nvvm
    import numba.cuda.dispatcher as dispatcher
    return codegen, nvvm, dispatcher


def _stand_in(nvvm):
    """What the front end asks libNVVM before it compiles: the data layout, the capabilities, the IR's version."""
    layouts = ("_datalayout_i128", "_datalayout", "_datalayout_original")

    class StandIn:
        data_layout = next(getattr(nvvm, name) for name in layouts if hasattr(nvvm, name))
        supported_ccs = getattr(nvvm, "COMPUTE_CAPABILITIES", (CAPABILITY,))

        def get_ir_version(self):
            return (2, 0, 3, 1)
    return StandIn


@functools.cache
def _mend_max_and_min():
    """numba's built-in CUDA target (0.68) cannot compile max(a, b): its overload takes any number of arguments, which
    that target does not unpack. An overload of the target's own goes before it; numba-cuda needs none."""
    from numba.extending import overload
    if "numba_cuda" in target.cuda.module.__file__:
        return

    def numbers(*kinds):
        return all(isinstance(kind, (types.Number, types.Boolean)) for kind in kinds)

    @overload(max, target="cuda")
    def larger(a, b):
        return (lambda a, b: b if b > a else a) if numbers(a, b) else None

    @overload(min, target="cuda")
    def smaller(a, b):
        return (lambda a, b: b if b < a else a) if numbers(a, b) else None


def capture(function, arguments, options, with_lines):
    """The IR texts of a kernel for Numba types `arguments`; `with_lines` adds source lines to it.

    Errors: `EmulationError` when Numba cannot compile the kernel for these types; the text is Numba's own.
    """
    _mend_max_and_min()
    codegen, nvvm, dispatcher = _parts()
    taken = []

    def compile_ir(texts, *_, **__):
        taken.extend([texts] if isinstance(texts, str) else texts)
        raise _Captured

    def device():
        return python_types.SimpleNamespace(compute_capability=CAPABILITY)
    patches = ((codegen.nvvm, "compile_ir", compile_ir), (nvvm, "NVVM", _stand_in(nvvm)),
               (dispatcher, "get_current_device", device))
    with _lock:
        saved = [getattr(module, name) for module, name, _ in patches]
        for module, name, value in patches:
            setattr(module, name, value)
        try:
            with warnings.catch_warnings():      # formulas have no source file: their lines are not needed
                warnings.simplefilter("ignore", NumbaDebugInfoWarning)
                target.cuda.module.compile_ptx(function, types.void(*arguments), cc=CAPABILITY, lineinfo=with_lines,
                                               **options)
        except _Captured:
            pass
        except Exception as error:               # Numba's front end raises more than its own errors
            raise EmulationError(_refused(function, arguments, error)) from error
        finally:
            for (module, name, _), value in zip(patches, saved):
                setattr(module, name, value)
    replace = getattr(nvvm, "llvm_replace", None)        # gives the atomics that Numba writes out their bodies
    return [replace(text) for text in taken] if replace else taken


def _refused(function, arguments, error):
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("Failed in", "-", "During: resolving callee"))]
    return (f"kernel {function.__name__}: Numba cannot compile it for the arguments ({', '.join(map(str, arguments))})"
            f"; expected types that every operation in it takes. Numba says: {' | '.join(kept[:6])}")
