"""Sequential: a chain of layers that is trained, evaluated, asked and saved. Thin: it writes graphs and runs plans."""
import contextlib

import numpy as np

from engine import callbacks as calls
from engine import losses
from engine import metrics as measures
from engine import optimizers, progress, saving
from engine import target as targets
from engine import training
from engine.data import streams
from engine.data.augment import pipeline
from engine.data.loader import Loader
from engine.doors import check_x, sample_weights, take_validation
from engine.errors import DataError, EngineError, FileError, ShapeError, unknown
from engine.history import History
from engine.kernels.entry import threads
from engine.layers.layer import LAYERS, Layer
from engine.network import Names, Network, shape_of_input
from engine.state import State, next_seed
from engine.streaming import Streamed, prepared
from engine.summary import summary_text

PIECE = 0.25                                 # seconds of training between two looks at the keyboard and the bar


class Sequential:
    """Layers one after another.

    layers   a list; the input's shape comes from an Input layer, `input_shape=`, `build`, or the first data
    name     of the model
    dtype    "float32" or "float64"
    target   "cpu", "cuda", "cuda-emulated" or None (ENGINE_TARGET, else cuda when a GPU is present)
    """

    def __init__(self, layers=(), name="sequential", dtype="float32", target=None):
        if dtype not in ("float32", "float64"):
            raise EngineError(f"Sequential: expected dtype float32 or float64, got {dtype!r}")
        self.name, self.dtype, self.layers = name, np.dtype(dtype), []
        self.target, self.seed = targets.choose(target), next_seed()
        self.network = self.state = self.optimizer = self.loss = None
        self.metrics, self.epoch, self.stop_training, self.history = [], 0, False, None
        self._plans, self._batch_size = {}, 32
        self._watching, self._kept_callbacks = [], {}
        self._names, self._seen_changes = Names(), None
        self._take(list(layers))

    # ------------------------------------------------------------------------------------------------------- building

    def add(self, layer):
        """Appends a layer (before the model is built)."""
        if self.state is not None:
            raise EngineError(f"{self.name}: cannot add a layer to a model that is already built; make a new one")
        self._take([layer])

    def _take(self, layers):
        self._names.add(layers)
        self.layers += layers
        self.network = None

    def build(self, input_shape=None):
        """Gives the layers their shapes and the weights their first values; `input_shape` is that of one sample.

        A layer that was in a built model before brings its weights along. Layers frozen or thawed since the model was
        built are taken note of here, and wherever the model is used.
        """
        if self.state is None or self._seen_changes != Layer.changes:
            network = self._shaped(input_shape)
            if self.state is None or network.trained() != list(self.state.offsets):
                self.network = network
                self.state = State(network, self.target, self.dtype, self.seed, self.state)
                self._plans.clear()
            self._seen_changes = Layer.changes
        return self

    def _shaped(self, input_shape=None):
        """The network of names and shapes, without arrays."""
        shape = shape_of_input(self.layers) if input_shape is None else input_shape
        if self.state is not None:
            shape = self.network.shape
        if not self.layers or shape is None:
            reason = "the shape of its input is not known" if self.layers else "it has no layers"
            raise EngineError(f"{self.name}: not built: {reason}; add an Input(shape) layer, call build(input_shape), "
                              f"or fit it")
        return Network(self.layers, (shape,) if isinstance(shape, int) else tuple(shape))

    def compile(self, optimizer="adam", loss="mean_squared", metrics=()):
        """Says how to train: optimiser, loss and metrics as objects or names. Keeps the weights."""
        self.optimizer, self.loss = optimizers.get(optimizer), losses.get(loss)
        self.metrics = [measures.get(m) for m in ([metrics] if isinstance(metrics, str) else metrics)]
        self._plans.clear()
        if self.state is not None:
            self.build()
            self.state.forget_optimizer()

    # ------------------------------------------------------------------------------------------------ Keras's manners

    def fit(self, x, y=None, batch_size=32, epochs=1, verbose=1, callbacks=(), validation_split=0.0,
            validation_data=None, shuffle=True, class_weight=None, sample_weight=None, initial_epoch=0,
            steps_per_epoch=None, augment=()):
        """Trains for `epochs` epochs and returns the History.

        x (N, ...), y (N,) labels or (N, ...) values. validation_split takes the last share of the data as it stands
        (shuffle it before if its order means something, as the writers do in the digits); class_weight
        {class: weight}; sample_weight (N,). initial_epoch: the number of the first epoch (to go on with a
        loaded model: initial_epoch=model.epoch).

        augment: augmentations of `engine.data.augment`, done to every training batch inside the step, as
        [RandomFlip(), RandomCrop(padding=4)].

        An array is placed on the target as a whole; bytes (uint8) stay bytes there, a quarter of float32, and a step
        makes them numbers 0 to 255. x may also be data that comes batch by batch, read by a thread in the background
        while the steps run, with at most two batches waiting in memory: a numpy.memmap or an `engine.data.Lazy` with
        y (the same training, bit for bit, as with the array in memory), or without y a sequence or iterable of batches
        (x, y) or (x, y, sample_weight), a generator (an epoch is steps_per_epoch of its batches) or a function that
        makes one for each epoch. shuffle mixes samples where they are known by number, else the order of a sequence's
        batches. validation_data takes the same, as (x, y) or alone.
        """
        chain = pipeline(augment)
        train, held_out = self._of_fit(x, y, batch_size, sample_weight, class_weight, validation_split,
                                       validation_data, steps_per_epoch)
        epoch_plan = self._pass(train, batch_size, "fit", self.optimizer, class_weight, chain)
        check_plan = None if held_out is None else self._pass(
            held_out, batch_size, "validation_data", class_weight=class_weight if validation_data is None else None)
        history, self.history, self.stop_training = History(), None, False
        watching = self._begin(callbacks)
        try:
            for epoch in range(initial_epoch, epochs):
                figures = self._one_epoch(epoch, epochs, epoch_plan, check_plan, shuffle, verbose, watching)
                history.add(epoch, figures)
                if self.stop_training:
                    break
        finally:
            epoch_plan.close()
            for callback in watching:
                callback.on_train_end()
        self.history = history
        return history

    def evaluate(self, x, y=None, batch_size=256, sample_weight=None, verbose=0, return_dict=False):
        """The loss, or [loss, metrics...] (as a dict by name with return_dict=True). x may be all that `fit` takes."""
        plan = self._pass(self._set(x, y, sample_weight, None, batch_size, None, "evaluate"), batch_size, "evaluate")
        figures = self._run(plan)
        if verbose:
            progress.figures("evaluate", figures)
        if return_dict:
            return figures
        return figures["loss"] if len(figures) == 1 else list(figures.values())

    def predict(self, x, batch_size=256, verbose=0):
        """The model's outputs (N, ...) for x (N, ...), as in inference: no dropout, running statistics. x may be all
        that `fit` takes; of batches (x, y) only x is looked at."""
        source = streams.source(x, None, None, check_batch_size(batch_size), None, "predict")
        if source is not None:
            return self._predict_stream(source)
        x = check_x(x, self, "predict")
        out = np.empty((len(x), *self.network.output_shape), self.dtype)
        batch_size = check_batch_size(batch_size, max(1, len(x)))
        for start in range(0, len(x), batch_size):
            part = x[start:start + batch_size]
            out[start:start + len(part)] = self._predict(part)
        return out

    def _predict(self, part):
        plan = self._plan(("predict", len(part)), lambda: training.predict_graph(self.state, len(part)))
        plan.run(x=part)
        return plan.fetch("prediction")

    def _predict_stream(self, source):
        outputs = []
        with Loader(source.batches(), lambda batch: prepared(self, batch, "predict")[0], "predict") as loader:
            while (part := loader.take()) is not None:
                outputs.append(self._predict(check_x(part, self, "predict", checked=True)))
        return np.concatenate(outputs)

    __call__ = predict

    def summary(self):
        """Prints the layers with their shapes and numbers of weights, composite layers as trees of their branches."""
        progress.show(summary_text(self, self._described()))

    def count_params(self, trainable=None):
        """How many numbers the weights are; trainable=True or False counts only those. Needs shapes, no arrays."""
        return self._described().count(trainable)

    def _described(self):
        """The network as it is now: of the arrays if there are any, else only its shapes."""
        return self._shaped() if self.state is None else self.build().network

    # ------------------------------------------------------------------------------------------- loops of one's own

    def train_step(self, x, y, sample_weight=None):
        """One update on one batch; returns its loss."""
        x, y, weights = self._data(x, y, sample_weight, None, "train_step")
        self.state.optimizer_states(self.optimizer)
        plan = self._plan(("step", len(x), y.shape[1:], y.dtype), lambda: training.step_graph(
            self.state, self.loss, (), len(x), y.shape[1:], y.dtype, None, self.optimizer))
        plan.run(x=x, y=y, weights=weights, rate=[self.optimizer.learning_rate.at(self.step)])
        return float(plan.fetch("loss"))

    def gradients(self, x, y, sample_weight=None):
        """{weight name: gradient} of the loss on a batch, with dropout and batch norm as in training; no update."""
        x, y, weights = self._data(x, y, sample_weight, None, "gradients")
        plan = self._plan(("gradients", len(x), y.shape[1:], y.dtype), lambda: training.step_graph(
            self.state, self.loss, (), len(x), y.shape[1:], y.dtype, None, None, True))
        kept = {w.name: self.state.get(w.name) for w in self.network.weights if not w.trainable}
        plan.run(x=x, y=y, weights=weights)
        for name, array in kept.items():     # running statistics move in a training pass: a look must not
            self.state.set(name, array)
        return self.state.unpack(plan.fetch("gradients"))

    def activations(self, x):
        """{layer name: output} for a batch, as in inference."""
        x = check_x(x, self, "activations")
        plan = self._plan(("activations", len(x)), lambda: training.predict_graph(self.state, len(x), True))
        plan.run(x=x)
        return {name: plan.fetch(name) for name in plan.graph.outputs if name != "prediction"}

    @property
    def plan(self):
        """The plan of a training step (of a prediction, if the model is not compiled) at the last batch size."""
        self.build()
        size, classes = self._batch_size, self.network.output_shape
        if self.loss is None:
            return self._plan(("predict", size), lambda: training.predict_graph(self.state, size))
        labelled = isinstance(self.loss, losses.CrossEntropy)
        shape, dtype = ((), np.dtype(np.int64)) if labelled else (classes, self.dtype)
        self.state.optimizer_states(self.optimizer)
        return self._plan(("step", size, shape, dtype), lambda: training.step_graph(
            self.state, self.loss, (), size, shape, dtype, None, self.optimizer))

    @property
    def step(self):
        """Training steps done so far."""
        return 0 if self.state is None else self.state.step

    # ---------------------------------------------------------------------------------------------- weights and files

    def get_weights(self):
        """Host copies of all weights in layer order, as Keras does."""
        self.build()
        return [self.state.get(name) for name in self.state.names()]

    @property
    def weights(self):
        """{name: host copy} of all weights, under the names that `gradients` uses."""
        return dict(zip(self.build().state.names(), self.get_weights()))

    def set_weights(self, arrays):
        """Takes what `get_weights` gave, or a dict as `weights` is: all checked before any is changed."""
        self.build()
        names = self.state.names()
        if isinstance(arrays, dict):
            missing = [name for name in (*names, *arrays) if name not in arrays or name not in names]
            if missing:
                raise unknown("set_weights", missing[0], names)
            arrays = [arrays[name] for name in names]
        if len(arrays) != len(names):
            raise ShapeError(f"set_weights: expected {len(names)} arrays ({', '.join(names)}), got {len(arrays)}")
        for owned, array in zip(self.network.weights, arrays):
            if tuple(np.shape(array)) != owned.weight.shape:
                raise ShapeError(f"set_weights: {owned.name}: expected shape {owned.weight.shape}, got "
                                 f"{np.shape(array)}")
        for name, array in zip(names, arrays):
            self.state.set(name, array)

    def save(self, path):
        """Writes architecture, weights, optimiser state, counters: enough to go on bit for bit after `load`."""
        self.build()
        tensors = {name: self.state.get(name) for name in self.state.names()}
        tensors.update((name, np.array(self.target.fetch(array))) for name, array in self.state.arrays.items()
                       if name.startswith("optimizer.") or name == "counter")
        saving.write(path, tensors, self.config())

    def config(self):
        """The architecture and how it is trained, as what JSON can hold."""
        compiled = None if self.loss is None else {
            "optimizer": self.optimizer.config(), "loss": self.loss.config(),
            "metrics": [m.config() for m in self.metrics]}
        return {"name": self.name, "dtype": self.dtype.name, "input_shape": list(self.network.shape),
                "layers": [layer.config() for layer in self.layers], "compiled": compiled, "epoch": self.epoch,
                "seed": self.seed, "callbacks": self._callback_states()}

    def __repr__(self):
        return f"<Sequential {self.name}: {', '.join(layer.name for layer in self.layers)}>"

    # -------------------------------------------------------------------------------------------------------- inside

    def _data(self, x, y, sample_weight, class_weight, caller, checked=False):
        self._demand_compiled(caller)
        if y is None:
            raise DataError(f"{caller}: expected labels y for an array x, got none")
        x = check_x(x, self, caller, checked)
        self.build()
        y = self.loss.labels(targets.to_host(y), self.network.output_shape, self.dtype)
        if len(x) != len(y):
            raise ShapeError(f"{caller}: expected as many labels as samples, got {len(x)} samples and {len(y)} labels")
        if not len(x):
            raise DataError(f"{caller}: expected at least one sample, got none")
        return x, y, sample_weights(y, sample_weight, class_weight, self.dtype, caller)

    def _demand_compiled(self, caller):
        if self.loss is None:
            raise EngineError(f"{caller}: the model is not compiled; call compile(optimizer=..., loss=...) first")

    def _set(self, x, y, sample_weight, class_weight, batch_size, steps, caller):
        """What a pass goes through: a source of batches, or arrays (x, y, weights)."""
        self._demand_compiled(caller)
        source = streams.source(x, y, sample_weight, check_batch_size(batch_size), steps, caller)
        return self._data(x, y, sample_weight, class_weight, caller) if source is None else source

    def _of_fit(self, x, y, batch_size, sample_weight, class_weight, share, validation, steps):
        """(what to train on, what to validate with or None), each as `_set` has it."""
        train = self._set(x, y, sample_weight, class_weight, batch_size, steps, "fit")
        if validation is not None:
            source = streams.source(validation, None, None, check_batch_size(batch_size), None, "validation_data")
            if source is not None:
                return train, source
            _, given = take_validation(None, None, None, 0, validation)
            return train, self._set(*given, None, batch_size, None, "validation_data")
        if isinstance(train, tuple):
            return take_validation(*train, share, None)
        if not share:
            return train, None
        if not isinstance(train, streams.Rows):
            raise DataError(f"fit: validation_split takes the last samples of an array, which {type(x).__name__} is "
                            f"not; give validation_data")
        return train.split(share)

    def _pass(self, data, batch_size, caller, optimizer=None, class_weight=None, augment=None):
        """What goes once through data as `_set` has it."""
        if not isinstance(data, tuple):
            return Streamed(self, data, optimizer, class_weight, augment, caller)
        size = check_batch_size(batch_size, len(data[0]))
        if optimizer is not None:
            self._batch_size = size
        x, y, weights = data
        batches = training.Batches(self.target, x, y, weights, size)
        return training.Epoch(self.state, self.loss, self.metrics, batches, y.shape[1:], y.dtype, optimizer, augment)

    def _plan(self, key, graph):
        key = (*key, threads.get(), tuple(self.state.offsets))
        if key not in self._plans:
            self._plans[key] = training.plan_of(graph(), self.state)
        return self._plans[key]

    def _begin(self, callbacks):
        watching = list(callbacks)
        for place, callback in enumerate(watching):
            if not isinstance(callback, calls.Callback):
                raise EngineError(f"fit: expected callbacks made from engine.callbacks.Callback, got {callback!r}")
            callback.model = self
            kept = self._kept_callbacks.get(_callback_key(place, callback))
            if kept:
                callback.restore(kept)
            callback.on_train_begin()
        self._watching, self._kept_callbacks = watching, {}
        # a checkpoint has to see what the other callbacks made of the epoch
        return sorted(watching, key=lambda c: isinstance(c, calls.ModelCheckpoint))

    def _callback_states(self):
        live = {_callback_key(i, c): c.state() for i, c in enumerate(self._watching)}
        return {**self._kept_callbacks, **{key: state for key, state in live.items() if state}}

    def _one_epoch(self, epoch, epochs, plan, check_plan, shuffle, verbose, watching):
        for callback in watching:
            callback.on_epoch_begin(epoch)
        first, order = self.step, plan.order(self.seed, self.epoch if shuffle else None)
        rate, title = self.optimizer.learning_rate, f"epoch {epoch + 1}/{epochs}"
        figures = self._run(plan, order, lambda step: rate.at(first + step), title, verbose, watching)
        if check_plan is not None:
            checked = self._run(check_plan)
            figures.update((f"val_{name}", value) for name, value in checked.items())
        self.epoch += 1
        for callback in watching:
            callback.on_epoch_end(epoch, figures)
        if verbose:
            progress.figures(title, figures)
        if not np.isfinite(figures["loss"]):
            progress.notice(f"fit: the loss of epoch {epoch + 1} is {figures['loss']}: the weights may be lost; try a "
                            f"smaller learning rate or clip_norm=1.0")
        return figures

    def _run(self, plan, order=None, rate=None, title="", verbose=0, watching=()):
        """One pass over a data set; with callbacks on batches one step at a time."""
        single = [c for c in watching if c.every_batch]
        with contextlib.closing(plan), progress.bar(plan.steps, title, verbose) as bar:
            plan.start(plan.order(self.seed) if order is None else order, rate)
            if single:
                self._step_by_step(plan, single, bar)
            else:
                for done in plan.pieces(PIECE):
                    bar.update(done - bar.n)
        return plan.results()

    @staticmethod
    def _step_by_step(plan, watching, bar):
        steps, batch = plan.pieces(0), 0
        while plan.more:
            for callback in watching:
                callback.on_batch_begin(batch)
            next(steps)
            logs = {"loss": plan.last_loss(batch)}
            for callback in watching:
                callback.on_batch_end(batch, logs)
            bar.update(1)
            batch += 1


