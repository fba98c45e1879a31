"""What every word of `engine.kernels.simd` means, in plain Python: used with NUMBA_DISABLE_JIT=1.

The same kernels then run on NumPy values, slowly, and a read or write outside an array is an IndexError that names
the place. Sums are rounded after each operation (no fused multiply-add).
"""
import numpy as np

from engine.kernels.simd.host import HEIGHTS, SIDE_BY_SIDE, VECTOR_BYTES, WORDS, lanes


class Pointer:
    """An array's values as one flat row, and a place in it. Only `p[n]` has to be inside the array."""

    def __init__(self, flat, offset):
        self.flat, self.offset = flat, offset

    @property
    def dtype(self):
        return self.flat.dtype

    def __add__(self, n):
        return Pointer(self.flat, self.offset + int(n))

    def _place(self, n):
        place = self.offset + int(n)
        if not 0 <= place < self.flat.size:
            raise IndexError(f"pointer: element {place} of an array of {self.flat.size}")
        return place

    def __getitem__(self, n):
        return self.flat[self._place(n)]

    def __setitem__(self, n, value):
        self.flat[self._place(n)] = value


class Tile:
    """rows x columns values; never changed in place."""

    def __init__(self, values, vectors):
        self.values, self.vectors = values, vectors

    @property
    def dtype(self):
        return self.values.dtype

    def like(self, values):
        return Tile(np.asarray(values, self.dtype), self.vectors)

    def __add__(self, other):
        return self.like(self.values + other.values)

    def __sub__(self, other):
        return self.like(self.values - other.values)

    def __xor__(self, other):
        return self.like(self.values ^ other.values)

    def __mul__(self, other):
        return self.like(self.values * other.values)

    def __truediv__(self, other):
        with np.errstate(all="ignore"):
            return self.like(self.values / other.values)


def flattened(array):
    return array.reshape(-1)


def pointer(array):
    return Pointer(array.reshape(-1), 0)


def lanes_of(like):
    return lanes(like.dtype)


def tile(rows, vectors, like):
    return Tile(np.zeros((rows, vectors * lanes_of(like)), like.dtype), vectors)


def square_tile(like):
    return tile(lanes_of(like), 1, like)


def broadcast(like, x):
    return like.like(np.full_like(like.values, x))


def tile_load(like, p, ld, columns=None):
    out = np.zeros_like(like.values)
    for i, row in enumerate(out):
        for j in range(_width(like, columns)):
            row[j] = p[i * ld + j]
    return like.like(out)


def tile_store(acc, p, ld, columns=None):
    for i, row in enumerate(acc.values):
        for j in range(_width(acc, columns)):
            p[i * ld + j] = row[j]


def put(store, array, k, value):
    assert to_boundary(pointer(array)) == 0 or not store.past
    array[k] = value


def tile_put(store, acc, p):
    assert to_boundary(p) == 0 or not store.past
    tile_store(acc, p, 0)


def is_past(store):
    return store.past


def stream_end():
    pass


def to_boundary(p):
    address = p.flat.ctypes.data + p.offset * p.dtype.itemsize
    return -address % VECTOR_BYTES // p.dtype.itemsize


def _width(acc, columns):
    return acc.values.shape[1] if columns is None else min(columns, acc.values.shape[1])


def prefetch(like, p, ld, rows):
    pass


prefetch_to_write = prefetch_inputs = prefetch


def outer_fma(acc, a, a_row, row):
    column = np.array([[a[i * a_row]] for i in range(acc.values.shape[0])], acc.dtype)
    return acc.like(acc.values + column * row.values)


def tile_fma(acc, x, y):
    return acc.like(acc.values + x.values * y.values)


def tile_max(x, y):
    return x.like(np.maximum(x.values, y.values))


def where_larger(x, y, a, b):
    return x.like(np.where((x.values > y.values) | np.isnan(x.values), a.values, b.values))


def where_equal(x, y, a, b):
    return x.like(np.where(x.values == y.values, a.values, b.values))


def row_sum(acc):
    return acc.like(np.broadcast_to(acc.values.sum(1, keepdims=True), acc.values.shape))


def row_max(acc):
    return acc.like(np.broadcast_to(acc.values.max(1, keepdims=True), acc.values.shape))


def column_sum(acc):
    return acc.like(acc.values.sum(0, keepdims=True))


def transpose(acc):
    return acc.like(acc.values.T)


def tile_map(acc, f):
    return acc.like([[f(x) for x in row] for row in acc.values])


def tile_map2(acc, f, other):
    return acc.like([[f(x, y) for x, y in zip(*rows)] for rows in zip(acc.values, other.values)])


def numbered(first):
    lane, vector = np.arange(VECTOR_BYTES // 8), np.arange(SIDE_BY_SIDE)[:, None]
    steps = vector * lane.size + lane // 2 + lane % 2 * (lane.size // 2)
    return Tile(np.uint64(first) + steps.astype(np.uint64).reshape(1, -1), SIDE_BY_SIDE)


def low_product(t, x):
    return t.like(lower(t).values * np.uint64(x))


def swapped(t):
    return t.like(t.values << np.uint64(32) | t.values >> np.uint64(32))


def lower(t):
    return t.like(t.values & np.uint64(0xffffffff))


def woven(t, u):
    pairs = np.stack([t.values, u.values], -1).reshape(SIDE_BY_SIDE, -1, 2)
    return Tile(np.concatenate([pairs[:, 0::2], pairs[:, 1::2]], 1).reshape(1, -1), 2 * SIDE_BY_SIDE)


def tile_of_words(like):
    return Tile(np.zeros((1, WORDS), like.dtype), WORDS * like.dtype.itemsize // VECTOR_BYTES)


def where_at_most(words, limit, t):
    halves = np.stack([lower(words).values[0], lower(swapped(words)).values[0]], -1).reshape(1, -1)
    return t.like(np.where(halves <= np.uint64(limit), t.values, 0))


def by_rows(function, rows, first, last, arguments):
    if rows in HEIGHTS and first <= rows <= last:
        function(rows, *arguments)


def unit(function):
    return function


def hook(function, call, f, g):
    return lambda *arguments: function(*arguments, f, g)


def call_hook(function, call):
    function(*call)
