"""CUDA kernels over lines at every way they are shared out: a warp, a block, a thread for each line, values in
registers or read again; under race detection in the emulator (and, as long tests, plainly). What test_ops takes of
these is short lines."""
import numpy as np
import on_gpu
import pytest

from engine.kernels import TABLE
from engine.kernels.split import line_shape

target, both_ways = on_gpu.target, on_gpu.both_ways
pytestmark = on_gpu.needed
SIZES = 2, 33, 500, 700, 703, 5000, 9000
RNG = np.random.default_rng(5)


def agree(target, name, *inputs, **attributes):
    op = TABLE[name]
    given = [np.asarray(a, "f4") if np.asarray(a).dtype.kind == "f" else a for a in inputs]
    got = op(*map(target.place, given), **attributes)
    want = op.reference(*(a.astype("f8") if a.dtype.kind == "f" else a for a in given), **op.complete(attributes))
    for g, w in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,)):
        np.testing.assert_allclose(target.fetch(g), w, rtol=2e-5, atol=2e-5, err_msg=f"{name} {given[0].shape}")


def test_every_way_is_among_the_sizes():
    found = [line_shape(size, 4) for size in SIZES]
    assert found == [(32, 1, 4), (32, 2, 4), (32, 16, 4), (256, 4, 1), (256, 4, 1), (512, 16, 1), (256, 0, 1)]
    assert line_shape(257, 8) == (256, 2, 1) and line_shape(4097, 8) == (256, 0, 1)


@pytest.mark.parametrize("size", SIZES)
def test_softmax_and_cross_entropy_of_every_length(target, size):
    x = 3 * RNG.standard_normal((5, size))
    agree(target, "softmax", x)
    agree(target, "log_softmax_grad", RNG.standard_normal((5, size)), TABLE["log_softmax"].reference(x, -1))
    agree(target, "logsumexp", x)
    labels, weights = RNG.integers(0, size, 5), RNG.random(5)
    for smoothing in (0.0, 0.1):
        agree(target, "cross_entropy", x, labels, weights, label_smoothing=smoothing)
    agree(target, "cross_entropy_probabilities", x, TABLE["softmax"].reference(RNG.standard_normal((5, size)), -1),
          weights)


@pytest.mark.parametrize("size", [500, 700, 703])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_lines_with_infinities(target, size):
    """Also where all that a warp of the block holds is -inf, and what another one holds is far below zero."""
    x = RNG.standard_normal((8, size)) - 1000
    x[0], x[1, 1:], x[2, :-1], x[3, ::2] = -np.inf, -np.inf, -np.inf, -np.inf
    x[4, 128:256], x[5, size // 2], x[6, 5], x[7, ::7] = -np.inf, np.inf, np.nan, 3e38
    for name in ("softmax", "log_softmax", "logsumexp"):
        agree(target, name, x)


def test_lines_side_by_side(target):
    x = RNG.standard_normal((2, 7, 40))
    for name in ("softmax", "log_softmax", "logsumexp"):
        agree(target, name, x, axis=1)
    for name in ("softmax", "log_softmax"):
        agree(target, f"{name}_grad", RNG.standard_normal(x.shape), TABLE[name].reference(x, 1), axis=1)


@pytest.mark.parametrize("shapes", [((300, 10), (10,)), ((10, 300), (10, 1)), ((5, 1, 300), (1, 4, 1)), ((4096,), ()),
                                    ((1, 1), (40, 30)), ((3, 1, 5, 1), (1, 4, 1, 6)), ((70000, 1), (1, 2))],
                         ids=str)
def test_broadcasting_in_every_grid(target, shapes):
    a, b = (RNG.standard_normal(shape) + 3 for shape in shapes)
    agree(target, "div", a, b)
    agree(target, "div_grad_b", RNG.standard_normal(np.broadcast_shapes(*shapes)), a, b)
