"""Arithmetic value by value: one input with numbers, y = f(x, p, q), or two inputs with broadcasting, z = f(x, y).

| op | z | gradients |
|---|---|---|
| add, sub, mul, div | a + b, a - b, a b, a / b | |
| minimum, maximum | the smaller, the larger; NaN if one is NaN | to the chosen input; where a = b, to a |
| neg, abs, square, reciprocal, exp, log, sqrt | -x, absolute x, x^2, 1/x, e^x, ln x, x^(1/2) | abs has slope 0 at 0 |
| power | x^exponent, the exponent a constant | |
| clip | x between low and high; NaN stays | 1 from low to high, both included, else 0 |
| scale | factor x + offset | |
| identity | x | |

Broadcasting is NumPy's. A broadcast call is seen as four axes: neighbouring axes along which the same inputs are
repeated are one axis. So equal shapes are one line, and a row (c,) on (n, c) is n lines of c.

An op with one input is made by `unary`, one with two by `binary`, from formulas:

>>> log_ratio = binary("log_ratio", lambda a, b: math.log(a / b), lambda a, b: 1 / a, lambda a, b: -1 / b,
...                    lambda a, b: np.log(a / b))
"""
import math

import numpy as np

from engine.kernels.activation import (
    map_cpu,
    map_cuda,
    map_shapes,
    scale_by_slope_cpu,
    scale_by_slope_cuda,
    slope_shapes,
    times_slope,
)
from engine.kernels.elementwise.cpu import copy_cpu, map_with_cpu, scale_by_slope_with_cpu, zip_cpu, zip_slope_cpu
from engine.kernels.elementwise.cuda import map_with_cuda, scale_by_slope_with_cuda, zip_cuda, zip_slope_cuda
from engine.kernels.formula import Formula
from engine.kernels.op import Arrangement, Op, demand, flat, floats, share, spec
from engine.kernels.stream import flat_streaming, streaming

AXES = 4                                     # of a broadcast call, after neighbours have been joined

# ------------------------------------------------------------------------------------------------------------ formulas


def sign_at(x):
    return 1 if x > 0 else -1 if x < 0 else 0


def smaller(a, b):
    # whatever is compared with NaN is False: b when b is NaN, and the second test keeps an a that is NaN
    return a if a < b or a != a else b


def larger(a, b):
    return a if a > b or a != a else b


def clip_at(x, low, high):
    return low if x < low else high if x > high else x


def scale_at(x, factor, offset):
    return factor * x + offset


def power_at(x, exponent, _):
    return math.pow(x, exponent)


def power_slope(x, exponent, _):
    return 0 if exponent == 0 else exponent * math.pow(x, exponent - 1)


# pow takes twenty times the time of a product: exponents with a shorter formula have their own (f, slope)
POWERS = {
    -1.0: (lambda x, p, _: 1 / x, lambda x, p, _: -1 / (x * x)),
    0.5: (lambda x, p, _: math.sqrt(x), lambda x, p, _: 0.5 / math.sqrt(x)),
    2.0: (lambda x, p, _: x * x, lambda x, p, _: 2 * x),
}
POWERS = {p: (Formula(f, "power"), Formula(slope, "power_slope")) for p, (f, slope) in POWERS.items()}
POWER = Formula(power_at), Formula(power_slope)

# ----------------------------------------------------------------------------------------------------- NumPy reference


def by_value(formula):
    """A formula as a NumPy function of arrays, value by value."""
    return np.vectorize(formula.python, otypes=[np.float64])


def clip_grad_reference(dy, x, low, high):
    return dy * ((x >= low) & (x <= high))


def power_grad_reference(dy, x, exponent):
    return dy * (exponent * np.power(x, exponent - 1) if exponent else 0.0)


# -------------------------------------------------------------------------------------------- shapes and arrangements


