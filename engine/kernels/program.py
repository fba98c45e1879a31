"""A program: resolved calls of kernels on given arrays, run without looking anything up again.

On the CPU it is data, a table that one compiled loop works through (`engine/kernels/team.py`); on the GPU, and with
NUMBA_DISABLE_JIT=1, it is a list of calls.
"""
from copy import copy

import numpy as np
from numba import config

from engine import target as targets
from engine.errors import TargetError
from engine.kernels import entry as entries
from engine.kernels.entry import Wanted
from engine.kernels.formula import Formula
from engine.kernels.gpu import recorded
from engine.kernels.gpu.ahead import compile_ahead, gathered
from engine.kernels.gpu.graphs import CudaGraph
from engine.kernels.op import FLOATS, spec
from engine.kernels.simd.stores import Store
from engine.progress import compiling


class Call:
    """One resolved call: the op, its arguments, and what the target needs to run it."""

    def __init__(self, op, inputs, outputs, attributes, arrangement):
        self.op, self.inputs, self.outputs, self.attributes = op, inputs, outputs, attributes
        self.arrangement = arrangement
        self.scratch = []                    # kept alive: the kernels know only its address
        self.wanted, self.block = [], None   # CPU: the entries of each phase, and their argument block
        self.functions = []                  # otherwise: what to call

    def split(self, phases):
        """A call of its first phases, which are then no longer its own."""
        first = copy(self)
        first.wanted, self.wanted = self.wanted[:phases], self.wanted[phases:]
        first.functions, self.functions = self.functions[:phases], self.functions[phases:]
        return first

    @property
    def cost(self):
        return self.op.cost([spec(a) for a in self.inputs], [spec(a) for a in self.outputs], self.attributes)


class Program:
    """Calls in order on one target.

    add(op, inputs, outputs, attributes)   appends a call; arrays are bound by address, so keep them where they are
    run(rounds)                            works through all calls, `rounds` times
    """

    def __init__(self, target):
        self.target = target
        self.calls = []
        self._table = self._launches = self._graph = None
        self._alone = True                   # no call has more than one task

    def add(self, op, inputs, outputs, attributes, work=None):
        """`work(specs)` gives scratch arrays; without it they are allocated here."""
        threads = entries.threads.get()
        arrangement = op.arrange([spec(a) for a in inputs], [spec(a) for a in outputs], attributes, threads)
        call = Call(op, inputs, outputs, attributes, arrangement)
        if outputs and all(spec(a).size == 0 for a in outputs):
            return call                                              # nothing to compute
        ins = [a.reshape(s) for a, s in zip(inputs, arrangement.inputs, strict=True)]
        outs = [a.reshape(s) for a, s in zip(outputs, arrangement.outputs, strict=True)]
        on_gpu = self.target is not targets.cpu              # a real one or the emulated one: the same launchers
        if (op.cuda if on_gpu else op.phases[0]) is None:
            raise TargetError(f"{op.name}: this op has no kernel for the target {self.target.name}; give its record "
                              f"one, or build the model with target={'cpu' if op.cuda is None else 'cuda'!r}")
        if on_gpu:
            call.scratch = scratch = self._scratch(arrangement.gpu_work, work)
            call.functions = [_launch(op.cuda, (*ins, *arrangement.scalars, *outs, *scratch))]
        else:
            call.scratch = scratch = self._scratch(arrangement.work, work)
            arguments = (*ins, *arrangement.scalars, *outs, *scratch, *arrangement.blocking)
            phases = [op.phases[i] for i in arrangement.phases] or op.phases
            if config.DISABLE_JIT:
                call.functions = [_python(kernel, arguments, arrangement.tasks) for kernel in phases]
            else:
                parameters, words = pack(arguments)
                call.wanted = [Wanted(kernel, parameters, _float_of(arguments)) for kernel in phases]
                call.block = np.array(words, np.int64)
        self.calls.append(call)
        self._table = self._launches = self._graph = None
        return call

    def _scratch(self, specs, work):
        return work(specs) if work else [self.target.part(self.target.empty(s.nbytes), 0, s.shape, s.dtype)
                                         for s in specs]

    def run(self, rounds=1):
        if self._table is not None:
            return entries.threads.run(self._table, rounds, self._alone)
        if self.target is targets.cpu and not config.DISABLE_JIT:
            prepare(self)
            return entries.threads.run(self._table, rounds, self._alone)
        if self.target is not targets.cpu:
            return self._launch(rounds)
        for _ in range(rounds):
            self.launch_all()

    def _launch(self, rounds):
        """The first round looks up and compiles; the others make the same launches again, on a GPU as one."""
        if self._launches is None and rounds:
            if self.target.has_graphs:
                with gathered() as wanted:
                    self.launch_all()
                compile_ahead(wanted)
            with recorded() as launches:
                self.launch_all()
            compiling.finish()
            self._launches, rounds = launches, rounds - 1
        if self._graph is None and rounds and self._launches and self.target.has_graphs:
            self._graph = CudaGraph(self._launches, self.target.work.handle)
        for _ in range(rounds):
            for launch in [self._graph.launch] if self._graph else self._launches:
                launch()

    def launch_all(self):
        """Runs every call as it stands: on a GPU, its launcher."""
        for call in self.calls:
            for function in call.functions:
                function()

    def part(self, first, last):
        """The program of calls first .. last - 1 (the profiler runs them one at a time)."""
        some = Program(self.target)
        some.calls = self.calls[first:last]
        return some


