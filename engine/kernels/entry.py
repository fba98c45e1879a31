"""From an op's kernel to machine code that a plan can call: entries, their disk cache, and the one parallel runner.

A CPU kernel is a function (`@part`) that computes one *task* of a grid, as a CUDA kernel computes one block:

    kernel(inputs..., scalars..., outputs..., work..., blocking..., task, tasks)

Its **entry** is `void(int64* block, int64 task, int64 tasks)`: a few lines of generated Python (`entry_source` shows
them) that unpack an argument block, all words of 64 bits: for an array its address and its sizes, for a number its
bits. Entries are compiled as `cfunc` does and cached on disk; formulas are compiled into them, units
(`engine/kernels/simd/units.py`) are called by their symbols. A **program** is a table with one row per call (entry
address, block address, tasks, grains); `run` works through it without any Python in between.

Everything parallel in the engine is the one region of `team.py`: a program is one region of threads. Which task
computes what depends on shapes, the kernel's own split and, where shares may be unequal, on how fast each core is; but
a split never changes the order of a sum: so results are the same bits for any number of threads and any shares.
"""
import contextlib
import gc
import hashlib
import inspect
import os
import threading
import time
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils, compiler
from numba.core.ccallback import CFunc, _CFuncCompiler
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from engine import settings
from engine.errors import EngineError
from engine.kernels.cache import cache_of
from engine.kernels.simd.host import VECTOR_BYTES
from engine.kernels.simd.parts import pipeline_of
from engine.kernels.simd.region import find_openmp
from engine.kernels.team import run_on_openmp, run_parallel, run_serial
from engine.kernels.together import compile_together
from engine.progress import compiling, notice

WORD = ir.IntType(64)
ALLOCATING = "NRT_MemInfo_alloc", "NRT_MemInfo_new"      # what Numba calls for memory
SIGNATURE = types.void(types.CPointer(types.int64), types.int64, types.int64)
NUMBA_TYPES = {np.dtype(t): getattr(types, t) for t in ("float32", "float64", "int64", "int32", "uint16", "uint8")}


# ---------------------------------------------------------------------------------------------------- LLVM intrinsics

@intrinsic(prefer_literal=True)
def view(tyctx, block, slot, ndim, dtype):
    """The C-contiguous array whose address and `ndim` sizes stand at block[slot:]."""
    array = types.Array(dtype.dtype, ndim.literal_value, "C")

    def codegen(context, builder, sig, args):
        from numba.np import arrayobj  # 30 ms that only compiling needs
        words = [builder.load(builder.gep(args[0], [WORD(slot.literal_value + i)])) for i in range(1 + array.ndim)]
        item = context.get_abi_sizeof(context.get_data_type(array.dtype))
        strides, step = [], WORD(item)
        for size in reversed(words[1:]):
            strides.insert(0, step)
            step = builder.mul(step, size)
        result = context.make_array(array)(context, builder)
        data = builder.inttoptr(words[0], context.get_data_type(array.dtype).as_pointer())
        arrayobj.populate_array(result, data=data, shape=cgutils.pack_array(builder, words[1:], WORD),
                                strides=cgutils.pack_array(builder, strides, WORD), itemsize=WORD(item), meminfo=None)
        return result._getvalue()
    return array(block, slot, ndim, dtype), codegen


@intrinsic(prefer_literal=True)
def real(tyctx, block, slot):
    """The float64 whose bits stand at block[slot]."""
    def codegen(context, builder, sig, args):
        return builder.bitcast(builder.load(builder.gep(args[0], [WORD(slot.literal_value)])), ir.DoubleType())
    return types.float64(block, slot), codegen


# ------------------------------------------------------------------------------------------------------------ entries

class _EntryCompiler(_CFuncCompiler):

    def _compile_core(self, args, return_type):
        """With Numba's steps for kernels, and what has to be loaded before the entry is."""
        flags = compiler.Flags()
        self.targetdescr.options.parse_as_flags(flags, self.targetoptions)
        made = compiler.compile_extra(self.targetdescr.typing_context, self.targetdescr.target_context, self.py_func,
                                      args=args, return_type=return_type, flags=self._customize_flags(flags), locals={},
                                      pipeline_class=pipeline_of(self.py_func))
        made.library._ensure_finalized()
        if any(f.name.startswith(ALLOCATING) for f in made.library._final_module.functions):
            raise EngineError(f"{self.py_func.__name__}: expected a kernel that allocates nothing, got one that makes "
                              f"an array or a list; scratch arrays are asked for in the op's arrangement (`work`)")
        made.reload_init.extend(made.library._reload_init)
        return made


