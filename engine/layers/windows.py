"""What layers with windows share: sizes for one or two axes, padding by name, number or pairs, and images of one row.

A sample is (l, c) or (h, w, c), channels last. Samples of one axis are seen as images (l, 1, c).
"""


def spread(value, axes, layer, what, least=1):
    """A whole number for each axis, from one number or one for each."""
    found = tuple(value) if isinstance(value, (list, tuple)) else (value,) * axes
    if len(found) != axes or any(isinstance(k, bool) or not isinstance(k, int) or k < least for k in found):
        raise ValueError(f"{layer}: expected {what} as a whole number of at least {least}, or {axes} of them for x "
                         f"with {axes} axes between the batch and the channels, got {value!r}")
    return found


def axes_of(layer, shape):
    """How many axes windows move along: 1 for samples (l, c), 2 for (h, w, c)."""
    if len(shape) not in (2, 3):
        layer.refuse("(n, length, channels) or (n, height, width, channels)", shape,
                     "a grey image needs an axis for its one channel: Reshape((height, width, 1))"
                     if len(shape) == 1 else "")
    return len(shape) - 1


def around(size, reach, stride, padding, layer):
    """[(before, after)] for each axis, from "valid", "same", a number, or a pair or number for each axis.

    size, reach, stride: of each axis, how long it is, how much of it a window spans, how far windows lie apart. With
    "same" there are ceil(size / stride) windows, and what padding they need goes half before, the odd place after.
    """
    if padding == "valid":
        return [(0, 0)] * len(size)
    if padding == "same":
        missing = [max(0, (-(-s // step) - 1) * step + k - s) for s, k, step in zip(size, reach, stride)]
        return [(m // 2, m - m // 2) for m in missing]
    given = tuple(padding) if isinstance(padding, (list, tuple)) else (padding,) * len(size)
    pairs = [tuple(p) if isinstance(p, (list, tuple)) else (p, p) for p in given]
    if len(pairs) != len(size) or any(len(p) != 2 or any(isinstance(k, bool) or not isinstance(k, int) or k < 0
                                                         for k in p) for p in pairs):
        raise ValueError(f"{layer}: expected padding \"valid\", \"same\", a whole number of at least 0, or for each of "
                         f"{len(size)} axes a number or a pair (before, after), got {padding!r}")
    return pairs


def beyond_edge(size, reach, stride, pads):
    """Places after the padding that windows reach when their number is rounded up (ceil_mode), for each axis. A window
    that would begin in the padding after the image, or later, is left out, as in PyTorch."""
    found = []
    for s, k, step, (before, after) in zip(size, reach, stride, pads):
        count = -(-(s + before + after - k) // step) + 1
        if (count - 1) * step >= s + before:
            count -= 1
        found.append(max(0, (count - 1) * step + k - s - before - after))
    return found


def image(graph, x):
    """x (n, l, c) as (n, l, 1, c); x (n, h, w, c) as it is."""
    return x if x.ndim == 4 else graph.add("reshape", x, shape=(*x.shape[:2], 1, x.shape[2]))


def like_input(graph, y, x):
    """y (n, p, 1, c) as (n, p, c) where x has one axis."""
    return y if x.ndim == 4 else graph.add("reshape", y, shape=(*y.shape[:2], y.shape[3]))


def whole(value, what, layer):
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{layer}: expected {what} to be a whole number of at least 1, got {value!r}")
    return value


def channels_last(data_format, layer):
    """Refuses the other format where it cannot be: images are turned once, at the model's door."""
    if data_format != "channels_last":
        raise ValueError(f"{layer}: expected data_format 'channels_last', got {data_format!r}; inside a model images "
                         f"are (n, rows, columns, channels): Input(shape, data_format='channels_first') as the first "
                         f"layer takes (n, channels, rows, columns) and turns them once")
    return data_format
