"""Optimisers against torch.optim and against formulas written out, over many steps."""
import numpy as np
import pytest

from engine.errors import ShapeError
from engine.kernels import TABLE

try:
    import torch
except ImportError:
    torch = None

SIZE, STEPS = 257, 20
# op, its attributes, states, and torch's class and arguments
CASES = [
    ("sgd", {}, 0, "SGD", {}),
    ("sgd", {"weight_decay": 0.1}, 0, "SGD", {"weight_decay": 0.1}),
    ("sgd_momentum", {"momentum": 0.9}, 1, "SGD", {"momentum": 0.9}),
    ("sgd_momentum", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01}, 1, "SGD",
     {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    ("rmsprop", {}, 1, "RMSprop", {}),
    ("rmsprop", {"alpha": 0.9, "epsilon": 1e-6, "weight_decay": 0.05}, 1, "RMSprop",
     {"alpha": 0.9, "eps": 1e-6, "weight_decay": 0.05}),
    ("rmsprop_momentum", {"momentum": 0.9}, 3, "RMSprop", {"momentum": 0.9}),
    ("rmsprop_momentum", {"momentum": 0.5, "centered": True, "weight_decay": 0.01}, 3, "RMSprop",
     {"momentum": 0.5, "centered": True, "weight_decay": 0.01}),
    ("adagrad", {"weight_decay": 0.01}, 1, "Adagrad", {"weight_decay": 0.01}),
    ("adam", {}, 2, "Adam", {}),
    ("adam", {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.1}, 2, "Adam",
     {"betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}),
    ("adamw", {"weight_decay": 0.2}, 2, "AdamW", {"weight_decay": 0.2}),
]


def gradients():
    rng = np.random.default_rng(1)
    return [rng.standard_normal(SIZE) * (1 + step) for step in range(STEPS)]


def rates():
    return [0.05 / (1 + step) for step in range(STEPS)]


def trained(op, attributes, states, dtype=np.float64):
    """Weights and states after STEPS steps, started at the same random weights; the last five are padding."""
    p = np.random.default_rng(0).standard_normal(SIZE).astype(dtype)
    p[-5:] = 0
    arrays = [p, *(np.zeros(SIZE, dtype) for _ in range(states))]
    for step, (g, rate) in enumerate(zip(gradients(), rates())):
        g = g.astype(dtype)
        g[-5:] = 0
        out = TABLE[op](arrays[0], g, *arrays[1:], np.array([rate]), np.array([9, step]), **attributes)
        arrays = list(out) if isinstance(out, tuple) else [out]
    return arrays


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("op, attributes, states, name, arguments", CASES)
def test_steps_like_torch(op, attributes, states, name, arguments):
    start = np.random.default_rng(0).standard_normal(SIZE)
    p = torch.nn.Parameter(torch.from_numpy(start[:-5].copy()))
    optimiser = getattr(torch.optim, name)([p], lr=0.05, **arguments)
    for g, rate in zip(gradients(), rates()):
        optimiser.param_groups[0]["lr"] = rate
        p.grad = torch.from_numpy(g[:-5].copy())
        optimiser.step()
    found = trained(op, attributes, states)[0]
    np.testing.assert_allclose(found[:-5], p.detach().numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("op, attributes, states", [c[:3] for c in CASES])
def test_padding_stays_zero_and_float32_follows(op, attributes, states):
    long, short = trained(op, attributes, states), trained(op, attributes, states, np.float32)
    for array in (*long, *short):
        assert (array[-5:] == 0).all() and np.isfinite(array).all()
    np.testing.assert_allclose(short[0], long[0], rtol=1e-3, atol=1e-4)


def test_adam_written_out():
    p, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    want, wm, wv = p.copy(), m.copy(), v.copy()
    for step in range(STEPS):
        g = np.array([0.3 * step - 1, 0.5])
        p, m, v = TABLE["adam"](p, g, m, v, np.array([0.1]), np.array([0, step]))
        wm, wv = 0.9 * wm + 0.1 * g, 0.999 * wv + 0.001 * g * g
        want -= 0.1 * (wm / (1 - 0.9 ** (step + 1))) / (np.sqrt(wv / (1 - 0.999 ** (step + 1))) + 1e-8)
    np.testing.assert_allclose(p, want, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_clip_by_norm(scale):
    g = np.random.default_rng(2).standard_normal(20_011) * scale
    clipped = TABLE["clip_by_norm"](g, max_norm=1.5)
    np.testing.assert_allclose(np.linalg.norm(clipped), min(1.5, np.linalg.norm(g)), rtol=1e-6)
    if torch is not None:
        p = torch.nn.Parameter(torch.zeros(20_011, dtype=torch.float64))
        p.grad = torch.from_numpy(g.copy())
        torch.nn.utils.clip_grad_norm_([p], 1.5)
        np.testing.assert_allclose(clipped, p.grad.numpy(), rtol=1e-12)


def test_clip_by_norm_of_a_gradient_whose_square_overflows():
    clipped = TABLE["clip_by_norm"](np.full(4, 1e25, np.float32), max_norm=2.0)
    np.testing.assert_allclose(clipped, 1.0, rtol=1e-6)


def test_clip_by_value_lets_nan_through():
    clipped = TABLE["clip_by_value"](np.array([-5.0, 0.25, 7.0, np.nan, np.inf]), low=-1.0, high=2.0)
    np.testing.assert_array_equal(clipped, [-1, 0.25, 2, np.nan, 2])


@pytest.mark.parametrize("change, words", [
    ({"g": np.zeros(4)}, "one flat shape"), ({"rate": np.zeros(2)}, "a rate of shape"),
    ({"counter": np.zeros(3, int)}, r"\[seed, step\]"), ({"epsilon": 0.0}, "padding between weights"),
    ({"epsilon": -1.0}, "an epsilon above 0"),
])
def test_refusals(change, words):
    given = {"p": np.zeros(3), "g": np.zeros(3), "m": np.zeros(3), "v": np.zeros(3), "rate": np.zeros(1),
             "counter": np.zeros(2, int), "epsilon": 1e-8, **change}
    epsilon = given.pop("epsilon")
    with pytest.raises(ShapeError, match=words):
        TABLE["adam"](*given.values(), epsilon=epsilon)
