"""Entries compiled by several processes at once, each of which leaves machine code in the disk cache.

Numba compiles under one lock of the process, so threads are no help. Where more than one thread may be used, a fork for
each of them takes groups of entries, as this process does; what they made is then loaded from the cache. A forked child
compiles and ends: it starts no threads, writes nothing but the cache and its report, and whatever it does not deliver
(an error, a kill) is compiled here, where an error is raised as if there had been no child.

The groups are numbers in a pipe, one byte each: whoever is free reads the next.
"""
import contextlib
import json
import os
import select
import signal
import sys
import warnings

from numba.core.compiler_lock import global_compiler_lock

from engine.progress import compiling, notice

MOST = 255                                   # groups: a number is a byte
# Later an OpenMP that was asked to bind threads (OMP_PROC_BIND) binds this one, and with it what it forks, to one core.
CORES = os.sched_getaffinity(0) if sys.platform == "linux" else None
PATIENCE = 60                                # seconds without a report from any child, after which they are given up


def can_share():
    """Whether a process may be forked that goes on compiling: on Linux. Elsewhere system libraries forbid it."""
    return sys.platform == "linux"


def compile_together(groups, processes, own=None):
    """Calls every function of `groups`, a list of lists, here or in a fork; each compiles and caches one entry.

    What stands in one group is compiled by one process, in its order. `own`: what this process does first.
    """
    shared, rest = groups[:MOST], groups[MOST:]
    own = own or (lambda: None)
    children = min(processes, len(shared)) - 1
    if children < 1 or not can_share():
        own()
        shared, rest = [], groups
    else:
        todo, reports, pids = _start(shared, children)
        try:
            own()
            done = _work(todo, shared)
            done |= _collect(reports, len(shared) - len(done))
        finally:
            os.close(todo)
            os.close(reports)
            _end(pids)
        rest = [group for number, group in enumerate(shared) if number not in done] + rest
    for make in (make for group in rest for make in group):
        make()


def _start(groups, children):
    """(the pipe of numbers, the pipe of reports, the processes)"""
    todo, given = os.pipe()
    reports, told = os.pipe()
    os.write(given, bytes(range(len(groups))))
    os.close(given)
    pids = []
    try:
        with global_compiler_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")              # that this process has threads, which the child does not need
            for _ in range(children):
                pid = os.fork()
                if pid == 0:
                    _child(todo, groups, told)
                pids.append(pid)
    finally:
        os.close(told)
    return todo, reports, pids


def _child(todo, groups, told):
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        compiling.each = None                # the parent hears of it
        os.sched_setaffinity(0, CORES)
        _work(todo, groups, told)
    except BaseException as error:           # what it took is made by the parent, which raises what is raised again
        os.write(told, (json.dumps([None, f"{type(error).__name__}: {error}"[:300]]) + "\n").encode())
    finally:
        os._exit(0)                          # no clean-up: all that is open belongs to the parent


def _work(todo, groups, told=None):
    """Makes groups as long as there are any; the numbers of those made. Each is reported to `told`."""
    done = set()
    while number := os.read(todo, 1):
        before = len(compiling.times)
        for make in groups[number[0]]:
            make()
        done.add(number[0])
        if told is not None:
            line = json.dumps([number[0], compiling.times[before:]]) + "\n"
            os.write(told, line.encode())
    return done


def _collect(reports, expected):
    """Waits for the children's reports; the numbers of the groups that they made."""
    done, text, why = set(), b"", ""
    while len(done) < expected and select.select([reports], [], [], PATIENCE)[0]:
        part = os.read(reports, 1 << 16)
        if not part:
            break                            # all children have ended
        *lines, text = (text + part).split(b"\n")
        for number, said in map(json.loads, lines):
            if number is None:
                why = f" (one of them: {said})"
                continue
            done.add(number)
            for name, seconds in said:
                compiling.note(name, seconds)
    missing = expected - len(done)
    if missing:
        notice(f"processes that compile have ended or said nothing for {PATIENCE} s{why}: what is missing "
               f"({missing} of their pieces of work) is compiled here, one by one")
    return done


def _end(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
