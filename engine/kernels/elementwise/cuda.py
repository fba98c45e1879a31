"""CUDA kernels of the elementwise family and their launchers: one thread for each value."""
from engine.kernels.gpu import THREADS, blocks, cuda, kernel_of


@kernel_of
def _map_with_cuda(f):
    def map_values_with(x, p, q, out):
        i = cuda.grid(1)
        if i < x.size:
            out[i] = f(x[i], p, q)
    return map_values_with


@kernel_of
def _scale_by_slope_with_cuda(slope):
    def scale_by_slope_with(dy, at, p, q, dx):
        i = cuda.grid(1)
        if i < dy.size:
            dx[i] = dy[i] * slope(at[i], p, q)
    return scale_by_slope_with


@kernel_of
def _zip_equal_cuda(f):
    def zip_equal(a, b, out):
        i = cuda.grid(1)
        if i < out.size:
            out[i] = f(a[i], b[i])
    return zip_equal


@kernel_of
def _zip_cuda(f):
    def zip_values(a, b, out):
        at = cuda.grid(1)
        if at < out.size:
            row = at // out.shape[3]
            plane = row // out.shape[2]
            i = plane // out.shape[1]
            j, k, m = plane - i * out.shape[1], row - plane * out.shape[2], at - row * out.shape[3]
            x = a[i if a.shape[0] > 1 else 0, j if a.shape[1] > 1 else 0, k if a.shape[2] > 1 else 0,
                  m if a.shape[3] > 1 else 0]
            y = b[i if b.shape[0] > 1 else 0, j if b.shape[1] > 1 else 0, k if b.shape[2] > 1 else 0,
                  m if b.shape[3] > 1 else 0]
            out[i, j, k, m] = f(x, y)
    return zip_values


@kernel_of
def _zip_slope_cuda(slope):
    def zip_slope(dy, a, b, out):
        at = cuda.grid(1)
        if at < out.size:
            row = at // out.shape[3]
            plane = row // out.shape[2]
            i = plane // out.shape[1]
            j, k, m = plane - i * out.shape[1], row - plane * out.shape[2], at - row * out.shape[3]
            x = a[i if a.shape[0] > 1 else 0, j if a.shape[1] > 1 else 0, k if a.shape[2] > 1 else 0,
                  m if a.shape[3] > 1 else 0]
            y = b[i if b.shape[0] > 1 else 0, j if b.shape[1] > 1 else 0, k if b.shape[2] > 1 else 0,
                  m if b.shape[3] > 1 else 0]
            out[i, j, k, m] = dy[i, j, k, m] * slope(x, y)
    return zip_slope


def map_with_cuda(x, f, p, q, out):
    number = x.dtype.type
    _map_with_cuda(f, x.dtype)[blocks(x.size), THREADS](x, number(p), number(q), out)


def scale_by_slope_with_cuda(dy, at, slope, p, q, dx):
    number = at.dtype.type
    _scale_by_slope_with_cuda(slope, dy.dtype)[blocks(dy.size), THREADS](dy, at, number(p), number(q), dx)


def zip_cuda(a, b, f, out):
    if a.shape == b.shape:                   # nothing is repeated: no division to find the place
        a, b, out = (v.reshape((out.size,)) for v in (a, b, out))
        _zip_equal_cuda(f, a.dtype)[blocks(out.size), THREADS](a, b, out)
    else:
        _zip_cuda(f, a.dtype)[blocks(out.size), THREADS](a, b, out)


def zip_slope_cuda(dy, a, b, slope, out):
    _zip_slope_cuda(slope, dy.dtype)[blocks(out.size), THREADS](dy, a, b, out)
