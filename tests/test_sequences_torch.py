"""Recurrent layers and attention give PyTorch's outputs and gradients from the same weights, over odd shapes."""
import numpy as np
import pytest
from test_sequences import outputs_and_gradients

from engine import GRU, LSTM, Bidirectional, MultiHeadAttention, SimpleRNN
from engine import target as targets
from engine.graph import Graph, gradients
from engine.runtime import Plan

try:
    import torch
except ImportError:
    torch = None

pytestmark = [pytest.mark.torch, pytest.mark.skipif(torch is None, reason="torch is not installed")]
CLOSE = {"float32": 1e-4, "float64": 1e-9}
DTYPES = list(CLOSE)


def close(got, want, dtype, what, largest=0.0):
    """Differences are measured by the largest value, or by `largest`, where all are zero but for rounding."""
    want = want.detach().numpy() if hasattr(want, "detach") else want
    largest = max(largest, np.abs(want).max(initial=0))
    np.testing.assert_allclose(got, want, rtol=0, atol=CLOSE[dtype] * largest, err_msg=what)


def compare(layer, theirs, x, weights, their_gradients, dtype, of_output=lambda y: y[0], call=None):
    """Our layer and theirs on x, gradients of a random weighting of y."""
    t = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    y = of_output((call or theirs)(t))
    dy = np.random.default_rng(1).standard_normal(tuple(y.shape))
    y.backward(torch.tensor(dy, dtype=y.dtype))
    ours, dx, found = outputs_and_gradients(layer, x.astype(dtype), weights, dy)
    close(ours, y, dtype, "y")
    close(dx, t.grad, dtype, "dx")
    for name, want in their_gradients(theirs).items():   # a bias of all keys, for one, changes no weight
        close(found[name], want, dtype, name, np.abs(dx).max())


def numbers(tensor):
    return tensor.detach().numpy()


