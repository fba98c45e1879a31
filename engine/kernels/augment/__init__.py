"""Augmentation: images changed by chance on their way into a training step (Krizhevsky et al. 2012; Shorten,
Khoshgoftaar 2019), and bytes made numbers.

Shapes: x (n, h, w, c), channels last; counter int64 [seed, step]. What is drawn for sample r is a function of the seed,
the step, the op's `stream` and r: the same on every target and for any number of threads.

    random_shift    moved by -padding .. padding rows and columns, what comes in from outside zero or the image's own
                    reflection (the edge stands once); mirrored with probability `horizontal`, upended with `vertical`
    random_erase    with `probability` a box gets `value` (Zhong et al. 2017): its area a share low .. high of the
                    image, height / width between ratio_low and ratio_high (evenly in logarithms); as a whole inside, or
                    (inside=False) only its centre (DeVries, Taylor 2017)
    random_window   (n, 6), dtype: where each pixel of an image is looked up, (a i + b j + c, d i + e j + f): a window
                    of a share low .. high of the area, sides stretched by up to `ratio`, turned by up to `angle`
                    radians, moved by up to `move` of the sides, or (inside=True) anywhere within
    warp            y[r, i, j] = x[r] there, between four pixels (bilinear); outside zero, or (edge) the nearest pixel
    random_colour   brightness: v = b x; contrast: v = mean grey + k (v - mean grey); saturation: v = grey + s (v -
                    grey), factors 1 - given .. 1 + given, and every value kept within low .. high
    mixup           y[r] = s x[r] + (1 - s) x[other], s ~ Beta(alpha, alpha) but at least 1/2 (Zhang et al. 2018; the
                    other one's name goes to the smaller share); the same for any array of n rows: for labels too
    from_uint8      bytes as numbers 0 .. 255
"""
import math

import numpy as np

from engine.kernels.augment import cpu, cuda
from engine.kernels.augment.draws import FARTHEST, TRIES
from engine.kernels.op import BYTE, FLOATS, Arrangement, Op, Spec, demand, floats, integers, same, share
from engine.kernels.random import SHUFFLE, key_at, philox_at

# ----------------------------------------------------------------------------------------------------- NumPy reference


def words_of(n, counter, stream, block=0, each=1):
    """The four words of block `block` of the `each` that belong to each sample: four uint64 arrays (n,)."""
    key = key_at(np.asarray(counter, np.int64), stream)
    return philox_at(np.arange(n, dtype=np.uint64) * np.uint64(each) + np.uint64(block), *key)


def _between(words, low, high):
    return low + (high - low) * (words / 2.0 ** 32)


def _whole(words, count):
    return (words * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def shift_reference(x, counter, padding, reflect, horizontal, vertical, stream):
    down, right, over, under = words_of(len(x), counter, stream)
    p, (h, w) = padding, x.shape[1:3]
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), "reflect" if reflect else "constant")
    rows, columns = _whole(down, 2 * p + 1), _whole(right, 2 * p + 1)
    out = np.empty_like(x)
    for r in range(len(x)):
        cut = padded[r, rows[r]:rows[r] + h, columns[r]:columns[r] + w]
        cut = cut[:, ::-1] if over[r] < round(horizontal * 2 ** 32) else cut
        out[r] = cut[::-1] if under[r] < round(vertical * 2 ** 32) else cut
    return out


def _spans(words, lengths, size, inside):
    """(first, end) of a stretch for each sample."""
    whole = np.maximum(np.floor(lengths + 0.5), 1)
    if inside:
        whole = np.minimum(whole, size)
        first = np.floor(_between(words, 0, 1) * (size - whole + 1))
    else:
        first = np.floor(_between(words, 0, 1) * size) - whole // 2
    return np.maximum(first, 0).astype(int), np.minimum(first + whole, size).astype(int)


