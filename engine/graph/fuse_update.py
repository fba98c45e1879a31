"""Pass: the product that is the gradient of a large weight takes in the update of that weight, dw = x^T dz and
w -= rate dw (or what else the optimiser does) in one node of `kernels.matmul.update`. Used on CPUs, where a gradient
that is written and read again costs more than the update itself; the other weights are updated as before.

A product is taken in if nobody but the update wants its result. The node stands behind the last one that reads the
weight: until then it has to be the old one.
"""
from engine.kernels.matmul import MATMUL
from engine.kernels.matmul.slope import sizes_of
from engine.kernels.matmul.update import WITH_PRODUCT, takes_update


def fuse_update(graph):
    """A graph in which updates of flat weights are left with what no product could take in."""
    users, outputs = graph.users(), set(graph.outputs.values())
    behind, instead = {}, {}                 # nodes that stand behind a node; and instead of one
    made = graph.with_nodes(())
    for place, update in enumerate(graph.nodes):
        if update.op.name not in WITH_PRODUCT:
            continue
        weights, gradients, *states, _, _ = update.inputs
        if users[gradients] != [update] or users[weights] != [update] or gradients.kind != "state":
            continue                         # clipped, say: the whole gradient is needed first
        at = {offset: value for value, (flat, offset) in graph.parts.items() if flat is weights}
        earliest, taken = _earliest(graph, update), []
        for number, node in enumerate(graph.nodes[:place]):
            flat, offset = graph.parts.get(node.outputs[0], (None, 0)) if node.outputs else (None, 0)
            if flat is not gradients or not _is_gradient(node) or offset not in at:
                continue
            if node.outputs[0] in users or node.outputs[0] in outputs or at[offset].shape != node.outputs[0].shape:
                continue
            last = max(number, earliest, _last_reader(graph, at[offset]))
            if last < place:
                taken.append((offset, node))
                behind.setdefault(graph.nodes[last], []).append(_joined(made, update, node, at[offset], offset))
        if taken:
            instead.update({node: [] for _, node in taken})
            instead[update] = _rest(made, update, [(offset, node.outputs[0].size) for offset, node in taken])
    for node in graph.nodes:
        made.nodes += [*instead.get(node, [node]), *behind.get(node, [])]
    return made


def _is_gradient(node):
    return (node.op is MATMUL and node.attributes["transpose_a"] and not node.attributes["transpose_b"]
            and takes_update(*sizes_of(*node.inputs, True, False), node.outputs[0].dtype))


def _earliest(graph, update):
    """Where the last of the update's own inputs, the rate say, is computed; -1 where all are given."""
    return max((number for number, node in enumerate(graph.nodes) if set(node.outputs) & set(update.inputs)),
               default=-1)


def _last_reader(graph, weight):
    """Where a weight, or what is a view of it, is read last; -1 where it never is."""
    same, last = {weight}, -1
    for number, node in enumerate(graph.nodes):
        if same.intersection(node.inputs):
            last = number
            same.update(node.outputs[out] for out, source in node.op.views.items() if node.inputs[source] in same)
    return last


def _joined(graph, update, product, weight, offset):
    """The node of a weight's product and update."""
    _, _, *states, rate, counter = update.inputs
    states = [graph.piece(flat, offset, weight.shape) for flat in states]
    return _node(graph, WITH_PRODUCT[update.op.name], (*product.inputs, weight, *states, rate, counter), update,
                 product.label)


def _rest(graph, update, taken):
    """Updates of the stretches between the weights that products have taken, (offset, size) each."""
    *flat, rate, counter = update.inputs
    nodes, begin = [], 0
    for offset, size in (*sorted(taken), (flat[0].size, 0)):
        if offset > begin:
            pieces = [graph.piece(value, begin, (offset - begin,)) for value in flat]
            nodes.append(_node(graph, update.op, (*pieces, rate, counter), update, update.label))
        begin = offset + size
    return nodes


def _node(graph, op, inputs, update, label):
    """A node with the update's attributes."""
    with graph.scope(label):
        graph.add(op, *inputs, **update.attributes)
    return graph.nodes.pop()