def recurrent_weights(module, suffix="", pick=lambda p: p):
    """Our weights (or, with pick, their gradients) from a torch recurrent module of one layer."""
    kernel, recurrent, bias, second = (numbers(pick(getattr(module, f"{k}_l0{suffix}"))) for k in (
        "weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    found = {"kernel": kernel.T.copy(), "recurrent_kernel": recurrent.T.copy(), "bias": bias.copy()}
    h = recurrent.shape[1]
    if isinstance(module, torch.nn.GRU):
        found["recurrent_bias"] = second[2 * h:].copy()
        if pick(module.weight_ih_l0) is module.weight_ih_l0:
            found["bias"][:2 * h] += second[:2 * h]
    elif pick(module.weight_ih_l0) is module.weight_ih_l0:
        found["bias"] = bias + second
    return found


def gradients_of(module, suffix=""):
    return recurrent_weights(module, suffix, lambda p: p.grad)


FAMILIES = {"LSTM": (LSTM, {}, {}), "GRU": (GRU, {}, {}), "tanh": (SimpleRNN, {}, {}),
            "relu": (SimpleRNN, {"activation": "relu"}, {"nonlinearity": "relu"})}


# of relu the formula alone differs: one dtype is enough
@pytest.mark.parametrize("name,dtype", [(name, dtype) for name in FAMILIES for dtype in DTYPES][:-2] + [
    ("relu", "float64")])
def test_recurrent_layers(name, dtype):
    ours, given, theirs_given = FAMILIES[name]
    for n, steps, i, h, sequences in ((1, 1, 1, 1, True), (3, 5, 2, 7, True), (17, 6, 5, 37, False)):
        torch.manual_seed(n)
        kind = torch.nn.RNN if ours is SimpleRNN else getattr(torch.nn, name)
        theirs = kind(i, h, batch_first=True, dtype=getattr(torch, dtype), **theirs_given)
        x = np.random.default_rng(h).standard_normal((n, steps, i))
        compare(ours(h, return_sequences=sequences, **given), theirs, x, recurrent_weights(theirs), gradients_of, dtype,
                (lambda y: y[0]) if sequences else lambda y: y[0][:, -1])


@pytest.mark.parametrize("sequences", [True, False])
def test_reading_both_ways(sequences):
    torch.manual_seed(3)
    theirs = torch.nn.LSTM(3, 5, batch_first=True, bidirectional=True, dtype=torch.float64)
    x = np.random.default_rng(3).standard_normal((4, 6, 3))
    for layer, suffix, part in ((LSTM(5, return_sequences=sequences), "", slice(0, 5)),
                                (LSTM(5, return_sequences=sequences, reverse=True), "_reverse", slice(5, 10))):
        last = 0 if suffix else -1
        theirs.zero_grad()
        compare(layer, theirs, x, recurrent_weights(theirs, suffix), lambda m, s=suffix: gradients_of(m, s), "float64",
                lambda y, p=part, end=last: y[0][:, :, p] if sequences else y[0][:, end, p])


def test_bidirectional_layer():
    torch.manual_seed(3)
    theirs = torch.nn.GRU(3, 5, batch_first=True, bidirectional=True, dtype=torch.float64)
    x = np.random.default_rng(3).standard_normal((4, 6, 3))
    from engine import Sequential
    model = Sequential([Bidirectional(GRU(5, return_sequences=True))])
    model.build((6, 3))
    weights = [w for suffix in ("", "_reverse") for w in recurrent_weights(theirs, suffix).values()]
    model.set_weights([w.astype(np.float32) for w in weights])
    close(model.predict(x.astype(np.float32)), theirs(torch.tensor(x))[0], "float32", "y")


def attention_weights(module, pick=lambda p: p):
    width, found = module.embed_dim, {}
    for k, word in enumerate(("query", "key", "value")):
        found[f"{word}_kernel"] = numbers(pick(module.in_proj_weight))[k * width:(k + 1) * width].T.copy()
        if module.in_proj_bias is not None:
            found[f"{word}_bias"] = numbers(pick(module.in_proj_bias))[k * width:(k + 1) * width].copy()
    found["output_kernel"] = numbers(pick(module.out_proj.weight)).T.copy()
    if module.out_proj.bias is not None:
        found["output_bias"] = numbers(pick(module.out_proj.bias)).copy()
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention(causal, dtype):
    for n, length, heads, d, bias in ((1, 1, 1, 1, True), (2, 7, 3, 5, True), (3, 53, 2, 9, False)):
        torch.manual_seed(n)
        theirs = torch.nn.MultiheadAttention(heads * d, heads, bias=bias, batch_first=True,
                                             dtype=getattr(torch, dtype))
        if bias:                             # they start at zero
            torch.nn.init.normal_(theirs.in_proj_bias)
            torch.nn.init.normal_(theirs.out_proj.bias)
        hidden = torch.triu(torch.ones(length, length, dtype=torch.bool), 1) if causal else None
        x = np.random.default_rng(d).standard_normal((n, length, heads * d))
        compare(MultiHeadAttention(heads, causal=causal, use_bias=bias), theirs, x, attention_weights(theirs),
                lambda m: attention_weights(m, lambda p: p.grad), dtype,
                call=lambda t, m=theirs, mask=hidden: m(t, t, t, attn_mask=mask, need_weights=False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "causal", "boolean", "added", "for each head"])
def test_attention_op(kind, dtype):
    rng = np.random.default_rng(7)
    for lead, length, keys, d, e in (((2, 3), 5, 7, 3, 4), ((1, 2), 61, 150, 17, 33)):
        q, k, v = (rng.standard_normal((*lead, *s)).astype(dtype) for s in ((length, d), (keys, d), (keys, e)))
        mask, theirs = np.zeros((), dtype), None
        if kind == "boolean":
            theirs = torch.tensor(rng.random((length, keys)) < 0.7)
            theirs[:, 0] = True
            mask = np.where(theirs.numpy(), 0, -np.inf).astype(dtype)
        elif kind in ("added", "for each head"):
            mask = rng.standard_normal((length, keys) if kind == "added" else (lead[1], 1, keys)).astype(dtype)
            theirs = torch.tensor(mask)
        tensors = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
        y = torch.nn.functional.scaled_dot_product_attention(*tensors, theirs, is_causal=kind == "causal")
        dy = rng.standard_normal(tuple(y.shape)).astype(dtype)
        y.backward(torch.tensor(dy))
        g = Graph()
        feeds = [g.feed(name, a.shape, a.dtype) for name, a in (("q", q), ("k", k), ("v", v))]
        ours, _ = g.add("attention", *feeds, g.constant(mask), causal=kind == "causal")
        found = gradients(g, {ours: g.constant(dy)}, feeds)
        g.outputs.update({"y": ours, **{f"d{f.name}": d for f, d in zip(feeds, found)}})
        plan = Plan(g, targets.cpu)
        plan.run(q=q, k=k, v=v)
        close(plan.fetch("y"), y, dtype, "y")
        for name, tensor in zip("qkv", tensors):
            close(plan.fetch(f"d{name}"), tensor.grad, dtype, f"d{name}")
