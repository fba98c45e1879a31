"""Pictures in folders, one folder a class, read batch by batch when they are needed (with Pillow, the extra `images`).

    images, labels = data.image_folder("flowers", size=(64, 64))
    model.fit(images, labels, validation_split=0.1, shuffle=True)
"""
from pathlib import Path

import numpy as np

from engine.data.streams import Lazy
from engine.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Images(Lazy):
    """Pictures as an array (n, height, width, channels) of bytes 0 to 255 that is read when it is asked for.

    files      the pictures' paths, in order
    classes    the classes' names: of label k, `classes[k]`
    """
    dtype: np.dtype = np.dtype(np.uint8)

    def __init__(self, files, size, channels=3, classes=()):
        if channels not in (1, 3):
            raise ValueError(f"image_folder: expected channels 1 (grey) or 3 (red, green, blue), got {channels!r}")
        self.files, self.classes = list(files), tuple(classes)
        self.shape = len(self.files), *size, channels

    def rows(self, index):
        out = np.empty((len(index), *self.shape[1:]), np.uint8)
        for place, number in enumerate(index):
            out[place] = self._read(self.files[number])
        return out

    def _read(self, file):
        from PIL import Image, UnidentifiedImageError
        _, height, width, channels = self.shape
        kind = "L" if channels == 1 else "RGB"
        try:
            with Image.open(file) as picture:
                picture.draft(kind, (width, height))         # a JPEG can be read at a fraction of its size
                made = picture.convert(kind).resize((width, height), Image.Resampling.BILINEAR)
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise DataError(f"{file}: expected a picture, got {error}; likely damaged, or no picture") from error
        return np.asarray(made).reshape(height, width, channels)


def image_folder(folder, size, channels=3):
    """The pictures below `folder`, one folder inside it for each class.

    size       (height, width) that every picture is brought to
    channels   3, or 1 for grey

    Returns (images, labels): an `Images`, from which a model reads batch by batch, and int64 labels (n,), the classes
    numbered by name. The order is that of classes and file names; `fit` shuffles it in every epoch. As bytes they are
    0 to 255: begin the model with `Rescaling(1 / 255)`. Raises DataError for a folder without classes or pictures.
    """
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError("image_folder: Pillow is not installed; pip install 'engine[images]' does that") from None
    folder = Path(folder).expanduser()
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"image_folder: expected pictures ({', '.join(SUFFIXES)}) in {folder / name}, got none")
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataError(f"image_folder: expected a folder with one folder of pictures for each class, got {folder}"
                        f"{'' if folder.is_dir() else ', which does not exist'}")
    return Images(files, tuple(size), channels, classes), np.array(labels, np.int64)
