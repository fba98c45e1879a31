"""Learning-rate schedules: rate as a function of the step, counted from 0 over the whole training.

    Adam(Cosine(1e-3, steps=10_000, warmup=500))
"""
import math

from engine.registry import Configured, Registry

SCHEDULES = Registry("schedule")


class Schedule(Configured):
    """Subclasses give `at(step)`. A float can stand for `Constant(float)`."""

    def at(self, step):
        raise NotImplementedError(f"{type(self).__name__}: a schedule needs a method at(step)")

    def __eq__(self, other):
        return type(self) is type(other) and self.config() == other.config()

    __hash__ = None


@SCHEDULES.aliases()
class Constant(Schedule):
    """Always the same rate."""

    def __init__(self, rate):
        self.rate = float(rate)

    def at(self, step):
        return self.rate


@SCHEDULES.aliases("step")
class Steps(Schedule):
    """rate * factor^(number of whole `every` steps done)."""

    def __init__(self, rate, every, factor=0.1):
        self.rate, self.every, self.factor = float(rate), int(every), float(factor)

    def at(self, step):
        return self.rate * self.factor ** (step // self.every)


@SCHEDULES.aliases()
class Exponential(Schedule):
    """rate * factor^(step / every), smoothly."""

    def __init__(self, rate, every, factor=0.96):
        self.rate, self.every, self.factor = float(rate), int(every), float(factor)

    def at(self, step):
        return self.rate * self.factor ** (step / self.every)


@SCHEDULES.aliases()
class Cosine(Schedule):
    """Linear warm-up over `warmup` steps, then half a cosine down to `end` at `steps` (Loshchilov, Hutter 2016)."""

    def __init__(self, rate, steps, warmup=0, end=0.0):
        self.rate, self.steps, self.warmup, self.end = float(rate), int(steps), int(warmup), float(end)
        if not 0 <= self.warmup < self.steps:
            raise ValueError(f"Cosine: expected 0 <= warmup < steps, got warmup {warmup} and steps {steps}")

    def at(self, step):
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.end + (self.rate - self.end) * (1 + math.cos(math.pi * done)) / 2


@SCHEDULES.aliases()
class OneCycle(Schedule):
    """Cosine up from rate / start_factor to rate over `rise` of the steps, then down to rate / end_factor
    (Smith, Topin 2017)."""

    def __init__(self, rate, steps, rise=0.3, start_factor=25.0, end_factor=1e4):
        self.rate, self.steps, self.rise = float(rate), int(steps), float(rise)
        self.start_factor, self.end_factor = float(start_factor), float(end_factor)

    def at(self, step):
        top = self.rise * self.steps
        low, high, done = ((self.rate / self.start_factor, self.rate, step / max(top, 1)) if step < top else
                           (self.rate / self.end_factor, self.rate, 1 - (step - top) / max(self.steps - top, 1)))
        return low + (high - low) * (1 - math.cos(math.pi * min(1.0, max(0.0, done)))) / 2


def get(given):
    """A schedule from a number, an object or a configuration."""
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        if not given >= 0 or math.isinf(given):
            raise ValueError(f"learning_rate: expected a finite number of at least 0, got {given!r}")
        return Constant(given)
    return SCHEDULES.build(given)
