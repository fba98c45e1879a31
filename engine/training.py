"""From a network, a loss and an optimiser to graphs: a training step, an evaluation step, a prediction.

A step over a data set gathers its own batch on the target and counts its own steps, so that many steps run without
Python in between.
"""
import numpy as np

from engine import target as targets
from engine.data.augment import as_floats, chance_of
from engine.errors import ShapeError
from engine.graph import Graph, gradients
from engine.graph.passes import finish, fuse_forward
from engine.kernels.random import shuffled
from engine.runtime import Plan


class Batches:
    """Host arrays of a data set placed on a target, and the small arrays that lead a step through an epoch.

    x (N, ...), y (N, ...), weights (N,): one weight for each sample.
    """

    def __init__(self, target, x, y, weights, size):
        self.target, self.count, self.size = target, len(x), min(size, len(x))
        self.steps, self.tail = self.count // self.size, self.count % self.size
        self.arrays = {"data_x": target.place(x), "data_y": target.place(y), "data_weights": target.place(weights)}

    def rounds(self, size):
        """Steps of an epoch with batches of this size: all whole batches, or the one rest."""
        return self.steps if size == self.size else 1


def _weights(graph, state):
    """The network's weights as values; trained ones are parts of the flat value `parameters`."""
    flat = graph.parameter("parameters", (state.size,), state.dtype)
    values = {}
    for owned in state.network.weights:
        values[owned.name] = graph.parameter(owned.name, owned.weight.shape, state.dtype, owned.trainable)
        if owned.trainable:
            graph.place(values[owned.name], flat, state.offsets[owned.name][0])
    return flat, values


def _inputs(graph, state, size, data, y_shape, y_dtype, x_dtype):
    """(x, y, weights, position): feeds of one batch, or gathered from the data set's feeds."""
    shape = state.network.shape
    specs = {"x": (shape, x_dtype or state.network.input_dtype or state.dtype), "y": (y_shape, y_dtype),
             "weights": ((), state.dtype)}
    if data is None:
        return (*(graph.feed(name, (size, *s), d) for name, (s, d) in specs.items()), None)
    feeds = {name: graph.feed(f"data_{name}", (data.count, *s), d) for name, (s, d) in specs.items()}
    order = graph.feed("order", (data.rounds(size) * size,), np.int64)
    position = graph.state("position", (1,), np.int64)
    with graph.scope("batch"):
        return (*(graph.add("take_batch", value, order, position, size=size) for value in feeds.values()), position)


def step_graph(state, loss, metrics, size, y_shape, y_dtype, data=None, optimizer=None, training=None, *,
               x_dtype=None, augment=None, counted=None):
    """The graph of one step: forward, loss, metrics and, with an optimiser, backward and update.

    training    normalisation and dropout as in training (default: when there is an optimiser)
    x_dtype     how x is stored: the model's dtype, or uint8
    augment     an `Augment` whose nodes stand between the batch and the network
    counted     whether totals are kept (default: those of a data set)
    outputs     "prediction", "loss"; totals are the states "total.loss", "total.<metric>"
    """
    training = optimizer is not None if training is None else training
    graph = Graph()
    counter = graph.state("counter", (2,), np.int64)
    flat, values = _weights(graph, state)
    x, y, weights, position = _inputs(graph, state, size, data, y_shape, y_dtype, x_dtype)
    x, wanted = _augmented(graph, state, loss, x, y, counter, augment)
    prediction, _, heads = state.network.add_to(graph, x, values, training, counter if training else None)
    with graph.scope("loss"):
        value = loss.nodes(graph, prediction, wanted, weights)
        for layer, said in heads:
            value = graph.add("add", value, _of_head(graph, layer, said, prediction, loss, wanted, weights))
    if data is not None if counted is None else counted:
        _count(graph, metrics, prediction, y, value, size, state.network.output_shape)
    graph.outputs.update(prediction=prediction, loss=value)
    graph = fuse_forward(graph, training)
    rate = None if optimizer is None else _rate(graph, position, data, size)
    if training:
        _backward(graph, state, value, values)
    if optimizer is not None:
        _update(graph, state, optimizer, flat, rate, counter)
    if position is not None:
        graph.add("advance", position)
    return finish(graph, state.target is not targets.cpu)


def _augmented(graph, state, loss, x, y, counter, augment):
    """(x as numbers, y as the loss wants it) after the augmentations; metrics go by the y of before."""
    stored, x = x.dtype, as_floats(graph, x, state.dtype)
    if augment is None:
        return x, y
    turned = x.ndim == 4 and getattr(state.network.layers[0], "data_format", None) == "channels_first"
    with graph.scope("augment"):
        x = graph.add("transpose", x, axes=(0, 2, 3, 1)) if turned else x
        x, y = augment.nodes(graph, x, y, chance_of(
            counter, stored, lambda labels: loss.rows(graph, labels, state.network.output_shape, state.dtype)))
        return (graph.add("transpose", x, axes=(0, 3, 1, 2)) if turned else x), y


def _of_head(graph, layer, said, prediction, loss, y, weights):
    """The share of an auxiliary head in the loss."""
    if said.shape != prediction.shape:
        raise ShapeError(f"{layer.name}: expected a head that ends in the model's output shape {prediction.shape}, got "
                         f"{said.shape}")
    return graph.add("scale", loss.nodes(graph, said, y, weights), factor=float(layer.weight))


def _count(graph, metrics, prediction, y, value, size, output_shape):
    with graph.scope("metrics"):
        total = graph.state("total.loss", (), np.float64)
        graph.add("accumulate", total, value, weight=float(size))
        for metric in metrics:
            total = graph.state(f"total.{metric.label}", metric.shape(output_shape), metric.dtype)
            metric.nodes(graph, prediction, y, total)


