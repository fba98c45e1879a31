"""Layers of convolution: shapes, values against the ops' references, gradients, refusals, and channels first."""
import numpy as np
import pytest

import engine
from engine import (
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Flatten,
    GlobalAvgPool,
    Input,
    MaxPool,
    SeparableConv2D,
    Sequential,
)
from engine.errors import ShapeError
from engine.kernels.conv.reference import plain_reference, transpose_reference
from engine.network import Names, Network


def output(layer, shape):
    Names().add([layer])
    return Network([layer], shape).output_shape


SHAPES = {
    "valid": (Conv2D(5, 3), (8, 9, 2), (6, 7, 5)),
    "same": (Conv2D(5, (3, 2), (2, 3), "same"), (8, 10, 2), (4, 4, 5)),
    "number": (Conv2D(5, 3, 2, 1), (8, 9, 2), (4, 5, 5)),
    "two numbers": (Conv2D(5, (1, 7), padding=(0, 3)), (8, 9, 2), (8, 9, 5)),
    "pairs": (Conv2D(5, 3, padding=((0, 1), (2, 0))), (8, 9, 2), (7, 9, 5)),
    "dilated": (Conv2D(5, 3, dilation=(2, 3), padding="same"), (8, 9, 2), (8, 9, 5)),
    "depthwise": (DepthwiseConv2D(3, 2, "same", depth_multiplier=3), (8, 9, 2), (4, 5, 6)),
    "separable": (SeparableConv2D(7, 3, depth_multiplier=2), (8, 9, 2), (6, 7, 7)),
    "transposed": (Conv2DTranspose(4, 3, 2), (5, 6, 2), (11, 13, 4)),
    "transposed same": (Conv2DTranspose(4, 3, 2, "same"), (5, 6, 2), (10, 12, 4)),
    "transposed same, large steps": (Conv2DTranspose(4, 2, (3, 4), "same"), (5, 6, 2), (15, 24, 4)),
    "transposed padded": (Conv2DTranspose(4, 4, 2, 1, output_padding=(1, 0)), (5, 6, 2), (11, 12, 4)),
    "sequence": (Conv1D(4, 3, 2), (9, 2), (4, 4)),
    "sequence same": (Conv1D(4, 3, 2, "same"), (9, 2), (5, 4)),
    "causal": (Conv1D(4, 3, padding=(4, 0), dilation=2), (9, 2), (9, 4)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case):
    layer, given, want = SHAPES[case]
    assert output(layer, given) == want


def run(layers, x, dtype="float64"):
    """(prediction, weights) of layers with weights from a normal distribution."""
    model = Sequential([Input(x.shape[1:]), *layers], dtype=dtype)
    rng = np.random.default_rng(1)
    model.build().set_weights({k: rng.standard_normal(v.shape) for k, v in model.weights.items()})
    return model.predict(x), model.weights


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def test_values_are_those_of_the_ops():
    x = images(2, 7, 8, 4)
    wide = {"stride": (2, 1), "padding": (0, 1, 0, 1), "dilation": (1, 1), "groups": 2}
    y, w = run([Conv2D(6, 2, (2, 1), "same", groups=2, name="c", activation="tanh")], x)
    want = np.tanh(plain_reference(x, w["c.kernel"], **wide) + w["c.bias"])
    np.testing.assert_allclose(y, want, rtol=1e-10, atol=1e-10)
    deep = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 4}
    y, w = run([DepthwiseConv2D(3, depth_multiplier=2, name="d", use_bias=False)], x)
    np.testing.assert_allclose(y, plain_reference(x, w["d.kernel"], **deep), rtol=1e-10, atol=1e-10)
    y, w = run([SeparableConv2D(3, 3, depth_multiplier=2, name="s")], x)
    middle = plain_reference(x, w["s.depthwise_kernel"], **deep)
    np.testing.assert_allclose(y, middle @ w["s.pointwise_kernel"][0, 0] + w["s.bias"], rtol=1e-10, atol=1e-10)
    for use_bias in (True, False):
        y, w = run([Conv2DTranspose(6, 3, 2, "same", groups=2, name="t", use_bias=use_bias)], x)
        bias = w.get("t.bias", np.zeros(6))
        want = transpose_reference(x, w["t.kernel"], bias, (2, 2), (0, 1, 0, 1), (0, 0), (1, 1), 2, None)
        assert y.shape == want.shape == (2, 14, 16, 6)
        np.testing.assert_allclose(y, want, rtol=1e-10, atol=1e-10)


def test_a_sequence_is_an_image_of_one_row():
    x = images(2, 11, 3)
    y, w = run([Conv1D(4, 3, 2, "same", name="c")], x)
    for n, i, o in np.ndindex(y.shape):
        taps = [(k, 2 * i + k - 1) for k in range(3) if 0 <= 2 * i + k - 1 < 11]
        want = w["c.bias"][o] + sum(x[n, at] @ w["c.kernel"][k, :, o] for k, at in taps)
        assert y[n, i, o] == pytest.approx(want, rel=1e-10)


