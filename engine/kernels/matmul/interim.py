from numba import njit


@njit(error_model="numpy")
def _matmul(a, b, ta, tb, c, task, tasks):
    m, n = c.shape
    k = a.shape[0] if ta else a.shape[1]
    for i in range(m * task // tasks, m * (task + 1) // tasks):
        for j in range(n):
            c[i, j] = 0
        for p in range(k):
            s = a[p, i] if ta else a[i, p]
            if tb:
                for j in range(n):
                    c[i, j] += s * b[j, p]
            else:
                for j in range(n):
                    c[i, j] += s * b[p, j]


@njit(error_model="numpy")
def _dense(x, w, bias, f, y, task, tasks):
    m, n = y.shape
    for i in range(m * task // tasks, m * (task + 1) // tasks):
        for j in range(n):
            y[i, j] = bias[j]
        for p in range(x.shape[1]):
            s = x[i, p]
            for j in range(n):
                y[i, j] += s * w[p, j]
        for j in range(n):
            y[i, j] = f(y[i, j])


MATMUL_PHASES = _matmul
DENSE_PHASES = _dense


def plan_matmul(m, n, k, ta, tb, dtype, threads):
    return (1 if m * n * k < 1e5 else threads), (), ()


def plan_dense(m, n, k, dtype, threads):
    return (1 if m * n * k < 1e5 else threads), (), ()
