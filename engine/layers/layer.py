"""What every layer is: a shape rule, a list of weights, and the nodes that it adds.

A layer of one's own, in a script or a notebook cell:

    class Scale(engine.Layer):
        def weights(self, shape):
            return [Weight("scale", shape[-1:], "ones")]

        def nodes(self, graph, x, weights, context):
            return graph.add("mul", x, weights["scale"])
"""
from dataclasses import dataclass, field

from engine import initializers
from engine.errors import ShapeError
from engine.registry import Configured, Registry

LAYERS = Registry("layer")


class Weight:
    """An array that a layer owns. trainable: gradients are taken and the optimiser changes it."""

    def __init__(self, name, shape, initializer="zeros", trainable=True):
        self.name, self.shape, self.trainable = name, tuple(shape), trainable
        self.initializer = initializers.get(initializer)


@dataclass
class Context:
    """What a layer may need to know of the graph that it adds to.

    training   True in a training step: dropout drops, batch norm normalises by the batch
    frozen     True inside a layer with trainable=False: running statistics stay
    call       call(layer, x) adds the nodes of a layer inside a composite layer and returns its output
    counter    int64 value [seed, step] for random numbers, or None when not training
    streams    gives a new number for each use of random numbers
    auxiliary  pairs (layer, prediction) of the auxiliary heads, for the loss
    """
    training: bool
    call: object = None
    counter: object = None
    streams: object = None
    frozen: bool = False
    auxiliary: list = field(default_factory=list)


class Layer(Configured):
    """Base of all layers.

    name         None: `dense`, `dense_1`, ... by class and order
    trainable    False freezes the layer's weights, and those of all layers inside it; may be changed at any time
    held         the State of the model that was built last with this layer: its weights go along into the next model
    input_dtype  "int64" where x are indices; such a layer has to be a model's first (None: the model's own dtype)
    """
    changes = 0                              # how often any layer was frozen or thawed: models look whether it moved
    held = None
    input_dtype = None

    def __init__(self, name=None, trainable=True):
        self.name, self.trainable = name, trainable

    @property
    def trainable(self):
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        self._trainable = bool(value)
        Layer.changes += 1

    def output_shape(self, shape):
        """The shape of one output sample for one input sample (no batch axis); refuses what does not fit."""
        return shape

    def weights(self, shape):
        """The layer's weights, in the order of `get_weights`."""
        return []

    def check_input(self, x):
        """Refuses values of a model's input, a host array, that the layer, as the model's first, can not use."""

    def nodes(self, graph, x, weights, context):
        """Adds the layer's nodes; x is (n, *shape), `weights` maps names to values. Returns the output value."""
        raise NotImplementedError(f"{type(self).__name__}: a layer needs a method nodes(graph, x, weights, context)")

    def sublayers(self, shape):
        """The layers inside a composite layer, in order: pairs (layer, shape of its input sample)."""
        return []

    def refuse(self, expected, got, hint=""):
        """Raises the standard sentence with the layer's name."""
        raise ShapeError(f"{self.name}: expected x of shape {expected}, got {_batch(got)}"
                         + (f"; {hint}" if hint else ""))


def _batch(shape):
    return f"(n{''.join(f', {s}' for s in shape)}{')' if shape else ',)'}"


def register(cls):
    """Decorator: makes a layer loadable by name."""
    return LAYERS.add(cls)
