"""Data that comes batch by batch: what is too large for memory, made when needed, or read from files.

    np.memmap, Lazy   rows that are read when a batch needs them; only the batches under way are in memory
    a sequence        __len__ and __getitem__(batch number) -> (x, y) or (x, y, sample_weight), as Keras has it
    an iterable       gives such batches; asked anew for every epoch (a DataLoader, say)
    a generator       the same once: with steps_per_epoch=, so many batches are an epoch
    a function        without arguments, called for every epoch: gives one of the last two

Whatever else has a shape is an array and is placed on the target as a whole.
"""
import itertools

import numpy as np

from engine.errors import DataError, EngineError, ShapeError


class Lazy:
    """Base of arrays that are not in memory: `shape`, `dtype` and `rows(index)`, which reads the samples of an int64
    array as one NumPy array. A model takes it as x like a NumPy array and reads it batch by batch."""
    shape: tuple
    dtype: np.dtype = np.dtype(np.float32)

    def rows(self, index):
        raise NotImplementedError(f"{type(self).__name__}: an array that is not in memory needs a method rows(index)")

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        """Samples by a number, a slice or an array of numbers, read now."""
        chosen = np.arange(len(self))[index]
        return self.rows(np.atleast_1d(chosen))[0] if np.ndim(chosen) == 0 else self.rows(chosen)


class Rows:
    """Samples that are read by their numbers. count: how many; steps: batches of an epoch."""

    def __init__(self, x, y, weights, size, first=0, end=None):
        self.x, self.y, self.weights, self.size = x, y, weights, size
        self.first, self.end = first, len(x) if end is None else end
        self.count = self.end - self.first
        self.steps = -(-self.count // size)

    def batches(self, order=None):
        """(x, y, weights) in the order of sample numbers, or as they stand."""
        for start in range(0, self.count, self.size):
            stop = min(start + self.size, self.count)
            if order is None:
                index = slice(self.first + start, self.first + stop)
            else:
                index = self.first + order[start:stop]
            # copied: a view of a file would be read when the step takes it
            yield tuple(None if a is None else np.array(a[index]) for a in (self.x, self.y, self.weights))

    def split(self, share):
        """(the first rows, the last `share` of them)."""
        middle = self.end - int(self.count * share)
        if not 0 < share < 1 or middle in (self.first, self.end):
            raise DataError(f"fit: expected validation_split between 0 and 1 that leaves no side empty, got {share!r} "
                            f"of {self.count} samples")
        return (Rows(self.x, self.y, self.weights, self.size, self.first, middle),
                Rows(self.x, self.y, self.weights, self.size, middle, self.end))


class Batches:
    """A sequence of ready batches. count: how many there are to put in an order."""

    def __init__(self, sequence):
        self.sequence, self.count = sequence, len(sequence)
        self.steps = self.count

    def batches(self, order=None):
        for number in range(self.count) if order is None else order.tolist():
            yield self.sequence[number]
        ended = getattr(self.sequence, "on_epoch_end", None)
        if ended is not None:
            ended()


class Stream:
    """Batches of an iterable, in its own order. steps: batches of an epoch, or None where only the end tells."""
    count = None

    def __init__(self, given, steps):
        self.given = given
        self.once = iter(given) if hasattr(given, "__next__") else None
        self.steps = steps if steps is not None else len(given) if hasattr(given, "__len__") else None
        self._asked = steps is not None

    def batches(self, order=None):
        iterator = self.once if self.once is not None else iter(self.given() if callable(self.given) else self.given)
        number = 0
        for batch in iterator if not self._asked else itertools.islice(iterator, self.steps):
            yield batch
            number += 1
        if number == 0 or self._asked and number < self.steps:
            hint = ("it is used up: pass a function that makes one for every epoch" if self.once is not None
                    else "is there less data than was thought?")
            raise DataError(f"expected {self.steps if self._asked else 'at least one'} batches of "
                            f"{type(self.given).__name__} in this epoch, got {number}; {hint}")


def source(x, y, weights, size, steps, caller):
    """What x gives batches by, or None where it is an array."""
    if isinstance(x, (np.memmap, Lazy)):
        return _rows(x, y, weights, size, steps, caller)
    array = any(hasattr(x, word) for word in ("__array__", "__dlpack__", "__cuda_array_interface__"))
    if array or isinstance(x, (list, tuple, str, int, float)) or x is None:
        _no_steps(steps, "an array's epoch is all of its samples", caller)
        return None
    if y is not None or weights is not None:
        raise EngineError(f"{caller}: expected (x, y, sample_weight) inside the batches of {type(x).__name__}, got "
                          f"{'y' if y is not None else 'sample_weight'} as well")
    if steps is not None and (not isinstance(steps, (int, np.integer)) or steps < 1):
        raise EngineError(f"{caller}: expected steps_per_epoch of at least 1, got {steps!r}")
    if isinstance(x, dict):
        raise DataError(f"{caller}: expected x as an array, a sequence of batches or a generator, got a dict")
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        _no_steps(steps, "a sequence has a length", caller)
        if not len(x):
            raise DataError(f"{caller}: expected at least one batch, got a sequence of length 0")
        return Batches(x)
    if callable(x) or hasattr(x, "__iter__"):
        return Stream(x, steps)
    raise DataError(f"{caller}: expected x as an array, a sequence of batches or a generator, got {type(x).__name__}")


def _no_steps(steps, why, caller):
    if steps is not None:
        raise EngineError(f"{caller}: steps_per_epoch is for generators; {why}")


def _rows(x, y, weights, size, steps, caller):
    _no_steps(steps, "an array's epoch is all of its samples", caller)
    if len(x.shape) == 0 or not len(x):
        raise DataError(f"{caller}: expected at least one sample, got x of shape {tuple(x.shape)}")
    for name, given in (("y", y), ("sample_weight", weights)):
        if given is not None and np.shape(given)[:1] != (len(x),):
            raise ShapeError(f"{caller}: expected {name} of {len(x)} values, one for each sample, got shape "
                             f"{np.shape(given)}")
    return Rows(x, *(given if given is None or hasattr(given, "shape") else np.asarray(given)
                     for given in (y, weights)), size)


def parts_of(batch):
    """(x, y, weights) of what a source gave; y and weights None where there are none."""
    given = batch if isinstance(batch, (tuple, list)) else (batch,)
    if not 1 <= len(given) <= 3:
        raise DataError(f"expected a batch as (x, y) or (x, y, sample_weight), got {len(given)} parts")
    return (*given, *(None,) * (3 - len(given)))
