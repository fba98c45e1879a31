"""Augmentation: images changed by chance in every training step, by nodes of the step's own graph.

    model.fit(x, y, augment=[augment.RandomFlip(), augment.RandomCrop(padding=4)])
    looks = augment.RandomCrop(padding=4)(x[:8], seed=1)                 # the same, to look at

Images are (n, height, width, channels), or grey (n, height, width). What happens to an image is a function of the
model's seed, the step and its place in the batch: the same for any number of threads, and on every target. Only
training steps augment; what has to happen to every image (x / 255, mean and deviation) is a layer: `Rescaling`,
`Normalize`. The kernels, with formulas and sources: `engine/kernels/augment`.
"""
import itertools
import math
from typing import Any, Callable, NamedTuple

import numpy as np

from engine.errors import DataError, EngineError, ShapeError

FIRST_STREAM = 1 << 31                       # the layers' own streams of random numbers lie below


class Chance(NamedTuple):
    """What an augmentation draws from, and what it may have to know.

    counter   the value [seed, step];  streams  gives a new number for each use of random numbers
    rows      rows(y) gives labels as rows of numbers, which can be mixed
    top       the largest value of the images: 255 where they are stored as bytes, else 1
    """
    counter: Any
    streams: Any
    rows: Callable
    top: float

    def draw(self, graph, op, x, **attributes):
        """A node of an op that takes x, the counter and a stream of its own."""
        return graph.add(op, x, self.counter, stream=next(self.streams), **attributes)


class Augmentation:
    """Base: `nodes(graph, x, y, chance)` adds nodes and returns (x, y). One of your own needs no more than that."""

    def nodes(self, graph, x, y, chance):
        raise NotImplementedError(f"{type(self).__name__}: an augmentation needs a method nodes(graph, x, y, chance)")

    def __call__(self, x, y=None, seed=0, step=0):
        """x (and y, when given) as in training step `step` of a model with this seed."""
        return Augment([self])(x, y, seed, step)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class Augment(Augmentation):
    """Augmentations one after another."""

    def __init__(self, steps):
        self.steps = list(steps) if isinstance(steps, (list, tuple)) else [steps]
        for given in self.steps:
            if not isinstance(given, Augmentation):
                raise EngineError(f"augment: expected augmentations as in engine.data.augment, got {given!r}; a class "
                                  f"needs parentheses: RandomFlip()")

    def nodes(self, graph, x, y, chance):
        grey = x.ndim == 3
        if grey:
            x = graph.add("reshape", x, shape=(*x.shape, 1))
        for given in self.steps:
            with graph.scope(type(given).__name__):
                x, y = given.nodes(graph, x, y, chance)
        return (graph.add("reshape", x, shape=x.shape[:3]) if grey else x), y

    def __call__(self, x, y=None, seed=0, step=0):
        from engine import target
        from engine.graph import Graph
        from engine.runtime import Plan
        x = np.asarray(x)
        dtype = x.dtype if x.dtype in (np.float64, np.uint8) else np.dtype(np.float32)
        if x.dtype.kind not in "fiub":
            raise DataError(f"augment: expected images of numbers, got dtype {x.dtype}")
        if x.ndim < 3:
            raise ShapeError(f"augment: expected images (n, height, width[, channels]), got shape {x.shape}; "
                             f"is a batch axis missing? x[None] adds one")
        graph = Graph()
        counter, image = graph.feed("counter", (2,), np.int64), graph.feed("x", x.shape, dtype)
        label = None if y is None else graph.feed("y", np.shape(y), _label_type(y))
        value, label = self.nodes(graph, as_floats(graph, image, np.float32), label,
                                  chance_of(counter, dtype, _plain_rows))
        graph.outputs["images"] = value
        if label is not None:
            graph.outputs["labels"] = label
        plan = Plan(graph, target.cpu)
        plan.run(counter=[seed, step], x=x, **({} if y is None else {"y": y}))
        return plan.fetch("images") if y is None else (plan.fetch("images"), plan.fetch("labels"))


def as_floats(graph, x, dtype):
    """Bytes become numbers 0 to 255; other values are as they are."""
    return graph.add("from_uint8", x, dtype=np.dtype(dtype).name) if x.dtype == np.uint8 else x


def chance_of(counter, stored, rows):
    """What a step's augmentations draw from, for images stored as this type."""
    return Chance(counter, itertools.count(FIRST_STREAM), rows, 255.0 if np.dtype(stored) == np.uint8 else 1.0)


def _label_type(y):
    return np.int64 if np.asarray(y).dtype.kind in "iub" else np.float32


def _plain_rows(y):
    if y is None or y.dtype.kind == "f":
        return y
    raise DataError("augment: mixing needs labels as rows of probabilities, got whole numbers; "
                    "engine.data.one_hot(y, classes) makes them")


# ------------------------------------------------------------------------------------------------------------ geometry


class RandomFlip(Augmentation):
    """Mirrored left to right ("horizontal"), upended ("vertical"), or each by itself ("both"), with `probability`."""

    def __init__(self, mode="horizontal", probability=0.5):
        if mode not in ("horizontal", "vertical", "both"):
            raise ValueError(f"RandomFlip: expected mode horizontal, vertical or both, got {mode!r}")
        self.mode, self.probability = mode, probability

    def nodes(self, graph, x, y, chance):
        across, down = self.mode in ("horizontal", "both"), self.mode in ("vertical", "both")
        return chance.draw(graph, "random_shift", x, horizontal=float(across * self.probability),
                           vertical=float(down * self.probability)), y


