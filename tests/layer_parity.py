"""One layer against PyTorch: outputs, and gradients by the input and the weights."""
import numpy as np

rng = np.random.default_rng(21)


def run_layer(layer, x, weights, training=True, seed=None):
    """({"y", "dx", "d<weight>"}, dy) of a layer on x, dy random; the weights (a dict of arrays) may be changed."""
    from engine import target
    from engine.graph import Graph, gradients
    from engine.layers.layer import Context
    from engine.runtime import Plan
    g = Graph()
    given = g.feed("x", x.shape, x.dtype)
    values = {name: g.parameter(name, a.shape, a.dtype) for name, a in weights.items()}
    y = layer.nodes(g, given, values, Context(training))
    assert y.shape == (len(x), *layer.output_shape(x.shape[1:]))
    dtype = x.dtype if x.dtype.kind == "f" else y.dtype
    dy = (rng if seed is None else np.random.default_rng(seed)).standard_normal(y.shape).astype(dtype)
    g.outputs["y"] = y
    wrt = [v for v in (given, *values.values()) if v.dtype.kind == "f"]
    for v, gradient in zip(wrt, gradients(g, {y: g.constant(dy)}, wrt)):
        if gradient is not None:
            g.outputs[f"d{v.name}"] = gradient
    plan = Plan(g, target.cpu, weights)
    plan.run(x=x)
    return {name: plan.fetch(name) for name in g.outputs}, dy


def against_torch(layer, theirs, shape, dtype, x=None, weights=None, channels_first=True, training=True):
    """`theirs` is a function of tensors: x (with the channels first) and the weights by name."""
    import torch
    x = np.asarray(rng.standard_normal(shape) if x is None else x, dtype)
    weights = {name: np.asarray(a, dtype) for name, a in (weights or {}).items()}

    def turned(a, back=False):
        if not channels_first:
            return a
        return np.moveaxis(a, 1, -1) if back else np.moveaxis(a, -1, 1)
    first = torch.tensor(np.ascontiguousarray(turned(x)), requires_grad=True)
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in weights.items()}
    found, dy = run_layer(layer, x, weights, training)
    want = theirs(first, **tensors)
    want.backward(torch.tensor(np.ascontiguousarray(turned(dy))))
    expected = {"y": turned(want.detach().numpy(), True), "dx": turned(first.grad.numpy(), True)}
    expected.update((f"d{name}", t.grad.numpy()) for name, t in tensors.items() if t.grad is not None)
    for name, value in expected.items():
        limit = (1e-9 if dtype == "float64" else 1e-4) * max(np.abs(value).max(initial=0), 1e-30)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=limit, err_msg=name)
