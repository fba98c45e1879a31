"""Pass: a product or convolution with bias and the activation behind it become one node, y = f(x w + b) (vertical
fusion). Every op takes part that has an attribute `activation` and one output; `fuse_norm` sees to the others."""
from engine.graph.graph import Node
from engine.kernels.activation import Activation

ABSENT = object()


def fuse_dense(graph, training):
    """A graph in which each node that can apply an activation takes in the one that alone uses its output.

    In training only activations whose derivative is a function of y are taken in: the others need x w + b again.
    """
    users, kept = graph.users(), graph.kept()
    skip, nodes = set(), []
    for node in graph.nodes:
        if node in skip:
            continue
        if (node.attributes.get("activation", ABSENT) is None and len(node.outputs) == 1
                and node.outputs[0] not in kept):
            using = users.get(node.outputs[0], [])
            found = activation_of(using[0], training, "y") if len(using) == 1 else None
            if found is not None:
                skip.add(using[0])
                attributes = {**node.attributes, "activation": found}
                node = Node(node.op, node.inputs, using[0].outputs, attributes, node.label)
        nodes.append(node)
    return graph.with_nodes(nodes)


def activation_of(node, training, slopes):
    """The activation that a node applies, when it may be taken in; in training only one with a derivative as a function
    of one of `slopes`, "x" or "y"."""
    found = getattr(node.op, "activation", None)
    if not isinstance(found, Activation):
        return None
    # a step takes no gradient: left as it is, `gradients` says so
    return found if not training or (found.slope_of in slopes and found.slope is not None) else None
