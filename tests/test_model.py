"""Sequential: learns real things, keeps Keras's manners, gives the same bits again, saves and goes on exactly."""
import numpy as np
import pytest

import engine
from engine import BatchNorm, Dense, Dropout, Flatten, Perceptron, ReLU, Residual, Sequential, callbacks, data
from engine.errors import EngineError


def small(optimizer="adam", loss="cross_entropy", metrics=("accuracy",), seed=3, extra=(), dtype="float32"):
    engine.seed(seed)
    model = Sequential([Dense(16, activation="relu"), *extra, Dense(3)], dtype=dtype)
    model.compile(optimizer, loss, list(metrics))
    return model


# ------------------------------------------------------------------------------------------------------------ it learns


def test_digits_reach_97_percent(digits):
    (x, y), (x_test, y_test) = digits
    engine.seed(1)
    model = Sequential([Dense(64, activation="relu"), Dense(10)])
    model.compile(engine.optimizers.Adam(2e-3), "cross_entropy", ["accuracy"])
    history = model.fit(x, y, epochs=40, batch_size=32, validation_split=0.1, verbose=0)
    loss, accuracy = model.evaluate(x_test, y_test)
    assert accuracy >= 0.97, accuracy
    assert history.history["loss"][-1] < 0.1 * history.history["loss"][0]
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_xor_is_learned():
    x, y = data.toy("xor")
    engine.seed(0)
    model = Sequential([Dense(8, activation="tanh"), Dense(1, activation="sigmoid")])
    model.compile(engine.optimizers.Adam(0.05), "binary_cross_entropy", ["accuracy"])
    model.fit(x, y, epochs=300, batch_size=4, verbose=0)
    assert model.evaluate(x, y)[1] >= 0.99


def test_the_photocell_perceptron_learns():
    x, y = data.toy("photocells", 400, seed=2)
    engine.seed(0)
    model = Sequential([Flatten(), Perceptron(1)])
    model.compile(engine.optimizers.SGD(1.0), "perceptron", ["accuracy"])
    model.fit(x[:300], y[:300], epochs=30, batch_size=1, verbose=0)
    assert model.evaluate(x[300:], y[300:])[1] >= 0.9
    assert set(np.unique(model.predict(x[300:]))) <= {0.0, 1.0}


def test_two_hundred_hidden_layers_train(blobs):
    x, y = blobs
    engine.seed(0)
    blocks = [Residual([Dense(8, activation="relu", kernel_initializer="he_normal"),
                        Dense(8, kernel_initializer="zeros")]) for _ in range(100)]
    model = Sequential([Dense(8), *blocks, Dense(3)])
    model.compile(engine.optimizers.Adam(2e-3), "cross_entropy", ["accuracy"])
    history = model.fit(x, y, epochs=30, batch_size=30, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert history.history["accuracy"][-1] >= 0.95


def test_two_hundred_plain_layers_keep_their_signal_with_he_initialisation():
    engine.seed(0)
    model = Sequential([Dense(64, activation="relu", kernel_initializer="he_normal") for _ in range(200)])
    x = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    out = model.predict(x)
    assert 1e-3 < out.std() < 1e3


def test_regression_with_every_optimizer():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + 0.3).astype(np.float32)
    rates = {"SGD": 0.05, "RMSprop": 0.02, "Adagrad": 0.3, "Adam": 0.05, "AdamW": 0.05}
    for name, rate in rates.items():
        engine.seed(0)
        model = Sequential([Dense(1)])
        model.compile(getattr(engine.optimizers, name)(rate), "mse", ["mae"])
        model.fit(x, y, epochs=30, batch_size=20, verbose=0)
        assert model.evaluate(x, y)[0] < 0.02, name


def test_batch_norm_and_dropout_act_only_in_training(blobs):
    x, y = blobs
    model = small(extra=[BatchNorm(), ReLU(), Dropout(0.5)])
    model.fit(x, y, epochs=40, verbose=0)
    np.testing.assert_array_equal(model.predict(x), model.predict(x))
    assert model.evaluate(x, y)[1] > 0.9
    mean = model.get_weights()[4]
    assert np.abs(mean).max() > 0.01, "the running mean has moved"


