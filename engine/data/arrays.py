"""Preparations of arrays: split, standardise, one-hot, batches. All are pure: inputs are never changed."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from engine.errors import DataError, ShapeError


def split(x, y, parts=0.2, seed: int = 0, stratify: bool = True) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Split examples by chance into parts, for example for training, validation and testing.

    x         examples, any shape (n, ...)
    y         labels (n,) of whole numbers, or with stratify=False targets of any shape (n, ...)
    parts     fractions that sum to 1, as (0.8, 0.1, 0.1); or counts that sum to at most n, as (50000, 10000), the
              rest being left out; or one number, the fraction or count of the second of two parts
    seed      any seed of numpy.random.default_rng: the same seed gives the same parts
    stratify  True keeps the share of every class in every part, to within about one example

    Returns one (x, y) pair a part, copied, of exactly the asked size, in mixed order. Raises ValueError for lengths
    that differ, parts that do not fit, an empty part, or labels that are not whole numbers when stratified.

        >>> import numpy as np
        >>> x, y = np.arange(10.0), np.array([0, 1] * 5)
        >>> (x_train, y_train), (x_valid, y_valid), (x_test, y_test) = split(x, y, (0.6, 0.2, 0.2))
        >>> len(x_train), sorted(y_valid.tolist()), sorted(y_test.tolist())
        (6, [0, 1], [0, 1])
    """
    x, y = same_length(x, y)
    sizes = part_sizes(parts, len(x))
    rng = np.random.default_rng(seed)
    order = class_spread(y, rng) if stratify else rng.permutation(len(x))
    edges = np.cumsum((0, *sizes))
    chosen = [rng.permutation(order[start:end]) for start, end in pairwise(edges)]
    return tuple((x[index], y[index]) for index in chosen)


