"""Pass: the product that brings a gradient back through a layer takes in the slope of the activation before that layer:
dz = (dy w^T) f'(y) is one node (`kernels.matmul.slope`)."""
from engine.graph.graph import Node
from engine.kernels.matmul import MATMUL, MATMUL_SLOPE
from engine.kernels.matmul.slope import sizes_of, takes_slope


def fuse_backward(graph):
    """A graph in which each product takes in the slope op that alone uses it, where that costs the product nothing."""
    uses, made, updates = {}, {}, 0
    for node in graph.nodes:
        for value in node.inputs:
            uses[value] = uses.get(value, 0) + 1
        if node.op is MATMUL and takes_slope(*sizes_of(*node.inputs, *node.attributes.values()),
                                             *node.attributes.values(), node.outputs[0].dtype):
            made[node.outputs[0]] = node, updates
        updates += bool(node.op.updates)
    kept = set(graph.outputs.values()) | set(graph.parts)
    nodes, updates = [], 0
    for node in graph.nodes:
        product, then = made.get(node.inputs[0], (None, 0)) if node.op.slope is not None else (None, 0)
        if product is not None and then == updates and uses[node.inputs[0]] == 1 and node.inputs[0] not in kept:
            nodes.remove(product)
            attributes = {**product.attributes, "activation": node.op.slope}
            node = Node(MATMUL_SLOPE, (*product.inputs, node.inputs[1]), node.outputs, attributes, node.label)
        nodes.append(node)
        updates += bool(node.op.updates)
    return graph.with_nodes(nodes)
