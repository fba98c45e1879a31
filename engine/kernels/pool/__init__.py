"""Pooling over windows of images, channels last: the largest value, the mean, the mean over a given number of windows.

Shapes: x (n, h, w, c), y (n, p, q, c), windows of r x s taps.

| op | y | gradient |
|---|---|---|
| max_pool2d | the largest value of each window (LeCun et al. 1998); NaN where one is | dy for it |
| avg_pool2d | the mean of each window | dy / size for each place of the window |
| adaptive_avg_pool2d | the mean of window i from floor(i h / p) to ceil((i + 1) h / p) - 1, and along w | the same |

Window i of an axis begins at i stride - padding; padding is (top, bottom, left, right). Places in the padding are not
candidates for the largest value; for the mean they are zeros, which count in its divisor or (count_include_pad=False)
do not. `beyond` = (rows, columns) widens the padding at the bottom and the right by places that never count: with them
the last window may reach over the edge (`ceil_mode` of the layers).

max_pool2d's second output, with `keep`, says which tap was the largest: places = k s + l in x's own dtype (whole
numbers up to 2^24 are exact in float32). The first of equal values wins, and the last NaN, as in PyTorch. The gradient
of a row of x is added up from the windows over it in their order: no two tasks write one value.
"""
import numpy as np

from engine.kernels.op import Arrangement, Cost, Op, Spec, demand, floats, share
from engine.kernels.pool.cpu import avg_pool_cpu, avg_pool_grad_cpu, max_pool_cpu, max_pool_grad_cpu
from engine.kernels.pool.cuda import avg_pool_cuda, avg_pool_grad_cuda, max_pool_cuda, max_pool_grad_cuda

INT64 = np.dtype("int64")

# ----------------------------------------------------------------------------------------------------- NumPy reference


