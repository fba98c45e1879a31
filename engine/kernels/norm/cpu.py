"""CPU kernels of the normalisations. Shapes: x (n, c), vectors (c,)."""
import math

from numba import njit

from engine.kernels.split import span


@njit(error_model="numpy")
def batch_norm(x, gamma, beta, old_mean, old_variance, momentum, epsilon, y, run_mean, run_variance, mean, inverse,
               sums, task, tasks):
    """A task takes some channels of all rows: each channel is summed in the order of its rows."""
    n, c = x.shape
    first, count = span(c, task, tasks)
    s = sums[first:first + count]
    for k in range(count):
        s[k] = 0
    for i in range(n):
        for k in range(count):
            s[k] += x[i, first + k]
    for k in range(count):
        mean[first + k] = s[k] / n if n else 0
        s[k] = 0
    for i in range(n):
        for k in range(count):
            d = x[i, first + k] - mean[first + k]
            s[k] += d * d
    for k in range(count):
        j = first + k
        inverse[j] = 1 / math.sqrt(s[k] / n + epsilon) if n else 1
        if n:
            run_mean[j] = momentum * old_mean[j] + (1 - momentum) * mean[j]
            run_variance[j] = momentum * old_variance[j] + (1 - momentum) * s[k] / max(1, n - 1)
    for i in range(n):
        for k in range(count):
            j = first + k
            y[i, j] = (x[i, j] - mean[j]) * inverse[j] * gamma[j] + beta[j]


@njit(error_model="numpy")
def batch_norm_grad(dy, x, gamma, mean, inverse, dx, dgamma, dbeta, sums, task, tasks):
    """As the forward pass: some channels, all rows."""
    n, c = x.shape
    first, count = span(c, task, tasks)
    s, t = sums[first:first + count], sums[c + first:c + first + count]
    for k in range(count):
        s[k] = 0
        t[k] = 0
    for i in range(n):
        for k in range(count):
            j = first + k
            s[k] += dy[i, j] * (x[i, j] - mean[j]) * inverse[j]
            t[k] += dy[i, j]
    for k in range(count):
        dgamma[first + k] = s[k]
        dbeta[first + k] = t[k]
    for i in range(n):
        for k in range(count):
            j = first + k
            z = (x[i, j] - mean[j]) * inverse[j]
            dx[i, j] = gamma[j] * inverse[j] * (dy[i, j] - dbeta[j] / n - z * dgamma[j] / n)


@njit(error_model="numpy")
def inference(x, gamma, beta, mean, variance, epsilon, y, task, tasks):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta"""
    first, count = span(x.shape[0], task, tasks)
    e = x.dtype.type(epsilon)
    for k in range(count):
        row, out = x[first + k], y[first + k]
        for j in range(x.shape[1]):
            out[j] = gamma[j] * (row[j] - mean[j]) / math.sqrt(variance[j] + e) + beta[j]


@njit(error_model="numpy")
def inference_grad(dy, x, gamma, mean, variance, epsilon, dx, dgamma, dbeta, task, tasks):
    """Some channels, all rows."""
    first, count = span(x.shape[1], task, tasks)
    for k in range(count):
        j = first + k
        scale, bias, inverse = 0.0, 0.0, 1 / math.sqrt(variance[j] + epsilon)
        for i in range(x.shape[0]):
            scale += dy[i, j] * (x[i, j] - mean[j]) * inverse
            bias += dy[i, j]
            dx[i, j] = dy[i, j] * gamma[j] * inverse
        dgamma[j], dbeta[j] = scale, bias


@njit(error_model="numpy", forceinline=True)
def row_moments(row, centred, epsilon):
    """(mean, 1 / sqrt(mean of squared distances + epsilon)); the mean is 0 unless centred."""
    total, squares, c = 0.0, 0.0, row.size
    if centred:
        for j in range(c):
            total += row[j]
    mean = row.dtype.type(total / c)
    for j in range(c):
        d = row[j] - mean
        squares += d * d
    return mean, row.dtype.type(1 / math.sqrt(squares / c + epsilon))


@njit(error_model="numpy")
def layer_norm(x, gamma, beta, epsilon, y, task, tasks):
    """Each row by its own mean and variance."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        row, out = x[first + k], y[first + k]
        mean, inverse = row_moments(row, True, epsilon)
        for j in range(row.size):
            out[j] = gamma[j] * (row[j] - mean) * inverse + beta[j]


@njit(error_model="numpy")
def rms_norm(x, gamma, epsilon, y, task, tasks):
    """Each row by its root mean square."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        row, out = x[first + k], y[first + k]
        _, inverse = row_moments(row, False, epsilon)
        for j in range(row.size):
            out[j] = gamma[j] * row[j] * inverse


@njit(error_model="numpy", forceinline=True)
def row_grad(dy, row, gamma, centred, epsilon, dx):
    """dx of one row; returns its mean and inverse."""
    mean, inverse = row_moments(row, centred, epsilon)
    plain, along, c = 0.0, 0.0, row.size
    for j in range(c):
        g = dy[j] * gamma[j]
        along += g * (row[j] - mean) * inverse
        plain += g
    shift = row.dtype.type(plain / c if centred else 0.0)
    slope = row.dtype.type(along / c)
    for j in range(c):
        dx[j] = inverse * (dy[j] * gamma[j] - shift - (row[j] - mean) * inverse * slope)
    return mean, inverse


@njit(error_model="numpy")
def layer_norm_rows(dy, x, gamma, epsilon, dx, dgamma, dbeta, moments, task, tasks):
    """Phase 1: dx row by row; keeps each row's moments."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        i = first + k
        moments[i, 0], moments[i, 1] = row_grad(dy[i], x[i], gamma, True, epsilon, dx[i])


@njit(error_model="numpy")
def layer_norm_columns(dy, x, gamma, epsilon, dx, dgamma, dbeta, moments, task, tasks):
    """Phase 2: dgamma and dbeta; some channels, all rows in order."""
    first, count = span(x.shape[1], task, tasks)
    for k in range(count):
        dgamma[first + k] = 0
        dbeta[first + k] = 0
    for i in range(x.shape[0]):
        for k in range(count):
            j = first + k
            dgamma[j] += dy[i, j] * (x[i, j] - moments[i, 0]) * moments[i, 1]
            dbeta[j] += dy[i, j]


@njit(error_model="numpy")
def rms_norm_rows(dy, x, gamma, epsilon, dx, dgamma, moments, task, tasks):
    """Phase 1: dx row by row."""
    first, count = span(x.shape[0], task, tasks)
    for k in range(count):
        i = first + k
        moments[i, 0], moments[i, 1] = row_grad(dy[i], x[i], gamma, False, epsilon, dx[i])


@njit(error_model="numpy")
def rms_norm_columns(dy, x, gamma, epsilon, dx, dgamma, moments, task, tasks):
    """Phase 2: dgamma; some channels, all rows in order."""
    first, count = span(x.shape[1], task, tasks)
    for k in range(count):
        dgamma[first + k] = 0
    for i in range(x.shape[0]):
        for k in range(count):
            dgamma[first + k] += dy[i, first + k] * x[i, first + k] * moments[i, 1]
