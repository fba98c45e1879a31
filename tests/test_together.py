"""Compiling in several processes: every group is made once, and what a child does not deliver is made here."""
import os
import signal
import subprocess
import sys
import time

import pytest
from numba import config

from engine.kernels import together
from engine.progress import compiling

pytestmark = pytest.mark.skipif(not together.can_share(), reason="forks to compile on Linux only")


class Notes:
    """Functions that note in a folder which process called them."""

    def __init__(self, folder):
        self.folder = folder

    def make(self, name, before=lambda: None):
        def made():
            before()
            with open(self.folder / name, "a") as file:
                file.write(f"{os.getpid()} ")
        return made

    def makers(self):
        return {file.name: file.read_text().split() for file in self.folder.iterdir()}


def in_a_child(action):
    """The action, where it is not this process that acts."""
    here = os.getpid()
    return lambda: action() if os.getpid() != here else None


@pytest.fixture(autouse=True)
def all_children_end(monkeypatch):
    children, end = [], together._end

    def noted(workers):
        children.extend(workers.values())
        end(workers)

    monkeypatch.setattr(together, "_end", noted)
    yield
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_own_work_comes_first_and_in_this_process(tmp_path, processes):
    notes, here, done = Notes(tmp_path), os.getpid(), []

    def own():
        done.append((os.getpid(), any(str(here) in pids for pids in notes.makers().values())))

    together.compile_together([[notes.make(str(group))] for group in range(5)], processes, own)
    assert done == [(here, False)] and len(notes.makers()) == 5


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_every_group_is_made_once_by_one_process(tmp_path, processes):
    notes = Notes(tmp_path)
    together.compile_together([[notes.make(f"{group}.{k}") for k in range(3)] for group in range(20)], processes)
    made = notes.makers()
    assert len(made) == 60 and all(len(pids) == 1 for pids in made.values())
    assert all(made[f"{g}.0"] == made[f"{g}.1"] == made[f"{g}.2"] for g in range(20))
    assert len({pid for pids in made.values() for pid in pids}) <= processes


def test_hundreds_of_groups(tmp_path):
    notes = Notes(tmp_path)
    together.compile_together([[notes.make(str(group))] for group in range(258)], 2)
    assert len(notes.makers()) == 258


@pytest.mark.parametrize("end", [lambda: sys.exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1 / 0],
                         ids=["exit", "kill", "error"])
def test_what_a_child_does_not_deliver_is_made_here(tmp_path, end, monkeypatch, request):
    said = []
    monkeypatch.setattr(together, "notice", said.append)
    notes, ended = Notes(tmp_path), tmp_path.parent / f"{tmp_path.name} ended"

    def wait():
        while not ended.exists():            # a child has its chance to take one
            time.sleep(0.01)

    def child():
        ended.touch()
        end()
    here = os.getpid()
    together.compile_together([[notes.make(str(group), lambda: wait() if os.getpid() == here else child())]
                               for group in range(6)], 3)
    assert notes.makers() == {str(group): [str(here)] for group in range(6)}
    assert len(said) == 1 and ("one of them: ZeroDivisionError: division" in said[0]) == ("error" in request.node.name)


def test_a_child_that_ends_before_it_reads_its_piece(tmp_path, monkeypatch):
    said, notes = [], Notes(tmp_path)
    monkeypatch.setattr(together, "notice", said.append)

    def end_late(connection, groups):
        time.sleep(0.1)                      # its piece is there, and nobody reads it
        os._exit(3)
    monkeypatch.setattr(together, "_work", end_late)
    together.compile_together([[notes.make(str(group))] for group in range(3)], 2)
    assert notes.makers() == {str(group): [str(os.getpid())] for group in range(3)} and len(said) == 1


def test_a_child_that_hangs_is_given_up(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(together, "notice", said.append)
    monkeypatch.setattr(together, "PATIENCE", 0.3)
    notes, hang = Notes(tmp_path), in_a_child(signal.pause)
    together.compile_together([[notes.make(str(group), hang)] for group in range(3)], 2)
    assert notes.makers() == {str(group): [str(os.getpid())] for group in range(3)}
    assert len(said) == 1 and "said nothing for 0.3 s: what is missing (3 of their pieces of work)" in said[0]


def test_an_error_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        together.compile_together([[lambda: 1 / 0], [lambda: 1 / 0]], 2)


def test_what_children_compiled_counts(monkeypatch):
    heard = []
    monkeypatch.setattr(compiling, "times", [])
    monkeypatch.setattr(compiling, "each", lambda name, seconds: heard.append((name, seconds)))

    def make(name):
        def made():
            with compiling.of(name):
                pass
        return made
    together.compile_together([[make(str(group))] for group in range(10)], 3)
    assert sorted(name for name, _ in compiling.times) == sorted(map(str, range(10)))
    assert heard == compiling.times, "each is heard of once, here"


COLD = """
import numpy as np
from engine import target
from engine.kernels import TABLE, together
from engine.kernels.program import Program
from engine.progress import compiling

handed, hand_to = [], together._Pieces.hand_to

def noted(pieces, worker):
    hand_to(pieces, worker)
    handed.append(pieces.busy.get(worker))

together._Pieces.hand_to = noted
a = np.random.default_rng(0).standard_normal((33, 47)).astype("f")
b, c, d, program = np.ascontiguousarray(a.T), np.empty((33, 33), "f"), np.empty((33, 33), "f"), Program(target.cpu)
program.add(TABLE["matmul"], [a, b], [c], TABLE["matmul"].complete({}))
program.add(TABLE["relu"], [c], [d], {})
program.run()
np.testing.assert_allclose(d, np.maximum(a @ b, 0), rtol=1e-4, atol=1e-4)
print(*sorted(name.split(".")[-1] for name, _ in compiling.times if "kernels_matmul_tiles_" in name))
print(*sorted(piece[1] for piece in handed if isinstance(piece, tuple)))
print(len(compiling.times))
"""


@pytest.mark.skipif(config.DISABLE_JIT or config.NUMBA_NUM_THREADS < 2, reason="compiles by several processes")
def test_units_are_pieces_of_work_and_compiled_once(tmp_path):
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True,
                              env={**os.environ, "ENGINE_CACHE_DIR": str(tmp_path), "ENGINE_THREADS": "2"})
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.splitlines())
    units = ["blocks", "copied_strips", "full_strips", "narrow_strip"]
    assert found[0][0].split() == [f"engine_kernels_matmul_tiles_{name}" for name in units]
    assert found[0][1].split() == units
    assert found[1] == ["", "", "0"], "the next process has all of them from the cache"