def _backward(graph, state, loss, values):
    """Gradients of all trained weights, written straight into their places in the flat value `gradients`."""
    trained = [values[name] for name in state.offsets]
    one = graph.constant(np.ones((), state.dtype), "one")
    found = gradients(graph, {loss: one}, trained)
    flat = graph.state("gradients", (state.size,), state.dtype)
    for value, gradient in zip(trained, found):
        if gradient is None:
            continue                         # its place keeps the zeros it was made with
        if gradient.kind != "computed" or gradient in graph.parts:
            gradient = graph.add("identity", gradient)
        graph.place(gradient, flat, state.offsets[value.name][0])


def _rate(graph, position, data, size):
    """This step's learning rate: before the backward pass, on whose way weights may be updated."""
    if data is None:
        return graph.feed("rate", (1,), np.float64)
    with graph.scope("update"):
        return graph.add("pick", graph.feed("rates", (data.rounds(size),), np.float64), position)


def _update(graph, state, optimizer, flat, rate, counter):
    with graph.scope("update"):
        states = [graph.state(f"optimizer.{n}", (state.size,), state.dtype) for n in optimizer.states]
        optimizer.nodes(graph, flat, graph.values["gradients"], states, rate, counter)
        graph.add("advance", counter)


def predict_graph(state, size, keep_layers=False):
    """The graph of inference; outputs "prediction" and, with keep_layers, each layer's output by name."""
    graph = Graph()
    _, values = _weights(graph, state)
    x = graph.feed("x", (size, *state.network.shape), state.network.input_dtype or state.dtype)
    prediction, layers, _ = state.network.add_to(graph, x, values, False)
    graph.outputs["prediction"] = prediction
    if keep_layers:
        graph.outputs.update(layers)
    return finish(fuse_forward(graph, training=False), state.target is not targets.cpu)


def plan_of(graph, state, extra=None):
    """The plan of a graph, bound to the model's arrays and to `extra`."""
    bound = {**state.arrays, **(extra or {})}
    return Plan(graph, state.target, {n: a for n, a in bound.items() if n in graph.values}, state.version)


def totals(state, metrics):
    """{name: zeros on the target} for the sums of an epoch."""
    made = {"total.loss": state.new((), np.float64)}
    for metric in metrics:
        made[f"total.{metric.label}"] = state.new(metric.shape(state.network.output_shape), metric.dtype)
    return made


def results(target, sums, metrics, count):
    """{"loss": ..., metric: ...} of the sums over `count` samples."""
    found = {"loss": float(target.fetch(sums["total.loss"])) / count}
    for metric in metrics:
        found[metric.label] = metric.result(target.fetch(sums[f"total.{metric.label}"]), count)
    return found


class Epoch:
    """Plans that go once through a data set: whole batches, and the rest that does not fill one.

    start(order, rate), pieces(seconds)   one epoch, in pieces between which Python looks up
    results()                             {"loss": ..., metric: ...} of what was run
    """

    def __init__(self, state, loss, metrics, data, y_shape, y_dtype, optimizer=None, augment=None):
        self.state, self.data, self.loss, self.metrics = state, data, loss, metrics
        self._totals = totals(state, metrics)
        if optimizer is not None:
            state.optimizer_states(optimizer)
        self.plans = []
        for size in [data.size] + ([data.tail] if data.tail else []):
            graph = step_graph(state, loss, metrics, size, y_shape, y_dtype, data, optimizer,
                               x_dtype=data.arrays["data_x"].dtype, augment=augment)
            self.plans.append(plan_of(graph, state, {**data.arrays, **self._totals}))
        self._seconds = None                 # of one step, measured
        self._done = 0

    @property
    def steps(self):
        return self.data.steps + (1 if self.data.tail else 0)

    @property
    def more(self):
        """Whether a step is left in this epoch."""
        return self._done < self.steps

    def order(self, seed, epoch=None):
        """The samples' numbers in the order of this epoch; without one as they stand."""
        return np.arange(self.data.count) if epoch is None else shuffled(self.data.count, seed, epoch)

    def start(self, order, rate=None):
        """Zeroes the totals and hands over the order of the samples and the learning rate of each step, rate(step)."""
        self._done = 0
        target, whole = self.state.target, self.data.steps * self.data.size
        for array in self._totals.values():
            target.fill(array, np.zeros(array.shape, array.dtype))
        for plan, part in zip(self.plans, (order[:whole], order[whole:])):
            plan.feed("order", part)
            plan.feed("position", np.zeros(1, np.int64))
        if rate is not None:
            rates = np.array([rate(i) for i in range(self.steps)])
            self.plans[0].feed("rates", rates[:self.data.steps])
            if self.data.tail:
                self.plans[1].feed("rates", rates[-1:])

    def pieces(self, seconds):
        """Runs the epoch in pieces of about so many seconds (0: one step each); yields the steps done so far."""
        import time
        while self._done < self.data.steps:
            count = 1 if not self._seconds or not seconds else max(1, int(seconds / self._seconds))
            count = min(count, self.data.steps - self._done)
            started = time.perf_counter()
            self.plans[0].run(count)
            self._seconds = (time.perf_counter() - started) / count
            self._done += count
            yield self._done
        if self.data.tail:
            self.plans[1].run()
            self._done += 1
            yield self._done

    def results(self):
        """{"loss": ..., metric: ...} of what was run since `start`."""
        return results(self.state.target, self._totals, self.metrics, self.data.count)

    def close(self):
        """Nothing is held open."""

    def last_loss(self, batch):
        """The loss of the step just run."""
        return float(self.plans[0 if batch < self.data.steps else 1].fetch("loss"))
