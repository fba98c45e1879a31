"""The judge of memory accesses: inside its array, aligned, initialised, free of races. Compiled by Numba, called from
instrumented kernels, from the scheduler (ldmatrix) and from completed cp.async copies.

**Races** are found as in FastTrack (Flanagan, Freund, PLDI 2009): a cell for each element remembers its last write and
its last read. Two accesses of one block are ordered by a barrier between them (epoch), or by a syncwarp when they are
of one warp (warp epoch). Two blocks are ordered only by a fence and an atomic in the first and, after it, an atomic in
the second (the pattern of "the last block sums up"); blocks run one after another while races are looked for.
"""
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from engine.kernels.emulator.records import *  # codes and places, all constants


def _pointer_to(item):
    """An intrinsic: the pointer to `item`s at an address."""
    @intrinsic
    def pointer(tyctx, address):
        def codegen(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))
        return types.CPointer(item)(types.int64), codegen
    return pointer


@intrinsic
def load_byte(tyctx, address):
    """The byte at an address."""
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        return builder.zext(builder.load(pointer), ir.IntType(64))
    return types.int64(types.int64), codegen


@intrinsic
def store_byte(tyctx, address, value):
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        builder.store(builder.trunc(arguments[1], ir.IntType(8)), pointer)
        return context.get_dummy_value()
    return types.void(types.int64, types.int64), codegen


_WORD = types.int64
# The judge by its address: so what calls it need not compile it once more. `schedule.provide` makes the name known.
check = types.ExternalFunction("emu_check", _WORD(*[_WORD] * 6))
bytes_at, ints_at, words_at = _pointer_to(types.uint8), _pointer_to(types.int32), _pointer_to(types.int64)


@njit(inline="always", error_model="numpy")
def access(size, kind, line):
    """An access in one word, as the judge takes it."""
    return size | kind << KIND_AT | line << LINE_AT


@njit(inline="always", error_model="numpy")
def fail(env, code, address, size, kind, what, line):
    """Records the first error of this worker."""
    if env[ERROR] == 0:
        env[ERROR], env[BY_THREAD], env[WHAT], env[ADDRESS] = code, env[CURRENT], what, address
        env[BYTES], env[KIND], env[LINE] = size, kind, line


@njit(error_model="numpy")
def unordered(env, thread, epoch, warp_epoch, many, block, clock, is_global):
    """Whether nothing orders an earlier access, as a cell has it, before the current one."""
    if epoch == 0:
        return False
    me = env[CURRENT]
    if epoch == env[EPOCH]:
        if many == 2:                                    # threads of several warps: one of them is not this one's
            return True
        if thread == me and many == 0:
            return False
        return not (thread >> 5 == me >> 5 and warp_epoch != env[WARP_EPOCH])
    if not is_global or epoch >= env[FIRST_EPOCH]:       # before a barrier; shared memory of another block is other
        return False
    return foreign(env, block, clock)


@njit(error_model="numpy")
def foreign(env, block, clock):
    """Whether no release of `block` after `clock` was acquired by the current block."""
    released = carray(ints_at(env[RELEASES]), (block + 1,))[block]
    return not clock < released <= env[ACQUIRED]


