"""Everything that was decided about a kernel, as text: its source, its entry, the machine code made of it."""
import inspect

import numpy as np

from engine.errors import unknown
from engine.kernels import entry as entries
from engine.kernels.program import parameters_of

KINDS = ("source", "entry", "llvm", "asm")


def show(op, what, inputs, attributes):
    """See `Op.show`."""
    if what not in KINDS:
        raise unknown("show", what, KINDS)
    if what == "source":
        return "\n\n".join(inspect.getsource(kernel.py_func) for kernel in op.phases)
    if not inputs:
        inputs, attributes = max(op.samples(np.random.default_rng(0)), key=lambda s: sum(np.size(a) for a in s[0]))
        inputs = [np.asarray(a, np.float32 if np.asarray(a).dtype.kind == "f" else None) for a in inputs]
    parameters, dtype = parameters_of(op, inputs, op.complete(attributes))
    texts = []
    for kernel in op.phases:
        name = kernel.py_func.__name__
        if what == "entry":
            texts.append(entries.entry_source(name, parameters))
        else:
            library = entries.fresh(kernel, parameters, dtype)._library
            texts.append(library.get_llvm_str() if what == "llvm" else library.get_asm_str())
    return "\n".join(texts)
