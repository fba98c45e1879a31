"""What is drawn for a sample: whole numbers and boxes from random words. The same formulas on both targets.

Words are uint64 numbers below 2**32. All here is computed in float64, whatever the images are made of: a box does not
move with the precision.
"""
import math

import numpy as np
from numba import float64

from engine.kernels.elementary.trigonometric import COS_EVEN, SIN_ODD

HALF, WORD = np.uint64(32), 2.0 ** -32
TRIES = 256                                  # a share of mixing is found in far fewer
# pi/2 as the sum of three numbers: the first two have 33 digits, so that few times them is exact, fused or not
HALF_PI = 1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21
FARTHEST = 1000.0                            # radians of an angle, whose sine and cosine are reckoned from these
S, C = SIN_ODD[float64], COS_EVEN[float64]


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


def direction_at(angle):
    """(sine, cosine) of an angle up to FARTHEST, each within 1.5 ulp, by the polynomials of `elementary`. (A GPU's own
    functions keep local memory for angles of any size.)

    angle = n pi/2 + r, |r| <= pi/4 (Cody, Waite 1980); which of sin r and cos r is which, and the sign, says n mod 4.
    """
    n = math.floor(angle * (2 / math.pi) + 0.5)
    r = ((angle - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2]
    z = r * r
    odd = S[0] + z * (S[1] + z * (S[2] + z * (S[3] + z * (S[4] + z * S[5]))))
    even = C[0] + z * (C[1] + z * (C[2] + z * (C[3] + z * (C[4] + z * C[5]))))
    s, c = r + r * (z * odd), 1.0 - (0.5 * z - z * z * even)
    quadrant = np.int64(n) & 3
    sine, cosine = (c, s) if quadrant & 1 else (s, c)
    return (-sine if quadrant & 2 else sine), (-cosine if (quadrant + 1) & 2 else cosine)


def looked_at(h, w, height, width, direction, down, right):
    """(a, b, c, d, e, f): a pixel (i, j) of an (h, w) image is looked up at (a i + b j + c, d i + e j + f), in a window
    of these shares of the image, turned by the angle of this direction, whose centre is moved by these shares."""
    sine, cosine = direction
    a, b = height * cosine, -height * sine
    d, e = width * sine, width * cosine
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
