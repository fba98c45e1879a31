"""What the launchers would launch, compiled without a GPU: samples of every op of TABLE go through their launchers, and
in place of a launch stands a compiler. It needs the extra `cuda`: numba's built-in CUDA cannot compile without a
toolkit on the machine."""
import functools
import types as python_types
import warnings
from typing import NamedTuple

import numpy as np
from numba import typeof, types

from engine import target
from engine.kernels import TABLE, gpu
from engine.kernels.emulator import cache
from engine.kernels.op import Cost, Spec, spec

BIG = 2048


class Kernel:
    """A kernel for arguments of these types, compiled when its text is asked for: what comes before the GPU's own
    code, which takes longest, once for all compute capabilities."""

    def __init__(self, function, signature, options, least):
        self.name, self.signature, self.function = function.__name__, signature, function
        self.options, self.least = {k: v for k, v in options.items() if k != "capability"}, least
        self.needs = options.get("capability", (0, 0))

    @functools.cached_property
    def library(self):
        from numba.cuda import codegen, dispatcher

        # what is compiled asks for the current GPU; from 7.5 on its answer changes nothing but the PTX
        dispatcher.get_current_device = lambda: python_types.SimpleNamespace(compute_capability=self.least)
        codegen.CUDACodeLibrary._ensure_cc = lambda library, capability: capability or self.least
        return dispatcher._Kernel(self.function, self.signature, **self.options)._codelibrary

    def ptx(self, capability):
        """Its PTX, or whatever error Numba raises."""
        return self.library.get_asm_str(cc=capability)

    @functools.cached_property
    def mark(self):
        """Text that changes with whatever its code may change with, or None where that cannot be known."""
        mark = cache.fingerprint(self.function, False)
        return mark and cache.key(mark, self.signature, sorted(self.options.items()), cache.digest())


class Wanted(NamedTuple):
    """A kernel and the first launch of an op that asked for it."""
    op: str
    kernel: Kernel
    threads: int
    cost: Cost                               # of the whole op
    large: bool                              # for a large input, or for one of the op's own samples?


class Compiler:
    """Stands for launches: notes which kernels they want, and launches nothing."""

    def __init__(self, least):
        from numba import cuda
        self.least, self.kernels = least, {}
        self.op, self.cost, self.large, self.wanted = "", Cost(0, 0), False, {}
        target.cuda._module, target.cuda._looked = cuda, True
        gpu.make_launcher = self.launcher

    def launcher(self, function, options):
        compiler = self

        class Launch:
            def __getitem__(self, grid):
                return lambda *arguments: compiler.want(function, options, int(np.prod(grid[1])), arguments)
        return Launch()

    def want(self, function, options, threads, arguments):
        key = function, tuple(map(numba_type, arguments))
        if key not in self.wanted:
            if key not in self.kernels:
                self.kernels[key] = Kernel(*key, options, self.least)
            self.wanted[key] = Wanted(self.op, self.kernels[key], threads, self.cost, self.large)


def numba_type(value):
    if isinstance(value, np.ndarray):
        return types.Array(typeof(value).dtype, value.ndim, "C")
    if isinstance(value, (bool, np.bool_, np.floating, tuple)):
        return typeof(value)
    return types.int64 if isinstance(value, (int, np.integer)) else types.float64


MATRIX, VECTOR = Spec((BIG, BIG), "f8"), Spec((BIG,), "f8")
LARGE = {"relu": (MATRIX,), "gelu": (MATRIX,), "add": (MATRIX, MATRIX), "sum": (MATRIX,), "softmax": (MATRIX,),
         "layer_norm": (MATRIX, VECTOR, VECTOR), "batch_norm": (MATRIX, *[VECTOR] * 4),
         "cross_entropy": (MATRIX, Spec((BIG,), "i8"), VECTOR),
         "adam": (*[Spec((BIG * BIG,), "f8")] * 4, Spec((1,), "f8"), Spec((2,), "i8")),
         "dropout": (MATRIX, Spec((2,), "i8"))}
LONGEST = {"softmax": (Spec((64, 8192), "f8"),), "softmax_grad": (Spec((64, 4096), "f8"),) * 2,
           "cross_entropy": (Spec((64, 8192), "f8"), Spec((64,), "i8"), Spec((64,), "f8")),
           "cross_entropy_probabilities": (*[Spec((64, 4096), "f8")] * 2, Spec((64,), "f8"))}


