"""A convolution that adds a value of its output's shape on its way out, the end of a residual block (He et al. 2015):

    conv2d_add       y (n, p, q, o) = f(conv(x, w) + bias (o,) + beside (n, p, q, o))

Shapes, attributes and ways are those of conv2d. On the CPU the sums start from the bias; `beside` and f come when a
panel of sums is finished, and `beside` is on its way into the cache before. On a GPU all of it happens in registers.
"""
from engine.kernels.conv import (
    CONV2D,
    bias_gradient,
    conv2d_arrange,
    conv2d_shapes,
    cost,
    cuda,
    input_gradient,
    operands,
    through,
    weight_gradient,
)
from engine.kernels.conv.cpu import forth, prepare
from engine.kernels.conv.reference import conv2d_reference
from engine.kernels.matmul import LINEAR
from engine.kernels.matmul.fused import joined
from engine.kernels.matmul.tiles import finish
from engine.kernels.op import Op, demand, floats
from engine.kernels.simd import hook, part, pointer
from engine.kernels.split import number_of

# ----------------------------------------------------------------------------------------------------- NumPy reference


def conv2d_add_reference(x, w, bias, beside, stride, padding, dilation, groups, activation=None, kept=False):
    z = conv2d_reference(x, w, bias, stride, padding, dilation, groups) + beside
    return z if activation is None else activation.reference(z)


# ---------------------------------------------------------------------------------------------------------------- CPU


@part
def add_weights(x, w, bias, beside, sh, sw, top, left, dh, dw, groups, f, y, u, work, kc, mc, ns, pack, gather, m_tasks,
                way, task, tasks):
    """First phase: the weights as the way wants them."""
    prepare(w, groups, u, kc, ns, pack, way, task, tasks)


@part
def add_kernel(x, w, bias, beside, sh, sw, top, left, dh, dw, groups, f, y, u, work, kc, mc, ns, pack, gather, m_tasks,
               way, task, tasks):
    """y = f(conv(x, w) + bias, beside)"""
    own, o = pointer(work) + work.shape[0] // tasks * number_of(task), y.shape[3]
    done = hook(finish, (task, o, pointer(y), o, pointer(beside), o), None, f)
    forth(x, w, (sh, sw, top, left, dh, dw, groups), y, u, (pointer(bias), 0, 1), (done, pointer(beside), o), own,
          (kc, mc, ns, pack, gather, m_tasks, way), task, tasks)


# ------------------------------------------------------------------------------------------------------------- records


def conv2d_add_shapes(x, w, bias, beside, stride, padding, dilation, groups, activation=None, kept=False):
    made = conv2d_shapes(x, w, bias, stride, padding, dilation, groups, activation)
    floats(x, beside)
    demand(beside.shape == made.shape, f"what is added to be of the output's shape, {made.shape}", beside.shape)
    return made


def conv2d_add_arrange(inputs, outputs, attributes, threads):
    made = conv2d_arrange(inputs, outputs, attributes, threads)
    return made._replace(scalars=(*made.scalars[:-1], joined((attributes["activation"] or LINEAR).f)))


def conv2d_add_grad(graph, node, dy):
    x, w, _, _ = node.inputs
    dz = through(graph, node, dy, CONV2D_ADD)
    return (input_gradient(graph, x, dz, w, node.attributes),
            weight_gradient(graph, x, dz, w.shape[:2], node.attributes), bias_gradient(graph, dz), dz)


def conv2d_add_samples(rng):
    from engine.kernels.activation import ACTIVATIONS
    for x, w, y, given in operands(rng):     # one activation: each is compiled anew
        yield (x, w, rng.standard_normal(w.shape[3]), y), {**given, "activation": ACTIVATIONS["tanh"]}
    # few tiles, whose weights another call would use again
    yield ((rng.standard_normal((1, 13, 14, 16)), rng.standard_normal((3, 3, 16, 48)), rng.standard_normal(48),
            rng.standard_normal((1, 13, 14, 48))),
           {"padding": (1, 1, 1, 1), "activation": ACTIVATIONS["tanh"], "kept": True})


CONV2D_ADD = Op("conv2d_add", conv2d_add_reference, conv2d_add_shapes, (add_weights, add_kernel),
                cuda.conv2d_residual_cuda, conv2d_add_samples, conv2d_add_arrange, conv2d_add_grad, CONV2D.terms,
                cost(1, 4), CONV2D.attributes, keeps=CONV2D.keeps)
OPS = (CONV2D_ADD,)
