"""How threads work through a program: alone, or as a team.

One thread leads a team: it works through the program and does the calls of one task by itself. Of the others each
member has its share. They begin in any order, and late ones are not waited for: whoever comes first, the member or
the leader, claims the member's share of a call, and the leader does what it claimed. So a team is one region of
threads for a whole program, and goes on where the threading layer runs its members one after the other.

Members meet in words of `board`, a row for each: DONE says up to which call the member has done what it claimed, TOOK
how long the last one took it, and CLAIMED for which call its share was claimed last; in the leader's row CLAIMED says
how far the program has come. TASK is what the member does of a call whose tasks may share unequally (`grains`), by its
SPEED.

Two cores of a shared machine differ in speed by a quarter as often as not, for tenths of a second: with equal shares
one waits for the other. So the leader keeps each member's speed and cuts such calls accordingly. It does so between
calls only, when nobody works; and no cut changes a result.
"""
import numpy as np
from numba import prange

from engine.kernels.shares import WHOLE, cut_at, share_of, with_share
from engine.kernels.simd.parts import part
from engine.kernels.simd.region import on_threads
from engine.kernels.simd.shared import (
    claimed,
    put_real_at,
    real_at,
    rest,
    shared_load,
    shared_store,
    ticks,
    use_threads,
    yield_core,
)
from engine.kernels.simd.units import call_entry

# words; those that other threads write are 128 bytes apart
ROW, CLAIMED, TASK, SPEED, DONE, TOOK, OVER = 32, 0, 1, 2, 16, 17, -1
ONE = 1 << 20                                # what SPEED counts: whole numbers, so that shares end at the end
GRAINS = 8                                   # of a task, from which shares are unequal: they are cut at grains
SETTLE = 1_000_000                           # ticks of a call that counts half; what is shorter says less
SLOWEST, FASTEST = 2 / 3, 4 / 3              # speeds that are believed, so that no share is twice an equal one
PATIENCE = 4000                              # looks at a word, some 0.1 ms, before the core is offered to others


def run_serial(program, rounds):
    """Works through the program `rounds` times on this thread; program[i] = (entry, block, tasks, grains)."""
    for _ in range(rounds):
        for i in range(program.shape[0]):
            for task in range(program[i, 2]):
                call_entry(program[i, 0], program[i, 1], task, program[i, 2])


@part
def _wait(looks):
    if looks > PATIENCE:
        yield_core()
    else:
        rest()
    return looks + 1


@part
def _share(program, i, member, members):
    """(first, last + 1) of the tasks of call i that are a member's"""
    tasks = program[i, 2]
    return (tasks * member + members - 1) // members, (tasks * (member + 1) + members - 1) // members


@part
def _is_uneven(program, i, members):
    return program[i, 2] == members and program[i, 3] >= GRAINS * members


@part
def _do(program, i, first, last, board, member, members):
    """Does a member's tasks of call i."""
    if _is_uneven(program, i, members):
        started = ticks()
        call_entry(program[i, 0], program[i, 1], shared_load(board, member * ROW + TASK), program[i, 2])
        shared_store(board, member * ROW + TOOK, ticks() - started)
        return
    for task in range(first, last):
        call_entry(program[i, 0], program[i, 1], task, program[i, 2])


@part
def _cut(board, members):
    """Gives each member a task, of a size like its speed."""
    total, before, begin = 0, 0, 0
    for member in range(members):
        total += shared_load(board, member * ROW + SPEED)
    for member in range(members):
        before += shared_load(board, member * ROW + SPEED)
        end = (before * WHOLE + total // 2) // total
        shared_store(board, member * ROW + TASK, with_share(member, begin, end))
        begin = end


@part
def _learn(board, members, grains, speeds):
    """Brings the speeds nearer to what a call of so many grains showed, and cuts anew. (Numba compiles `min` and `max`
    as functions of their own.)"""
    total, longest = 0.0, 0
    for member in range(members):
        took = shared_load(board, member * ROW + TOOK)
        if took <= 0:
            return
        total += _grains_of(board, member, grains) / took
        longest = took if took > longest else longest
    for member in range(members):
        seen = _grains_of(board, member, grains) / shared_load(board, member * ROW + TOOK) * members / total
        before = shared_load(board, member * ROW + SPEED) / ONE
        seen = before + (seen - before) * longest / (longest + SETTLE)
        seen = SLOWEST if seen < SLOWEST else FASTEST if seen > FASTEST else seen
        shared_store(board, member * ROW + SPEED, int(seen * ONE))
        put_real_at(speeds, member, seen)
    _cut(board, members)


@part
def _grains_of(board, member, grains):
    """How many grains a member's share has, as `span` counts them."""
    begin, end = share_of(shared_load(board, member * ROW + TASK))
    return cut_at(grains, end) - cut_at(grains, begin)


@part
def _lead(program, rounds, board, members, speeds):
    for member in range(members):            # its own: leaders of other programs write to `speeds` meanwhile
        shared_store(board, member * ROW + SPEED, int(real_at(speeds, member) * ONE))
    _cut(board, members)
    for step in range(rounds * program.shape[0]):
        i, together = step % program.shape[0], True
        if program[i, 2] > 1:
            shared_store(board, CLAIMED, step + 1)
        for member in range(members):
            first, last = _share(program, i, member, members)
            if first == last:
                continue
            before, looks = shared_load(board, member * ROW + CLAIMED), 0
            if member == 0 or (before <= step and claimed(board, member * ROW + CLAIMED, before, step + 1)):
                together = together and member == 0
                _do(program, i, first, last, board, member, members)
            else:
                while shared_load(board, member * ROW + DONE) <= step:
                    looks = _wait(looks)
        if together and _is_uneven(program, i, members):
            _learn(board, members, program[i, 3], speeds)
    shared_store(board, CLAIMED, OVER)


@part
def _follow(program, board, member, members):
    seen, looks = 0, 0
    while True:
        now = shared_load(board, CLAIMED)
        if now == OVER:
            return
        if now == seen:
            looks = _wait(looks)
            continue
        seen, looks, i = now, 0, (now - 1) % program.shape[0]
        before = shared_load(board, member * ROW + CLAIMED)
        if before < now and claimed(board, member * ROW + CLAIMED, before, now):
            first, last = _share(program, i, member, members)
            _do(program, i, first, last, board, member, members)
            shared_store(board, member * ROW + DONE, now)


@part
def _work(member, program, rounds, board, members, speeds):
    if member == 0:
        _lead(program, rounds, board, members, speeds)
    else:
        _follow(program, board, member, members)


@part
def _clear(board, members):
    for member in range(members):
        board[member * ROW + CLAIMED] = board[member * ROW + DONE] = 0


def run_on_openmp(program, rounds, members, speeds):
    """As `run_serial`, with the tasks of a call spread over a team of so many threads. `speeds`: the address of
    float64, how fast each member was lately, about 1 (an array more would take Numba half a second)."""
    board = np.empty(members * ROW, np.int64)
    _clear(board, members)
    on_threads(_work, members, (program, rounds, board, members, speeds))


def run_parallel(program, rounds, members, speeds):
    """As `run_on_openmp`, with any threading layer of numba's."""
    board = np.empty(members * ROW, np.int64)
    _clear(board, members)
    use_threads(members)
    for member in prange(members):
        _work(member, program, rounds, board, members, speeds)
