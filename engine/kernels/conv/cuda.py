"""Convolutions on the GPU: a thread for each value of the result, which sums over its taps and channels."""
from engine.kernels.gpu import THREADS, blocks, cuda, device_in, kernel, kernel_of
from engine.kernels.matmul import LINEAR


def bias_of(bias, channel):
    return bias[channel]


def no_bias(bias, channel):
    return 0


@kernel_of
def _forward(f, with_bias):
    start = device_in(bias_of if with_bias else no_bias)

    def convolve(x, w, bias, geometry, y):
        stride_h, stride_w, top, left, dilation_h, dilation_w, groups = geometry
        at = cuda.grid(1)
        if at < y.size:
            p, q, o = y.shape[1], y.shape[2], y.shape[3]
            channel, pixel = at % o, at // o
            n, i, j = pixel // (p * q), pixel // q % p, pixel % q
            total = y.dtype.type(start(bias, channel))
            first = channel // (o // groups) * w.shape[2]
            for r in range(w.shape[0]):
                row = i * stride_h - top + r * dilation_h
                for s in range(w.shape[1]):
                    column = j * stride_w - left + s * dilation_w
                    if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                        for c in range(w.shape[2]):
                            total += x[n, row, column, first + c] * w[r, s, c, channel]
            y[n, i, j, channel] = f(total)
    return convolve


@kernel_of
def _backward(f, with_bias):
    start = device_in(bias_of if with_bias else no_bias)

    def convolve_back(dy, w, bias, geometry, dx):
        stride_h, stride_w, top, left, dilation_h, dilation_w, groups = geometry
        at = cuda.grid(1)
        if at < dx.size:
            h, wide, c = dx.shape[1], dx.shape[2], dx.shape[3]
            channel, pixel = at % c, at // c
            n, i, j = pixel // (h * wide), pixel // wide % h, pixel % wide
            total = dx.dtype.type(start(bias, channel))
            of_group, outputs = channel % w.shape[2], w.shape[3] // groups
            first = channel // w.shape[2] * outputs
            for r in range(w.shape[0]):
                row = i + top - r * dilation_h
                for s in range(w.shape[1]):
                    column = j + left - s * dilation_w
                    if row >= 0 and column >= 0 and row % stride_h == 0 and column % stride_w == 0 and \
                            row // stride_h < dy.shape[1] and column // stride_w < dy.shape[2]:
                        for o in range(first, first + outputs):
                            total += dy[n, row // stride_h, column // stride_w, o] * w[r, s, of_group, o]
            dx[n, i, j, channel] = f(total)
    return convolve_back


@kernel
def _weights(x, dy, geometry, dw):
    stride_h, stride_w, top, left, dilation_h, dilation_w, groups = geometry
    at = cuda.grid(1)
    if at < dw.size:
        channels, o = dw.shape[2], dw.shape[3]
        out, c = at % o, at // o % channels
        r, s = at // (o * channels * dw.shape[1]), at // (o * channels) % dw.shape[1]
        total = dw.dtype.type(0)
        of_image = out // (o // groups) * channels + c
        for i in range(dy.shape[1]):
            row = i * stride_h - top + r * dilation_h
            for j in range(dy.shape[2]):
                column = j * stride_w - left + s * dilation_w
                if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                    for n in range(dy.shape[0]):
                        total += x[n, row, column, of_image] * dy[n, i, j, out]
        dw[r, s, c, out] = total


def conv2d_cuda(x, w, bias, *rest):
    *geometry, f, y = rest
    _forward(f, True, y.dtype)[blocks(y.size), THREADS](x, w, bias, tuple(geometry), y)


def conv2d_plain_cuda(x, w, *rest):
    *geometry, y = rest
    _forward(LINEAR.f, False, y.dtype)[blocks(y.size), THREADS](x, w, w, tuple(geometry), y)


def input_gradient_cuda(dy, w, *rest):
    *geometry, dx = rest
    _backward(LINEAR.f, False, dx.dtype)[blocks(dx.size), THREADS](dy, w, w, tuple(geometry), dx)


def transpose_cuda(x, w, bias, *rest):
    *geometry, f, y = rest
    _backward(f, True, y.dtype)[blocks(y.size), THREADS](x, w, bias, tuple(geometry), y)


def weight_gradient_cuda(x, dy, *rest):
    *geometry, dw = rest
    _weights[blocks(dw.size), THREADS](x, dy, tuple(geometry), dw)