def erase_reference(x, counter, probability, low, high, ratio_low, ratio_high, inside, value, stream):
    n, h, w, _ = x.shape
    wanted, area, ratio, down = words_of(n, counter, stream, 0, 2)
    right = words_of(n, counter, stream, 1, 2)[0]
    area = _between(area, low, high) * h * w
    ratio = np.exp(_between(ratio, math.log(ratio_low), math.log(ratio_high)))
    rows, columns = _spans(down, np.sqrt(area * ratio), h, inside), _spans(right, np.sqrt(area / ratio), w, inside)
    out = x.copy()
    for r in np.flatnonzero(_between(wanted, 0, 1) < probability):
        out[r, rows[0][r]:rows[1][r], columns[0][r]:columns[1][r]] = value
    return out


def window_reference(counter, shape, angle, low, high, ratio, move, inside, stream, dtype):
    n, h, w = shape
    turn, area, aspect, down = words_of(n, counter, stream, 0, 2)
    right = words_of(n, counter, stream, 1, 2)[0]
    area, aspect = _between(area, low, high), np.exp(_between(aspect, -math.log(ratio), math.log(ratio)))
    sides = np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)])
    sides = np.minimum(sides, 1) if inside else sides
    room = (1 - sides) / 2 if inside else np.full_like(sides, move)
    middle = np.array([[(h - 1) / 2], [(w - 1) / 2]])
    centre = middle + room * _between(np.stack([down, right]), -1, 1) * np.array([[h], [w]])
    turn = _between(turn, -angle, angle)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * sides[:, None]
    away = centre - (turned * middle[None]).sum(1)
    return np.stack([*turned[0], away[0], *turned[1], away[1]], axis=1)


def warp_reference(x, numbers, edge):
    n, h, w, _ = x.shape
    i, j = np.mgrid[:h, :w]
    at = numbers.reshape(n, 2, 3, 1, 1)
    y, z = (at[:, k, 0] * i + at[:, k, 1] * j + at[:, k, 2] for k in (0, 1))
    if edge:
        y, z = np.clip(y, 0, h - 1), np.clip(z, 0, w - 1)
    sample, out = np.arange(n)[:, None, None], np.zeros_like(x)
    for down in (0, 1):
        for right in (0, 1):
            row, column = np.floor(y) + down, np.floor(z) + right
            weight = (1 - np.abs(y - row)) * (1 - np.abs(z - column))
            weight = np.where((row >= 0) & (row < h) & (column >= 0) & (column < w), weight, 0)
            taken = x[sample, np.clip(row, 0, h - 1).astype(int), np.clip(column, 0, w - 1).astype(int)]
            out += weight[..., None] * taken
    return out


def colour_reference(x, counter, brightness, contrast, saturation, low, high, stream):
    words = words_of(len(x), counter, stream)
    light, depth, tone = (_between(word, 1 - given, 1 + given)[:, None, None, None]
                          for word, given in zip(words, (brightness, contrast, saturation)))
    luminance = np.array([1.0] if x.shape[-1] == 1 else [0.299, 0.587, 0.114])
    v = np.clip(x * light, low, high)
    mean = (v @ luminance).mean((1, 2))[:, None, None, None]
    v = np.clip(depth * v + (1 - depth) * mean, low, high)
    return np.clip(tone * v + (1 - tone) * (v @ luminance)[..., None], low, high)


def mixup_reference(x, counter, alpha, stream):
    n = len(x)
    other = _whole(words_of(n, counter, stream, 0, TRIES)[2], max(1, n))
    shares, open_ones = np.full(n, 0.5), np.ones(n, bool)
    for k in range(TRIES):
        u, v, _, _ = words_of(n, counter, stream, k, TRIES)
        p, q = ((word + 0.5) / 2 ** 32 for word in (u, v))
        p, q = np.log(p) / alpha, np.log(q) / alpha
        found = open_ones & (np.logaddexp(p, q) <= 0)
        shares[found] = 1 / (1 + np.exp((q - p)[found]))
        open_ones &= ~found
    shares = np.maximum(shares, 1 - shares).reshape(-1, *(1,) * (x.ndim - 1))
    return shares * x + (1 - shares) * x[other]


