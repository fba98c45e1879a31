"""The CUDA target against cuBLAS and cuDNN through PyTorch, on a machine with a GPU, and the lecture's table.

    python -m tools.bench cuda [--only TEXT]            or: python -m tools.bench --target cuda (with cuda_networks)

Times are of the GPU (events around a CUDA graph of ten calls, sides in turn): what the processor takes to launch is
not in them. TF32 is off: float32 means float32. Every row holds our result against PyTorch's; one that is wrong or does
not run says so in its place and makes the command fail. The table: TFLOP/s of square products in float32 and float64,
GB/s of the STREAM triad a = b + s c, both with their share of the GPU's peak where that is known.
"""
import math
from typing import NamedTuple

from tools.bench.timing import geometric_mean, median, ratio, table

PRODUCTS = ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096), (128, 784, 512), (512, 1024, 10),
            (511, 513, 1025), (64, 65536, 64))
FORMS = ((False, False), (True, False), (False, True))
# (h = w, c, o, r = s, stride, padding) of ResNet-50, VGG19 and LeNet-5
CONVOLUTIONS = ((224, 3, 64, 7, 2, 3), (56, 64, 64, 1, 1, 0), (56, 64, 64, 3, 1, 1), (56, 256, 128, 1, 1, 0),
                (56, 128, 128, 3, 2, 1), (28, 128, 128, 3, 1, 1), (14, 256, 256, 3, 1, 1), (14, 1024, 256, 1, 1, 0),
                (7, 512, 512, 3, 1, 1), (7, 2048, 512, 1, 1, 0), (112, 128, 128, 3, 1, 1), (14, 6, 16, 5, 1, 0))
BATCH = 32
ROUNDS, REPEATS = 5, 10


def demand_gpu():
    """PyTorch with CUDA, float32 only; refuses where there is no GPU or no such PyTorch."""
    from engine import target
    if not target.cuda.present() or target.cuda.simulated:
        raise SystemExit(f"bench cuda: expected a GPU, got none: {target.cuda.reason()}")
    import torch
    if not torch.cuda.is_available():
        raise SystemExit("bench cuda: expected PyTorch with CUDA as the peer (cuBLAS, cuDNN), got a PyTorch without it")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True    # it tries its algorithms and takes the fastest
    return torch


def our_stream():
    """The stream in which our kernels run, as PyTorch's: both sides and the events are of one stream."""
    import torch

    from engine import target
    return torch.cuda.stream(torch.cuda.ExternalStream(int(target.cuda.work.handle)))


def replayed(work, repeats=1):
    """`work`, `repeats` times, as a CUDA graph: launched as one. A few calls before, in a stream of their own, let its
    libraries choose and allocate."""
    import torch
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="relaxed"):
        for _ in range(repeats):
            work()
    return graph.replay


def gpu_times(sides, rounds=ROUNDS):
    """name -> seconds of one unit of its work, of which a side's call does REPEATS, in turn, by the GPU's clock."""
    import torch
    times = {name: [] for name in sides}
    with our_stream():
        for work in sides.values():
            work()
            work()
        for _ in range(rounds):
            for name, work in sides.items():
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                work()
                end.record()
                end.synchronize()
                times[name].append(start.elapsed_time(end) / 1e3 / REPEATS)
    return times


def placed(tensor):
    """A tensor's memory as an array of ours; halves as their bits."""
    import torch
    from numba import cuda
    if tensor.element_size() == 2:
        return cuda.as_cuda_array(tensor.view(torch.int16)).view("uint16")
    return cuda.as_cuda_array(tensor.detach())


def ours(op, inputs, attributes):
    """(a program that computes the op on these torch tensors REPEATS times, its outputs as torch tensors)."""
    import torch

    from engine import target
    from engine.kernels import TABLE
    from engine.kernels.op import spec
    from engine.kernels.program import Program
    arrays, attributes = [placed(t) for t in inputs], TABLE[op].complete(attributes)
    out = [torch.full(s.shape, math.nan, dtype=torch.float64, device="cuda").to(getattr(torch, s.dtype.name))
           for s in TABLE[op].infer(*map(spec, arrays), **attributes)]
    torch.cuda.synchronize()                 # what was made in PyTorch's stream is there
    program, results = Program(target.cuda), [placed(t) for t in out]
    for _ in range(REPEATS):
        program.add(TABLE[op], arrays, results, attributes)
    return program, out


class Case(NamedTuple):
    """A row to come: our op and calls of PyTorch's, by name, whose first result ours has to be."""
    name: str
    op: str
    inputs: list
    attributes: dict
    peers: dict
    tolerance: float
    cost: tuple                              # operations, bytes


def compile_all(cases):
    """Compiles what our side of all rows needs, by all processes allowed: one by one it would take minutes."""
    from engine.kernels.gpu.ahead import compile_ahead, gathered
    with gathered() as wanted:
        for case in cases:
            ours(case.op, case.inputs, case.attributes)[0].launch_all()
    compile_ahead(wanted)


