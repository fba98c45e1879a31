"""Pass: the product that brings a gradient back through a layer takes in the slope of the activation before that layer:
dz = (dy w^T) f'(y) is one node (`kernels.matmul.slope`)."""
from engine.graph.graph import Node
from engine.kernels.matmul import MATMUL, MATMUL_SLOPE
from engine.kernels.matmul.slope import sizes_of, takes_slope


def fuse_backward(graph):
    """A graph in which each product takes in the slope op that alone uses it, where that costs the product nothing."""
    users, kept, made, updates = graph.users(), graph.kept(), {}, 0
    for node in graph.nodes:
        if node.op is MATMUL and takes_slope(*sizes_of(*node.inputs, *node.attributes.values()),
                                             *node.attributes.values(), node.outputs[0].dtype):
            made[node.outputs[0]] = node, updates
        updates += bool(node.op.updates)
    gone, instead, updates = set(), {}, 0
    for node in graph.nodes:
        product, then = made.get(node.inputs[0], (None, 0)) if node.op.slope is not None else (None, 0)
        if product is not None and then == updates and len(users[node.inputs[0]]) == 1 and node.inputs[0] not in kept:
            gone.add(product)
            instead[node] = Node(MATMUL_SLOPE, (*product.inputs, node.inputs[1]), node.outputs,
                                 {**product.attributes, "activation": node.op.slope}, node.label)
        updates += bool(node.op.updates)
    return graph.with_nodes(instead.get(node, node) for node in graph.nodes if node not in gone)
