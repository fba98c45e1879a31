"""Models on disk: one safetensors file with the weights and, in its metadata, the architecture as JSON. No pickle.

A file is written under a temporary name, synced to disk and then renamed: a crash leaves the old file or the new one,
never half of one.
"""
import json
import os
import tempfile

import numpy as np

from engine.errors import FileError

FORMAT = "engine-sequential"
VERSION = 1


def write(path, tensors, description):
    """tensors: name -> array; description: what JSON can hold."""
    from safetensors.numpy import save
    path = os.fspath(path)
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()},
                {"format": FORMAT, "version": str(VERSION), "model": json.dumps(description)})
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=os.path.basename(path) + ".", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def read(path):
    """(tensors, description); a truncated or foreign file is a FileError that says which."""
    from safetensors import SafetensorError, safe_open
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"load: no file {path!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            found = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"load: {path!r} is not a whole safetensors file ({os.path.getsize(path)} bytes): {error}; was "
                        f"its writing or copying cut short, or is it another kind of file?") from None
    if found.get("format") != FORMAT:
        raise FileError(f"load: {path!r} is a safetensors file, but not one that engine's save wrote (format "
                        f"{found.get('format')!r}); its tensors: {', '.join(list(tensors)[:5])}")
    if int(found.get("version", 0)) > VERSION:
        raise FileError(f"load: {path!r} was written by a newer engine (file version {found['version']}, this engine "
                        f"reads up to {VERSION}); upgrade the engine")
    return tensors, json.loads(found["model"])


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder):
    if hasattr(os, "O_DIRECTORY"):           # makes the rename itself durable
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
