"""Toy problems: small sets made by a formula, to see what a network can and cannot learn."""

from math import pi

import numpy as np

from engine.errors import unknown

MARGIN = 0.05  # of "linear": least distance to the line, half the gap between the classes
CELLS = 20  # photocells along each side of Rosenblatt's retina


def toy(kind: str, n: int | None = None, seed: int = 0, *, noise: float | None = None,
        classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Make a toy problem.

    kind     "linear"      (n, 2) in about [-1, 1]: two sides of a line, at least 0.05 from it; a perceptron learns it
             "xor"         (n, 2), the corners of the unit square in the order 00, 01, 10, 11, and again: label 1 where
                           the two differ; no single line separates them (M. Minsky, S. Papert (1969), Perceptrons)
             "photocells"  (n, 20, 20), cells of 0 or 1: label 0 a filled square, 1 a triangle, of side 8 to 12, at most
                           2 cells off the middle. The 400 photocells of F. Rosenblatt's Mark I Perceptron (1960). Not
                           further off: no weighted sum of cells knows a shape at *every* place (Minsky and Papert)
             "spirals"     (n, 2) in [-1, 1]: arms wound once about each other (K. Lang, M. Witbrock (1988))
             "moons"       (n, 2): two half circles, each reaching into the other
             "blobs"       (n, 2): one Gaussian cloud a class, centred on the unit circle
    n        number of examples; None: 4 for "xor", else 500
    seed     any seed of numpy.random.default_rng: the same seed gives the same set
    noise    standard deviation added to every coordinate, or for "photocells" the share of cells turned over;
             None: 0 for "linear" and "xor", 0.01 "photocells", 0.02 "spirals", 0.1 "moons", 0.2 "blobs"
    classes  number of classes of "spirals" and "blobs", 2 if None; the others always have 2

    Returns x float32 and labels y (n,) int64; the classes are of equal size (not "linear", where chance decides) and
    mixed (not "xor"). Raises UnknownName (a KeyError) for another kind,
    ValueError for an argument out of range.

        >>> x, y = toy("xor")
        >>> x.tolist(), y.tolist()
        ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    if kind not in RECIPES:
        raise unknown("toy problem", kind, TOYS)
    recipe, usual_n, usual_noise = RECIPES[kind]
    n = usual_n if n is None else n
    noise = usual_noise if noise is None else noise
    classes = 2 if classes is None else classes
    check(kind, n, noise, classes)
    rng = np.random.default_rng(seed)
    x, y = recipe(n, rng, classes)
    if kind == "photocells":
        x = x ^ (rng.random(x.shape) < noise)
    elif noise:
        x = x + noise * rng.standard_normal(x.shape)
    return x.astype(np.float32), y.astype(np.int64)


def check(kind: str, n: int, noise: float, classes: int) -> None:
    """Refuse arguments out of range."""
    if n < 1:
        raise ValueError(f"n: expected at least 1 example, got {n}")
    if not 0 <= noise or (kind == "photocells" and noise > 1):
        raise ValueError(f"noise: expected a number of at least 0 (for 'photocells' a share in 0..1), got {noise}")
    if classes < 2 or (classes != 2 and kind not in ("spirals", "blobs")):
        raise ValueError(f"classes: expected 2 (for 'spirals' and 'blobs' 2 or more), got {classes} for {kind!r}")


def mixed_labels(n: int, classes: int, rng) -> np.ndarray:
    """Labels of equally many examples a class, to within one, in mixed order."""
    return rng.permutation(np.arange(n) % classes)


def linear(n, rng, classes):
    angle, offset = rng.uniform(0, 2 * pi), rng.uniform(-0.3, 0.3)
    normal = np.array([np.cos(angle), np.sin(angle)])
    x = rng.uniform(-1, 1, (n, 2))
    y = x @ normal > offset
    return x + MARGIN * np.where(y, 1, -1)[:, None] * normal, y


def xor(n, rng, classes):
    number = np.arange(n) % 4
    x = np.stack([number // 2, number % 2], axis=1)
    return x, x[:, 0] ^ x[:, 1]


def photocells(n, rng, classes):
    y = mixed_labels(n, 2, rng)
    side = rng.integers(8, 13, n)
    corner = (CELLS - side) // 2 + rng.integers(-2, 3, (2, n))
    side, top, left = (values[:, None, None] for values in (side, *corner))
    row, column = np.arange(CELLS)[:, None] - top, np.arange(CELLS) - left  # from the shape's own corner
    square = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    triangle = square & (abs(2 * column - (side - 1)) <= row + 1)  # the apex is up, the base as wide as the square
    return np.where(y[:, None, None] == 0, square, triangle), y


def spirals(n, rng, classes):
    y = mixed_labels(n, classes, rng)
    radius = rng.uniform(0.1, 1, n)
    angle = 2 * pi * (radius + y / classes)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), y


def moons(n, rng, classes):
    y = mixed_labels(n, 2, rng)
    angle = rng.uniform(0, pi, n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.where(y[:, None] == 0, upper, np.array([1.0, 0.5]) - upper), y


def blobs(n, rng, classes):
    y = mixed_labels(n, classes, rng)
    angle = 2 * pi * y / classes
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), y


# kind: recipe (n, rng, classes) -> (x, y) before noise, usual n, usual noise
RECIPES = {
    "linear": (linear, 500, 0.0),
    "xor": (xor, 4, 0.0),
    "photocells": (photocells, 500, 0.01),
    "spirals": (spirals, 500, 0.02),
    "moons": (moons, 500, 0.1),
    "blobs": (blobs, 500, 0.2),
}
TOYS = tuple(RECIPES)
