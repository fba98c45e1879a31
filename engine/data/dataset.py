"""What `load` returns: two pairs of arrays, and where they come from."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A loaded set. It unpacks as `(x_train, y_train), (x_test, y_test)` and prints as a paragraph.

    name      the name it was loaded by
    train     (x, y): images (n, height, width[, channels]) and labels (n,) int64
    test      (x, y), likewise
    classes   the name of each label, `classes[label]`
    source    where these very arrays were read from
    subset    True when this is only a part of the published set
    licence   terms of the data
    citation  what to cite

        >>> from engine import data
        >>> fashion = data.load("fashion_mnist", subset=True)
        >>> fashion.subset, fashion.classes[0]
        (True, 'T-shirt/top')
        >>> str(fashion).startswith("fashion_mnist: 2,000 training and 500 test images")
        True
    """

    name: str
    train: Pair
    test: Pair
    classes: tuple[str, ...]
    source: str
    subset: bool
    licence: str
    citation: str

    def __iter__(self) -> Iterator[Pair]:
        return iter((self.train, self.test))

    def __repr__(self) -> str:
        images = self.train[0]
        values = "in [0, 1]" if images.dtype.kind == "f" else "as stored"
        part = " This is only a SUBSET of the published set." if self.subset else ""
        return (
            f"{self.name}: {len(images):,} training and {len(self.test[0]):,} test images of "
            f"{'x'.join(map(str, images.shape[1:]))} {images.dtype.name} values {values}, "
            f"{len(self.classes)} classes ({', '.join(self.classes)}).{part} "
            f"Source: {self.source}. Licence: {self.licence}. Cite: {self.citation}"
        )
