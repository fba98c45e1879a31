"""Compiles what the launchers would launch, without a GPU: samples of every op of TABLE go through their launchers, and
in place of a launch stands a compiler. It needs the extra `cuda`: numba's built-in CUDA cannot compile without a
toolkit on the machine."""
import types as python_types
import warnings
from typing import NamedTuple

import numpy as np
from numba import typeof, types

from engine import target
from engine.kernels import TABLE, gpu
from engine.kernels.op import Cost, Spec, spec

BIG = 2048


class Made(NamedTuple):
    """A kernel compiled for one signature, and the first launch that asked for it."""
    op: str
    name: str
    signature: tuple
    threads: int
    options: dict
    cost: Cost                               # of the whole op
    ptx: str
    error: str = ""


class Compiler:
    """Stands for a launch: compiles the kernel for the arguments it was given and launches nothing."""

    def __init__(self, capability):
        from numba import cuda
        from numba.cuda import dispatcher
        self.cuda, self.capability, self.made = cuda, capability, {}
        self.op, self.cost = "", Cost(0, 0)
        # device functions ask for the current GPU while they are compiled
        device = python_types.SimpleNamespace(compute_capability=capability)
        dispatcher.get_current_device = lambda: device
        target.cuda._module, target.cuda._looked = cuda, True
        gpu.make_launcher = self.launcher

    def launcher(self, function, options):
        compiler = self

        class Launch:
            def __getitem__(self, grid):
                return lambda *arguments: compiler.compile(function, options, int(np.prod(grid[1])), arguments)
        return Launch()

    def compile(self, function, options, threads, arguments):
        signature = tuple(map(numba_type, arguments))
        if (function, signature) in self.made or self.capability < options.get("capability", (0, 0)):
            return
        text, error = "", ""
        try:
            given = {k: v for k, v in options.items() if k not in ("max_registers", "capability")}
            text = self.cuda.compile_ptx(function, types.void(*signature), cc=self.capability, **given)[0]
        except Exception as problem:         # whatever Numba raises is this row's result
            error = f"{type(problem).__name__}: {problem}"
        self.made[function, signature] = Made(self.op, function.__name__, signature, threads, options, self.cost,
                                              text, error)


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


def samples_of(op, only_large=False):
    """Large inputs, for which times are estimated, then the op's own samples; products of sizes for every tile."""
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
    if not only_large:
        yield from op.samples(np.random.default_rng(0))


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


def launch_all(compiler, dtype, names, only_large=False):
    """Sends samples of ops through their launchers; what comes of it is in `compiler.made`."""
    for name in names:
        compiler.op, op = name, TABLE[name]
        with warnings.catch_warnings():      # references of samples may overflow on purpose
            warnings.simplefilter("ignore")
            samples = list(samples_of(op, only_large))
        for inputs, attributes in samples:
            given = [given_as(a, dtype) for a in inputs]
            attributes = op.complete(attributes)
            outputs = op.infer(*map(spec, given), **attributes)
            if all(o.size == 0 for o in outputs):
                continue
            made = op.arrange([spec(a) for a in given], list(outputs), attributes, 1)
            ins = [np.reshape(a, s) for a, s in zip(given, made.inputs)]
            outs = [np.empty(s, o.dtype) for s, o in zip(made.outputs, outputs)]
            compiler.cost = op.cost([spec(a) for a in given], list(outputs), attributes)
            op.cuda(*ins, *made.scalars, *outs, *(np.empty(s.shape, s.dtype) for s in made.gpu_work))
