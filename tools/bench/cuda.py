"""The CUDA target against cuBLAS and cuDNN through PyTorch, on a machine with a GPU, and the lecture's table.

    python -m tools.bench cuda [--only TEXT]            or: python -m tools.bench --target cuda

Times are of the GPU (events around repeated launches), so the cost of launching shows only where it is longer than the
work. TF32 is off: float32 means float32. The table: TFLOP/s of square products in float32, float64 and halves, GB/s of
the STREAM triad a = b + s c, both with their share of the GPU's peak where that is known.
"""
import math

import numpy as np

from tools.bench.timing import geometric_mean, median, table

PRODUCTS = ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096), (128, 784, 512), (512, 1024, 10),
            (511, 513, 1025), (64, 65536, 64))
FORMS = ((False, False), (True, False), (False, True))
ROUNDS, REPEATS = 9, 20


def gpu_seconds(work, repeats=REPEATS):
    """Sorted seconds of one unit of work, by the GPU's own clock."""
    import torch
    for _ in range(3):
        work()
    times = []
    for _ in range(ROUNDS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / repeats)
    return sorted(times)


def ours(op, inputs, attributes):
    """(a callable that launches the op on these torch tensors, its output as a torch tensor)."""
    import torch
    from numba import cuda

    from engine import target
    from engine.kernels import TABLE
    from engine.kernels.op import spec
    from engine.kernels.program import Program
    placed = [cuda.as_cuda_array(t.view(torch.int16)).view(np.uint16) if t.element_size() == 2 else
              cuda.as_cuda_array(t) for t in inputs]
    out = [torch.empty(s.shape, dtype=getattr(torch, s.dtype.name), device="cuda")
           for s in TABLE[op].infer(*map(spec, placed), **attributes)]
    program = Program(target.cuda)
    program.add(TABLE[op], placed, [cuda.as_cuda_array(t) for t in out], TABLE[op].complete(attributes))
    return program.run, out[0]


def row(name, op, inputs, attributes, peer, tolerance, cost):
    """One comparison: both sides' times, and their results held against each other."""
    launch, out = ours(op, inputs, attributes)
    times, peers = gpu_seconds(launch), gpu_seconds(peer)
    want = peer()
    error = ((out - want).abs().max() / want.abs().max().clamp(min=1)).item()
    assert error < tolerance, f"{name}: expected results within {tolerance}, got a distance of {error}"
    flops, size = cost
    return {"name": name, "ours_us": median(times) * 1e6, "peer_us": median(peers) * 1e6,
            "ratio": median(peers) / median(times), "tflops": flops / median(times) / 1e12,
            "gbs": size / median(times) / 1e9}


def products(only):
    import torch
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        for m, k, n in PRODUCTS:
            for ta, tb in FORMS:
                name = f"matmul {str(dtype)[6:]} {m}x{k}x{n}{' A.T' * ta}{' B.T' * tb}"
                if only and only not in name:
                    continue
                a = torch.randn((k, m) if ta else (m, k), dtype=dtype, device="cuda")
                b = torch.randn((n, k) if tb else (k, n), dtype=dtype, device="cuda")
                left, right = (a.T if ta else a), (b.T if tb else b)
                yield row(name, "matmul", [a, b], {"transpose_a": ta, "transpose_b": tb},
                          lambda left=left, right=right: left @ right, tolerance,
                          (2 * m * n * k, (m * k + k * n + m * n) * a.element_size()))


def halves(only):
    import torch
    for n in (1024, 4096):
        for kind in ("float16", "bfloat16"):
            if only and only not in f"matmul_half {kind} {n}":
                continue
            a, b = (torch.randn(n, n, device="cuda").to(getattr(torch, kind)) for _ in range(2))
            yield row(f"matmul_half {kind} {n}", "matmul_half", [a, b], {"format": kind},
                      lambda a=a, b=b: (a @ b).float(), 1e-2, (2 * n ** 3, 8 * n * n))