def large_samples(op):
    """Large inputs, for which times are estimated; products and convolutions of sizes for every tile."""
    if op.name in LARGE:
        yield LARGE[op.name], {}
    if op.name in LONGEST:                   # as many values in registers as there can be
        yield LONGEST[op.name], {}
    if op.name == "matmul":
        for size in (BIG, 256):
            for ta, tb in ((False, False), (True, False), (False, True), (True, True)):
                yield (Spec((size, size), "f8"),) * 2, {"transpose_a": ta, "transpose_b": tb}
        yield (Spec((2 ** 16, 64), "f8"),) * 2, {"transpose_a": True}
    if op.name == "dense":
        from engine.kernels.activation import ACTIVATIONS
        for size in (BIG, 256):
            matrix = Spec((size, size), "f8")
            yield (matrix, matrix, Spec((size,), "f8")), {"activation": ACTIVATIONS["relu"]}
    if op.name in ("dense_residual", "matmul_sums"):
        for size in (BIG, 256):
            matrix = Spec((size, size), "f8")
            yield ((matrix, matrix), {"transpose_a": True}) if op.name == "matmul_sums" else \
                ((matrix, matrix, Spec((size,), "f8"), matrix), {})
    if op.name.startswith("conv2d"):
        yield from convolutions(op.name)
    if op.name == "matmul_half":
        matrix = Spec((BIG, BIG), "u2")
        for format in ("float16", "bfloat16"):
            for ta, tb in ((False, False), (True, False), (False, True)):
                yield (matrix, matrix), {"transpose_a": ta, "transpose_b": tb, "format": format}


LAYERS = ((56, 64, 64, 3, 1, 1), (28, 128, 128, 3, 1, 1), (56, 128, 128, 3, 2, 1), (14, 1024, 256, 1, 1, 1),
          (56, 144, 144, 3, 1, 144), (56, 30, 130, 3, 1, 1), (56, 130, 130, 3, 2, 1), (56, 30, 62, 3, 1, 1),
          (112, 32, 32, 3, 1, 1), (112, 3, 30, 3, 2, 1), (14, 1022, 1022, 3, 1, 1), (14, 1024, 1024, 3, 1, 1))


def convolutions(name):
    """Layers (size, channels, outputs, kernel, stride, groups) at a batch of 64, so that each tile is met, with
    channels in fours and not: those of ResNet-50 first; one is depthwise."""
    for size, channels, outputs, kernel, stride, groups in LAYERS:
        edge = kernel // 2
        given = {"stride": (stride, stride), "padding": (edge,) * 4, "groups": groups}
        x, w = Spec((64, size, size, channels), "f8"), Spec((kernel, kernel, channels // groups, outputs), "f8")
        y = Spec((64, size // stride, size // stride, outputs), "f8")
        if name == "conv2d_input_gradient":
            yield (y, w), {**given, "shape": x.shape}
        elif name == "conv2d_weight_gradient":
            yield (x, y), {**given, "kernel": (kernel, kernel)}
        elif name == "conv2d_plain":
            yield (x, w), given
        elif name in ("conv2d", "conv2d_add"):
            from engine.kernels.activation import ACTIVATIONS
            yield ((x, w, Spec((outputs,), "f8"), *((y,) if name == "conv2d_add" else ())),
                   {**given, "activation": ACTIVATIONS["relu"]})


def given_as(sample, dtype):
    """A sample's input in the dtype that is asked for; a Spec becomes an array whose memory is never touched."""
    if isinstance(sample, Spec):
        return np.empty(sample.shape, dtype if np.dtype(sample.dtype).kind == "f" else sample.dtype)
    array = np.asarray(sample)
    return array.astype(dtype) if array.dtype.kind == "f" else array


def with_kernels(names=()):
    """Names of TABLE's ops with CUDA launchers (all, or those named), those that take longest to compile first."""
    found = [name for name, op in TABLE.items() if op.cuda is not None and (not names or name in names)]
    return sorted(found, key=lambda name: not name.startswith(("conv2d", "matmul", "dense")))


def launch_all(compiler, name, dtypes, only_large=False):
    """Sends samples of an op through its launcher, large ones first; gives what it wants: a list of `Wanted`."""
    compiler.op, compiler.wanted, op = name, {}, TABLE[name]
    for dtype in dtypes:
        for compiler.large in (True,) if only_large else (True, False):
            with warnings.catch_warnings():              # references of samples may overflow on purpose
                warnings.simplefilter("ignore")
                samples = list(large_samples(op) if compiler.large else op.samples(np.random.default_rng(0)))
            for inputs, attributes in samples:
                launch(compiler, op, [given_as(a, dtype) for a in inputs], op.complete(attributes))
    return list(compiler.wanted.values())


def launch(compiler, op, given, attributes):
    outputs = op.infer(*map(spec, given), **attributes)
    if all(o.size == 0 for o in outputs):
        return
    made = op.arrange([spec(a) for a in given], list(outputs), attributes, 1)
    ins = [np.reshape(a, s) for a, s in zip(given, made.inputs)]
    outs = [np.empty(s, o.dtype) for s, o in zip(made.outputs, outputs)]
    compiler.cost = op.cost([spec(a) for a in given], list(outputs), attributes)
    op.cuda(*ins, *made.scalars, *outs, *(np.empty(s.shape, s.dtype) for s in made.gpu_work))
