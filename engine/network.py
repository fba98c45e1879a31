"""A chain of layers as names, shapes and weights, and the graph that it writes. No arrays live here."""
import itertools
import math
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
    all_layers   the layers and those inside them, each before what it contains
    """

    def __init__(self, layers, shape):
        self.layers, self.shape = layers, tuple(shape)
        self.shapes, self.weights, self.all_layers = {}, [], []
        for layer in layers:
            shape = self._build(layer, tuple(shape), True)
        self.output_shape = shape
        self.first = next((layer for layer in layers if type(layer).__name__ != "Input"), layers[0])
        self.input_dtype = self.first.input_dtype        # None: that of the weights

    def _build(self, layer, shape, trainable):
        trainable = trainable and layer.trainable
        self.all_layers.append(layer)
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

    def trained(self):
        """Names of the weights that training changes."""
        return [w.name for w in self.weights if w.trainable]

    def count(self, trainable=None):
        """How many numbers the weights are: all, the trained ones (True), or the others (False)."""
        return sum(math.prod(w.weight.shape) for w in self.weights if trainable is None or w.trainable == trainable)

    def add_to(self, graph, x, values, training, counter=None):
        """Adds all layers' nodes; `values` maps weight names to values.

        Returns the last output, each layer's output by name, and what auxiliary heads say (pairs (layer, value)).
        """
        outputs = {}

        def call(layer, value):
            with graph.scope(layer.name.rsplit("/", 1)[-1]):
                own = {w.weight.name: values[w.name] for w in by_layer.get(layer.name, ())}
                frozen, context.frozen = context.frozen, context.frozen or not layer.trainable
                y = layer.nodes(graph, value, own, context)
                context.frozen = frozen
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
        return x, outputs, context.auxiliary


class Names:
    """Names of a model's layers as they are added; a layer without one gets its class's with a number.

    A layer that was in a built model keeps its name: its weights go by it.
    """

    def __init__(self):
        self._taken, self._seen, self._counts = set(), set(), {}

    def add(self, layers):
        """Names layers and all inside them; refuses a name or a layer used twice."""
        for layer in layers:                 # names that stand come first: numbers are found around them
            self._keep(layer)
        for layer in layers:
            self._give(layer, "")

    def _keep(self, layer):
        if not isinstance(layer, Layer):
            raise EngineError(f"Sequential: expected layers, got {layer!r}; a class needs parentheses: Dense(64)")
        if id(layer) in self._seen:
            raise EngineError(f"Sequential: the layer {layer.name or type(layer).__name__!r} stands there twice; make "
                              f"a second layer object and give each its own name")
        self._seen.add(id(layer))
        if getattr(layer, "_named", False) and layer.held is None:
            layer.name = None                # named by an earlier, unbuilt model
        if layer.name is not None:
            if layer.name in self._taken:
                raise EngineError(f"Sequential: two layers are named {layer.name!r}; give each its own name")
            self._taken.add(layer.name)
        for sub in getattr(layer, "layers", ()):
            self._keep(sub)

    def _give(self, layer, prefix):
        if layer.name is None:
            base = prefix + snake(type(layer).__name__)
            while layer.name is None or layer.name in self._taken:
                count = self._counts.get(base, 0)
                self._counts[base] = count + 1
                layer.name = f"{base}_{count}" if count else base
            self._taken.add(layer.name)
            layer._named = True
        for sub in getattr(layer, "layers", ()):
            self._give(sub, f"{layer.name}/")


def shape_of_input(layers):
    """The input shape that an Input layer or `input_shape=` states, or None."""
    first = layers[0] if layers else None
    if first is None:
        return None
    stated = getattr(first, "shape", None) if type(first).__name__ == "Input" else getattr(first, "input_shape", None)
    return None if stated is None else tuple(stated)
