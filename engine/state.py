"""The arrays of a model on its target: weights, gradients, optimiser state, counters.

All trained weights lie in one flat array, their gradients in a second one at the same places, the optimiser's states in
others: one call updates the whole model. Each weight starts on a 64-byte boundary; the padding holds zeros for ever.
"""
import itertools
import os

import numpy as np

from engine.errors import EngineError, ShapeError, unknown
from engine.runtime.fixed import Version
from engine.target import ALIGNMENT

_seeds = {"base": None, "count": itertools.count()}


def seed(number):
    """Fixes everything random that follows: initialisers, shuffles, dropout of all models built from now on."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not 0 <= number < 2 ** 31:
        raise EngineError(f"seed: expected a whole number from 0 to 2**31 - 1, got {number!r}")
    _seeds["base"], _seeds["count"] = int(number), itertools.count()


def next_seed():
    """The seed of the next model: of the base that `seed` fixed and the model's number, else from the system."""
    if _seeds["base"] is None:
        return int.from_bytes(os.urandom(6), "little")
    return _seeds["base"] * 1_000_003 + next(_seeds["count"])


class State:
    """Weights and all else that training keeps, for a network on a target.

    offsets     weight name -> (offset in the flat arrays, shape), of trained weights
    arrays      name -> array on the target: "parameters", "gradients", "counter", frozen weights, optimiser states
    version     counts the changes of weights
    """

    def __init__(self, network, target, dtype, seed, earlier=None):
        """earlier: the State of the same model before layers were frozen or thawed, whose counters and optimiser states
        go on; the optimiser's states of weights that were frozen start at zero."""
        self.network, self.target, self.dtype = network, target, np.dtype(dtype)
        self.offsets, self.arrays, self.version = {}, {}, Version()
        lanes, size = ALIGNMENT // self.dtype.itemsize, 0
        for owned in network.weights:
            if owned.trainable:
                self.offsets[owned.name] = (size, owned.weight.shape)
                size += -(-int(np.prod(owned.weight.shape)) // lanes) * lanes
            else:
                self.arrays[owned.name] = self.new(owned.weight.shape)
        self.size = size
        for name in ("parameters", "gradients"):
            self.arrays[name] = self.new((size,))
        self.arrays["counter"] = self.new((2,), np.int64)
        self._initialise(seed, earlier)
        if earlier is not None:
            self._go_on(earlier)

    def new(self, shape, dtype=None):
        """Zeros on the target."""
        dtype = np.dtype(dtype or self.dtype)
        memory = self.target.empty(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        return self.target.part(memory, 0, tuple(shape), dtype)

    def _initialise(self, seed, earlier):
        counter = np.array([seed, 0], np.int64)
        for stream, owned in enumerate(self.network.weights):
            held = owned.layer.held if earlier is None else earlier
            if held is None:
                values = owned.weight.initializer.values(owned.weight.shape, self.dtype, counter, stream)
            else:
                values = held.get(owned.name)
                if values.shape != owned.weight.shape:
                    raise ShapeError(f"{owned.layer.name}: it brings a {owned.weight.name} of shape {values.shape} "
                                     f"from the model it was in, and needs one of {owned.weight.shape} here; make a "
                                     f"new layer for another input shape")
            self.set(owned.name, values)
        for layer in self.network.all_layers:
            layer.held = self
        self.target.fill(self.arrays["counter"], counter)

    def _go_on(self, earlier):
        self.target.fill(self.arrays["counter"], np.array(earlier.target.fetch(earlier.arrays["counter"])))
        for name in [n for n in earlier.arrays if n.startswith("optimizer.")]:
            before = earlier.unpack(np.array(earlier.target.fetch(earlier.arrays[name])))
            flat = np.zeros(self.size, self.dtype)
            for weight, part in self.unpack(flat).items():
                part[...] = before.get(weight, 0)
            self.arrays[name] = self.new((self.size,))
            self.target.fill(self.arrays[name], flat)

    def array(self, name):
        """The weight's array on the target (a view into the flat one if it is trained)."""
        if name in self.offsets:
            offset, shape = self.offsets[name]
            return self.arrays["parameters"][offset:offset + int(np.prod(shape))].reshape(shape)
        if name not in self.arrays:
            raise unknown("weight", name, self.names())
        return self.arrays[name]

    def names(self):
        return [owned.name for owned in self.network.weights]

    def get(self, name):
        """A host copy."""
        return np.array(self.target.fetch(self.array(name)))

    def set(self, name, array):
        destination = self.array(name)
        array = np.asarray(array)
        if tuple(array.shape) != tuple(destination.shape):
            raise ShapeError(f"{name}: expected a weight of shape {tuple(destination.shape)}, got {array.shape}")
        self.target.fill(destination, np.ascontiguousarray(array, destination.dtype))
        self.version.changed()

    def unpack(self, flat):
        """name -> array for a flat host array (gradients, say)."""
        return {name: flat[offset:offset + int(np.prod(shape))].reshape(shape)
                for name, (offset, shape) in self.offsets.items()}

    def optimizer_states(self, optimizer):
        """Name -> flat array of the optimiser's states, made when first asked for."""
        found = {}
        for name in optimizer.states:
            found[name] = self.arrays.setdefault(f"optimizer.{name}", None)
            if found[name] is None:
                found[name] = self.arrays[f"optimizer.{name}"] = self.new((self.size,))
        return found

    def forget_optimizer(self):
        for name in [n for n in self.arrays if n.startswith("optimizer.")]:
            del self.arrays[name]

    @property
    def step(self):
        """Training steps done."""
        return int(self.target.fetch(self.arrays["counter"])[1])
