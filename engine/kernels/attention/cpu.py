"""CPU kernels of attention: blocks of the score matrix, each made, used and forgotten while it is in the cache.

The products are those of `engine.kernels.blocks`. Forward, tasks share blocks of queries; a task packs keys and values
of a head when it comes to it. Backward, tasks share heads, since every query adds to the gradients of all keys. Sums
run over blocks in order: the same bits for any number of tasks.
"""
import numpy as np

from engine.kernels import elementary
from engine.kernels.blocks import clear, multiply, pack, pack_transposed, packed_size
from engine.kernels.op import Spec
from engine.kernels.simd import (
    ROWS,
    broadcast,
    lanes_of,
    part,
    pointer,
    row_max,
    tile,
    tile_load,
    tile_max,
    tile_store,
)
from engine.kernels.split import SUMS, span

QUERIES, KEYS = 4 * ROWS, 128                # rows and columns of a block of scores
SERIAL_BELOW = 500_000                       # multiply-adds that one thread does in about 10 us


def plan(count, length, keys, d, e, dtype, threads, backward):
    """(tasks, Specs of the work array, (values of a packed block of keys, of values)): see `room`."""
    macs = count * length * keys * (d + e) * (2 if backward else 1)
    pieces = count if backward else count * -(-length // QUERIES)
    tasks = 1 if macs < SERIAL_BELOW else max(1, min(threads, pieces))
    blocks = -(-keys // KEYS)
    packed = [_even(max(packed_size(d, KEYS, dtype), packed_size(KEYS, d, dtype))),
              _even(max(packed_size(e, KEYS, dtype), packed_size(KEYS, e, dtype)))]
    size = blocks * (packed[0] * (1 + backward) + packed[1]) + backward * sum(packed)
    size += QUERIES * (2 * KEYS + d + max(d, e) + 2) + KEYS
    return tasks, (Spec((tasks * _even(size),), np.dtype(dtype)),), tuple(packed)


def _even(size):
    """Rounded up, so that strips begin on cache lines."""
    return -(-size // 64) * 64


@part
def room(own, d, e):
    """Places in a task's work behind what is packed: scores, their gradients, scaled queries, sums of results, two
    numbers for each query, zeros."""
    scores = own
    slopes = scores + QUERIES * KEYS
    scaled = slopes + QUERIES * KEYS
    sums = scaled + QUERIES * d
    first = sums + QUERIES * (d if d > e else e)
    return scores, slopes, scaled, sums, first, first + QUERIES, first + 2 * QUERIES


@part(disjoint=True)
def scale(p, count, factor, to):
    """to[:count] = factor p[:count]"""
    for k in range(count):
        to[k] = factor * p[k]


@part(disjoint=True)
def add(p, count, step, row):
    """row[:count] += p[::step]"""
    if step == 1:
        for k in range(count):
            row[k] += p[k]
    else:
        for k in range(count):
            row[k] += p[k * step]


@part
def hide(rows, columns, width, i, j, mask, steps, masked, causal, lowest, scores):
    """Adds the mask to a block of scores that begins at (i, j); lowest beyond the diagonal and from `columns` on."""
    for r in range(rows):
        row, seen = scores + r * KEYS, columns
        if masked:
            add(mask + (i + r) * steps[0] + j * steps[1], columns, steps[1], row)
        if causal and i + r + 1 - j < columns:
            seen = max(0, i + r + 1 - j)
        for k in range(seen, width):
            row[k] = lowest


@part
def largest(width, row, to):
    """to[0] = the larger of to[0] and all values of a row of whole vectors"""
    lanes = lanes_of(row)
    found = broadcast(tile(1, 1, row), to[0])
    for k in range(0, width, lanes):
        found = tile_max(found, tile_load(found, row + k, 0))
    tile_store(row_max(found), to, 0, 1)


@part(disjoint=True, fastmath=SUMS)
def exponentials(width, row, shift, total):
    """row = exp(row - shift); their sum and `total`"""
    for k in range(width):
        e = elementary.exp(row[k] - shift)
        row[k] = e
        total += e
    return total


@part(disjoint=True)
def powers(width, row, shift):
    """row = exp(row - shift)"""
    for k in range(width):
        row[k] = elementary.exp(row[k] - shift)


@part
def soften(rows, width, e, zero, lowest, scores, tops, totals, sums):
    """A block of scores becomes exp(score - top so far); what was summed under an earlier top is scaled down."""
    for r in range(rows):
        before = tops[r]
        largest(width, scores + r * KEYS, tops + r)
        shift = zero if tops[r] == lowest else tops[r]       # nothing to see yet: -inf - -inf would be NaN
        factor = elementary.exp(before - shift)
        totals[r] = exponentials(width, scores + r * KEYS, shift, totals[r] * factor)
        scale(sums + r * e, e, factor, sums + r * e)


@part
def pack_head(keys, d, e, k, v, by_queries, by_weights, sizes):
    """All blocks of a head's keys, for q k.T, and of its values, for weights v."""
    for b in range((keys + KEYS - 1) // KEYS):
        columns = min(KEYS, keys - b * KEYS)
        pack_transposed(d, columns, k + b * KEYS * d, d, by_queries + b * sizes[0])
        pack(columns, e, v + b * KEYS * e, e, by_weights + b * sizes[1])


@part
def whole_strips(columns, like):
    width = 2 * lanes_of(like)
    return (columns + width - 1) // width * width


@part
def attention_cpu(q, k, v, mask, heads, step_n, step_h, step_i, step_j, masked, causal, factor, out, log_sums, work,
                  key_size, value_size, task, tasks):
    """A task's share of the blocks of queries, head by head."""
    count, length, d = q.shape
    keys, e, pieces = k.shape[1], v.shape[2], (length + QUERIES - 1) // QUERIES
    zero, one, lowest = q.dtype.type(0), q.dtype.type(1), q.dtype.type(-np.inf)
    first, share = span(count * pieces, task, tasks)
    sizes, blocks, packed = (key_size, value_size), (keys + KEYS - 1) // KEYS, -1
    by_queries = pointer(work) + work.size // tasks * task
    by_weights = by_queries + blocks * key_size
    scores, _, scaled, sums, tops, totals, zeros = room(by_weights + blocks * value_size, d, e)
    clear(zeros, KEYS)
    for piece in range(first, first + share):
        head, i = piece // pieces, piece % pieces * QUERIES
        rows = min(QUERIES, length - i)
        if head != packed:
            pack_head(keys, d, e, pointer(k) + head * keys * d, pointer(v) + head * keys * e, by_queries, by_weights,
                      sizes)
            packed = head
        own = pointer(mask) + (head // heads * step_n + head % heads * step_h)
        scale(pointer(q) + (head * length + i) * d, rows * d, q.dtype.type(factor), scaled)
        clear(sums, rows * e)
        clear(totals, rows)
        for r in range(rows):
            tops[r] = lowest
        for b in range(blocks):
            j = b * KEYS
            if causal and j > i + rows - 1:
                break
            columns = min(KEYS, keys - j)
            width = whole_strips(columns, scores)
            multiply(rows, columns, d, (scaled, d, 1), by_queries + b * key_size, (zeros, 0, 0), scores, KEYS)
            hide(rows, columns, width, i, j, own, (step_i, step_j), masked, causal, lowest, scores)
            soften(rows, width, e, zero, lowest, scores, tops, totals, sums)
            multiply(rows, e, columns, (scores, KEYS, 1), by_weights + b * value_size, (sums, e, 1), sums, e)
        for r in range(rows):
            at = head * length + i + r
            scale(sums + r * e, e, zero if totals[r] == zero else one / totals[r], pointer(out) + at * e)
            log_sums[head, i + r] = tops[r] + elementary.log(totals[r]) if tops[r] > lowest else tops[r]


# ------------------------------------------------------------------------------------------------------------ backward


@part(disjoint=True, fastmath=SUMS)
def dot(a, b, count, total):
    """total + the sum of a[k] b[k]"""
    for k in range(count):
        total += a[k] * b[k]
    return total


@part(disjoint=True)
def slopes_of(columns, weights, delta, slopes):
    """The gradient of a row of scores, from that of its weights: w (dw - sum(w dw))"""
    for k in range(columns):
        slopes[k] = weights[k] * (slopes[k] - delta)


@part
def pack_head_back(keys, d, e, k, v, places, sizes):
    """All blocks of a head's keys, for q k.T and for slopes k, and of its values, for dout v.T."""
    for b in range((keys + KEYS - 1) // KEYS):
        columns = min(KEYS, keys - b * KEYS)
        pack_transposed(d, columns, k + b * KEYS * d, d, places[0] + b * sizes[0])
        pack(columns, d, k + b * KEYS * d, d, places[1] + b * sizes[0])
        pack_transposed(e, columns, v + b * KEYS * e, e, places[2] + b * sizes[1])


@part
def begin_rows(rows, d, e, q, dout, out, factor, zero, scaled, sums, deltas, by_slopes, by_weights):
    """For a block of queries: q scaled and packed, dout packed, delta = sum(dout out) of each row, no sums yet."""
    scale(q, rows * d, factor, scaled)
    pack(rows, d, scaled, d, by_slopes)
    pack(rows, e, dout, e, by_weights)
    clear(sums, rows * d)
    for r in range(rows):
        deltas[r] = dot(dout + r * e, out + r * e, e, zero)


@part
def attention_grad_cpu(dout, q, k, v, mask, out, log_sums, heads, step_n, step_h, step_i, step_j, masked, causal,
                       factor, dq, dk, dv, work, key_size, value_size, task, tasks):
    """A task's share of the heads: weights are computed again, block by block, from the sums that were kept."""
    count, length, d = q.shape
    keys, e = k.shape[1], v.shape[2]
    zero, lowest, number = q.dtype.type(0), q.dtype.type(-np.inf), q.dtype.type(factor)
    first, share = span(count, task, tasks)
    sizes, blocks = (key_size, value_size), (keys + KEYS - 1) // KEYS
    start = pointer(work) + work.size // tasks * task
    places = start, start + blocks * key_size, start + 2 * blocks * key_size
    of_q = places[2] + blocks * value_size
    of_dout = of_q + key_size
    weights, slopes, scaled, sums, deltas, _, zeros = room(of_dout + value_size, d, e)
    clear(zeros, KEYS)
    for head in range(first, first + share):
        pk, pv, to_k, to_v = head * keys * d, head * keys * e, pointer(dk) + head * keys * d, pointer(dv)
        to_v = to_v + pv
        pack_head_back(keys, d, e, pointer(k) + pk, pointer(v) + pv, places, sizes)
        clear(to_k, keys * d)
        clear(to_v, keys * e)
        own = pointer(mask) + (head // heads * step_n + head % heads * step_h)
        for i in range(0, length, QUERIES):
            rows, at = min(QUERIES, length - i), head * length + i
            begin_rows(rows, d, e, pointer(q) + at * d, pointer(dout) + at * e, pointer(out) + at * e, number, zero,
                       scaled, sums, deltas, of_q, of_dout)
            for b in range(blocks):
                j = b * KEYS
                if causal and j > i + rows - 1:
                    break
                columns = min(KEYS, keys - j)
                width = whole_strips(columns, weights)
                multiply(rows, columns, d, (scaled, d, 1), places[0] + b * key_size, (zeros, 0, 0), weights, KEYS)
                hide(rows, columns, width, i, j, own, (step_i, step_j), masked, causal, lowest, weights)
                multiply(rows, columns, e, (pointer(dout) + at * e, e, 1), places[2] + b * value_size, (zeros, 0, 0),
                         slopes, KEYS)
                for r in range(rows):
                    top = log_sums[head, i + r]
                    powers(columns, weights + r * KEYS, zero if top == lowest else top)
                    slopes_of(columns, weights + r * KEYS, deltas[r], slopes + r * KEYS)
                multiply(rows, d, columns, (slopes, KEYS, 1), places[1] + b * key_size, (sums, d, 1), sums, d)
                multiply(columns, d, rows, (slopes, 1, KEYS), of_q, (to_k + j * d, d, 1), to_k + j * d, d)
                multiply(columns, e, rows, (weights, 1, KEYS), of_dout, (to_v + j * e, e, 1), to_v + j * e, e)
            scale(sums, rows * d, number, pointer(dq) + at * d)
