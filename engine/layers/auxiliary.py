"""An auxiliary head: a second look at the labels from the middle of a network (Szegedy et al. 2014)."""
from engine.layers.composite import Composite, chain_from, chain_of
from engine.layers.layer import register


@register
class Auxiliary(Composite):
    """Passes x on unchanged. In training the head makes a prediction of its own from x, and the model's loss on it,
    times `weight`, is added to the loss; in inference the head is not computed. It must end in the model's output
    shape.

    >>> Auxiliary([Flatten(), Dense(10)], weight=0.4)
    """

    def __init__(self, head, weight=0.3, name=None, trainable=True):
        super().__init__(name, trainable)
        self.head, self.weight = chain_of(head), weight
        if not weight > 0:
            raise ValueError(f"Auxiliary: expected a weight above 0, got {weight!r}")

    @classmethod
    def from_config(cls, arguments, extra=()):
        return cls(**{**arguments, "head": chain_from(arguments["head"], extra)})

    def chains(self):
        return [("head", self.head)]

    def joined(self, shape, ends):
        return shape

    def nodes(self, graph, x, weights, context):
        if context.training:
            context.auxiliary.append((self, self.run(self.head, x, context)))
        return x
