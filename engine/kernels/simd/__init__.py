"""Register tiles as Numba types: the words in which CPU kernels are written. The only package that emits LLVM.

A `Tile` is a small matrix that lives in vector registers. A microkernel is then a loop over k in ordinary Numba:

    from numba import njit
    from engine.kernels.simd import *

    @njit
    def corner(a, b, c):                                  # c[:6, :one vector] = a[:6] @ b, C-contiguous float32
        acc = tile(6, 1, pointer(c))
        for k in range(a.shape[1]):
            row = tile_load(tile(1, 1, pointer(b)), pointer(b) + k * b.shape[1], 0)
            acc = outer_fma(acc, pointer(a) + k, a.shape[1], row)
        tile_store(acc, pointer(c), c.shape[1])

Pointers are typed and count elements; nothing checks them, except with NUMBA_DISABLE_JIT=1, where every word is plain
Python (`plain.py`, also the place to look up what a word means) and a wrong address is an IndexError.

| word | meaning |
|---|---|
| `pointer(array)`, `p + n`, `p[n]` | the address of an array's first element, moved, read, written |
| `tile(rows, vectors, like)` | zeros; rows and vectors are literals, the dtype is that of the pointer `like` |
| `square_tile(like)`, `lanes_of(like)` | lanes x lanes zeros; values in one vector |
| `broadcast(t, x)` | a tile like t, x everywhere |
| `tile_load(t, p, ld[, columns])` | a tile like t from p[i * ld + j]; zeros from column `columns` on |
| `tile_store(t, p, ld[, columns])` | the reverse; nothing is touched from column `columns` on |
| `put(store, array, k, x)` | array[k] = x, ordinarily (`NEAR`) or past the caches (`PAST`) |
| `tile_put(store, t, p)` | the same for a tile of one row |
| `is_past(store)`, `stream_end()` | which of them; the wait for what was stored past the caches |
| `flattened(array)` | the values of an array in one dimension |
| `to_boundary(p)` | elements from p to the next address at which PAST may begin |
| `prefetch(t, p, ld, rows)` | asks for the cache lines of the first rows of a tile like t |
| `prefetch_to_write(t, p, ld, rows)` | the same, for lines that will be written |
| `prefetch_inputs(inputs, out, first, count)` | asks for values of all arrays of a tuple but `out` |
| `outer_fma(t, a, a_row, row)` | t[i, j] + a[i * a_row] * row[0, j]; row is a tile of one row |
| `tile_fma(t, x, y)`, `+ - * /`, `tile_max(x, y)` | value by value, of tiles of one shape |
| `where_larger(x, y, a, b)`, `where_equal(...)` | a where x is larger than y or NaN (where x is y), else b |
| `row_sum(t)`, `row_max(t)` | each row's sum or maximum, in every column of it |
| `column_sum(t)` | a tile of one row |
| `transpose(t)` | of a square tile |
| `tile_map(t, f)`, `tile_map2(t, f, u)` | f(t[i, j]), f(t[i, j], u[i, j]): any njit function of numbers, a `Formula` |
| `numbered(first)`, `low_product(t, x)`, `swapped(t)`, `lower(t)`, `t ^ u` | uint64, pairs of words (`whole.py`) |
| `woven(t, u)`, `where_at_most(words, x, t)`, `tile_of_words(like)` | `WORDS` words in order, beside floats |
| `by_rows(f, rows, first, last, arguments)` | f(rows, *arguments), rows a literal: a variant for each of `HEIGHTS` |
| `next_panels(rows)` | (height, count): the next panels when so many rows remain |
| `hook(function, call, f, g)`, `call_hook(h, call)` | function(*call, f, g), for a unit to call |
| `@part` | like `@njit`, for the functions that a kernel calls: compiled only as a part of it |
| `@unit` | a part that is compiled by itself, once for each signature, and called by its symbol |

For a 1-D pass a tile has one row: `tile(1, 4, p)` is four vectors side by side. `ROWS` x 2 vectors is the tile that
fills the registers (`host.py`).
"""
from numba import config

from engine.kernels.simd.host import (
    HEIGHTS,
    ROWS,
    VECTOR_BYTES,
    VECTORS,
    WORDS,
    cache_bytes,
    lanes,
)
from engine.kernels.simd.parts import part
from engine.kernels.simd.stores import NEAR, PAST
from engine.kernels.simd.variants import next_panels

if config.DISABLE_JIT:
    from engine.kernels.simd.plain import (
        broadcast,
        by_rows,
        call_hook,
        column_sum,
        flattened,
        hook,
        is_past,
        lanes_of,
        low_product,
        lower,
        numbered,
        outer_fma,
        pointer,
        prefetch,
        prefetch_inputs,
        prefetch_to_write,
        put,
        row_max,
        row_sum,
        square_tile,
        stream_end,
        swapped,
        tile,
        tile_fma,
        tile_load,
        tile_map,
        tile_map2,
        tile_max,
        tile_of_words,
        tile_put,
        tile_store,
        to_boundary,
        transpose,
        unit,
        where_at_most,
        where_equal,
        where_larger,
        woven,
    )
else:
    from engine.kernels.simd.arithmetic import (
        column_sum,
        outer_fma,
        row_max,
        row_sum,
        tile_fma,
        tile_map,
        tile_map2,
        tile_max,
        transpose,
        where_equal,
        where_larger,
    )
    from engine.kernels.simd.memory import (
        broadcast,
        flattened,
        lanes_of,
        pointer,
        prefetch,
        prefetch_inputs,
        prefetch_to_write,
        square_tile,
        stream_end,
        tile,
        tile_load,
        tile_store,
        to_boundary,
    )
    from engine.kernels.simd.stores import is_past, put, tile_put
    from engine.kernels.simd.units import call_hook, hook, unit
    from engine.kernels.simd.variants import by_rows
    from engine.kernels.simd.whole import (
        low_product,
        lower,
        numbered,
        swapped,
        tile_of_words,
        where_at_most,
        woven,
    )

__all__ = ["HEIGHTS", "NEAR", "PAST", "ROWS", "VECTORS", "VECTOR_BYTES", "WORDS", "broadcast", "by_rows", "cache_bytes",
           "call_hook", "column_sum", "flattened", "hook", "is_past", "lanes", "lanes_of", "low_product", "lower",
           "next_panels", "numbered", "outer_fma", "part", "pointer", "prefetch", "prefetch_inputs",
           "prefetch_to_write", "put", "row_max", "row_sum", "square_tile", "stream_end", "swapped", "tile", "tile_fma",
           "tile_load", "tile_map", "tile_map2", "tile_max", "tile_of_words", "tile_put", "tile_store", "to_boundary",
           "transpose", "unit", "where_at_most", "where_equal", "where_larger", "woven"]