def broadcast(a, b):
    """The shape of a and b together; None where they do not fit."""
    ndim = max(len(a), len(b))
    a, b = (1,) * (ndim - len(a)) + tuple(a), (1,) * (ndim - len(b)) + tuple(b)
    if any(x != y and x != 1 and y != 1 for x, y in zip(a, b)):
        return None
    return tuple(y if x == 1 else x for x, y in zip(a, b))


def joined(a, b):
    """Axes of a broadcast call as a list of (size, size of a, size of b), neighbours of one kind joined."""
    shape = broadcast(a, b)
    groups = []
    for place, size in enumerate(shape, -len(shape)):
        if size == 1:
            continue
        x, y = (s[place] if -place <= len(s) else 1 for s in (a, b))
        if groups and (groups[-1][1] == 1) == (x == 1) and (groups[-1][2] == 1) == (y == 1):
            groups[-1] = tuple(g * s for g, s in zip(groups[-1], (size, x, y)))
        else:
            groups.append((size, x, y))
    return groups


def zip_shapes(a, b):
    dtype = floats(a, b)
    shape = broadcast(a.shape, b.shape)
    demand(shape is not None, "shapes that broadcast (sizes, from the last, equal or 1)", f"{a.shape} and {b.shape}",
           "a size of 1 can be put in with reshape")
    demand(len(joined(a.shape, b.shape)) <= AXES, f"at most {AXES} groups of axes that are repeated alike",
           f"{a.shape} and {b.shape}", "broadcast_to one of them first")
    return type(a)(shape, dtype)


def zip_slope_shapes(dy, a, b):
    floats(dy, a, b)
    shape = zip_shapes(a, b).shape
    demand(dy.shape == shape, f"dy of the shape of the output, {shape}", dy.shape)
    return spec(dy)


def zip_table(a, b):
    """Sizes of the four axes of a broadcast call, the steps along them in a and in b (0 where it is repeated)."""
    groups = joined(a.shape, b.shape)
    groups = [(1, 1, 1)] * (AXES - len(groups)) + groups
    table = [size for size, _, _ in groups]
    for which in (1, 2):
        sizes = [g[which] for g in groups]
        table += [math.prod(sizes[k + 1:]) if sizes[k] > 1 else 0 for k in range(AXES)]
    return tuple(table)


def arrange_zip(f):
    """Arrangement of `zip_cpu` with this formula, and of `zip_slope_cpu` when there are three inputs."""
    def arrange(inputs, outputs, attributes, threads):
        made = Arrangement(tuple((s.size,) for s in inputs), ((outputs[0].size,),), (f, *zip_table(*inputs[-2:])),
                           tasks=share(outputs[0].size, threads))
        return streaming(made, inputs, outputs)
    return arrange


def arrange_formula(f):
    """Arrangement of a map with this formula."""
    return lambda inputs, outputs, attributes, threads: flat_streaming(inputs, outputs, {"f": f}, threads)


def own_formula(f):
    """The `formula` of an op without numbers."""
    return lambda attributes: (f, ())


def arrange_map(f):
    """Arrangement of a map whose formula takes the op's attributes (two numbers)."""
    def arrange(inputs, outputs, attributes, threads):
        p, q = attributes.values()
        return flat_streaming(inputs, outputs, {"f": f, "p": float(p), "q": float(q)}, threads)
    return arrange


def with_numbers(f):
    """The `formula` of an op whose formula takes its attributes (two numbers)."""
    return lambda attributes: (f, tuple(attributes.values()))


def times_slope_with(slope):
    """The formula dy * slope(x, p, q)."""
    return Formula(lambda dy, x, p, q: dy * slope(x, p, q), f"times_{slope.name}")


def power_formula(which, change=lambda f: f):
    """The `formula` of power (0) and of its gradient (1)."""
    made = {p: change(f[which]) for p, f in {**POWERS, None: POWER}.items()}

    def formula(attributes):
        p = float(attributes["exponent"])
        return made.get(p, made[None]), (p, 0.0)
    return formula


