"""CUDA products at their real tile sizes, in all transposed forms: on a GPU or in the emulator. The simulator runs the
same kernels at a small tile in test_ops.py."""
import numpy as np
import on_gpu
import pytest

from engine import target as targets
from engine.kernels import TABLE
from engine.kernels.activation import ACTIVATIONS
from engine.kernels.formula import Formula
from engine.kernels.half import cuda as halves
from engine.kernels.matmul import LINEAR
from engine.kernels.matmul import cuda as products
from engine.kernels.matmul import cuda_tiles
from engine.kernels.matmul.fused import joined

target = on_gpu.target
pytestmark = on_gpu.needed
FORMS = ((False, False), (True, False), (False, True), (True, True))
RNG = np.random.default_rng(5)
PLAINLY, CHECKED = False, True               # in the emulator: with checks of every access and race detection
TWICE = pytest.mark.parametrize("checked", [PLAINLY, pytest.param(CHECKED, marks=pytest.mark.slow)],
                                ids=["plain", "checked"])
TWICE_CHECKED_FIRST = pytest.mark.parametrize("checked", [pytest.param(PLAINLY, marks=pytest.mark.slow), CHECKED],
                                              ids=["plain", "checked"])


def run(target, name, *inputs, checked=PLAINLY, **attributes):
    with on_gpu.looking(checked):
        return target.fetch(TABLE[name](*map(target.place, inputs), **attributes))


@TWICE
@pytest.mark.parametrize("ta,tb", FORMS)
@pytest.mark.parametrize("tile", [products.LARGE, products.MEDIUM, products.SMALL], ids=lambda t: f"{t.rows}")
def test_every_tile_in_every_form(target, tile, ta, tb, checked, monkeypatch):
    monkeypatch.setattr(products, "tile_for", lambda m, n, dtype, k=0: tile)
    for m, k, n in ((tile.rows + 2, 33, 2 * tile.columns + 1), (2 * tile.rows, 64, tile.columns), (1, 9, 3)):
        a = RNG.standard_normal((k, m) if ta else (m, k)).astype(np.float32)
        b = RNG.standard_normal((n, k) if tb else (k, n)).astype(np.float32)
        want = (a.T if ta else a).astype(np.float64) @ (b.T if tb else b)
        got = run(target, "matmul", a, b, checked=checked, transpose_a=ta, transpose_b=tb)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("checked", [PLAINLY, CHECKED], ids=["plain", "checked"])
@pytest.mark.parametrize("ta,tb", FORMS)
def test_products_of_a_batch_in_every_form(target, ta, tb, checked, monkeypatch):
    """More products than the grid's second axis is told to have: several launches."""
    monkeypatch.setattr(products, "MOST_BLOCKS", 2)
    for count, m, k, n in ((5, 33, 20, 37), (3, 1, 40, 64), (2, 8, 0, 3)):
        a = RNG.standard_normal((count, k, m) if ta else (count, m, k)).astype(np.float32)
        b = RNG.standard_normal((count, n, k) if tb else (count, k, n)).astype(np.float32)
        want = (a.swapaxes(1, 2) if ta else a).astype(np.float64) @ (b.swapaxes(1, 2) if tb else b)
        got = run(target, "batched_matmul", a, b, checked=checked, transpose_a=ta, transpose_b=tb)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@TWICE
def test_a_tall_product_is_cut_along_k_in_a_fixed_order(target, checked):
    for k, pieces in ((2000, 7), (5000, 2 * products.JOINERS + 3)):      # few, which one thread adds, and many
        x, w = RNG.standard_normal((k, 20)).astype(np.float32), RNG.standard_normal((k, 30)).astype(np.float32)
        assert products.parts_spec(20, 30, k, np.float32)[0].shape == (pieces, 20, 30)
        first = run(target, "matmul", x, w, checked=checked, transpose_a=True)
        np.testing.assert_allclose(first, x.T.astype(np.float64) @ w, rtol=2e-4, atol=2e-4)
        np.testing.assert_array_equal(first, run(target, "matmul", x, w, transpose_a=True))


def test_long_sums_are_cut_for_larger_tiles():
    """The gradients of ResNet-50's 1x1 convolutions at batch 32: a GPU has enough blocks."""
    for m, n, k, tile in ((256, 128, 100352, products.LARGE), (64, 256, 100352, products.MEDIUM),
                          (1024, 512, 6272, products.LARGE), (256, 1024, 6272, products.MEDIUM)):
        pieces = products.pieces_for(m, n, k, np.float32)
        assert products.tile_for(m, n, np.float32, k) == tile
        assert 256 <= pieces * cuda_tiles.tile_count(m, n, tile) <= 512 and k // pieces >= products.PIECE
    assert products.pieces_for(2048, 512, 1568, np.float32) == 1, "as many tiles keep a GPU busy by themselves"


