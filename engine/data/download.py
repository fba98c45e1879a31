"""Downloads: only on request, to a temporary file that is checked before it takes its name."""

import hashlib
import math
import os
from pathlib import Path

from engine.data.catalog import CIFAR10, Entry
from engine.data.errors import DatasetCorrupt, DatasetMissing
from engine.data.folders import check_arrays, cifar10_arrays, idx_file, shape_of
from engine.data.formats import read_idx

TIMEOUT = 30  # seconds without an answer or a byte
BLOCK = 1 << 20  # bytes
SLACK = 1 << 20  # bytes that packing may add to values that do not shrink


def download_set(entry: Entry, folder: Path, mirror: str | None = None) -> None:
    """Fetch the files of a set that the folder lacks; a file appears there only whole and checked."""
    folder.mkdir(parents=True, exist_ok=True)
    bases = (mirror,) if mirror is not None else entry.mirrors
    for file in entry.files:
        if not idx_file(folder, file):  # the other files of an interrupted download are kept
            download_file(entry, file, folder / file, bases)


def download_file(entry: Entry, file: str, target: Path, bases: tuple[str, ...]) -> None:
    """Try each address in turn; DatasetMissing tells what went wrong at each."""
    from http.client import HTTPException

    failures = []
    for base in bases:
        address = f"{base.rstrip('/')}/{file}"
        try:
            return fetch_checked(entry, file, address, target)
        except (OSError, HTTPException, DatasetCorrupt) as error:
            failures.append(f"{address}: {error}")
    raise DatasetMissing(f"{entry.name}: expected to download {file}, got {'; '.join(failures)}. Likely no network, or "
                         f"an address that moved: pass mirror=, or put the file into {target.parent} yourself.")


def fetch_checked(entry: Entry, file: str, address: str, target: Path) -> None:
    """Download beside the target, check, rename: several processes may do this at once without harm."""
    import tempfile

    handle, name = tempfile.mkstemp(prefix=f".{file}.", suffix=".part", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            copy(address, out, most=size_limit(entry))
        check(entry, file, temporary)
        temporary.chmod(0o644)  # mkstemp makes it private; others may read this folder
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def size_limit(entry: Entry) -> int:
    """No file of the set, packed or not, is larger than all its values and labels."""
    return sum(entry.counts) * (math.prod(entry.shape) + 1) + SLACK


def copy(address: str, out, most: int) -> None:
    """Copy what the address gives, block by block, and refuse a short or an endless answer."""
    from urllib.request import Request, urlopen

    request = Request(address, headers={"User-Agent": "engine.data"})
    with urlopen(request, timeout=TIMEOUT) as answer:
        promised = answer.headers.get("Content-Length")
        got = 0
        while block := answer.read(BLOCK):
            got += len(block)
            if got > most:
                raise DatasetCorrupt(f"expected at most {most:,} bytes, got more; likely another file")
            out.write(block)
    if promised is not None and got != int(promised):
        raise DatasetCorrupt(f"expected {int(promised):,} bytes, got {got:,}; likely a broken connection")


def check(entry: Entry, file: str, path: Path) -> None:
    """Read the file as `load` will, and compare the checksum of its values where one is known."""
    if entry.name == CIFAR10.name:
        return check_arrays(entry, cifar10_arrays(path), path)
    values = read_idx(path, shape_of(entry, file))
    expected = dict(entry.digests).get(file)
    found = hashlib.sha256(values.data).hexdigest() if expected else None
    if found != expected:
        raise DatasetCorrupt(f"expected values of SHA-256 {expected}, got {found}; likely another file")
