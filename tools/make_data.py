"""Rebuild the data files inside engine/data/files from their published sources, or check that they still agree.

    pip install scikit-learn; apt-get install dataset-fashion-mnist
    python -m tools.make_data            # write digits.npz, fashion_mnist_subset.npz, SHA256SUMS
    python -m tools.make_data --check    # compare every array with the sources; write nothing

Both sets are chosen by a rule, without chance, so that the sources alone decide the arrays. The bytes of an .npz may
differ between versions of zlib; the arrays may not.
"""

import argparse
import hashlib
import sys

import numpy as np

from engine.data.catalog import FASHION_MNIST
from engine.data.embedded import HERE
from engine.data.folders import locate, read_files

TRAINING, TESTING = 200, 50  # images of each class of Fashion-MNIST


def digits() -> dict[str, np.ndarray]:
    """The whole set, in the file's order."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return {"x": bunch.images.astype(np.uint8), "y": bunch.target.astype(np.uint8)}


def fashion_mnist(folder: str) -> dict[str, np.ndarray]:
    """The first images of each class, in the file's order."""
    place = locate(FASHION_MNIST, folder)
    if place is None:
        sys.exit(f"no Fashion-MNIST in {folder}: apt-get install dataset-fashion-mnist, or name its folder (--fashion)")
    x_train, y_train, x_test, y_test = read_files(FASHION_MNIST, place)
    train, test = first_of_each(y_train, TRAINING), first_of_each(y_test, TESTING)
    return {"x_train": x_train[train], "y_train": y_train[train], "x_test": x_test[test], "y_test": y_test[test]}


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first `count` examples of each class, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))


def write(name: str, arrays: dict[str, np.ndarray]) -> str:
    """Write the file; its line for SHA256SUMS."""
    np.savez_compressed(HERE / name, **arrays)
    content = (HERE / name).read_bytes()
    print(f"{name}: {len(content):,} bytes")
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n"


def agree(name: str, arrays: dict[str, np.ndarray]) -> bool:
    """True when the file holds exactly these arrays."""
    with np.load(HERE / name, allow_pickle=False) as stored:
        same = set(stored) == set(arrays) and all(
            stored[key].dtype == value.dtype and np.array_equal(stored[key], value) for key, value in arrays.items()
        )
    print(f"{name}: {'agrees with its source' if same else 'DIFFERS from its source'}")
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing; exit status: how many differ")
    parser.add_argument("--fashion", default=FASHION_MNIST.folders[0], help="folder of the full set (%(default)s)")
    arguments = parser.parse_args()
    made = {"digits.npz": digits(), "fashion_mnist_subset.npz": fashion_mnist(arguments.fashion)}
    if arguments.check:
        return sum(not agree(name, arrays) for name, arrays in made.items())
    (HERE / "SHA256SUMS").write_text("".join(write(name, arrays) for name, arrays in made.items()), "ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
