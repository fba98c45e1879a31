"""Weights from PyTorch's state dicts and back: which name, which order of axes, which order of features.

| layer | weight | in PyTorch | axes there |
|---|---|---|---|
| Dense, Perceptron | kernel (i, o) | weight | (o, i) |
| Conv2D, DepthwiseConv2D | kernel (r, s, c / g, o) | weight | (o, c / g, r, s) |
| Conv1D | kernel (r, c / g, o) | weight | (o, c / g, r) |
| Conv2DTranspose | kernel (r, s, o / g, c) | weight | (c, o / g, r, s) |
| SeparableConv2D | depthwise_kernel, pointwise_kernel | depthwise.weight, pointwise.weight (.bias) | as Conv2D |
| norms | gamma, beta, moving_mean, moving_variance | weight, bias, running_mean, running_var | the same |
| Embedding, PReLU | embeddings, alpha | weight | the same |
| others | any | the weight's own name | the same |

Images here are (rows, columns, channels) and there (channels, rows, columns). After a Flatten the features therefore
come in another order: rows of the next Dense kernel, and vectors of norms before it, are rearranged.
"""
import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from engine import torch_file
from engine.errors import EngineError, FileError, unknown
from engine.layers.composite import Composite

DENSE, CONV, CONV1D, SAME = (1, 0), (2, 3, 1, 0), (2, 1, 0), None
NORM = {"gamma": ("weight", SAME), "beta": ("bias", SAME), "moving_mean": ("running_mean", SAME),
        "moving_variance": ("running_var", SAME)}
TABLE = {
    "Dense": {"kernel": ("weight", DENSE)}, "Perceptron": {"kernel": ("weight", DENSE)},
    "Conv2D": {"kernel": ("weight", CONV)}, "DepthwiseConv2D": {"kernel": ("weight", CONV)},
    "Conv2DTranspose": {"kernel": ("weight", CONV)}, "Conv1D": {"kernel": ("weight", CONV1D)},
    "SeparableConv2D": {"depthwise_kernel": ("depthwise.weight", CONV), "bias": ("pointwise.bias", SAME),
                        "pointwise_kernel": ("pointwise.weight", CONV)},
    "BatchNorm": NORM, "LayerNorm": NORM, "GroupNorm": NORM, "InstanceNorm": NORM, "RMSNorm": NORM,
    "Embedding": {"embeddings": ("weight", SAME)}, "PReLU": {"alpha": ("weight", SAME)},
}
WRAPPED = ("state_dict", "model_state_dict", "model")        # where checkpoints of training loops keep it


@dataclass
class Report:
    """What `load_torch` did: pairs (weight here, name there) loaded, and what did not fit.

    by           "names" or "order": how weights were found
    missing      weights of the model that the file lacks: (weight, the name that was looked for)
    unexpected   names in the file that no weight wanted
    mismatched   (weight, name, shape expected there, shape found there)
    """
    by: str
    loaded: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    unexpected: list = field(default_factory=list)
    mismatched: list = field(default_factory=list)

    @property
    def complete(self):
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self):
        lines = [f"load_torch: {len(self.loaded)} weights loaded by {self.by}"]
        lines += [f"  missing     {weight}: the file has no {name!r}" for weight, name in self.missing]
        lines += [f"  unexpected  {name}" for name in self.unexpected]
        lines += [f"  mismatched  {weight}: expected {name!r} of shape {want}, got {got}"
                  for weight, name, want, got in self.mismatched]
        return "\n".join(lines)


def load_torch(model, source, names=None, strict=True):
    """Gives a model the weights of a PyTorch state dict and returns a `Report`.

    source   path of a .pt or .pth file (read without PyTorch, and without running what stands in it) or of a
             safetensors file, or a dictionary of names to arrays
    names    how to find weights: "names" (the layers are named as the modules there, as those of engine.zoo are),
             "order" (the k-th module with weights is the k-th layer with weights), a dictionary {layer's name: module's
             name} for what is named otherwise, or None: by names when any fits, else by order
    strict   an error, and nothing changed, unless everything fits; False: what fits is loaded

    >>> model = engine.zoo.resnet18()
    >>> print(engine.load_torch(model, "resnet18-f37072fd.pth"))
    """
    found = _tensors(source)
    model.build()
    wanted = _wanted(model.network, names if isinstance(names, dict) else {})
    by = _way(names, wanted, found)
    if by == "order":
        wanted = _by_order(wanted, found)
    report, arrays = Report(by), {}
    for entry in wanted:
        name = entry.name
        if name not in found:
            report.missing.append((entry.weight, name))
        elif tuple(np.shape(found[name])) != entry.there():
            report.mismatched.append((entry.weight, name, entry.there(), tuple(np.shape(found[name]))))
        else:
            arrays[entry.weight] = entry.from_torch(found[name])
            report.loaded.append((entry.weight, name))
    used = {entry.name for entry in wanted}
    report.unexpected = [name for name in found if name not in used]
    if strict and not report.complete:
        raise FileError(f"{report}\nNothing was changed; strict=False loads what fits")
    for weight, array in arrays.items():
        model.state.set(weight, array)
    return report


def torch_state(model, names=None):
    """{name: array} of a model's weights in PyTorch's names and axes, for load_state_dict (as tensors there)."""
    model.build()
    return {entry.name: entry.to_torch(model.state.get(entry.weight))
            for entry in _wanted(model.network, names or {})}


