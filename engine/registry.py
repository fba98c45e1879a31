"""Things that are found by name and written to JSON: layers, initialisers, losses, optimisers, schedules, metrics.

A class's configuration is the values of its constructor's parameters, kept under the same names; that is all that is
needed to build it again.
"""
import inspect

from engine.errors import EngineError, unknown


class Configured:
    """Base of what can be written down as {"class": name, parameter: value, ...} and built again."""

    def config(self):
        """The constructor's arguments that differ from their defaults, with the class's name."""
        found = {"class": type(self).__name__}
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name == "self" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            if not hasattr(self, name):
                raise EngineError(f"{type(self).__name__}: expected its argument {name!r} to be kept as an attribute "
                                  f"of that name, so that the object can be saved and built again")
            value = getattr(self, name)
            if parameter.default is inspect.Parameter.empty or value != parameter.default:
                found[name] = _plain(value)
        return found

    def __repr__(self):
        shown = ", ".join(f"{k}={v!r}" for k, v in self.config().items() if k != "class")
        return f"{type(self).__name__}({shown})"


def _plain(value):
    if isinstance(value, Configured):
        return value.config()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(getattr(value, "name", None), str):        # an activation: found again by name
        return value.name
    if hasattr(value, "item"):
        return value.item()
    raise EngineError(f"cannot be written to JSON: {value!r}; expected numbers, strings, lists or engine objects")


class Registry(dict):
    """Public name -> class, for one kind of thing."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def add(self, cls, *aliases):
        for name in (cls.__name__, snake(cls.__name__), *aliases):
            self[name] = cls
        return cls

    def aliases(self, *names):
        """Decorator: registers a class under its own name, its snake_case form and these."""
        return lambda cls: self.add(cls, *names)

    def build(self, given, extra=()):
        """An object from an object, a class, a name, or a configuration; `extra`: a person's own classes."""
        known = {**self, **{c.__name__: c for c in extra}}
        if isinstance(given, str):
            if given not in known:
                raise unknown(self.kind, given, {c.__name__ for c in known.values()} | {
                    n for n in known if n == n.lower()})
            return known[given]()
        if isinstance(given, dict):
            arguments = {k: v for k, v in given.items() if k != "class"}
            if given.get("class") not in known:
                raise unknown(self.kind, given.get("class"), {c.__name__ for c in known.values()})
            cls = known[given["class"]]
            return cls.from_config(arguments, extra) if hasattr(cls, "from_config") else cls(**arguments)
        return given() if isinstance(given, type) else given


def snake(name):
    """LeakyReLU -> leaky_relu, BatchNorm -> batch_norm, SGD -> sgd"""
    out = ""
    for i, c in enumerate(name):
        new_word = c.isupper() and i and (name[i - 1].islower() or (i + 1 < len(name) and name[i + 1].islower()))
        out += ("_" if new_word and not out.endswith("_") else "") + c.lower()
    return out.replace("re_lu", "relu").replace("si_lu", "silu")
