"""Data that comes batch by batch: the same training as from memory, in order, errors with their batch, nothing left."""
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

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
                            verbose=0)
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


def test_a_memmap_is_never_in_memory_as_a_whole(tmp_path):
    stored = np.memmap(tmp_path / "x.raw", np.float32, "w+", shape=(2000, 4096))
    y = np.arange(2000) % 3
    model = small()
    model.fit(stored[:40], y[:40], batch_size=8, verbose=0)
    tracemalloc.start()
    try:
        model.fit(stored, y, batch_size=8, validation_split=0.5, verbose=0)
        model.evaluate(stored, y, batch_size=8)
        model.predict(stored, batch_size=8)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < stored.nbytes / 10


def test_a_lazy_array_is_read_batch_by_batch(blobs):
    x, y = blobs

    class Counted(data.Lazy):
        shape, sizes = x.shape, []

        def rows(self, index):
            self.sizes.append(len(index))
            return x[index]

    lazy, model, other = Counted(), small(), small()
    model.fit(lazy, y, batch_size=40, validation_split=0.2, verbose=0)
    other.fit(x, y, batch_size=40, validation_split=0.2, verbose=0)
    assert same(model, other) and lazy.sizes == [40, 40, 40, 30]
    assert np.array_equal(lazy[3], x[3]) and np.array_equal(lazy[-2:], x[-2:]) and len(lazy) == 150


@pytest.mark.parametrize("kind", ["sequence", "iterable", "function", "generator"])
def test_all_kinds_of_batches_train_like_the_array(blobs, kind):
    x, y = blobs
    batches = Blobs(x, y)

    def generate():
        yield from (batches[k] for k in range(len(batches)))

    class Again:
        __iter__ = staticmethod(generate)

    def endless():
        while True:
            yield from generate()

    given = {"sequence": batches, "iterable": Again(), "function": generate, "generator": endless()}[kind]
    steps = len(batches) if kind == "generator" else None
    model, other = small(), small()
    history = model.fit(given, epochs=3, shuffle=False, steps_per_epoch=steps, validation_data=batches, verbose=0)
    wanted = other.fit(x, y, epochs=3, batch_size=20, shuffle=False, validation_data=(x, y), verbose=0)
    assert same(model, other) and history.history["accuracy"] == wanted.history["accuracy"]
    assert history.history["loss"] == pytest.approx(wanted.history["loss"], rel=1e-12)
    if kind != "generator":
        assert model.evaluate(given, return_dict=True) == pytest.approx(other.evaluate(x, y, return_dict=True))
        assert np.allclose(model.predict(given), other.predict(x), atol=1e-6)


def test_a_sequence_is_shuffled_by_the_seed_and_told_of_the_end(blobs):
    orders = []
    for seed in (1, 1, 2):
        batches = Blobs(*blobs)
        small(seed).fit(batches, epochs=2, verbose=0)
        assert sorted(batches.asked[:8]) == sorted(batches.asked[8:]) == list(range(8)) and batches.ended == 2
        assert batches.asked[:8] != batches.asked[8:]
        orders.append(batches.asked)
    assert orders[0] == orders[1] != orders[2]


def test_weights_in_the_batches_count(blobs):
    x, y = blobs
    weights = np.linspace(0, 2, 150)
    model, other = small(), small()
    model.fit(lambda: ((x[k:k + 50], y[k:k + 50], weights[k:k + 50]) for k in (0, 50, 100)), verbose=0)
    other.fit(x, y, sample_weight=weights, batch_size=50, shuffle=False, verbose=0)
    assert same(model, other)


def test_batch_callbacks_see_every_batch(blobs):
    seen = []

    class Watch(callbacks.Callback):
        def on_batch_begin(self, batch):
            seen.append(batch)

        def on_batch_end(self, batch, logs):
            seen.append(logs["loss"])

    model, other = small(), small()
    batches = Blobs(*blobs)
    model.fit(lambda: (batches[k] for k in range(8)), callbacks=[Watch()], verbose=0)
    other.fit(batches, shuffle=False, verbose=0)
    assert seen[::2] == list(range(8)) and np.isfinite(seen[1::2]).all() and same(model, other)


