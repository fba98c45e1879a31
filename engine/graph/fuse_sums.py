"""Pass: the gradients of a dense layer's weights and bias, dw = x^T dz and db = sum(dz), become one node: the product
reads all of dz anyway. Used on GPUs, where each launch and each reading of dz counts."""
from engine.graph.graph import Node
from engine.kernels import TABLE


def fuse_sums(graph):
    """A graph in which each product op(a) op(b) takes in the sums of op(b)'s columns where they are wanted too."""
    sums = {}
    for place, node in enumerate(graph.nodes):
        if node.op.name == "sum" and len(node.inputs[0].shape) == 2 and not node.attributes.get("keepdims"):
            sums.setdefault((node.inputs[0], _axis(node)), (place, node))
    skip, instead = set(), {}
    for place, node in enumerate(graph.nodes):
        if node.op.name == "matmul":
            along = 1 if node.attributes["transpose_b"] else 0
            later, found = sums.pop((node.inputs[1], along), (-1, None))
            if later > place:                # moved up to the product: what it needs is there already
                skip.add(found)
                instead[node] = Node(TABLE["matmul_sums"], node.inputs, (*node.outputs, *found.outputs),
                                     node.attributes, node.label)
    return graph.with_nodes(instead.get(node, node) for node in graph.nodes if node not in skip)


def _axis(node):
    axis = node.attributes["axis"]
    axis = axis[0] if isinstance(axis, (tuple, list)) and len(axis) == 1 else axis
    return axis % 2 if isinstance(axis, int) else None
