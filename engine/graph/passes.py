"""The passes that every graph goes through, in their order."""
from engine.graph.fold_norm import fold_norm
from engine.graph.fuse_backward import fuse_backward
from engine.graph.fuse_dense import fuse_dense
from engine.graph.fuse_elementwise import fuse_elementwise
from engine.graph.fuse_norm import fuse_norm
from engine.graph.fuse_residual import fuse_residual
from engine.graph.fuse_sums import fuse_sums
from engine.graph.fuse_update import fuse_update
from engine.graph.prune import prune

FORWARD = (fold_norm, fuse_dense, fuse_norm, fuse_residual)


def fuse_forward(graph, training):
    """On the nodes of layers and loss, before gradients are taken: what is fused has a gradient of its own."""
    for fuse in FORWARD:
        graph = fuse(graph, training)
    return graph


def finish(graph, on_gpu):
    """On the whole graph, once all its nodes are there."""
    graph = fuse_elementwise(fuse_backward(prune(fuse_sums(graph) if on_gpu else graph)))
    return graph if on_gpu else fuse_update(graph)
