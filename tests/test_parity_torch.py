"""The same weights on the same batches give PyTorch's loss curve. Runs where torch is installed."""
import numpy as np
import pytest

import engine
from engine import Dense, Sequential

try:
    import torch
except ImportError:
    torch = None

pytestmark = [pytest.mark.torch, pytest.mark.skipif(torch is None, reason="torch is not installed")]

STEPS, BATCH = 200, 32
OPTIMIZERS = {
    "sgd": (lambda: engine.optimizers.SGD(0.05), lambda p: torch.optim.SGD(p, 0.05)),
    "momentum": (lambda: engine.optimizers.SGD(0.02, momentum=0.9),
                 lambda p: torch.optim.SGD(p, 0.02, momentum=0.9)),
    "nesterov": (lambda: engine.optimizers.SGD(0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
                 lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, nesterov=True, weight_decay=1e-3)),
    "adam": (lambda: engine.optimizers.Adam(1e-3), lambda p: torch.optim.Adam(p, 1e-3)),
    "adamw": (lambda: engine.optimizers.AdamW(1e-3, weight_decay=0.05),
              lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.05)),
    "rmsprop": (lambda: engine.optimizers.RMSprop(1e-3), lambda p: torch.optim.RMSprop(p, 1e-3)),
    "adagrad": (lambda: engine.optimizers.Adagrad(0.02), lambda p: torch.optim.Adagrad(p, 0.02)),
}


def batches():
    (x, y), _ = engine.data.load("digits")
    x = x.reshape(len(x), -1)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        pick = rng.integers(0, len(x), BATCH)
        yield x[pick], y[pick]


def torch_twin(model, activation):
    layers, weights = [], model.get_weights()
    for kernel, bias in zip(weights[::2], weights[1::2]):
        linear = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, activation()]
    return torch.nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loss_curve_is_pytorchs(name):
    ours, theirs = OPTIMIZERS[name]
    engine.seed(5)
    model = Sequential([Dense(32, activation="relu"), Dense(24, activation="gelu"), Dense(10)])
    model.build(64)
    model.compile(ours(), "cross_entropy")
    twin = torch_twin(model, torch.nn.ReLU)
    twin[3] = torch.nn.GELU()
    update = theirs(twin.parameters())
    criterion = torch.nn.CrossEntropyLoss()
    curves = []
    for x, y in batches():
        update.zero_grad()
        loss = criterion(twin(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        update.step()
        curves.append((model.train_step(x, y), loss.item()))
    ours, theirs = np.array(curves).T
    assert theirs[-1] < 0.7 * theirs[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_gradient_clipping_is_pytorchs():
    engine.seed(5)
    model = Sequential([Dense(32, activation="tanh"), Dense(10)])
    model.build(64)
    model.compile(engine.optimizers.SGD(0.5, clip_norm=0.3), "cross_entropy")
    twin = torch_twin(model, torch.nn.Tanh)
    update, criterion = torch.optim.SGD(twin.parameters(), 0.5), torch.nn.CrossEntropyLoss()
    for step, (x, y) in enumerate(batches()):
        update.zero_grad()
        loss = criterion(twin(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.3)
        update.step()
        assert model.train_step(x, y) == pytest.approx(loss.item(), rel=1e-4)
        if step == 50:
            break


def test_batch_norm_follows_pytorchs_running_statistics():
    engine.seed(5)
    model = Sequential([Dense(16), engine.BatchNorm(momentum=0.9, epsilon=1e-5), engine.ReLU(), Dense(10)])
    model.build(64)
    model.compile(engine.optimizers.SGD(0.1), "cross_entropy")
    weights = model.get_weights()
    twin = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16, momentum=0.1), torch.nn.ReLU(),
                               torch.nn.Linear(16, 10))
    with torch.no_grad():
        for linear, (kernel, bias) in ((twin[0], weights[:2]), (twin[3], weights[-2:])):
            linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias))
    update, criterion = torch.optim.SGD(twin.parameters(), 0.1), torch.nn.CrossEntropyLoss()
    for step, (x, y) in enumerate(batches()):
        update.zero_grad()
        loss = criterion(twin(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        update.step()
        assert model.train_step(x, y) == pytest.approx(loss.item(), rel=2e-4)
        if step == 50:
            break
    twin.eval()
    got = model.get_weights()
    np.testing.assert_allclose(got[4], twin[1].running_mean.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(got[5], twin[1].running_var.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.predict(x), twin(torch.from_numpy(x)).detach().numpy(), rtol=1e-2, atol=1e-3)
