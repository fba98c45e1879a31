"""Half precision: values of 16 bits, and products of them with float32 sums (on GPUs: on tensor cores).

| op | output |
|---|---|
| to_half | the 16 bits nearest to each value (ties to even), as uint16 |
| from_half | their values, as float32 |
| matmul_half | c (m, n) = op(a) op(b), a and b halves, sums and c float32 |

`format` is "float16" (IEEE binary16: 11 digits, up to 65504) or "bfloat16" (the upper half of a float32: 8 digits, its
range). Halves are stored as uint16: NumPy has no bfloat16, and every target and file format moves whole numbers. The
product of two halves is exact in float32, so only the sums round (Micikevicius et al. 2018).
"""
import numpy as np

from engine.errors import DtypeError
from engine.kernels.half import cpu, cuda
from engine.kernels.op import HALF, Arrangement, Cost, Op, Spec, demand, flat, floats, share

FORMATS = ("float16", "bfloat16")

# ----------------------------------------------------------------------------------------------------- NumPy reference


def to_half_reference(x, format):
    single = np.asarray(x, np.float32)
    if format == "float16":
        return single.astype(np.float16).view(np.uint16)
    bits = single.view(np.uint32)
    rounded = (bits + np.uint32(0x7fff) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(single), bits >> np.uint32(16) | np.uint32(0x40), rounded).astype(np.uint16)


def from_half_reference(h, format):
    if format == "float16":
        return h.view(np.float16).astype(np.float32)
    return (h.astype(np.uint32) << np.uint32(16)).view(np.float32)


def matmul_half_reference(a, b, transpose_a, transpose_b, format, dtype):
    a, b = (from_half_reference(h, format).astype(np.float64) for h in (a, b))
    return (a.T if transpose_a else a) @ (b.T if transpose_b else b)


# ------------------------------------------------------------------------------------------------------------- records


def halves(*given):
    """Refuses anything but uint16."""
    for one in given:
        if np.dtype(one.dtype) != HALF:
            raise DtypeError(f"expected halves as uint16, got {np.dtype(one.dtype).name}; to_half(x) makes them")


def known(format):
    demand(format in FORMATS, f"format {' or '.join(FORMATS)}", repr(format))


def to_half_shapes(x, format):
    floats(x)
    known(format)
    return Spec(x.shape, HALF)


def from_half_shapes(h, format):
    halves(h)
    known(format)
    return Spec(h.shape, np.dtype("float32"))


def matmul_half_shapes(a, b, transpose_a, transpose_b, format, dtype):
    halves(a, b)
    known(format)
    demand(np.dtype(dtype) == np.float32, "sums of dtype float32", np.dtype(dtype).name)
    demand(a.ndim == 2 and b.ndim == 2, "two matrices", f"shapes {a.shape} and {b.shape}")
    m, k = a.shape[::-1] if transpose_a else a.shape
    k2, n = b.shape[::-1] if transpose_b else b.shape
    demand(k == k2, f"inner sizes that agree: {k} columns of the left", f"{k2} rows of the right",
           "is transpose_a or transpose_b missing?")
    return Spec((m, n), np.dtype("float32"))


def arrange_format(inputs, outputs, attributes, threads):
    return flat(inputs, outputs, {"brief": int(attributes["format"] == "bfloat16")}, threads)


def arrange_to_half(inputs, outputs, attributes, threads):
    """With a place for each task where a float32 is seen as its bits."""
    made = arrange_format(inputs, outputs, attributes, threads)
    return made._replace(work=(Spec((made.tasks, 2), np.dtype("float32")),))


def arrange_matmul(inputs, outputs, attributes, threads):
    m, n = outputs[0].shape
    k = inputs[0].size // max(1, m)
    flags = int(attributes["transpose_a"]), int(attributes["transpose_b"]), int(attributes["format"] == "bfloat16")
    tasks = min(max(1, m), share(2 * m * n * k, threads))
    return Arrangement(tuple(s.shape for s in inputs), (outputs[0].shape,), flags,
                       (Spec((tasks, 2), np.dtype("float32")),), tasks=tasks)


def matmul_cost(inputs, outputs, attributes):
    return Cost(2 * outputs[0].shape[1] * inputs[0].size, sum(s.nbytes for s in (*inputs, *outputs)))


def _samples(rng):
    for format in FORMATS:
        for shape in ((0,), (1,), (7,), (33, 17)):
            yield (rng.standard_normal(shape) * 3,), {"format": format}
        yield (np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, 65519.0, 65520.0, 6e-8, 2.9e-8, -1e-5, 3e38,
                         1e-40, 1 + 2.0 ** -11, 1 + 3 * 2.0 ** -11, 1 + 2.0 ** -8, 1 + 3 * 2.0 ** -8]),), {
                             "format": format}


def _half_samples(rng):
    for (x,), attributes in _samples(rng):
        yield (to_half_reference(x, **attributes),), attributes


def _matmul_samples(rng):
    for format in FORMATS:
        for m, k, n in ((1, 1, 1), (3, 0, 2), (0, 3, 2), (17, 33, 15), (24, 40, 16), (129, 72, 40)):
            for ta, tb in ((False, False), (True, False), (False, True), (True, True)):
                a, b = rng.standard_normal((k, m) if ta else (m, k)), rng.standard_normal((n, k) if tb else (k, n))
                yield (to_half_reference(a, format), to_half_reference(b, format)), {
                    "transpose_a": ta, "transpose_b": tb, "format": format}


def _terms(a, b, transpose_a, **attributes):
    return a.shape[0] if transpose_a else a.shape[1]


OPS = (
    Op("to_half", to_half_reference, to_half_shapes, cpu.to_half, cuda.to_half, _samples, arrange_to_half,
       attributes={"format": "float16"}),
    Op("from_half", from_half_reference, from_half_shapes, cpu.from_half, cuda.from_half, _half_samples, arrange_format,
       attributes={"format": "float16"}),
    Op("matmul_half", matmul_half_reference, matmul_half_shapes, cpu.matmul_half, cuda.matmul_half, _matmul_samples,
       arrange_matmul, terms=_terms, cost=matmul_cost,
       attributes={"transpose_a": False, "transpose_b": False, "format": "float16", "dtype": "float32"}),
)
