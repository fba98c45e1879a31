"""Convolutions over images, their gradients, and the transposed convolution; channels last.

Shapes: n batch, h w rows and columns of the image, c its channels, r s of the kernel, g groups, o output channels, p q
rows and columns of the output. x (n, h, w, c), weights (r, s, c / g, o), bias (o,), y (n, p, q, o):

    y[n, i, j, o] = f(bias[o] + sum over r, s, c of x[n, i sh - top + r dh, j sw - left + s dw, c] w[r, s, c, o])

with stride (sh, sw), padding by zeros (top, bottom, left, right) and dilation (dh, dw). With groups, output channels of
group k (o / g beside each other) see the input channels of group k; groups = c is a depthwise convolution (Dumoulin,
Visin 2016, A guide to convolution arithmetic). `kept` says that the next call has the same weights: a plan then keeps
what the kernels make of them.

| op | result | gradient |
|---|---|---|
| conv2d | f(conv(x, w) + bias) | both gradients below, and a sum; matmul for those of a 1x1 |
| conv2d_add | f(conv(x, w) + bias + beside), the end of a residual block (`add.py`) | as conv2d, and f's |
| conv2d_plain | conv(x, w), as batch normalisation wants it | both gradients |
| conv2d_input_gradient | dx of conv2d_plain, x of `shape` | conv2d_plain, conv2d_weight_gradient |
| conv2d_weight_gradient | dw of conv2d_plain, w of `kernel` (r, s) | conv2d_input_gradient, conv2d_plain |
| conv2d_transpose | f(dx + bias), x in place of dy, weights (r, s, o / g, c) | conv2d_plain, conv2d_weight_gradient |
"""
import math

from engine.kernels.activation import Activation
from engine.kernels.conv import cpu, cpu_weights, cuda
from engine.kernels.conv.blocking import (
    NEAR,
    SLOW,
    Blocking,
    pays_lines,
    pays_narrow,
    pays_winograd,
    pays_winograd_weights,
    plan_lines,
    plan_lines_back,
    plan_lines_weights,
    plan_narrow,
    plan_product,
    plan_weights,
    plan_winograd,
    plan_winograd_weights,
    tasks_for,
    turned_values,
)
from engine.kernels.conv.reference import (
    conv2d_reference,
    input_gradient_reference,
    output_of,
    plain_reference,
    transpose_reference,
    transposed_output,
    weight_gradient_reference,
)
from engine.kernels.conv.winograd import OUT
from engine.kernels.matmul import LINEAR, MATMUL
from engine.kernels.matmul import cpu as products
from engine.kernels.matmul.blocking import ceil
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats

# ------------------------------------------------------------------------------------------------------------- shapes


def check_numbers(stride, padding, dilation, groups):
    """Refuses attributes that no convolution has."""
    for name, given, count in (("stride", stride, 2), ("dilation", dilation, 2), ("padding", padding, 4)):
        least = 0 if name == "padding" else 1
        demand(isinstance(given, tuple) and len(given) == count
               and all(isinstance(v, int) and v >= least for v in given),
               f"{name}: {count} whole numbers of at least {least}", repr(given),
               "(top, bottom, left, right)" if name == "padding" else "(rows, columns)")
    demand(isinstance(groups, int) and groups >= 1, "groups: a whole number of at least 1", repr(groups))


def output_size(x, w, stride, padding, dilation, groups):
    """Shape of conv(x, w), for shapes x and w; refuses what does not fit."""
    demand(len(x) == 4 and len(w) == 4, "x of shape (n, h, w, c) and weights (r, s, c / groups, o)", f"{x} and {w}",
           "images have four axes, channels last")
    check_numbers(stride, padding, dilation, groups)
    demand(min(*w, x[3]) >= 1, "a kernel and channels that are not empty", f"weights {w}, x {x}")
    demand(w[2] * groups == x[3], f"x with {w[2] * groups} channels (c / groups = {w[2]}, groups = {groups})", x[3],
           "are channels the last axis?")
    demand(w[3] % groups == 0, f"output channels that {groups} groups can share", w[3])
    for axis, name in enumerate(("rows", "columns")):
        size = x[1 + axis] + padding[2 * axis] + padding[2 * axis + 1]
        reach = dilation[axis] * (w[axis] - 1) + 1
        demand(reach <= size, f"an image with padding of at least {reach} {name} (the kernel's reach)", size,
               "is the image too small for so many layers, or padding missing?")
    return (x[0], *output_of(x, w, stride, padding, dilation), w[3])


