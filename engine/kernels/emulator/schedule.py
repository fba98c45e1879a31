"""Runs blocks: every thread up to its next barrier, warp by warp, then the barrier. Compiled by Numba.

Blocks are handed out in ascending order to as many workers as there are cores; a worker runs its block to the end. All
blocks below one that failed were handed out before it, so the error that is reported is that of the lowest block,
whatever the timing was.
"""
import functools
import threading

import llvmlite.binding as llvm
import numpy as np
from numba import carray, cfunc, njit, types

from engine.kernels.emulator import access, cache, host
from engine.kernels.emulator.records import *  # codes and places, all constants
from engine.kernels.emulator.warp import operate

_HELPERS = """declare void @llvm.coro.resume(ptr)
declare void @llvm.coro.destroy(ptr)
define void @emu_resume(i64 %handle, i64 %slot, i64 %thread) {
  %s = inttoptr i64 %slot to ptr
  store i64 %thread, ptr %s
  %p = inttoptr i64 %handle to ptr
  call void @llvm.coro.resume(ptr %p)
  ret void
}
define void @emu_destroy(i64 %handle) {
  %p = inttoptr i64 %handle to ptr
  call void @llvm.coro.destroy(ptr %p)
  ret void
}
define i64 @emu_begin(i64 %function, i64 %arguments, i64 %slot, i64 %thread) {
  %s = inttoptr i64 %slot to ptr
  store i64 %thread, ptr %s
  %p = inttoptr i64 %function to ptr
  %r = call i64 %p(i64 %arguments)
  ret i64 %r
}
define i64 @emu_next(i64 %address) {
  %p = inttoptr i64 %address to ptr
  %r = atomicrmw add ptr %p, i64 1 seq_cst
  ret i64 %r
}
define void @emu_least(i64 %address, i64 %value) {
  %p = inttoptr i64 %address to ptr
  %r = atomicrmw min ptr %p, i64 %value seq_cst
  ret void
}
"""
_WORD = types.int64
resume = types.ExternalFunction("emu_resume", types.void(_WORD, _WORD, _WORD))
destroy = types.ExternalFunction("emu_destroy", types.void(_WORD))
begin = types.ExternalFunction("emu_begin", _WORD(_WORD, _WORD, _WORD, _WORD))
next_block = types.ExternalFunction("emu_next", _WORD(_WORD))
least = types.ExternalFunction("emu_least", types.void(_WORD, _WORD))


@njit
def warp_step(threads, first, last, shared, env, tables, tiles):
    """Completes the warp operations whose lanes have all arrived; whether a lane may run again."""
    again = False
    present = (1 << (last - first)) - 1
    for t in range(first, last):
        if threads[t].status != AT_WARP:
            continue
        mask, operation, ready = np.int64(threads[t].mask) & present, threads[t].operation, True
        for lane in range(last - first):
            other = threads[first + lane]
            if mask >> lane & 1 and not (other.status == AT_WARP and other.operation == operation
                                         and np.int64(other.mask) & present == mask):
                ready = False
                break
        if ready:
            operate(threads, first, mask, operation, shared, env, tables, tiles)
            if env[ERROR]:
                return False
            for lane in range(last - first):
                if mask >> lane & 1:
                    threads[first + lane].status = RUN
            again = True
    return again


@njit
def to_barrier(threads, address, slot, shared, env, tables, tiles):
    """Runs every thread of a block until it has returned or waits at a barrier."""
    count = len(threads)
    for first in range(0, count, WARP):
        last = min(count, first + WARP)
        waits = True
        while waits:
            waits = False
            for t in range(first, last):
                if threads[t].status == RUN:
                    env[CURRENT], env[WARP_EPOCH] = t, threads[t].warp_epoch
                    resume(threads[t].handle, slot, address + t * threads.itemsize)
                    if env[ERROR]:
                        return
                waits |= threads[t].status == AT_WARP
            waits = waits and warp_step(threads, first, last, shared, env, tables, tiles)
            if env[ERROR]:
                return


@njit
def meet(threads, env):
    """Judges a barrier: all threads have to be at the same one. Whether the block has ended."""
    count, done, at = len(threads), 0, -1
    for t in range(count):
        if threads[t].status == DONE:
            done += 1
        elif threads[t].status == AT_WARP:
            env[ERROR] = STUCK
        elif at < 0:
            at = t
        elif threads[t].place != threads[at].place:
            env[ERROR] = DIVERGED
    if done == count or env[ERROR]:
        return True
    if done:
        env[ERROR] = EXITED
        return True
    if threads[at].operation > BARRIER:                  # syncthreads_count, _and, _or
        votes = 0
        for t in range(count):
            votes += threads[t].given[0] != 0
        operation = threads[at].operation
        value = votes if operation == BARRIER_POPC else votes == count if operation == BARRIER_AND else votes > 0
        for t in range(count):
            threads[t].answer[0] = value
    for t in range(count):
        threads[t].status = RUN
    env[EPOCH] += 1
    return False


