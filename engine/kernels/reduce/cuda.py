"""CUDA kernels of the reductions and their launchers. What threads found is joined in a tree: the order is fixed by the
shapes. All arrays are flat."""
from engine.kernels.gpu import blocks, cuda, kernel, kernel_of


@kernel_of
def _fold_lines_cuda(f, g):
    def fold_lines(x, k1, r0, r1, start, divisor, out):
        """A block reduces the values (r0, r1) of one output: each thread every blockDim-th, then all in a tree."""
        held = cuda.shared.array(256, x.dtype)
        i = cuda.blockIdx.x // k1
        begin = (i * r0 * k1 + cuda.blockIdx.x - i * k1) * r1
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        result = start
        for outer in range(r0):
            for k in range(thread, r1, threads):
                result = g(result, f(x[begin + outer * k1 * r1 + k]))
        held[thread] = result
        cuda.syncthreads()
        while threads > 1:
            half = (threads + 1) // 2
            if thread + half < threads:
                held[thread] = g(held[thread], held[thread + half])
            cuda.syncthreads()
            threads = half
        if thread == 0:
            out[cuda.blockIdx.x] = held[0] / divisor
    return fold_lines


@kernel_of
def _fold_columns_cuda(f, g):
    def fold_columns(x, k1, r0, r1, columns, start, divisor, out):
        """A block of (columns, rows) threads reduces blockDim.x neighbouring columns; its rows are joined in a tree."""
        held = cuda.shared.array((16, 32), x.dtype)
        across = (columns + cuda.blockDim.x - 1) // cuda.blockDim.x
        group = cuda.blockIdx.x // across
        i = group // k1
        lane, thread, threads = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
        column = (cuda.blockIdx.x - group * across) * cuda.blockDim.x + lane
        begin = (i * r0 * k1 + group - i * k1) * r1 * columns + column
        result = start
        if column < columns:
            for outer in range(r0):
                for row in range(thread, r1, threads):
                    result = g(result, f(x[begin + (outer * k1 * r1 + row) * columns]))
        held[thread, lane] = result
        cuda.syncthreads()
        while threads > 1:
            half = (threads + 1) // 2
            if thread + half < threads:
                held[thread, lane] = g(held[thread, lane], held[thread + half, lane])
            cuda.syncthreads()
            threads = half
        if thread == 0 and column < columns:
            out[group * columns + column] = held[0, lane] / divisor
    return fold_columns


@kernel
def _argmax_cuda(x, size, inner, out):
    """A block finds one output: each thread the best of its values, then the better of two, the earlier of equals."""
    held = cuda.shared.array(256, x.dtype)
    places = cuda.shared.array(256, out.dtype)
    i = cuda.blockIdx.x // inner
    begin = i * (size - 1) * inner + cuda.blockIdx.x
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    place = thread if thread < size else 0
    best = x[begin + place * inner]
    for k in range(thread + threads, size, threads):
        v = x[begin + k * inner]
        if v > best or (v != v and best == best):
            best = v
            place = k
    held[thread] = best
    places[thread] = place
    cuda.syncthreads()
    while threads > 1:
        half = (threads + 1) // 2
        if thread + half < threads:
            mine, other = held[thread], held[thread + half]
            wins = other > mine or (other != other and mine == mine)
            ties = (other == mine or (other != other and mine != mine)) and places[thread + half] < places[thread]
            if wins or ties:
                held[thread] = other
                places[thread] = places[thread + half]
        cuda.syncthreads()
        threads = half
    if thread == 0:
        out[cuda.blockIdx.x] = places[0]


@kernel
def _extreme_grad_cuda(dy, x, y, size, inner, dx):
    """A thread writes one line (its values lie `inner` apart, so neighbouring threads touch neighbouring values)."""
    at = cuda.grid(1)
    if at < dy.size:
        begin = at // inner * (size - 1) * inner + at
        found = False
        for k in range(begin, begin + size * inner, inner):
            v = x[k]
            here = not found and (v == y[at] or v != v)
            found = found or here
            dx[k] = dy[at] if here else x.dtype.type(0)


def threads_for(size, most=256):
    """Threads of a block for `size` values: a power of two from 32 to `most`."""
    return min(most, max(32, 1 << (max(1, size) - 1).bit_length()))


def fold_cuda(x, k1, r0, r1, columns, f, g, start, divisor, out):
    start, divisor = x.dtype.type(start), x.dtype.type(divisor)
    groups = out.size // columns
    if columns == 1:
        _fold_lines_cuda(f, g, x.dtype)[groups, threads_for(r1)](x, k1, r0, r1, start, divisor, out)
    else:
        grid, block = groups * blocks(columns, 32), (32, min(16, max(1, r1)))
        _fold_columns_cuda(f, g, x.dtype)[grid, block](x, k1, r0, r1, columns, start, divisor, out)


def argmax_cuda(x, size, inner, larger, out):
    _argmax_cuda[out.size, threads_for(size)](x, size, inner, out)


def extreme_grad_cuda(dy, x, y, size, inner, dx):
    _extreme_grad_cuda[blocks(dy.size, 64), 64](dy, x, y, size, inner, dx)