def test_gradients_agree_with_central_differences():
    layers = [Input((6, 5, 2)), Conv2D(4, 3, padding="same", activation="tanh"), DepthwiseConv2D(2), MaxPool(2),
              Conv2DTranspose(3, 2, use_bias=False), engine.Reshape((9, 3)), Conv1D(2, 3), Flatten(), Dense(3)]
    model = Sequential(layers, dtype="float64")
    model.compile("sgd", "cross_entropy")
    x, y = images(4, 6, 5, 2), np.arange(4) % 3
    found, start = model.gradients(x, y), model.weights
    rng = np.random.default_rng(2)
    for name, array in start.items():
        index, losses = tuple(rng.integers(s) for s in array.shape), []
        for step in (1e-6, -1e-6):
            moved = {k: v.copy() for k, v in start.items()}
            moved[name][index] += step
            model.set_weights(moved)
            losses.append(model.evaluate(x, y))
        assert found[name][index] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5, abs=1e-8), name


def test_channels_first_is_turned_once_at_the_door():
    x = images(3, 6, 5, 2).astype("f4")
    layers = [Conv2D(4, 3, activation="tanh", name="a"), Conv2D(3, 2, name="b"), GlobalAvgPool(name="c")]
    first = Sequential([Input((2, 6, 5), data_format="channels_first"), *layers])
    turned = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    y = first.predict(turned)
    nodes = engine.training.predict_graph(first.state, 3).nodes
    assert [node.op.name for node in nodes].count("transpose") == 1
    last = Sequential([Input((6, 5, 2)), *layers])
    np.testing.assert_array_equal(last.predict(x), y)
    assert engine.layers.LAYERS.build(first.layers[0].config()).data_format == "channels_first"


def test_a_small_convolutional_network_learns_digits():
    (x, y), (x_test, y_test) = engine.data.load("digits")
    x, x_test = (a.reshape(-1, 8, 8, 1) for a in (x, x_test))
    engine.seed(0)
    model = Sequential([Input((8, 8, 1)), Conv2D(16, 3, padding="same", activation="tanh"), MaxPool(2),
                        Conv2D(32, 3, activation="tanh"), Flatten(), Dense(10)])
    model.compile(engine.optimizers.Adam(5e-3), "cross_entropy", ["accuracy"])
    model.fit(x, y, epochs=8, batch_size=32, verbose=0)
    assert model.evaluate(x_test, y_test)[1] > 0.96


REFUSED = {
    "filters": (r"Conv2D: expected filters to be a whole number of at least 1, got 0", lambda: Conv2D(0, 3)),
    "kernel": (r"Conv2D: expected kernel_size as a whole number of at least 1, .* got \(3, 3, 3\)",
               lambda: Conv2D(1, (3, 3, 3))),
    "padding": ("Conv2D: expected padding .* got 'full'", lambda: Conv2D(1, 3, padding="full")),
    "groups": ("Conv2D: expected filters that 2 groups can share, got 3", lambda: Conv2D(3, 3, groups=2)),
    "channels and groups": (r"conv2d: expected x of shape \(n, rows, columns, a multiple of 2 channels\)",
                            lambda: output(Conv2D(4, 3, groups=2), (8, 8, 3))),
    "no channels": (r"conv2d: expected x of shape \(n, rows, columns, channels\), got \(n, 28, 28\); is the axis of "
                    r"channels missing\? x\[\.\.\., None\]", lambda: output(Conv2D(4, 3), (28, 28))),
    "too small": (r"conv2d: expected x of shape at least as large as its window \(5, 5\)",
                  lambda: output(Conv2D(4, 5), (3, 32, 32))),
    "channels first": (r"Conv2D: expected data_format 'channels_last', got 'channels_first'; .* Input\(shape, data_",
                       lambda: Conv2D(4, 3, data_format="channels_first")),
    "output padding": (r"expected output_padding below strides \(2, 2\), got \(2, 2\)",
                       lambda: Conv2DTranspose(1, 3, 2, output_padding=2)),
    "output padding and same": ("output_padding has to be 0",
                                lambda: Conv2DTranspose(1, 3, 2, "same", output_padding=1)),
    "format": ("Input: expected data_format 'channels_last' or 'channels_first', got 'nchw'",
               lambda: Input(3, data_format="nchw")),
    "sequence": (r"conv1d: expected x of shape \(n, length, channels\)", lambda: output(Conv1D(1, 3), (4, 4, 1))),
    "sequence too short": ("conv1d: expected x of shape at least as long as its window 5",
                           lambda: output(Conv1D(1, 5), (4, 1))),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_mistake_has_its_sentence(case):
    text, action = REFUSED[case]
    with pytest.raises((ShapeError, ValueError), match=text):
        action()


def test_convolution_layers_are_written_and_built_again():
    for layer, shape, made in SHAPES.values():
        again = engine.layers.LAYERS.build(engine.registry._plain(layer))
        assert type(again) is type(layer) and output(again, shape) == made
