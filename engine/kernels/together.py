"""Entries compiled by several processes at once, each of which leaves machine code in the disk cache.

Numba compiles under one lock of the process, so threads are no help. Where more than one thread may be used, so many
forks, the workers, compile what this process hands out, a piece at a time; what they made is then loaded from the
cache. A worker compiles and ends: it starts no threads, runs nothing it made, writes nothing but the cache and its
reports, and whatever it does not deliver (an error, a kill) is compiled here, where an error is raised as if there had
been no worker.

A worker that meets a unit which is not in the cache says so and goes on, for a caller needs no more than its symbol: so
a unit, and what it calls in turn, become pieces for whoever is free.
"""
import contextlib
import importlib
import os
import signal
import sys
import warnings
from collections import deque

from numba.core.compiler_lock import global_compiler_lock

from engine.kernels.simd.units import others
from engine.progress import compiling, notice

# Later an OpenMP that was asked to bind threads (OMP_PROC_BIND) binds this one, and with it what it forks, to one core.
CORES = os.sched_getaffinity(0) if sys.platform == "linux" else None
PATIENCE = 60                                # seconds without a report from any worker, after which they are given up


def can_share():
    """Whether a process may be forked that goes on compiling: on Linux. Elsewhere system libraries forbid it."""
    return sys.platform == "linux"


def compile_together(groups, processes, own=None):
    """Calls every function of `groups`, a list of lists, in a fork or here; each compiles and caches one entry.

    What stands in one group is compiled by one process, in its order. `own`: what this process does meanwhile.
    """
    own, done = own or (lambda: None), set()
    if min(processes, len(groups)) < 2 or not can_share():
        own()
    else:
        pieces, workers = _Pieces(len(groups)), {}
        try:
            for _ in range(processes):
                connection, pid = _start(groups, workers)
                workers[connection] = pid
                pieces.hand_to(connection)
            own()
            done = pieces.collected()
        finally:
            _end(workers)
    for number, group in enumerate(groups):
        for make in group if number not in done else ():
            make()


class _Pieces:
    """What has to be compiled: numbers of groups, and units as (module, name, argument types)."""

    def __init__(self, groups):
        self.groups = groups
        self.todo, self.known = deque(range(groups)), set(range(groups))
        self.idle, self.busy = [], {}        # workers; of a busy one, its piece

    def hand_to(self, worker):
        if not self.todo:
            self.idle.append(worker)
            return
        piece = self.todo.popleft()
        with contextlib.suppress(OSError):   # it has ended, which is seen when it is waited for
            worker.send(piece)
        self.busy[worker] = piece

    def collected(self):
        """Hands out pieces until all are done, or nobody is left to do them; the numbers of the groups that are."""
        from multiprocessing.connection import wait
        done, why = set(), ""
        while self.busy:
            ready = wait(list(self.busy), PATIENCE)
            if not ready:
                break
            for worker in ready:
                try:
                    kind, *said = worker.recv()
                except (EOFError, OSError):  # it has ended, OSError: before it read what it was sent
                    del self.busy[worker]
                    continue
                if kind == "unit":
                    self._add(said[0])
                elif kind == "error":
                    why = f" (one of them: {said[0]})"
                else:
                    done.add(self.busy.pop(worker))
                    for name, seconds in said[0]:
                        compiling.note(name, seconds)
                    self.hand_to(worker)
        missing = self.groups - sum(isinstance(piece, int) for piece in done)
        if missing:
            notice(f"processes that compile have ended or said nothing for {PATIENCE} s{why}: what is missing "
                   f"({missing} of their pieces of work) is compiled here, one by one")
        return done

    def _add(self, unit):
        """A unit comes next: it may need others."""
        if unit not in self.known:
            self.known.add(unit)
            self.todo.appendleft(unit)
            if self.idle:
                self.hand_to(self.idle.pop())


def _start(groups, workers):
    """(the connection to a new worker, its process)"""
    from multiprocessing import Pipe
    connection, other = Pipe()
    with other, global_compiler_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")                  # that this process has threads, which the worker does not need
        pid = os.fork()
        if pid == 0:
            for held in (connection, *workers):          # else it would not see this process end
                held.close()
            _work(other, groups)
    return connection, pid


def _work(connection, groups):
    """A worker: makes pieces as they come, until this process ends it."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        compiling.each = None                # the parent hears of it
        os.sched_setaffinity(0, CORES)
        others.asked = lambda *unit: connection.send(("unit", unit))
        while True:
            piece, before = connection.recv(), len(compiling.times)
            if isinstance(piece, int):
                for make in groups[piece]:
                    make()
            else:
                module, name, types = piece
                getattr(importlib.import_module(module), name).make(types)
            connection.send(("done", compiling.times[before:]))
    except EOFError:                         # the parent has ended
        pass
    except BaseException as error:           # what it took is made by the parent, which raises what is raised again
        with contextlib.suppress(OSError):
            connection.send(("error", f"{type(error).__name__}: {error}"[:300]))
    finally:
        os._exit(0)                          # no clean-up: all that is open belongs to the parent


def _end(workers):
    for connection, pid in workers.items():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        connection.close()
