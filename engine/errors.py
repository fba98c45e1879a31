"""The engine's errors: each says what was expected, what came, the likely cause, and names the layer or op."""


class EngineError(Exception):
    """Base of all errors that the engine raises on purpose."""


class ShapeError(EngineError, ValueError):
    """A shape, size or label that does not fit."""


class DtypeError(EngineError, TypeError):
    """An element type that an op does not take."""


class UnknownName(EngineError, KeyError):
    """A name that is in no table; the text lists the near ones."""

    def __str__(self):                       # KeyError would print the text quoted
        return self.args[0]


class TargetError(EngineError, RuntimeError):
    """A target that is not present, or an array on the wrong one."""


class EmulationError(EngineError, RuntimeError):
    """A mistake that the CUDA emulator found in a kernel or in its launch."""


class UnsupportedKernel(EmulationError):
    """A kernel that uses something the CUDA emulator does not have."""


class DataError(EngineError, ValueError):
    """Data that cannot be trained on: NaN, infinite, empty."""


class FileError(EngineError, ValueError):
    """A file that is truncated, foreign or does not fit the model."""


def unknown(kind, name, known):
    """An `UnknownName` that lists what there is, the nearest names first."""
    import difflib
    near = difflib.get_close_matches(str(name), list(known), 3, 0.4)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return UnknownName(f"{kind}: unknown name {name!r}{hint} Known: {', '.join(sorted(known))}")
