"""The CUDA target as a whole: trains like the CPU, crosses only where it must. Runs on a GPU or in the simulator."""
import numpy as np
import pytest

import engine
from engine import BatchNorm, Dense, Dropout, Sequential
from engine import target as targets

pytestmark = pytest.mark.skipif(not targets.cuda.present(), reason="neither a GPU nor the simulator is present")


def model(target):
    engine.seed(3)
    made = Sequential([Dense(6, activation="relu"), BatchNorm(), Dropout(0.2), Dense(3)], target=target)
    made.compile("adam", "cross_entropy", ["accuracy"])
    return made


def test_the_curve_is_the_cpus(blobs):
    x, y = blobs
    curves = [model(t).fit(x[:48], y[:48], epochs=2, batch_size=20, verbose=0).history for t in ("cpu", "cuda")]
    for name in curves[0]:
        np.testing.assert_allclose(curves[0][name], curves[1][name], rtol=1e-4, err_msg=name)


def test_only_the_batch_and_the_loss_cross(blobs):
    x, y = blobs
    made = model("cuda")
    epoch = made._epoch(*made._data(x[:48], y[:48], None, None, "test"), 16, made.optimizer)
    epoch.start(np.arange(48), np.full(epoch.steps, 1e-3))
    before = dict(targets.crossings())
    epoch.plans[0].run(2)
    assert targets.crossings() == before, "steps over a placed data set cross nothing"
    epoch.results()
    assert targets.crossings()["from"] - before["from"] == 2, "the loss and one metric come back once an epoch"
    made.train_step(x[:16], y[:16])
    before = dict(targets.crossings())
    made.train_step(x[:16], y[:16])
    after = targets.crossings()
    assert after["to"] - before["to"] == 4 and after["from"] - before["from"] <= 2    # x, y, weights, rate; loss, step


def test_predict_and_files_move_between_targets(blobs, tmp_path):
    x, y = blobs
    made = model("cuda")
    made.fit(x[:32], y[:32], epochs=1, batch_size=16, verbose=0)
    made.save(tmp_path / "m.safetensors")
    again = engine.load(tmp_path / "m.safetensors", target="cpu")
    np.testing.assert_allclose(again.predict(x[:8]), made.predict(x[:8]), rtol=1e-5, atol=1e-6)
