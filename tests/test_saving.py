"""Files: exact round trips, atomic writing, and a sentence for each broken one."""
import numpy as np
import pytest

import engine
from engine import BatchNorm, Dense, Dropout, LeakyReLU, Residual, Sequential
from engine.errors import FileError


def model():
    engine.seed(2)
    made = Sequential([Dense(8, activation="gelu"), BatchNorm(), Dropout(0.1), LeakyReLU(0.2),
                       Residual([Dense(8, activation="tanh"), Dense(8)]), Dense(3, activation="softmax")])
    made.compile(engine.optimizers.Adam(engine.schedules.Cosine(1e-2, 100, warmup=5), clip_norm=1.0),
                 engine.losses.CrossEntropy(label_smoothing=0.1), ["accuracy", engine.metrics.TopK(2)])
    return made


def test_round_trip_keeps_everything(blobs, tmp_path):
    x, y = blobs
    one = model()
    one.fit(x, y, epochs=2, verbose=0)
    path = tmp_path / "model.safetensors"
    one.save(path)
    two = engine.load(path)
    assert two.predict(x).tobytes() == one.predict(x).tobytes()
    assert two.config() == one.config()
    assert two.evaluate(x, y) == one.evaluate(x, y)
    assert two.step == one.step and two.epoch == one.epoch


def test_truncated_foreign_and_missing_files_are_said(blobs, tmp_path):
    path = tmp_path / "m.safetensors"
    one = model()
    one.build(4)
    one.save(path)
    whole = path.read_bytes()
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError, match="not a whole safetensors file"):
            engine.load(path)
    path.write_bytes(b"PK\x03\x04 something else entirely" * 10)
    with pytest.raises(FileError, match="another kind of file"):
        engine.load(path)
    from safetensors.numpy import save_file
    save_file({"w": np.zeros(3, np.float32)}, path)
    with pytest.raises(FileError, match="not one that engine's save wrote"):
        engine.load(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        engine.load(tmp_path / "none.safetensors")


def test_a_failed_write_leaves_the_old_file(blobs, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    one = model()
    one.build(4)
    one.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        one.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_set_weights_checks_all_before_it_changes_any():
    one = model()
    one.build(4)
    before = [w.tobytes() for w in one.get_weights()]
    wrong = one.get_weights()
    wrong[0] = wrong[0] + 1
    wrong[-1] = wrong[-1][:-1]
    with pytest.raises(engine.errors.ShapeError, match=r"dense_1.bias: expected shape \(3,\), got \(2,\)"):
        one.set_weights(wrong)
    assert [w.tobytes() for w in one.get_weights()] == before
    with pytest.raises(engine.errors.ShapeError, match="expected 12 arrays"):
        one.set_weights(wrong[:3])
    named = one.weights
    assert list(named) == one.state.names()
    named["dense.bias"] = named["dense.bias"] + 1
    one.set_weights(named)
    assert (one.weights["dense.bias"] == named["dense.bias"]).all()
    with pytest.raises(engine.errors.UnknownName, match="did you mean 'dense.bias'"):
        one.set_weights({**named, "dense.bia": named["dense.bias"]})
