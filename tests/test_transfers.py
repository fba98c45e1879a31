"""Transfers to a GPU, without one: every order of work that a GPU may choose gives the right values, because whatever
touches the same memory is ordered by a stream, an event or a wait of the host."""
import contextlib
import itertools

import numpy as np
import pytest
from numba import config

from engine import target as targets
from engine.errors import TargetError
from engine.graph import Graph
from engine.runtime import Plan
from engine.transfers import Conveyor

STREAMS = "host", "work", "copies"


class Happened:
    """An event: what is known to have happened before it, as the count of each stream's work."""

    def __init__(self, recorder, clock):
        self.recorder, self.clock = recorder, clock

    def synchronize(self):
        self.recorder.learn("host", self.clock)


class RecordedStream:
    handle = 0

    def __init__(self, recorder, name):
        self.recorder, self.name = recorder, name

    def copy(self, destination, source):
        self.recorder.learn(self.name, self.recorder.clocks["host"])     # it is asked for after what the host did
        self.recorder.touch(self.name, (source, "read"), (destination, "write"))

    def record(self, event=None):
        return Happened(self.recorder, dict(self.recorder.clocks[self.name]))

    def wait(self, event):
        self.recorder.learn(self.name, event.clock)


class Memory:
    """Memory whose every use is entered; a slice is the same memory."""

    def __init__(self, recorder, name, size):
        self.recorder, self.name, self.size = recorder, name, size
        self.bytes = np.zeros(size, np.uint8)

    def __getitem__(self, span):
        if self.name.startswith("locked"):       # the host fills it through NumPy; a copy reads it
            return Locked(self, span)
        return self


class Locked:
    def __init__(self, memory, span):
        self.memory, self.span, self.name = memory, span, memory.name

    def view(self, dtype):
        self.memory.recorder.touch("host", (self.memory, "write"))
        return self.memory.bytes[self.span].view(dtype)


class Recorder:
    """A target that computes nothing but finds pairs of uses of one memory that nothing orders (vector clocks)."""

    def __init__(self):
        self.clocks = {name: dict.fromkeys(STREAMS, 0) for name in STREAMS}
        self.uses, self.races, self._number = {}, [], itertools.count()
        self.work, self.copies = RecordedStream(self, "work"), RecordedStream(self, "copies")

    def empty(self, size):
        return Memory(self, f"staging {next(self._number)}", size)

    def page_locked(self, size):
        return Memory(self, f"locked {next(self._number)}", size)

    def count(self, way, size):
        pass

    def learn(self, name, clock):
        mine = self.clocks[name]
        for other, count in clock.items():
            mine[other] = max(mine[other], count)

    def touch(self, name, *uses):
        self.clocks[name][name] += 1
        for memory, kind in uses:
            for other, before, count in self.uses.setdefault(memory.name, []):
                if (kind == "write" or before == "write") and count > self.clocks[name][other]:
                    self.races.append((memory.name, before, other, kind, name))
            self.uses[memory.name].append((name, kind, self.clocks[name][name]))


def steps(conveyor, recorder, block, count=7):
    """What training does: inputs arrive, then kernels read them."""
    for k in range(count):
        conveyor.put([(0, np.full(8, k, "f4")), (256, np.full(3, k, "i8"))])
        recorder.learn("work", recorder.clocks["host"])
        recorder.touch("work", (block, "read"))


def test_nothing_is_overwritten_while_it_is_in_use():
    recorder = Recorder()
    block = Memory(recorder, "block", 512)
    steps(Conveyor(recorder, block), recorder, block)
    assert not recorder.races
    assert {"staging 0", "locked 1", "locked 2", "block"} == set(recorder.uses)


@pytest.mark.parametrize("name,missing", [("copies", "wait"), ("work", "wait"), ("event", "synchronize")])
def test_without_any_of_the_waits_something_would_be(name, missing, monkeypatch):
    recorder = Recorder()
    block = Memory(recorder, "block", 512)
    if name == "event":
        monkeypatch.setattr(Happened, missing, lambda self: None)
    else:
        monkeypatch.setattr(getattr(recorder, name), missing, lambda event: None)
    steps(Conveyor(recorder, block), recorder, block)
    assert recorder.races


class Late:
    """A stream of the emulated target whose copies are made as late as possible: when somebody waits for them."""
    handle = 0

    def __init__(self, copy):
        self._copy, self._waiting = copy, []

    def copy(self, destination, source):
        self._waiting.append((destination, source))

    def record(self, event=None):
        return self

    def wait(self, event):
        pass

    def synchronize(self):
        while self._waiting:
            self._copy(*self._waiting.pop(0))


@pytest.mark.skipif(not targets.cuda_emulated.present(), reason=targets.cuda_emulated.reason())
@pytest.mark.parametrize("late", [False, True])
def test_steps_compute_with_the_inputs_that_they_were_given(late, monkeypatch):
    target = targets.cuda_emulated
    if late:
        copies = Late(target._move)
        monkeypatch.setitem(target._streams, "copies", copies)
        monkeypatch.setattr(target._streams["work"], "wait", lambda event: event.synchronize())
    graph = Graph()
    x, y = graph.feed("x", (5, 7), "float32"), graph.feed("y", (7,), "float32")
    graph.outputs["z"] = graph.add("mul", x, y)
    plan, again = Plan(graph, target), np.zeros((5, 7), np.float32)
    for k in range(6):
        again[...] = k                       # the host's array is free as soon as `run` returns
        plan.run(x=again, y=np.arange(7))
        again[...] = -1
        np.testing.assert_array_equal(plan.fetch("z"), np.full((5, 7), k) * np.arange(7))
    plan.feed("y", np.ones(7))
    plan.run()
    np.testing.assert_array_equal(plan.fetch("z"), np.full((5, 7), 5))


