"""Backpropagation: appends the nodes that compute gradients, by walking the nodes in reverse (Rumelhart et al. 1986).

Each op's record says how its gradient is written (`grad`); a value used several times sums what comes back.
"""
from engine.errors import EngineError
from engine.kernels.op import FLOATS


def gradients(graph, seeds, wrt):
    """The gradients of sum(seed * value) with respect to `wrt`.

    graph   nodes are appended to it
    seeds   {Value: Value}: for each end value the gradient that flows into it (for a loss: the constant 1)
    wrt     the values to differentiate by
    returns one Value for each of `wrt`, None where the ends do not depend on it
    """
    needed = _depending_on(graph, wrt)
    flowing = {value: [seed] for value, seed in seeds.items()}
    for node in reversed(list(graph.nodes)):
        if not any(i in needed for i in node.inputs) or not any(o in flowing for o in node.outputs):
            continue
        if node.op.grad is None:
            raise EngineError(f"{node.label or node.op.name}: op {node.op.name} has no gradient, but the loss depends "
                              f"on {', '.join(v.name for v in wrt if v in needed)[:200]} through it")
        with graph.scope(f"{node.label}.grad" if node.label else "grad"):
            arriving = [_total(graph, flowing, o) for o in node.outputs]
            leaving = node.op.grad(graph, node, *arriving)
            for value, gradient in zip(node.inputs, leaving, strict=True):
                if gradient is None or value not in needed:
                    continue
                if gradient.shape != value.shape:
                    raise EngineError(f"op {node.op.name}: its gradient for {value!r} has shape {gradient.shape}")
                flowing.setdefault(value, []).append(gradient)
    return [_total(graph, flowing, v) for v in wrt]


def _depending_on(graph, wrt):
    """The float values through which a gradient has to flow to reach `wrt`."""
    needed = set(wrt)
    for node in graph.nodes:
        if any(i in needed for i in node.inputs):
            needed.update(o for o in node.outputs if o.dtype in FLOATS)
    return needed


def _total(graph, flowing, value):
    """The sum of what flows into a value, added in a fixed order."""
    parts = flowing.get(value)
    if not parts:
        return None
    while len(parts) > 1:
        parts[:2] = [graph.add("add", parts[0], parts[1])]
    return parts[0]