@njit(error_model="numpy")
def race(env, cell, kind, is_global):
    """Whether this access to one element races with an earlier one; then enters it."""
    found = False
    both_atomic = kind == ATOMIC and cell[W_ATOMIC] == 1
    write_block, write_clock = (cell[W_BLOCK], cell[W_CLOCK]) if is_global else (0, 0)
    if not both_atomic and unordered(env, cell[W_THREAD], cell[W_EPOCH], cell[W_WARP], 0, write_block, write_clock,
                                     is_global):
        found = True
        env[OTHER_THREAD], env[OTHER_BLOCK], env[OTHER_KIND] = cell[W_THREAD], write_block, WRITE
    read_block, read_clock = (cell[L_BLOCK], cell[L_CLOCK]) if is_global else (0, 0)
    if kind != READ and not found:
        if unordered(env, cell[L_THREAD], cell[L_EPOCH], cell[L_WARP], cell[L_MANY], read_block, read_clock,
                     is_global):
            found = True
            env[OTHER_THREAD], env[OTHER_BLOCK], env[OTHER_KIND] = cell[L_THREAD], read_block, READ
        elif is_global and cell[F_BLOCK] and foreign(env, cell[F_BLOCK] - 1, cell[F_CLOCK]):
            found = True
            env[OTHER_THREAD], env[OTHER_BLOCK], env[OTHER_KIND] = cell[F_THREAD], cell[F_BLOCK] - 1, READ
    if kind == READ:
        enter_read(env, cell, is_global)
    else:
        cell[W_THREAD], cell[W_EPOCH], cell[W_WARP] = env[CURRENT], env[EPOCH], env[WARP_EPOCH]
        cell[W_ATOMIC] = kind == ATOMIC
        if is_global:
            cell[W_BLOCK], cell[W_CLOCK] = env[BLOCK], env[CLOCK]
    return found


@njit(error_model="numpy")
def enter_read(env, cell, is_global):
    """Enters a read: the last one, and whether one thread, one warp or several warps have read in this epoch."""
    me = env[CURRENT]
    if cell[L_EPOCH] == env[EPOCH]:
        if cell[L_THREAD] != me and cell[L_MANY] < 2:
            cell[L_MANY] = 1 if cell[L_THREAD] >> 5 == me >> 5 else 2
    else:
        if is_global and 0 < cell[L_EPOCH] < env[FIRST_EPOCH]:
            cell[F_BLOCK], cell[F_THREAD], cell[F_CLOCK] = cell[L_BLOCK] + 1, cell[L_THREAD], cell[L_CLOCK]
        cell[L_MANY] = 0
    cell[L_THREAD], cell[L_EPOCH], cell[L_WARP] = me, env[EPOCH], env[WARP_EPOCH]
    if is_global:
        cell[L_BLOCK], cell[L_CLOCK] = env[BLOCK], env[CLOCK]


@njit(inline="always", error_model="numpy")
def enter(env, cell, kind, is_global):
    """Enters an access where nothing unordered can be: whether so. Else the judge has to look, at the element as it was
    or, where it was entered already, once more, which changes nothing.

    `env` and `cell` are pointers here, for speed.
    """
    me, epoch, oldest = env[CURRENT], env[EPOCH], env[FIRST_EPOCH]
    written, looked = cell[W_EPOCH], cell[L_EPOCH]
    if written == epoch:
        if cell[W_THREAD] != me:
            return False
    elif is_global and 0 < written < oldest:             # by another block
        return False
    if looked != epoch and is_global and 0 < looked < oldest:
        return False
    if kind == READ:
        if looked != epoch:
            cell[L_MANY] = 0
        elif cell[L_THREAD] != me and cell[L_MANY] < 2:
            cell[L_MANY] = 1 if cell[L_THREAD] >> 5 == me >> 5 else 2
        cell[L_THREAD], cell[L_EPOCH], cell[L_WARP] = me, epoch, env[WARP_EPOCH]
        if is_global:
            cell[L_BLOCK], cell[L_CLOCK] = env[BLOCK], env[CLOCK]
        return True
    if looked == epoch and not (cell[L_THREAD] == me and cell[L_MANY] == 0) or is_global and cell[F_BLOCK]:
        return False
    cell[W_THREAD], cell[W_EPOCH], cell[W_WARP], cell[W_ATOMIC] = me, epoch, env[WARP_EPOCH], 0
    if is_global:
        cell[W_BLOCK], cell[W_CLOCK] = env[BLOCK], env[CLOCK]
    return True


