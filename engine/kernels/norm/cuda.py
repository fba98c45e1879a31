"""CUDA kernels and launchers of the normalisations. Shapes: x (n, c), vectors (c,)."""
import math

from engine.kernels.gpu import THREADS, blocks, cuda, kernel


@kernel
def _batch_norm(x, gamma, beta, old_mean, old_variance, momentum, epsilon, y, run_mean, run_variance, mean, inverse):
    j = cuda.grid(1)
    n = x.shape[0]
    if j < x.shape[1]:
        total, squares = 0.0, 0.0
        for i in range(n):
            total += x[i, j]
        m = x.dtype.type(total / max(1, n))
        for i in range(n):
            squares += (x[i, j] - m) * (x[i, j] - m)
        q = x.dtype.type(1 / math.sqrt(squares / max(1, n) + epsilon))
        mean[j] = m
        inverse[j] = q if n else x.dtype.type(1)
        if n:
            run_mean[j] = momentum * old_mean[j] + (1 - momentum) * m
            run_variance[j] = momentum * old_variance[j] + (1 - momentum) * squares / max(1, n - 1)
        for i in range(n):
            y[i, j] = (x[i, j] - m) * q * gamma[j] + beta[j]


@kernel
def _norm_grad(dy, x, gamma, mean, inverse, moving, dx, dgamma, dbeta):
    """moving: the moments depend on x (training)."""
    j = cuda.grid(1)
    n = x.shape[0]
    if j < x.shape[1]:
        scale, bias = 0.0, 0.0
        for i in range(n):
            scale += dy[i, j] * (x[i, j] - mean[j]) * inverse[j]
            bias += dy[i, j]
        for i in range(n):
            z = (x[i, j] - mean[j]) * inverse[j]
            less = (bias + z * scale) / n if moving else 0.0
            dx[i, j] = gamma[j] * inverse[j] * x.dtype.type(dy[i, j] - less)
        dgamma[j] = scale
        dbeta[j] = bias


@kernel
def _inference(x, gamma, beta, mean, variance, epsilon, y):
    k = cuda.grid(1)
    if k < x.size:
        i, j = k // x.shape[1], k % x.shape[1]
        y[i, j] = gamma[j] * (x[i, j] - mean[j]) / math.sqrt(variance[j] + x.dtype.type(epsilon)) + beta[j]


@kernel
def _inference_grad(dy, x, gamma, mean, variance, epsilon, dx, dgamma, dbeta):
    j = cuda.grid(1)
    if j < x.shape[1]:
        scale, bias, inverse = 0.0, 0.0, 1 / math.sqrt(variance[j] + epsilon)
        for i in range(x.shape[0]):
            scale += dy[i, j] * (x[i, j] - mean[j]) * inverse
            bias += dy[i, j]
            dx[i, j] = dy[i, j] * gamma[j] * inverse
        dgamma[j] = scale
        dbeta[j] = bias


@kernel
def _row_norm(x, gamma, beta, centred, epsilon, y):
    """beta is read only when centred."""
    i = cuda.grid(1)
    if i < x.shape[0]:
        c, total, squares = x.shape[1], 0.0, 0.0
        for j in range(c):
            total += x[i, j]
        mean = total / c if centred else 0.0
        for j in range(c):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
        inverse = 1 / math.sqrt(squares / c + epsilon)
        for j in range(c):
            y[i, j] = gamma[j] * (x[i, j] - mean) * inverse + (beta[j] if centred else x.dtype.type(0))


@kernel
def _row_norm_grad(dy, x, gamma, centred, epsilon, dx, moments):
    i = cuda.grid(1)
    if i < x.shape[0]:
        c, total, squares, plain, along = x.shape[1], 0.0, 0.0, 0.0, 0.0
        for j in range(c):
            total += x[i, j]
        mean = total / c if centred else 0.0
        for j in range(c):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
        inverse = 1 / math.sqrt(squares / c + epsilon)
        for j in range(c):
            along += dy[i, j] * gamma[j] * (x[i, j] - mean) * inverse
            plain += dy[i, j] * gamma[j]
        shift = plain / c if centred else 0.0
        for j in range(c):
            dx[i, j] = inverse * (dy[i, j] * gamma[j] - shift - (x[i, j] - mean) * inverse * along / c)
        moments[i, 0] = mean
        moments[i, 1] = inverse


@kernel
def _columns(dy, x, moments, with_beta, dgamma, dbeta):
    j = cuda.grid(1)
    if j < x.shape[1]:
        scale, bias = 0.0, 0.0
        for i in range(x.shape[0]):
            scale += dy[i, j] * (x[i, j] - moments[i, 0]) * moments[i, 1]
            bias += dy[i, j]
        dgamma[j] = scale
        if with_beta:
            dbeta[j] = bias


def batch_norm(x, *rest):
    _batch_norm[blocks(x.shape[1]), THREADS](x, *rest)


def batch_norm_grad(dy, x, gamma, mean, inverse, *outs):
    _norm_grad[blocks(x.shape[1]), THREADS](dy, x, gamma, mean, inverse, 1, *outs)


def inference(x, *rest):
    _inference[blocks(x.size), THREADS](x, *rest)


def inference_grad(dy, x, *rest):
    _inference_grad[blocks(x.shape[1]), THREADS](dy, x, *rest)


def layer_norm(x, gamma, beta, epsilon, y):
    _row_norm[blocks(x.shape[0]), THREADS](x, gamma, beta, 1, epsilon, y)


def rms_norm(x, gamma, epsilon, y):
    _row_norm[blocks(x.shape[0]), THREADS](x, gamma, gamma, 0, epsilon, y)


def layer_norm_grad(dy, x, gamma, epsilon, dx, dgamma, dbeta, moments):
    if x.shape[0]:
        _row_norm_grad[blocks(x.shape[0]), THREADS](dy, x, gamma, 1, epsilon, dx, moments)
    _columns[blocks(x.shape[1]), THREADS](dy, x, moments, 1, dgamma, dbeta)


def rms_norm_grad(dy, x, gamma, epsilon, dx, dgamma, moments):
    if x.shape[0]:
        _row_norm_grad[blocks(x.shape[0]), THREADS](dy, x, gamma, 0, epsilon, dx, moments)
    _columns[blocks(x.shape[1]), THREADS](dy, x, moments, 0, dgamma, dgamma)
