"""Layers one after another under one name."""
from engine.layers.composite import Composite, chain_from, chain_of
from engine.layers.layer import register


@register
class Block(Composite):
    """A chain as one layer: a stage that is frozen, cut off or looked at as a whole.

    >>> Block([Conv2D(64, 3, padding="same"), BatchNorm(), ReLU()], name="stem")
    """

    def __init__(self, inside, name=None, trainable=True):
        super().__init__(name, trainable)
        self.inside = chain_of(inside)

    @classmethod
    def from_config(cls, arguments, extra=()):
        return cls(**{**arguments, "inside": chain_from(arguments["inside"], extra)})

    def chains(self):
        return [("", self.inside)]

    def joined(self, shape, ends):
        return ends[0]

    def nodes(self, graph, x, weights, context):
        return self.run(self.inside, x, context)