@njit
def run_block(threads, address, start, arguments, slot, shared, env, tables, tiles):
    for t in range(len(threads)):
        threads[t].handle = 0
        threads[t].warp_epoch = 0
    for t in range(len(threads)):
        threads[t].status = RUN
        env[CURRENT], env[WARP_EPOCH] = t, 0
        threads[t].handle = begin(start, arguments, slot, address + t * threads.itemsize)
        if env[ERROR]:
            break
    ended = env[ERROR] != 0
    while not ended:
        to_barrier(threads, address, slot, shared, env, tables, tiles)
        ended = env[ERROR] != 0 or meet(threads, env)
    for t in range(len(threads)):
        if threads[t].handle:                            # 0: a kernel without suspensions has run already
            destroy(threads[t].handle)


def run_blocks(threads, address, sizes, control, control_at, start, arguments, slot, shared, state, queues, env, tables,
               tiles):
    """One worker's share of a launch; gives the block in which an error was found, or -1.

    sizes    block's three sizes, the grid's three, blockIdx (written here), dynamic bytes
    control  the next block to hand out, the lowest block that failed; control_at: its address
    """
    total = np.int64(sizes[3]) * sizes[4] * sizes[5]
    while True:
        block = next_block(control_at)
        if block >= total or block > control[1]:
            return -1
        sizes[6], sizes[7] = block % sizes[3], block // sizes[3] % sizes[4]
        sizes[8] = block // sizes[3] // sizes[4]
        shared[:] = 0xff                                 # NaN: nobody may rely on what was there
        state[:] = 0
        queues[:, :Q_HEAD] = 0
        env[EPOCH] += 1
        env[FIRST_EPOCH], env[BLOCK], env[FENCED], env[ACQUIRED] = env[EPOCH], block, 0, 0
        run_block(threads, address, start, arguments, slot, shared, env, tables, tiles)
        if env[ERROR]:
            least(control_at + 8, block)
            return block


# ------------------------------------------------------------------------------------ compiled once, kept on the disk

_lock = threading.RLock()


@functools.cache
def _helpers():
    module = llvm.parse_assembly(host.head() + _HELPERS)
    host.optimise(module)
    engine = host.load(module)
    for name in ("emu_resume", "emu_destroy", "emu_begin", "emu_next", "emu_least"):
        llvm.add_symbol(name, engine.get_function_address(name))
    return engine


@functools.cache
def runner():
    """`run_blocks`, compiled."""
    with _lock, cache.own_cache():
        _helpers()
        provide("emu_check")
        return njit(cache=cache.can_cache(), nogil=True)(run_blocks)


_ENV = types.CPointer(_WORD)
_SIZE = RANGES + RANGE_WORDS * 4096


def _emu_check(address, given, what, env, base, limit):
    # The common case without a call: inside a local array; or in a known array, aligned, written before (shared
    # memory), nothing else going on at its elements. The judge sees the rest. Six arguments are what registers take.
    size, kind = given & (1 << KIND_AT) - 1, given >> KIND_AT & 3
    if what <= PRIVATE:
        if base <= address and address + size <= base + limit:
            return address
    elif what >= 0 or what <= SHARED:
        number = env[SHARED_ARRAYS] + what if what >= 0 else SHARED - what
        at = RANGES + RANGE_WORDS * number
        if number < env[SHARED_ARRAYS] + env[BUFFERS] and size <= env[at + R_ALIGNMENT]:
            offset = address - env[at + R_ADDRESS]
            aligned = size & (size - 1) == 0 and (address - env[at + R_ORIGIN]) & (size - 1) == 0
            if aligned and 0 <= offset <= env[at + R_BYTES] - size and not (env[RACE] and kind == ATOMIC):
                if common(env, at, offset, size, kind, what >= 0):
                    return address
    return access.judge(carray(env, (_SIZE,)), address, size, kind, what, given >> LINE_AT, base, limit)


@njit(forceinline=True, error_model="numpy")
def common(env, at, offset, size, kind, is_global):
    """Whether every element of an access was written before (shared memory), and nothing can race with it."""
    shift, states, cells = env[at + R_SHIFT], env[at + R_STATE], env[at + R_CELLS]
    first, last = offset >> shift, (offset + size - 1) >> shift
    words = GLOBAL_CELL if is_global else SHARED_CELL
    for place in range(first, last + 1):
        if states != 0 and access.load_byte(states + place) != INITIALISED:
            return False
        if cells != 0 and not access.enter(env, access.ints_at(cells + 4 * words * place), kind, is_global):
            return False
    return True


def _emu_async_copy(env, to, source, size, read, line):
    access.async_copy(carray(env, (_SIZE,)), to, source, size, read, line)


def _emu_async_commit(env):
    access.async_commit(carray(env, (_SIZE,)))


def _emu_async_wait(env, left):
    access.async_wait(carray(env, (_SIZE,)), left)


@functools.cache
def provide(name):
    """Compiles the function `name` that kernels call and makes it known to the loader."""
    function, signature = {
        "emu_check": (_emu_check, _WORD(*[_WORD] * 3, _ENV, _WORD, _WORD)),
        "emu_async_copy": (_emu_async_copy, types.void(_ENV, *[_WORD] * 5)),
        "emu_async_commit": (_emu_async_commit, types.void(_ENV)),
        "emu_async_wait": (_emu_async_wait, types.void(_ENV, _WORD)),
    }[name]
    if name != "emu_check":
        provide("emu_check")                             # cp.async is judged by it
    with _lock, cache.own_cache():
        made = cfunc(signature, cache=cache.can_cache(), forceinline=True)(function)
    llvm.add_symbol(name, made.address)
    return made