def _callback_key(place, callback):
    return f"{place}:{type(callback).__name__}"


def check_batch_size(batch_size, count=None):
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise EngineError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}")
    return int(batch_size) if count is None else min(int(batch_size), count)


def load(path, layers=(), target=None):
    """A model from a file that `save` wrote; `layers`: one's own layer classes that it uses."""
    tensors, described = saving.read(path)
    try:
        model = Sequential([LAYERS.build(c, layers) for c in described["layers"]], described["name"],
                           described["dtype"], target)
        model.build(tuple(described["input_shape"]))
        if described["compiled"]:
            model.compile(**described["compiled"])
            model.state.optimizer_states(model.optimizer)
    except (KeyError, TypeError) as error:
        raise FileError(f"load: {path!r}: its description does not fit this engine: {error}; a layer of your own has "
                        f"to be given as load(path, layers=[MyLayer])") from None
    wanted = set(model.state.names()) | {n for n in model.state.arrays if n.startswith("optimizer.")} | {"counter"}
    if wanted - set(tensors):
        raise FileError(f"load: {path!r} lacks {', '.join(sorted(wanted - set(tensors))[:5])}; was it written by an "
                        f"older engine, or changed by hand?")
    for name in wanted:
        model.state.set(name, tensors[name])
    model.epoch, model.seed = described["epoch"], described["seed"]
    model._kept_callbacks = described["callbacks"]
    return model
