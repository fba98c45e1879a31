"""How kernels divide their work, so that no number of tasks or threads changes a bit of the result.

Outputs that do not depend on each other are shared out by `span`. A sum over everything is cut into chunks whose size
depends on the shapes only; each chunk is summed on its own, and a second phase adds the chunks' sums in their order. On
the GPU the threads of a block add in a tree (`block_sum`).

Loops over a span count from 0 and add `first`: only then can LLVM show that no index is negative, and vectorise.

    first, count = span(x.size, task, tasks)
    for k in range(count):
        out[first + k] = f(x[first + k])
"""
from numba import float64, njit

from engine.kernels.gpu import cuda, device

CHUNK = 8192                                 # values of a chunk of a sum
LANES = 128                                  # threads of a block that adds in a tree: a power of two
SUMS = {"reassoc", "contract", "nsz"}        # lets LLVM add in vector lanes; NaN and infinity keep their meaning


def chunks(size, chunk=CHUNK):
    """How many chunks cover `size` values (at least one)."""
    return max(1, -(-size // chunk))


@njit(error_model="numpy", forceinline=True)
def span(size, task, tasks):
    """(first, count) of the share of one task in `size` things."""
    first = max(0, size * task // tasks)
    return first, size * (task + 1) // tasks - first


@device
def block_sum(value, thread):
    """The sum of `value` over a block of LANES threads, for each of them, added in one fixed order."""
    held = cuda.shared.array(LANES, float64)
    cuda.syncthreads()                       # an earlier sum has been read by all
    held[thread] = value
    cuda.syncthreads()
    half = LANES // 2
    while half > 0:
        if thread < half:
            held[thread] += held[thread + half]
        cuda.syncthreads()
        half //= 2
    return held[0]


@device
def block_max(value, thread):
    """The largest `value` of a block of LANES threads, for each of them; NaN is passed over."""
    held = cuda.shared.array(LANES, float64)
    cuda.syncthreads()
    held[thread] = value
    cuda.syncthreads()
    half = LANES // 2
    while half > 0:
        if thread < half and held[thread + half] > held[thread]:
            held[thread] = held[thread + half]
        cuda.syncthreads()
        half //= 2
    return held[0]
