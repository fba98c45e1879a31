"""Branches side by side, joined on the channels (Inception: Szegedy et al. 2014)."""
from engine.layers.composite import Composite, chain_from, chain_of
from engine.layers.layer import register


@register
class Concat(Composite):
    """Every branch sees x; their outputs stand one after the other along the last axis.

    branches    a list of branches: each a layer or a list of layers; an empty list passes x on

    >>> Concat([[Conv2D(64, 1)], [Conv2D(96, 1), Conv2D(128, 3, padding="same")]])
    """

    def __init__(self, branches, name=None, trainable=True):
        super().__init__(name, trainable)
        self.branches = [chain_of(branch) for branch in branches]
        if not self.branches:
            raise ValueError("Concat: expected at least one branch, got none")

    @classmethod
    def from_config(cls, arguments, extra=()):
        return cls(**{**arguments, "branches": [chain_from(branch, extra) for branch in arguments["branches"]]})

    def chains(self):
        return [(f"branch {number}", branch) for number, branch in enumerate(self.branches, 1)]

    def joined(self, shape, ends):
        if any(not end or end[:-1] != ends[0][:-1] for end in ends):
            self.refuse(f"for which all branches agree but for the channels; they give {', '.join(map(str, ends))}",
                        shape, "a branch's stride or padding may differ from the others'")
        return (*ends[0][:-1], sum(end[-1] for end in ends))

    def nodes(self, graph, x, weights, context):
        ends = [self.run(branch, x, context) for branch in self.branches]
        return ends[0] if len(ends) == 1 else graph.add("concat", *ends, axis=ends[0].ndim - 1)
