"""Convolutions in NumPy, tap by tap: what is true."""
import numpy as np


def taps(x, kernel, output, stride, padding, dilation):
    """For each tap (r, s): what of x, padded with zeros, it multiplies: (r, s, view (n, p, q, c)); and padded x."""
    top, bottom, left, right = padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))

    def views():
        for r in range(kernel[0]):
            for s in range(kernel[1]):
                rows = slice(r * dilation[0], r * dilation[0] + stride[0] * (output[0] - 1) + 1, stride[0])
                columns = slice(s * dilation[1], s * dilation[1] + stride[1] * (output[1] - 1) + 1, stride[1])
                yield r, s, padded[:, rows, columns]
    return padded, views()


def grouped(array, groups):
    """The last axis as (groups, channels of a group)."""
    return array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)


def size_of_output(size, taps, stride, before, after, dilation):
    return (size + before + after - dilation * (taps - 1) - 1) // stride + 1


def output_of(shape, kernel, stride, padding, dilation):
    """(p, q) of an image (n, h, w, c)."""
    return tuple(size_of_output(shape[1 + a], kernel[a], stride[a], padding[2 * a], padding[2 * a + 1], dilation[a])
                 for a in (0, 1))


def plain_reference(x, w, stride, padding, dilation, groups, kept=False):
    p, q = output_of(x.shape, w.shape, stride, padding, dilation)
    y = np.zeros((x.shape[0], p, q, groups, w.shape[3] // groups))
    for r, s, view in taps(x, w.shape, (p, q), stride, padding, dilation)[1]:
        y += np.einsum("npqgc,cgo->npqgo", grouped(view, groups), grouped(w[r, s], groups))
    return y.reshape(*y.shape[:3], w.shape[3])


def conv2d_reference(x, w, bias, stride, padding, dilation, groups, activation=None, kept=False):
    z = plain_reference(x, w, stride, padding, dilation, groups) + bias
    return z if activation is None else activation.reference(z)


def input_gradient_reference(dy, w, shape, stride, padding, dilation, groups):
    padded, views = taps(np.zeros(shape), w.shape, dy.shape[1:3], stride, padding, dilation)
    for r, s, view in views:
        view += np.einsum("npqgo,cgo->npqgc", grouped(dy, groups), grouped(w[r, s], groups)).reshape(view.shape)
    return padded[:, padding[0]:padding[0] + shape[1], padding[2]:padding[2] + shape[2]]


def weight_gradient_reference(x, dy, kernel, stride, padding, dilation, groups):
    dw = np.zeros((*kernel, x.shape[3] // groups, dy.shape[3]))
    for r, s, view in taps(x, kernel, dy.shape[1:3], stride, padding, dilation)[1]:
        dw[r, s] = np.einsum("npqgc,npqgo->cgo", grouped(view, groups), grouped(dy, groups)).reshape(dw.shape[2:])
    return dw


def transpose_reference(x, w, bias, stride, padding, output_padding, dilation, groups, activation=None):
    n, p, q = transposed_output(x.shape, w.shape, stride, padding, output_padding, dilation)
    z = input_gradient_reference(x, w, (n, p, q, w.shape[2] * groups), stride, padding, dilation, groups) + bias
    return z if activation is None else activation.reference(z)


def transposed_output(shape, kernel, stride, padding, output_padding, dilation):
    """(n, p, q) of a transposed convolution."""
    return (shape[0], *((shape[1 + a] - 1) * stride[a] - padding[2 * a] - padding[2 * a + 1]
                        + dilation[a] * (kernel[a] - 1) + 1 + output_padding[a] for a in (0, 1)))
