"""Callbacks: what happens around epochs and batches of a fit.

A callback with `on_batch_begin` or `on_batch_end` makes the fit run one step at a time; without one an epoch runs in
large pieces with no Python between the steps.
"""
import csv
import math
import os
import time

from engine import progress, schedules
from engine.errors import unknown


class Callback:
    """Base; `self.model` is the model that is fitted. `logs` maps names to the epoch's figures."""
    model = None

    def on_train_begin(self):
        """Before the first epoch."""

    def on_train_end(self):
        """After the last epoch, also of a fit that was stopped."""

    def on_epoch_begin(self, epoch):
        """Before an epoch, counted from 0."""

    def on_epoch_end(self, epoch, logs):
        """After an epoch and its validation."""

    def on_batch_begin(self, batch):
        """Before a training step."""

    def on_batch_end(self, batch, logs):
        """After a training step; logs has its loss."""

    def state(self):
        """What a checkpoint has to keep of this callback: numbers and strings by name."""
        return {}

    def restore(self, state):
        """Takes back what `state` gave."""

    @property
    def every_batch(self):
        cls = type(self)
        return cls.on_batch_begin is not Callback.on_batch_begin or cls.on_batch_end is not Callback.on_batch_end


class _Watching(Callback):
    """A callback that watches one figure; mode "auto": accuracies and F1 go up, the rest goes down."""

    def __init__(self, monitor, mode, min_delta=0.0):
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{type(self).__name__}: expected mode auto, min or max, got {mode!r}")
        self.monitor, self.min_delta = monitor, abs(min_delta)
        rising = any(word in monitor for word in ("acc", "top_", "precision", "recall", "f1"))
        self.sign = 1 if mode == "max" or (mode == "auto" and rising) else -1
        self.best = None

    def better(self, logs):
        """Whether the watched figure has improved; remembers it then."""
        if self.monitor not in logs:
            raise unknown(f"{type(self).__name__}: monitor", self.monitor, logs)
        value = logs[self.monitor]
        if not math.isnan(value) and (self.best is None or self.sign * (value - self.best) > self.min_delta):
            self.best = value
            return True
        return False

    def state(self):
        return {"best": self.best}

    def restore(self, state):
        self.best = state["best"]


class EarlyStopping(_Watching):
    """Stops when `monitor` has not improved for `patience` epochs; can put the best weights back."""

    def __init__(self, monitor="val_loss", patience=5, min_delta=0.0, mode="auto", restore_best_weights=False):
        super().__init__(monitor, mode, min_delta)
        self.patience, self.restore_best_weights = patience, restore_best_weights
        self.waited, self.weights, self.stopped_epoch = 0, None, None

    def on_epoch_end(self, epoch, logs):
        if self.better(logs):
            self.waited = 0
            if self.restore_best_weights:
                self.weights = self.model.get_weights()
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self):
        if self.restore_best_weights and self.weights is not None:
            self.model.set_weights(self.weights)

    def state(self):
        return {**super().state(), "waited": self.waited}

    def restore(self, state):
        super().restore(state)
        self.waited = state["waited"]


class Goal(_Watching):
    """Stops as soon as `monitor` is as good as `value`; `epoch` and `seconds` (since the fit began) say when, None
    before."""

    def __init__(self, monitor, value, mode="auto"):
        super().__init__(monitor, mode)
        self.value, self.epoch, self.seconds, self._started = value, None, None, 0.0

    def on_train_begin(self):
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs):
        if self.better(logs) and self.sign * (self.best - self.value) >= 0:
            self.epoch, self.seconds = epoch, time.perf_counter() - self._started
            self.model.stop_training = True


class ModelCheckpoint(_Watching):
    """Saves the model (with optimiser and counters) after each epoch, or only when `monitor` improved. `path` may hold
    {epoch} and the figures' names, as in "net-{epoch:02d}-{val_loss:.3f}.safetensors"."""

    def __init__(self, path, monitor="val_loss", mode="auto", save_best_only=False):
        super().__init__(monitor, mode)
        self.path, self.save_best_only = os.fspath(path), save_best_only

    def on_epoch_end(self, epoch, logs):
        if not self.save_best_only or self.better(logs):
            self.model.save(self.path.format(epoch=epoch + 1, **{k: v for k, v in logs.items()}))


class CSVLogger(Callback):
    """Writes one line an epoch to a CSV file; append=True goes on with an old one."""

    def __init__(self, path, append=False):
        self.path, self.append = os.fspath(path), append
        self._names = None

    def on_train_begin(self):
        if not self.append and os.path.exists(self.path):
            os.remove(self.path)

    def on_epoch_end(self, epoch, logs):
        figures = {k: v for k, v in logs.items() if isinstance(v, (int, float))}
        fresh = not os.path.exists(self.path) or not os.path.getsize(self.path)
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *figures], extrasaction="ignore")
            if fresh:
                writer.writeheader()
            writer.writerow({"epoch": epoch, **figures})


class LearningRateScheduler(Callback):
    """Sets the rate at each epoch: schedule(epoch) -> rate, or schedule(epoch, rate) -> rate."""

    def __init__(self, schedule):
        self.schedule = schedule
        self._arguments = schedule.__code__.co_argcount if hasattr(schedule, "__code__") else 1

    def on_epoch_begin(self, epoch):
        now = self.model.optimizer.learning_rate.at(self.model.step)
        rate = self.schedule(*(epoch, now)[:self._arguments])
        self.model.optimizer.learning_rate = schedules.get(float(rate))


class ReduceOnPlateau(_Watching):
    """Multiplies the rate by `factor` when `monitor` has not improved for `patience` epochs."""

    def __init__(self, monitor="val_loss", factor=0.1, patience=10, min_delta=1e-4, mode="auto", min_rate=0.0):
        super().__init__(monitor, mode, min_delta)
        self.factor, self.patience, self.min_rate, self.waited = factor, patience, min_rate, 0

    def on_epoch_end(self, epoch, logs):
        if self.better(logs):
            self.waited = 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.waited = 0
            now = self.model.optimizer.learning_rate.at(self.model.step)
            self.model.optimizer.learning_rate = schedules.get(max(self.min_rate, now * self.factor))
            progress.notice(f"ReduceOnPlateau: learning rate {now:.3g} -> "
                            f"{self.model.optimizer.learning_rate.at(self.model.step):.3g} after epoch {epoch + 1}")

    def state(self):
        return {**super().state(), "waited": self.waited}

    def restore(self, state):
        super().restore(state)
        self.waited = state["waited"]


class LambdaCallback(Callback):
    """A callback from functions: LambdaCallback(on_epoch_end=lambda epoch, logs: ...)."""

    def __init__(self, **functions):
        for name, function in functions.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise unknown("LambdaCallback", name, [n for n in dir(Callback) if n.startswith("on_")])
            setattr(self, name, function)
        self._batches = any(name.startswith("on_batch") for name in functions)

    @property
    def every_batch(self):
        return self._batches
