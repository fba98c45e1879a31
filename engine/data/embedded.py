"""The sets inside this package: compressed arrays under files/, each with its licence beside it."""

from pathlib import Path

import numpy as np

from engine.data.catalog import Entry
from engine.data.errors import DatasetCorrupt
from engine.data.folders import Arrays

HERE = Path(__file__).parent / "files"
ADVICE = "likely a damaged installation; install the package again"


def embedded_arrays(entry: Entry) -> Arrays:
    """The set, or the part of it, that is in this package, as stored."""
    stored = read_embedded(entry.embedded)
    if entry.partial:
        return tuple(stored[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return fifth_for_testing(stored["x"], stored["y"])


def embedded_source(entry: Entry) -> str:
    """Where these arrays are from, in words."""
    part = ": the first images of each class, a part of the full set" if entry.partial else ""
    return f"{entry.embedded} inside the engine.data package{part}"


def read_embedded(file: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz in this package, after its checksum was compared."""
    import hashlib
    import io

    try:
        content = (HERE / file).read_bytes()
        sums = (HERE / "SHA256SUMS").read_text("ascii").splitlines()
        expected = {name: digest for digest, name in map(str.split, sums)}[file]
    except (OSError, KeyError, ValueError) as error:
        raise DatasetCorrupt(f"{HERE / file}: expected the file and its line in SHA256SUMS, got {error!r}; "
                             f"{ADVICE}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DatasetCorrupt(f"{HERE / file}: expected SHA-256 {expected}, got {found} of {len(content):,} bytes; "
                             f"{ADVICE}")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def fifth_for_testing(x: np.ndarray, y: np.ndarray) -> Arrays:
    """Split by rule: of the images listed class by class each fifth, from the first on, is for testing."""
    testing = np.zeros(len(y), bool)
    testing[np.argsort(y, kind="stable")[::5]] = True
    return x[~testing], y[~testing], x[testing], y[testing]
