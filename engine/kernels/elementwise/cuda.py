"""CUDA kernels of the elementwise family and their launchers: one thread for each value. For the table see
cpu.py."""
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
    def zip_values(a, b, table, out):
        at = cuda.grid(1)
        if at < out.size:
            x, y, rest = 0, 0, at
            for axis in range(3, -1, -1):
                outer = rest // table[axis]
                x += (rest - outer * table[axis]) * table[4 + axis]
                y += (rest - outer * table[axis]) * table[8 + axis]
                rest = outer
            out[at] = f(a[x], b[y])
    return zip_values


@kernel_of
def _zip_slope_cuda(slope):
    def zip_slope(dz, a, b, table, out):
        at = cuda.grid(1)
        if at < out.size:
            x, y, rest = 0, 0, at
            for axis in range(3, -1, -1):
                outer = rest // table[axis]
                x += (rest - outer * table[axis]) * table[4 + axis]
                y += (rest - outer * table[axis]) * table[8 + axis]
                rest = outer
            out[at] = dz[at] * slope(a[x], b[y])
    return zip_slope


def map_with_cuda(x, f, p, q, out):
    number = x.dtype.type
    _map_with_cuda(f, x.dtype)[blocks(x.size), THREADS](x, number(p), number(q), out)


def scale_by_slope_with_cuda(dy, at, slope, p, q, dx):
    number = at.dtype.type
    _scale_by_slope_with_cuda(slope, dy.dtype)[blocks(dy.size), THREADS](dy, at, number(p), number(q), dx)


def zip_cuda(a, b, f, *rest):
    *table, out = rest
    if a.size == b.size == out.size:         # nothing is repeated: no division to find the place
        _zip_equal_cuda(f, a.dtype)[blocks(out.size), THREADS](a, b, out)
    else:
        _zip_cuda(f, a.dtype)[blocks(out.size), THREADS](a, b, tuple(table), out)


def zip_slope_cuda(dz, a, b, slope, *rest):
    *table, out = rest
    _zip_slope_cuda(slope, dz.dtype)[blocks(out.size), THREADS](dz, a, b, tuple(table), out)
