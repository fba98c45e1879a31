"""The doors of the model: what a person hands in is checked and converted here, with a sentence for each mistake."""
import numpy as np

from engine import target as targets
from engine.errors import DataError, ShapeError


def as_numbers(x, model, caller):
    """x as a contiguous array of what the model takes: finite numbers of its dtype, or indices. Bytes stay bytes: a
    step makes them numbers 0 to 255."""
    x = _array(x, caller)
    if model.state is not None and model.network.input_dtype is not None:
        return _indices(x, model, caller)
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    x = np.asarray(x, model.dtype, order="C")
    # the sum of all values is finite only if every value is: one fast pass, no temporary array
    if not np.isfinite(x.sum(dtype=np.float64)):
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            raise DataError(f"{caller}: x has {len(bad)} NaN or infinite values, the first at "
                            f"{tuple(bad[0].tolist())}; clean the data (np.nan_to_num) or drop those samples")
    return x


def check_x(x, model, caller, checked=False):
    """x as `as_numbers` has it (as it is, if that was done), and the model built for it."""
    x = x if checked else _array(x, caller)
    if x.ndim == 0:
        raise ShapeError(f"{caller}: expected x of shape (n, ...), got a single number")
    if model.state is None:
        model.build(x.shape[1:])
    expected = model.network.shape
    if tuple(x.shape[1:]) != expected:
        hint = "is a batch axis missing? x[None] adds one" if x.shape == expected else (
            "is a Flatten() missing before it?" if x.ndim > 2 and len(expected) == 1 else
            "x[..., None] adds the axis of one channel" if (*x.shape[1:], 1) == expected else "")
        sizes = "".join(f", {s}" for s in expected)
        raise ShapeError(f"{model.layers[0].name}: expected x of shape (n{sizes}), got {x.shape}"
                         + (f"; {hint}" if hint else ""))
    if checked and model.network.input_dtype is None:
        return x
    return as_numbers(x, model, caller)           # indices: only a model that is built knows that they are


def _array(x, caller):
    """x as a NumPy array of numbers: PyTorch's, CuPy's and Numba's arrays too, wherever they live."""
    x = np.asarray(targets.to_host(x))
    if x.dtype.kind not in "fiub":
        raise DataError(f"{caller}: expected numbers in x, got dtype {x.dtype}")
    return x


def _indices(x, model, caller):
    """x as a contiguous array of whole numbers that the first layer can use."""
    with np.errstate(invalid="ignore"):      # NaN becomes some number, which is not NaN
        whole = np.ascontiguousarray(x, model.network.input_dtype)
    if not np.array_equal(whole, x):
        raise DataError(f"{caller}: {model.network.first.name} takes indices: expected whole numbers in x, got "
                        f"{x[whole != x].flat[0]}")
    model.network.first.check_input(whole)
    return whole


def sample_weights(y, sample_weight, class_weight, dtype, caller):
    """(N,) weights: the samples' own times those of their classes."""
    weights = np.ones(len(y), dtype)
    if sample_weight is not None:
        given = np.asarray(sample_weight)
        if given.shape != (len(y),):
            raise ShapeError(f"{caller}: expected sample_weight of shape ({len(y)},), one for each sample, got "
                             f"{given.shape}")
        if not np.isfinite(given).all() or (given < 0).any():
            raise DataError(f"{caller}: expected sample_weight of finite numbers of at least 0")
        weights *= given.astype(dtype)
    if class_weight is not None:
        labels = y if y.dtype == np.int64 else (y.argmax(1) if y.ndim == 2 and y.shape[1] > 1 else y.ravel() > 0)
        missing = set(np.unique(labels).tolist()) - {int(k) for k in class_weight}
        if missing:
            raise DataError(f"{caller}: class_weight lacks the classes {sorted(int(m) for m in missing)}")
        for label, weight in class_weight.items():
            weights[np.asarray(labels) == label] *= weight
    return weights


def take_validation(x, y, weights, share, data):
    """((x, y, weights) for training, data held out or None): the last `share` of the samples, as Keras does."""
    if data is not None:
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise DataError(f"fit: expected validation_data as (x, y) or (x, y, sample_weight), got "
                            f"{type(data).__name__}")
        return (x, y, weights), (*data, *(None,) * (3 - len(data)))
    if not share:
        return (x, y, weights), None
    if not 0 < share < 1:
        raise DataError(f"fit: expected validation_split between 0 and 1, got {share!r}")
    first = len(x) - int(len(x) * share)
    if first in (0, len(x)):
        raise DataError(f"fit: validation_split={share} of {len(x)} samples leaves one side empty")
    return (x[:first], y[:first], weights[:first]), (x[first:], y[first:], weights[first:])
