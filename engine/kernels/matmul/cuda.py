"""The product on the GPU: a block computes a TILE x TILE square of C from square tiles of A and B in shared memory.

Bounds are checked where values are loaded, so any size works; outside the matrices a tile holds zeros.
"""
from engine.kernels.gpu import cuda, kernel, kernel_of

TILE = 16


@kernel
def _product(a, b, transpose_a, transpose_b, c):
    left = cuda.shared.array((TILE, TILE), a.dtype)
    right = cuda.shared.array((TILE, TILE), a.dtype)
    ty, tx = cuda.threadIdx.y, cuda.threadIdx.x
    row, col = cuda.blockIdx.y * TILE + ty, cuda.blockIdx.x * TILE + tx
    m, n = c.shape
    length = a.shape[0] if transpose_a else a.shape[1]
    zero = a.dtype.type(0)
    total = zero
    for start in range(0, length, TILE):
        p, q = start + tx, start + ty
        left[ty, tx] = zero
        right[ty, tx] = zero
        if row < m and p < length:
            left[ty, tx] = a[p, row] if transpose_a else a[row, p]
        if q < length and col < n:
            right[ty, tx] = b[col, q] if transpose_b else b[q, col]
        cuda.syncthreads()
        for k in range(TILE):
            total += left[ty, k] * right[k, tx]
        cuda.syncthreads()
    if row < m and col < n:
        c[row, col] = total


@kernel_of
def _finish(f):
    """y = f(y + bias), row by row."""
    def finish(bias, y):
        i, j = cuda.grid(2)
        if i < y.shape[0] and j < y.shape[1]:
            y[i, j] = f(y[i, j] + bias[j])
    return finish


def _grid(rows, cols):
    return max(1, -(-cols // TILE)), max(1, -(-rows // TILE))


def matmul(a, b, transpose_a, transpose_b, c):
    """c (m, n) = op(a) @ op(b)"""
    _product[_grid(*c.shape), (TILE, TILE)](a, b, transpose_a, transpose_b, c)


def dense(x, w, bias, f, y):
    """y (n, o) = f(x (n, i) @ w (i, o) + bias (o,))"""
    matmul(x, w, 0, 0, y)
    cols, rows = _grid(*y.shape)
    _finish(f, y.dtype)[(rows, cols), (TILE, TILE)](bias, y)
