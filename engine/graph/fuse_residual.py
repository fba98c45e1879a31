"""Pass: a dense layer or a convolution whose output is added to a value of its shape, and the activation behind that,
become one node, y = f(x w + b + r): the end of a residual block (He et al. 2015)."""
from engine.graph.fuse_dense import activation_of
from engine.graph.graph import Node
from engine.kernels import TABLE

WITH_RESIDUAL = {"dense": "dense_residual", "conv2d": "conv2d_add"}


def fuse_residual(graph, training):
    """A graph in which an `add` takes in the node of WITH_RESIDUAL that it alone uses, and then the activation that
    alone uses it (in training only where its derivative is a function of y)."""
    users, kept, made = graph.users(), graph.kept(), graph.producer()

    def alone(value):
        return value not in kept and len(users.get(value, ())) == 1

    skip, instead = set(), {}
    for node in graph.nodes:
        if node.op.name != "add" or node.inputs[0].shape != node.inputs[1].shape:
            continue
        for given, other in (node.inputs, node.inputs[::-1]):
            product = made.get(given)
            if (product and product.op.name in WITH_RESIDUAL and product.attributes["activation"] is None
                    and alone(given)):
                last, found = node, None
                if alone(node.outputs[0]):
                    found = activation_of(users[node.outputs[0]][0], training, "y")
                    last = users[node.outputs[0]][0] if found else node
                skip |= {product, node, last} - {last}
                instead[last] = Node(TABLE[WITH_RESIDUAL[product.op.name]], (*product.inputs, other), last.outputs,
                                     {**product.attributes, "activation": found}, product.label)
                break
    return graph.with_nodes(instead.get(node, node) for node in graph.nodes if node not in skip)