@pytest.mark.slow
def test_training_on_the_emulated_gpu_agrees(blobs):
    x, y = blobs
    weights = []
    for target in ("cpu", "cuda-emulated"):
        engine.seed(3)
        model = Sequential([Dense(3)], target=target)
        model.compile("sgd", "cross_entropy")
        model.fit(Blobs(np.round(9 * np.abs(x)).astype(np.uint8), y, 75), verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- errors, stopping


class Failing(Blobs):
    def __getitem__(self, number):
        if number == 3:
            raise OSError("disk gone")
        return super().__getitem__(number)


def test_errors_of_the_source_come_with_their_batch(blobs):
    with pytest.raises(DataError, match="fit: batch 3: the data's source raised OSError: disk gone") as caught:
        small().fit(Failing(*blobs), shuffle=False, verbose=0)
    assert isinstance(caught.value.__cause__, OSError)
    x, y = blobs
    bad = x.copy()
    bad[45, 1] = np.nan
    with pytest.raises(DataError, match=r"fit: batch 2: .*NaN.*\(5, 1\)"):
        small().fit(Blobs(bad, y), shuffle=False, verbose=0)
    with pytest.raises(DataError, match="validation_data: batch 2"):
        small().fit(x, y, validation_data=Blobs(bad, y), verbose=0)
    with pytest.raises(DataError, match="fit: batch 2: .*expected labels 0 to 2"):
        small().fit(Blobs(x, np.where(np.arange(150) == 50, 7, y)), shuffle=False, verbose=0)
    with pytest.raises(ShapeError, match="batch 1: .*expected x of shape"):
        small().fit(iter([(x[:5], y[:5]), (x[:5, :3], y[:5])]), verbose=0)


def test_sources_that_do_not_fit_are_refused(blobs):
    x, y = blobs
    model = small()
    for arguments, word in (
            ({"x": Blobs(x, y), "y": y}, "inside the batches"), ({"x": Blobs(x, y), "validation_split": 0.1}, "array"),
            ({"x": Blobs(x[:0], y[:0])}, "length 0"), ({"x": x}, "labels y"), ({"x": 3.0}, "labels y"),
            ({"x": x, "y": y, "steps_per_epoch": 3}, "generators"),
            ({"x": Blobs(x, y), "steps_per_epoch": 3}, "length"),
            ({"x": iter([x[:3]])}, "expected labels"), ({"x": iter(())}, "at least one"),
            ({"x": iter([(x, y)]), "steps_per_epoch": 0}, "at least 1"),
            ({"x": iter([(x, y)]), "epochs": 2}, "used up"), ({"x": iter([(x, y)]), "steps_per_epoch": 2}, "got 1"),
            ({"x": iter([(x, y, y, y)])}, "4 parts"), ({"x": {"a": 1}}, "dict")):
        with pytest.raises(EngineError, match=word):
            model.fit(**arguments, verbose=0)


def test_stopping_leaves_no_thread(blobs):
    """An interrupt from the keyboard, and a source that has more to give, in an epoch that a callback ends."""
    class Interrupt(callbacks.Callback):
        def on_batch_end(self, batch, logs):
            if batch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small().fit(Blobs(*blobs), callbacks=[Interrupt()], verbose=0)


def test_an_interrupt_while_waiting_for_a_slow_source():
    """Ctrl-C in the middle of a fit that waits for its data ends the process at once."""
    code = ("import signal, time, numpy as np, engine\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"      # a shell's background jobs ignore it
            "def slow():\n"
            "    while True:\n"
            "        print('asked', flush=True); time.sleep(0.3); yield np.zeros((4, 2)), np.zeros(4, int)\n"
            "model = engine.Sequential([engine.Dense(2)]); model.compile('sgd', 'cross_entropy')\n"
            "model.fit(slow, verbose=0)\n")
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "asked\n"
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in said and child.returncode != 0


def test_the_thread_works_ahead_by_two_and_stops_when_asked():
    made = []

    def count():
        for number in range(100):
            made.append(number)
            yield number

    with Loader(count(), lambda number: number) as loader:
        assert [loader.take() for _ in range(3)] == [0, 1, 2]
        time.sleep(0.3)
        assert len(made) <= 3 + 2 + 1        # taken, waiting, in the thread's hands
    assert len(made) < 10


def test_loading_overlaps_with_what_the_main_thread_does():
    def slow():
        for _ in range(10):
            time.sleep(0.05)
            yield 0

    started = time.perf_counter()
    with Loader(slow(), lambda number: number) as loader:
        while loader.take() is not None:
            time.sleep(0.05)
    assert time.perf_counter() - started < 0.85              # one after the other: 1.0


# ---------------------------------------------------------------------------------------------------------- image files


def test_folders_of_pictures_are_read_and_learned(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / name / "more").mkdir(parents=True)
        for k in range(8):
            pixels = np.clip(level + rng.normal(0, 10, (9, 12, 3)), 0, 255).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / name / (f"{k}.png" if k else "more/0.jpg"))
    (tmp_path / "dark" / "notes.txt").write_text("no picture")
    images, labels = data.image_folder(tmp_path, (9, 12))
    assert images.shape == (16, 9, 12, 3) and images.dtype == np.uint8 and images.classes == ("dark", "light")
    assert labels.tolist() == [0] * 8 + [1] * 8
    number = next(k for k, file in enumerate(images.files) if file.name == "3.png")
    assert np.array_equal(images[number], np.asarray(image.open(images.files[number])))
    assert data.image_folder(tmp_path, (4, 5), channels=1)[0][:3].shape == (3, 4, 5, 1)
    engine.seed(0)
    model = Sequential([Rescaling(1 / 255), Flatten(), Dense(2)])
    model.compile(engine.optimizers.Adam(0.01), "cross_entropy", ["accuracy"])
    model.fit(images, labels, batch_size=4, epochs=6, validation_data=(images, labels), verbose=0)
    assert model.evaluate(images, labels)[1] == 1 and model.predict(images).shape == (16, 2)
    (tmp_path / "dark" / "0bad.png").write_bytes(b"nothing")
    images, labels = data.image_folder(tmp_path, (9, 12))
    with pytest.raises(DataError, match="fit: batch 0: .*0bad.png: expected a picture"):
        model.fit(images, labels, shuffle=False, verbose=0)
    with pytest.raises(DataError, match="does not exist"):
        data.image_folder(tmp_path / "none", (9, 12))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="in .*empty, got none"):
        data.image_folder(tmp_path, (9, 12))
