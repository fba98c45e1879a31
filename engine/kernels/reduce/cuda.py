"""CUDA kernels of the reductions and their launchers. All arrays are flat.

What threads found is joined by shuffles and in trees: the order is fixed by the shapes.
"""
from engine.kernels.elementwise import IDENTITY
from engine.kernels.gpu import blocks, cuda, kernel, kernel_of, load4, shuffle_xor, starts_aligned
from engine.kernels.split import WARP, WARPS

WIDE_FROM = 128                              # values of a line that give each lane of a warp four


@kernel_of
def _fold_lines_cuda(f, g, wide):
    """wide: lines and pieces are made of fours that begin on 16-byte boundaries"""
    def fold_lines(x, k1, r0, r1, length, in_line, start, divisor, out):
        """A block reduces one piece of `length` rows of one output: each thread every blockDim-th value (or every so
        many fours), then the lanes of each warp by shuffles, then the first thread what the warps found."""
        held = cuda.shared.array(WARPS, x.dtype)
        pieces = r0 * in_line
        group = cuda.blockIdx.x // pieces
        piece = cuda.blockIdx.x - group * pieces
        outer, i = piece // in_line, group // k1
        first = (piece - outer * in_line) * length
        begin = ((i * r0 + outer) * k1 + group - i * k1) * r1 + first
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        result, rows = start, length if length < r1 - first else r1 - first
        if wide:
            for k in range(begin + 4 * thread, begin + rows, 4 * threads):
                p, q, r, s = load4(x, k)
                result = g(result, g(g(f(p), f(q)), g(f(r), f(s))))
        else:
            for k in range(begin + thread, begin + rows, threads):
                result = g(result, f(x[k]))
        for bit in range(5):
            result = g(result, shuffle_xor(result, 16 >> bit))
        if thread % WARP == 0:
            held[thread // WARP] = result
        cuda.syncthreads()
        if thread == 0:
            for warp in range(1, threads // WARP):
                result = g(result, held[warp])
            out[cuda.blockIdx.x] = result / divisor
    return fold_lines


@kernel_of
def _fold_columns_cuda(f, g):
    def fold_columns(x, k1, r0, r1, columns, row_step, length, in_line, start, divisor, out):
        """A block of (columns, rows) threads reduces one piece of 32 neighbouring columns; its rows are joined in a
        tree."""
        held = cuda.shared.array((16, 32), x.dtype)
        across = (columns + 31) // 32
        pieces = r0 * in_line
        cell = cuda.blockIdx.x // across
        group = cell // pieces
        piece = cell - group * pieces
        outer, i = piece // in_line, group // k1
        first = (piece - outer * in_line) * length
        lane, thread, threads = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
        column = (cuda.blockIdx.x - cell * across) * 32 + lane
        begin = ((i * r0 + outer) * k1 + group - i * k1) * r1 * columns + column * (1 if row_step > 1 else r1)
        result, last = start, first + length if first + length < r1 else r1
        if column < columns:
            for row in range(first + thread, last, threads):
                result = g(result, f(x[begin + row * row_step]))
        held[thread, lane] = result
        cuda.syncthreads()
        while threads > 1:
            half = (threads + 1) // 2
            if thread + half < threads:
                held[thread, lane] = g(held[thread, lane], held[thread + half, lane])
            cuda.syncthreads()
            threads = half
        if thread == 0 and column < columns:
            out[cell * columns + column] = held[0, lane] / divisor
    return fold_columns


@kernel
def _argmax_cuda(x, size, columns, row_step, out):
    """A block finds one output: each thread the best of its values, then the better of two, the earlier of equals."""
    held = cuda.shared.array(256, x.dtype)
    places = cuda.shared.array(256, out.dtype)
    group = cuda.blockIdx.x // columns
    begin = group * size * columns + (cuda.blockIdx.x - group * columns) * (1 if row_step > 1 else size)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    place = thread if thread < size else 0
    best = x[begin + place * row_step]
    for k in range(thread + threads, size, threads):
        v = x[begin + k * row_step]
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


def fold_cuda(x, k1, r0, r1, columns, row_step, f, g, start, divisor, length, out, parts):
    """Pieces of `length` rows into parts, then the parts into out; at once into out where there is but one piece."""
    start, divisor = x.dtype.type(start), x.dtype.type(divisor)
    pieces = r0 * max(1, -(-r1 // length))
    if pieces == 1:
        _fold(x, k1, r0, r1, columns, row_step, f, g, length, start, divisor, out)
    else:
        _fold(x, k1, r0, r1, columns, row_step, f, g, length, start, x.dtype.type(1), parts)
        _fold(parts, out.size // columns, 1, pieces, columns, columns, IDENTITY, g, pieces, start, divisor, out)


def _fold(x, k1, r0, r1, columns, row_step, f, g, length, start, divisor, out):
    rows, in_line = max(1, min(length, r1)), max(1, -(-r1 // length))
    if columns == 1:
        wide = r1 % 4 == 0 and length % 4 == 0 and rows >= WIDE_FROM and starts_aligned(x)
        made, block = _fold_lines_cuda(f, g, wide, x.dtype), threads_for(rows // 4 if wide else rows)
        made[out.size, block](x, k1, r0, r1, length, in_line, start, divisor, out)
    else:
        made, block = _fold_columns_cuda(f, g, x.dtype), (32, min(16, rows))
        grid = out.size // columns * blocks(columns, 32)
        made[grid, block](x, k1, r0, r1, columns, row_step, length, in_line, start, divisor, out)


def argmax_cuda(x, size, columns, row_step, larger, out):
    _argmax_cuda[out.size, threads_for(size)](x, size, columns, row_step, out)


def extreme_grad_cuda(dy, x, y, size, inner, dx):
    _extreme_grad_cuda[blocks(dy.size, 64), 64](dy, x, y, size, inner, dx)
