"""The CUDA target as a whole: trains like the CPU, crosses only where it must. Runs on a GPU, in the simulator or in
the emulator."""
import copy
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import engine
from engine import BatchNorm, Dense, Dropout, Sequential
from engine import target as targets
from engine.errors import EmulationError, TargetError
from engine.kernels.gpu import cuda

ON_GPU = [t.name for t in (targets.cuda, targets.cuda_emulated) if t.present()]
emulated = pytest.mark.skipif("cuda-emulated" not in ON_GPU, reason=targets.cuda_emulated.reason())


@pytest.fixture(params=ON_GPU)
def target(request):
    return request.param


def model(target):
    engine.seed(3)
    made = Sequential([Dense(6, activation="relu"), BatchNorm(), Dropout(0.2), Dense(3)], target=target)
    made.compile("adam", "cross_entropy", ["accuracy"])
    return made


def test_the_curve_is_the_cpus(blobs, target):
    x, y = blobs
    curves = [model(t).fit(x[:48], y[:48], epochs=2, batch_size=20, verbose=0).history for t in ("cpu", target)]
    for name in curves[0]:
        np.testing.assert_allclose(curves[0][name], curves[1][name], rtol=1e-4, err_msg=name)


def test_only_the_batch_and_the_loss_cross(blobs, target):
    x, y = blobs
    made = model(target)
    epoch = made._pass(made._data(x[:48], y[:48], None, None, "test"), 16, "test", made.optimizer)
    epoch.start(np.arange(48), lambda step: 1e-3)
    before = dict(targets.crossings())
    epoch.plans[0].run(2)
    assert targets.crossings() == before, "steps over a placed data set cross nothing"
    epoch.results()
    assert targets.crossings()["from"] - before["from"] == 2, "the loss and one metric come back once an epoch"
    made.train_step(x[:16], y[:16])
    before = dict(targets.crossings())
    made.train_step(x[:16], y[:16])
    after = targets.crossings()
    assert after["to"] - before["to"] == 1 and after["from"] - before["from"] <= 2    # all inputs at once; loss, step


def test_predict_and_files_move_between_targets(blobs, tmp_path, target):
    x, y = blobs
    made = model(target)
    made.fit(x[:32], y[:32], epochs=1, batch_size=16, verbose=0)
    made.save(tmp_path / "m.safetensors")
    again = engine.load(tmp_path / "m.safetensors", target="cpu")
    np.testing.assert_allclose(again.predict(x[:8]), made.predict(x[:8]), rtol=1e-5, atol=1e-6)


@emulated
@pytest.mark.parametrize("hidden", [(Dense(128, activation="relu"), Dense(64, activation="relu")),
                                    (Dense(64, activation="relu"), Dropout(0.2))], ids=["demo", "dropout"])
def test_digits_train_like_on_the_cpu(digits, hidden):
    """100 steps of the demo's network: the same losses to 1e-4, and the same accuracy."""
    (x, y), (x_test, y_test) = digits
    curves, accuracy = [], []
    for name in ("cpu", "cuda-emulated"):
        engine.seed(1)
        made = Sequential([*map(copy.deepcopy, hidden), Dense(10)], target=name)
        made.compile(engine.optimizers.Adam(2e-3), "cross_entropy", ["accuracy"])
        curves.append([made.train_step(x[32 * (i % 40):][:32], y[32 * (i % 40):][:32]) for i in range(100)])
        accuracy.append(made.evaluate(x_test, y_test)[1])
    np.testing.assert_allclose(curves[1], curves[0], rtol=0, atol=1e-4)
    assert abs(accuracy[1] - accuracy[0]) < 0.01 and curves[0][-1] < 0.5 * curves[0][0]


@emulated
@pytest.mark.slow
def test_the_demo_trains_to_the_cpus_accuracy(capsys):
    from engine.__main__ import main
    found = []
    for name in ("cpu", "cuda-emulated"):
        assert main(["train", "digits", "--target", name, "--verbose", "0", "--demand", "0.95"]) == 0
        found.append(float(re.search(r"test accuracy ([\d.]+)", capsys.readouterr().out).group(1)))
    assert abs(found[1] - found[0]) < 0.01, found


@emulated
def test_a_training_step_makes_no_wrong_access_and_no_race(blobs):
    x, y = blobs
    with targets.cuda_emulated.checking(race=True):
        model("cuda-emulated").fit(x[:40], y[:40], epochs=1, batch_size=16, verbose=0)


@emulated
def test_emulation_is_only_ever_asked_for_by_name():
    code = "import engine; print(engine.target.choose().name, engine.target.why(engine.target.choose()))"
    for asked, name in (("", "cuda" if targets.cuda.present() else "cpu"), ("cuda-emulated", "cuda-emulated")):
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              env={**os.environ, "ENGINE_TARGET": asked}).stdout
        assert said.startswith(name + " "), said


@emulated
def test_arrays_of_the_emulated_gpu_do_not_mix_with_numpys():
    from engine.kernels import TABLE
    a = np.ones(4, "f4")
    placed = targets.cuda_emulated.place(a)
    with pytest.raises(TargetError, match="some on cpu and some on cuda-emulated"):
        TABLE["add"](a, placed)
    with pytest.raises(TargetError, match="fetch it first"):
        np.asarray(placed)
    before = dict(targets.crossings())
    assert (targets.cuda_emulated.fetch(TABLE["add"](placed, placed)) == 2).all()
    assert targets.crossings()["from"] == before["from"] + 1


@emulated
def test_checks_find_a_kernel_of_ones_own_that_is_wrong():
    from engine.kernels.gpu import kernel
    made = kernel(_shifted)
    placed = targets.cuda_emulated.place(np.zeros(32, "f4"))
    with targets.cuda_emulated.checking():
        with pytest.raises(EmulationError, match=r"kernel _shifted, .* write of out\[32\] outside array of 32"):
            made[1, 32](placed)


def _shifted(out):
    out[cuda.threadIdx.x + 1] = 1


def test_a_gpu_that_is_too_old_is_refused_by_name(monkeypatch):
    from types import SimpleNamespace

    from engine.kernels.gpu import make_launcher
    device = SimpleNamespace(compute_capability=(7, 5))
    monkeypatch.setattr(targets.cuda, "_module", SimpleNamespace(jit=None, get_current_device=lambda: device))
    monkeypatch.setattr(type(targets.cuda), "simulated", False)
    launcher = make_launcher(_shifted, {"capability": (8, 0)})
    with pytest.raises(TargetError, match=r"_shifted: expected .* compute capability 8\.0 or later, got 7\.5"):
        launcher[1, 32](np.zeros(32, "f4"))
