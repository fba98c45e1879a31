"""How kernels divide their work, so that no number of tasks or threads changes a bit of the result.

Outputs that do not depend on each other are shared out by `span`. A sum over everything is cut into chunks whose size
depends on the shapes only; each chunk is summed on its own, and a second phase adds the chunks' sums in their order. On
the GPU the threads of a block add in a fixed order (`block_sum`), whose shape is that of the block alone.

Loops over a span count from 0 and add `first`: only then can LLVM show that no index is negative, and vectorise.

    first, count = span(x.size, task, tasks)
    for k in range(count):
        out[first + k] = f(x[first + k])
"""
import math

from numba import float64, int32

from engine.kernels.gpu import (
    cuda,
    device,
    kernel,
    load1,
    load4,
    starts_aligned,
    store1,
    store4,
    warp_max,
    warp_sum,
)
from engine.kernels.shares import number_of, place_of, span  # noqa: F401 (kernels find here how work is divided)

CHUNK = 8192                                 # values of a chunk of a sum
LANES = 128                                  # threads of a block that adds together
WARP, WARPS = 32, 32                         # threads of a warp, and warps of a block at most
SUMS = {"reassoc", "contract", "nsz"}        # lets LLVM add in vector lanes; NaN and infinity keep their meaning


def chunks(size, chunk=CHUNK):
    """How many chunks cover `size` values (at least one)."""
    return max(1, -(-size // chunk))


def row_threads(size):
    """Threads of a block that share a row of `size` values: one warp, or more where it is long."""
    return WARP if size <= 512 else 4 * WARP if size <= 4096 else 8 * WARP


def line_shape(size, width):
    """(threads that share a line, values of it that each holds in registers, lines of a block) for lines of `size`
    values of `width` bytes, those of all arrays that are held: a warp for a short line, a block for a long one; no
    values where a line is too long."""
    most = 64 // width
    for threads in (WARP, 8 * WARP, 16 * WARP):
        if size <= threads * most:
            return threads, 1 << max(0, -(-size // threads) - 1).bit_length(), 4 if threads == WARP else 1
    return 8 * WARP, 0, 1


def rows_of_chunk(width):
    """Rows of a chunk of a sum over rows of so many values: it stays in the cache for a second look."""
    return min(256, max(16, 2 * CHUNK // max(1, width)))


# min and max of numba's built-in CUDA do not compile (0.68): kernels use these.


@device
def least(a, b):
    """The smaller of two whole numbers."""
    return a if a < b else b


@device
def greatest(a, b):
    """The larger of two whole numbers."""
    return a if a > b else b


# Device functions may reach each other on several paths only if none of them owns shared memory (its definition would
# be linked twice): so these two get it from the kernel. All threads along x must call them, whole warps of them; where
# a block has more than one row of threads (along y), a row must be a warp.


@device
def shared_sum(held, value, thread):
    """The sum of `value` over the threads of a block along x, the same bits for each of them; held: a shared array of
    one value a warp, whose dtype is that of the sum. Warps add by shuffles, then every thread adds the warps' sums in
    their order."""
    total = warp_sum(held.dtype.type(value))
    if cuda.blockDim.x > WARP:
        cuda.syncthreads()                   # an earlier sum has been read by all
        if thread % WARP == 0:
            held[thread // WARP] = total
        cuda.syncthreads()
        total = held[0]
        for k in range(1, cuda.blockDim.x // WARP):
            total += held[k]
    return total


@device
def shared_max(held, value, thread):
    """The largest `value` of the threads of a block along x, for each of them; NaN is passed over."""
    top = warp_max(held.dtype.type(value))
    if cuda.blockDim.x > WARP:
        cuda.syncthreads()
        if thread % WARP == 0:
            held[thread // WARP] = top
        cuda.syncthreads()
        top = held[0]
        for k in range(1, cuda.blockDim.x // WARP):
            top = held[k] if held[k] > top or top != top else top
    return top


@device
def load_line(x, begin, step, size, thread, threads, beyond, held):
    """A thread's values of a line, `step` apart from flat place `begin` on, into `held` (`beyond` past the line's end);
    gives the largest."""
    past, top = x.dtype.type(beyond), x.dtype.type(-math.inf)
    for k in range(held.size):
        j = int32(thread + k * threads)
        v = load1(x, begin + j * step) if j < size else past
        held[k] = v
        top = v if v > top else top
    return top


@device
def load_fours(x, begin, size, thread, threads, beyond, held):
    """`load_line` of a line that is made of whole fours, each a thread's."""
    past, top = x.dtype.type(beyond), x.dtype.type(-math.inf)
    for k in range(held.size // 4):
        j = int32(4 * (thread + k * threads))
        a, b, c, d = load4(x, begin + j) if j < size else (past, past, past, past)
        held[4 * k], held[4 * k + 1], held[4 * k + 2], held[4 * k + 3] = a, b, c, d
        top = a if a > top else top          # one by one: NaN is passed over
        top = b if b > top else top
        top = c if c > top else top
        top = d if d > top else top
    return top


@device
def store_fours(y, begin, size, thread, threads, held):
    """Writes what a thread holds to where `load_fours` has it from."""
    for k in range(held.size // 4):
        j = int32(4 * (thread + k * threads))
        if j < size:
            store4(y, begin + j, held[4 * k], held[4 * k + 1], held[4 * k + 2], held[4 * k + 3])


@device
def store_line(y, begin, step, size, thread, threads, held):
    """Writes what a thread holds to where `load_line` has it from."""
    for k in range(held.size):
        j = int32(thread + k * threads)
        if j < size:
            store1(y, begin + j * step, held[k])


def in_fours(size, row_step, values, *arrays):
    """Whether each thread can take its values four neighbours at a time."""
    return bool(row_step == 1 and size % 4 == 0 and values % 4 == 0 and all(map(starts_aligned, arrays)))


@device
def block_sum(value, thread):
    """`shared_sum` for kernels to call, not for device functions."""
    return shared_sum(cuda.shared.array(WARPS, float64), value, thread)


@kernel
def _add_all(parts, divisor, out):
    thread, total = cuda.threadIdx.x, 0.0
    for i in range(thread, parts.size, LANES):
        total += parts[i]
    total = block_sum(total, thread)
    if thread == 0:
        out[0] = out.dtype.type(total / divisor)


def add_all_cuda(parts, divisor, out):
    """out[0] = the sum of what blocks left in `parts`, divided; one block adds in a fixed order."""
    _add_all[1, LANES](parts, float(divisor), out)