# ------------------------------------------------------------------------------------------------------ same bits again


@pytest.mark.parametrize("extra", [(), (Dropout(0.3), BatchNorm())], ids=["plain", "dropout+norm"])
def test_same_seed_same_history_for_any_number_of_threads(blobs, extra):
    x, y = blobs
    kinds = [type(layer) for layer in extra]
    before = engine.threads.get()
    found = []
    try:
        for count in {1, before}:
            engine.threads.set(count)
            for _ in range(2):
                model = small(extra=[Dropout(0.3) if k is Dropout else k() for k in kinds])
                history = model.fit(x, y, epochs=3, batch_size=16, verbose=0)
                found.append((history.history, [w.tobytes() for w in model.get_weights()]))
    finally:
        engine.threads.set(before)
    assert all(f == found[0] for f in found)
    other = small(seed=4).fit(x, y, epochs=3, batch_size=16, verbose=0)
    assert other.history != found[0][0]


def test_resumed_training_is_the_training_that_was_not_stopped(blobs, tmp_path):
    x, y = blobs
    layers = [Dropout(0.2), BatchNorm()]
    whole = small(extra=layers)
    whole.fit(x, y, epochs=6, batch_size=16, verbose=0)
    first = small(extra=[Dropout(0.2), BatchNorm()])
    first.fit(x, y, epochs=2, batch_size=16, verbose=0)
    path = tmp_path / "stopped.safetensors"
    first.save(path)
    again = engine.load(path)
    assert again.epoch == 2
    again.fit(x, y, epochs=6, initial_epoch=again.epoch, batch_size=16, verbose=0)
    for a, b in zip(whole.get_weights(), again.get_weights()):
        assert a.tobytes() == b.tobytes()
    assert again.step == whole.step


def test_callbacks_resume_with_the_model(blobs, tmp_path):
    x, y = blobs

    def watch():
        return [callbacks.ReduceOnPlateau("loss", patience=1, min_delta=10.0, factor=0.5)]
    whole = small("sgd")
    whole.fit(x, y, epochs=4, verbose=0, callbacks=watch())
    first = small("sgd")
    first.fit(x, y, epochs=2, verbose=0,
              callbacks=[*watch(), callbacks.ModelCheckpoint(tmp_path / "m.safetensors")])
    again = engine.load(tmp_path / "m.safetensors")
    again.fit(x, y, epochs=4, initial_epoch=2, verbose=0, callbacks=watch())
    assert again.optimizer.learning_rate.at(0) == whole.optimizer.learning_rate.at(0)
    for a, b in zip(whole.get_weights(), again.get_weights()):
        assert a.tobytes() == b.tobytes()


# --------------------------------------------------------------------------------------------------- loops of one's own


def test_train_step_is_a_step_of_fit(blobs):
    x, y = blobs
    model, other = small("sgd"), small("sgd")
    model.fit(x[:96], y[:96], epochs=1, batch_size=32, shuffle=False, verbose=0)
    for i in range(0, 96, 32):
        other.train_step(x[i:i + 32], y[i:i + 32])
    for a, b in zip(model.get_weights(), other.get_weights()):
        assert a.tobytes() == b.tobytes()


def test_gradients_agree_with_central_differences_of_the_loss(blobs):
    x, y = blobs
    model = small(dtype="float64")
    model.build(4)
    found = model.gradients(x[:10], y[:10])
    names = model.state.names()
    weights = model.get_weights()
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        for _ in range(4):
            index = tuple(rng.integers(s) for s in weights[place].shape)
            h, losses = 1e-6, []
            for sign in (1, -1):
                moved = [w.copy() for w in weights]
                moved[place][index] += sign * h
                model.set_weights(moved)
                losses.append(model.evaluate(x[:10], y[:10])[0])
            want = (losses[0] - losses[1]) / (2 * h)
            assert found[name][index] == pytest.approx(want, rel=1e-5, abs=1e-8), (name, index)
    model.set_weights(weights)