def row(case):
    """One comparison: both sides' times, and their results held against each other."""
    found = {"name": case.name, "ours_us": math.nan, "peer_us": math.nan, "ratio": math.nan, "tflops": math.nan,
             "gbs": math.nan, "wrong": ""}
    try:
        program, out = ours(case.op, case.inputs, case.attributes)
        times = gpu_times({"ours": program.run, **{k: replayed(work, REPEATS) for k, work in case.peers.items()}})
        found["wrong"] = difference(out[0], next(iter(case.peers.values()))(), case.tolerance)
    except Exception as error:               # one row that fails must not take the others along
        text = str(error).strip().splitlines()
        return {**found, "wrong": f"{type(error).__name__}: {text[-1][:150] if text else ''}"}
    peer = min(case.peers, key=lambda n: median(times[n]))
    flops, size = case.cost
    return {**found, "ours_us": median(times["ours"]) * 1e6, "peer_us": median(times[peer]) * 1e6,
            "ratio": ratio(times[peer], times["ours"]), "tflops": flops / median(times["ours"]) / 1e12,
            "gbs": size / median(times["ours"]) / 1e9}


def difference(got, want, tolerance):
    """What is wrong with a result, or nothing."""
    import torch
    torch.cuda.synchronize()
    if got.shape != want.shape:
        return f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    error = ((got - want).abs().max() / want.abs().max().clamp(min=1e-6)).item()
    return "" if error < tolerance else f"differs by {error:.1e} of the largest value, expected {tolerance:.0e}"


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
                yield Case(name, "matmul", [a, b], {"transpose_a": ta, "transpose_b": tb},
                           {"torch": lambda left=left, right=right: left @ right}, tolerance,
                           (2 * m * n * k, (m * k + k * n + m * n) * a.element_size()))


def halves(only):
    import torch
    for n in (1024, 4096, 8192):
        for kind in ("float16", "bfloat16"):
            if only and only not in f"matmul_half {kind} {n}":
                continue
            a, b = (torch.randn(n, n, device="cuda").to(getattr(torch, kind)) for _ in range(2))
            yield Case(f"matmul_half {kind} {n}", "matmul_half", [a, b], {"format": kind},
                       {"torch": lambda a=a, b=b: (a @ b).float()}, 1e-2, (2 * n ** 3, 8 * n * n))


def convolutions(only):
    """Forward with bias and ReLU, and both gradients; cuDNN in both of its formats."""
    for layer in CONVOLUTIONS:
        size, c, o, r, stride, padding = layer
        for direction in ("forward", "dx", "dw"):
            name = f"conv {size}x{size} {c}-{o} {r}x{r}{f' /{stride}' if stride > 1 else ''} {direction}"
            if not only or only in name:
                yield convolution(name, direction, *layer)


def convolution(name, direction, size, c, o, r, stride, padding):
    import torch

    from engine.kernels.activation import ACTIVATIONS
    from tools.bench.nets import call
    p = (size + 2 * padding - r) // stride + 1
    x, y, w = (torch.randn(shape, device="cuda") for shape in ((BATCH, size, size, c), (BATCH, p, p, o), (r, r, c, o)))
    bias, a = torch.randn(o, device="cuda"), {"stride": (stride,) * 2, "padding": (padding,) * 4}
    op, inputs, more = {
        "forward": ("conv2d", [x, w, bias], {"activation": ACTIVATIONS["relu"]}),
        "dx": ("conv2d_input_gradient", [y, w], {"shape": tuple(x.shape)}),
        "dw": ("conv2d_weight_gradient", [x, y], {"kernel": (r, r)})}[direction]
    order, peers = ((2, 3, 1, 0) if direction == "dw" else (0, 2, 3, 1)), {}
    for kind, form in (("channels last", torch.channels_last), ("channels first", torch.contiguous_format)):
        x_, y_ = (t.permute(0, 3, 1, 2).contiguous(memory_format=form) for t in (x, y))
        w_ = w.permute(3, 2, 0, 1).contiguous(memory_format=form)
        peers[kind] = lambda work=call(direction, x_, w_, bias, y_, stride, padding): work().permute(*order)
    values = x.numel() + y.numel() + w.numel()
    return Case(name, op, inputs, {**a, **more}, peers, 1e-4, (2 * y.numel() * r * r * c, 4 * values))