@njit(error_model="numpy")
def released_and_acquired(env):
    """An atomic in global memory: after a fence it publishes what this block did; it sees what others published."""
    if env[FENCED]:
        env[CLOCK] += 1
        carray(ints_at(env[RELEASES]), (env[BLOCK] + 1,))[env[BLOCK]] = env[CLOCK]
    env[ACQUIRED] = env[CLOCK]


@njit(error_model="numpy")
def range_of(env, address, size, what):
    """The env word of the range that holds the access, or -1."""
    arrays = env[SHARED_ARRAYS]
    if what >= 0:
        first, last = arrays + what, arrays + what + 1
    elif what == UNKNOWN or what == ANY_SHARED:
        first, last = 0, arrays + (env[BUFFERS] if what == UNKNOWN else 0)
    else:
        first, last = SHARED - what, SHARED - what + 1
        if last > arrays:
            return -1
    for number in range(first, last):
        at = RANGES + RANGE_WORDS * number
        if env[at + R_ADDRESS] <= address and address + size <= env[at + R_ADDRESS] + env[at + R_BYTES]:
            return at
    return -1


@njit(error_model="numpy")
def state_of(env, at, address, size, kind):
    """0, or the error of an access to shared memory: not yet written, or a copy to it is under way."""
    shift = env[at + R_SHIFT]
    first = (address - env[at + R_ADDRESS]) >> shift
    last = (address + size - 1 - env[at + R_ADDRESS]) >> shift
    states = env[at + R_STATE]
    for place in range(states + first, states + last + 1):
        state = load_byte(place)
        if state & IN_FLIGHT:
            return PENDING
        if kind == WRITE:
            store_byte(place, INITIALISED)
        elif state == 0:
            return UNINITIALISED
    return 0


@njit(error_model="numpy")
def name_of(env, at, what):
    """What the range at env word `at` is: an argument word, or SHARED - k."""
    if what != UNKNOWN and what != ANY_SHARED:
        return what
    number = (at - RANGES) // RANGE_WORDS
    return number - env[SHARED_ARRAYS] if number >= env[SHARED_ARRAYS] else SHARED - number


@njit(error_model="numpy")
def judge(env, address, size, kind, what, line, base, limit):
    """Judges one access and gives back the address to use: its own, or a scratch place when it was wrong."""
    if what <= PRIVATE:
        if base <= address and address + size <= base + limit:
            return address
        if not env[ERROR]:
            env[OTHER_KIND], env[OTHER_THREAD] = base, limit     # for the report
        fail(env, OUTSIDE_PRIVATE, address, size, kind, what, line)
        return env[SCRATCH]
    at = range_of(env, address, size, what)
    if env[ERROR] and at >= 0:                           # only the first error counts
        return address
    if at < 0:
        fail(env, OUTSIDE if what >= UNKNOWN else OUTSIDE_SHARED, address, size, kind, what, line)
        return env[SCRATCH]
    is_global = at >= RANGES + RANGE_WORDS * env[SHARED_ARRAYS]
    if size & (size - 1) == 0 and ((address - env[at + R_ORIGIN]) & (size - 1) or size > env[at + R_ALIGNMENT]):
        fail(env, MISALIGNED, address, size, kind, name_of(env, at, what), line)
        return env[SCRATCH]
    if env[at + R_STATE]:
        wrong = state_of(env, at, address, size, kind)
        if wrong:
            fail(env, wrong, address, size, kind, name_of(env, at, what), line)
            return address
    if is_global and kind == ATOMIC and env[RACE]:
        released_and_acquired(env)
    if env[at + R_CELLS] and races(env, at, address, size, kind, is_global):
        fail(env, RACED, address, size, kind, name_of(env, at, what), line)
    return address