class Wanted(NamedTuple):
    """An entry that a call needs: `parameters` as of `entry_source`, and the dtype of its formulas' numbers."""
    kernel: Any
    parameters: list
    dtype: np.dtype

    @property
    def key(self):
        """(a name that stands for all of it, the function)"""
        text = "_".join(p[0][0] + (f"{p[1]}{np.dtype(p[2]).char}" if p[0] == "array" else
                                   p[1].digest if p[0] == "formula" else "") for p in self.parameters)
        function = self.kernel.py_func
        name = f"{function.__module__}.{function.__qualname__}".replace(".", "_").replace("<", "").replace(">", "")
        return f"{name}__{hashlib.sha256(f'{text} {self.dtype}'.encode()).hexdigest()[:12]}", function


class _Entry(CFunc):
    """A cfunc that announces compiling, and only that: loading from the disk cache is silent."""

    def __init__(self, function):
        super().__init__(function, (SIGNATURE.args, SIGNATURE.return_type), {}, {})
        self._compiler = _EntryCompiler(function, self._targetdescr, {"error_model": "numpy"}, {}, compiler.Compiler)

    def enable_caching(self):
        self._cache = cache_of(self._pyfunc)

    def load(self):
        """Whether the disk cache has it; then it is ready."""
        found = self._cache.load_overload(self._sig, self._targetdescr.target_context)
        if found is not None:
            self._library, self._wrapper_name = found.library, found.fndesc.llvm_cfunc_wrapper_name
            self._wrapper_address = self._library.get_pointer_to_function(self._wrapper_name)
        return found is not None

    @property
    def is_ready(self):
        return self._wrapper_address is not None

    def _compile_uncached(self):
        with compiling.of(self.__name__):
            return super()._compile_uncached()


_lock = threading.RLock()
_entries = {}                                # key -> compiled entry, kept alive as long as the process


def entry_source(name, parameters):
    """The text of an entry; `parameters` is a list of ("array", ndim, dtype), ("int",), ("real",), ("formula", f)."""
    slot, parts = 0, []
    for number, parameter in enumerate(parameters):
        if parameter[0] == "array":
            parts.append(f"view(block, {slot}, {parameter[1]}, {np.dtype(parameter[2]).name})")
            slot += 1 + parameter[1]
        elif parameter[0] == "formula":
            parts.append(f"formula_{number}")
        else:
            parts.append(f"block[{slot}]" if parameter[0] == "int" else f"real(block, {slot})")
            slot += 1
    return f"def {name}(block, task, tasks):\n    kernel({', '.join(parts)}, task, tasks)\n"


def entries_of(wanted, team=False):
    """The compiled entries (`.address`) of a list of `Wanted`; what has to be compiled is, by all processes allowed.
    `team`: their program will be run by several threads, and what runs it is compiled meanwhile."""
    keys = [w.key for w in wanted]
    with _lock:
        missing = {}
        for key, (kernel, parameters, dtype) in zip(keys, wanted):
            if key not in _entries and key not in missing:
                file = inspect.getsourcefile(kernel.py_func) or "<kernel>"
                made = missing[key] = _entry_of(key[0], file, kernel, parameters, dtype)
                made.enable_caching()
        if missing:
            with no_collection(), _whole_vectors():
                _compile({key: made for key, made in missing.items() if not made.load()}, team)
            _entries.update(missing)
        return [_entries[key] for key in keys]


def _compile(missing, team):
    """Compiles entries, {key: entry}; those of one module share most of their parts, so one process makes them. The
    runner of teams, if that is wanted, is made here: it has threads, which the others shall not start."""
    groups = {}
    for (_, function), made in missing.items():
        groups.setdefault(function.__module__, []).append(made)
    if groups:
        with compiling.span():
            compile_together([[made.compile for made in group] for group in groups.values()], threads.get(),
                             threads.runner if team else None)
    for made in missing.values():
        if not made.is_ready and not made.load():
            made.compile()                   # where there is no cache, or it was cleared this moment


