"""Every op of TABLE on every target present: its reference, its gradient, untouched inputs, awkward sizes."""
import contextlib

import numpy as np
import pytest
from numba import config

from engine import target as targets
from engine.graph import Graph, gradients
from engine.kernels import TABLE
from engine.kernels.op import spec
from engine.runtime import Plan

TARGETS = [t for t in targets.TARGETS.values() if t.present()]
# Python and the CUDA simulator compute with NumPy's numbers, which warn where compiled code silently gives inf or NaN.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
# Kernels as Python are slow, the simulator's threads most of all; at all sizes and dtypes they run in the emulator.
LARGEST = 1000 if config.ENABLE_CUDASIM else 3000 if config.DISABLE_JIT else float("inf")
DTYPES = ["float32"] if config.ENABLE_CUDASIM else ["float32", "float64"]
EPSILON = {"float32": np.finfo(np.float32).eps, "float64": np.finfo(np.float64).eps}


def cast(array, dtype):
    array = np.asarray(array)
    return array.astype(dtype) if array.dtype.kind == "f" else array


def as_tuple(x):
    return x if isinstance(x, tuple) else (x,)


def samples(op):
    for number, (inputs, attributes) in enumerate(op.samples(np.random.default_rng(7))):
        if sum(np.asarray(a).size for a in inputs) <= LARGEST:
            yield number, inputs, op.complete(attributes)


def check(name, got, want, dtype, terms):
    """Tolerance from the length of the sum: each of `terms` roundings may add half an ulp of the largest value."""
    assert got.shape == want.shape, f"{name}: shape {got.shape}, reference {want.shape}"
    if want.dtype.kind in "iu":
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    finite = np.abs(want[np.isfinite(want)])
    scale = finite.max() if finite.size else 0
    relative = EPSILON[dtype] * (8 + 2 * terms)
    np.testing.assert_allclose(got, want, rtol=relative, atol=relative * min(scale, 1e3), err_msg=name)


def looking(target, wanted, inputs):
    """The emulator runs kernels plainly, or looks at every access meanwhile: in its array, aligned, written before it
    is read, and none unordered within or between blocks."""
    if target is targets.cuda_emulated and wanted and sum(a.size for a in inputs) <= 100_000:
        return target.checking(race=True)
    return contextlib.nullcontext()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", sorted(TABLE))
def test_op_agrees_with_its_reference(name, target, dtype):
    agrees_with_its_reference(name, target, dtype, "float32")


@pytest.mark.slow
@pytest.mark.skipif(not targets.cuda_emulated.present(), reason="the emulator is not here")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(TABLE))
def test_cuda_kernels_the_other_way_round(name, dtype):
    """float32 plainly, float64 with checks and race detection."""
    agrees_with_its_reference(name, targets.cuda_emulated, dtype, "float64")


def agrees_with_its_reference(name, target, dtype, looked_at):
    op = TABLE[name]
    count = 0
    for number, inputs, attributes in samples(op):
        given = [cast(a, dtype) for a in inputs]
        with np.errstate(all="ignore"):
            want = as_tuple(op.reference(*[cast(a, "float64") for a in given], **attributes))
        placed = [target.place(a) for a in given]
        kept = [a.copy() for a in given]
        with looking(target, dtype == looked_at, given):
            got = [target.fetch(a) for a in as_tuple(op(*placed, **attributes))]
        specs = op.infer(*map(spec, given), **attributes)
        assert len(got) == len(want) == len(specs)
        for place, (g, w) in enumerate(zip(got, want)):
            terms = op.terms(*given, **attributes)
            assert g.dtype == specs[place].dtype, f"{name} sample {number} output {place}: dtype {g.dtype}"
            check(f"{name} sample {number} output {place}", g, np.asarray(w), attributes.get("dtype", dtype), terms)
        for before, after in zip(kept, placed):
            np.testing.assert_array_equal(before, target.fetch(after), err_msg=f"{name} changed its input")
        count += 1
    assert count, f"{name}: no samples small enough to run here"


def numeric_gradient(op, inputs, attributes, weights, which):
    """Central differences of sum(weights * op(inputs)) by inputs[which], in float64."""
    def total(moved):
        outs = as_tuple(op.reference(*[moved if i == which else a for i, a in enumerate(inputs)], **attributes))
        return sum(float(np.sum(w * o)) for w, o in zip(weights, outs) if w is not None)
    x = inputs[which]
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        h = 1e-5 * max(1, abs(x[index]))
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        gradient[index] = (total(up) - total(down)) / (2 * h)
    return gradient


@pytest.mark.parametrize("name", sorted(n for n, op in TABLE.items() if op.grad))
def test_gradient_agrees_with_central_differences(name):
    op, rng, count = TABLE[name], np.random.default_rng(3), 0
    for number, inputs, attributes in samples(op):
        if sum(np.asarray(a).size for a in inputs) > 300 or not all(
                np.abs(a).max(initial=0) <= 50 for a in inputs if np.asarray(a).dtype.kind == "f"):
            continue
        inputs = [np.asarray(a) for a in inputs]
        with np.errstate(all="ignore"):
            if not all(np.isfinite(o).all() for o in as_tuple(op.reference(*inputs, **attributes))):
                continue
        g = Graph()
        values = [g.feed(f"in{i}", a.shape, a.dtype) for i, a in enumerate(inputs)]
        outs = as_tuple(g.add(op, *values, **attributes))
        floating = [o for i, o in enumerate(outs) if o.dtype.kind == "f" and i not in op.byproducts]
        weights = {o: rng.standard_normal(o.shape) for o in floating}
        seeds = {o: g.constant(w) for o, w in weights.items()}
        wrt = [v for v in values if v.dtype.kind == "f"]
        found = gradients(g, seeds, wrt)
        for v, gradient in zip(wrt, found):
            if gradient is not None:
                g.outputs[f"d{v.name}"] = gradient
        plan = Plan(g, targets.cpu)
        plan.run(**{v.name: a for v, a in zip(values, inputs)})
        for which, v in enumerate(values):
            if v in wrt and f"d{v.name}" in g.outputs:
                want = numeric_gradient(op, inputs, attributes, [weights.get(o) for o in outs], which)
                scale = np.abs(want).max(initial=1e-3)
                np.testing.assert_allclose(plan.fetch(f"d{v.name}"), want, rtol=2e-5, atol=2e-6 * max(scale, 1),
                                           err_msg=f"{name} sample {number} input {which}")
                count += 1
    assert count, f"{name}: no sample small enough"