@njit(error_model="numpy")
def races(env, at, address, size, kind, is_global):
    words = GLOBAL_CELL if is_global else SHARED_CELL
    shift = env[at + R_SHIFT]
    first = (address - env[at + R_ADDRESS]) >> shift
    last = (address + size - 1 - env[at + R_ADDRESS]) >> shift
    cells = carray(ints_at(env[at + R_CELLS]), ((last + 1) * words,))
    found = False
    for place in range(first, last + 1):
        found = race(env, cells[place * words:(place + 1) * words], kind, is_global) or found
        if found:
            break
    return found


# ------------------------------------------------------------------------------------------------------------ cp.async

@njit(error_model="numpy")
def async_copy(env, to, source, size, read, line):
    """cp.async: joins the thread's queue; the bytes arrive when the thread waits for their group."""
    queue = carray(words_at(env[QUEUE] + env[CURRENT] * Q_WORDS * 8), (Q_WORDS,))
    if queue[Q_COUNT] == Q_ENTRIES:
        fail(env, QUEUE_FULL, to, size, WRITE, UNKNOWN, line)
        return
    if env[CHECK]:
        if read:
            check(source, access(read, READ, line), UNKNOWN, env[SELF], 0, 0)
        at = range_of(env, to, size, UNKNOWN)
        if at < 0 or (at - RANGES) // RANGE_WORDS >= env[SHARED_ARRAYS]:
            fail(env, OUTSIDE_SHARED, to, size, WRITE, ANY_SHARED, line)
            return
        if (to - env[at + R_ORIGIN]) & (size - 1) or size > env[at + R_ALIGNMENT]:
            fail(env, MISALIGNED, to, size, WRITE, SHARED - (at - RANGES) // RANGE_WORDS, line)
        if env[ERROR]:
            return
        mark(env, at, to, size, IN_FLIGHT)
    entry = queue[Q_HEAD + Q_ENTRY * queue[Q_COUNT]:]
    entry[0], entry[1], entry[2], entry[3], entry[4] = to, source, size | line << 8, read, queue[Q_GROUP]
    queue[Q_COUNT] += 1


@njit(error_model="numpy")
def mark(env, at, address, size, value):
    shift = env[at + R_SHIFT]
    first = (address - env[at + R_ADDRESS]) >> shift
    last = (address + size - 1 - env[at + R_ADDRESS]) >> shift
    for place in range(first, last + 1):
        store_byte(env[at + R_STATE] + place, value)


@njit(error_model="numpy")
def async_wait(env, left):
    """cp.async.wait_group left (-1: wait_all): completes all but the last `left` committed groups, in order."""
    queue = carray(words_at(env[QUEUE] + env[CURRENT] * Q_WORDS * 8), (Q_WORDS,))
    before = queue[Q_GROUP] + 1 if left < 0 else queue[Q_GROUP] - left
    done = 0
    while done < queue[Q_COUNT] and queue[Q_HEAD + Q_ENTRY * done + 4] < before:
        entry = queue[Q_HEAD + Q_ENTRY * done:]
        complete(env, entry[0], entry[1], entry[2] & 255, entry[3], entry[2] >> 8)
        done += 1
    if done:
        queue[Q_COUNT] -= done
        for word in range(Q_ENTRY * queue[Q_COUNT]):
            queue[Q_HEAD + word] = queue[Q_HEAD + Q_ENTRY * done + word]


@njit(error_model="numpy")
def complete(env, to, source, size, read, line):
    """The bytes of one copy arrive: a write of the thread that waited."""
    target, given = carray(bytes_at(to), (size,)), carray(bytes_at(source), (read,))
    if env[CHECK]:
        at = range_of(env, to, size, UNKNOWN)
        mark(env, at, to, size, 0)
        check(to, access(size, WRITE, line), UNKNOWN, env[SELF], 0, 0)
    for place in range(size):
        target[place] = given[place] if place < read else 0


@njit(error_model="numpy")
def async_commit(env):
    """cp.async.commit_group: what was copied since the last one is a group."""
    carray(words_at(env[QUEUE] + env[CURRENT] * Q_WORDS * 8), (Q_WORDS,))[Q_GROUP] += 1