def same_length(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays with an equal number of examples."""
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ShapeError(f"x, y: expected as many examples as labels, got shapes {x.shape} and {y.shape}")
    return x, y


def part_sizes(parts, n: int) -> tuple[int, ...]:
    """The number of examples of each part, from fractions, counts or one number."""
    values = np.asarray(parts)
    if values.ndim == 0 and values.dtype.kind in "iuf":
        values = np.array([(1 if values.dtype.kind == "f" else n) - values, values])
    if values.dtype.kind in "iu":
        sizes = values
    elif values.dtype.kind == "f" and abs(values.sum() - 1) < 1e-6:
        sizes = np.diff(np.rint(np.cumsum(values) * n).astype(int), prepend=0)
    else:
        raise ValueError(f"parts: expected fractions that sum to 1, or whole counts, got {parts!r}; name the training "
                         "part too, as (0.8, 0.1, 0.1)")
    if values.ndim != 1 or sizes.min(initial=1) < 1 or sizes.sum() > n or not len(sizes):
        raise ValueError(f"parts: expected parts of at least one example and {n} examples in all, got {parts!r}, which "
                         f"is {sizes.tolist()} examples")
    return tuple(sizes.tolist())


def class_spread(y: np.ndarray, rng) -> np.ndarray:
    """An order in which every stretch holds the classes in about their overall shares.

    Example number r, by chance, of a class of m stands at (r + 1/2) / m of the whole way; equal places in any order.
    """
    if y.ndim != 1 or y.dtype.kind not in "iub":
        raise ValueError(f"y: expected labels (n,) of whole numbers to stratify by, got shape {y.shape} of {y.dtype}; "
                         "pass stratify=False, or labels instead of one-hot rows")
    shuffled = rng.permutation(len(y))
    _, labels, counts = np.unique(y[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(labels, kind="stable")
    rank = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = (rank + 0.5) / np.repeat(counts, counts)
    # Sorted from the shuffled order, so that classes of equal size do not take turns in a fixed order.
    place[by_class] = place.copy()
    return shuffled[np.argsort(place, kind="stable")]


def one_hot(labels, classes: int | None = None, dtype="float32") -> np.ndarray:
    """Rows with a one at the label's place.

    labels   whole numbers in 0..classes-1, any shape
    classes  length of a row; None takes the largest label + 1
    dtype    type of the result

    Returns an array of shape labels.shape + (classes,). Raises ValueError for labels that are not whole numbers or
    outside the range.

        >>> one_hot([2, 0], 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub" and labels.size:
        raise ValueError(f"labels: expected whole numbers, got {labels.dtype}; convert with .astype(int)")
    labels = labels.astype(np.int64)
    lowest, highest = labels.min(initial=0), labels.max(initial=-1)
    classes = int(highest) + 1 if classes is None else classes
    if lowest < 0 or highest >= classes:
        raise ShapeError(f"labels: expected values 0..{classes - 1} for classes={classes}, got {lowest}..{highest}")
    return (labels[..., None] == np.arange(classes)).astype(dtype)


def standardise(train, *others, axis=0) -> tuple[np.ndarray, ...]:
    """Shift and scale to mean 0 and standard deviation 1, as measured on the training data alone.

    train   numbers (n, ...)
    others  arrays of the same shape but for n (validation, test), given the training data's shift and scale
    axis    the axes to average over: 0 for each feature, (0, 1, 2) for each channel of images (n, height, width,
            channels), None for one mean and deviation in all

    Returns train, others, mean, std, as float64 if `train` is, else as float32; mean and std keep the averaged axes
    as 1, so that later data is `(x - mean) / std`. A constant feature gets std 1. Raises DataError
    for an empty or non-finite `train`, ShapeError for other shapes (both are ValueErrors). See Y. LeCun et al. (1998),
    Efficient BackProp, section 4.3.

        >>> import numpy as np
        >>> train, test, mean, std = standardise(np.array([[0.0, 5.0], [2.0, 5.0]]), np.array([[3.0, 6.0]]))
        >>> train.tolist(), test.tolist(), mean.tolist(), std.tolist()
        ([[-1.0, 0.0], [1.0, 0.0]], [[2.0, 1.0]], [[1.0, 5.0]], [[1.0, 1.0]])
    """
    train, others = np.asarray(train), tuple(map(np.asarray, others))
    if train.size == 0:
        raise DataError(f"train: expected at least one value, got shape {train.shape}")
    for number, other in enumerate(others):
        if other.shape[1:] != train.shape[1:]:
            raise ShapeError(f"others[{number}]: expected shape (n, {', '.join(map(str, train.shape[1:]))}) like "
                             f"train, got {other.shape}")
    mean = train.mean(axis, dtype=np.float64, keepdims=True)
    if not np.isfinite(mean).all():
        raise DataError("train: expected finite values, got NaN or infinity; see numpy.isfinite to find them")
    std = train.std(axis, dtype=np.float64, keepdims=True)
    # Compared by extremes: rounding can leave the deviation of equal values a little above zero.
    std[train.max(axis, keepdims=True) == train.min(axis, keepdims=True)] = 1
    kind = np.float64 if train.dtype == np.float64 else np.float32
    mean, std = mean.astype(kind), std.astype(kind)
    return (*((array.astype(kind) - mean) / std for array in (train, *others)), mean, std)


def batches(x, y=None, size: int = 32, seed=0, shuffle: bool = True, drop_last: bool = False) -> Iterator:
    """Go through the examples once, `size` at a time.

    x          examples (n, ...)
    y          labels (n, ...); None gives batches of x alone
    size       examples a batch; the last has the rest
    seed       any seed of numpy.random.default_rng; a pair (seed, epoch) gives each epoch an order of its own
    shuffle    False keeps the order and gives views instead of copies
    drop_last  True leaves out a last batch that is not full

    Returns an iterator over (x, y) pairs, or over x. Raises ValueError at once for lengths that differ or size < 1.

        >>> import numpy as np
        >>> [len(y) for x, y in batches(np.zeros((10, 3)), np.zeros(10), size=4, seed=(0, 1))]
        [4, 4, 2]
    """
    x, y = (np.asarray(x), None) if y is None else same_length(x, y)
    if size < 1 or x.ndim == 0:
        raise ValueError(f"size, x: expected a size of at least 1 and x of shape (n, ...), got size={size}, x of shape "
                         f"{x.shape}")
    end = len(x) - len(x) % size if drop_last else len(x)
    order = np.random.default_rng(seed).permutation(len(x)) if shuffle else None

    def pieces():
        for start in range(0, end, size):
            stop = min(start + size, end)
            index = slice(start, stop) if order is None else order[start:stop]
            yield x[index] if y is None else (x[index], y[index])

    return pieces()
