"""What is drawn for a sample: whole numbers and boxes from random words. The same formulas on both targets.

Words are uint64 numbers below 2**32. All here is computed in float64, whatever the images are made of: a box does not
move with the precision.
"""
import math

import numpy as np

HALF, WORD = np.uint64(32), 2.0 ** -32
TRIES = 256                                  # a share of mixing is found in far fewer


def whole_at(word, count):
    """A whole number from 0 to count - 1."""
    return np.int64((word * np.uint64(count)) >> HALF)


def between_at(word, low, high):
    return low + (high - low) * (np.float64(word) * WORD)


def folded_at(place, size, reflect):
    """A place reflected at the first and the last one (which stand once), or as it is; for at most one reflection."""
    if reflect == 0:
        return place
    if place < 0:
        return -place
    return 2 * (size - 1) - place if place >= size else place


def sides_at(area, ratio):
    """(height, width) of a box of this area whose height is `ratio` times its width."""
    return math.sqrt(area * ratio), math.sqrt(area / ratio)


def span_at(word, length, size, inside):
    """(first, end) within `size` of a stretch of about `length`: inside as a whole, or with its centre inside."""
    whole = np.int64(math.floor(length + 0.5))
    whole = np.int64(1) if whole < 1 else whole
    if inside:
        whole = size if whole > size else whole
        first = np.int64(math.floor(np.float64(word) * WORD * (size - whole + 1)))
        return first, first + whole
    first = np.int64(math.floor(np.float64(word) * WORD * size)) - whole // 2
    end = first + whole
    return (np.int64(0) if first < 0 else first), (size if end > size else end)


def looked_at(h, w, height, width, angle, down, right):
    """(a, b, c, d, e, f): a pixel (i, j) of an (h, w) image is looked up at (a i + b j + c, d i + e j + f), in a window
    of these shares of the image, turned by an angle, whose centre is moved by these shares."""
    a, b = height * math.cos(angle), -height * math.sin(angle)
    d, e = width * math.sin(angle), width * math.cos(angle)
    middle, centre = (h - 1) / 2, (w - 1) / 2
    return (a, b, middle + down * h - a * middle - b * centre,
            d, e, centre + right * w - d * middle - e * centre)


def share_at(u, v, alpha):
    """(sum, share): if sum <= 1, share is drawn from the distribution Beta(alpha, alpha) (Jöhnk 1964).

    x = u^(1/alpha), y = v^(1/alpha), share = x / (x + y), by logarithms: small alphas leave neither of them.
    """
    p = math.log((np.float64(u) + 0.5) * WORD) / alpha
    q = math.log((np.float64(v) + 0.5) * WORD) / alpha
    top = p if p > q else q
    rest = math.exp((q if p > q else p) - top)
    share = (1.0 if p > q else rest) / (1 + rest)
    return math.exp(top) * (1 + rest), share