def arrange_power(which):
    def arrange(inputs, outputs, attributes, threads):
        p = float(attributes["exponent"])
        return flat_streaming(inputs, outputs, {"f": POWERS.get(p, POWER)[which], "p": p, "q": 0.0}, threads)
    return arrange


# ------------------------------------------------------------------------------------------------------------- samples

SHAPES = ((0,), (1,), (7,), (3, 5), (33, 17))
PAIRS = (((), ()), ((7,), (7,)), ((33, 17), (33, 17)), ((5, 7), (7,)), ((7,), (5, 7)), ((5, 7), (5, 1)), ((9,), ()),
         ((0, 3), (3,)), ((0, 1), (0, 3)), ((3, 1), (1, 5)), ((2, 3, 4), (3, 1)), ((1, 3, 1, 2), (4, 1, 5, 1)),
         ((2, 1, 1), (1, 1)))


def around(rng, shape, low=0.0):
    """Numbers of both signs whose size is at least `low`."""
    x = np.asarray(rng.standard_normal(shape))
    return x + np.copysign(low, x)


def unary_samples(transform=lambda x: x, extremes=(-1e15, -1e-15, 1e-15, 1e15)):
    """samples(rng) of one input; `transform` moves the numbers into the domain."""
    def samples(rng):
        for shape in SHAPES:
            yield (transform(around(rng, shape, 0.1)),), {}
        yield (np.array([*extremes, math.inf]),), {}
    return samples


def binary_samples(rng):
    for a, b in PAIRS:
        yield (around(rng, a, 0.3), around(rng, b, 0.3)), {}
    yield (np.array([-1e15, 1e15, math.inf, 3.0, 60.0]), np.array([1e15, 1e-15, 2.0, -math.inf, 60.0])), {}


# ------------------------------------------------------------------------------------------------------------- records


def unary(name, f, slope, reference, slope_of="x", samples=None):
    """The records of y = f(x): its op and, if it needs one, the op of its gradient `<name>_grad`, to be put into TABLE.

    f           f(x) as a scalar Python function, which is compiled for both targets
    slope       the derivative as a function of x, or (slope_of="y") of y; or what needs no op of its own: a number
                where it is constant, or an op and its inputs: ("div", "x") says dx = div(dy, x)
    reference   f in NumPy, for tests
    samples     samples(rng) -> iterable of ((x,), {}), where f is not defined everywhere
    """
    samples, gradient = samples or unary_samples(), None
    if callable(slope):
        gradient = _unary_gradient(name, Formula(slope, f"{name}_slope"), reference, slope_of, samples)
        slope = gradient, slope_of

    def grad(graph, node, dy):
        return (flow(graph, dy, slope, {"x": node.inputs[0], "y": node.outputs[0]}),)

    f = Formula(f, name)
    op = Op(name, reference, map_shapes, map_cpu, map_cuda, samples, arrange_formula(f), grad, inplace={0: 0},
            formula=own_formula(f))
    return (op, gradient) if gradient else (op,)


def _unary_gradient(name, slope, reference, slope_of, samples):
    def slope_samples(rng):
        for (x,), _ in samples(rng):
            at = x if slope_of == "x" else reference(x)
            yield (rng.standard_normal(x.shape), np.where(np.isfinite(at), at, 1.0)), {}

    return Op(f"{name}_grad", lambda dy, at: dy * (by_value(slope)(at) if at.size else at), slope_shapes,
              scale_by_slope_cpu, scale_by_slope_cuda, slope_samples, arrange_formula(slope), inplace={0: 0},
              formula=own_formula(times_slope(slope)))