@pytest.mark.skipif(config.ENABLE_CUDASIM, reason="the simulator launches nothing")
def test_a_step_is_launched_again_without_numba_looking_at_its_arguments(monkeypatch):
    """The last call before the driver is made again as it was, in order, by both packages' names for it."""
    from numba.cuda import dispatcher

    from engine.kernels.gpu import prepared
    made = []
    monkeypatch.delattr(dispatcher, "launch", raising=False)             # one package's name, then the other's
    for holder, name in ((dispatcher.driver, "launch_kernel"), (dispatcher, "launch")):
        prepared.last_step.cache_clear()
        monkeypatch.setattr(holder, name, lambda *words, **options: made.append((words, options)), raising=False)
        prepared.last_step()
        with prepared.recorded() as calls:
            getattr(holder, name)("first", 1, cooperative=False)
            getattr(holder, name)("second", 2)
        getattr(holder, name)("not noted")
        assert len(made) == 3 and len(calls) == 2
        for call in calls:
            call()
        assert made[3:] == made[:2]
        made.clear()
    prepared.last_step.cache_clear()


@pytest.mark.skipif(not targets.cuda_emulated.present(), reason=targets.cuda_emulated.reason())
def test_launches_that_are_made_again_are_those_of_the_plan(monkeypatch):
    from engine.kernels import TABLE
    from engine.kernels.program import Program
    target, op, seen = targets.cuda_emulated, TABLE["add"], []
    x, total = target.place(np.ones(5, "f4")), target.place(np.zeros(5, "f4"))
    program = Program(target)
    program.add(op, [total, x], [total], {})
    monkeypatch.setattr(program.calls[0], "functions", [
        lambda launch=launch: (seen.append(1), launch()) for launch in program.calls[0].functions])
    program.run(3)
    program.run(2)
    np.testing.assert_array_equal(target.fetch(total), np.full(5, 5))
    assert len(seen) == 1, "the launcher runs once"
    with target.checking():                  # what is looked for may change from one run to the next
        program.run()
    np.testing.assert_array_equal(target.fetch(total), np.full(5, 6))


class Driver:
    """Stands for the driver's library: notes which of its functions are called; one of them may fail."""

    def __init__(self, fails=""):
        self.called, self.fails = [], fails

    def __getattr__(self, name):
        def function(*arguments):
            self.called.append(name)
            if name == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_OF_THIS_TEST"
            return 901 if name == self.fails else 0
        return function


@pytest.fixture
def adding(monkeypatch):
    """(a program that adds 1 to a total, of a target that says it has graphs; the total)"""
    from engine.kernels import TABLE
    from engine.kernels.program import Program
    target = targets.cuda_emulated
    x, total = target.place(np.ones(5, "f4")), target.place(np.zeros(5, "f4"))
    program = Program(target)
    program.add(TABLE["add"], [total, x], [total], {})
    monkeypatch.setattr(type(target), "has_graphs", True)
    monkeypatch.setattr(target.work, "handle", 7)
    monkeypatch.setattr("engine.kernels.program.compile_ahead", lambda wanted: None)
    monkeypatch.setattr("engine.kernels.program.gathered", contextlib.nullcontext)
    return program, total


@pytest.mark.skipif(not targets.cuda_emulated.present(), reason=targets.cuda_emulated.reason())
def test_steps_after_the_first_are_one_launch_of_a_graph(monkeypatch, adding):
    from engine.kernels.gpu import graphs
    driver, (program, _) = Driver(), adding
    monkeypatch.setattr(graphs, "driver", lambda: driver)
    program.run()
    assert not driver.called, "one step alone is launched as it is"
    program.run(2)
    made = ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy"]
    assert driver.called == made + 2 * ["cuGraphLaunch"]
    program.run(3)
    assert driver.called == made + 5 * ["cuGraphLaunch"]
    program.calls, program._launches, program._graph = [], None, None
    assert driver.called[-1] == "cuGraphExecDestroy"


@pytest.mark.skipif(not targets.cuda_emulated.present(), reason=targets.cuda_emulated.reason())
def test_what_the_driver_refuses_is_said_and_ends_the_capture(monkeypatch, adding):
    from engine.kernels.gpu import graphs
    driver = Driver(fails="cuGraphInstantiateWithFlags")
    monkeypatch.setattr(graphs, "driver", lambda: driver)
    with pytest.raises(TargetError, match=r"cuGraphInstantiateWithFlags failed with CUDA_ERROR_OF_THIS_TEST \(901\)"):
        adding[0].run(2)
    driver.called.clear()
    with pytest.raises(ZeroDivisionError):
        graphs.CudaGraph([lambda: 1 / 0], 7)
    assert driver.called == ["cuStreamBeginCapture_v2", "cuStreamEndCapture"], "a stream must not stay in capture"
