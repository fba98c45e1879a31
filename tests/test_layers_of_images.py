"""Norm, resize, padding and embedding layers: like PyTorch, the same bits for any number of threads, clear refusals."""
import doctest
import importlib

import numpy as np
import pytest
from layer_parity import against_torch, run_layer

import engine
from engine import (
    LRN,
    BatchNorm,
    Dense,
    Embedding,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    ReflectionPadding2D,
    RMSNorm,
    Sequential,
    UpSampling2D,
    ZeroPadding2D,
)
from engine.errors import DataError, ShapeError
from engine.kernels import TABLE

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

rng = np.random.default_rng(6)
SHAPE, C = (3, 5, 4, 12), 12
GAMMA, BETA = {"gamma": rng.random(C) + 0.5}, {"beta": rng.standard_normal(C)}
MOVING = {"moving_mean": rng.standard_normal(C), "moving_variance": rng.random(C) + 0.5}


def group(groups):
    return lambda t, gamma, beta: F.group_norm(t, groups, gamma, beta, 1e-5)


def batch(t, gamma, beta, moving_mean, moving_variance):
    running = moving_mean.detach().clone(), moving_variance.detach().clone()
    return F.batch_norm(t, *running, gamma, beta, True, 0.1, 1e-5)


def enlarged(mode, **more):
    return lambda t: F.interpolate(t, scale_factor=(3, 2), mode=mode, **more)


LIKE = {                                     # layer, what PyTorch does, weights
    "batch norm": (lambda: BatchNorm(0.9, 1e-5), batch, {**GAMMA, **BETA, **MOVING}),
    "group norm": (lambda: GroupNorm(4), group(4), {**GAMMA, **BETA}),
    "group norm of one": (lambda: GroupNorm(1), group(1), {**GAMMA, **BETA}),
    "instance norm": (lambda: InstanceNorm(), group(12), {**GAMMA, **BETA}),
    "lrn": (lambda: LRN(5, 0.3, 0.75, 2.0), lambda t: F.local_response_norm(t, 5, 0.3, 0.75, 2.0), {}),
    "lrn of an even size": (lambda: LRN(4, 1.0, 0.5), lambda t: F.local_response_norm(t, 4, 1.0, 0.5, 1.0), {}),
    "nearest": (lambda: UpSampling2D((3, 2)), enlarged("nearest"), {}),
    "bilinear": (lambda: UpSampling2D((3, 2), "bilinear"), enlarged("bilinear", align_corners=False), {}),
    "corners": (lambda: UpSampling2D((3, 2), "bilinear", True), enlarged("bilinear", align_corners=True), {}),
    "zeros": (lambda: ZeroPadding2D(((1, 2), (0, 3))), lambda t: F.pad(t, (0, 3, 1, 2)), {}),
    "reflected": (lambda: ReflectionPadding2D(((1, 4), (3, 2))), lambda t: F.pad(t, (3, 2, 1, 4), "reflect"), {}),
}
LAST = {
    "layer norm": (LayerNorm, lambda t, gamma, beta: F.layer_norm(t, (C,), gamma, beta, 1e-5), {**GAMMA, **BETA}),
    "rms norm": (RMSNorm, lambda t, gamma: F.rms_norm(t, (C,), gamma, 1e-5), GAMMA),
}


@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*LIKE, *LAST])
def test_like_torch(name, dtype):
    make, theirs, weights = {**LIKE, **LAST}[name]
    against_torch(make(), theirs, SHAPE, dtype, weights=weights, channels_first=name in LIKE)


@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("size,corners", [((7, 3), False), ((2, 9), True), ((1, 1), True), ((5, 4), False)])
def test_bilinear_of_any_size_like_torch(size, corners):
    x = rng.standard_normal(SHAPE)
    want = F.interpolate(torch.tensor(np.moveaxis(x, -1, 1).copy()), size=size, mode="bilinear", align_corners=corners)
    found = TABLE["upsample_bilinear"](x, size=size, align_corners=corners)
    np.testing.assert_allclose(found, np.moveaxis(want.numpy(), 1, -1), rtol=1e-9, atol=1e-9)


@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_embedding_like_torch():
    table, x = rng.standard_normal((7, 5)), rng.integers(0, 7, (4, 6))
    found, dy = run_layer(Embedding(7, 5), x, {"embeddings": table})
    weight = torch.tensor(table, requires_grad=True)
    F.embedding(torch.tensor(x), weight).backward(torch.tensor(dy))
    np.testing.assert_array_equal(found["y"], table[x])
    np.testing.assert_allclose(found["dembeddings"], weight.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer,shape", [(GroupNorm(4), (7, 40, 41, 12)), (Embedding(50, 64), (200, 40)),
                                         (UpSampling2D(2, "bilinear"), (5, 30, 31, 12))],
                         ids=lambda v: type(v).__name__)
