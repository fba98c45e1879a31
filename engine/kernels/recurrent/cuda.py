"""CUDA kernels of the recurrent ops: a block takes one sequence through all steps, a thread some units of each.

What a step hands to the next one goes through global memory (y itself, or scratch), which the threads of a block see
after a barrier. u is read in each step, from L2. Backwards a warp adds up the gradient of one unit after the other,
its lanes along a row of u.
"""
from engine.kernels.gpu import cuda, device, kernel_of, warp_sum
from engine.kernels.split import WARP, row_threads


@device
def places(step, steps, reverse):
    """(where the step stands that is read as number `step`, where the one read before it stands)"""
    if reverse:
        return steps - 1 - step, steps - step
    return step, step - 1


@device
def through(dz, u, row, s, dh, straight):
    """dh[row, k] = dz[row, s] . u[k], or that added to dh where `straight` is 1; all threads of the block."""
    lane, columns = cuda.threadIdx.x % WARP, u.shape[1]
    for k in range(cuda.threadIdx.x // WARP, u.shape[0], cuda.blockDim.x // WARP):
        total = u.dtype.type(0)
        for j in range(lane, columns, WARP):
            total += dz[row, s, j] * u[k, j]
        total = warp_sum(total)
        if lane == 0:
            dh[row, k] = total + dh[row, k] if straight else total


@kernel_of
def _lstm(sigmoid, tanh):
    def lstm(z, u, reverse, y, cells, gates):
        row, units, number = cuda.blockIdx.x, y.shape[2], y.dtype.type
        for step in range(y.shape[1]):
            s, p = places(step, y.shape[1], reverse)
            for j in range(cuda.threadIdx.x, units, cuda.blockDim.x):
                i, f, g, o = z[row, s, j], z[row, s, units + j], z[row, s, 2 * units + j], z[row, s, 3 * units + j]
                cell = number(0)
                if step > 0:
                    cell = cells[row, p, j]
                    for k in range(units):
                        h = y[row, p, k]
                        i += h * u[k, j]
                        f += h * u[k, units + j]
                        g += h * u[k, 2 * units + j]
                        o += h * u[k, 3 * units + j]
                i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
                cell = f * cell + i * g
                gates[row, s, j], gates[row, s, units + j] = i, f
                gates[row, s, 2 * units + j], gates[row, s, 3 * units + j] = g, o
                cells[row, s, j] = cell
                y[row, s, j] = o * tanh(cell)
            cuda.syncthreads()
    return lstm


@kernel_of
def _lstm_grad(sigmoid_slope, tanh, tanh_slope):
    def lstm_grad(dy, u, y, cells, gates, reverse, dz, before, dh, dcell):
        row, units, number = cuda.blockIdx.x, y.shape[2], y.dtype.type
        for step in range(y.shape[1]):
            s, p = places(y.shape[1] - 1 - step, y.shape[1], reverse)
            for j in range(cuda.threadIdx.x, units, cuda.blockDim.x):
                i, f = gates[row, s, j], gates[row, s, units + j]
                g, o = gates[row, s, 2 * units + j], gates[row, s, 3 * units + j]
                d, dc, t = dy[row, s, j], number(0), tanh(cells[row, s, j])
                if step > 0:
                    d += dh[row, j]
                    dc = dcell[row, j]
                dc += d * o * tanh_slope(t)
                cell, h = number(0), number(0)
                if step < y.shape[1] - 1:
                    cell, h = cells[row, p, j], y[row, p, j]
                before[row, s, j] = h
                dcell[row, j] = dc * f
                dz[row, s, j] = dc * g * sigmoid_slope(i)
                dz[row, s, units + j] = dc * cell * sigmoid_slope(f)
                dz[row, s, 2 * units + j] = dc * i * tanh_slope(g)
                dz[row, s, 3 * units + j] = d * t * sigmoid_slope(o)
            cuda.syncthreads()
            through(dz, u, row, s, dh, 0)
            cuda.syncthreads()
    return lstm_grad


@kernel_of
def _gru(sigmoid, tanh):
    def gru(z, u, bias, reverse, y, kept, gates):
        row, units, number = cuda.blockIdx.x, y.shape[2], y.dtype.type
        for step in range(y.shape[1]):
            s, p = places(step, y.shape[1], reverse)
            for j in range(cuda.threadIdx.x, units, cuda.blockDim.x):
                r, v, q, state = z[row, s, j], z[row, s, units + j], bias[j], number(0)
                if step > 0:
                    state = y[row, p, j]
                    for k in range(units):
                        h = y[row, p, k]
                        r += h * u[k, j]
                        v += h * u[k, units + j]
                        q += h * u[k, 2 * units + j]
                r, v = sigmoid(r), sigmoid(v)
                g = tanh(z[row, s, 2 * units + j] + r * q)
                gates[row, s, j], gates[row, s, units + j], gates[row, s, 2 * units + j] = r, v, g
                kept[row, s, j] = q
                y[row, s, j] = g + v * (state - g)
            cuda.syncthreads()
    return gru


@kernel_of
def _gru_grad(sigmoid_slope, tanh_slope):
    def gru_grad(dy, u, y, kept, gates, reverse, dz, dq, before, dh):
        row, units, number = cuda.blockIdx.x, y.shape[2], y.dtype.type
        for step in range(y.shape[1]):
            s, p = places(y.shape[1] - 1 - step, y.shape[1], reverse)
            for j in range(cuda.threadIdx.x, units, cuda.blockDim.x):
                r, v, g = gates[row, s, j], gates[row, s, units + j], gates[row, s, 2 * units + j]
                d, h = dy[row, s, j], number(0)
                if step > 0:
                    d += dh[row, j]
                if step < y.shape[1] - 1:
                    h = y[row, p, j]
                dv, dg = d * (h - g) * sigmoid_slope(v), (d - d * v) * tanh_slope(g)
                dr = dg * kept[row, s, j] * sigmoid_slope(r)
                before[row, s, j], dh[row, j] = h, d * v
                dz[row, s, j], dz[row, s, units + j], dz[row, s, 2 * units + j] = dr, dv, dg
                dq[row, s, j], dq[row, s, units + j], dq[row, s, 2 * units + j] = dr, dv, dg * r
            cuda.syncthreads()
            through(dq, u, row, s, dh, 1)
            cuda.syncthreads()
    return gru_grad


@kernel_of
def _rnn(f):
    def rnn(z, u, reverse, y):
        row, units = cuda.blockIdx.x, y.shape[2]
        for step in range(y.shape[1]):
            s, p = places(step, y.shape[1], reverse)
            for j in range(cuda.threadIdx.x, units, cuda.blockDim.x):
                total = z[row, s, j]
                if step > 0:
                    for k in range(units):
                        total += y[row, p, k] * u[k, j]
                y[row, s, j] = f(total)
            cuda.syncthreads()
    return rnn


@kernel_of
def _rnn_grad(slope):
    def rnn_grad(dy, u, y, reverse, dz, before, dh):
        row, units, number = cuda.blockIdx.x, y.shape[2], y.dtype.type
        for step in range(y.shape[1]):
            s, p = places(y.shape[1] - 1 - step, y.shape[1], reverse)
            for j in range(cuda.threadIdx.x, units, cuda.blockDim.x):
                d, h = dy[row, s, j], number(0)
                if step > 0:
                    d += dh[row, j]
                if step < y.shape[1] - 1:
                    h = y[row, p, j]
                before[row, s, j] = h
                dz[row, s, j] = d * slope(y[row, s, j])
            cuda.syncthreads()
            through(dz, u, row, s, dh, 0)
            cuda.syncthreads()
    return rnn_grad


def _grid(y):
    """A block for each sequence, as wide as its units need."""
    return y.shape[0], row_threads(8 * y.shape[2])


def lstm(z, u, sigmoid, tanh, reverse, y, cells, gates):
    _lstm(sigmoid, tanh, y.dtype)[_grid(y)](z, u, reverse, y, cells, gates)


def lstm_grad(dy, u, y, cells, gates, sigmoid_slope, tanh, tanh_slope, reverse, dz, before, dh, dcell):
    made = _lstm_grad(sigmoid_slope, tanh, tanh_slope, y.dtype)
    made[_grid(y)](dy, u, y, cells, gates, reverse, dz, before, dh, dcell)


def gru(z, u, bias, sigmoid, tanh, reverse, y, kept, gates):
    _gru(sigmoid, tanh, y.dtype)[_grid(y)](z, u, bias, reverse, y, kept, gates)


def gru_grad(dy, u, y, kept, gates, sigmoid_slope, tanh_slope, reverse, dz, dq, before, dh):
    _gru_grad(sigmoid_slope, tanh_slope, y.dtype)[_grid(y)](dy, u, y, kept, gates, reverse, dz, dq, before, dh)


def simple_rnn(z, u, f, reverse, y):
    _rnn(f, y.dtype)[_grid(y)](z, u, reverse, y)


def simple_rnn_grad(dy, u, y, slope, reverse, dz, before, dh):
    _rnn_grad(slope, y.dtype)[_grid(y)](dy, u, y, reverse, dz, before, dh)
