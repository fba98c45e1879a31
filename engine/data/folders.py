"""The published files of a set on this machine: where to look, what must be there, how they become arrays."""

from pathlib import Path

import numpy as np

from engine.data.catalog import CIFAR10, CIFAR10_ARCHIVE, CIFAR10_BATCHES, IDX_FILES, Entry
from engine.data.errors import DatasetCorrupt
from engine.data.formats import read_cifar10_batches, read_idx

Arrays = tuple[np.ndarray, ...]  # four: x_train, y_train, x_test, y_test


def default_folder(name: str) -> Path:
    """Where downloads of this set go and are found again."""
    from engine.settings import cache_folder

    return cache_folder() / "data" / name


def places(entry: Entry, folder) -> list[Path]:
    """The folders to look in, in order: the one the caller names and no other, or the usual ones."""
    if folder is not None:
        return [Path(folder).expanduser()]
    return [default_folder(entry.name), *map(Path, entry.folders)]


def locate(entry: Entry, folder) -> Path | None:
    """The first place that holds every file of the set; None if there is none."""
    find = cifar10_place if entry.name == CIFAR10.name else idx_place
    return next(filter(None, map(find, places(entry, folder))), None)


def idx_place(folder: Path) -> Path | None:
    """The folder, if the four files are in it."""
    return folder if all(idx_file(folder, name) for name in IDX_FILES) else None


def idx_file(folder: Path, name: str) -> Path | None:
    """The file of this name in the folder, gzipped or unpacked."""
    for file in (folder / name, folder / name.removesuffix(".gz")):
        if file.is_file():
            return file
    return None


def cifar10_place(folder: Path) -> Path | None:
    """The folder of the six .bin files, or the archive that holds them."""
    for place in (folder, folder / "cifar-10-batches-bin"):
        if all((place / name).is_file() for name in CIFAR10_BATCHES):
            return place
    for archive in (folder, folder / CIFAR10_ARCHIVE):
        if archive.is_file():
            return archive
    return None


def read_files(entry: Entry, place: Path) -> Arrays:
    """The stored arrays of a set, each of the shape it must have."""
    if entry.name == CIFAR10.name:
        arrays = cifar10_arrays(place)
    else:
        arrays = tuple(read_idx(idx_file(place, name) or place / name, shape_of(entry, name)) for name in entry.files)
    check_arrays(entry, arrays, place)
    return arrays


def cifar10_arrays(place: Path) -> Arrays:
    """The training batches joined, and the test batch."""
    *training, testing = read_cifar10_batches(place)
    images, labels = zip(*training, strict=True)
    return np.concatenate(images), np.concatenate(labels), *testing


def shape_of(entry: Entry, file: str) -> tuple[int, ...]:
    """The shape that an idx file of this name must have."""
    count = entry.counts[0] if file.startswith("train") else entry.counts[1]
    return (count, *entry.shape) if "images" in file else (count,)


def check_arrays(entry: Entry, arrays: Arrays, place) -> None:
    """Sizes and labels of what was read, whatever the format."""
    counts = tuple(map(len, arrays))
    expected = (entry.counts[0], entry.counts[0], entry.counts[1], entry.counts[1])
    if counts != expected:
        raise DatasetCorrupt(f"{entry.name} in {str(place)!r}: expected {expected} training images, labels, test "
                             f"images, labels, got {counts}; likely a file cut short or of another set")
    highest = max(arrays[1].max(), arrays[3].max())
    if highest >= len(entry.classes):
        raise DatasetCorrupt(f"{entry.name} in {str(place)!r}: expected labels 0..{len(entry.classes) - 1}, got "
                             f"{highest}; likely the files of another set")


def missing_message(entry: Entry, folder) -> str:
    """What to do to get the files of this set."""
    looked = places(entry, folder)
    first = looked[0]
    searched = ", ".join(f"{place}{'' if place.exists() else ' (no such folder)'}" for place in looked)
    lines = [f"{entry.name}: expected the files {wanted(entry)}; got not all of them in {searched}."]
    absent, all_names = absent_files(entry, first)
    if 0 < len(absent) < len(all_names):
        lines.append(f"In {first} is missing: {', '.join(absent)}.")
    lines.append(f"Do one of: put the files into {first}; name their folder with folder=; or pass download=True to "
                 f"fetch them from {' or '.join(entry.mirrors)} into {first}.")
    if entry.folders:
        lines.append("On Debian and Ubuntu: apt-get install dataset-fashion-mnist, and leave folder= out.")
    if entry.partial:
        lines.append("Or take the part inside this package with subset=True.")
    return " ".join(lines)


def wanted(entry: Entry) -> str:
    """The file names, and the other form that is read as well."""
    if entry.name == CIFAR10.name:
        return (f"{CIFAR10_ARCHIVE} (the binary version; the Python version is pickle and never read), or unpacked "
                f"{', '.join(CIFAR10_BATCHES)}")
    return f"{', '.join(entry.files)}, or the same unpacked, without .gz"


def absent_files(entry: Entry, folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """The files that the folder lacks, of all that belong in it."""
    names = CIFAR10_BATCHES if entry.name == CIFAR10.name else entry.files
    return [name for name in names if not idx_file(folder, name)], names