@contextlib.contextmanager
def no_collection():
    """Without Python's search for garbage cycles, a fifth of the time that Numba takes, finding little."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextlib.contextmanager
def _whole_vectors():
    """Loops are vectorised with the longest vectors that there are. LLVM takes half of them on most processors with
    AVX-512, because the first of those became slower; products use whole vectors in any case."""
    context = cpu_target.target_context
    declare = context.declare_function

    def declare_wide(module, description):
        function = declare(module, description)
        set.add(function.attributes, f'"prefer-vector-width"="{8 * VECTOR_BYTES}"')     # `add` knows no such names
        return function

    context.declare_function = declare_wide
    try:
        yield
    finally:
        del context.declare_function


def fresh(kernel, parameters, dtype):
    """An entry that was compiled now, not loaded: only that one can show its LLVM and assembly."""
    made = _entry_of(f"{kernel.py_func.__name__}_entry", "<entry>", kernel, parameters, dtype)
    with _lock, no_collection(), _whole_vectors():      # one at a time: what is changed in Numba is put back
        made.compile()
    compiling.finish()
    return made


def _entry_of(name, file, kernel, parameters, dtype):
    namespace = {"__name__": kernel.py_func.__module__, "kernel": kernel, "view": view, "real": real}
    namespace.update((dtype.name, numba_type) for dtype, numba_type in NUMBA_TYPES.items())
    for number, parameter in enumerate(parameters):
        if parameter[0] == "formula":
            namespace[f"formula_{number}"] = parameter[1].cpu(dtype)
    exec(compile(entry_source(name, parameters), file, "exec"), namespace)
    return _Entry(namespace[name])


# ------------------------------------------------------------------------------------------------------------ threads

class _Threads:
    """How many threads, and the runner for it. A forked child runs serially: OpenMP does not survive a fork."""

    def __init__(self):
        self.count = None
        self.forked = False
        self._runners, self._made = {}, []   # what is called; the dispatchers, which keep it alive
        self._team = None                    # whether there may be several threads, until that or the process changes
        self._one_at_a_time = None
        self._speeds = np.ones(config.NUMBA_NUM_THREADS)        # of the members of a team, as last seen
        self._speeds_at = self._speeds.ctypes.data
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self):
        self.forked = "omp" in str(self.layer())
        self._team = None

    def get(self):
        if self.forked or config.DISABLE_JIT:
            return 1
        if self.count is None:
            self.count = min(settings.threads() or config.NUMBA_NUM_THREADS, config.NUMBA_NUM_THREADS)
        return self.count

    def set(self, count):
        if not 1 <= count <= config.NUMBA_NUM_THREADS:
            raise ValueError(f"threads: expected 1 to {config.NUMBA_NUM_THREADS} (NUMBA_NUM_THREADS), got {count}")
        self.count, self._team = count, None

    def layer(self):
        """The threading layer in use, or None before the first parallel call."""
        try:
            return numba.threading_layer()
        except ValueError:
            return None

    def runner(self, kind="parallel"):
        if self.get() == 1:
            kind = "serial"
        if kind not in self._runners:
            with _lock:
                if kind not in self._runners:
                    self._runners[kind] = self._make(kind)
        return self._runners[kind]

    def _make(self, kind):
        given = types.Array(types.int64, 2, "C"), types.int64
        if kind == "serial":
            made = njit(nogil=True)(run_serial)
        else:
            self._launch()
            given += types.int64, types.int64
            direct = self.layer() == "omp" and find_openmp()
            made = njit(nogil=True)(run_on_openmp) if direct else njit(nogil=True, parallel=True)(run_parallel)
        made._cache = cache_of(made.py_func)
        started = time.perf_counter()
        called = made.compile(types.void(*given))        # itself: the dispatcher would ask for the types every time
        if not made.stats.cache_hits:
            compiling.add(f"runner ({kind})", started)
        self._made.append(made)
        return called

    def _launch(self):
        """Starts numba's threads. Code with `prange` that was loaded from the cache before that would crash."""
        from numba.np.ufunc.parallel import _launch_threads
        _launch_threads()
        if self.layer() == "workqueue":
            # workqueue aborts the process when two Python threads enter it; it is also slow, so it is said
            notice("the threading layer is numba's workqueue (no OpenMP or TBB found): parallel regions cost about "
                   "100 us; `pip install tbb` gives a faster one")
            self._one_at_a_time = threading.Lock()

    def run(self, program, rounds=1, alone=False):
        """Runs a program (int64 array, see `team.py`) `rounds` times; releases the GIL meanwhile.
        `alone`: none of its calls has more than one task."""
        if self._team is None:
            self._team = self.get() > 1
        if alone or not self._team:
            return (self._runners.get("serial") or self.runner("serial"))(program, rounds)
        runner = self._runners.get("parallel") or self.runner()
        if self._one_at_a_time is None:
            return runner(program, rounds, self.count, self._speeds_at)
        with self._one_at_a_time:
            runner(program, rounds, self.count, self._speeds_at)


threads = _Threads()
