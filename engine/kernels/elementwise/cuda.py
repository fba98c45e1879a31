"""CUDA kernels of the elementwise family and their launchers: four values a thread in accesses of 16 bytes, or one
thread for each value where inputs are broadcast. For the table see cpu.py."""
from engine.kernels.gpu import THREADS, blocks, cuda, fours, is_aligned, kernel_of, load4, store4


@kernel_of
def _map_with_cuda(f):
    def map_values_with(x, p, q, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= x.size and is_aligned(x) and is_aligned(out):
            a, b, c, d = load4(x, i)
            store4(out, i, f(a, p, q), f(b, p, q), f(c, p, q), f(d, p, q))
        else:
            for k in range(4):
                if i + k < x.size:
                    out[i + k] = f(x[i + k], p, q)
    return map_values_with


@kernel_of
def _scale_by_slope_with_cuda(slope):
    def scale_by_slope_with(dy, at, p, q, dx):
        i = 4 * cuda.grid(1)
        if i + 4 <= dy.size and is_aligned(dy) and is_aligned(at) and is_aligned(dx):
            a, b, c, d = load4(dy, i)
            s, t, u, v = load4(at, i)
            store4(dx, i, a * slope(s, p, q), b * slope(t, p, q), c * slope(u, p, q), d * slope(v, p, q))
        else:
            for k in range(4):
                if i + k < dy.size:
                    dx[i + k] = dy[i + k] * slope(at[i + k], p, q)
    return scale_by_slope_with


@kernel_of
def _zip_equal_cuda(f):
    def zip_equal(a, b, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= out.size and is_aligned(a) and is_aligned(b) and is_aligned(out):
            p, q, r, s = load4(a, i)
            t, u, v, w = load4(b, i)
            store4(out, i, f(p, t), f(q, u), f(r, v), f(s, w))
        else:
            for k in range(4):
                if i + k < out.size:
                    out[i + k] = f(a[i + k], b[i + k])
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
    _map_with_cuda(f, x.dtype)[fours(x.size), THREADS](x, number(p), number(q), out)


def scale_by_slope_with_cuda(dy, at, slope, p, q, dx):
    number = at.dtype.type
    _scale_by_slope_with_cuda(slope, dy.dtype)[fours(dy.size), THREADS](dy, at, number(p), number(q), dx)


def zip_cuda(a, b, f, *rest):
    *table, out = rest
    if a.size == b.size == out.size:         # nothing is repeated: no division to find the place
        _zip_equal_cuda(f, a.dtype)[fours(out.size), THREADS](a, b, out)
    else:
        _zip_cuda(f, a.dtype)[blocks(out.size), THREADS](a, b, tuple(table), out)


def zip_slope_cuda(dz, a, b, slope, *rest):
    *table, out = rest
    _zip_slope_cuda(slope, dz.dtype)[blocks(out.size), THREADS](dz, a, b, tuple(table), out)