def taps_of(x, kernel, stride, padding, dilation, outside):
    """(number of the tap, its values (n, p, q, c), whether they lie in x (p, q, 1)) for each tap of the windows."""
    top, bottom, left, right = padding
    p, q = windows_of(x.shape[1:3], kernel, stride, padding, dilation)
    wide = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=outside)
    real = np.pad(np.ones(x.shape[1:3], bool), ((top, bottom), (left, right)))
    for k in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(k * dilation[0], k * dilation[0] + (p - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (q - 1) * stride[1] + 1, stride[1])
            yield k * kernel[1] + j, wide[:, rows, columns], real[rows, columns, None]


def max_pool_reference(x, kernel, stride, padding, dilation, keep):
    best, place = None, None
    for tap, values, real in taps_of(x, kernel, stride, padding, dilation, -np.inf):
        if best is None:
            best, place = np.full(values.shape, -np.inf), np.full(values.shape, -1.0)
        place = np.where((place < 0) & real, tap, place)             # the first tap there is
        wins = real & ((values > best) | np.isnan(values))
        best, place = np.where(wins, values, best), np.where(wins, tap, place)
    return best, place if keep else np.zeros((0, 0, 0, 0))


def max_pool_grad_reference(dy, places, size, kernel, stride, padding, dilation):
    dx, taps = np.zeros((dy.shape[0], *size, dy.shape[3])), kernel[0] * kernel[1]
    for n, i, j, c in np.ndindex(dy.shape):
        if 0 <= places[n, i, j, c] < taps:
            k, m = divmod(int(places[n, i, j, c]), kernel[1])
            dx[n, i * stride[0] - padding[0] + k * dilation[0], j * stride[1] - padding[2] + m * dilation[1], c] += \
                dy[n, i, j, c]
    return dx


def axis_windows(size, parts, kernel, stride, before, after, beyond, count_include_pad):
    """[(begin, end, how many places count)] of the windows along one axis."""
    found = []
    for i in range(parts):
        begin, end = i * stride - before, i * stride - before + kernel
        inside = max(0, begin), min(size, end)
        counting = min(size + after, end) - begin if count_include_pad else inside[1] - inside[0]
        found.append((*inside, counting))
    return found


def avg_windows(x, p, q, kernel, stride, padding, beyond, count_include_pad):
    return (axis_windows(x[0], p, kernel[0], stride[0], *padding[:2], beyond[0], count_include_pad),
            axis_windows(x[1], q, kernel[1], stride[1], *padding[2:], beyond[1], count_include_pad))


def adaptive_windows(size, parts):
    edges = [(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]
    return [(a, b, b - a) for a, b in edges]


def mean_of_windows(x, rows, columns):
    return np.stack([np.stack([x[:, a:b, c:d].sum((1, 2)) / (m * k) for c, d, k in columns], 1)
                     for a, b, m in rows], 1)


def mean_of_windows_grad(dy, size, rows, columns):
    dx = np.zeros((dy.shape[0], *size, dy.shape[3]))
    for i, (a, b, m) in enumerate(rows):
        for j, (c, d, k) in enumerate(columns):
            dx[:, a:b, c:d] += dy[:, i:i + 1, j:j + 1] / (m * k)
    return dx


def avg_pool_reference(x, kernel, stride, padding, beyond, count_include_pad):
    p, q = windows_of(x.shape[1:3], kernel, stride, _beyond(padding, beyond))
    return mean_of_windows(x, *avg_windows(x.shape[1:3], p, q, kernel, stride, padding, beyond, count_include_pad))


def avg_pool_grad_reference(dy, size, kernel, stride, padding, beyond, count_include_pad):
    return mean_of_windows_grad(dy, size, *avg_windows(size, *dy.shape[1:3], kernel, stride, padding, beyond,
                                                       count_include_pad))


def adaptive_reference(x, output):
    return mean_of_windows(x, *(adaptive_windows(s, parts) for s, parts in zip(x.shape[1:3], output)))


def adaptive_grad_reference(dy, size):
    return mean_of_windows_grad(dy, size, *(adaptive_windows(s, parts) for s, parts in zip(size, dy.shape[1:3])))


# -------------------------------------------------------------------------------------------- shapes and arrangements


def windows_of(size, kernel, stride, padding, dilation=(1, 1)):
    """How many windows there are along each axis."""
    return tuple((s + padding[2 * k] + padding[2 * k + 1] - (kernel[k] - 1) * dilation[k] - 1) // stride[k] + 1
                 for k, s in enumerate(size))


def _beyond(padding, beyond):
    top, bottom, left, right = padding
    return top, bottom + beyond[0], left, right + beyond[1]


def _image(x, what="x"):
    demand(x.ndim == 4 and min(x.shape[1:], default=0) > 0, f"{what} of shape (n, height, width, channels), none of "
           f"which is 0 but n", x.shape, "images have their channels last here")


def _windows(size, kernel, stride, padding, dilation=(1, 1)):
    """The number of windows, after all has been refused that makes none."""
    for name, pair, least in (("kernel", kernel, 1), ("stride", stride, 1), ("dilation", dilation, 1)):
        demand(len(pair) == 2 and min(pair) >= least, f"{name} as two whole numbers of at least {least}", tuple(pair))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    demand(len(padding) == 4 and all(0 <= pad < reach[k // 2] for k, pad in enumerate(padding)),
           f"padding as (top, bottom, left, right), each less than the {reach[0]} x {reach[1]} places that a window "
           f"spans", tuple(padding), "a window must not lie in the padding alone")
    demand(kernel[0] * kernel[1] <= 2 ** 24, "at most 2**24 taps", kernel)
    found = windows_of(size, kernel, stride, padding, dilation)
    demand(min(found) >= 1, f"images at least as large as a window of {reach[0]} x {reach[1]}, padding included",
           f"{size[0]} x {size[1]}")
    return found


def max_pool_shapes(x, kernel, stride, padding, dilation, keep):
    dtype = floats(x)
    _image(x)
    y = Spec((x.shape[0], *_windows(x.shape[1:3], kernel, stride, padding, dilation), x.shape[3]), dtype)
    return y, y if keep else Spec((0, 0, 0, 0), dtype)


def _fits(dy, size, p, q):
    demand(dy.shape[1:3] == (p, q), f"dy of {p} x {q} windows, as images of {size[0]} x {size[1]} have", dy.shape)
    return Spec((dy.shape[0], *size, dy.shape[3]), dy.dtype)


def max_pool_grad_shapes(dy, places, size, kernel, stride, padding, dilation):
    floats(dy, places)
    _image(dy, "dy")
    demand(places.shape == dy.shape, f"places of the shape of dy, {dy.shape}", places.shape, "was keep=True given?")
    return _fits(dy, size, *_windows(size, kernel, stride, padding, dilation))


def avg_pool_shapes(x, kernel, stride, padding, beyond, count_include_pad):
    dtype = floats(x)
    _image(x)
    demand(len(beyond) == 2 and min(beyond) >= 0, "beyond as two whole numbers of at least 0", beyond)
    return Spec((x.shape[0], *_windows(x.shape[1:3], kernel, stride, _beyond(padding, beyond)), x.shape[3]), dtype)


def avg_pool_grad_shapes(dy, size, kernel, stride, padding, beyond, count_include_pad):
    floats(dy)
    _image(dy, "dy")
    return _fits(dy, size, *_windows(size, kernel, stride, _beyond(padding, beyond)))


def _parts(pair, what):
    demand(len(pair) == 2 and min(pair) >= 1, f"{what} as two whole numbers of at least 1", tuple(pair))


def adaptive_shapes(x, output):
    dtype = floats(x)
    _image(x)
    _parts(output, "output")
    return Spec((x.shape[0], *output, x.shape[3]), dtype)


def adaptive_grad_shapes(dy, size):
    floats(dy)
    _image(dy, "dy")
    _parts(size, "size")
    return Spec((dy.shape[0], *size, dy.shape[3]), dy.dtype)


def arrange_max(inputs, outputs, attributes, threads):
    a = attributes
    scalars = (*a["kernel"], *a["stride"], a["padding"][0], a["padding"][2], *a["dilation"])
    return Arrangement(tuple(s.shape for s in inputs), tuple(s.shape for s in outputs), tuple(map(int, scalars)),
                       tasks=share(_size(inputs, outputs), threads))


def _size(inputs, outputs):
    return max(s.size for s in (*inputs, *outputs))


def _arrange_mean(axes):
    """Arrangement of the means; axes(x's size, number of windows, attributes) gives (step, parts, padding, longer, low,
    high) for both axes, as `windows` in cpu.py has them."""
    def arrange(inputs, outputs, attributes, threads):
        grad = "size" in attributes
        image, pooled = (outputs[0], inputs[0]) if grad else (inputs[0], outputs[0])
        scalars = [k for axis in (0, 1) for k in axes(axis, image.shape[1 + axis], pooled.shape[1 + axis], attributes)]
        tasks = share(_size(inputs, outputs), threads)
        edges = Spec((tasks, 2, 3, max(pooled.shape[1:3])), INT64)
        return Arrangement((inputs[0].shape,), (outputs[0].shape,), tuple(map(int, scalars)), (edges,), tasks=tasks)
    return arrange


def _avg_axes(axis, size, parts, a):
    stride, kernel, (before, after) = a["stride"][axis], a["kernel"][axis], a["padding"][2 * axis:2 * axis + 2]
    low, high = (-before, size + after) if a["count_include_pad"] else (0, size)
    return stride, 1, before, kernel - stride, low, high


def _adaptive_axes(axis, size, parts, a):
    return size, parts, 0, 0, 0, size


# ------------------------------------------------------------------------------------------------------------- records


def max_pool_gradient(graph, node, dy, *_):
    x, attributes = node.inputs[0], {k: v for k, v in node.attributes.items() if k != "keep"}
    places = node.outputs[1]
    if not node.attributes["keep"]:
        _, places = graph.add(MAX_POOL, x, **attributes, keep=True)
    return (graph.add("max_pool2d_grad", dy, places, size=x.shape[1:3], **attributes),)


def avg_pool_gradient(graph, node, dy):
    return (graph.add("avg_pool2d_grad", dy, size=node.inputs[0].shape[1:3], **node.attributes),)


def adaptive_gradient(graph, node, dy):
    return (graph.add("adaptive_avg_pool2d_grad", dy, size=node.inputs[0].shape[1:3]),)


CASES = (                                    # shape of x, kernel, stride, padding, dilation of the largest, beyond
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (0, 0)),
    ((2, 4, 6, 3), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), (0, 0)),
    ((2, 5, 7, 5), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), (0, 1)),
    ((1, 5, 4, 17), (3, 2), (1, 3), (2, 0, 0, 1), (1, 2), (0, 0)),
    ((1, 9, 1, 2), (4, 1), (3, 1), (1, 2, 0, 0), (2, 1), (1, 0)),
    ((3, 2, 3, 33), (2, 3), (1, 1), (1, 1, 2, 2), (1, 1), (0, 0)))


def _max_samples(rng):
    for shape, kernel, stride, padding, dilation, _ in CASES:
        yield (rng.standard_normal(shape),), {"kernel": kernel, "stride": stride, "padding": padding,
                                              "dilation": dilation, "keep": shape[0] < 3}
    x = np.round(rng.standard_normal((1, 6, 6, 2)))      # with equals, infinities and NaN
    x[0, 1, 1], x[0, 2:5, 3, 0], x[0, 5, :, 1] = np.nan, np.inf, -np.inf
    yield (x,), {"kernel": (3, 3), "stride": (3, 3), "padding": (0, 0, 0, 0), "keep": True}


def _max_grad_samples(rng):
    for (x,), attributes in _max_samples(rng):
        a = {**attributes, "dilation": attributes.get("dilation", (1, 1)), "keep": True}
        places = max_pool_reference(x, **a)[1]
        del a["keep"]
        yield (rng.standard_normal(places.shape), places), {**a, "size": x.shape[1:3]}


def _avg_samples(rng):
    for number, (shape, kernel, stride, padding, _, beyond) in enumerate(CASES):
        yield (rng.standard_normal(shape),), {"kernel": kernel, "stride": stride, "padding": padding, "beyond": beyond,
                                              "count_include_pad": number % 2 == 0}


def _adaptive_samples(rng):
    for shape, output in (((1, 1, 1, 1), (1, 1)), ((2, 7, 5, 3), (3, 2)), ((1, 2, 3, 17), (5, 3)),
                          ((2, 6, 4, 2), (1, 1))):
        yield (rng.standard_normal(shape),), {"output": output}


def _grad_samples(samples, reference, keep=True):
    def made(rng):
        for (x,), attributes in samples(rng):
            kept = attributes if keep else {}
            yield (rng.standard_normal(reference(x, **attributes).shape),), {"size": x.shape[1:3], **kept}
    return made


def _terms(x, **attributes):
    return x.shape[1] * x.shape[2]


def _cost(inputs, outputs, attributes):
    image = max(inputs[0].size, outputs[0].size)
    return Cost(image, sum(s.nbytes for s in (*inputs, *outputs)))


WINDOW = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0)}
MAX = {**WINDOW, "dilation": (1, 1)}
AVG = {**WINDOW, "beyond": (0, 0), "count_include_pad": True}
MAX_POOL = Op("max_pool2d", max_pool_reference, max_pool_shapes, max_pool_cpu, max_pool_cuda, _max_samples, arrange_max,
              max_pool_gradient, cost=_cost, attributes={**MAX, "keep": False}, byproducts=frozenset({1}))