def from_uint8_reference(x, dtype):
    return x.astype(np.float64)


# ------------------------------------------------------------------------------------------------------------ records


def _counted(counter, stream, n):
    integers(counter, "the counter")
    demand(tuple(counter.shape) == (2,), "a counter of shape (2,), [seed, step]", tuple(counter.shape))
    demand(0 <= stream <= SHUFFLE, f"a stream from 0 to {SHUFFLE}", stream)
    demand(n * TRIES <= 2 ** 32, f"at most {2 ** 32 // TRIES} samples in a batch", n)


def _images(x, counter, stream):
    floats(x)
    demand(len(x.shape) == 4, "images of shape (n, height, width, channels)", tuple(x.shape),
           "grey images need a last axis of one channel: x[..., None]")
    _counted(counter, stream, x.shape[0])


def _share(value, name):
    demand(0 <= value <= 1, f"{name} from 0 to 1", value)


def shift_shapes(x, counter, padding, reflect, horizontal, vertical, stream):
    _images(x, counter, stream)
    _share(horizontal, "a probability `horizontal`")
    _share(vertical, "a probability `vertical`")
    demand(padding >= 0, "a padding of at least 0", padding)
    most = min(x.shape[1:3]) - 1
    demand(not reflect or padding <= max(0, most), f"a padding of at most {most} to reflect", padding,
           "a reflection is at most as large as the image, less its edge")
    return same((x,))


def _area(low, high):
    demand(0 < low <= high, "shares of the area with 0 < low <= high", (low, high))


def erase_shapes(x, counter, probability, low, high, ratio_low, ratio_high, inside, value, stream):
    _images(x, counter, stream)
    _share(probability, "a probability")
    _area(low, high)
    demand(0 < ratio_low <= ratio_high, "ratios with 0 < ratio_low <= ratio_high", (ratio_low, ratio_high))
    return same((x,))


def window_shapes(counter, shape, angle, low, high, ratio, move, inside, stream, dtype):
    demand(len(shape) == 3, "the shape (n, height, width) of the images", tuple(shape))
    _counted(counter, stream, shape[0])
    _area(low, high)
    demand(ratio >= 1, "a ratio of at least 1", ratio)
    demand(abs(angle) <= FARTHEST, f"an angle of at most {FARTHEST:.0f} radians", angle, "pi is every direction")
    demand(np.dtype(dtype) in FLOATS, "dtype float32 or float64", np.dtype(dtype).name)
    return Spec((int(shape[0]), 6), np.dtype(dtype))


def warp_shapes(x, numbers, edge):
    floats(x, numbers)
    demand(len(x.shape) == 4, "images of shape (n, height, width, channels)", tuple(x.shape))
    demand(tuple(numbers.shape) == (x.shape[0], 6), f"six numbers for each of {x.shape[0]} images", numbers.shape)
    return same((x,))


def colour_shapes(x, counter, brightness, contrast, saturation, low, high, stream):
    _images(x, counter, stream)
    demand(x.shape[3] in (1, 3), "images of 1 or 3 channels (grey, or red, green, blue)", tuple(x.shape))
    _share(brightness, "brightness")
    _share(contrast, "contrast")
    _share(saturation, "saturation")
    demand(low < high, "a range with low < high", (low, high))
    return same((x,))


def mixup_shapes(x, counter, alpha, stream):
    floats(x)
    demand(len(x.shape) >= 1, "an array of samples (n, ...)", tuple(x.shape))
    demand(0 < alpha <= 2, "an alpha above 0, up to 2", alpha, "0.2 to 1 are usual")
    _counted(counter, stream, x.shape[0])
    return same((x,))


def from_uint8_shapes(x, dtype):
    demand(np.dtype(x.dtype) == BYTE, "an array of uint8", np.dtype(x.dtype).name)
    demand(np.dtype(dtype) in FLOATS, "dtype float32 or float64", np.dtype(dtype).name)
    return Spec(tuple(x.shape), np.dtype(dtype))


