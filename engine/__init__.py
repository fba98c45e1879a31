"""A neural-network engine whose every kernel is Python that a person can read, change and trust.

    import engine
    from engine import Dense, Sequential
    model = Sequential([Dense(64, activation="relu"), Dense(10)])
    model.compile(optimizer=engine.optimizers.Adam(1e-3), loss="cross_entropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=5, batch_size=32, validation_data=(xv, yv))
"""
from engine import (
    callbacks,
    data,
    errors,
    initializers,
    kernels,
    layers,
    losses,
    metrics,
    optimizers,
    schedules,
    target,
    zoo,
)
from engine.kernels.activation import activation
from engine.kernels.emulator import emulate
from engine.kernels.entry import threads
from engine.kernels.op import Op
from engine.layers import *  # noqa: F403
from engine.layers import __all__ as _layers
from engine.layers.activations import add_activation
from engine.model import Sequential, load
from engine.state import seed
from engine.target import from_dlpack
from engine.torch_weights import load_torch, torch_state
from engine.version import __version__

__all__ = ["Op", "Sequential", "activation", "add_activation", "callbacks", "data", "emulate", "errors", "from_dlpack",
           "initializers", "kernels", "layers", "load", "load_torch", "losses", "metrics", "optimizers", "schedules",
           "seed", "target", "threads", "torch_state", "zoo",
           *(name for name in _layers if name[0].isupper())]