def prepare(*programs):
    """Compiles what the calls of programs on the CPU need, all of it together; else each does so in its first run."""
    programs = [p for p in programs if p.target is targets.cpu and not config.DISABLE_JIT]
    wanted = [(w, call.arrangement.tasks) for p in programs for call in p.calls for w in call.wanted]
    found = iter(entries.entries_of([w for w, _ in wanted], max((tasks for _, tasks in wanted), default=1) > 1))
    for p in programs:
        p._table = np.array([(next(found).address, call.block.ctypes.data, call.arrangement.tasks,
                              call.arrangement.grains) for call in p.calls for _ in call.wanted], np.int64)
        p._table = p._table.reshape(-1, 4)
        p._alone = p._table[:, 2].max(initial=1) == 1


def pack(arguments):
    """(the entry's parameters, the words of its argument block) for a call's arguments."""
    parameters, words = [], []
    for a in arguments:
        if isinstance(a, np.ndarray):
            parameters.append(("array", a.ndim, a.dtype))
            words += [a.ctypes.data, *a.shape]
        elif isinstance(a, (Formula, Store)):
            parameters.append(("formula", a))
        elif isinstance(a, (bool, int, np.integer)):
            parameters.append(("int",))
            words.append(int(a))
        else:
            parameters.append(("real",))
            words.append(int(np.float64(a).view(np.int64)))
    return parameters, words


def parameters_of(op, inputs, attributes):
    """(an entry's parameters, the dtype of its formulas) for a call on these arrays."""
    outputs = op.infer(*map(spec, inputs), **attributes)
    made = op.arrange([spec(a) for a in inputs], list(outputs), attributes, entries.threads.get())
    arrays = [np.empty(shape, s.dtype) for shape, s in zip(made.inputs, inputs)]
    results = [np.empty(shape, s.dtype) for shape, s in zip(made.outputs, outputs)]
    scratch = [np.empty((0,) * s.ndim, s.dtype) for s in made.work]
    arguments = (*arrays, *made.scalars, *results, *scratch, *made.blocking)
    return pack(arguments)[0], _float_of(arguments)


def _float_of(arguments):
    """The dtype of the formulas' numbers: that of the first array of floats."""
    return next((a.dtype for a in arguments if isinstance(a, np.ndarray) and a.dtype in FLOATS), np.dtype("f8"))


def _launch(launcher, arguments):
    return lambda: launcher(*arguments)


def _python(kernel, arguments, tasks):
    dtype = _float_of(arguments)
    arguments = [a.cpu(dtype) if isinstance(a, Formula) else a for a in arguments]

    def call():
        for task in range(tasks):
            kernel(*arguments, task, tasks)
    return call
