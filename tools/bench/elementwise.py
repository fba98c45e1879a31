"""Ops that are bound by memory, against PyTorch, from 1e3 to 1e7 values; GB/s beside STREAM triad of the same run.

`only=large` adds 1e8. Ours is a prepared program of one call; PyTorch writes into existing tensors where it can.
"""
import numpy as np

from tools.bench.gemm import aligned
from tools.bench.timing import Rows, geometric_mean, median, race, ratio, table

SIZES = [10 ** 3, 10 ** 4, 10 ** 5, 10 ** 6, 10 ** 7]
COLUMNS = 1000                               # of the ops along an axis
CLASSES = 10


def program(name, inputs, **attributes):
    """(callable, bytes moved) of one prepared call."""
    from engine import target
    from engine.kernels import TABLE
    from engine.kernels.op import spec
    from engine.kernels.program import Program
    op = TABLE[name]
    made = Program(target.cpu)
    outputs = []
    for place, s in enumerate(op.infer(*map(spec, inputs), **attributes)):
        outputs.append(inputs[op.updates[place]] if place in op.updates else aligned(s.shape, s.dtype))
    made.add(op, inputs, outputs, op.complete(attributes))
    return made.run, sum(spec(a).nbytes for a in (*inputs, *outputs))


def cases(size, rng):
    """name -> (ours, bytes, PyTorch's)"""
    import torch
    x = aligned((size,), "float32")
    x[...] = rng.standard_normal(size)
    tx, to = torch.from_numpy(x.copy()), torch.empty(size)
    yield ("gelu", *program("gelu", [x]), lambda: torch.nn.functional.gelu(tx))
    yield ("exp", *program("exp", [x]), lambda: torch.exp(tx, out=to))
    yield ("tanh", *program("tanh", [x]), lambda: torch.tanh(tx, out=to))
    yield ("add", *program("add", [x, x]), lambda: torch.add(tx, tx, out=to))
    counter = np.array([1, 0])
    yield ("dropout", *program("dropout", [x, counter], rate=0.5), lambda: torch.nn.functional.dropout(tx, 0.5))
    rows = x[:size // COLUMNS * COLUMNS].reshape(-1, COLUMNS)
    tr, tro = torch.from_numpy(rows.copy()), torch.empty(rows.shape)
    yield ("softmax", *program("softmax", [rows]), lambda: torch.softmax(tr, 1, out=tro))
    gamma, beta = np.ones(COLUMNS, np.float32), np.zeros(COLUMNS, np.float32)
    tg, tb = torch.ones(COLUMNS), torch.zeros(COLUMNS)
    yield ("layer norm", *program("layer_norm", [rows, gamma, beta]),
           lambda: torch.nn.functional.layer_norm(tr, (COLUMNS,), tg, tb))
    yield ("cross-entropy + gradient", *_cross_entropy(x, rng))
    yield ("adam", *_adam(x, rng))


def _cross_entropy(x, rng):
    import torch
    logits = x[:len(x) // CLASSES * CLASSES].reshape(-1, CLASSES)
    labels = rng.integers(0, CLASSES, len(logits))
    ours, moved = program("cross_entropy", [logits, labels, np.ones(len(logits), np.float32)])
    tl, ty = torch.from_numpy(logits.copy()).requires_grad_(), torch.from_numpy(labels)

    def theirs():
        tl.grad = None
        torch.nn.functional.cross_entropy(tl, ty).backward()
    return ours, moved, theirs


def _adam(x, rng):
    import torch
    g, m, v = (np.abs(rng.standard_normal(len(x), dtype=np.float32)) for _ in range(3))
    ours, moved = program("adam", [x.copy(), g, m, v, np.array([1e-3]), np.array([0, 5])])
    p = torch.from_numpy(x.copy()).requires_grad_()
    p.grad = torch.from_numpy(g.copy())
    update = torch.optim.Adam([p], 1e-3, fused=True)
    return ours, moved, update.step


def triad(size):
    """STREAM triad a = b + s c with non-cached arrays: GB/s (three arrays counted, as STREAM does)."""
    import time

    import numba

    @numba.njit(parallel=True, fastmath=True)
    def run(a, b, c, x):
        for i in numba.prange(a.size):
            a[i] = b[i] + x * c[i]

    a, b, c = (np.ones(size, np.float32) for _ in range(3))
    best = 0.0
    run(a, b, c, np.float32(3))
    for _ in range(10):
        started = time.perf_counter()
        run(a, b, c, np.float32(3))
        best = max(best, 3 * a.nbytes / (time.perf_counter() - started) / 1e9)
    return best


def run(threads, only=None):
    """Prints the table; `only` can be large or a text in the op's name."""
    import numba
    import torch
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    stream = triad(20_000_000)
    rng, found = np.random.default_rng(0), Rows("elementwise", threads)
    for size in SIZES + ([10 ** 8] if only == "large" else []):
        for name, ours, moved, theirs in cases(size, rng):
            if only in (None, "large") or only in name:
                times = race({"ours": ours, "torch": theirs}, 11, 0.006, threads)
                mine = median(times["ours"])
                found.append({"op": name, "size": size, "threads": threads, "us": mine * 1e6,
                              "ratio": ratio(times["torch"], times["ours"]),
                              "gbs": moved / mine / 1e9, "of_triad": moved / mine / 1e9 / stream})
    table(f"elementwise and rows, {threads} threads, triad {stream:.1f} GB/s (ratio = torch / ours)",
          ["op", "values", "us", "ratio", "GB/s", "of triad"],
          [[r["op"], f"{r['size']:,}", f"{r['us']:.1f}", f"{r['ratio']:.2f}", f"{r['gbs']:.1f}", f"{r['of_triad']:.2f}"]
           for r in found])
    large = [r["ratio"] for r in found if r["size"] >= 10 ** 5]
    print(f"from 1e5 values: geometric mean {geometric_mean(large):.2f}, lowest {min(large, default=0):.2f}")
    return found
