"""Pooling: the layers against PyTorch, what they refuse, and that no number of threads changes a bit."""
import numpy as np
import pytest
from layer_parity import against_torch
from numba import config

import engine
from engine import AdaptiveAvgPool, AvgPool, Dense, Flatten, GlobalAvgPool, GlobalMaxPool, MaxPool, Sequential
from engine.errors import ShapeError
from engine.kernels import TABLE

try:
    import torch.nn.functional as F
except ImportError:
    F = None

needs_torch = [pytest.mark.torch, pytest.mark.skipif(F is None, reason="torch is not installed")]
rng = np.random.default_rng(11)
SHAPES = {1: (3, 11, 5), 2: (2, 13, 10, 19)}
MAX = [(2, 2, None, 0, False, 1), (2, 3, 2, 1, False, 1), (2, 3, 2, 1, True, 1),
       (2, (3, 2), (1, 3), (1, 0), True, (2, 3)), (2, 5, 3, 2, True, 1), (1, 3, 2, 1, True, 1),
       (1, 2, None, 0, True, 1), (1, 4, 3, 2, True, 2)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axes,kernel,stride,padding,ceil,dilation", MAX)
class TestLikeTorch:
    pytestmark = needs_torch

    def test_max_pool(self, axes, kernel, stride, padding, ceil, dilation, dtype):
        function = F.max_pool1d if axes == 1 else F.max_pool2d
        x = np.round(2 * rng.standard_normal(SHAPES[axes]))          # many equals: the first one gets the gradient
        against_torch(MaxPool(kernel, stride, padding, ceil, dilation),
                      lambda t: function(t, kernel, stride, padding, dilation, ceil), SHAPES[axes], dtype, x)

    @pytest.mark.parametrize("counts", [True, False])
    def test_avg_pool(self, axes, kernel, stride, padding, ceil, dilation, dtype, counts):
        function = F.avg_pool1d if axes == 1 else F.avg_pool2d
        against_torch(AvgPool(kernel, stride, padding, ceil, counts),
                      lambda t: function(t, kernel, stride, padding, ceil, counts), SHAPES[axes], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
class TestWholeImagesLikeTorch:
    pytestmark = needs_torch

    @pytest.mark.parametrize("output", [1, 3, (13, 1), (7, 6), (20, 15)])
    def test_adaptive(self, output, dtype):
        against_torch(AdaptiveAvgPool(output), lambda t: F.adaptive_avg_pool2d(t, output), SHAPES[2], dtype)
        if isinstance(output, int):
            against_torch(AdaptiveAvgPool(output), lambda t: F.adaptive_avg_pool1d(t, output), SHAPES[1], dtype)

    @pytest.mark.parametrize("axes", [1, 2])
    def test_global(self, axes, dtype):
        along = (2, 3)[:axes]
        against_torch(GlobalAvgPool(), lambda t: t.mean(along), SHAPES[axes], dtype)
        against_torch(GlobalMaxPool(), lambda t: t.amax(along), SHAPES[axes], dtype)


def test_same_padding_as_keras_does_it():
    """ceil(size / stride) windows, the odd place of padding at the end, and zeros that do not count."""
    x = np.arange(1.0, 6.0, dtype=np.float32).reshape(1, 5, 1)
    assert Sequential([MaxPool(2, padding="same")]).predict(x).ravel().tolist() == [2, 4, 5]
    assert Sequential([AvgPool(2, padding="same")]).predict(x).ravel().tolist() == [1.5, 3.5, 5]
    assert Sequential([AvgPool(2, padding=[(0, 1)])]).predict(x).ravel().tolist() == [1.5, 3.5, 2.5]
    assert Sequential([MaxPool(3, 1, "same")]).predict(x).ravel().tolist() == [2, 3, 4, 5, 5]


@pytest.mark.parametrize("name,attributes", [
    ("max_pool2d", {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1), "keep": True}),
    ("avg_pool2d", {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)})])
def test_threads_change_no_bit(name, attributes):
    x = rng.standard_normal((3, 41, 37, 48)).astype(np.float32)      # enough for more than one task
    before, found = engine.threads.get(), []
    try:
        for threads in (1, 2):
            engine.threads.set(min(threads, config.NUMBA_NUM_THREADS))
            made = TABLE[name](x, **attributes)
            made = made if isinstance(made, tuple) else (made,)
            given = {k: v for k, v in attributes.items() if k != "keep"}
            found.append((*made, TABLE[f"{name}_grad"](*made, size=x.shape[1:3], **given)))
    finally:
        engine.threads.set(before)
    for one, two in zip(*found):
        np.testing.assert_array_equal(one, two)


def test_a_network_with_pooling_learns_and_is_saved(tmp_path):
    (x, y), _ = engine.data.load("digits")
    x, y = x.reshape(-1, 8, 8, 1)[:400], y[:400]
    engine.seed(4)
    model = Sequential([MaxPool(2, 1), AvgPool((2, 2), (1, 1)), Flatten(), Dense(10)])
    model.compile(engine.optimizers.Adam(5e-2), "cross_entropy", ["accuracy"])
    assert model.fit(x, y, epochs=15, verbose=0).history["accuracy"][-1] > 0.9
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(engine.load(tmp_path / "m.safetensors").predict(x[:9]), model.predict(x[:9]))


@pytest.mark.parametrize("make,error,sentence", [
    (lambda: MaxPool(0), ValueError, "pool_size as a whole number of at least 1"),
    (lambda: MaxPool(2, strides=0), ValueError, "strides as a whole number"),
    (lambda: MaxPool(2, padding="full"), ValueError, 'padding "valid", "same"'),
    (lambda: AvgPool(2, padding=2), ValueError, "padding smaller than the window"),
    (lambda: AdaptiveAvgPool(0), ValueError, "output_size as a whole number"),
    (lambda: Sequential([MaxPool(9)]).build((8, 8, 1)), ShapeError, "max_pool: expected x of shape with at least one"),
    (lambda: Sequential([MaxPool((2, 2))]).build((8, 1)), ValueError, "pool_size .* 1 of them"),
    (lambda: Sequential([MaxPool(2)]).build((8,)), ShapeError, "a grey image needs an axis"),
    (lambda: TABLE["max_pool2d"](np.zeros((1, 2, 2))), ShapeError, "x of shape .n, height, width, channels"),
    (lambda: TABLE["max_pool2d"](np.zeros((1, 1, 1, 1))), ShapeError, "at least as large as a window of 2 x 2"),
    (lambda: TABLE["avg_pool2d"](np.zeros((1, 2, 2, 1)), padding=(2, 0, 0, 0)), ShapeError, "each less than the 2 x 2"),
    (lambda: TABLE["adaptive_avg_pool2d"](np.zeros((1, 2, 2, 1)), output=(0, 1)), ShapeError, "output as two"),
    (lambda: TABLE["avg_pool2d_grad"](np.zeros((1, 2, 2, 1)), size=(9, 9)), ShapeError, "dy of 4 x 4 windows")])
def test_refusals(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
