"""Dropout (Srivastava et al. 2014)."""
from engine.layers.layer import Layer, register


@register
class Dropout(Layer):
    """In training sets each value to 0 with probability `rate` and scales the others by 1 / (1 - rate); otherwise does
    nothing. The mask is a function of the seed, the step and the place: it is the same on every target."""

    def __init__(self, rate=0.5, name=None):
        super().__init__(name)
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: expected rate from 0 up to (not including) 1, got {rate!r}")
        self.rate = rate

    def nodes(self, graph, x, weights, context):
        if not context.training or self.rate == 0:
            return x
        return graph.add("dropout", x, context.counter, rate=float(self.rate), stream=next(context.streams))
