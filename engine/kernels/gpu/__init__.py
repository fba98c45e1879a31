"""The seam to CUDA: the only folder of the kernels that knows which package provides it.

`cuda` stands for numba's module in every family; it is imported when the first GPU kernel is compiled, because a CPU
user should not wait for it. A kernel with formulas is a factory: its parameters are the compiled formulas, and whatever
else is fixed when it is compiled (a tile, a flag).

    @kernel                                              @kernel_of
    def fill(value, out):                                def map_values(f):
        i = cuda.grid(1)                                     def map_values(x, out):
        if i < out.size:                                         i = cuda.grid(1)
            out[i] = value                                       if i < out.size:
    fill[blocks(out.size), THREADS](1.0, out)                        out[i] = f(x[i])
                                                             return map_values
                                                         map_values(relu, x.dtype)[blocks(out.size), THREADS](x, out)

The words that numba's module lacks (aligned shared arrays, 16-byte access, warp sums) stand in `words.py`.
Loops over `unrolled(n)` are written out before Numba sees them (`unroll.py`).
"""
import functools

import numpy as np
from numba import uint32, uint64

from engine import target
from engine.kernels.emulator import emulate
from engine.kernels.formula import Formula
from engine.kernels.gpu import prepared
from engine.kernels.gpu.ahead import gather
from engine.kernels.gpu.disk import keep_on_disk
from engine.kernels.gpu.prepared import recorded
from engine.kernels.gpu.unroll import expand, unrolled
from engine.kernels.gpu.words import (
    Word,
    bits_of,
    block_anew,
    block_z_anew,
    copy_async,
    copy_commit,
    copy_wait,
    float_of,
    is_aligned,
    ldmatrix,
    ldmatrix_turned,
    load1,
    load4,
    mma_bfloat16,
    mma_float16,
    shared_array,
    shuffle_xor,
    store1,
    store4,
    thread_anew,
    warp_max,
    warp_sum,
)

__all__ = ["THREADS", "bits_of", "block_anew", "block_z_anew", "blocks", "copy_async", "copy_commit", "copy_wait",
           "cuda", "device", "device_in", "float_of", "fours", "is_aligned", "kernel", "kernel_of",
           "ldmatrix", "ldmatrix_turned", "load1", "load4", "mma_bfloat16", "mma_float16", "recorded",
           "shared_array", "shuffle_xor", "starts_aligned", "store1", "store4", "thread_anew", "unrolled",
           "warp_max", "warp_sum", "whole_of"]

THREADS = 128                                # threads of a block, where nothing else decides it


class _Module:
    """Stands for numba.cuda until a kernel is compiled; in the simulator always, as what runs the current kernel.

    (The simulator would put that into a function's globals while the function runs, and take it out again while other
    threads still run the same function.)
    """

    def __getattr__(self, name):
        if target.cuda.simulated:
            from numba.cuda.simulator.kernel import _get_kernel_context
            return getattr(_get_kernel_context() or target.cuda.module, name)
        return getattr(target.cuda.module, name)


cuda = _Module()