def plain_shapes(x, w, stride, padding, dilation, groups, kept=False):
    dtype = floats(x, w)
    return Spec(output_size(x.shape, w.shape, stride, padding, dilation, groups), dtype)


def conv2d_shapes(x, w, bias, stride, padding, dilation, groups, activation=None, kept=False):
    dtype = floats(x, w, bias)
    out = Spec(output_size(x.shape, w.shape, stride, padding, dilation, groups), dtype)
    check_bias(bias, out.shape[3], activation)
    return out


def check_bias(bias, channels, activation):
    demand(bias.shape == (channels,), f"bias of shape ({channels},)", bias.shape)
    demand(activation is None or isinstance(activation, Activation), "an Activation or None", repr(activation))


def input_gradient_shapes(dy, w, shape, stride, padding, dilation, groups):
    dtype = floats(dy, w)
    made = output_size(shape, w.shape, stride, padding, dilation, groups)
    demand(dy.shape == made, f"dy of shape {made}, as x of shape {shape} gives it", dy.shape)
    return Spec(tuple(shape), dtype)


def weight_gradient_shapes(x, dy, kernel, stride, padding, dilation, groups):
    dtype = floats(x, dy)
    demand(x.ndim == 4 and dy.ndim == 4, "x (n, h, w, c) and dy (n, p, q, o)", f"{x.shape} and {dy.shape}")
    check_numbers(stride, padding, dilation, groups)
    w = (*kernel, x.shape[3] // groups, dy.shape[3])
    made = output_size(x.shape, w, stride, padding, dilation, groups)
    demand(dy.shape == made, f"dy of shape {made}, as a kernel {kernel} gives it", dy.shape)
    return Spec(w, dtype)


def transpose_shapes(x, w, bias, stride, padding, output_padding, dilation, groups, activation=None):
    dtype = floats(x, w, bias)
    demand(x.ndim == 4 and w.ndim == 4, "x (n, h, w, c) and weights (r, s, o / groups, c)", f"{x.shape} and {w.shape}")
    check_numbers(stride, padding, dilation, groups)
    demand(x.shape[3] == w.shape[3], f"x with {w.shape[3]} channels", x.shape[3], "weights are (r, s, o / groups, c)")
    demand(isinstance(output_padding, tuple) and len(output_padding) == 2
           and all(isinstance(v, int) and 0 <= v < s for v, s in zip(output_padding, stride)),
           f"output_padding: two whole numbers, from 0 to below the stride {stride}", repr(output_padding))
    out = (*transposed_output(x.shape, w.shape, stride, padding, output_padding, dilation), w.shape[2] * groups)
    demand(min(out[1:]) >= 1, "an output that is not empty", out, "is there too much padding?")
    demand(min(x.shape[1:3]) >= 1, "an image that is not empty", x.shape)
    made = output_size(out, w.shape, stride, padding, dilation, groups)
    demand(made == x.shape, f"x of shape {made}", x.shape)
    check_bias(bias, out[3], activation)
    return Spec(out, dtype)


# ------------------------------------------------------------------------------------------------------ arrangements


def geometry(a):
    """The numbers that kernels of both targets get."""
    return (*a["stride"], a["padding"][0], a["padding"][2], *a["dilation"], a["groups"])


def is_deep(w, groups):
    """Depthwise: one input channel for each output channel, and more than one of them."""
    return w[2] == 1 and groups > 1


def is_matrix(image, kernel, output, a):
    """Whether the image's rows are those of the product as they lie."""
    return kernel == (1, 1) and a["stride"] == (1, 1) and image[1:3] == output[1:3] and a["padding"] == (0, 0, 0, 0)


def plan(m, n, k, image, w, output, a, back, dtype, threads):
    """(way, tasks, Specs of the last two work arrays, numbers) of a convolution: m pixels, n channels, k terms; `back`:
    of a gradient by the input."""
    groups, channels = a["groups"], image[3] // a["groups"]
    if is_deep(w, groups):
        tasks = tasks_for(SLOW * math.prod(output) * w[0] * w[1], threads)
        return cpu.DEPTHWISE, tasks, (Spec((0,), dtype), Spec((tasks * 128,), dtype)), Blocking(1, 1, 1, 0, 0, 1)
    if pays_winograd(w[:2], geometry(a), channels, n, output[0], output[1:3], dtype):
        return cpu.WINOGRAD, *plan_winograd(output[0] * -(-output[1] // 4) * -(-output[2] // 4), channels, n, dtype,
                                            threads)
    if pays_lines(w[:2], geometry(a), channels, n, dtype, "input" if back else "forward"):
        planned = plan_lines_back if back else plan_lines
        return cpu.LINES, *planned(w, geometry(a), image, output, dtype, threads)
    gather = not is_matrix(image, w[:2], output, a)
    return cpu.PRODUCT, *plan_product(m, n, k, gather, back and a["stride"] != (1, 1), back, dtype, threads, groups,
                                      a.get("kept", False))


def grains(way, y, tasks, numbers):
    """How many pieces of an output, whose Spec is given, so many tasks share; 0 where they share both sides."""
    images, p, q, channels = y.shape
    if way in (cpu.DEPTHWISE, cpu.LINES):
        return images * p
    if way == cpu.NARROW:
        return images
    if way == cpu.WINOGRAD and numbers.m_tasks == tasks:
        return images * ceil(p, OUT) * ceil(q, OUT)
    return products.grains(Spec((images * p * q, channels), y.dtype), tasks, numbers.m_tasks)


def conv2d_arrange(inputs, outputs, attributes, threads):
    x, w, y = inputs[0].shape, inputs[1].shape, outputs[0]
    way, tasks, work, numbers = plan(math.prod(y.shape[:3]), w[3] // attributes["groups"], math.prod(w[:3]), x, w,
                                     y.shape, attributes, False, y.dtype, threads)
    f = ((attributes["activation"] or LINEAR).f,) if "activation" in attributes else ()
    parts = cuda.parts_spec("forward", x, w, y.shape, attributes["groups"], attributes["stride"],
                            attributes["dilation"], y.dtype)
    return Arrangement(tuple(s.shape for s in inputs), (y.shape,), (*geometry(attributes), *f), work, (*numbers, way),
                       tasks, parts, grains(way, y, tasks, numbers))


def input_gradient_arrange(inputs, outputs, attributes, threads):
    dy, w, dx = inputs[0].shape, inputs[1].shape, outputs[0]
    (sh, sw), (dh, dw) = attributes["stride"], attributes["dilation"]
    f = ((attributes["activation"] or LINEAR).f,) if "activation" in attributes else ()
    # the largest phase has this many taps, the smallest this many pixels
    taps = -(-w[0] // (sh // math.gcd(sh, dh))) * -(-w[1] // (sw // math.gcd(sw, dw)))
    m = dx.shape[0] * (dx.shape[1] // sh) * (dx.shape[2] // sw)
    if pays_narrow(w[:2], geometry(attributes), w[2], w[3], dx.dtype):
        padded = ((dy[1] - 1) * sh + (w[0] - 1) * dh + 1) * ((dy[2] - 1) * sw + w[1]) * w[2]
        way, (tasks, work, numbers) = cpu.NARROW, plan_narrow(dy[0], math.prod(w[:3]), dy[1] * dy[2], padded, dx.dtype,
                                                              threads)
    else:
        way, tasks, work, numbers = plan(m, w[2], taps * w[3] // attributes["groups"], dy, w, dx.shape, attributes,
                                         True, dx.dtype, threads)
    work = Spec((turned_values(w, dx.dtype) if way in cpu.TURNING else 0,), dx.dtype), *work
    parts = cuda.parts_spec("input", dx.shape, w, dy, attributes["groups"], attributes["stride"],
                            attributes["dilation"], dx.dtype)
    return Arrangement(tuple(s.shape for s in inputs), (dx.shape,), (*geometry(attributes), *f), work, (*numbers, way),
                       tasks, parts, grains(way, dx, tasks, numbers))


def weight_gradient_arrange(inputs, outputs, attributes, threads):
    x, dy, dw = inputs[0].shape, inputs[1].shape, outputs[0]
    groups, pixels, k, pieces = attributes["groups"], math.prod(dy[:3]), dw.shape[2], 0
    if is_deep(dw.shape, groups):
        way, tasks, work = cpu.DEPTHWISE, tasks_for(pixels * dw.size, threads), (Spec((0,), dw.dtype),) * 2
        numbers = Blocking(1, 1, 1, 0, 0, 1)
    elif pays_winograd_weights(dw.shape[:2], geometry(attributes), k, dy[3], dy[0], dy[1:3], dw.dtype):
        way = cpu.WINOGRAD
        tiles = dy[0] * -(-dy[1] // 4) * -(-dy[2] // 4)
        tasks, work, numbers = plan_winograd_weights(tiles, k, dy[3], dw.dtype, threads)
    elif pays_lines(dw.shape[:2], geometry(attributes), k, dy[3], dw.dtype, "weights"):
        way, (tasks, work, numbers) = cpu.LINES, plan_lines_weights(dw.shape, geometry(attributes), x, dy, dw.dtype,
                                                                    threads)
    else:
        way = cpu.PRODUCT
        gather = not is_matrix(x, dw.shape[:2], dy, attributes) or x[3] * dw.dtype.itemsize > NEAR
        tasks, work, numbers = plan_weights(math.prod(dw.shape[:3]), dy[3] // groups, pixels, gather, dw.dtype, threads,
                                            groups)
        work = Spec((0,), dw.dtype), *work
        matrix = Spec((math.prod(dw.shape[:3]), dw.shape[3] // groups), dw.dtype)
        pieces = products.grains(matrix, tasks, numbers.m_tasks)
    parts = cuda.parts_spec("weights", x, dw.shape, dy, attributes["groups"], attributes["stride"],
                            attributes["dilation"], dw.dtype)
    return Arrangement(tuple(s.shape for s in inputs), (dw.shape,), geometry(attributes), work, (*numbers, way), tasks,
                       parts, pieces)


# ---------------------------------------------------------------------------------------------------------- gradients


def of(attributes, **more):
    """The attributes that an op shares with its gradients."""
    return {**{k: attributes[k] for k in ("stride", "padding", "dilation", "groups")}, **more}


def through(graph, node, dy, op):
    """The gradient in front of the op's activation."""
    a = node.attributes["activation"]
    if a is None:
        return dy
    if a.slope_of == "y":
        return graph.add(a.slope_op, dy, node.outputs[0])
    # y does not say where f was taken: compute that again
    return graph.add(a.slope_op, dy, graph.add(op, *node.inputs, **{**node.attributes, "activation": None}))


def bias_gradient(graph, dz):
    return graph.add("sum", as_matrix(graph, dz), axis=0)


def as_matrix(graph, value):
    """Pixels or taps and channels, as a matrix."""
    return graph.add("reshape", value, shape=(math.prod(value.shape[:3]), value.shape[3]))


def input_gradient(graph, x, dy, w, attributes):
    """dx; of a 1x1 convolution that is a plain product of matrices, as one: that reads weights as they lie."""
    if is_matrix(x.shape, w.shape[:2], dy.shape, attributes) and attributes["groups"] == 1:
        dx = graph.add(MATMUL, as_matrix(graph, dy), as_matrix(graph, w), transpose_b=True)
        return graph.add("reshape", dx, shape=x.shape)
    return graph.add(INPUT_GRADIENT, dy, w, **of(attributes, shape=x.shape))


def weight_gradient(graph, x, dy, kernel, attributes):
    """dw; of such a convolution, as a product too."""
    if is_matrix(x.shape, kernel, dy.shape, attributes) and attributes["groups"] == 1:
        dw = graph.add(MATMUL, as_matrix(graph, x), as_matrix(graph, dy), transpose_a=True)
        return graph.add("reshape", dw, shape=(1, 1, *dw.shape))
    return graph.add(WEIGHT_GRADIENT, x, dy, **of(attributes, kernel=kernel))


def plain_grad(graph, node, dy):
    x, w = node.inputs
    return (input_gradient(graph, x, dy, w, node.attributes),
            weight_gradient(graph, x, dy, w.shape[:2], node.attributes))


def conv2d_grad(graph, node, dy):
    x, w, _ = node.inputs
    dz = through(graph, node, dy, CONV2D)
    return (input_gradient(graph, x, dz, w, node.attributes),
            weight_gradient(graph, x, dz, w.shape[:2], node.attributes), bias_gradient(graph, dz))


def input_gradient_grad(graph, node, dx):
    dy, w = node.inputs
    return (graph.add(CONV2D_PLAIN, dx, w, **of(node.attributes)),
            graph.add(WEIGHT_GRADIENT, dx, dy, **of(node.attributes, kernel=w.shape[:2])))


def weight_gradient_grad(graph, node, dw):
    x, dy = node.inputs
    return (graph.add(INPUT_GRADIENT, dy, dw, **of(node.attributes, shape=x.shape)),
            graph.add(CONV2D_PLAIN, x, dw, **of(node.attributes)))


def transpose_grad(graph, node, dy):
    x, w, _ = node.inputs
    dz = through(graph, node, dy, CONV2D_TRANSPOSE)
    return (graph.add(CONV2D_PLAIN, dz, w, **of(node.attributes)),
            graph.add(WEIGHT_GRADIENT, dz, x, **of(node.attributes, kernel=w.shape[:2])), bias_gradient(graph, dz))


# ------------------------------------------------------------------------------------------------------------ samples

# x (n, h, w, c), kernel (r, s), o, and what is not the default
GEOMETRIES = (
    ((1, 1, 1, 1), (1, 1), 1, {}),
    ((0, 4, 4, 2), (3, 3), 3, {}),
    ((2, 5, 4, 3), (3, 2), 5, {"padding": (1, 1, 1, 0)}),
    ((1, 7, 6, 2), (3, 3), 3, {"stride": (2, 2), "padding": (1, 0, 0, 1)}),
    ((1, 6, 7, 1), (2, 1), 2, {"stride": (3, 2)}),
    ((1, 7, 8, 2), (2, 3), 3, {"dilation": (2, 3), "padding": (0, 2, 3, 1)}),
    ((1, 8, 7, 1), (3, 2), 2, {"dilation": (3, 2), "stride": (2, 2), "padding": (3, 3, 2, 2)}),
    ((1, 5, 5, 4), (3, 3), 6, {"groups": 2, "padding": (2, 2, 2, 2)}),
    ((2, 4, 5, 5), (3, 3), 5, {"groups": 5, "padding": (1, 1, 1, 1), "stride": (2, 1)}),
    ((1, 5, 4, 2), (2, 2), 6, {"groups": 2, "dilation": (2, 1)}),
    ((2, 3, 3, 7), (1, 1), 4, {}),
    ((1, 3, 4, 3), (1, 1), 2, {"stride": (2, 2)}),
    ((1, 2, 3, 2), (4, 5), 2, {"padding": (5, 1, 2, 6)}),
    ((2, 13, 9, 5), (3, 3), 37, {"padding": (1, 1, 1, 1)}),
    ((1, 9, 9, 70), (3, 3), 70, {"groups": 70, "padding": (1, 1, 1, 1)}),
    ((3, 9, 14, 19), (3, 3), 33, {"padding": (1, 1, 1, 1), "stride": (2, 2)}),
    ((2, 9, 8, 3), (3, 4), 9, {"stride": (2, 1), "padding": (2, 0, 1, 3)}),
    ((3, 16, 15, 16), (3, 3), 16, {"padding": (1, 1, 0, 2)}),
)


def operands(rng):
    """(x, w, dy, attributes) of each of GEOMETRIES."""
    for x, kernel, o, given in GEOMETRIES:
        a = {**DEFAULTS, **given}
        w = (*kernel, x[3] // a["groups"], o)
        y = (x[0], *output_of(x, w, a["stride"], a["padding"], a["dilation"]), o)
        yield rng.standard_normal(x), rng.standard_normal(w), rng.standard_normal(y), given


def conv2d_samples(rng):
    from engine.kernels.activation import ACTIVATIONS
    for x, w, _, given in operands(rng):     # one activation: each is compiled anew
        yield (x, w, rng.standard_normal(w.shape[3])), {**given, "activation": ACTIVATIONS["silu"]}
    # few tiles, whose weights another call would use again
    yield ((rng.standard_normal((1, 13, 14, 16)), rng.standard_normal((3, 3, 16, 48)), rng.standard_normal(48)),
           {"padding": (1, 1, 1, 1), "activation": ACTIVATIONS["silu"], "kept": True})


def transpose_samples(rng):
    from engine.kernels.activation import ACTIVATIONS
    for x, w, dy, given in operands(rng):
        a = {**DEFAULTS, **given}
        back = transposed_output(dy.shape, w.shape, a["stride"], a["padding"], (0, 0), a["dilation"])
        more = tuple(size - made for size, made in zip(x.shape[1:3], back[1:]))
        yield ((dy, w, rng.standard_normal(x.shape[3])),
               {**given, "output_padding": more, "activation": ACTIVATIONS["tanh"]})


def conv2d_terms(x, w, *rest, **attributes):
    return math.prod(w.shape[:3])


def input_gradient_terms(dy, w, *rest, groups=1, **attributes):
    return w.shape[0] * w.shape[1] * w.shape[3] // groups


def weight_gradient_terms(x, dy, **attributes):
    return math.prod(dy.shape[:3])


def cost(of_weights, of_output):
    """Two operations for each weight and pixel; which arrays these are differs."""
    def operations(inputs, outputs, attributes):
        arrays = (*inputs, *outputs)
        w, y = arrays[of_weights].shape, arrays[of_output].shape
        return Cost(2 * math.prod(w[:3]) * math.prod(y[:3]) * w[3], sum(a.nbytes for a in arrays))
    return operations


DEFAULTS = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
CONV2D = Op("conv2d", conv2d_reference, conv2d_shapes, cpu.CONV2D_PHASES, cuda.conv2d_cuda, conv2d_samples,
            conv2d_arrange, conv2d_grad, conv2d_terms, cost(1, 3), {**DEFAULTS, "activation": None, "kept": False},
            keeps=(1, 1))
CONV2D_PLAIN = Op("conv2d_plain", plain_reference, plain_shapes, cpu.CONV2D_PLAIN_PHASES, cuda.conv2d_plain_cuda,
                  lambda rng: (((x, w), given) for x, w, _, given in operands(rng)), conv2d_arrange, plain_grad,
                  conv2d_terms, cost(1, 2), {**DEFAULTS, "kept": False}, keeps=(1, 1))
INPUT_GRADIENT = Op("conv2d_input_gradient", input_gradient_reference, input_gradient_shapes,
                    cpu.INPUT_GRADIENT_PHASES, cuda.input_gradient_cuda,
                    lambda rng: (((dy, w), {**given, "shape": x.shape}) for x, w, dy, given in operands(rng)),
                    input_gradient_arrange, input_gradient_grad, input_gradient_terms, cost(1, 0),
                    {"shape": (), **DEFAULTS})
WEIGHT_GRADIENT = Op("conv2d_weight_gradient", weight_gradient_reference, weight_gradient_shapes,
                     cpu_weights.WEIGHT_GRADIENT_PHASES, cuda.weight_gradient_cuda,
                     lambda rng: (((x, dy), {**given, "kernel": w.shape[:2]}) for x, w, dy, given in operands(rng)),
                     weight_gradient_arrange, weight_gradient_grad, weight_gradient_terms, cost(2, 1),
                     {"kernel": (), **DEFAULTS})
CONV2D_TRANSPOSE = Op("conv2d_transpose", transpose_reference, transpose_shapes, cpu.TRANSPOSE_PHASES,
                      cuda.transpose_cuda, transpose_samples, input_gradient_arrange, transpose_grad,
                      input_gradient_terms, cost(1, 0),
                      {"stride": (1, 1), "padding": (0, 0, 0, 0), "output_padding": (0, 0), "dilation": (1, 1),
                       "groups": 1, "activation": None})
OPS = (CONV2D, CONV2D_PLAIN, INPUT_GRADIENT, WEIGHT_GRADIENT, CONV2D_TRANSPOSE)
