"""Convolutions on the CPU: values of random shapes in every way they are computed, the same bits for any number of
threads, refusals, the pass that takes an activation in, and PyTorch's results."""
import itertools

import numpy as np
import pytest
from numba import config
from shares import run_unequal

from engine import target as targets
from engine.errors import DtypeError, ShapeError
from engine.graph import Graph
from engine.graph.fuse_dense import fuse_dense
from engine.kernels import TABLE
from engine.kernels.activation import ACTIVATIONS
from engine.kernels.conv import cpu, output_of, transposed_output
from engine.kernels.entry import threads
from engine.kernels.op import spec
from engine.kernels.program import Program
from engine.runtime import Plan

try:
    import torch
except ImportError:
    torch = None

compiled = pytest.mark.skipif(config.DISABLE_JIT, reason="large")
LIMIT = {"float32": 1e-5, "float64": 1e-13}              # of the largest value


def random_case(rng, most=9):
    """(x shape, kernel, o, attributes) of a convolution that exists."""
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        x = (int(rng.integers(1, 4)), *map(int, rng.integers(1, most, 2)), groups * int(rng.integers(1, 5)))
        kernel, o = tuple(map(int, rng.integers(1, 5, 2))), groups * int(rng.integers(1, 7))
        a = {"stride": tuple(map(int, rng.integers(1, 4, 2))), "padding": tuple(map(int, rng.integers(0, 4, 4))),
             "dilation": tuple(map(int, rng.integers(1, 3, 2))), "groups": groups}
        if min(output_of(x, kernel, a["stride"], a["padding"], a["dilation"])) >= 1:
            return x, kernel, o, a


