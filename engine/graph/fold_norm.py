"""Pass: in inference a batch normalisation goes into the weights of the product or convolution before it.

    gamma (x w + b - mean) / sqrt(variance + epsilon) + beta  =  x (w s) + (b - mean) s + beta,
    s = gamma / sqrt(variance + epsilon), one number for each output channel, which is the last axis of w

What becomes of the weights is nodes like any others: they depend on weights alone, so a plan computes them once, and
again when weights have changed (`runtime.fixed`).
"""
from engine.graph.graph import Node
from engine.kernels import TABLE

WITH_BIAS = {"dense": "dense", "matmul": "dense", "conv2d": "conv2d", "conv2d_plain": "conv2d"}
FIXED = ("parameter", "constant")


def fold_norm(graph, training):
    """A graph in which each normalisation by running statistics is folded into the node whose output it alone uses."""
    if training:
        return graph
    users, kept, made = graph.users(), graph.kept(), graph.producer()
    folded = {node: made[node.inputs[0]] for node in graph.nodes
              if _folds(node, made.get(node.inputs[0] if node.inputs else None), users, kept)}
    gone, new = set(folded.values()), graph.with_nodes(())
    for node in graph.nodes:
        if node in folded:
            with new.scope(node.label):
                _fold(new, folded[node], node)
        elif node not in gone:
            new.nodes.append(node)
    return new


def _folds(norm, product, users, kept):
    """Whether a node is a normalisation that the one before it can take in."""
    if norm.op.name != "batch_norm_inference" or product is None or product.op.name not in WITH_BIAS:
        return False
    given = product.attributes
    return (given.get("activation") is None and not given.get("transpose_a") and not given.get("transpose_b")
            and len(users[norm.inputs[0]]) == 1 and norm.inputs[0] not in kept
            and all(v.kind in FIXED for v in (*product.inputs[1:], *norm.inputs[1:])))


def _fold(graph, product, norm):
    """Appends the nodes that make the weights, and the product with them."""
    x, w, *bias = product.inputs
    _, gamma, beta, mean, variance = norm.inputs
    spread = graph.add("sqrt", graph.add("scale", variance, factor=1.0, offset=norm.attributes["epsilon"]))
    factor = graph.add("div", gamma, spread)
    weights = graph.add("mul", w, factor)
    if bias:
        shift = graph.add("add", beta, graph.add("mul", graph.add("sub", bias[0], mean), factor))
    else:
        shift = graph.add("sub", beta, graph.add("mul", mean, factor))
    op = TABLE[WITH_BIAS[product.op.name]]
    attributes = {k: v for k, v in product.attributes.items() if k in op.attributes}
    graph.nodes.append(Node(op, (x, weights, shift), norm.outputs,
                            op.complete({**attributes, "activation": norm.attributes["activation"]}), product.label))