def others(only):
    """Ops that memory bounds, at 4096 x 4096 in float32."""
    import torch
    from torch.nn import functional
    x, y = (torch.randn(4096, 4096, device="cuda") for _ in range(2))
    g, b = (torch.randn(4096, device="cuda") for _ in range(2))
    size = x.numel() * 4
    for name, inputs, attributes, peer, traffic in (
            ("relu", [x], {}, lambda: torch.relu(x), 2), ("gelu", [x], {}, lambda: functional.gelu(x), 2),
            ("add", [x, y], {}, lambda: x + y, 3), ("sum", [x], {"axis": 1}, lambda: x.sum(1), 1),
            ("softmax", [x], {}, lambda: torch.softmax(x, 1), 2),
            ("layer_norm", [x, g, b], {}, lambda: functional.layer_norm(x, (4096,), g, b), 2)):
        if not only or only in name:
            yield row(name, name, inputs, attributes, peer, 1e-4, (x.numel(), traffic * size))


def peaks():
    """(name, float32 TFLOP/s, float64 TFLOP/s, GB/s) of this GPU; NaN where it is not known."""
    import torch

    from tools.ptx.roofline import GPUS
    name = torch.cuda.get_device_name()
    known = next((g for g in GPUS if g.name in name), None)
    return (name, known.float32, known.float64, known.memory) if known else (name, math.nan, math.nan, math.nan)


def lecture():
    """Rows of the lecture's table: what of the GPU's peak a product and the triad reach."""
    import torch
    name, single, double, memory = peaks()
    for dtype, top in ((torch.float32, single), (torch.float64, double)):
        a, b = (torch.randn(4096, 4096, dtype=dtype, device="cuda") for _ in range(2))
        rate = 2 * 4096 ** 3 / median(gpu_seconds(ours("matmul", [a, b], {})[0])) / 1e12
        yield {"name": f"{name}: GEMM {str(dtype)[6:]}", "rate": f"{rate:.2f} TFLOP/s", "peak": rate / top}
    b, c = (torch.randn(2 ** 26, device="cuda") for _ in range(2))
    launch, _ = ours(triad(), [b, c], {})
    rate = 3 * b.numel() * 4 / median(gpu_seconds(launch)) / 1e9
    yield {"name": f"{name}: STREAM triad", "rate": f"{rate:.0f} GB/s", "peak": rate / memory}


def triad():
    """The name of the op a = b + 3 c, made as a user makes one."""
    from engine.kernels import TABLE
    from engine.kernels.elementwise import binary
    if "triad" not in TABLE:
        TABLE.register(binary("triad", lambda b, c: b + 3 * c, 1, 3, lambda b, c: b + 3 * c)[0])
    return "triad"


def run(threads, only=None):
    """Prints and returns all rows; refuses where there is no GPU or no PyTorch with CUDA."""
    from engine import target
    if not target.cuda.present() or target.cuda.simulated:
        raise SystemExit(f"bench cuda: expected a GPU, got none: {target.cuda.reason()}")
    import torch
    if not torch.cuda.is_available():
        raise SystemExit("bench cuda: expected PyTorch with CUDA as the peer (cuBLAS, cuDNN), got a PyTorch without it")
    torch.backends.cuda.matmul.allow_tf32 = False
    rows = [*products(only), *halves(only), *others(only)]
    numbers = "ours_us", "peer_us", "ratio", "tflops", "gbs"
    table("the CUDA target and PyTorch", ("", *numbers), [(r["name"], *(f"{r[n]:.2f}" for n in numbers)) for r in rows])
    print(f"geometric mean of the ratios: {geometric_mean([r['ratio'] for r in rows]):.2f}")
    final = [] if only else list(lecture())
    table("of the GPU's peak", ("", "rate", "of peak"), [(r["name"], r["rate"], f"{r['peak']:.0%}") for r in final])
    return rows + final
