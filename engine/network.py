"""A chain of layers as names, shapes and weights, and the graph that it writes. No arrays live here."""
import itertools
from typing import NamedTuple

from engine.errors import EngineError, ShapeError
from engine.layers.layer import Context, Layer, Weight
from engine.registry import snake

# Streams below this are the initialisers' (one for each weight): a mask must not repeat a weight's numbers.
FIRST_STREAM = 1 << 16


class Owned(NamedTuple):
    """A weight and whose it is."""
    name: str                                # "dense_1.kernel"
    weight: Weight
    layer: Layer
    trainable: bool


class Network:
    """Layers with names, shapes for one input shape, and the list of their weights in order.

    shape     shape of one input sample
    first     the layer that sees the model's input
    shapes    layer name -> (shape of its input sample, shape of its output sample)
    weights   list of Owned
    """

    def __init__(self, layers, shape):
        self.layers, self.shape = layers, tuple(shape)
        self.shapes, self.weights = {}, []
        for layer in layers:
            shape = self._build(layer, tuple(shape), True)
        self.output_shape = shape
        self.first = next((layer for layer in layers if type(layer).__name__ != "Input"), layers[0])
        self.input_dtype = self.first.input_dtype        # None: that of the weights

    def _build(self, layer, shape, trainable):
        trainable = trainable and layer.trainable
        try:
            out = tuple(layer.output_shape(shape))
        except ShapeError as error:
            raise ShapeError(str(error) if str(error).startswith(layer.name) else f"{layer.name}: {error}") from None
        self.shapes[layer.name] = (shape, out)
        for sub, given in layer.sublayers(shape):
            self._build(sub, given, trainable)
        for weight in layer.weights(shape):
            self.weights.append(Owned(f"{layer.name}.{weight.name}", weight, layer, trainable and weight.trainable))
        return out

    def add_to(self, graph, x, values, training, counter=None):
        """Adds all layers' nodes; `values` maps weight names to values. Returns each layer's output by name."""
        outputs = {}

        def call(layer, value):
            with graph.scope(layer.name.rsplit("/", 1)[-1]):
                own = {w.weight.name: values[w.name] for w in by_layer.get(layer.name, ())}
                y = layer.nodes(graph, value, own, context)
            expected = (value.shape[0], *self.shapes[layer.name][1])
            if tuple(y.shape) != expected:
                raise EngineError(f"{layer.name}: its nodes gave shape {tuple(y.shape)}, its output_shape says "
                                  f"{expected}")
            outputs[layer.name] = y
            return y

        by_layer = {}
        for w in self.weights:
            by_layer.setdefault(w.layer.name, []).append(w)
        context = Context(training, call, counter, itertools.count(FIRST_STREAM))
        for layer in self.layers:
            x = call(layer, x)
        return x, outputs


def name_layers(layers):
    """Gives every nameless layer a name by its class and order; refuses a name used twice."""
    taken, seen, counts = set(), set(), {}

    def name(layer, prefix):
        if not isinstance(layer, Layer):
            raise EngineError(f"Sequential: expected layers, got {layer!r}; a class needs parentheses: Dense(64)")
        if layer.name is None or getattr(layer, "_named", False):
            base = prefix + snake(type(layer).__name__)
            count = counts.get(base, 0)
            counts[base] = count + 1
            layer.name, layer._named = f"{base}_{count}" if count else base, True
        if layer.name in taken or id(layer) in seen:
            raise EngineError(f"Sequential: two layers are named {layer.name!r}; give each its own name, or make a "
                              f"second layer object instead of using one twice")
        taken.add(layer.name)
        seen.add(id(layer))
        for sub in getattr(layer, "layers", ()):
            name(sub, f"{layer.name}/")
    for layer in layers:
        name(layer, "")


def shape_of_input(layers):
    """The input shape that an Input layer or `input_shape=` states, or None."""
    first = layers[0] if layers else None
    if first is None:
        return None
    stated = getattr(first, "shape", None) if type(first).__name__ == "Input" else getattr(first, "input_shape", None)
    return None if stated is None else tuple(stated)