def _tasks(x, threads, each=2):
    return min(max(1, x.shape[0]), share(each * x.size, threads))


def _rows(x):
    n, h, w, c = x.shape
    return n, h, w * c


def arrange_shift(inputs, outputs, attributes, threads):
    x, a = inputs[0], attributes
    scalars = (x.shape[3], int(a["padding"]), int(a["reflect"]), round(a["horizontal"] * 2 ** 32),
               round(a["vertical"] * 2 ** 32), a["stream"])
    return Arrangement((_rows(x), (2,)), (_rows(x),), scalars, tasks=_tasks(x, threads))


def arrange_erase(inputs, outputs, attributes, threads):
    x, a = inputs[0], attributes
    scalars = (x.shape[3], float(a["probability"]), float(a["low"]), float(a["high"]), math.log(a["ratio_low"]),
               math.log(a["ratio_high"]), int(a["inside"]), float(a["value"]), a["stream"])
    return Arrangement((_rows(x), (2,)), (_rows(x),), scalars, tasks=_tasks(x, threads, 1))


def arrange_window(inputs, outputs, attributes, threads):
    a = attributes
    scalars = (*a["shape"][1:], float(a["angle"]), float(a["low"]), float(a["high"]), math.log(a["ratio"]),
               float(a["move"]), int(a["inside"]), a["stream"])
    return Arrangement(((2,),), (outputs[0].shape,), scalars)


def arrange_warp(inputs, outputs, attributes, threads):
    x, numbers = inputs
    return Arrangement((x.shape, numbers.shape), (x.shape,), (int(attributes["edge"]),), tasks=_tasks(x, threads, 8))


def arrange_colour(inputs, outputs, attributes, threads):
    x, a = inputs[0], attributes
    n, h, w, c = x.shape
    scalars = *(float(a[k]) for k in ("brightness", "contrast", "saturation", "low", "high")), a["stream"]
    return Arrangement(((n, h * w, c), (2,)), ((n, h * w, c),), scalars, tasks=_tasks(x, threads, 8))


def arrange_mixup(inputs, outputs, attributes, threads):
    x = inputs[0]
    flat = x.shape[0], math.prod(x.shape[1:])
    return Arrangement((flat, (2,)), (flat,), (float(attributes["alpha"]), attributes["stream"]),
                       tasks=_tasks(x, threads))


def arrange_from_uint8(inputs, outputs, attributes, threads):
    size = inputs[0].size
    return Arrangement(((size,),), ((size,),), tasks=share(size, threads))


SIZES = ((0, 3, 4, 1), (1, 1, 1, 1), (5, 7, 4, 3), (3, 6, 11, 2))


def _counter(rng):
    return np.array([rng.integers(2 ** 62), rng.integers(2 ** 40)])


def _shift_samples(rng):
    for shape in SIZES:
        yield (rng.standard_normal(shape), _counter(rng)), {"padding": 2, "horizontal": 0.5, "vertical": 0.25}
    yield (rng.standard_normal((9, 5, 4, 3)), _counter(rng)), {"padding": 3, "reflect": True, "horizontal": 0.5}
    yield (rng.standard_normal((9, 4, 3, 1)), _counter(rng)), {"padding": 7, "horizontal": 1.0, "stream": 3}
    yield (rng.standard_normal((67, 16, 17, 3)), _counter(rng)), {"padding": 4, "horizontal": 0.5}


def _erase_samples(rng):
    for shape in SIZES:
        yield (rng.standard_normal(shape), _counter(rng)), {"low": 0.02, "high": 0.5}
    for inside in (True, False):
        yield (rng.standard_normal((40, 9, 7, 3)), _counter(rng)), {
            "probability": 0.7, "low": 0.1, "high": 1.2, "inside": inside, "value": -1.5, "stream": 7}


