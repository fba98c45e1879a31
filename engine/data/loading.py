"""`load`: a set by its name, from this package, a folder, the system, or (only when asked) the network."""

import os

import numpy as np

from engine.data.catalog import CATALOG, NAMES, Entry
from engine.data.dataset import Dataset
from engine.data.embedded import embedded_arrays, embedded_source
from engine.data.errors import DatasetMissing
from engine.data.folders import Arrays, locate, missing_message, places, read_files
from engine.errors import unknown

TYPES = ("float32", "uint8")


def load(
    name: str,
    folder: str | os.PathLike | None = None,
    *,
    download: bool = False,
    dtype: str = "float32",
    subset: bool | None = None,
    mirror: str | None = None,
) -> Dataset:
    """Load a set as `(x_train, y_train), (x_test, y_test)`.

    name      "digits"         1,437 + 360 images (8, 8), in this package
              "fashion_mnist"  60,000 + 10,000 images (28, 28); 2,000 + 500 of them are in this package
              "mnist"          60,000 + 10,000 images (28, 28)
              "cifar10"        50,000 + 10,000 images (32, 32, 3), channels last; the binary version
    folder    where the published files lie, gzipped or not; then nothing else is looked at. None looks into
              <user cache>/data/<name> and into the system's folder (Debian's dataset-fashion-mnist)
    download  True fetches files that were not found, into `folder` or the user's cache, after checking them
    dtype     "float32": values divided by the largest stored one, so in [0, 1]; "uint8": values as stored, 0..255
              (digits: 0..16)
    subset    for "fashion_mnist": None takes the full set if it is found, else the part in this package, or, with a
              `folder`, fails; True takes the part; False the full set or fails. The result's `.subset` and its printed
              summary say which it is
    mirror    base address to download the same file names from, instead of the published one

    Returns a `Dataset`; x of `dtype`, y int64 (n,), both writable. CIFAR-10 as float32 takes 740 MB, as uint8 185 MB.
    Raises DatasetMissing (a FileNotFoundError) that says which files to put where, DatasetCorrupt (a ValueError) when
    a file is damaged, UnknownName (a KeyError) for another name, ValueError for arguments that make no sense.

    The split of digits is a rule, without chance: the images are listed class by class, in the file's order, and each
    fifth, from the first on, is for testing. Its 13 writers are then in both halves, as is usual for this set.

        >>> from engine import data
        >>> (x_train, y_train), (x_test, y_test) = data.load("digits")
        >>> x_test.shape, float(x_test.max()), y_test[:5].tolist()
        ((360, 8, 8), 1.0, [0, 2, 4, 7, 1])
    """
    entry = find(name)
    dtype = plain_dtype(dtype)
    check_arguments(entry, folder, download, subset, mirror)
    place = None if subset or not entry.files else locate(entry, folder)
    if place is None and download and entry.files:
        place = fetch(entry, folder, mirror)
    if place is not None:
        return finish(entry, read_files(entry, place), dtype, str(place), subset=False)
    if entry.embedded and subset is not False and folder is None or not entry.files:
        return finish(entry, embedded_arrays(entry), dtype, embedded_source(entry), subset=entry.partial)
    raise DatasetMissing(missing_message(entry, folder))


def find(name: str) -> Entry:
    """The catalogue's entry, or an error that lists the names."""
    if name not in CATALOG:
        raise unknown("data set", name, NAMES)
    return CATALOG[name]


def plain_dtype(dtype) -> str:
    """The type's name, given as a name, a NumPy type or a dtype."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = dtype
    if dtype is None or name not in TYPES:
        raise ValueError(f"dtype: expected 'float32' (values in [0, 1]) or 'uint8' (as stored), got {dtype!r}; convert "
                         "the arrays afterwards for another type")
    return name


def check_arguments(entry: Entry, folder, download: bool, subset: bool | None, mirror: str | None) -> None:
    """Refuse what would otherwise be ignored in silence."""
    if not entry.files and (folder is not None or mirror is not None):
        raise ValueError(f"folder, mirror: expected None for {entry.name!r}, which is inside the package, got "
                         f"folder={folder!r}, mirror={mirror!r}")
    if subset and not entry.partial:
        raise ValueError(f"subset: expected None or False for {entry.name!r}, of which no part is in the package, got "
                         "True; only 'fashion_mnist' has one")
    if subset and (folder is not None or download):
        raise ValueError(f"subset: True takes the part inside the package, but got folder={folder!r}, "
                         f"download={download}; leave one of them out")
    if mirror is not None and not download:
        raise ValueError(f"mirror: expected None without download=True, got {mirror!r}")


def fetch(entry: Entry, folder, mirror: str | None):
    """Download what is missing; the place where it now is."""
    from engine.data.download import download_set

    target = places(entry, folder)[0]
    download_set(entry, target, mirror)
    return locate(entry, target)


def finish(entry: Entry, arrays: Arrays, dtype: str, source: str, subset: bool) -> Dataset:
    """Values and labels in the types that the caller asked for, with the set's papers."""
    x_train, y_train, x_test, y_test = arrays
    if dtype == "float32":
        x_train, x_test = (np.divide(x, np.float32(entry.top), dtype=np.float32) for x in (x_train, x_test))
    return Dataset(
        name=entry.name, train=(x_train, y_train.astype(np.int64)), test=(x_test, y_test.astype(np.int64)),
        classes=entry.classes, source=source, subset=subset, licence=entry.licence, citation=entry.citation,
    )