@TWICE
def test_the_epilogue_is_the_same_with_and_without_pieces(target, checked):
    bias = RNG.standard_normal(10).astype(np.float32)
    for i in (40, 1500):
        x, w = RNG.standard_normal((33, i)).astype(np.float32), RNG.standard_normal((i, 10)).astype(np.float32)
        want = np.tanh(x.astype(np.float64) @ w / 10 + bias)
        got = run(target, "dense", x / np.float32(10), w, bias, checked=checked, activation=ACTIVATIONS["tanh"])
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@TWICE
def test_arrays_that_begin_between_16_byte_boundaries(target, checked):
    memory = target.place(RNG.standard_normal(1 + 64 * 64).astype(np.float32))
    a = target.part(memory.view(np.uint8), 4, (64, 64), np.float32)
    want = target.fetch(a).astype(np.float64) @ target.fetch(a)
    with on_gpu.looking(checked):
        np.testing.assert_allclose(target.fetch(TABLE["matmul"](a, a)), want, rtol=2e-5, atol=2e-5)
        np.testing.assert_array_equal(target.fetch(TABLE["relu"](a)), np.maximum(target.fetch(a), 0))


@TWICE
@pytest.mark.parametrize("format", ["float16", "bfloat16"])
@pytest.mark.parametrize("ta,tb", FORMS)
def test_tensor_cores_at_the_large_tile(target, format, ta, tb, checked, monkeypatch):
    monkeypatch.setattr(halves, "tile_for", lambda m, n: halves.LARGE)
    reference = TABLE["matmul_half"].reference
    for m, k, n in ((136, 72, 144), (129, 33, 131)):
        a = TABLE["to_half"].reference(RNG.standard_normal((k, m) if ta else (m, k)), format)
        b = TABLE["to_half"].reference(RNG.standard_normal((n, k) if tb else (k, n)), format)
        got = run(target, "matmul_half", a, b, checked=checked, transpose_a=ta, transpose_b=tb, format=format)
        np.testing.assert_allclose(got, reference(a, b, ta, tb, format, "float32"), rtol=2e-5, atol=5e-5)


@TWICE_CHECKED_FIRST
@pytest.mark.parametrize("tile", [products.LARGE, products.MEDIUM, products.SMALL], ids=lambda t: f"{t.rows}")
def test_every_tile_with_every_epilogue(target, tile, checked, monkeypatch):
    """A residual, the slope of an activation, and the sums of columns."""
    monkeypatch.setattr(products, "tile_for", lambda m, n, dtype, k=0: tile)
    slope = Formula(lambda d, y: d * (1 - y * y), "slope_of_tanh")
    for m, k, n in ((tile.rows + 2, 33, tile.columns + 1), (tile.rows, 16, 2 * tile.columns)):
        a, b = RNG.standard_normal((m, k)).astype(np.float32), RNG.standard_normal((k, n)).astype(np.float32)
        y, bias = RNG.standard_normal((m, n)).astype(np.float32), RNG.standard_normal(n).astype(np.float32)
        product = a.astype(np.float64) @ b
        placed = [target.place(array) for array in (a, b, y, bias)]
        c, sums = target.place(np.zeros((m, n), np.float32)), target.place(np.zeros(n, np.float32))
        with on_gpu.looking(checked):
            products.matmul_slope(*placed[:3], 0, 0, slope, c)
            np.testing.assert_allclose(target.fetch(c), product * (1 - y * y), rtol=3e-5, atol=3e-5)
            products.dense_residual(placed[0], placed[1], placed[3], placed[2], joined(LINEAR.f), c)
            np.testing.assert_allclose(target.fetch(c), product + bias + y, rtol=3e-5, atol=3e-5)
            products.matmul_sums(*placed[:2], 0, 0, c, sums)
            np.testing.assert_allclose(target.fetch(c), product, rtol=3e-5, atol=3e-5)
            np.testing.assert_allclose(target.fetch(sums), b.sum(0), rtol=3e-5, atol=3e-5)


@TWICE
def test_the_slope_is_the_same_with_and_without_pieces(target, checked):
    slope = Formula(lambda d, y: d * (1 - y * y), "slope_of_tanh")
    a, b = RNG.standard_normal((33, 1500)).astype(np.float32), RNG.standard_normal((1500, 10)).astype(np.float32)
    y, c = RNG.standard_normal((33, 10)).astype(np.float32), target.place(np.zeros((33, 10), np.float32))
    spec, = products.parts_spec(33, 10, 1500, np.float32)
    parts = target.part(target.empty(spec.nbytes), 0, *spec)
    with on_gpu.looking(checked):
        products.matmul_slope(target.place(a), target.place(b), target.place(y), 0, 0, slope, c, parts)
    np.testing.assert_allclose(target.fetch(c), (a.astype(np.float64) @ b) * (1 - y * y), rtol=1e-4, atol=1e-4)


def test_loops_that_are_written_out_compute_the_same(target, monkeypatch):
    """On a GPU loops over `unrolled` are written out; the emulator leaves them, unless a GPU is there."""
    monkeypatch.setattr(type(targets.cuda), "present", lambda self: True)
    tiles = {name: value for name, value in vars(cuda_tiles).items() if hasattr(value, "cache_clear")}
    for made in tiles.values():
        made.cache_clear()
    monkeypatch.setattr(products._product, "_compiled", {})
    a = RNG.standard_normal((40, 37)).astype(np.float32)
    try:
        written_out = cuda_tiles.multiplier(products.SMALL).py_func
        got = run(target, "matmul", a, a.T.copy())
    finally:
        for made in tiles.values():
            made.cache_clear()
    assert "unrolled" not in written_out.__code__.co_names
    np.testing.assert_allclose(got, a.astype(np.float64) @ a.T, rtol=2e-5, atol=2e-5)