def _window_samples(rng):
    for shape in ((0, 3, 4), (1, 1, 1), (7, 5, 4), (130, 32, 17)):
        yield (_counter(rng),), {"shape": shape, "angle": 3.1, "low": 0.5, "high": 1.5, "ratio": 1.4, "move": 0.1}
        yield (_counter(rng),), {"shape": shape, "low": 0.1, "high": 1.0, "ratio": 2.0, "inside": True, "stream": 4}


def _warp_samples(rng):
    for shape in (*SIZES, (17, 16, 13, 3)):
        n, h, w, _ = shape
        turn = rng.uniform(-1, 1, n)
        numbers = np.stack([np.cos(turn), -np.sin(turn), rng.uniform(-h, h, n),
                            np.sin(turn), np.cos(turn), rng.uniform(-w, w, n)], axis=1)
        yield (rng.standard_normal(shape), numbers), {}
        yield (rng.standard_normal(shape), numbers), {"edge": True}
    same_place = np.array([[1.0, 0, 0, 0, 1, 0], [1.0, 0, 1e30, 0, 1, -1e30]])
    yield (rng.standard_normal((2, 3, 4, 2)), same_place), {}


def _colour_samples(rng):
    for shape in ((0, 3, 4, 1), (1, 1, 1, 1), (5, 7, 4, 3), (9, 17, 16, 3), (3, 6, 11, 1)):
        yield (rng.random(shape), _counter(rng)), {"brightness": 0.4, "contrast": 0.5, "saturation": 0.6}
    yield (255 * rng.random((4, 5, 3, 3)), _counter(rng)), {"contrast": 1.0, "high": 255.0, "stream": 2}


def _mixup_samples(rng):
    for shape, alpha in (((0, 3), 1.0), ((1, 2), 0.2), ((7,), 1.0), ((33, 3, 5), 0.2), ((20, 10), 2.0),
                         ((64, 40, 43), 0.02)):
        yield (rng.standard_normal(shape), _counter(rng)), {"alpha": alpha, "stream": 5}


def _from_uint8_samples(rng):
    for shape in ((0, 3), (1,), (3, 5, 7), (16, 1037)):
        yield (rng.integers(0, 256, shape).astype(np.uint8),), {}
        yield (rng.integers(0, 256, shape).astype(np.uint8),), {"dtype": "float64"}


OPS = (
    Op("random_shift", shift_reference, shift_shapes, cpu.shift, cuda.shift, _shift_samples, arrange_shift,
       attributes={"padding": 0, "reflect": False, "horizontal": 0.0, "vertical": 0.0, "stream": 0}),
    Op("random_erase", erase_reference, erase_shapes, cpu.erase, cuda.erase, _erase_samples, arrange_erase,
       attributes={"probability": 1.0, "low": 0.02, "high": 0.33, "ratio_low": 0.3, "ratio_high": 3.3, "inside": True,
                   "value": 0.0, "stream": 0}),
    Op("random_window", window_reference, window_shapes, cpu.window, cuda.window, _window_samples, arrange_window,
       attributes={"shape": (), "angle": 0.0, "low": 1.0, "high": 1.0, "ratio": 1.0, "move": 0.0, "inside": False,
                   "stream": 0, "dtype": "float32"}),
    Op("warp", warp_reference, warp_shapes, cpu.warp, cuda.warp, _warp_samples, arrange_warp,
       terms=lambda x, numbers, edge: 2 * max(x.shape[1:3]), attributes={"edge": False}),
    Op("random_colour", colour_reference, colour_shapes, cpu.colour, cuda.colour, _colour_samples, arrange_colour,
       terms=lambda x, counter, **attributes: 8,
       attributes={"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "low": 0.0, "high": 1.0, "stream": 0}),
    Op("mixup", mixup_reference, mixup_shapes, cpu.mix, cuda.mix, _mixup_samples, arrange_mixup,
       attributes={"alpha": 0.2, "stream": 0}),
    Op("from_uint8", from_uint8_reference, from_uint8_shapes, cpu.from_uint8, cuda.from_uint8, _from_uint8_samples,
       arrange_from_uint8, attributes={"dtype": "float32"}),
)
