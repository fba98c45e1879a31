"""CUDA kernels of attention: a warp for each query (and backwards for each key), WARP scores at a time.

A lane computes one score, the warp their maximum and sum, and then its lanes go along the row of the result. The block
of scores is never in memory: only WARP of them, in shared memory, for the lanes to read.
"""
import math

from engine.kernels.gpu import cuda, device, kernel, shared_array, warp_max, warp_sum
from engine.kernels.split import WARP, least

WARPS = 4                                    # rows of a block
HELD = WARPS * WARP


@device
def dot(a, b):
    total = a.dtype.type(0)
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@device
def score(q, k, mask, head, i, j, heads, steps, masked, causal, factor):
    """The score of query i and key j; -inf where the key is not to be seen."""
    if i >= q.shape[1] or j >= k.shape[1] or (causal and j > i):
        return q.dtype.type(-math.inf)
    found = dot(q[head, i], k[head, j]) * factor
    if masked:
        n = head // heads
        found += mask[n * steps[0] + (head - n * heads) * steps[1] + i * steps[2] + j * steps[3]]
    return found


@device
def place(rows):
    """(head, row, lane, where the warp's values begin) of a block that takes WARPS of `rows` rows"""
    pieces = (rows + WARPS - 1) // WARPS
    head = cuda.blockIdx.x // pieces
    warp = cuda.threadIdx.x // WARP
    return head, (cuda.blockIdx.x - head * pieces) * WARPS + warp, cuda.threadIdx.x % WARP, warp * WARP


@kernel
def _attention(q, k, v, mask, heads, steps, masked, causal, factor, out, log_sums):
    held, number = shared_array(HELD, q.dtype), q.dtype.type
    head, i, lane, own = place(q.shape[1])
    keys, e, lowest, zero = k.shape[1], v.shape[2], q.dtype.type(-math.inf), q.dtype.type(0)
    top, total = lowest, zero
    end = least(keys, i - own // WARP + WARPS) if causal else keys           # the block's last row sees most
    for first in range(0, end, WARP):
        found = score(q, k, mask, head, i, first + lane, heads, steps, masked, causal, factor)
        best = number(warp_max(found))
        best = best if best > top else top
        shift = zero if best == lowest else best
        weight, keep = math.exp(found - shift), math.exp(top - shift)
        total, top = total * keep + number(warp_sum(weight)), best
        cuda.syncthreads()                   # the values before have been read
        held[own + lane] = weight
        cuda.syncthreads()
        if i < q.shape[1]:
            for c in range(lane, e, WARP):
                sum = out[head, i, c] * keep if first > 0 else zero
                for t in range(least(WARP, keys - first)):
                    sum += held[own + t] * v[head, first + t, c]
                out[head, i, c] = sum
    if i < q.shape[1]:
        for c in range(lane, e, WARP):
            out[head, i, c] = zero if total == zero else out[head, i, c] / total
        if lane == 0:
            log_sums[head, i] = top + math.log(total) if top > lowest else top


@kernel
def _grad_of_queries(dout, q, k, v, mask, out, log_sums, heads, steps, masked, causal, factor, dq, deltas):
    held, number = shared_array(HELD, q.dtype), q.dtype.type
    head, i, lane, own = place(q.shape[1])
    keys, lowest, zero, delta = k.shape[1], q.dtype.type(-math.inf), q.dtype.type(0), q.dtype.type(0)
    here = i < q.shape[1]
    if here:
        for c in range(lane, v.shape[2], WARP):
            delta += dout[head, i, c] * out[head, i, c]
    delta = number(warp_sum(delta))
    if here and lane == 0:
        deltas[head, i] = delta
    end = least(keys, i - own // WARP + WARPS) if causal else keys
    if here and end == 0:
        for c in range(lane, q.shape[2], WARP):
            dq[head, i, c] = zero
    for first in range(0, end, WARP):
        j, slope = first + lane, zero
        found = score(q, k, mask, head, i, j, heads, steps, masked, causal, factor)
        if found > lowest or found != found:
            slope = math.exp(found - log_sums[head, i]) * (dot(dout[head, i], v[head, j]) - delta)
        cuda.syncthreads()
        held[own + lane] = slope
        cuda.syncthreads()
        if here:
            for c in range(lane, q.shape[2], WARP):
                sum = dq[head, i, c] if first > 0 else zero
                for t in range(least(WARP, keys - first)):
                    sum += held[own + t] * k[head, first + t, c] * factor
                dq[head, i, c] = sum


@kernel
def _grad_of_keys(dout, q, k, v, mask, log_sums, heads, steps, masked, causal, factor, dk, dv, deltas):
    held, kept = shared_array(HELD, q.dtype), shared_array(HELD, q.dtype)
    head, j, lane, own = place(k.shape[1])
    length, lowest, zero = q.shape[1], q.dtype.type(-math.inf), q.dtype.type(0)
    here = j < k.shape[1]
    if here:
        for c in range(lane, q.shape[2], WARP):
            dk[head, j, c] = zero
        for c in range(lane, v.shape[2], WARP):
            dv[head, j, c] = zero
    begin = (j - own // WARP) // WARP * WARP if causal else 0                # no query before sees the block's keys
    for first in range(begin, length, WARP):
        i, slope, weight = first + lane, zero, zero
        found = score(q, k, mask, head, i, j, heads, steps, masked, causal, factor)
        if found > lowest or found != found:
            weight = math.exp(found - log_sums[head, i])
            slope = weight * (dot(dout[head, i], v[head, j]) - deltas[head, i]) * factor
        cuda.syncthreads()
        held[own + lane], kept[own + lane] = slope, weight
        cuda.syncthreads()
        if here:
            for c in range(lane, q.shape[2], WARP):
                for t in range(least(WARP, length - first)):
                    dk[head, j, c] += held[own + t] * q[head, first + t, c]
            for c in range(lane, v.shape[2], WARP):
                for t in range(least(WARP, length - first)):
                    dv[head, j, c] += kept[own + t] * dout[head, first + t, c]


def _blocks(count, rows):
    return count * -(-rows // WARPS), HELD


def attention(q, k, v, mask, heads, step_n, step_h, step_i, step_j, masked, causal, factor, out, log_sums):
    _attention[_blocks(*q.shape[:2])](q, k, v, mask, heads, (step_n, step_h, step_i, step_j), masked, causal,
                                      q.dtype.type(factor), out, log_sums)


def attention_grad(dout, q, k, v, mask, out, log_sums, heads, step_n, step_h, step_i, step_j, masked, causal, factor,
                   dq, dk, dv, deltas):
    steps, factor = (step_n, step_h, step_i, step_j), q.dtype.type(factor)
    if q.shape[1]:
        _grad_of_queries[_blocks(*q.shape[:2])](dout, q, k, v, mask, out, log_sums, heads, steps, masked, causal,
                                                factor, dq, deltas)
    if k.shape[1]:
        _grad_of_keys[_blocks(*k.shape[:2])](dout, q, k, v, mask, log_sums, heads, steps, masked, causal, factor, dk,
                                             dv, deltas)
