"""CUDA convolutions at their real tile sizes, under race detection in the emulator (and, as long tests, plainly): on a
GPU or there. The simulator runs the same kernels at a small tile in test_ops.py."""
import numpy as np
import on_gpu
import pytest

from engine.kernels import TABLE
from engine.kernels.conv import CONV2D_PLAIN
from engine.kernels.conv import cuda as convolutions
from engine.kernels.conv import cuda_depthwise, geometry
from engine.kernels.conv.reference import conv2d_reference, output_of
from engine.kernels.matmul import LINEAR
from engine.kernels.matmul import cuda as products
from engine.kernels.matmul.cuda_tiles import MEDIUM, SMALL, SMALL_DOUBLE, tile_count
from engine.kernels.matmul.fused import joined

target, both_ways = on_gpu.target, on_gpu.both_ways
pytestmark = on_gpu.needed
RNG = np.random.default_rng(5)
# x, kernel, outputs, attributes: channels in fours and not, a stride of two in both, groups
LAYERS = (((2, 9, 8, 12), (3, 3), 68, {"padding": (1, 1, 1, 1)}),
          ((2, 11, 9, 5), (3, 2), 70, {"padding": (0, 2, 1, 0), "stride": (2, 2)}),
          ((1, 12, 13, 16), (3, 3), 136, {"padding": (2, 2, 2, 2), "stride": (2, 1), "dilation": (2, 1), "groups": 2}))


def agree(target, name, *inputs, **attributes):
    op = TABLE[name]
    given = [a.astype("f4") for a in inputs]
    got = target.fetch(op(*map(target.place, given), **attributes))
    want = op.reference(*(a.astype("f8") for a in given), **op.complete(attributes))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * max(1, np.abs(want).max()), err_msg=name)


def layer(number):
    x, kernel, outputs, given = LAYERS[number]
    a = CONV2D_PLAIN.complete(given)
    w = (*kernel, x[3] // a["groups"], outputs)
    y = (x[0], *output_of(x, w, a["stride"], a["padding"], a["dilation"]), outputs)
    return RNG.standard_normal(x), RNG.standard_normal(w), RNG.standard_normal(y), given


@pytest.mark.parametrize("number", range(len(LAYERS)))
@pytest.mark.parametrize("tile", [convolutions.TALL, convolutions.NARROW, MEDIUM, SMALL],
                         ids=lambda t: f"{t.rows}x{t.columns}")
def test_every_tile_in_every_direction(target, tile, number, monkeypatch):
    monkeypatch.setattr(convolutions, "conv_tile", lambda kind, m, n, dtype, k=0: tile)
    x, w, y, given = layer(number)
    agree(target, "conv2d_plain", x, w, **given)
    agree(target, "conv2d_input_gradient", y, w, shape=x.shape, **given)
    agree(target, "conv2d_weight_gradient", x, y, kernel=w.shape[:2], **given)


@pytest.mark.parametrize("kind", ["forward", "input", "weights"])
@pytest.mark.parametrize("n,tile", [(16, convolutions.NARROW), (32, convolutions.NARROW), (33, convolutions.TALL),
                                    (256, convolutions.TALL)], ids=str)
def test_tiles_are_no_wider_than_they_must_be(kind, n, tile):
    assert convolutions.conv_tile(kind, 1 << 16, n, np.float32) == tile
    assert convolutions.conv_tile(kind, 1 << 8, n, np.float32) == (SMALL if n <= 32 else MEDIUM if n > 64 else SMALL)
    assert convolutions.conv_tile(kind, 1 << 16, n, np.float64) == (
        SMALL_DOUBLE if kind == "input" or n <= 32 else MEDIUM)


def test_long_sums_are_cut_for_larger_tiles():
    """The gradients by the weights of ResNet-50's and AlexNet's layers at batch 32: a GPU has enough blocks."""
    tall = convolutions.TALL
    for taps, channels, outputs, pixels, tile in ((49, 3, 64, 112 * 112, MEDIUM), (9, 64, 64, 56 * 56, tall),
                                                  (9, 256, 256, 14 * 14, tall), (121, 3, 64, 55 * 55, tall)):
        sizes = taps * channels, outputs, 32 * pixels
        assert convolutions.conv_tile("weights", *sizes[:2], np.float32, sizes[2]) == tile
        pieces = convolutions.pieces_for("weights", *sizes, 1, np.float32)
        blocks = pieces * tile_count(*sizes[:2], tile)
        assert 380 <= blocks <= 512 and sizes[2] // pieces >= products.PIECE, (sizes, blocks)
    assert convolutions.conv_tile("weights", 9 * 64, 64, np.float32, 500) == SMALL, "short sums are not"


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_sums_are_cut_into_pieces(target, number, monkeypatch):
    monkeypatch.setattr(products, "PIECE", 8)
    x, w, y, given = layer(number)
    for kind in ("forward", "input", "weights"):
        parts = convolutions.parts_spec(kind, x.shape, w.shape, y.shape, given.get("groups", 1),
                                        given.get("stride", (1, 1)), given.get("dilation", (1, 1)), np.float32)
        assert parts and parts[0].shape[0] > 1
    agree(target, "conv2d", x, w, RNG.standard_normal(w.shape[3]), **given)
    agree(target, "conv2d_input_gradient", y, w, shape=x.shape, **given)
    agree(target, "conv2d_weight_gradient", x, y, kernel=w.shape[:2], **given)


def test_pieces_of_a_depthwise_convolution(target, monkeypatch):
    monkeypatch.setattr(cuda_depthwise, "PIXELS", 8)
    for channels, outputs in ((36, 36), (5, 10)):
        x, y = RNG.standard_normal((2, 9, 8, channels)), RNG.standard_normal((2, 9, 8, outputs))
        assert cuda_depthwise.parts_spec((3, 3, 1, outputs), y.shape, np.float32)[0].shape[0] > 1
        agree(target, "conv2d_weight_gradient", x, y, kernel=(3, 3), groups=channels, padding=(1, 1, 1, 1))


@pytest.mark.parametrize("groups", [1, 8])
def test_a_residual_in_the_epilogue(target, groups):
    x, w = RNG.standard_normal((2, 6, 7, 8)), RNG.standard_normal((3, 3, 8 // groups, 8))
    bias, residual = RNG.standard_normal(8), RNG.standard_normal((2, 6, 7, 8))
    a = CONV2D_PLAIN.complete({"padding": (1, 1, 1, 1), "groups": groups})
    placed = [target.place(array.astype("f4")) for array in (x, w, bias, residual, np.zeros_like(residual))]
    convolutions.conv2d_residual_cuda(*placed[:4], *geometry(a), joined(LINEAR.f), placed[4])
    want = conv2d_reference(x, w, bias, **a) + residual
    np.testing.assert_allclose(target.fetch(placed[4]), want, rtol=1e-4, atol=1e-4)