def others(only):
    """Ops that memory bounds, most at 4096 x 4096 in float32."""
    import torch
    from torch.nn import functional
    x, y = (torch.randn(4096, 4096, device="cuda") for _ in range(2))
    g, b = (torch.randn(4096, device="cuda") for _ in range(2))
    labels, ones = torch.randint(0, 4096, (4096,), device="cuda"), torch.ones(4096, device="cuda")
    leaf = x.clone().requires_grad_()
    image = torch.randn(32, 56, 56, 64, device="cuda")
    last = image.permute(0, 3, 1, 2)
    channel = [torch.rand(64, device="cuda") + 0.5 for _ in range(4)]
    pool = {"kernel": (2, 2), "stride": (2, 2)}
    size, pixels = x.numel() * 4, image.numel() * 4
    for name, inputs, attributes, peer, traffic in (
            ("relu", [x], {}, lambda: torch.relu(x), 2 * size), ("gelu", [x], {}, lambda: functional.gelu(x), 2 * size),
            ("exp", [x], {}, lambda: torch.exp(x), 2 * size), ("tanh", [x], {}, lambda: torch.tanh(x), 2 * size),
            ("add", [x, y], {}, lambda: x + y, 3 * size), ("sum", [x], {"axis": 1}, lambda: x.sum(1), size),
            ("sum", [x], {"axis": 0}, lambda: x.sum(0), size), ("max", [x], {"axis": 1}, lambda: x.amax(1), size),
            ("transpose", [x], {"axes": (1, 0)}, lambda: x.T.contiguous(), 2 * size),
            ("softmax", [x], {}, lambda: torch.softmax(x, 1), 2 * size),
            ("log_softmax", [x], {}, lambda: torch.log_softmax(x, 1), 2 * size),
            ("layer_norm", [x, g, b], {}, lambda: functional.layer_norm(x, (4096,), g, b), 2 * size),
            ("cross_entropy", [x, labels, ones], {}, lambda: loss_and_gradient(leaf, labels), 2 * size),
            ("batch_norm_inference", [image, *channel], {"epsilon": 1e-5},
             lambda: functional.batch_norm(last, channel[2], channel[3], channel[0], channel[1]).permute(0, 2, 3, 1),
             2 * pixels),
            ("max_pool2d", [image], pool,
             lambda: functional.max_pool2d(last, 2).permute(0, 2, 3, 1), 1.25 * pixels),
            ("avg_pool2d", [image], pool,
             lambda: functional.avg_pool2d(last, 2).permute(0, 2, 3, 1), 1.25 * pixels)):
        title = f"{name}{attributes.get('axis', '')}"
        if not only or only in title:
            yield Case(title, name, inputs, attributes, {"torch": peer}, 1e-4, (x.numel(), traffic))


def loss_and_gradient(logits, labels):
    """The loss of PyTorch, once its gradient by the logits is there too (our op gives both)."""
    import torch
    loss = torch.nn.functional.cross_entropy(logits, labels)
    torch.autograd.grad(loss, logits)
    return loss.detach()


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
        rate = 2 * 4096 ** 3 / seconds("matmul", [a, b]) / 1e12
        yield {"name": f"{name}: GEMM {str(dtype)[6:]}", "rate": f"{rate:.2f} TFLOP/s", "peak": rate / top}
    b, c = (torch.randn(2 ** 26, device="cuda") for _ in range(2))
    rate = 3 * b.numel() * 4 / seconds(triad(), [b, c]) / 1e9
    yield {"name": f"{name}: STREAM triad", "rate": f"{rate:.0f} GB/s", "peak": rate / memory}


def seconds(op, inputs):
    return median(gpu_times({op: ours(op, inputs, {})[0].run})[op])


def triad():
    """The name of the op a = b + 3 c, made as a user makes one."""
    from engine.kernels import TABLE
    from engine.kernels.elementwise import binary
    if "triad" not in TABLE:
        TABLE.register(binary("triad", lambda b, c: b + 3 * c, 1, 3, lambda b, c: b + 3 * c)[0])
    return "triad"


NUMBERS = "ours_us", "peer_us", "ratio", "tflops", "gbs"


def line(name, cells, more=""):
    print(f"{name:<38}", *(f"{cell:>10}" for cell in cells), more, flush=True)


def run(threads, only=None):
    """Prints and returns all rows; refuses where there is no GPU or no PyTorch with CUDA."""
    demand_gpu()
    families, rows = (products, halves, convolutions, others), []
    compile_all(case for family in families for case in family(only))
    for family in families:
        found = []
        print(f"\nthe CUDA target and PyTorch: {family.__name__}")
        line("", NUMBERS)
        for case in family(only):
            made = row(case)
            line(made["name"], [f"{made[n]:.2f}" for n in NUMBERS], made["wrong"])
            found.append(made)
        right = [made["ratio"] for made in found if not made["wrong"]]
        print(f"geometric mean of {len(right)} ratios: {geometric_mean(right):.2f}")
        rows += found
    final = [] if only else list(lecture())
    table("of the GPU's peak", ("", "rate", "of peak"), [(r["name"], r["rate"], f"{r['peak']:.0%}") for r in final])
    wrong = [r["name"] for r in rows if r["wrong"]]
    if wrong:
        raise SystemExit(f"bench cuda: {len(wrong)} of {len(rows)} rows are wrong: {', '.join(wrong)[:500]}")
    return rows + final