def binary(name, f, slope_a, slope_b, reference, samples=binary_samples):
    """The records of z = f(a, b) with broadcasting: its op and the ops of its gradients `<name>_grad_a` and
    `<name>_grad_b`, as far as it needs them, to be put into TABLE.

    f           f(a, b) as a scalar Python function, which is compiled for both targets
    slope_a     df/da as a function of (a, b); or what needs no op of its own: a number where it is constant, or an op
                and its inputs: ("mul", "b") says da = mul(dz, b); slope_b likewise
    reference   f in NumPy, for tests
    """
    slopes, ops = [], []
    for side, slope in (("a", slope_a), ("b", slope_b)):
        if callable(slope):
            ops.append(_binary_gradient(f"{name}_grad_{side}", Formula(slope, f"{name}_slope_{side}"), samples))
            slope = ops[-1], "a", "b"
        slopes.append(slope)

    def grad(graph, node, dz):
        inputs = dict(zip("ab", node.inputs))
        return [sum_to_input(graph, flow(graph, dz, slope, inputs), value) for value, slope in zip(node.inputs, slopes)]

    f = Formula(f, name)
    return Op(name, reference, zip_shapes, zip_cpu, zip_cuda, samples, arrange_zip(f), grad, inplace={0: 0},
              formula=own_formula(f)), *ops


def _binary_gradient(name, slope, samples):
    def slope_samples(rng):
        for (a, b), _ in samples(rng):
            if np.isfinite(a).all() and np.isfinite(b).all():
                yield (rng.standard_normal(broadcast(a.shape, b.shape)), a, b), {}

    return Op(name, lambda dz, a, b: dz * (by_value(slope)(a, b) if dz.size else 1.0), zip_slope_shapes, zip_slope_cpu,
              zip_slope_cuda, slope_samples, arrange_zip(slope), inplace={0: 0},
              formula=own_formula(Formula(lambda dz, a, b: dz * slope(a, b), f"times_{slope.name}")))


def flow(graph, gradient, slope, values):
    """The gradient times the slope: a number, or an op and the names of what it takes besides the gradient."""
    if isinstance(slope, tuple):
        return graph.add(slope[0], gradient, *(values[v] for v in slope[1:]))
    return gradient if slope == 1 else graph.add("scale", gradient, factor=float(slope))


def sum_to_input(graph, gradient, value):
    """The gradient of an input that was repeated: the sum over the axes along which it was."""
    return gradient if gradient.shape == value.shape else graph.add("sum_to", gradient, shape=value.shape)


def clip_shapes(x, low, high):
    floats(x)
    demand(low <= high, "low at most high", f"low={low}, high={high}")
    return spec(x)


def clip_grad_shapes(dy, x, low, high):
    slope_shapes(dy, x)
    return clip_shapes(x, low, high)


def number_shapes(x, **numbers):
    floats(x)
    return spec(x)


def with_dy(samples):
    """The samples of a gradient's op from those of the op."""
    def gradient_samples(rng):
        for (x,), attributes in samples(rng):
            if np.isfinite(x).all():
                yield (rng.standard_normal(x.shape), x), attributes
    return gradient_samples


def clip_samples(rng):
    for (x,), _ in unary_samples()(rng):
        yield (x,), {"low": -0.5, "high": 0.7}
    yield (np.array([-1.0, -0.5, 0.7, 80.0]),), {"low": -0.5, "high": 0.7}
    yield (np.array([-1.0, 1.0]),), {"high": 0}


def scale_samples(rng):
    for (x,), _ in unary_samples()(rng):
        yield (x,), {"factor": -1.5, "offset": 0.25}
    yield (rng.standard_normal(3),), {"factor": 2}


def power_samples(rng):
    for exponent in (-1, 0, 0.5, 2, 3, 1.7, -2.0):
        x = 0.2 + np.abs(rng.standard_normal(7))
        yield (x if exponent % 1 else x * [1, -1, 1, 1, -1, -1, 1],), {"exponent": exponent}
    yield (rng.standard_normal(0),), {"exponent": 1.7}


def _clip_gradient(graph, node, dy):
    return (graph.add(CLIP_GRAD, dy, node.inputs[0], **node.attributes),)


def _power_gradient(graph, node, dy):
    return (graph.add(POWER_GRAD, dy, node.inputs[0], **node.attributes),)


def _scale_gradient(graph, node, dy):
    return (graph.add("scale", dy, factor=node.attributes["factor"]),)


