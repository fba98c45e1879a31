"""Augmentation: what it does to images and labels, by itself and inside a training step."""
import numpy as np
import pytest

import engine
from engine import Dense, Dropout, Flatten, Input, Normalize, Rescaling, Sequential
from engine.data import augment, one_hot
from engine.errors import DataError, EngineError, ShapeError
from engine.kernels.augment.draws import FARTHEST, direction_at


@pytest.fixture(scope="module")
def images():
    """(x, y): 24 images (6, 5, 3) between 0 and 1 of three classes."""
    rng = np.random.default_rng(0)
    return rng.random((24, 6, 5, 3)).astype(np.float32), np.arange(24) % 3


def classifier(seed=5, layers=(), loss="cross_entropy"):
    engine.seed(seed)
    model = Sequential([*layers, Flatten(), Dense(8, activation="relu"), Dense(3)])
    model.compile("adam", loss, ["accuracy"])
    return model


ALL = [augment.RandomFlip("both"), augment.RandomCrop(2), augment.RandomCrop(3, "reflect"), augment.RandomRotation(20),
       augment.RandomAffine(10, 0.1, (0.8, 1.2), "edge"), augment.RandomResizedCrop((0.4, 0.9)),
       augment.ColorJitter(0.2, 0.3, 0.4), augment.RandomErasing(), augment.Cutout(3), augment.MixUp(0.4)]


@pytest.mark.parametrize("given", ALL, ids=lambda a: type(a).__name__)
def test_every_augmentation_depends_on_seed_and_step_alone(given, images):
    x, _ = images
    kept = x.copy()
    looks = [given(x, seed=seed, step=step) for seed, step in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert all(look.shape == x.shape and look.dtype == np.float32 for look in looks)
    assert np.array_equal(looks[0], looks[1]) and np.array_equal(x, kept)
    assert not np.array_equal(looks[0], looks[2]) and not np.array_equal(looks[0], looks[3])
    assert np.isfinite(looks[0]).all() and looks[0].min() >= 0 and looks[0].max() <= 1 + 1e-5
    grey = given(x[..., 0], seed=1)
    assert grey.shape == x.shape[:3] and np.array_equal(grey, given(x[..., :1], seed=1)[..., 0])


def test_flips_are_mirror_images_about_half_of_the_time():
    x = np.random.default_rng(1).random((1000, 2, 3, 1)).astype(np.float32)
    made = augment.RandomFlip()(x, seed=3)
    turned = (made == x[:, :, ::-1]).all((1, 2, 3))
    assert np.array_equal(made[~turned], x[~turned]) and 440 < turned.sum() < 560
    assert np.array_equal(augment.RandomFlip("vertical", 1.0)(x), x[:, ::-1])


def test_crops_reach_every_place_and_nothing_else():
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1).repeat(500, 0)
    padded = np.pad(x[0, ..., 0], 1)
    places = {padded[i:i + 3, j:j + 3].tobytes() for i in range(3) for j in range(3)}
    assert {image.tobytes() for image in augment.RandomCrop(1)(x, seed=0)[..., 0]} == places


def test_a_quarter_turn_is_numpys():
    """Angles are drawn evenly; the turn found from two points is the one that the whole image shows."""
    x = np.zeros((200, 21, 21, 1), np.float32)
    x[:, 10, 16] = 1                         # six to the right of the middle
    made = augment.RandomRotation(90)(x, seed=4)[..., 0]
    i, j = np.mgrid[:21, :21] - 10
    mass = made.sum((1, 2))
    found = np.degrees(np.arctan2((made * i).sum((1, 2)) / mass, (made * j).sum((1, 2)) / mass))
    away = np.hypot((made * i).sum((1, 2)) / mass, (made * j).sum((1, 2)) / mass)
    assert np.abs(away - 6).max() < 0.5 and -91 < found.min() < -75 and 75 < found.max() < 91
    assert np.histogram(found, 4, (-90, 90))[0].min() > 25


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="no numbers of more digits to compare with")
@pytest.mark.parametrize("farthest", [np.pi / 4, 7, FARTHEST])
def test_sine_and_cosine_of_an_angle_are_within_one_and_a_half_ulp(farthest):
    rng, quarters = np.random.default_rng(0), int(farthest / np.pi * 2)
    x = np.concatenate([rng.uniform(-farthest, farthest, 20000), np.arange(-quarters, quarters + 1) * (np.pi / 2),
                        rng.normal(0, 1e-3, 100), [farthest, -farthest]])
    for got, function in zip(np.array([direction_at(angle) for angle in x.tolist()]).T, (np.sin, np.cos)):
        want = function(x.astype(np.longdouble))
        assert (np.abs(got - want) / np.spacing(np.abs(want.astype(float)))).max() < 1.5