# ----------------------------------------------------------------------------------------------------- what is wanted


@dataclass
class Entry:
    """A weight, its name there, and how its numbers are arranged there.

    axes    the order of axes here, as axes there; None: the same
    order   the place there of each feature here, along the first axis; None: the same
    """
    weight: str
    shape: tuple
    name: str
    axes: tuple | None
    order: np.ndarray | None

    def there(self):
        """The shape in PyTorch."""
        return self.shape if self.axes is None else tuple(self.shape[self.axes.index(a)] for a in range(len(self.axes)))

    def from_torch(self, array):
        array = np.asarray(array)
        array = array if self.axes is None else array.transpose(self.axes)
        return array if self.order is None else array[self.order]

    def to_torch(self, array):
        array = array if self.order is None else array[np.argsort(self.order)]
        back = None if self.axes is None else tuple(self.axes.index(a) for a in range(len(self.axes)))
        return np.ascontiguousarray(array if back is None else array.transpose(back))


def _wanted(network, names):
    """An Entry for each weight of the network, in order."""
    known = {layer.name for layer in network.all_layers}
    for name in names:
        if name not in known:
            raise unknown("load_torch: names", name, known)
    orders = feature_orders(network)
    entries = []
    for owned in network.weights:
        layer, weight = owned.layer, owned.weight
        suffix, axes = TABLE.get(type(layer).__name__, {}).get(weight.name, (weight.name, SAME))
        order = orders.get(layer.name)
        if order is not None and (not weight.shape or weight.shape[0] != len(order) or weight.name == "bias"):
            order = None
        entries.append(Entry(owned.name, weight.shape, f"{names.get(layer.name, layer.name)}.{suffix}", axes, order))
    return entries


def _way(names, wanted, found):
    if isinstance(names, dict):
        return "names"
    if names is None:
        return "names" if any(entry.name in found for entry in wanted) else "order"
    if names not in ("names", "order"):
        raise EngineError(f"load_torch: expected names as \"names\", \"order\", a dictionary or None, got {names!r}")
    return names


def _by_order(wanted, found):
    """Entries with the names of the file: its k-th module with weights for the k-th here."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in found))
    place = itertools.count()
    here = {}
    for entry in wanted:
        module = entry.name.rpartition(".")[0]
        if module not in here:
            k = next(place)
            here[module] = modules[k] if k < len(modules) else f"(module {k + 1} of {len(modules)})"
        prefix = here[module]
        suffix = entry.name.rpartition(".")[2]
        entry.name = f"{prefix}.{suffix}" if prefix else suffix
    return wanted


def feature_orders(network):
    """Layer name -> order of its features as places in PyTorch's order, where a Flatten of images made it another."""
    orders, sequences = {}, any(type(layer).__name__ == "Conv1D" for layer in network.all_layers)

    def flattened(shape):
        if len(shape) == 3 or len(shape) == 2 and sequences:
            there = np.arange(math.prod(shape)).reshape(shape[-1], *shape[:-1])
            return np.moveaxis(there, 0, -1).ravel()
        return None

    def walk(chain, order):
        for layer in chain:
            given, made = network.shapes[layer.name]
            if isinstance(layer, Composite):
                ends = [walk(inside, order) for _, inside in layer.chains()]
                order = joined(layer, ends, order)
            elif type(layer).__name__ in ("Flatten", "Reshape") and len(made) == 1:
                order = flattened(given) if len(given) > 1 else order
            elif order is not None:
                orders[layer.name] = order
                order = order if made == given and type(layer).__name__ != "Dense" else None
        return order

    def joined(layer, ends, order):
        kind = type(layer).__name__
        if kind == "Auxiliary":
            return order
        if kind != "Concat" or all(end is None for end in ends):
            return ends[0]
        parts, first = [], 0
        for (_, chain), end in zip(layer.chains(), ends):
            size = network.shapes[(chain[-1] if chain else layer).name][bool(chain)][-1]
            parts.append(first + (np.arange(size) if end is None else end))
            first += size
        return np.concatenate(parts)

    walk(network.layers, None)
    return orders


# -------------------------------------------------------------------------------------------------------- what is there


def _tensors(source):
    """{name: array} of a source, without wrappings, and without what PyTorch counts beside the weights."""
    found = source if isinstance(source, dict) else torch_file.read(source)
    where = "the dictionary" if isinstance(source, dict) else repr(str(source))
    if isinstance(found, dict) and not any(_is_array(v) for v in found.values()):
        found = next((found[k] for k in WRAPPED if isinstance(found.get(k), dict)), found)
    if not isinstance(found, dict) or not any(_is_array(v) for v in found.values()):
        what = f"only {', '.join(map(str, list(found)[:5]))}" if isinstance(found, dict) else type(found).__name__
        raise FileError(f"load_torch: expected a state dict, names and tensors, in {where}, got {what}")
    tensors = {str(name): value for name, value in found.items()
               if _is_array(value) and not str(name).endswith("num_batches_tracked")}
    if all(name.startswith("module.") for name in tensors):          # nn.DataParallel's wrapping
        tensors = {name[len("module."):]: value for name, value in tensors.items()}
    return tensors


def _is_array(value):
    return hasattr(value, "shape") and hasattr(value, "dtype")
