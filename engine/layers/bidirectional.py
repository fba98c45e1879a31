"""Recurrent layers that read both ways (Schuster, Paliwal 1997)."""
from engine.layers.layer import LAYERS, Layer, register
from engine.layers.recurrent import Recurrent


@register
class Bidirectional(Layer):
    """A recurrent layer and a second one that reads from the last step to the first; outputs side by side, (n, both
    units) or (n, steps, both units). Without return_sequences each gives the state it ends with.

    backward: the second one; None makes a twin of the first, with weights of its own.

    >>> Sequential([Bidirectional(LSTM(32), input_shape=(28, 28)), Dense(10)])
    """

    def __init__(self, layer, backward=None, input_shape=None, name=None, trainable=True):
        super().__init__(name, trainable)
        if not isinstance(layer, Recurrent) or layer.reverse:
            raise ValueError(f"Bidirectional: expected a recurrent layer that reads forwards, such as LSTM(32), got "
                             f"{layer!r}")
        if backward is None:
            twin = {k: v for k, v in layer.config().items() if k not in ("class", "name")}
            backward = type(layer)(**{**twin, "reverse": True})
        if not isinstance(backward, Recurrent) or not backward.reverse or (
                backward.return_sequences != layer.return_sequences):
            raise ValueError(f"Bidirectional: expected as backward a recurrent layer with reverse=True and "
                             f"return_sequences={layer.return_sequences}, got {backward!r}")
        self.layer, self.backward, self.layers = layer, backward, [layer, backward]
        self.input_shape = layer.input_shape if input_shape is None else tuple(input_shape)

    @classmethod
    def from_config(cls, arguments, extra=()):
        built = {k: LAYERS.build(arguments[k], extra) for k in ("layer", "backward") if k in arguments}
        return cls(**{**arguments, **built})

    def sublayers(self, shape):
        return [(layer, shape) for layer in self.layers]

    def output_shape(self, shape):
        steps = self.layer.output_shape(shape)[:-1]
        return (*steps, self.layer.units + self.backward.units)

    def nodes(self, graph, x, weights, context):
        return graph.add("concat", *(context.call(layer, x) for layer in self.layers), axis=-1)
