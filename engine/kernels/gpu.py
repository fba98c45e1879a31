"""The seam to CUDA: the only file of the kernels that knows which package provides it.

`cuda` stands for numba's module in every family; it is imported when the first GPU kernel is compiled, because a CPU
user should not wait for it. A kernel with formulas is a factory: its parameters are the compiled formulas.

    @kernel                                              @kernel_of
    def fill(value, out):                                def map_values(f):
        i = cuda.grid(1)                                     def map_values(x, out):
        if i < out.size:                                         i = cuda.grid(1)
            out[i] = value                                       if i < out.size:
    fill[blocks(out.size), THREADS](1.0, out)                        out[i] = f(x[i])
                                                             return map_values
                                                         map_values(relu, x.dtype)[blocks(out.size), THREADS](x, out)
"""
import functools

import numpy as np

from engine import target
from engine.kernels.emulator import emulate

THREADS = 128                                # threads of a block, where nothing else decides it


class _Module:
    """Stands for numba.cuda until a kernel is compiled."""

    def __getattr__(self, name):
        return getattr(target.cuda.module, name)


cuda = _Module()


def blocks(size, threads=THREADS):
    """Blocks of `threads` threads that cover `size` values (at least one: a grid must not be empty)."""
    return max(1, (size + threads - 1) // threads)


def make_launcher(function):
    """What can be launched as `[grid, block](arguments)`; tools/ptx puts a compiler without launches in its place."""
    return _Launcher(function)


class _Launcher:
    """`[grid, block](arguments)` on the GPU, or in the emulator where the arrays are those of the emulated target."""

    def __init__(self, function):
        self.function, self._made = function, {}

    def __getitem__(self, grid):
        return lambda *arguments: self._for(arguments)[grid](*arguments)

    def _for(self, arguments):
        emulated = target.cuda_emulated
        key = (emulated.check, emulated.race) if any(map(emulated.owns, arguments)) else "gpu"
        if key not in self._made:
            self._made[key] = target.cuda.module.jit(self.function) if key == "gpu" else emulate(self.function, *key)
        return self._made[key]


def _compile(function):
    _put_in_place(function.__globals__)
    return make_launcher(function)


def _put_in_place(names):
    """Numba wants the module itself and its own device functions where kernels name what stands for them."""
    names["cuda"] = target.cuda.module
    for name, value in list(names.items()):
        if isinstance(value, _Device):
            names[name] = value.compiled()


class kernel:
    """A CUDA kernel, compiled at its first launch: `fill[grid, block](...)`."""

    def __init__(self, function):
        self.python = function
        self._compiled = None
        functools.update_wrapper(self, function)

    def __getitem__(self, grid):
        if self._compiled is None:
            self._compiled = _compile(self.python)
        return self._compiled[grid]


class kernel_of:
    """A factory of CUDA kernels that take formulas: `map_values(relu, dtype)[grid, block](...)`."""

    def __init__(self, factory):
        self.python = factory
        self._compiled = {}
        functools.update_wrapper(self, factory)

    def __call__(self, *arguments):
        *formulas, dtype = arguments
        key = (*(f.digest for f in formulas), np.dtype(dtype))
        if key not in self._compiled:
            self._compiled[key] = _compile(self.python(*(f.cuda(dtype) for f in formulas)))
        return self._compiled[key]


def device(function):
    """A device function that kernels call, compiled with the kernel that calls it."""
    return _Device(function)


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
            self._compiled = target.cuda.module.jit(device=True)(self.python)
            _put_in_place(self.python.__globals__)       # what it calls itself
        return self._compiled