OPS = (
    MAX_POOL,
    Op("max_pool2d_grad", max_pool_grad_reference, max_pool_grad_shapes, max_pool_grad_cpu, max_pool_grad_cuda,
       _max_grad_samples, arrange_max, terms=lambda dy, places, **a: a["kernel"][0] * a["kernel"][1], cost=_cost,
       attributes={"size": (1, 1), **MAX}),
    Op("avg_pool2d", avg_pool_reference, avg_pool_shapes, avg_pool_cpu, avg_pool_cuda, _avg_samples,
       _arrange_mean(_avg_axes), avg_pool_gradient, _terms, _cost, AVG),
    Op("avg_pool2d_grad", avg_pool_grad_reference, avg_pool_grad_shapes, avg_pool_grad_cpu, avg_pool_grad_cuda,
       _grad_samples(_avg_samples, avg_pool_reference), _arrange_mean(_avg_axes), None, _terms, _cost,
       {"size": (1, 1), **AVG}),
    Op("adaptive_avg_pool2d", adaptive_reference, adaptive_shapes, avg_pool_cpu, avg_pool_cuda, _adaptive_samples,
       _arrange_mean(_adaptive_axes), adaptive_gradient, _terms, _cost, {"output": (1, 1)}),
    Op("adaptive_avg_pool2d_grad", adaptive_grad_reference, adaptive_grad_shapes, avg_pool_grad_cpu, avg_pool_grad_cuda,
       _grad_samples(_adaptive_samples, adaptive_reference, False), _arrange_mean(_adaptive_axes), None, _terms, _cost,
       {"size": (1, 1)}),
)