def test_angles_whose_sine_is_not_known_are_refused(images):
    with pytest.raises(ShapeError, match="an angle of at most 1000 radians, got 1745"):
        augment.RandomRotation(100_000)(images[0])


def test_a_resized_crop_of_a_slope_is_a_part_of_it():
    """Bilinear reading is exact on a slope: what is seen is a slope between values of the image."""
    x = np.tile(np.arange(32, dtype=np.float32)[:, None], (50, 1, 32))
    made = augment.RandomResizedCrop((0.25, 0.5), 1.0)(x, seed=1)
    steps = np.diff(made[:, 1:-1, 16], axis=1)
    assert (np.abs(steps - steps[:, :1]) < 1e-4).all() and (steps > 0.49).all() and (steps < 0.72).all()
    assert made.min() >= 0 and made.max() <= 31


def test_erasing_takes_the_share_that_was_asked_for():
    x = np.ones((400, 20, 20, 1), np.float32)
    share = 1 - augment.RandomErasing(1.0, (0.1, 0.3), (0.5, 2.0))(x, seed=2).mean((1, 2, 3))
    assert 0.08 < share.min() < 0.13 and 0.26 < share.max() < 0.33 and abs(share.mean() - 0.2) < 0.01
    holes = 1 - augment.Cutout(6)(x, seed=2)[..., 0]
    sizes = holes.sum((1, 2))
    assert sizes.max() == 36 and 9 <= sizes.min() < 36
    assert 0.4 < (augment.RandomErasing(0.5)(x, seed=1).mean((1, 2, 3)) == 1).mean() < 0.6


def test_mixup_mixes_labels_as_it_mixes_samples():
    labels = np.arange(300) % 3
    x = one_hot(labels, 3)[:, None, None, :] * np.ones((1, 4, 4, 1), np.float32)
    mixed, rows = augment.MixUp(0.4)(x, one_hot(labels), seed=6)
    assert np.allclose(mixed, rows[:, None, None, :], atol=1e-6) and np.allclose(rows.sum(1), 1, atol=1e-6)
    assert np.array_equal(rows.argmax(1), labels) and 0.3 < (rows.max(1) < 0.99).mean() < 0.7
    with pytest.raises(DataError, match="one_hot"):
        augment.MixUp()(x, labels)


def test_shares_of_mixup_follow_the_beta_distribution():
    from engine.kernels import TABLE
    x = np.concatenate([np.zeros((1, 1)), np.ones((1, 1))]).repeat(10_000, 0)
    for alpha in (0.2, 1.0, 2.0):
        mixed = TABLE["mixup"](x, np.array([1, 2]), alpha=alpha)[:, 0]
        shares = mixed[10_000:][mixed[10_000:] < 1]
        variance = 0.25 / (2 * alpha + 1)    # of Beta(alpha, alpha): the mean square distance from 1/2
        assert abs(np.mean((shares - 0.5) ** 2) / variance - 1) < 0.05


def test_jitter_keeps_within_the_values_range(images):
    x = (255 * images[0]).astype(np.uint8)
    made = augment.ColorJitter(0.5, 0.5, 0.5)(x, seed=1)
    assert made.dtype == np.float32 and made.min() >= 0 and 200 < made.max() <= 255
    grey = np.repeat(images[0][..., :1], 3, -1)
    assert np.allclose(augment.ColorJitter(saturation=1.0)(grey, seed=1), grey, atol=1e-5)


def test_errors_say_what_was_expected(images):
    x, y = images
    with pytest.raises(EngineError, match="parentheses"):
        augment.Augment([augment.RandomFlip])
    with pytest.raises(ShapeError, match="batch axis"):
        augment.RandomFlip()(x[0, 0])
    with pytest.raises(ValueError, match="horizontal, vertical"):
        augment.RandomFlip("sideways")
    with pytest.raises(ShapeError, match="at most 4 to reflect"):
        augment.RandomCrop(5, "reflect")(x)
    with pytest.raises(ShapeError, match="1 or 3 channels"):
        augment.ColorJitter(0.5)(x[..., :2])
    with pytest.raises(ShapeError, match="augment/RandomCrop: random_shift: expected images"):
        classifier().fit(x.reshape(24, -1), y, augment=augment.RandomCrop(), verbose=0)
    with pytest.raises(DataError, match="binary_cross_entropy"):
        model = classifier(loss="hinge")
        model.fit(x, np.sign(one_hot(y) - 0.5), augment=augment.MixUp(), verbose=0)


# ------------------------------------------------------------------------------------------------- in a training step


