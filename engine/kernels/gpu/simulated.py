"""The words in the simulator, where each CUDA thread is a Python thread (see words.py for what they mean).

They check what hardware would not forgive: a place that is no multiple of four, or outside the array.
"""
import sys
import threading

import numpy as np
from numba.np.numpy_support import as_dtype

SECONDS = 60                                 # that a lane waits for the others of its warp
WARP = 32
_guard = threading.Lock()


def _of_block(name, make):
    """What all threads of the running block share under a name."""
    manager = threading.current_thread()._manager
    with _guard:
        held = manager.__dict__.setdefault("engine_words", {})
        if name not in held:
            held[name] = make()
        return held[name]


def values_of(array):
    """The NumPy array behind what a kernel sees, flat."""
    for layer in ("_item", "_ary"):
        array = array.__dict__.get(layer, array) if hasattr(array, "__dict__") else array
    return array.reshape(-1)


def shared_array(size, dtype):
    caller = sys._getframe(1)
    dtype = np.dtype(dtype) if isinstance(dtype, (np.dtype, type)) else as_dtype(dtype)
    return _of_block((caller.f_code, caller.f_lasti), lambda: np.full(size, np.nan if dtype.kind == "f" else 0, dtype))


def _four(array, at):
    flat = values_of(array)
    if at % 4 or not 0 <= at <= flat.size - 4:
        raise IndexError(f"expected a place for four values (a multiple of 4 up to {flat.size - 4}), got {at}")
    return flat


def load4(x, at):
    return tuple(_four(x, at)[at:at + 4])


def store4(x, at, a, b, c, d):
    _four(x, at)[at:at + 4] = a, b, c, d


def load1(x, at):
    return values_of(x)[_inside(x, at)]


def store1(x, at, value):
    values_of(x)[_inside(x, at)] = value


def _inside(array, at):
    size = values_of(array).size
    if not 0 <= at < size:
        raise IndexError(f"expected a place from 0 to {size - 1}, got {at}")
    return at


def is_aligned(x):
    return True


class _Meeting:
    """Where the lanes of one warp meet: each brings a value and takes what is computed from all."""

    def __init__(self, lanes):
        self.brought, self.taken = [None] * lanes, None
        self.barrier = threading.Barrier(lanes)


def together(compute, value):
    """What `compute` makes of the values of all lanes of a warp, for this lane: it gives one answer for each."""
    thread = threading.current_thread()
    number = thread.thread_id
    lanes = min(WARP, int(np.prod(thread._manager._block_dim)) - number // WARP * WARP)
    meeting = _of_block(("warp", number // WARP), lambda: _Meeting(lanes))
    meeting.brought[number % WARP] = value
    if meeting.barrier.wait(SECONDS) == 0:
        meeting.taken = compute(meeting.brought)
    meeting.barrier.wait(SECONDS)
    return meeting.taken[number % WARP]


def shuffle_xor(value, distance):
    return together(lambda values: [values[k ^ distance] for k in range(len(values))], value)


def _butterfly(combine):
    def compute(values):
        for bit in (16, 8, 4, 2, 1):
            values = [combine(v, values[k ^ bit]) for k, v in enumerate(values)]
        return values
    return compute


def warp_sum(value):
    return together(_butterfly(lambda a, b: a + b), value)


def warp_max(value):
    return together(_butterfly(lambda a, b: b if b > a or a != a else a), value)


def thread_anew():
    return int(threading.current_thread().threadIdx.x)


def block_anew():
    return int(threading.current_thread().blockIdx.x)


def block_z_anew():
    return int(threading.current_thread().blockIdx.z)


def bits_of(x):
    return np.float32(x).view(np.uint32)


def float_of(bits):
    return np.uint32(bits).view(np.float32)


def copy_async(kept, at, x, place):
    to, source = values_of(kept), values_of(x)
    count = 16 // source.itemsize
    if at % count or place % count:
        raise IndexError(f"expected places that are multiples of {count}, got {at} and {place}")
    _inside(kept, at + count - 1), _inside(x, place + count - 1)
    to[at:at + count] = source[place:place + count]


def copy_commit():
    pass


def copy_wait(groups):
    pass


def _matrices(turned):
    """Answers of ldmatrix from the rows that the lanes point at."""
    def compute(rows):
        answers = [[0] * 4 for _ in rows]
        for k in range(4):
            matrix = np.array(rows[8 * k:8 * k + 8])
            words = np.ascontiguousarray(matrix.T if turned else matrix).view(np.int32)
            for lane in range(WARP):
                answers[lane][k] = words[lane >> 2, lane & 3]
        return answers
    return compute


def ldmatrix(kept, at):
    return tuple(together(_matrices(False), values_of(kept)[at:at + 8].copy()))


def ldmatrix_turned(kept, at):
    return tuple(together(_matrices(True), values_of(kept)[at:at + 8].copy()))


def _pair(word, brief):
    """The two halves of a 32-bit register."""
    halves = np.array([word], np.int32).view(np.uint16)
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32) if brief else halves.view(np.float16)


def _products(brief):
    """Answers of mma.sync m16n8k16 from the fragments of all lanes."""
    def compute(fragments):
        a, b, c = (np.zeros(shape, np.float32) for shape in ((16, 16), (16, 8), (16, 8)))
        places = [(lane >> 2, 2 * (lane & 3)) for lane in range(WARP)]
        for (g, q), f in zip(places, fragments):
            c[g, q:q + 2], c[g + 8, q:q + 2] = f[:2], f[2:4]
            a[g, q:q + 2], a[g + 8, q:q + 2] = _pair(f[4], brief), _pair(f[5], brief)
            a[g, q + 8:q + 10], a[g + 8, q + 8:q + 10] = _pair(f[6], brief), _pair(f[7], brief)
            b[q:q + 2, g], b[q + 8:q + 10, g] = _pair(f[8], brief), _pair(f[9], brief)
        c += a @ b
        return [(c[g, q], c[g, q + 1], c[g + 8, q], c[g + 8, q + 1]) for g, q in places]
    return compute


def mma_float16(*fragments):
    return together(_products(False), fragments)


def mma_bfloat16(*fragments):
    return together(_products(True), fragments)