def test_looking_at_gradients_and_activations_changes_nothing(blobs):
    x, y = blobs
    model = small(extra=[BatchNorm()])
    model.fit(x, y, epochs=1, verbose=0)
    before = [w.tobytes() for w in model.get_weights()]
    model.gradients(x, y)
    seen = model.activations(x)
    assert [w.tobytes() for w in model.get_weights()] == before
    assert list(seen) == ["dense", "batch_norm", "dense_1"]
    np.testing.assert_array_equal(seen["dense_1"], model.predict(x))
    assert (seen["dense"] >= 0).all() and seen["dense"].shape == (150, 16)


def test_class_weight_equals_sample_weight_and_zero_weight_removes_a_sample(blobs):
    x, y = blobs
    model = small()
    model.build(4)
    own = np.where(y == 1, 3.0, 1.0)
    by_sample = model.evaluate(x, y, sample_weight=own, return_dict=True)["loss"]
    assert by_sample != model.evaluate(x, y)[0]
    kept = y != 2
    some = model.evaluate(x, y, sample_weight=kept.astype(float))[0]
    assert some * len(y) == pytest.approx(model.evaluate(x[kept], y[kept])[0] * kept.sum(), rel=1e-5)
    a, b = small(), small()
    a.fit(x, y, epochs=1, class_weight={0: 1, 1: 3, 2: 1}, verbose=0)
    b.fit(x, y, epochs=1, sample_weight=own, verbose=0)
    assert a.get_weights()[0].tobytes() == b.get_weights()[0].tobytes()


def test_a_final_softmax_trains_like_logits(blobs):
    x, y = blobs
    engine.seed(0)
    logits = Sequential([Dense(3)])
    engine.seed(0)
    soft = Sequential([Dense(3, activation="softmax")])
    for model in (logits, soft):
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        model.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(logits.get_weights()[0], soft.get_weights()[0])
    np.testing.assert_allclose(soft.predict(x).sum(1), 1, rtol=1e-5)


def test_frozen_layers_stay(blobs):
    x, y = blobs
    engine.seed(0)
    model = Sequential([Dense(8, activation="relu", trainable=False), Dense(3)])
    model.compile("adam", "cross_entropy")
    model.build(4)
    before = model.get_weights()
    model.fit(x, y, epochs=2, verbose=0)
    after = model.get_weights()
    assert before[0].tobytes() == after[0].tobytes() and before[2].tobytes() != after[2].tobytes()
    assert model.count_params() == 4 * 8 + 8 + 8 * 3 + 3 and model.count_params(trainable=True) == 27


def test_epoch_with_a_rest_counts_every_sample_once(blobs):
    x, y = blobs
    model = small("sgd")
    model.build(4)
    whole = model.evaluate(x, y, batch_size=150, return_dict=True)
    parts = model.evaluate(x, y, batch_size=64, return_dict=True)
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert parts["accuracy"] == whole["accuracy"]
    assert model.step == 0
    model.fit(x, y, epochs=2, batch_size=64, verbose=0)
    assert model.step == 6


def test_metrics_agree_with_numpy(blobs):
    x, y = blobs
    model = small(metrics=["accuracy", engine.metrics.TopK(2), "precision", "recall", "f1", "confusion"])
    model.fit(x, y, epochs=1, verbose=0)
    found = model.evaluate(x, y, return_dict=True)
    scores = model.predict(x)
    said = scores.argmax(1)
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (y, said), 1)
    np.testing.assert_array_equal(found["confusion"], matrix)
    assert found["accuracy"] == pytest.approx((said == y).mean())
    assert found["top_2"] == pytest.approx((np.argsort(-scores, 1)[:, :2] == y[:, None]).any(1).mean())
    precision = np.mean(np.diag(matrix) / np.maximum(matrix.sum(0), 1))
    assert found["precision"] == pytest.approx(precision)


