"""Every mistake that a person makes at the model's doors has its sentence."""
import numpy as np
import pytest

import engine
from engine import Dense, Dropout, Flatten, Input, Reshape, Sequential
from engine.errors import DataError, EngineError, ShapeError, TargetError, UnknownName

X = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
Y = np.arange(12) % 3


def ready(loss="cross_entropy", units=3):
    model = Sequential([Dense(4, activation="relu"), Dense(units)])
    model.compile("adam", loss)
    return model


CASES = {
    "image without flatten": (ShapeError, r"dense: expected x of shape \(n, features\), got \(n, 28, 28\); "
                              r"is a Flatten\(\) missing before it\?",
                              lambda: ready().fit(np.zeros((4, 28, 28)), Y[:4])),
    "later data of another shape": (ShapeError, r"dense: expected x of shape \(n, 6\), got \(12, 5\)",
                                    lambda: _built().predict(X[:, :5])),
    "one sample without a batch axis": (ShapeError, "is a batch axis missing", lambda: _built().predict(X[0])),
    "labels too large": (DataError, r"expected labels 0 to 2 for the model's 3 outputs, got 3 at sample 3; do the "
                         "labels start at 1", lambda: ready().fit(X, np.arange(12) % 4)),
    "negative labels": (DataError, "got -1 at sample 0", lambda: ready().fit(X, Y - 1)),
    "labels that are no whole numbers": (DataError, "expected whole-number labels", lambda: ready().fit(X, Y + 0.5)),
    "text labels": (DataError, "expected whole-number labels, got <U1",
                    lambda: ready().fit(X, np.array(list("abcabcabcabc")))),
    "probabilities of another width": (ShapeError, r"expected y of shape \(n, 3\)",
                                       lambda: ready().fit(X, np.eye(4)[Y])),
    "too few labels": (ShapeError, "got 12 samples and 11 labels", lambda: ready().fit(X, Y[:-1])),
    "nan in the data": (DataError, r"x has 1 NaN or infinite values, the first at \(3, 2\)",
                        lambda: ready().fit(_with_nan(X), Y)),
    "infinity in the targets": (DataError, "y has NaN or infinite values, first at sample 2",
                                lambda: ready("mse", 1).fit(X, np.where(np.arange(12) == 2, np.inf, 1.0))),
    "no data": (DataError, "expected at least one sample", lambda: ready().fit(X[:0], Y[:0])),
    "complex numbers": (DataError, "expected numbers in x, got dtype complex64", lambda: ready().fit(X + 1j, Y)),
    "objects": (DataError, "expected numbers in x, got dtype object", lambda: ready().fit(np.array([[None]]), Y[:1])),
    "not compiled": (EngineError, "not compiled; call compile", lambda: Sequential([Dense(3)]).fit(X, Y)),
    "not built": (EngineError, "the shape of its input is not known", lambda: Sequential([Dense(3)]).summary()),
    "no layers": (EngineError, "it has no layers", lambda: Sequential([]).build(3)),
    "unknown activation": (UnknownName, "did you mean 'relu'", lambda: Dense(3, activation="relo")),
    "unknown loss": (UnknownName, "loss: unknown name 'cross_entrpy'; did you mean 'cross_entropy'",
                     lambda: ready("cross_entrpy")),
    "unknown optimizer": (UnknownName, "optimizer: unknown name 'adamm'", lambda: _compiled(optimizer="adamm")),
    "unknown metric": (UnknownName, "metric: unknown name", lambda: _compiled(metrics=["accurate"])),
    "unknown initialiser": (UnknownName, "initializer: unknown name",
                            lambda: Sequential([Dense(3, kernel_initializer="he")]).build(3)),
    "unknown target": (UnknownName, "target: unknown name 'gpu'", lambda: Sequential([], target="gpu")),
    "a class instead of a layer": (EngineError, r"needs parentheses", lambda: Sequential([Dense])),
    "one layer used twice": (EngineError, "give each its own name", lambda: Sequential([_SHARED, _SHARED])),
    "half a unit": (ValueError, "whole number of at least 1, got 2.5", lambda: Dense(2.5)),
    "dropout of everything": (ValueError, r"rate from 0 up to \(not including\) 1", lambda: Dropout(1.0)),
    "reshape that does not fit": (ShapeError, r"reshape: expected x of shape with as many values as \(5, 2\)",
                                  lambda: Sequential([Reshape((5, 2))]).build((3, 3))),
    "input that contradicts": (ShapeError, r"input: expected x of shape \(n, 4\)",
                               lambda: Sequential([Input(4)]).build(5)),
    "batch size zero": (EngineError, "batch_size: expected a whole number of at least 1, got 0",
                        lambda: ready().fit(X, Y, batch_size=0)),
    "weights of samples": (ShapeError, r"sample_weight of shape \(12,\)",
                           lambda: ready().fit(X, Y, sample_weight=[1, 2])),
    "weights of classes": (DataError, r"class_weight lacks the classes \[2\]",
                           lambda: ready().fit(X, Y, class_weight={0: 1, 1: 1})),
    "validation split": (DataError, "between 0 and 1", lambda: ready().fit(X, Y, validation_split=1.5)),
    "validation data": (DataError, r"expected validation_data as \(x, y\) or .*, got ndarray",
                        lambda: ready().fit(X, Y, validation_data=X)),
    "binary labels": (DataError, "expected labels between 0 and 1, got",
                      lambda: ready("binary_cross_entropy", 1).fit(X, Y)),
    "hinge labels": (DataError, "expected labels -1 and 1", lambda: ready("hinge", 1).fit(X, Y)),
    "callback": (EngineError, "expected callbacks made from", lambda: ready().fit(X, Y, callbacks=[print])),
    "monitor": (UnknownName, "EarlyStopping: monitor: unknown name 'val_loss'",
                lambda: ready().fit(X, Y, verbose=0, callbacks=[engine.callbacks.EarlyStopping()])),
    "learning rate": (ValueError, "expected a finite number of at least 0", lambda: engine.optimizers.SGD(-1.0)),
    "seed": (EngineError, "expected a whole number", lambda: engine.seed("one")),
    "dtype": (EngineError, "expected dtype float32 or float64", lambda: Sequential([], dtype="float16")),
    "adding to a built model": (EngineError, "already built", lambda: _built().add(Flatten())),
    "op with mixed dtypes": (engine.errors.DtypeError, "matmul: expected inputs of one dtype, got float32, float64",
                             lambda: engine.kernels.TABLE["matmul"](X, X.T.astype("f8").copy())),
    "op with strided input": (ShapeError, "matmul: input 1: expected a C-contiguous array",
                              lambda: engine.kernels.TABLE["matmul"](X, X.T)),
    "op with a list": (engine.errors.DtypeError, "relu: input 0: expected an array, got list",
                       lambda: engine.kernels.TABLE["relu"]([1.0])),
    "op with float16": (engine.errors.DtypeError, "expected float32, float64 or int64, got float16",
                        lambda: engine.kernels.TABLE["relu"](X.astype("f2"))),
    "op with inner sizes that differ": (ShapeError, "matmul: expected inner sizes that agree: 6 columns",
                                        lambda: engine.kernels.TABLE["matmul"](X, X)),
    "op with a missing input": (ShapeError, "matmul: got 1 inputs", lambda: engine.kernels.TABLE["matmul"](X)),
}
_SHARED = Dense(3)


def _with_nan(x):
    x = x.copy()
    x[3, 2] = np.nan
    return x


def _built():
    model = ready()
    model.build(6)
    return model


def _compiled(**arguments):
    Sequential([Dense(3)]).compile(**arguments)


@pytest.mark.parametrize("case", CASES)
def test_the_mistake_has_its_sentence(case):
    kind, text, action = CASES[case]
    with pytest.raises(kind, match=text):
        action()


def test_an_absent_target_is_an_error_with_its_reason(monkeypatch):
    from engine import target
    if target.cuda.present():
        pytest.skip("a GPU or the simulator is present")
    with pytest.raises(TargetError, match="cuda was asked for but is absent: "):
        Sequential([Dense(3)], target="cuda")
    monkeypatch.setenv("ENGINE_TARGET", "cuda")
    with pytest.raises(TargetError, match="ENGINE_TARGET=cuda was asked for"):
        Sequential([Dense(3)])
    monkeypatch.setenv("ENGINE_TARGET", "cpu")
    assert "ENGINE_TARGET=cpu" in target.why(Sequential([Dense(3)]).target)
