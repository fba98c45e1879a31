"""The memory that the emulator's parts share: thread records, the words of a worker's environment, codes of operations
and of errors.

A **worker** runs blocks one after another on one core. It has one THREAD record for each CUDA thread of a block and one
environment, an int64 array, which the scheduler, the checks inside kernels and the error report read and write.
"""
import numpy as np

# What a thread does next.
RUN, AT_BARRIER, AT_WARP, DONE = range(4)

THREAD = np.dtype([
    ("handle", "i8"),                        # its coroutine; 0 when the kernel needs none
    ("index", "i4", 3),                      # threadIdx
    ("lane", "i4"),
    ("status", "i4"),
    ("place", "i4"),                         # where it is suspended: number of the suspension << 16 | source line
    ("operation", "i4"),
    ("mask", "u4"),                          # lanes that take part in a warp operation
    ("given", "i4", 12),                     # what the operation takes from this lane
    ("answer", "i4", 4),                     # what it gives back
    ("warp_epoch", "i4"),                    # syncwarps passed
], align=True)
OFFSET = {name: field[1] for name, field in THREAD.fields.items()}

# Operations of a warp (all lanes of the mask meet) and, from BARRIER on, of a block.
SHUFFLE = 0                                  # + 0 idx, 1 up, 2 down, 3 bfly
VOTE = 4                                     # + 0 all, 1 any, 2 uniform, 3 ballot
SYNCWARP, MATCH_ANY, MATCH_ALL = 8, 9, 10
LDMATRIX = 16                                # + 2 * log2(matrices) + transposed
MMA = 24                                     # + the index in MMA_KINDS
BARRIER, BARRIER_POPC, BARRIER_AND, BARRIER_OR = 64, 65, 66, 67
MMA_KINDS = ("m16n8k16.f16", "m16n8k16.bf16", "m16n8k8.f16", "m16n8k8.bf16", "m16n8k8.tf32", "m16n8k4.tf32")

# Words of the environment.
(ERROR, BY_THREAD, WHAT, ADDRESS, BYTES, KIND, LINE, OTHER_THREAD, OTHER_BLOCK, OTHER_KIND, CURRENT, EPOCH, FIRST_EPOCH,
 WARP_EPOCH, BLOCK, SCRATCH, SHARED_BASE, CHECK, RACE, SHARED_ARRAYS, BUFFERS, QUEUE, FENCED, CLOCK, ACQUIRED,
 RELEASES, SELF, RANGES) = range(28)

# From word RANGES on, a record for each shared array and then for each word of the kernel's arguments.
(R_ADDRESS, R_BYTES, R_ORIGIN, R_ALIGNMENT, R_SHIFT, R_STATE, R_CELLS) = range(7)
RANGE_WORDS = 7

# Kinds of access. An access in one word: its bytes, its kind << KIND_AT, its line << LINE_AT.
READ, WRITE, ATOMIC = range(3)
KIND_AT, LINE_AT = 32, 34

# What a pointer is known to point into: an argument word (>= 0), or one of these, counting down from there.
UNKNOWN = -1
ANY_SHARED = -2
SHARED = -10                                 # SHARED - k: shared array k
PRIVATE = -100_000                           # PRIVATE - k: local or constant array k

# Errors.
(OUTSIDE, OUTSIDE_SHARED, OUTSIDE_PRIVATE, MISALIGNED, RACED, UNINITIALISED, PENDING, DIVERGED, EXITED, STUCK,
 QUEUE_FULL) = range(1, 12)

# R_SHIFT: log2 of the bytes of a granule, an element or an even part of it.

# State of a granule of shared memory.
INITIALISED, IN_FLIGHT = 1, 2

# A race cell: the last write, the last read, and (global memory only) the last read by another block.
(W_THREAD, W_EPOCH, W_WARP, W_ATOMIC, L_THREAD, L_EPOCH, L_WARP, L_MANY, W_BLOCK, W_CLOCK, L_BLOCK, L_CLOCK, F_BLOCK,
 F_THREAD, F_CLOCK) = range(15)
SHARED_CELL, GLOBAL_CELL = 8, 16             # int32 words of a cell

# A thread's queue of cp.async copies: words of its head, of an entry, and how many entries.
Q_COUNT, Q_GROUP, Q_HEAD = 0, 1, 2
Q_ENTRY, Q_ENTRIES = 5, 256                  # destination, source, bytes, bytes read (the rest is zeros), group
Q_WORDS = Q_HEAD + Q_ENTRY * Q_ENTRIES

WARP = 32
LARGEST_BLOCK = 1024
STATIC_SHARED_LIMIT = 49152                  # ptxas refuses more
SHARED_LIMIT = 232448                        # 227 KiB: the largest shared memory of a block (compute capability 9.0)
