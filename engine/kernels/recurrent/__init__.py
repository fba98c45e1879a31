"""Recurrent ops over whole sequences, and backpropagation through time: LSTM, GRU and the simple RNN.

Shapes: n sequences, t steps, h units; z (n, t, g h) = x w + bias, the input's share of all g gates of all steps, is one
product made before (a `dense` node); u (h, g h) the recurrent weights; y (n, t, h), the state h after each step, from
the state h' before it, at first zero. `reverse` reads the steps from the last to the first. s(...) is the sigmoid, *
goes value by value; gates lie side by side in PyTorch's order.

    simple_rnn   h = f(z + h' u)                        Elman 1990; f tanh, relu, or any whose slope takes f's value
    lstm         i, f, g, o = s, s, tanh, s (z + h' u)  Hochreiter, Schmidhuber 1997; Gers et al. 2000
                 c = f * c' + i * g,  h = o * tanh(c)
    gru          r, v = s(z + h' u)                     Cho et al. 2014, with the candidate's recurrent bias b (h,)
                 q = h' u + b,  g = tanh(z + r * q)     inside the reset ("reset after")
                 h = g + v * (h' - g)

The backward op walks the steps in reverse (Werbos 1990) and gives dz, from which the `dense` node's own gradient makes
those of x, w and bias, and `before`, the states h' that each step began with: du = before^T dz is one product, summed
over all sequences and steps at once in an order that depends on shapes only.
"""
import numpy as np

from engine.kernels.activation import ACTIVATIONS, REFERENCES, Activation
from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats, spec
from engine.kernels.recurrent import cpu, cuda

SIGMOID, TANH = ACTIVATIONS["sigmoid"], ACTIVATIONS["tanh"]

# ----------------------------------------------------------------------------------------------------- NumPy reference


def _flipped(reference):
    """The reference with the attribute `reverse`: what has steps is turned round before and after."""
    def either_way(*arrays, reverse=False, **attributes):
        if not reverse:
            return reference(*arrays, **attributes)
        found = reference(*(a[:, ::-1] if a.ndim == 3 else a for a in arrays), **attributes)
        return tuple(a[:, ::-1] for a in found) if isinstance(found, tuple) else found[:, ::-1]
    return either_way


def _before(y):
    """y one step later, zeros for the first step."""
    return np.concatenate([np.zeros_like(y[:, :1]), y[:, :-1]], 1)[:, :y.shape[1]]


