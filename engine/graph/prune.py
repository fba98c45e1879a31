"""Pass: nodes whose results nobody uses are dropped (layer elimination, dead code)."""


def prune(graph):
    """A graph without the nodes that neither an output, nor a place in another value's memory, nor an update needs."""
    wanted = graph.kept()
    kept = []
    for node in reversed(graph.nodes):
        if node.op.updates or any(o in wanted for o in node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return graph.with_nodes(reversed(kept))
