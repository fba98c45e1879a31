"""Normalisation against torch, and where it is delicate: far from zero, a single row, constant columns."""
import numpy as np
import pytest

from engine.kernels import TABLE

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
rng = np.random.default_rng(3)
X, DY = rng.standard_normal((700, 19)) * 2 + 1, rng.standard_normal((700, 19))
GAMMA, BETA, MEAN, VARIANCE = rng.random(19) + 0.5, rng.standard_normal(19), rng.standard_normal(19), rng.random(19) + 1


def tensors(*arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def close(found, want):
    np.testing.assert_allclose(found, want.detach().numpy(), rtol=1e-9, atol=1e-10)


@needs_torch
def test_batch_norm_like_torch():
    y, mean, variance, centre, inverse = TABLE["batch_norm"](X, GAMMA, BETA, MEAN, VARIANCE, momentum=0.9, epsilon=1e-3)
    x, gamma, beta = tensors(X, GAMMA, BETA)
    running = torch.tensor(MEAN), torch.tensor(VARIANCE)
    want = F.batch_norm(x, *running, gamma, beta, True, 0.1, 1e-3)
    want.backward(torch.tensor(DY))
    close(y, want)
    close(mean, running[0])
    close(variance, running[1])
    for found, tensor in zip(TABLE["batch_norm_grad"](DY, X, GAMMA, BETA, centre, inverse), (x, gamma, beta)):
        close(found, tensor.grad)


@needs_torch
def test_inference_and_row_norms_like_torch():
    x, gamma, beta = tensors(X, GAMMA, BETA)
    want = F.batch_norm(x, torch.tensor(MEAN), torch.tensor(VARIANCE), gamma, beta, False, 0.1, 1e-3)
    want.backward(torch.tensor(DY))
    close(TABLE["batch_norm_inference"](X, GAMMA, BETA, MEAN, VARIANCE, epsilon=1e-3), want)
    grads = TABLE["batch_norm_inference_grad"](DY, X, GAMMA, MEAN, VARIANCE, epsilon=1e-3)
    for found, tensor in zip(grads, (x, gamma, beta)):
        close(found, tensor.grad)
    x, gamma, beta = tensors(X, GAMMA, BETA)
    want = F.layer_norm(x, (19,), gamma, beta, 1e-5)
    want.backward(torch.tensor(DY))
    close(TABLE["layer_norm"](X, GAMMA, BETA), want)
    for found, tensor in zip(TABLE["layer_norm_grad"](DY, X, GAMMA), (x, gamma, beta)):
        close(found, tensor.grad)


def test_far_from_zero_no_digit_is_lost_to_cancellation():
    x = (rng.standard_normal((1000, 3)) + 4096).astype(np.float32)
    ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
    want = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    y = TABLE["batch_norm"](x, ones, zeros, zeros, ones, epsilon=1e-12)[0]
    np.testing.assert_allclose(y, want, atol=2e-3)       # the mean itself, as float32, is exact to 2**-11
    assert abs(y.std(0, dtype=np.float64) - 1).max() < 1e-4


def test_a_single_row_gives_beta_and_no_nan():
    y, mean, variance, *_ = TABLE["batch_norm"](X[:1], GAMMA, BETA, MEAN, VARIANCE, momentum=0.9)
    np.testing.assert_allclose(y[0], BETA)
    np.testing.assert_allclose(mean, 0.9 * MEAN + 0.1 * X[0])
    np.testing.assert_allclose(variance, 0.9 * VARIANCE)


def test_constant_columns():
    y = TABLE["batch_norm"](np.full((64, 2), 5.0), np.ones(2), np.zeros(2), np.zeros(2), np.ones(2))[0]
    assert (y == 0).all()
    assert (TABLE["layer_norm"](np.full((4, 8), 5.0), np.ones(8), np.zeros(8)) == 0).all()
