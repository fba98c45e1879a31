"""An epoch over data that comes batch by batch: a background thread reads and checks what the next steps will need."""
import numpy as np

from engine import training
from engine.data.loader import Loader
from engine.data.streams import parts_of
from engine.doors import as_numbers
from engine.errors import DataError, EngineError
from engine.kernels.random import shuffled


def prepared(model, batch, caller):
    """(x, y, weights) with x checked and as a step takes it: the part of the checks that costs time."""
    x, y, weights = parts_of(batch)
    return as_numbers(x, model, caller), y, weights


class Streamed:
    """As `training.Epoch`, for a source of `engine.data.streams`: each batch is fed to the plan of its size.

    steps   batches of an epoch, None where only the end tells
    """

    def __init__(self, model, source, optimizer=None, class_weight=None, augment=None, caller="fit"):
        self.model, self.source, self.optimizer, self.caller = model, source, optimizer, caller
        self.class_weight, self.augment, self.steps = class_weight, augment, source.steps
        self._totals, self._plans = {}, {}
        self._loader = self._ahead = self._plan = self._rate = None
        self._samples = self._done = 0

    def order(self, seed, epoch=None):
        """In which samples, or ready batches, come in this epoch; None: as they stand."""
        return None if epoch is None or self.source.count is None else shuffled(self.source.count, seed, epoch)

    def start(self, order=None, rate=None):
        """Starts the thread and waits for the first batch; rate(step of the epoch) is the learning rate."""
        self.close()
        self._rate, self._samples, self._done = rate, 0, 0
        self._loader = Loader(self.source.batches(order), lambda batch: prepared(self.model, batch, self.caller),
                              self.caller)
        self._ahead = self._take()
        if self._ahead is None:
            raise DataError(f"{self.caller}: expected at least one batch, got none")
        state = self.model.state
        if not self._totals:
            self._totals = training.totals(state, self.model.metrics)
        for array in self._totals.values():
            state.target.fill(array, np.zeros(array.shape, array.dtype))

    def _take(self):
        batch = self._loader.take()
        if batch is None:
            return None
        x, y, weights = batch
        try:
            if y is None:
                raise DataError("expected labels: a batch as (x, y)")
            return self.model._data(x, y, weights, self.class_weight, self.caller, checked=True)
        except EngineError as error:
            raise self._loader.named(error, 1) from None

    @property
    def more(self):
        """Whether a step is left in this epoch."""
        return self._ahead is not None

    def pieces(self, seconds):
        """Runs the epoch step by step; yields the steps done so far."""
        while self._ahead is not None:
            (x, y, weights), step = self._ahead, self._done
            self._plan = self._plan_for(x, y)
            feeds = {"x": x, "y": y, "weights": weights}
            if self.optimizer is not None:
                feeds["rate"] = [self._rate(step)]
            self._plan.run(**feeds)
            self._samples += len(x)
            self._done += 1
            self._ahead = self._take()
            yield self._done

    def _plan_for(self, x, y):
        key = len(x), x.dtype, y.shape[1:], y.dtype
        if key not in self._plans:
            state, model = self.model.state, self.model
            if self.optimizer is not None:
                state.optimizer_states(self.optimizer)
            graph = training.step_graph(state, model.loss, model.metrics, len(x), y.shape[1:], y.dtype,
                                        optimizer=self.optimizer, x_dtype=x.dtype, augment=self.augment, counted=True)
            self._plans[key] = training.plan_of(graph, state, self._totals)
        return self._plans[key]

    def results(self):
        """{"loss": ..., metric: ...} of what was run since `start`."""
        return training.results(self.model.state.target, self._totals, self.model.metrics, self._samples)

    def last_loss(self, batch):
        """The loss of the step just run."""
        return float(self._plan.fetch("loss"))

    def close(self):
        """Ends the thread."""
        if self._loader is not None:
            self._loader.close()
            self._loader = self._ahead = None