def _identity_samples(rng):
    for shape in ((), *SHAPES):
        yield (np.asarray(rng.standard_normal(shape)),), {}
    yield (np.arange(5),), {}


CLIP, SCALE, IDENTITY = Formula(clip_at, "clip"), Formula(scale_at, "scale"), Formula(lambda x: x, "identity")
CLIP_SLOPE = Formula(lambda x, low, high: 1 if low <= x <= high else 0, "clip_slope")
LIMITS = {"low": -math.inf, "high": math.inf}

CLIP_GRAD = Op("clip_grad", clip_grad_reference, clip_grad_shapes, scale_by_slope_with_cpu, scale_by_slope_with_cuda,
               with_dy(clip_samples), arrange_map(CLIP_SLOPE), attributes=LIMITS, inplace={0: 0},
               formula=with_numbers(times_slope_with(CLIP_SLOPE)))
POWER_GRAD = Op("power_grad", power_grad_reference, lambda dy, x, exponent: slope_shapes(dy, x),
                scale_by_slope_with_cpu, scale_by_slope_with_cuda, with_dy(power_samples), arrange_power(1),
                attributes={"exponent": 1.0}, inplace={0: 0}, formula=power_formula(1, times_slope_with))

OPS = (
    *binary("add", lambda a, b: a + b, 1, 1, np.add),
    *binary("sub", lambda a, b: a - b, 1, -1, np.subtract),
    *binary("mul", lambda a, b: a * b, ("mul", "b"), ("mul", "a"), np.multiply),
    *binary("div", lambda a, b: a / b, ("div", "b"), lambda a, b: -a / (b * b), np.divide),
    *binary("maximum", larger, lambda a, b: 1 if a >= b else 0, lambda a, b: 0 if a >= b else 1, np.maximum),
    *binary("minimum", smaller, ("maximum_grad_a", "b", "a"), ("maximum_grad_b", "b", "a"), np.minimum),
    *unary("neg", lambda x: -x, -1, np.negative),
    *unary("abs", lambda x: abs(x), sign_at, np.abs),
    *unary("square", lambda x: x * x, lambda x: 2 * x, np.square),
    *unary("reciprocal", lambda x: 1 / x, lambda y: -y * y, np.reciprocal, "y"),
    *unary("exp", lambda x: math.exp(x), ("mul", "y"), np.exp, samples=unary_samples(extremes=(-1e15, -80.0, 85.0))),
    *unary("log", lambda x: math.log(x), ("div", "x"), np.log, samples=unary_samples(np.abs, (0.0, 1e-30, 1e15))),
    *unary("sqrt", lambda x: math.sqrt(x), lambda y: 0.5 / y, np.sqrt, "y", unary_samples(np.abs, (1e-30, 1.0, 1e15))),
    Op("power", lambda x, exponent: np.power(x, exponent), number_shapes, map_with_cpu, map_with_cuda, power_samples,
       arrange_power(0), _power_gradient, attributes={"exponent": 1.0}, inplace={0: 0}, formula=power_formula(0)),
    POWER_GRAD,
    Op("clip", lambda x, low, high: np.clip(x, low, high), clip_shapes, map_with_cpu, map_with_cuda, clip_samples,
       arrange_map(CLIP), _clip_gradient, attributes=LIMITS, inplace={0: 0}, formula=with_numbers(CLIP)),
    CLIP_GRAD,
    Op("scale", scale_at, number_shapes, map_with_cpu, map_with_cuda, scale_samples, arrange_map(SCALE),
       _scale_gradient, attributes={"factor": 1.0, "offset": 0.0}, inplace={0: 0}, formula=with_numbers(SCALE)),
    Op("identity", np.copy, lambda x: spec(x), copy_cpu, map_cuda, _identity_samples,
       lambda inputs, outputs, attributes, threads: flat(inputs, outputs, {"f": IDENTITY}, threads),
       lambda graph, node, dy: (dy,), views={0: 0}),
)
