"""Compiles every CUDA kernel of TABLE to PTX, without a GPU: `python -m tools.ptx [--cc 80 90] [--show NAME]`.

The simulator runs kernels as Python and sees no types; this is what Numba's CUDA compiler makes of them. It needs the
extra `cuda` (numba-cuda with its toolkit); numba's built-in CUDA cannot compile without a toolkit on the machine.
"""
import argparse
import types as python_types

import numpy as np
from numba import typeof, types

from engine import target
from engine.kernels import TABLE, gpu
from engine.kernels.op import spec


class Compiler:
    """Stands for a launch: compiles the kernel for the arguments it was given and launches nothing."""

    def __init__(self, capabilities):
        from numba import cuda
        from numba.cuda import dispatcher
        self.cuda, self.capabilities, self.made = cuda, capabilities, {}
        # device functions ask for the current GPU while they are compiled
        device = python_types.SimpleNamespace(compute_capability=capabilities[0])
        dispatcher.get_current_device = lambda: device
        target.cuda._module, target.cuda._looked = cuda, True
        gpu.make_launcher = self.launcher

    def launcher(self, function, options):
        compiler = self

        class Launch:
            def __getitem__(self, grid):
                return lambda *arguments: compiler.compile(function, arguments)
        return Launch()

    def compile(self, function, arguments):
        signature = types.void(*map(numba_type, arguments))
        for capability in self.capabilities:
            key = capability, function, signature
            if key not in self.made:
                try:
                    self.made[key] = self.cuda.compile_ptx(function, signature, cc=capability)[0]
                except Exception as error:   # whatever Numba raises is this row's result
                    self.made[key] = error


def numba_type(value):
    if isinstance(value, np.ndarray):
        return types.Array(typeof(value).dtype, value.ndim, "C")
    return typeof(value) if isinstance(value, tuple) else types.int64 if isinstance(value, (int, np.integer)) else \
        types.float64


def launch_all(dtype):
    """Calls every op's launcher on its samples, as arrays of host memory that nobody reads."""
    for op in TABLE.values():
        for inputs, attributes in op.samples(np.random.default_rng(0)):
            given = [np.asarray(a, dtype if np.asarray(a).dtype.kind == "f" else None) for a in inputs]
            attributes = op.complete(attributes)
            outputs = op.infer(*map(spec, given), **attributes)
            if all(o.size == 0 for o in outputs):
                continue
            made = op.arrange([spec(a) for a in given], list(outputs), attributes, 1)
            ins = [np.reshape(a, s) for a, s in zip(given, made.inputs)]
            outs = [np.zeros(s, o.dtype) for s, o in zip(made.outputs, outputs)]
            op.cuda(*ins, *made.scalars, *outs, *(np.zeros(s.shape, s.dtype) for s in made.gpu_work))


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.ptx", description=__doc__)
    parser.add_argument("--cc", nargs="*", default=["80", "90"], help="compute capabilities: 75, 80, 89, 90, ...")
    parser.add_argument("--show", help="print the PTX of kernels whose name has this text")
    arguments = parser.parse_args()
    compiler = Compiler([(int(text[:-1]), int(text[-1])) for text in arguments.cc])
    for dtype in ("float32", "float64"):
        launch_all(dtype)
    wrong = 0
    for capability in compiler.capabilities:
        made = {key[1:]: value for key, value in compiler.made.items() if key[0] == capability}
        failed = {key: value for key, value in made.items() if not isinstance(value, str)}
        print(f"sm_{capability[0]}{capability[1]}: {len(made) - len(failed)} kernels compiled, {len(failed)} failed")
        for (function, signature), error in failed.items():
            print(f"  {function.__module__}.{function.__qualname__}{signature.args}: {error}")
        for (function, _), text in made.items():
            if arguments.show and arguments.show in function.__qualname__ and isinstance(text, str):
                print(text)
        wrong += len(failed)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
