"""CUDA kernels that move values, and their launchers: one thread for each value. For the table see cpu.py."""
import math

from engine.kernels.gpu import THREADS, blocks, cuda, kernel
from engine.kernels.reduce.cuda import threads_for
from engine.kernels.split import LANES


@kernel
def _move(x, table, size, y):
    at = cuda.grid(1)
    if at < size:
        x_at, y_at = table[15], table[16]
        for axis in range(4, -1, -1):        # from the last axis, so that neighbouring threads write neighbours
            rest = at // table[axis]
            place = at - rest * table[axis]
            x_at += place * table[5 + axis]
            y_at += place * table[10 + axis]
            at = rest
        y[y_at] = x[x_at]


@kernel
def _fill(value, y):
    i = cuda.grid(1)
    if i < y.size:
        y[i] = value


@kernel
def _copy(x, y):
    i = cuda.grid(1)
    if i < x.size:
        y[i] = x[i]


@kernel
def _copy_columns(part, left, out):
    i = cuda.grid(1)
    if i < part.size:
        row = i // part.shape[1]
        column = i - row * part.shape[1]
        out[row, left + column] = part[row, column]


@kernel
def _gather(x, indices, outside, y):
    i = cuda.grid(1)
    if i < y.size:
        k = i // y.shape[1]
        j, row = i - k * y.shape[1], indices[k]
        y[k, j] = x[row, j] if 0 <= row and row < x.shape[0] else outside


@kernel
def _scatter_add(dy, indices, y):
    """A block for each k. The block of a row's first k adds all dy of that row in their order; the others have nothing
    to do: so no two blocks write one row, and the order is fixed."""
    k, thread = cuda.blockIdx.x, cuda.threadIdx.x
    row = indices[k]
    seen = 0
    for earlier in range(thread, k, cuda.blockDim.x):
        if indices[earlier] == row:
            seen = 1
    if cuda.syncthreads_or(seen) == 0 and 0 <= row and row < y.shape[0]:
        for j in range(thread, y.shape[1], cuda.blockDim.x):
            total = dy[k, j]
            for later in range(k + 1, indices.size):
                if indices[later] == row:
                    total += dy[later, j]
            y[row, j] = total


@kernel
def _one_hot(labels, nothing, y):
    i = cuda.grid(1)
    if i < y.size:
        k = i // y.shape[1]
        label = labels[k]
        number = y.dtype.type(1) if label == i - k * y.shape[1] else y.dtype.type(0)
        y[k, i - k * y.shape[1]] = number if 0 <= label and label < y.shape[1] else nothing


def move_cuda(x, value, *rest):
    *table, y = rest
    size = math.prod(table[:5])
    if size:
        _move[blocks(size), THREADS](x, tuple(table), size, y)


def fill_and_move_cuda(x, value, *rest):
    y = rest[-1]
    _fill[blocks(y.size), THREADS](y.dtype.type(value), y)
    move_cuda(x, value, *rest)


def copy_cuda(x, y):
    _copy[blocks(x.size), THREADS](x, y)


def concat_cuda(*arguments):
    *parts, out = arguments
    left = 0
    for part in parts:
        if part.size:
            _copy_columns[blocks(part.size), THREADS](part, left, out)
        left += part.shape[1]


def gather_cuda(x, indices, outside, y):
    _gather[blocks(y.size), THREADS](x, indices, y.dtype.type(outside), y)


def scatter_add_cuda(dy, indices, y):
    _fill[blocks(y.size), THREADS](y.dtype.type(0), y.reshape((y.size,)))
    if indices.size:
        _scatter_add[indices.size, threads_for(y.shape[1], LANES)](dy, indices, y)


def one_hot_cuda(labels, y):
    _one_hot[blocks(y.size), THREADS](labels, y.dtype.type(math.nan), y)