def test_threads_change_no_bit(layer, shape):
    embeds = isinstance(layer, Embedding)
    x = rng.integers(0, 50, shape) if embeds else rng.standard_normal(shape).astype(np.float32)
    weights = {w.name: np.asarray(rng.random(w.shape), np.float32) for w in layer.weights(shape[1:])}
    before, found = engine.threads.get(), []
    try:
        for threads in {1, before}:
            engine.threads.set(threads)
            found.append(run_layer(layer, x, weights, seed=0)[0])
    finally:
        engine.threads.set(before)
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[-1][name], err_msg=name)


def sentences():
    """Two classes by which of two words stands more often, among others."""
    x = rng.integers(0, 20, (256, 8))
    return x, ((x == 3).sum(1) > (x == 5).sum(1)).astype(np.int64)


def test_an_embedding_is_trained_saved_and_loaded(tmp_path):
    x, y = sentences()
    engine.seed(3)
    model = Sequential([Embedding(20, 8), GlobalAvgPool(), Dense(2)])
    model.compile(engine.optimizers.Adam(0.05), "cross_entropy", ["accuracy"])
    history = model.fit(x, y, epochs=25, batch_size=30, verbose=0)
    assert history.history["accuracy"][-1] > 0.85
    assert model.train_step(x.astype(np.float64), y) < 0.6           # whole numbers, whatever their dtype
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(engine.load(tmp_path / "m.safetensors").predict(x), model.predict(x))


def test_what_an_embedding_refuses():
    model = Sequential([Embedding(20, 8), Flatten()])
    x, _ = sentences()
    for wrong, sentence in ((x + 13, r"embedding: expected indices from 0 to 19 \(vocab=20\), got"),
                            (x - 1, "got -1 at"),
                            (x + 0.5, "takes indices: expected whole numbers in x"), (x * np.nan, "whole numbers")):
        with pytest.raises(DataError, match=sentence):
            model.predict(wrong)
    with pytest.raises(DataError, match="an Embedding has to be the first layer"):
        Sequential([Dense(4), Embedding(5, 2)]).predict(np.zeros((2, 4)))
    assert np.isnan(TABLE["gather"](np.zeros((3, 2)), np.array([3]))).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adaptive_avg_pool", "avg_pool", "batch_norm", "embedding", "global_avg_pool",
                                  "global_max_pool", "group_norm", "instance_norm", "layer_norm", "lrn", "max_pool",
                                  "reflection_padding2d", "rms_norm", "up_sampling2d", "zero_padding2d"])
def test_examples(name):
    module = importlib.import_module(f"engine.layers.{name}")
    found = doctest.testmod(module, extraglobs={"np": np, "engine": engine})
    assert found.attempted and not found.failed


@pytest.mark.parametrize("make,error,sentence", [
    (lambda: GroupNorm(0), ValueError, "GroupNorm: expected groups"),
    (lambda: LayerNorm(0), ValueError, "LayerNorm: expected epsilon above 0"),
    (lambda: RMSNorm(-1), ValueError, "RMSNorm: expected epsilon"),
    (lambda: BatchNorm(1.5), ValueError, "BatchNorm: expected momentum from 0 to 1"),
    (lambda: LRN(0), ValueError, "LRN: expected size"),
    (lambda: LRN(k=0), ValueError, "LRN: expected alpha of at least 0 and k above 0"),
    (lambda: Embedding(0, 3), ValueError, "Embedding: expected vocab"),
    (lambda: UpSampling2D(0), ValueError, "UpSampling2D: expected size"),
    (lambda: UpSampling2D(2, "cubic"), ValueError, 'expected interpolation "nearest" or "bilinear"'),
    (lambda: ZeroPadding2D("same"), ValueError, "ZeroPadding2D: expected padding in numbers"),
    (lambda: ZeroPadding2D(-1), ValueError, "ZeroPadding2D: expected padding"),
    (lambda: Sequential([GroupNorm(5)]).build((4, 4, 12)), ShapeError, "group_norm: expected x .* 5 groups divide"),
    (lambda: Sequential([InstanceNorm()]).build((12,)), ShapeError, "instance_norm: expected x of shape"),
    (lambda: Sequential([ReflectionPadding2D(3)]).build((3, 4, 1)), ShapeError, "larger than what is reflected"),
    (lambda: Sequential([UpSampling2D()]).build((3, 4)), ShapeError, "up_sampling2d: expected x of shape .n, height"),
    (lambda: TABLE["group_norm"](np.zeros((2, 4)), np.zeros(4), np.zeros(4), groups=3), ShapeError, "groups that"),
    (lambda: TABLE["pad_reflect"](np.zeros((1, 2, 2, 1)), padding=(2, 0, 0, 0)), ShapeError, "less than the image"),
    (lambda: TABLE["upsample_nearest"](np.zeros((1, 2, 2))), ShapeError, "channels last"),
    (lambda: TABLE["local_response_norm"](np.zeros((2, 3)), k=0.0), ShapeError, "k above 0")])
def test_refusals(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
