"""Matrix products against torch.mm (MKL) and numpy (OpenBLAS): squares, training shapes with dW and dX, odd sizes.

Ours is a prepared program of one call, as plans hold it; the peers write into an array that exists (`out=`). All
arrays start on a cache line, as those of plans and of PyTorch do; NumPy's own start anywhere, and every vector that
crosses a line is two accesses.
"""
import numpy as np

from tools.bench.timing import Rows, best_of, geometric_mean, median, race, ratio, table

SQUARES = [16, 32, 64, 128, 256, 512, 768, 1000, 1024, 1536, 2048, 4096]
BATCHES = (1, 16, 32, 64, 128, 256, 512)
INPUTS = (784, 512, 1024, 4096)
OUTPUTS = (512, 256, 128, 10)
ODD = [(7, 13, 17), (31, 33, 65), (97, 101, 103), (255, 257, 129), (511, 513, 1025), (1, 1000, 1), (1000, 1, 1000)]


def shapes(quick):
    """(group, name, m, k, n, transpose_a, transpose_b)"""
    for n in SQUARES:
        yield "square", f"{n}^3", n, n, n, False, False
    for b in BATCHES if not quick else (32, 128):
        for i in INPUTS if not quick else (784, 1024):
            for o in OUTPUTS:
                yield "forward", f"{b}x{i}x{o}", b, i, o, False, False
                yield "dW", f"{b}x{i}x{o}", i, b, o, True, False
                yield "dX", f"{b}x{i}x{o}", b, o, i, False, True
    for m, k, n in ODD:
        yield "odd", f"{m}x{k}x{n}", m, k, n, False, False


def ours(a, b, c, ta, tb):
    from engine import target
    from engine.kernels import TABLE
    from engine.kernels.program import Program
    program = Program(target.cpu)
    program.add(TABLE["matmul"], [a, b], [c], {"transpose_a": ta, "transpose_b": tb})
    return program.run


def aligned(shape, dtype):
    """An array of zeros whose memory starts on a cache line."""
    from engine import target
    from engine.kernels.op import Spec
    needed = Spec(shape, np.dtype(dtype))
    return target.cpu.part(target.cpu.empty(needed.nbytes), 0, *needed)


def one(m, k, n, ta, tb, dtype, threads):
    import torch
    a, b = aligned((k, m) if ta else (m, k), dtype), aligned((n, k) if tb else (k, n), dtype)
    c, d = aligned((m, n), dtype), aligned((m, n), dtype)
    rng = np.random.default_rng(0)
    a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
    ta_, tb_ = torch.from_numpy(a), torch.from_numpy(b)
    left, right = (ta_.T if ta else ta_), (tb_.T if tb else tb_)
    out = torch.empty(m, n, dtype=ta_.dtype)
    np_left, np_right = (a.T if ta else a), (b.T if tb else b)
    sides = {"ours": ours(a, b, c, ta, tb), "torch": lambda: torch.mm(left, right, out=out),
             "numpy": lambda: np.matmul(np_left, np_right, out=d)}
    times = race(sides, 9 if threads > 1 else 15, 0.006, threads)
    error = np.abs(c - out.numpy()).max() / max(1.0, k ** 0.5)
    assert error < (1e-4 if dtype == "float32" else 1e-12), f"wrong product: {error}"
    peer = best_of(times, ("torch", "numpy"))
    return {"gflops": 2 * m * n * k / median(times["ours"]) / 1e9, "peer": peer, "ours_us": median(times["ours"]) * 1e6,
            "ratio": ratio(times[peer], times["ours"]), "best": min(times[peer]) / min(times["ours"])}


def run(threads, only=None):
    """Prints rows and geometric means by group; `only` can be quick, float64 or a text in the row's name."""
    import torch
    torch.set_num_threads(threads)
    found = Rows("gemm", threads)
    quick, dtype = only == "quick", "float64" if only == "float64" else "float32"
    text = only if only not in (None, "quick", "float64") else ""
    for group, name, m, k, n, ta, tb in shapes(quick or dtype == "float64"):
        if any(t in f"{group} {name}" for t in text.split(",")):
            row = {"group": group, "row": name, "threads": threads, "dtype": dtype}
            found.append({**row, **one(m, k, n, ta, tb, dtype, threads)})
    table(f"products, {dtype}, {threads} threads (ratio = best peer / ours)",
          ["group", "m x k x n", "GFLOP/s", "us", "peer", "median ratio", "best ratio"],
          [[r["group"], r["row"], f"{r['gflops']:.0f}", f"{r['ours_us']:.1f}", r["peer"], f"{r['ratio']:.2f}",
            f"{r['best']:.2f}"] for r in found])
    for group in dict.fromkeys(r["group"] for r in found):
        ratios = [r["ratio"] for r in found if r["group"] == group]
        print(f"{group:<8} geometric mean {geometric_mean(ratios):.3f}, lowest {min(ratios):.2f}, rows {len(ratios)}")
    print(f"all      geometric mean {geometric_mean(r['ratio'] for r in found):.3f}")
    return found