def arrays(x, kernel, o, a, dtype, seed=0):
    rng = np.random.default_rng(seed)
    y = (x[0], *output_of(x, kernel, a["stride"], a["padding"], a["dilation"]), o)
    shapes = x, (*kernel, x[3] // a["groups"], o), (o,), y
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def calls(x, w, bias, dy, a):
    """(op, inputs, attributes) of every op of the family on these arrays."""
    # the activations of the ops' samples: each is compiled anew
    yield "conv2d", (x, w, bias), {**a, "activation": ACTIVATIONS["silu"]}
    yield "conv2d_add", (x, w, bias, dy), {**a, "activation": ACTIVATIONS["tanh"]}
    yield "conv2d_plain", (x, w), a
    yield "conv2d_input_gradient", (dy, w), {**a, "shape": x.shape}
    yield "conv2d_weight_gradient", (x, dy), {**a, "kernel": w.shape[:2]}
    back = transposed_output(dy.shape, w.shape, a["stride"], a["padding"], (0, 0), a["dilation"])
    more = tuple(size - made for size, made in zip(x.shape[1:3], back[1:]))
    yield ("conv2d_transpose", (dy, w, np.resize(bias, x.shape[3])),
           {**a, "output_padding": more, "activation": ACTIVATIONS["tanh"]})


def right(op, inputs, attributes):
    """Within LIMIT of the largest sum; an activation whose slope is about 1 at most does not enlarge its error."""
    got, given = op(*inputs, **attributes), [v.astype("f8") for v in inputs]
    want = op.reference(*given, **op.complete(attributes))
    sums = op.reference(*given, **op.complete({k: v for k, v in attributes.items() if k != "activation"}))
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= LIMIT[got.dtype.name] * max(1, np.abs(sums).max(initial=0)), \
        (op, [v.shape for v in inputs], attributes)


@pytest.mark.parametrize("seed", range(3 if config.DISABLE_JIT else 40))
def test_random_shapes(seed):
    x, kernel, o, a = random_case(np.random.default_rng(seed))
    for name, inputs, attributes in calls(*arrays(x, kernel, o, a, "float32", seed), a):
        right(TABLE[name], inputs, attributes)


DEFAULTS = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
# one of each way: product with packed weights, 1x1 as a matrix, strided, depthwise, Winograd (with weights near and
# large ones, where tasks share channels or tiles), few channels, panels that are copied turned
LARGE = (((1, 23, 21, 130), (3, 3), 130, {}), ((2, 13, 14, 96), (1, 1), 70, {"padding": (0, 0, 0, 0)}),
         ((2, 25, 24, 33), (5, 3), 48, {"stride": (2, 2)}), ((2, 17, 19, 96), (3, 3), 96, {"groups": 96}),
         ((3, 17, 18, 32), (3, 3), 48, {}), ((8, 7, 7, 64), (3, 3), 32, {}), ((2, 7, 6, 112), (3, 3), 96, {}),
         ((1, 44, 41, 96), (3, 3), 112, {}), ((1, 40, 39, 3), (7, 7), 64, {}),
         ((5, 14, 13, 6), (5, 5), 16, {"padding": (0, 0, 0, 0)}), ((4, 13, 12, 3), (3, 3), 16, {}),
         ((3, 12, 12, 1), (5, 5), 6, {"padding": (2, 2, 2, 2)}),
         ((3, 17, 18, 66), (1, 1), 258, {"padding": (0, 0, 0, 0)}), ((2, 45, 44, 67), (3, 3), 258, {"stride": (2, 2)}))


@compiled
@pytest.mark.parametrize("case", LARGE, ids=lambda c: f"{c[0]} {c[1]} {c[2]}")
def test_the_same_bits_for_any_number_of_threads(case):
    x, kernel, o, given = case
    a, before = {**DEFAULTS, **given}, threads.get()
    made = list(calls(*arrays(x, kernel, o, a, "float32"), a))
    try:
        threads.set(1)
        for name, inputs, attributes in made:
            right(TABLE[name], inputs, attributes)
        alone = [TABLE[name](*inputs, **attributes) for name, inputs, attributes in made]
        threads.set(min(2, config.NUMBA_NUM_THREADS))
        for (name, inputs, attributes), one in zip(made, alone):
            np.testing.assert_array_equal(TABLE[name](*inputs, **attributes), one, err_msg=name)
    finally:
        threads.set(before)


@compiled
@pytest.mark.parametrize("tasks", [3, 7])
def test_the_same_bits_however_many_tasks(tasks, monkeypatch):
    """More tasks than this computer has threads; outputs and work start as garbage."""
    for x, kernel, o, given in LARGE:
        a = {**DEFAULTS, **given}
        for name, inputs, attributes in calls(*arrays(x, kernel, o, a, "float32"), a):
            op, program = TABLE[name], Program(targets.cpu)
            out = op.infer(*map(spec, inputs), **attributes)[0]
            y = np.full(out.shape, np.nan, out.dtype)
            with monkeypatch.context() as patch:
                patch.setattr(threads, "get", lambda: tasks)
                call = program.add(op, inputs, [y], op.complete(attributes))
            for scratch in call.scratch:
                scratch[...] = np.nan
            program.run()
            want = op(*inputs, **attributes)
            np.testing.assert_array_equal(y, want, err_msg=f"{name} {x} {kernel} {o}")
            for scratch in (y, *call.scratch):
                scratch[...] = np.nan
            run_unequal(program, tasks)
            np.testing.assert_array_equal(y, want, err_msg=f"unequal shares: {name} {x} {kernel} {o}")


def test_ways():
    """What goes by which way."""
    def way(x, kernel, o, **given):
        a = {**DEFAULTS, **given}
        x, w, bias, y = arrays(x, kernel, o, a, "float32")
        made = TABLE["conv2d_plain"].arrange([spec(x), spec(w)], [spec(y)], TABLE["conv2d_plain"].complete(a), 2)
        return made.blocking[-1]
    assert way((3, 17, 18, 32), (3, 3), 48) == cpu.WINOGRAD
    assert way((3, 17, 18, 32), (3, 3), 48, stride=(2, 2)) == cpu.LINES
    assert way((3, 17, 18, 32), (3, 3), 47) == cpu.LINES
    assert way((1, 7, 7, 32), (3, 3), 48) == cpu.LINES
    assert way((2, 7, 7, 32), (3, 3), 48) == cpu.WINOGRAD
    assert way((1, 7, 7, 32), (3, 3), 48, dilation=(1, 2)) == cpu.PRODUCT
    assert way((1, 7, 7, 256), (3, 3), 48) == cpu.PRODUCT
    assert way((3, 17, 18, 32), (3, 3), 32, groups=32) == cpu.DEPTHWISE
    assert way((3, 17, 18, 32), (3, 3), 64, groups=2) == cpu.PRODUCT


@compiled
@pytest.mark.parametrize("dtype,limit", [("float32", 5e-6), ("float64", 1e-14)])
def test_winograd_loses_little(dtype, limit):
    """The largest error, in parts of the largest output: many channels, values around one rather than zero."""
    rng = np.random.default_rng(0)
    x, w = 1 + rng.standard_normal((2, 20, 22, 256)), rng.standard_normal((3, 3, 256, 32))
    op, a = TABLE["conv2d_plain"], {"padding": (1, 1, 1, 1)}
    x, w = x.astype(dtype), w.astype(dtype)
    want = op.reference(x.astype("f8"), w.astype("f8"), **op.complete(a))
    assert np.abs(op(x, w, **a) - want).max() <= limit * np.abs(want).max()


REFUSED = [
    ({}, (1, 2, 2, 3), (4, 4, 3, 2), "the kernel's reach"),
    ({"dilation": (3, 1)}, (1, 5, 5, 3), (3, 3, 3, 2), "at least 7 rows"),
    ({}, (1, 5, 5, 3), (3, 3, 4, 2), "x with 4 channels"),
    ({"groups": 2}, (1, 5, 5, 4), (3, 3, 2, 3), "that 2 groups can share"),
    ({"stride": (0, 1)}, (1, 5, 5, 3), (3, 3, 3, 2), "stride: 2 whole numbers"),
    ({"stride": 2}, (1, 5, 5, 3), (3, 3, 3, 2), "stride: 2 whole numbers"),
    ({"padding": (1, 1)}, (1, 5, 5, 3), (3, 3, 3, 2), "top, bottom, left, right"),
    ({"padding": (1, 1, -1, 0)}, (1, 5, 5, 3), (3, 3, 3, 2), "padding: 4 whole numbers"),
    ({"dilation": (1, 0)}, (1, 5, 5, 3), (3, 3, 3, 2), "dilation"),
    ({"groups": 0}, (1, 5, 5, 3), (3, 3, 3, 2), "groups"),
    ({}, (5, 5, 3), (3, 3, 3, 2), "images have four axes"),
    ({}, (1, 5, 5, 3), (3, 0, 3, 2), "not empty"),
]


@pytest.mark.parametrize("attributes,x,w,said", REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_refusals(attributes, x, w, said):
    for name, more in (("conv2d_plain", ()), ("conv2d", (np.zeros(w[-1]),))):
        with pytest.raises(ShapeError, match=said):
            TABLE[name](np.zeros(x), np.zeros(w), *more, **attributes)


def test_refusals_of_gradients_and_transposed():
    x, w = np.zeros((1, 5, 5, 3)), np.zeros((3, 3, 3, 2))
    with pytest.raises(ShapeError, match="bias of shape"):
        TABLE["conv2d"](x, w, np.zeros(3))
    with pytest.raises(DtypeError, match="one dtype"):
        TABLE["conv2d_plain"](x, w.astype("f4"))
    with pytest.raises(ShapeError, match="dy of shape"):
        TABLE["conv2d_input_gradient"](np.zeros((1, 4, 3, 2)), w, shape=x.shape)
    with pytest.raises(ShapeError, match="dy of shape"):
        TABLE["conv2d_weight_gradient"](x, np.zeros((1, 4, 3, 2)), kernel=(3, 3))
    with pytest.raises(ShapeError, match="output_padding"):
        TABLE["conv2d_transpose"](np.zeros((1, 3, 3, 2)), w, np.zeros(3), output_padding=(1, 0))
    with pytest.raises(ShapeError, match="too much padding"):
        TABLE["conv2d_transpose"](np.zeros((1, 1, 1, 2)), w, np.zeros(3), padding=(2, 2, 2, 2))


@pytest.mark.parametrize("training,name,taken", [(True, "relu", True), (True, "silu", False), (False, "silu", True)])
def test_an_activation_is_taken_in(training, name, taken):
    rng, g = np.random.default_rng(0), Graph()
    x, w, b = rng.standard_normal((2, 5, 4, 3)), rng.standard_normal((3, 3, 3, 4)), rng.standard_normal(4)
    values = [g.feed(n, v.shape, v.dtype) for n, v in (("x", x), ("w", w), ("b", b))]
    g.outputs["y"] = g.add(ACTIVATIONS[name].op, g.add("conv2d", *values, padding=(1, 1, 1, 1)))
    fused = fuse_dense(g, training)
    assert [node.op.name for node in fused.nodes] == (["conv2d"] if taken else ["conv2d", name])
    if name != "silu" or not taken:          # compiled anew for each
        return
    plan = Plan(fused, targets.cpu)
    plan.run(x=x, w=w, b=b)
    want = ACTIVATIONS[name].reference(TABLE["conv2d"].reference(x, w, b, **TABLE["conv2d"].complete(
        {"padding": (1, 1, 1, 1)})))
    np.testing.assert_allclose(plan.fetch("y"), want, rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- PyTorch

ODD = [((2, 13, 9, 5), (3, 3), 7, {}), ((2, 16, 17, 16), (3, 3), 32, {"padding": (1, 1, 1, 1)}),
       ((4, 15, 15, 48), (3, 3), 16, {"padding": (2, 2, 0, 0)}), ((1, 31, 33, 3), (7, 7), 64, {"stride": (2, 2)}),
       ((2, 14, 14, 65), (1, 1), 33, {}), ((2, 15, 14, 33), (1, 1), 65, {"stride": (2, 2)}),
       ((2, 28, 28, 1), (5, 5), 6, {"padding": (2, 2, 2, 2)}), ((3, 11, 12, 24), (3, 5), 24, {"groups": 24}),
       ((2, 12, 11, 12), (3, 3), 18, {"groups": 3, "dilation": (2, 1)}), ((2, 9, 9, 8), (3, 3), 16, {"groups": 8}),
       ((1, 12, 19, 6), (2, 3), 10, {"stride": (3, 2), "dilation": (2, 2), "padding": (3, 3, 1, 1)})]


@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("dtype,limit", [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("case", ODD, ids=lambda c: f"{c[0]} {c[1]} {c[2]}")
def test_pytorchs_outputs_and_gradients(case, dtype, limit):
    x, kernel, o, given = case
    a = {**DEFAULTS, "padding": (0, 0, 0, 0), **given}
    x, w, bias, dy = arrays(x, kernel, o, a, dtype)
    pad = a["padding"][0], a["padding"][2]
    theirs = [torch.from_numpy(v).requires_grad_() for v in
              (x.transpose(0, 3, 1, 2).copy(), w.transpose(3, 2, 0, 1).copy(), bias)]
    y = torch.nn.functional.conv2d(*theirs, a["stride"], pad, a["dilation"], a["groups"])
    y.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).copy()))
    back = torch.nn.functional.conv_transpose2d(torch.from_numpy(dy.transpose(0, 3, 1, 2).copy()), theirs[1], None,
                                                a["stride"], pad, 0, a["groups"], a["dilation"])
    g = Graph()
    values = [g.feed(n, v.shape, v.dtype) for n, v in (("x", x), ("w", w), ("b", bias), ("dy", dy))]
    g.outputs["y"] = g.add("conv2d", *values[:3], **a)
    for name, found in zip(("dx", "dw", "db"), TABLE["conv2d"].grad(g, g.nodes[-1], values[3])):
        g.outputs[name] = found
    g.outputs["t"] = g.add("conv2d_transpose", values[3], values[1], g.constant(np.zeros(x.shape[3], dtype)), **a)
    plan = Plan(g, targets.cpu)
    plan.run(x=x, w=w, b=bias, dy=dy)
    wanted = {"y": y.detach().permute(0, 2, 3, 1), "dx": theirs[0].grad.permute(0, 2, 3, 1),
              "dw": theirs[1].grad.permute(2, 3, 1, 0), "db": theirs[2].grad, "t": back.detach().permute(0, 2, 3, 1)}
    for name, want in wanted.items():
        got, want = plan.fetch(name), want.numpy()
        assert got.shape == want.shape, name
        assert np.abs(got - want).max() <= limit * np.abs(want).max(), name


@pytest.mark.torch
@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_pytorchs_transposed_convolution_with_output_padding():
    rng = np.random.default_rng(0)
    for stride, more in itertools.product((2, 3), (0, 1)):
        x, w, bias = rng.standard_normal((2, 5, 6, 4)), rng.standard_normal((3, 2, 3, 4)), rng.standard_normal(3)
        got = TABLE["conv2d_transpose"](x, w, bias, stride=(stride, stride), padding=(1, 1, 0, 0),
                                        output_padding=(more, more))
        want = torch.nn.functional.conv_transpose2d(
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(w.transpose(3, 2, 0, 1).copy()),
            torch.from_numpy(bias), stride, (1, 0), more)
        np.testing.assert_allclose(got, want.permute(0, 2, 3, 1).numpy(), rtol=1e-9, atol=1e-9)
