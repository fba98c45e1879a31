"""What of a graph depends on weights alone: computed when they have changed, not in every run."""
from dataclasses import replace


class Version:
    """How often weights have changed. Whoever changes some counts on; plans look whether what they made of them is of
    the same count."""

    def __init__(self):
        self.count = 0

    def changed(self):
        self.count += 1


def updated(graph):
    """The values from outside whose memory some node of the graph changes."""
    root = _roots(graph)
    changed = {root[value] for node in graph.nodes for value in node.outputs if value in root}
    for node in graph.nodes:                 # in their order: an update's output can be updated again
        for out, source in {**node.op.updates, **node.op.views}.items():
            root.setdefault(node.outputs[out], root.get(node.inputs[source], node.inputs[source]))
        changed.update(root.get(node.inputs[k], node.inputs[k]) for k in node.op.updates.values())
    return changed


def _roots(graph):
    """Value -> the value in whose memory it has its place."""
    return {value: inside for value, (inside, _) in graph.parts.items()}


def fixed_first(graph):
    """(the graph with nodes of fixed values in front, how many they are): those that take parameters and constants, or
    what such nodes give, of which the graph itself updates none. Others that can keep what they make of fixed weights
    are told so (`Op.keeps`)."""
    root, changed = _roots(graph), updated(graph)
    fixed = {value for value in graph.values.values()
             if value.kind in ("parameter", "constant") and root.get(value, value) not in changed}
    first, rest = [], []
    for node in graph.nodes:
        alone = (node.inputs and all(v in fixed for v in node.inputs) and not node.op.updates
                 and not any(v in graph.parts for v in node.outputs))
        if not alone and "kept" in node.op.attributes and node.inputs[1] in fixed:
            node = replace(node, attributes={**node.attributes, "kept": True})
        (first if alone else rest).append(node)
        fixed.update(node.outputs if alone else ())
    return graph.with_nodes((*first, *rest)), len(first)