def test_steps_of_one_epoch_allocate_nothing(blobs):
    import tracemalloc
    x, y = blobs
    model = small()
    epoch = model._pass(model._data(x, y, None, None, "test"), 16, "test", model.optimizer)
    epoch.start(np.arange(150), lambda step: 1e-3)
    epoch.plans[0].run(2)
    tracemalloc.start()
    epoch.plans[0].run(1)
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(50):
        epoch.plans[0].run(1)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now - before < 512 and peak - before < 4096, (now - before, peak - before)


# ------------------------------------------------------------------------------------------------------------ callbacks


def test_early_stopping_puts_the_best_weights_back(blobs):
    x, y = blobs
    model = small(engine.optimizers.SGD(0.0))
    stop = callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    history = model.fit(x, y, epochs=50, verbose=0, callbacks=[stop])
    assert len(history.epoch) <= 4 and stop.stopped_epoch is not None


def test_a_goal_ends_the_fit_and_says_when(blobs):
    x, y = blobs
    goal, far = callbacks.Goal("val_accuracy", 0.8), callbacks.Goal("val_loss", -1.0)
    model = small(engine.optimizers.Adam(0.02))
    history = model.fit(x, y, epochs=60, validation_data=(x, y), verbose=0, callbacks=[goal, far])
    reached = history.history["val_accuracy"]
    assert reached[-1] >= 0.8 > max(reached[:-1], default=0) and goal.epoch == len(reached) - 1 < 59
    assert 0 < goal.seconds < 600 and far.epoch is None and far.seconds is None


def test_csv_log_checkpoint_and_functions(blobs, tmp_path):
    x, y = blobs
    model, seen, losses = small(), [], []
    model.fit(x, y, epochs=3, batch_size=50, validation_split=0.2, verbose=0, callbacks=[
        callbacks.CSVLogger(tmp_path / "log.csv"),
        callbacks.ModelCheckpoint(tmp_path / "best-{epoch}.safetensors", monitor="val_accuracy"),
        callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch),
                                 on_batch_end=lambda batch, logs: losses.append(logs["loss"]))])
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy,val_loss,val_accuracy" and len(lines) == 4
    assert seen == [0, 1, 2] and len(losses) == 9
    assert sorted(p.name for p in tmp_path.glob("best*")) == [f"best-{i}.safetensors" for i in (1, 2, 3)]


def test_batch_callbacks_do_not_change_the_training(blobs):
    x, y = blobs
    a, b = small(), small()
    a.fit(x, y, epochs=2, verbose=0)
    b.fit(x, y, epochs=2, verbose=0, callbacks=[callbacks.LambdaCallback(on_batch_begin=lambda batch: None)])
    assert a.get_weights()[0].tobytes() == b.get_weights()[0].tobytes()


def test_schedules_reach_the_update(blobs):
    x, y = blobs
    model = small(engine.optimizers.SGD(engine.schedules.Steps(1.0, every=3, factor=0.0)))
    model.fit(x, y, epochs=1, batch_size=50, verbose=0)
    before = model.get_weights()[0]
    model.fit(x, y, epochs=1, batch_size=50, verbose=0)
    assert before.tobytes() == model.get_weights()[0].tobytes()


def test_history_plots(blobs, tmp_path):
    pytest.importorskip("matplotlib")
    x, y = blobs
    history = small().fit(x, y, epochs=2, validation_split=0.2, verbose=0)
    history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "2 epochs" in repr(history)


def test_summary_lists_layers_and_counts(blobs, capsys):
    model = Sequential([engine.Input((8, 8)), Flatten(), Residual([Dense(64, activation="relu")]), Dense(10)])
    model.summary()
    text = capsys.readouterr().out
    assert "residual (Residual)" in text and "└─ dense (Dense)" in text and "4,810 weights" in text


def test_verbose_output_goes_where_it_should(blobs, capsys):
    x, y = blobs
    small().fit(x, y, epochs=1, verbose=1)
    captured = capsys.readouterr()
    assert "epoch 1/1" in captured.out and "accuracy" in captured.out
    small().fit(x, y, epochs=1, verbose=0)
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------------------ own layers, ops


