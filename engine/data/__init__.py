"""Data to learn from: well-known image sets, toy problems, readers and the usual preparations.

    >>> from engine import data
    >>> digits = data.load("digits")
    >>> (x_train, y_train), (x_test, y_test) = digits
    >>> x_train.shape, x_train.dtype.name, y_test.shape
    ((1437, 8, 8), 'float32', (360,))

`load` reads a set by name; `toy` makes a small problem; `split`, `standardise`, `one_hot` and `batches` prepare any
arrays; `read_idx` and `read_cifar10` read the two file formats; `image_folder` reads pictures batch by batch, `Lazy`
is the base of whatever else does so; `augment` changes images by chance while a model trains. Needs NumPy only;
nothing is read, and nothing ever downloaded, on import.
"""

from engine.data import augment
from engine.data.arrays import batches, one_hot, split, standardise
from engine.data.catalog import NAMES
from engine.data.dataset import Dataset
from engine.data.errors import DatasetCorrupt, DatasetMissing
from engine.data.formats import read_cifar10, read_idx
from engine.data.images import Images, image_folder
from engine.data.loading import load
from engine.data.streams import Lazy
from engine.data.toys import TOYS, toy

__all__ = [
    "NAMES", "TOYS", "Dataset", "DatasetCorrupt", "DatasetMissing", "Images", "Lazy",
    "augment", "batches", "image_folder", "load", "one_hot", "read_cifar10", "read_idx", "split", "standardise", "toy",
]
