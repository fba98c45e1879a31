"""Readers of the two file formats: idx (MNIST and its kin) and CIFAR-10's binary batches. Never pickle.

idx, big-endian (http://yann.lecun.com/exdb/mnist/):
    0, 0, type code, number of dimensions D | D sizes of 4 bytes each | the values, row by row
CIFAR-10 binary (https://www.cs.toronto.edu/~kriz/cifar.html), one record of 3,073 bytes an image:
    label | 1,024 red | 1,024 green | 1,024 blue values, each plane row by row
"""

import math
import os
from pathlib import Path

import numpy as np

from engine.data.catalog import CIFAR10_BATCHES
from engine.data.errors import DatasetCorrupt

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CIFAR10_RECORD = 1 + 3 * 32 * 32
SPOILT = "likely a download that was cut short or an error page saved under this name; fetch the file again"


def read_idx(path: str | os.PathLike, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Read one idx file, plain or gzipped (told apart by its first bytes, not by its name).

    path   the file
    shape  the shape that it must have; None takes whatever the file says

    Returns a writable array of the shape in the file, in native byte order: uint8, int8, int16, int32, float32 or
    float64. Raises FileNotFoundError when there is no such file, DatasetCorrupt when it is truncated, too long,
    damaged, not idx, or of another shape.

        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "labels")
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(file)
        array([7, 2, 1], dtype=uint8)
    """
    import gzip
    import zlib

    try:
        with open(path, "rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            return parse_idx(gzip.GzipFile(fileobj=plain) if zipped else plain, path, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetCorrupt(f"path={str(path)!r}: expected a whole gzip file, got: {error}; {SPOILT}") from error


def parse_idx(stream, path, shape) -> np.ndarray:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES:
        codes = ", ".join(f"{code:#04x}" for code in IDX_TYPES)
        raise DatasetCorrupt(f"path={str(path)!r}: expected an idx file, whose first 4 bytes are 0, 0, a type code "
                             f"({codes}) and the number of dimensions, got {head.hex(' ') or 'nothing'}; {SPOILT}")
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DatasetCorrupt(f"path={str(path)!r}: expected {head[3]} sizes in the header, got {len(sizes)} bytes; "
                             f"{SPOILT}")
    found = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if shape is not None and found != tuple(shape):
        raise DatasetCorrupt(f"path={str(path)!r}: expected shape {tuple(shape)}, got {found} in the header; likely "
                             "the file of another set, or of the other half (train/t10k, images/labels)")
    kind = np.dtype(IDX_TYPES[head[2]])
    size = math.prod(found) * kind.itemsize
    content = read_at_most(stream, size + 1)  # one more, to notice a file that is too long
    if len(content) != size:
        got = f"{len(content):,}" if len(content) < size else "more"
        raise DatasetCorrupt(f"path={str(path)!r}: expected {size:,} bytes of values for shape {found}, got {got}; "
                             f"{SPOILT}")
    return np.frombuffer(content, kind).reshape(found).astype(kind.newbyteorder("="))


def read_at_most(stream, size: int) -> bytes:
    """Up to `size` bytes, in blocks: a damaged header may ask for more than there is memory."""
    blocks = []
    while size > 0 and (block := stream.read(min(size, 1 << 24))):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


def read_cifar10(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read one batch of CIFAR-10's *binary version*, for example data_batch_1.bin.

    Returns images (n, 32, 32, 3) uint8, channels last, and labels (n,) uint8. Raises FileNotFoundError when there is
    no such file, DatasetCorrupt when its size is not a whole number of records or a label is above 9.

        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "data_batch_1.bin")
        ...     _ = file.write_bytes(bytes([6]) + bytes(3072))
        ...     images, labels = read_cifar10(file)
        >>> images.shape, labels.tolist()
        ((1, 32, 32, 3), [6])
    """
    return parse_cifar10(Path(path).read_bytes(), path)


def parse_cifar10(content: bytes, path) -> tuple[np.ndarray, np.ndarray]:
    if not content or len(content) % CIFAR10_RECORD:
        raise DatasetCorrupt(f"path={str(path)!r}: expected a multiple of {CIFAR10_RECORD:,} bytes (label and 32x32x3 "
                             f"values), got {len(content):,} bytes; likely cut short, or the Python version (pickle), "
                             "which is never read: take the binary version")
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR10_RECORD)
    labels = records[:, 0].copy()
    if labels.max() > 9:
        raise DatasetCorrupt(f"path={str(path)!r}: expected labels 0..9, got {labels.max()}; likely CIFAR-100 or "
                             "another format")
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def read_cifar10_batches(place: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The five training batches and the test batch, in that order, from a folder or from the .tar.gz."""
    if place.is_dir():
        return [read_cifar10(place / name) for name in CIFAR10_BATCHES]
    contents = tar_contents(place, CIFAR10_BATCHES)
    return [parse_cifar10(contents[name], f"{place}:{name}") for name in CIFAR10_BATCHES]


def tar_contents(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Contents of the named members, read into memory: nothing is unpacked to disk, so no member can escape."""
    import gzip
    import tarfile
    import zlib

    contents = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                content = archive.extractfile(member) if member.isreg() and name in names else None
                if content is not None:
                    contents[name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetCorrupt(f"path={str(path)!r}: expected a whole .tar.gz, got: {error}; {SPOILT}") from error
    missing = [name for name in names if name not in contents]
    if missing:
        raise DatasetCorrupt(f"path={str(path)!r}: expected members {', '.join(names)}, got none named "
                             f"{', '.join(missing)}; likely the Python version (pickle): take the binary version")
    return contents