@_flipped
def lstm_reference(z, u):
    n, steps, wide = z.shape
    sigmoid, h = REFERENCES["sigmoid"], np.zeros((n, wide // 4))
    c, y, cells, gates = h, np.zeros((n, steps, wide // 4)), np.zeros((n, steps, wide // 4)), np.zeros_like(z)
    for s in range(steps):
        i, f, g, o = np.split(z[:, s] + h @ u, 4, 1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        y[:, s], cells[:, s], gates[:, s] = h, c, np.concatenate([i, f, g, o], 1)
    return y, cells, gates


@_flipped
def lstm_grad_reference(dy, u, y, cells, gates):
    dz, before = np.zeros_like(gates), _before(cells)
    dh = dc = np.zeros_like(y[:, 0]) if y.shape[1] else 0
    for s in reversed(range(y.shape[1])):
        i, f, g, o = np.split(gates[:, s], 4, 1)
        d, t = dy[:, s] + dh, np.tanh(cells[:, s])
        dc = dc + d * o * (1 - t * t)
        dz[:, s] = np.concatenate([dc * g * i * (1 - i), dc * before[:, s] * f * (1 - f), dc * i * (1 - g * g),
                                   d * t * o * (1 - o)], 1)
        dc, dh = dc * f, dz[:, s] @ u.T
    return dz, _before(y)


@_flipped
def gru_reference(z, u, bias):
    n, steps, wide = z.shape
    sigmoid, units = REFERENCES["sigmoid"], wide // 3
    h = np.zeros((n, units))
    y, kept, gates = np.zeros((n, steps, units)), np.zeros((n, steps, units)), np.zeros_like(z)
    for s in range(steps):
        zr, zv, zg = np.split(z[:, s], 3, 1)
        ur, uv, ug = np.split(h @ u, 3, 1)
        r, v, q = sigmoid(zr + ur), sigmoid(zv + uv), ug + bias
        g = np.tanh(zg + r * q)
        h = (1 - v) * g + v * h
        y[:, s], kept[:, s], gates[:, s] = h, q, np.concatenate([r, v, g], 1)
    return y, kept, gates


@_flipped
def gru_grad_reference(dy, u, y, kept, gates):
    dz, dq, before = np.zeros_like(gates), np.zeros_like(gates), _before(y)
    dh = 0
    for s in reversed(range(y.shape[1])):
        r, v, g = np.split(gates[:, s], 3, 1)
        d = dy[:, s] + dh
        dv, dg = d * (before[:, s] - g) * v * (1 - v), d * (1 - v) * (1 - g * g)
        dr = dg * kept[:, s] * r * (1 - r)
        dz[:, s], dq[:, s] = np.concatenate([dr, dv, dg], 1), np.concatenate([dr, dv, dg * r], 1)
        dh = d * v + dq[:, s] @ u.T
    return dz, dq, before


@_flipped
def simple_rnn_reference(z, u, activation):
    y = np.zeros_like(z)
    for s in range(z.shape[1]):
        y[:, s] = activation.reference(z[:, s] + (y[:, s - 1] @ u if s else 0))
    return y


@_flipped
def simple_rnn_grad_reference(dy, u, y, activation):
    dz, dh = np.zeros_like(y), 0
    for s in reversed(range(y.shape[1])):
        dz[:, s] = activation.slope_op.reference(dy[:, s] + dh, y[:, s])
        dh = dz[:, s] @ u.T
    return dz, _before(y)


# -------------------------------------------------------------------------------------------- shapes and arrangements


def _units(z, u, gates):
    """z (n, t, h) with the sizes of y."""
    floats(z, u)
    demand(u.ndim == 2 and u.shape[1] == gates * u.shape[0], f"u of shape (h, {gates} h)" if gates > 1 else
           "u of shape (h, h)", u.shape)
    demand(z.ndim == 3 and z.shape[2] == u.shape[1], f"z of shape (n, t, {u.shape[1]}), all gates of all steps",
           z.shape)
    return Spec((*z.shape[:2], u.shape[0]), z.dtype)


def _kept(dy, u, gates, *kept):
    """Checks what a backward op gets; returns (dz, before)."""
    y = _units(gates, u, u.shape[1] // max(1, u.shape[0]) if u.ndim == 2 else 1)
    floats(dy, u, gates, *kept)
    for given in (dy, *kept):
        demand(given.shape == y.shape, f"dy and what was kept of the shape of y, {y.shape}", given.shape)
    return spec(gates), y


def lstm_shapes(z, u, reverse):
    y = _units(z, u, 4)
    return y, y, spec(z)


def lstm_grad_shapes(dy, u, y, cells, gates, reverse):
    return _kept(dy, u, gates, y, cells)


def gru_shapes(z, u, bias, reverse):
    y = _units(z, u, 3)
    floats(z, bias)
    demand(bias.shape == y.shape[2:], f"the candidate's recurrent bias of shape {y.shape[2:]}", bias.shape)
    return y, y, spec(z)


def gru_grad_shapes(dy, u, y, kept, gates, reverse):
    dz, before = _kept(dy, u, gates, y, kept)
    return dz, dz, before


def _differentiable(activation):
    demand(isinstance(activation, Activation) and activation.slope is not None and activation.slope_of == "y",
           "an activation whose slope is a function of its value (tanh, relu, sigmoid)", repr(activation))


def simple_rnn_shapes(z, u, activation, reverse):
    _differentiable(activation)
    return _units(z, u, 1)


def simple_rnn_grad_shapes(dy, u, y, activation, reverse):
    _differentiable(activation)
    return _kept(dy, u, y)


def _arranged(inputs, outputs, attributes, threads, scalars, gates, backward, lines=0):
    """`lines`: arrays of (n, h) that the CUDA kernels hand from step to step."""
    (n, steps), (units, wide), dtype = outputs[0].shape[:2], inputs[1].shape, outputs[0].dtype
    packed = [(wide, units)] if backward else [(units, 2 * units), (units, units)] if gates == 3 else [(units, wide)]
    tasks, work = cpu.plan(n, steps, units, gates, dtype, threads, packed)
    return Arrangement(tuple(s.shape for s in inputs), tuple(s.shape for s in outputs),
                       (*scalars, int(attributes["reverse"])), work, (), tasks,
                       (Spec((n, units), dtype),) * lines)


def lstm_arrange(inputs, outputs, attributes, threads):
    return _arranged(inputs, outputs, attributes, threads, (SIGMOID.f, TANH.f), 4, False)


def lstm_grad_arrange(inputs, outputs, attributes, threads):
    return _arranged(inputs, outputs, attributes, threads, (SIGMOID.slope, TANH.f, TANH.slope), 4, True, 2)


def gru_arrange(inputs, outputs, attributes, threads):
    return _arranged(inputs, outputs, attributes, threads, (SIGMOID.f, TANH.f), 3, False)


def gru_grad_arrange(inputs, outputs, attributes, threads):
    return _arranged(inputs, outputs, attributes, threads, (SIGMOID.slope, TANH.slope), 3, True, 1)


def simple_rnn_arrange(inputs, outputs, attributes, threads):
    return _arranged(inputs, outputs, attributes, threads, (attributes["activation"].f,), 1, False)


def simple_rnn_grad_arrange(inputs, outputs, attributes, threads):
    return _arranged(inputs, outputs, attributes, threads, (attributes["activation"].slope,), 1, True, 1)


# ----------------------------------------------------------------------------------------------------------- gradients


def _lines(graph, value):
    """(n, t, width) as (n t, width)."""
    return graph.add("reshape", value, shape=(value.shape[0] * value.shape[1], value.shape[2]))


def _by_u(graph, before, dz):
    return graph.add("matmul", _lines(graph, before), _lines(graph, dz), transpose_a=True)


def lstm_gradient(graph, node, dy, *_):
    dz, before = graph.add("lstm_grad", dy, node.inputs[1], *node.outputs, **node.attributes)
    return dz, _by_u(graph, before, dz)


def gru_gradient(graph, node, dy, *_):
    y, kept, gates = node.outputs
    dz, dq, before = graph.add("gru_grad", dy, node.inputs[1], y, kept, gates, **node.attributes)
    units = y.shape[2]
    dbias = graph.add("slice", graph.add("sum", _lines(graph, dq), axis=0), starts=(2 * units,), stops=(3 * units,))
    return dz, _by_u(graph, before, dq), dbias


def simple_rnn_gradient(graph, node, dy):
    dz, before = graph.add("simple_rnn_grad", dy, node.inputs[1], node.outputs[0], **node.attributes)
    return dz, _by_u(graph, before, dz)


# ------------------------------------------------------------------------------------------------------------- samples

SIZES = ((1, 1, 1, False), (0, 3, 2, False), (2, 0, 3, False), (3, 2, 5, False), (2, 3, 3, True), (14, 2, 33, False))


def _samples(gates):
    def samples(rng):
        for n, steps, units, reverse in SIZES:
            yield (rng.standard_normal((n, steps, gates * units)),
                   rng.standard_normal((units, gates * units)) / units ** 0.5), {"reverse": reverse}
    return samples


def _gru_samples(rng):
    for (z, u), attributes in _samples(3)(rng):
        yield (z, u, rng.standard_normal(len(u))), attributes


def _rnn_samples(rng):
    for inputs, attributes in _samples(1)(rng):
        yield inputs, {"activation": TANH, **attributes}


def _grad_samples(samples, reference):
    def grad_samples(rng):
        for inputs, attributes in samples(rng):
            kept = reference(*inputs, **attributes)
            kept = kept if isinstance(kept, tuple) else (kept,)
            yield (rng.standard_normal(kept[0].shape), inputs[1], *kept), attributes
    return grad_samples


def _terms(first, u, *rest, **attributes):
    return 4 * (u.shape[0] + 4) * max(1, first.shape[1])


def _cost(inputs, outputs, attributes):
    n, steps, units = (inputs[0] if inputs[0].shape[2] == inputs[1].shape[0] else outputs[0]).shape
    return Cost(2 * n * steps * inputs[1].size, sum(s.nbytes for s in (*inputs, *outputs)))


# ------------------------------------------------------------------------------------------------------------- records


def _op(name, reference, shapes, kernel, launcher, samples, arrange, grad=None, attributes=None, **more):
    return Op(name, reference, shapes, kernel, launcher, samples, arrange, grad, _terms, _cost,
              attributes={**(attributes or {}), "reverse": False}, **more)


RNN_ATTRIBUTES = {"activation": TANH}
OPS = (
    # the gates may take z's memory: each value is written after it was read
    _op("lstm", lstm_reference, lstm_shapes, cpu.lstm_cpu, cuda.lstm, _samples(4), lstm_arrange, lstm_gradient,
        inplace={2: 0}, byproducts=frozenset({1, 2})),
    _op("lstm_grad", lstm_grad_reference, lstm_grad_shapes, cpu.lstm_grad_cpu, cuda.lstm_grad,
        _grad_samples(_samples(4), lstm_reference), lstm_grad_arrange),
    _op("gru", gru_reference, gru_shapes, cpu.gru_cpu, cuda.gru, _gru_samples, gru_arrange, gru_gradient,
        inplace={2: 0}, byproducts=frozenset({1, 2})),
    _op("gru_grad", gru_grad_reference, gru_grad_shapes, cpu.gru_grad_cpu, cuda.gru_grad,
        _grad_samples(_gru_samples, gru_reference), gru_grad_arrange),
    _op("simple_rnn", simple_rnn_reference, simple_rnn_shapes, cpu.rnn_cpu, cuda.simple_rnn, _rnn_samples,
        simple_rnn_arrange, simple_rnn_gradient, attributes=RNN_ATTRIBUTES),
    _op("simple_rnn_grad", simple_rnn_grad_reference, simple_rnn_grad_shapes, cpu.rnn_grad_cpu, cuda.simple_rnn_grad,
        _grad_samples(_rnn_samples, simple_rnn_reference), simple_rnn_grad_arrange, attributes=RNN_ATTRIBUTES),
)