class RandomCrop(Augmentation):
    """The image with a border of `padding` pixels, cut to its own size anywhere. border "zero" or "reflect"."""

    def __init__(self, padding=4, border="zero"):
        if border not in ("zero", "reflect"):
            raise ValueError(f"RandomCrop: expected border zero or reflect, got {border!r}")
        self.padding, self.border = padding, border

    def nodes(self, graph, x, y, chance):
        return chance.draw(graph, "random_shift", x, padding=self.padding, reflect=self.border == "reflect"), y


class _Window(Augmentation):
    """Images seen through a window that is turned, moved and of another size; between pixels bilinear."""

    def window(self):
        """Attributes of the op random_window."""
        raise NotImplementedError

    def nodes(self, graph, x, y, chance):
        if x.ndim != 4:
            raise ShapeError(f"expected images (n, height, width[, channels]), got shape {x.shape}")
        numbers = graph.add("random_window", chance.counter, shape=x.shape[:3], dtype=x.dtype.name,
                            stream=next(chance.streams), **self.window())
        return graph.add("warp", x, numbers, edge=getattr(self, "border", "edge") == "edge"), y


class RandomAffine(_Window):
    """Turned by up to `degrees` either way, moved by up to a share `translate` of its sides, magnified by a factor
    between the two of `scale` (drawn evenly by area). border: "zero", or "edge" repeats the outermost pixels."""

    def __init__(self, degrees=0.0, translate=0.0, scale=(1.0, 1.0), border="zero"):
        if border not in ("zero", "edge"):
            raise ValueError(f"{type(self).__name__}: expected border zero or edge, got {border!r}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"{type(self).__name__}: expected scale=(smallest, largest) above 0, got {scale!r}")
        self.degrees, self.translate, self.scale, self.border = degrees, translate, scale, border

    def window(self):
        return {"angle": math.radians(self.degrees), "move": float(self.translate), "low": self.scale[1] ** -2.0,
                "high": self.scale[0] ** -2.0}


class RandomRotation(RandomAffine):
    """Turned by up to `degrees` either way around the middle."""

    def __init__(self, degrees, border="zero"):
        super().__init__(degrees, border=border)


class RandomResizedCrop(_Window):
    """A part of the image of a share of its area between the two of `scale`, its sides' ratio changed by up to a factor
    `ratio`, as a whole inside and brought back to the image's size (Szegedy et al. 2015)."""

    def __init__(self, scale=(0.08, 1.0), ratio=4 / 3):
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"RandomResizedCrop: expected scale=(smallest, largest) above 0, up to 1, got {scale!r}")
        self.scale, self.ratio = scale, ratio

    def window(self):
        return {"low": float(self.scale[0]), "high": float(self.scale[1]), "ratio": float(self.ratio), "inside": True}


# ------------------------------------------------------------------------------------------------------ values, labels


class ColorJitter(Augmentation):
    """Brightness, contrast and saturation times factors of 1 - given to 1 + given, in this order (grey or RGB).

    value_range   (lowest, highest) value of the images, by default (0, 255) for bytes and (0, 1) for others
    """

    def __init__(self, brightness=0.0, contrast=0.0, saturation=0.0, value_range=None):
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.value_range = value_range

    def nodes(self, graph, x, y, chance):
        low, high = self.value_range or (0.0, chance.top)
        return chance.draw(graph, "random_colour", x, brightness=float(self.brightness), contrast=float(self.contrast),
                           saturation=float(self.saturation), low=float(low), high=float(high)), y


class RandomErasing(Augmentation):
    """With `probability` a box gets `value`: a share of the area between the two of `scale`, height / width between the
    two of `ratio` (Zhong et al. 2017)."""

    def __init__(self, probability=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=0.0):
        self.probability, self.scale, self.ratio, self.value = probability, scale, ratio, value

    def nodes(self, graph, x, y, chance):
        low, high = map(float, self.scale)
        narrow, wide = map(float, self.ratio)
        return chance.draw(graph, "random_erase", x, probability=float(self.probability), low=low, high=high,
                           ratio_low=narrow, ratio_high=wide, value=float(self.value)), y


class Cutout(Augmentation):
    """A square of `size` pixels a side gets `value`; its middle is anywhere in the image (DeVries, Taylor 2017)."""

    def __init__(self, size, value=0.0):
        if size < 1:
            raise ValueError(f"Cutout: expected a size of at least 1 pixel, got {size!r}")
        self.size, self.value = size, value

    def nodes(self, graph, x, y, chance):
        area = self.size ** 2 / max(1, math.prod(x.shape[1:3]))
        return chance.draw(graph, "random_erase", x, low=area, high=area, ratio_low=1.0, ratio_high=1.0, inside=False,
                           value=float(self.value)), y


class MixUp(Augmentation):
    """Every sample mixed with another one of its batch, x and labels alike, its own share from Beta(alpha, alpha) but
    at least 1/2 (Zhang et al. 2018). Class labels become rows of shares; metrics and sample weights go by the sample's
    own label."""

    def __init__(self, alpha=0.2):
        self.alpha = alpha

    def nodes(self, graph, x, y, chance):
        stream = next(chance.streams)        # the same draws for both
        mixed = [graph.add("mixup", v, chance.counter, alpha=float(self.alpha), stream=stream)
                 for v in (x, chance.rows(y)) if v is not None]
        return mixed[0], (mixed[1] if len(mixed) > 1 else y)


def pipeline(given):
    """An `Augment` from one augmentation or several; None for none."""
    if given is None or isinstance(given, (list, tuple)) and not given:
        return None
    return given if isinstance(given, Augment) else Augment(given)
