"""The only file that reads environment variables.

| variable | meaning | default |
|---|---|---|
| `ENGINE_TARGET` | `cpu`, `cuda` or `cuda-emulated`: the target of new models | cuda when a GPU is present, else cpu |
| `ENGINE_EMULATION` | `check` or `race`: what the target cuda-emulated looks for in every launch | nothing |
| `ENGINE_CACHE_DIR` | folder for compiled kernels and downloaded data | `$XDG_CACHE_HOME/engine`, `~/.cache/engine` |
| `ENGINE_THREADS` | threads of the CPU target; on Linux also processes that compile for it | numba's, or the cores |
| `ENGINE_QUIET` | `1`: do not announce compiling | `0` |
"""
import os
import pathlib


def target():
    """The target asked for by `ENGINE_TARGET`, or None."""
    return os.environ.get("ENGINE_TARGET", "").strip().lower() or None


def emulation():
    """What the emulated CUDA target looks for: a set of the words of `ENGINE_EMULATION`."""
    words = set(os.environ.get("ENGINE_EMULATION", "").lower().replace(",", " ").split())
    if words - {"check", "race"}:
        raise ValueError(f"ENGINE_EMULATION: expected check or race, got {' '.join(sorted(words))!r}")
    return words


def cache_folder():
    """Where compiled kernels and downloaded data live (a `pathlib.Path`; it need not exist yet)."""
    own = os.environ.get("ENGINE_CACHE_DIR")
    if own:
        return pathlib.Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(base) if base else pathlib.Path.home() / ".cache") / "engine"


def threads():
    """The number of threads asked for by `ENGINE_THREADS`, or None."""
    text = os.environ.get("ENGINE_THREADS", "").strip()
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"ENGINE_THREADS: expected a whole number of at least 1, got {text!r}")
    return int(text)


def quiet():
    """True when compiling is not to be announced."""
    return os.environ.get("ENGINE_QUIET", "0").strip() not in ("", "0")
