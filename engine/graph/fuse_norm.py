"""Pass: batch normalisation takes in the addition and the activation behind it (vertical fusion).

    batch_norm, relu         ->  batch_norm with activation
    batch_norm, add          ->  batch_norm_add                       the end of a residual block
    batch_norm, add, relu    ->  batch_norm_add with activation

The fused node stands where the last of them stood: all that it needs is there by then.
"""
from engine.graph.fuse_dense import activation_of
from engine.graph.graph import Node
from engine.kernels import TABLE

NORMS = ("batch_norm", "batch_norm_inference")


def fuse_norm(graph, training):
    """A graph in which each batch normalisation has taken in what alone uses its output."""
    users, kept = graph.users(), graph.kept()
    gone, made = set(), {}                   # nodes that were taken in; last of them -> the node in their place
    for node in graph.nodes:
        if node.op.name not in NORMS or node.attributes["activation"] is not None or _looked_at(node, users, kept):
            continue
        taken, fused = _grown(node, lambda value: _only_user(value, users, kept, gone), training)
        if taken:
            gone.update((node, *taken))
            made[taken[-1]] = fused
    return graph.with_nodes([made.get(node, node) for node in graph.nodes if node not in gone or node in made])


def _looked_at(node, users, kept):
    """Whether somebody needs what else the node gives: that must not come later."""
    return any(value in users or value in kept for value in node.outputs[1:])


def _only_user(value, users, kept, gone):
    using = users.get(value, [])
    return using[0] if len(using) == 1 and value not in kept and using[0] not in gone else None


def _grown(node, user_of, training):
    """(nodes that `node` takes in, what it becomes)"""
    taken, fused = [], node
    user = user_of(node.outputs[0])
    if user is not None and user.op.name == "add" and node.op.name == "batch_norm" and _one_shape(user):
        other = user.inputs[1] if user.inputs[0] is node.outputs[0] else user.inputs[0]
        fused = Node(TABLE["batch_norm_add"], (*node.inputs, other), (user.outputs[0], *node.outputs[1:]),
                     node.attributes, node.label)
        taken.append(user)
        user = user_of(user.outputs[0])
    found = activation_of(user, training, "y" if taken else "xy") if user is not None else None
    if found is not None:
        fused = Node(fused.op, fused.inputs, (user.outputs[0], *fused.outputs[1:]),
                     {**fused.attributes, "activation": found}, fused.label)
        taken.append(user)
    return taken, fused


def _one_shape(add):
    a, b = add.inputs
    return a.shape == b.shape == add.outputs[0].shape and a is not b
