"""Data that comes batch by batch: the same training as from memory, in order, errors with their batch, nothing left."""
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import engine
from engine import Dense, Flatten, Rescaling, Sequential, callbacks, data
from engine.data.loader import Loader
from engine.errors import DataError, EngineError, ShapeError


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [t for t in threading.enumerate() if t.name == "engine-loader"]


def small(seed=3, layers=()):
    engine.seed(seed)
    model = Sequential([*layers, Dense(8, activation="relu"), Dense(3)])
    model.compile("adam", "cross_entropy", ["accuracy"])
    return model


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True))


class Blobs:
    """A sequence of batches, as Keras has it."""

    def __init__(self, x, y, size=20):
        self.x, self.y, self.size, self.asked, self.ended = x, y, size, [], 0

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, number):
        self.asked.append(number)
        part = slice(number * self.size, (number + 1) * self.size)
        return self.x[part], self.y[part]

    def on_epoch_end(self):
        self.ended += 1


@pytest.fixture
def on_disk(blobs, tmp_path):
    """(memmap, x, y)"""
    x, y = blobs
    np.save(tmp_path / "x.npy", x)
    return np.load(tmp_path / "x.npy", mmap_mode="r"), x, y


# ------------------------------------------------------------------------------------------------ the same as in memory


def test_a_memmap_trains_to_the_bit_like_the_array(on_disk):
    stored, x, y = on_disk
    histories, models = [], []
    for given in (stored, x):
        model = small()
        history = model.fit(given, y, epochs=3, batch_size=32, validation_split=0.2, class_weight={0: 1, 1: 2, 2: 1},
                            sample_weight=np.linspace(0.5, 1, len(y)) if given is None else None, verbose=0)
        histories.append(history.history)
        models.append(model)
    assert histories[0] == histories[1] and same(*models)
    assert models[0].evaluate(stored, y) == models[1].evaluate(x, y)
    assert np.array_equal(models[0].predict(stored, batch_size=32), models[1].predict(x, batch_size=32))


def test_a_memmap_of_bytes_trains_like_the_array(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (50, 4, 4, 1)).astype(np.uint8), np.arange(50) % 3
    stored = np.memmap(tmp_path / "x.raw", np.uint8, "w+", shape=x.shape)
    stored[:] = x
    weights = rng.random(50)
    models = [small(layers=[Rescaling(1 / 255), Flatten()]) for _ in range(2)]
    for model, given in zip(models, (stored, x)):
        model.fit(given, y, epochs=2, batch_size=16, augment=[data.augment.RandomCrop(1)], sample_weight=weights,
                  verbose=0)
    assert same(*models)


def test_a_memmap_is_never_read_as_a_whole(tmp_path):
    """No row but those of the batches under way, and no second copy of the data."""
    code = """
import resource, sys
import numpy as np, engine
from engine import Dense, Sequential
stored = np.memmap(sys.argv[1], np.float32, "w+", shape=(400, 65536))
model = Sequential([Dense(2)])
model.compile("sgd", "cross_entropy")
y = np.zeros(400, int)
model.fit(stored[:32], y[:32], batch_size=8, verbose=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = []
take = np.ascontiguousarray
model.fit(stored, y, batch_size=8, verbose=0)
files = sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssFile"))
anonymous = sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(anonymous)
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.raw")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) * 1024 < 400 * 65536 * 4 * 3
