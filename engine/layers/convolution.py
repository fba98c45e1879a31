"""What layers that slide a window over an image share: sizes, steps, padding, and the refusals."""


def pair(value, name, layer, least=1):
    """(rows, columns) from one whole number or two."""
    both = (value, value) if isinstance(value, int) else value
    if (isinstance(value, bool) or not isinstance(both, (tuple, list)) or len(both) != 2
            or not all(isinstance(v, int) and v >= least for v in both)):
        raise ValueError(f"{layer}: expected {name} as a whole number of at least {least}, or two of them, got {value!r}")
    return tuple(both)


def whole(value, name, layer):
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{layer}: expected {name} to be a whole number of at least 1, got {value!r}")
    return value


def padding_kept(padding, layer):
    """"valid", "same", or ((top, bottom), (left, right)) from a number, two numbers (rows, columns) or two pairs."""
    if padding in ("valid", "same"):
        return padding
    sides = (padding, padding) if isinstance(padding, int) else padding
    if isinstance(sides, (tuple, list)) and len(sides) == 2:
        sides = tuple((s, s) if isinstance(s, int) else tuple(s) for s in sides)
        if all(len(s) == 2 and all(isinstance(v, int) and v >= 0 for v in s) for s in sides):
            return sides
    raise ValueError(f"{layer}: expected padding \"valid\", \"same\", a whole number, (rows, columns) or ((top, bottom), "
                     f"(left, right)), got {padding!r}")


def padding_of(padding, size, kernel, stride, dilation):
    """(top, bottom, left, right) for an image of `size` (rows, columns).

    "same": the output has ceil(size / stride) places; an odd rest of padding goes to the bottom and the right.
    """
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding != "same":
        return (*padding[0], *padding[1])
    found = []
    for s, k, step, d in zip(size, kernel, stride, dilation):
        total = max(0, (-(-s // step) - 1) * step + d * (k - 1) + 1 - s)
        found += [total // 2, total - total // 2]
    return tuple(found)


def windows(size, kernel, stride, padding, dilation):
    """(rows, columns) of the output; not above 0 where the window is larger than the padded image."""
    return tuple((s + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
                 for i, s in enumerate(size))


def channels_last(data_format, layer):
    """Refuses the other format where it cannot be: images are turned once, at the model's door."""
    if data_format != "channels_last":
        raise ValueError(f"{layer}: expected data_format \"channels_last\", got {data_format!r}; inside a model images are "
                         f"(n, rows, columns, channels): Input(shape, data_format=\"channels_first\") as the first layer "
                         f"takes (n, channels, rows, columns) and turns them once")
    return data_format
