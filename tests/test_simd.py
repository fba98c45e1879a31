"""Tiles, word by word, against NumPy; the same tests hold compiled and with NUMBA_DISABLE_JIT=1."""
import numpy as np
import pytest
from numba import config, njit

from engine.kernels import simd
from engine.kernels.formula import Formula
from engine.kernels.simd import (
    HEIGHTS,
    ROWS,
    broadcast,
    by_rows,
    column_sum,
    lanes_of,
    low_product,
    lower,
    next_panels,
    numbered,
    outer_fma,
    part,
    pointer,
    prefetch,
    prefetch_to_write,
    row_max,
    row_sum,
    square_tile,
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
    transpose,
    where_at_most,
    where_equal,
    where_larger,
    woven,
)
from engine.kernels.simd.host import _vectors

DTYPES = ("float32", "float64")
ROWS_HERE, VECTORS_HERE = 5, 2


def random(*shape, dtype="float32"):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def width(dtype):
    return VECTORS_HERE * simd.lanes(np.dtype(dtype))


@njit(error_model="numpy")
def copied(a, columns, out):
    t = tile(5, 2, pointer(a))
    prefetch(t, pointer(a), a.shape[1], 2)
    prefetch_to_write(t, pointer(a), a.shape[1], 2)
    tile_store(tile_load(t, pointer(a), a.shape[1], columns), pointer(out), out.shape[1])


@njit(error_model="numpy")
def stored(a, columns, out):
    t = tile_load(tile(5, 2, pointer(a)), pointer(a), a.shape[1])
    tile_store(t, pointer(out), out.shape[1], columns)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [0, 1, 3, 7, 100])
def test_load_and_store_stop_at_the_edge(dtype, columns):
    a = random(ROWS_HERE, width(dtype) + 3, dtype=dtype)
    n = min(columns, width(dtype))
    loaded, kept = np.full((ROWS_HERE, width(dtype)), 7, dtype), np.full((ROWS_HERE, width(dtype) + 1), 7, dtype)
    copied(a, columns, loaded)
    stored(a, columns, kept)
    np.testing.assert_array_equal(loaded[:, :n], a[:, :n])
    assert (loaded[:, n:] == 0).all(), "columns behind the edge load as zeros"
    np.testing.assert_array_equal(kept[:, :n], a[:, :n])
    assert (kept[:, n:] == 7).all(), "columns behind the edge stay as they are in memory"