def blocks(size, threads=THREADS):
    """Blocks of `threads` threads that cover `size` values (at least one: a grid must not be empty)."""
    return max(1, (size + threads - 1) // threads)


def fours(size, threads=THREADS):
    """Blocks of `threads` threads that cover `size` values, four for each thread."""
    return blocks((size + 3) // 4, threads)


def whole_of(*arrays):
    """The type of places in arrays that kernels divide: without a sign, which would cost a division several more
    instructions, and of 32 bits unless an array is too long for them."""
    return uint32 if all(array.size < 1 << 31 for array in arrays) else uint64


def starts_aligned(array):
    """Whether an array begins on a 16-byte boundary, as load4 needs it: for launchers that choose between kernels."""
    if target.cuda_emulated.owns(array):
        array = array.memory
    if isinstance(array, np.ndarray):
        return array.ctypes.data % 16 == 0
    return target.cuda.simulated or array.device_ctypes_pointer.value % 16 == 0


def make_launcher(function, options):
    """What can be launched as `[grid, block](arguments)`; tools/ptx puts a compiler without launches in its place."""
    return _Launcher(function, options)


class _Launcher:
    """`[grid, block](arguments)` on the GPU, or in the emulator where the arrays are those of the emulated target."""

    def __init__(self, function, options):
        self.function, self.options, self._made = function, options, {}

    def __getitem__(self, grid):
        return lambda *arguments: self._launch(grid, arguments)

    def _launch(self, grid, arguments):
        emulated = target.cuda_emulated
        if any(map(emulated.owns, arguments)):
            self._for((emulated.check, emulated.race))[grid](*arguments)
        elif gather(lambda: self._for("gpu"), arguments):
            return
        else:
            self._for("gpu")[(*grid, target.cuda.work.handle)](*arguments)
            if not target.cuda.simulated:
                return                       # what Numba made of it is noted by `prepared`
        prepared.note(functools.partial(self._launch, grid, arguments))

    def _for(self, key):
        if key not in self._made:
            self._made[key] = self._compiled() if key == "gpu" else emulate(self.function, *key)
        return self._made[key]

    def _compiled(self):
        jit = target.cuda.module.jit
        if target.cuda.simulated:            # it knows no options
            return jit(self.function)
        options = dict(self.options)
        target.cuda.demand(options.pop("capability", (0, 0)), self.function.__name__)
        prepared.last_step()
        prepared.few_blocks_are_meant()
        made = jit(**options)(self.function)
        keep_on_disk(made, options)
        return made


def _compile(function, options):
    _put_in_place(function.__globals__)
    return make_launcher(expand(function), options)


def _put_in_place(names):
    """Numba wants the module itself and its own device functions where kernels name what stands for them."""
    names["cuda"] = cuda if target.cuda.simulated else target.cuda.module
    for name, value in list(names.items()):
        if isinstance(value, (_Device, Word)):
            names[name] = value.compiled()


class kernel:
    """A CUDA kernel, compiled at its first launch: `fill[grid, block](...)`.

    `options` go to `cuda.jit`, but for `capability`: the least compute capability that it needs, as (8, 0).
    """

    def __init__(self, function, **options):
        self.python, self.options = function, options
        self._compiled = None
        functools.update_wrapper(self, function)

    def __getitem__(self, grid):
        if self._compiled is None:
            self._compiled = _compile(self.python, self.options)
        return self._compiled[grid]


class kernel_of:
    """A factory of CUDA kernels that take formulas: `map_values(relu, dtype)[grid, block](...)`.

    The last argument is the dtype that formulas compute in; what is no formula goes to the factory as it is. `options`
    as for `kernel`; one that is a function is asked with the same arguments.
    """

    def __init__(self, factory, **options):
        self.python, self.options = factory, options
        self._compiled = {}
        functools.update_wrapper(self, factory)

    def __call__(self, *arguments):
        *given, dtype = arguments
        key = (*(a.digest if isinstance(a, Formula) else a for a in given), np.dtype(dtype))
        if key not in self._compiled:
            _put_in_place(self.python.__globals__)       # a factory may make device functions of its own
            made = self.python(*(a.cuda(dtype) if isinstance(a, Formula) else a for a in given))
            options = {name: value(*arguments) if callable(value) else value for name, value in self.options.items()}
            self._compiled[key] = _compile(made, options)
        return self._compiled[key]


def device(function):
    """A device function that kernels call, compiled with the kernel that calls it."""
    return _Device(function)


def device_in(function):
    """A device function made inside a kernel's factory: numbers of the factory are constants in it."""
    _put_in_place(function.__globals__)      # the factory may stand in another file
    return target.cuda.module.jit(device=True)(expand(function))


class _Device:
    """A plain function until a kernel that names it is compiled; then numba's device function takes its place."""

    def __init__(self, function):
        self.python = function
        self._compiled = None
        functools.update_wrapper(self, function)

    def __call__(self, *arguments):
        return self.python(*arguments)

    def compiled(self):
        if self._compiled is None:
            self._compiled = target.cuda.module.jit(device=True)(expand(self.python))
            _put_in_place(self.python.__globals__)       # what it calls itself
        return self._compiled