def test_a_users_layer_and_activation(blobs, tmp_path):
    x, y = blobs

    class Scale(engine.Layer):
        def weights(self, shape):
            return [engine.Weight("scale", shape[-1:], "ones")]

        def nodes(self, graph, value, weights, context):
            return graph.add("mul", value, weights["scale"])

    cube = engine.activation("cube", lambda v: v * v * v, lambda v: 3 * v * v)
    engine.seed(0)
    model = Sequential([Scale(), Dense(8, activation=cube), Dense(3)])
    model.compile("adam", "cross_entropy", ["accuracy"])
    history = model.fit(x, y, epochs=30, verbose=0)
    assert history.history["accuracy"][-1] > 0.8
    plain = Sequential([Scale(), Dense(3)])
    plain.build(4)
    plain.save(tmp_path / "m.safetensors")
    assert engine.load(tmp_path / "m.safetensors", layers=[Scale]).predict(x).tobytes() == plain.predict(x).tobytes()
    with pytest.raises(EngineError, match="Scale"):
        engine.load(tmp_path / "m.safetensors")


def test_float64_models_train(blobs):
    x, y = blobs
    model = small(dtype="float64")
    model.fit(x, y, epochs=40, verbose=0)
    assert model.predict(x).dtype == np.float64 and model.evaluate(x, y)[1] > 0.8


def test_a_hidden_step_says_that_it_has_no_gradient(blobs):
    x, y = blobs
    model = Sequential([Dense(4, activation="step"), Dense(3)])
    model.compile("adam", "cross_entropy")
    with pytest.raises(EngineError, match="op step has no gradient"):
        model.fit(x, y, verbose=0)


def test_rosenblatts_rule_is_followed_to_the_bit():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (60, 9)).astype(np.float32)
    y = (x.sum(1) > 4).astype(int)
    weights, bias = np.zeros(9), 0.0
    for row, label in zip(x, y):
        wrong = label - (1 if row @ weights + bias >= 0 else 0)
        weights, bias = weights + wrong * row, bias + wrong
    model = Sequential([Perceptron(1)])
    model.compile(engine.optimizers.SGD(1.0), "perceptron")
    model.fit(x, y, epochs=1, batch_size=1, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0][:, 0], weights)
    assert model.get_weights()[1][0] == bias


def test_an_op_of_ones_own_without_touching_the_package(blobs):
    from numba import njit

    from engine.errors import TargetError
    from engine.kernels.op import spec
    from engine.target import cuda

    @njit
    def cube_cpu(x, out, task, tasks):
        for i in range(x.size * task // tasks, x.size * (task + 1) // tasks):
            out[i] = x[i] ** 3

    cube = engine.Op("own_cube", lambda x: x ** 3, lambda x: spec(x), cube_cpu, grad=lambda graph, node, dy: (
        graph.add("mul", dy, graph.add("scale", graph.add("square", node.inputs[0]), factor=3.0)),))
    np.testing.assert_allclose(cube(np.array([1.0, 2.0])), [1, 8])

    class Cube(engine.Layer):
        def nodes(self, graph, value, weights, context):
            return graph.add(cube, value)

    x, y = blobs
    engine.seed(0)
    model = Sequential([Dense(8), Cube(), Dense(3)], target="cpu")
    model.compile(engine.optimizers.Adam(1e-3), "cross_entropy", ["accuracy"])
    assert model.fit(x / 4, y, epochs=60, verbose=0).history["accuracy"][-1] > 0.8
    if not cuda.present():
        assert "def cube_cpu" in cube.show()
    else:
        with pytest.raises(TargetError, match="no kernel for the target cuda"):
            cube(cuda.place(np.ones(3)))


def test_kernels_can_be_shown():
    from engine.kernels import TABLE
    assert "def map_cpu" in TABLE["relu"].show()
    assert "kernel(view(block, 0, 1, float32), formula_1" in TABLE["relu"].show("entry")
    assert "define" in TABLE["relu"].show("llvm")
    assert "ret" in TABLE["relu"].show("asm")
    with pytest.raises(engine.errors.UnknownName, match="did you mean 'asm'"):
        TABLE["relu"].show("asmm")