@njit(error_model="numpy")
def product(a, b, c):
    acc = tile(5, 2, pointer(c))
    for k in range(a.shape[1]):
        row = tile_load(tile(1, 2, pointer(b)), pointer(b) + k * b.shape[1], 0, b.shape[1])
        acc = outer_fma(acc, pointer(a) + k, a.shape[1], row)
    tile_store(acc, pointer(c), c.shape[1], c.shape[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_outer_fma_is_a_matrix_product(dtype, n):
    a, b = random(ROWS_HERE, 9, dtype=dtype), random(9, min(n, width(dtype)), dtype=dtype)
    c = np.empty((ROWS_HERE, b.shape[1]), dtype)
    product(a, b, c)
    np.testing.assert_allclose(c, a.astype("f8") @ b, rtol=0, atol=50 * np.finfo(dtype).eps)


@njit(error_model="numpy")
def arithmetic(a, b, out):
    size = a.shape[0] * a.shape[1]
    t, ld = tile(5, 2, pointer(a)), a.shape[1]
    x, y = tile_load(t, pointer(a), ld), tile_load(t, pointer(b), ld)
    two = broadcast(t, b[0, 0])
    results = (x + y, x - y, x * y, x / y, tile_max(x, y), tile_fma(x, x, y), two, row_sum(x), row_max(x),
               where_larger(x, y, x * x, two), where_equal(x, broadcast(t, a[0, 1]), y, two))
    at = pointer(out)
    for r in results:
        tile_store(r, at, ld)
        at += size


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic(dtype):
    a, b = (random(ROWS_HERE, width(dtype), dtype=dtype) * s for s in (1, -2))
    b[1, 1] = a[2, 3] = np.nan
    out = np.empty((11, *a.shape), dtype)
    arithmetic(a, b, out)
    row = np.ones_like(a)
    want = (a + b, a - b, a * b, a / b, np.maximum(a, b), a + a.astype("f8") * b, row * b[0, 0],
            row * a.sum(1, keepdims=True), row * a.max(1, keepdims=True),
            np.where((a > b) | np.isnan(a), a * a, b[0, 0]), np.where(a == a[0, 1], b, b[0, 0]))
    for got, expected in zip(out, want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps)


@njit(error_model="numpy")
def turned(a, out, sums):
    t = tile_load(square_tile(pointer(a)), pointer(a), a.shape[1])
    tile_store(transpose(t), pointer(out), out.shape[1])
    tile_store(column_sum(t), pointer(sums), 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_and_column_sum(dtype):
    n = simd.lanes(np.dtype(dtype))
    a, out, sums = random(n, n, dtype=dtype), np.empty((n, n), dtype), np.empty(n, dtype)
    turned(a, out, sums)
    np.testing.assert_array_equal(out, a.T)
    np.testing.assert_allclose(sums, a.sum(0), rtol=0, atol=n * np.finfo(dtype).eps * 4)


@njit(error_model="numpy", forceinline=True)
def leaky(x):
    if x > 0:
        return x
    return x * x


def squared_below(x):
    return x if x > 0 else x * x


@njit(error_model="numpy", forceinline=True)
def times(x, y):
    return x * y


@njit(error_model="numpy")
def mapped(a, b, f, out):
    t = tile_load(tile(5, 2, pointer(a)), pointer(a), a.shape[1])
    u = tile_load(t, pointer(b), a.shape[1])
    tile_store(tile_map2(tile_map(t, f), times, u), pointer(out), a.shape[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["njit", "formula"])
def test_any_function_over_a_tile(kind, dtype):
    a, b = random(ROWS_HERE, width(dtype), dtype=dtype), random(ROWS_HERE, width(dtype), dtype=dtype) + 1
    out = np.empty_like(a)
    mapped(a, b, leaky if kind == "njit" else Formula(squared_below, "leaky").cpu(dtype), out)
    np.testing.assert_allclose(out, np.where(a > 0, a, a * a) * b, rtol=4 * np.finfo(dtype).eps)


@njit(error_model="numpy")
def sum_of_squares(x, out):
    """A 1-D pass: tiles of one row."""
    p, n = pointer(x), x.shape[0]
    acc = tile(1, 2, p)
    for i in range(0, n, 2 * lanes_of(p)):
        t = tile_load(acc, p + i, 0, n - i)
        acc = tile_fma(acc, t, t)
    tile_store(row_sum(acc), pointer(out), 0, 1)


@pytest.mark.parametrize("n", [0, 1, 15, 32, 33, 1001])
def test_tiles_of_one_row_are_vectors(n):
    x, out = random(n), np.empty(1, np.float32)
    sum_of_squares(x, out)
    np.testing.assert_allclose(out[0], (x.astype("f8") ** 2).sum(), rtol=1e-5)


@njit(error_model="numpy")
def words(first, factor, limit, ones, out):
    """Two products of the numbers from `first` on as their words, kept where at most `limit`."""
    numbers = numbered(first)
    product = low_product(numbers, factor)
    pairs = woven(product ^ numbers, lower(swapped(product)))
    t = tile_load(tile_of_words(pointer(ones)), pointer(ones), 0)
    tile_put(simd.NEAR, where_at_most(pairs, limit, t), pointer(out))


@pytest.mark.parametrize("dtype", DTYPES)
def test_words_of_whole_numbers_come_in_order(dtype):
    first, factor, limit = np.uint64(3 << 30), np.uint64(0xD2511F53), np.uint64(0x9fffffff)
    out = np.empty(simd.WORDS, dtype)
    words(first, factor, limit, np.ones_like(out), out)
    numbers = first + np.arange(simd.WORDS // 4, dtype=np.uint64)
    product = numbers * factor
    pairs = np.stack([product ^ numbers, product >> np.uint64(32)], 1)
    halves = np.stack([pairs & np.uint64(0xffffffff), pairs >> np.uint64(32)], 2).reshape(-1)
    np.testing.assert_array_equal(out, halves <= limit)


@part
def count_rows(rows, tiles, at, add):
    """Writes `rows` once for each tile: the height is a literal here."""
    t = broadcast(tile(rows, 1, at), add)
    for i in range(tiles):
        tile_store(t, at + i * rows, 1, 1)


@njit(error_model="numpy")
def covered(out):
    i, n = 0, out.shape[0]
    while i < n:
        height, count = next_panels(n - i)
        by_rows(count_rows, height, 1, ROWS, (count, pointer(out) + i, out.dtype.type(height)))
        i += height * count
    return i


@pytest.mark.parametrize("n", [*range(50), 97, 128, 1000])
def test_panels_cover_the_rows_once(n):
    out = np.zeros(n, np.float32)
    assert covered(out) == n
    assert set(out) <= set(HEIGHTS)
    assert (np.diff(out) <= 0).all(), "the tallest panels come first"


def test_only_the_wanted_variants_exist():
    out = np.zeros(4, np.float32)
    one_and_two(out)
    assert out.tolist() == [5, 0, 0, 0], "a height outside first .. last does nothing"


@njit(error_model="numpy")
def one_and_two(out):
    for height in (1, 4):
        by_rows(count_rows, height, 1, 2, (1, pointer(out), out.dtype.type(5)))


@pytest.mark.skipif(not config.DISABLE_JIT, reason="compiled pointers are not checked")
def test_without_compiling_a_wrong_address_is_an_error():
    p = pointer(np.zeros((2, 3)))
    with pytest.raises(IndexError, match="element 6 of an array of 6"):
        p[6]
    with pytest.raises(IndexError, match="element -1"):
        (p + 2)[-3]
    with pytest.raises(IndexError):
        tile_load(tile(2, 1, p), p, 3, 4)


@pytest.mark.skipif(config.DISABLE_JIT, reason="compiles")
def test_a_part_can_be_called_from_python():
    out = np.zeros(4, np.float32)
    fill(out, 3.0)
    assert (out == 3).all()


@part
def fill(out, value):
    for i in range(out.shape[0]):
        out[i] = value


HOSTS = [
    (("x86_64-linux", "sapphirerapids", "+avx2,+fma,+avx512f", False), (64, 32, True, True)),
    (("x86_64-linux", "haswell", "+avx2,+fma,-avx512f", False), (32, 16, True, True)),
    (("x86_64-linux", "haswell", "+avx2,+fma,+avx512f", True), (32, 16, True, True)),
    (("x86_64-linux", "x86-64", "+avx2,+fma,+avx512f", True), (16, 16, True, False)),
    (("x86_64-linux", "x86-64", "+sse2", False), (16, 16, False, False)),
    (("aarch64-linux", "neoverse-v1", "+neon", False), (16, 32, True, False)),
    (("arm64-apple-darwin", "apple-m2", "", False), (16, 32, True, False)),
]


@pytest.mark.parametrize(("host", "want"), HOSTS)
def test_vectors_follow_the_processor(host, want):
    assert _vectors(*host) == want


def test_this_computer():
    assert simd.VECTOR_BYTES in (16, 32, 64)
    assert HEIGHTS[-1] == ROWS
    assert 16 * 1024 <= simd.cache_bytes(1) <= simd.cache_bytes(2)
