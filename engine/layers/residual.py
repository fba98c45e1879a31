"""Residual block (He et al. 2015): y = f(shortcut(x) + main(x))."""
from engine.layers.activations import find
from engine.layers.composite import Composite, chain_from, chain_of
from engine.layers.layer import register


@register
class Residual(Composite):
    """Adds what a chain of layers makes of x to x itself, or to what `shortcut` makes of it; then the activation.

    Both sides must end in the same shape: a shortcut is needed where main changes it (a 1x1 convolution, say).

    >>> Residual([Dense(64, activation="relu"), Dense(64)])
    >>> Residual([Conv2D(64, 3, 2, "same"), BatchNorm()], shortcut=[Conv2D(64, 1, 2)], activation="relu")
    """

    def __init__(self, main, shortcut=None, activation=None, name=None, trainable=True):
        super().__init__(name, trainable)
        self.main, self.shortcut = chain_of(main), None if shortcut is None else chain_of(shortcut)
        self.activation = find(activation)

    @classmethod
    def from_config(cls, arguments, extra=()):
        chains = {k: chain_from(arguments[k], extra) for k in ("main", "shortcut") if arguments.get(k) is not None}
        return cls(**{**arguments, **chains})

    def chains(self):
        return [("main", self.main)] + ([("shortcut", self.shortcut)] if self.shortcut else [])

    def joined(self, shape, ends):
        main, short = tuple(ends[0]), tuple(ends[1] if self.shortcut else shape)
        if main != short:
            given = f"its shortcut gives {_batch(short)}" if self.shortcut else f"x is {_batch(short)}"
            self.refuse(f"for which both sides have one shape; its main layers give {_batch(main)}, {given}", shape,
                        "" if self.shortcut else "shortcut=[...] gives x the shape that main makes")
        return main

    def nodes(self, graph, x, weights, context):
        y = self.run(self.main, x, context)
        y = graph.add("add", self.run(self.shortcut or (), x, context), y)
        return y if self.activation is None else self.activation.nodes(graph, y)


def _batch(shape):
    return f"({', '.join(map(str, ('n', *shape)))})"