def trained(x, y, given, threads=None, **more):
    before = engine.threads.get()
    try:
        engine.threads.set(threads or before)
        model = classifier(layers=[Dropout(0.1)])
        history = model.fit(x, y, epochs=2, batch_size=10, augment=given, verbose=0, **more)
        return model, history.history
    finally:
        engine.threads.set(before)


def test_training_with_everything_is_the_same_for_any_number_of_threads():
    rng = np.random.default_rng(3)
    x, y = rng.random((40, 40, 40, 3)).astype(np.float32), np.arange(40) % 3
    (one, first), (two, second) = (trained(x, y, ALL, threads) for threads in (1, 2))
    assert first == second
    for a, b in zip(one.get_weights(), two.get_weights()):
        assert np.array_equal(a, b)


def test_a_step_sees_what_the_augmentation_shows(images):
    """The gradient step of fit equals one on the batch that the augmentation gives for the model's seed and step."""
    x, y = images
    chain = augment.Augment([augment.RandomFlip(), augment.RandomCrop(2), augment.MixUp(0.4)])
    model, other = classifier(), classifier()
    model.fit(x, y, batch_size=24, augment=chain, shuffle=False, verbose=0)
    seen, rows = chain(x, one_hot(y), seed=other.seed, step=0)
    other.train_step(seen, rows)
    apart = 0 if model.target.name == "cpu" else 1e-5    # the augmentation shows what NumPy's arrays become on the CPU
    for a, b in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_allclose(a, b, rtol=apart, atol=apart)


def test_validation_and_evaluation_are_not_augmented(images):
    x, y = images
    hide = augment.RandomErasing(1.0, (1.0, 1.0), (1.0, 1.0))
    model = classifier()
    history = model.fit(x, y, epochs=1, augment=hide, validation_data=(x, y), verbose=0).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(x, y)[0], rel=1e-6)


def test_mixup_counts_accuracy_by_the_samples_own_labels(images):
    x, y = images
    model = classifier()
    model.compile(engine.optimizers.Adam(0.02), "cross_entropy", ["accuracy"])
    model.fit(x, y, epochs=150, batch_size=24, verbose=0)
    assert model.evaluate(x, y)[1] == 1
    assert model.fit(x, y, epochs=1, augment=[augment.MixUp(0.1)], verbose=0).history["accuracy"][0] > 0.8


def test_bytes_train_as_the_same_numbers_do(images):
    x, y = images
    stored = np.round(255 * x).astype(np.uint8)
    models = []
    for given in (stored, stored.astype(np.float32)):
        model = classifier(layers=[Rescaling(1 / 255)])
        model.fit(given, y, epochs=2, batch_size=7, validation_split=0.25, augment=[augment.RandomFlip()], verbose=0)
        models.append(model)
    for a, b in zip(*(model.get_weights() for model in models)):
        assert np.array_equal(a, b)
    assert np.array_equal(*(model.predict(given) for model, given in zip(models, (stored, stored.astype(np.float32)))))
    assert models[0].train_step(stored[:5], y[:5]) == models[1].train_step(stored[:5].astype(np.float32), y[:5])


def test_scaling_layers_do_their_formula_and_are_saved(images, tmp_path):
    x, _ = images
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    model = Sequential([Normalize(mean, std), Rescaling([1, 2, 3], 0.5), Rescaling(2.0, -1.0), Normalize(0.5, 0.25)])
    model.build(x.shape[1:])
    want = ((2 * ((x - mean) / std * [1, 2, 3] + 0.5) - 1) - 0.5) / 0.25
    assert np.allclose(model.predict(x), want, rtol=1e-4, atol=1e-4)
    model.save(tmp_path / "scaled.safetensors")
    assert np.array_equal(engine.load(tmp_path / "scaled.safetensors").predict(x), model.predict(x))
    with pytest.raises(ShapeError, match="one number for each channel"):
        Sequential([Normalize(mean, std)]).build((4, 4))
    with pytest.raises(ValueError, match="above 0"):
        Normalize(0.0, 0.0)


def test_channels_first_images_are_augmented_as_images(images):
    """The same training, whichever way the channels come."""
    x, y = images
    chain = [augment.RandomFlip(), augment.RandomCrop(2), augment.ColorJitter(0.3)]
    models = []
    for data_format, given in (("channels_last", x), ("channels_first", np.ascontiguousarray(x.transpose(0, 3, 1, 2)))):
        model = classifier(layers=[Input(given.shape[1:], data_format)])
        model.fit(given, y, epochs=2, batch_size=8, augment=chain, verbose=0)
        models.append(model)
    for a, b in zip(*(model.get_weights() for model in models)):
        assert np.array_equal(a, b)
