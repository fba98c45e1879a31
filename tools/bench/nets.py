"""Convolutions of well-known networks against PyTorch (oneDNN): forward, and the gradients by input and by weights.

Ours is a prepared program of one call, as plans hold it. PyTorch gets every layer in both of its memory formats, and
the faster one counts. `--only` is a text in a row's name, several with commas between; `quick` is a selection.
"""
import math

import numpy as np

from tools.bench.gemm import aligned
from tools.bench.timing import Rows, best_of, geometric_mean, median, race, ratio, table

# (h = w, c, o, r = s, stride, padding), each layer once
RESNET50 = ((224, 3, 64, 7, 2, 3),
            (56, 64, 64, 1, 1, 0), (56, 64, 64, 3, 1, 1), (56, 64, 256, 1, 1, 0), (56, 256, 64, 1, 1, 0),
            (56, 256, 128, 1, 1, 0), (56, 128, 128, 3, 2, 1), (28, 128, 512, 1, 1, 0), (56, 256, 512, 1, 2, 0),
            (28, 512, 128, 1, 1, 0), (28, 128, 128, 3, 1, 1),
            (28, 512, 256, 1, 1, 0), (28, 256, 256, 3, 2, 1), (14, 256, 1024, 1, 1, 0), (28, 512, 1024, 1, 2, 0),
            (14, 1024, 256, 1, 1, 0), (14, 256, 256, 3, 1, 1),
            (14, 1024, 512, 1, 1, 0), (14, 512, 512, 3, 2, 1), (7, 512, 2048, 1, 1, 0), (14, 1024, 2048, 1, 2, 0),
            (7, 2048, 512, 1, 1, 0), (7, 512, 512, 3, 1, 1))
VGG19 = ((224, 3, 64, 3, 1, 1), (224, 64, 64, 3, 1, 1), (112, 64, 128, 3, 1, 1), (112, 128, 128, 3, 1, 1),
         (56, 128, 256, 3, 1, 1), (56, 256, 256, 3, 1, 1), (28, 256, 512, 3, 1, 1), (28, 512, 512, 3, 1, 1),
         (14, 512, 512, 3, 1, 1))
LENET5 = ((28, 1, 6, 5, 1, 2), (14, 6, 16, 5, 1, 0))
RESNET20 = ((32, 3, 16, 3, 1, 1), (32, 16, 16, 3, 1, 1), (32, 16, 32, 3, 2, 1), (16, 32, 32, 3, 1, 1),
            (16, 32, 64, 3, 2, 1), (8, 64, 64, 3, 1, 1))
NETWORKS = {"resnet50": (RESNET50, (1, 8, 32)), "vgg19": (VGG19, (1, 8, 32)), "lenet5": (LENET5, (128,)),
            "resnet20": (RESNET20, (128,))}
DIRECTIONS = ("forward", "dx", "dw")
QUICK = (("resnet50", 0, 8), ("resnet50", 2, 8), ("resnet50", 3, 8), ("resnet50", 4, 8), ("resnet50", 6, 8),
         ("resnet50", 8, 8), ("resnet50", 10, 8), ("resnet50", 13, 8), ("resnet50", 16, 8), ("resnet50", 21, 8),
         ("resnet50", 22, 8), ("resnet50", 22, 1), ("resnet50", 16, 1), ("resnet50", 2, 1), ("vgg19", 0, 1),
         ("vgg19", 1, 1), ("vgg19", 7, 1), ("lenet5", 0, 128), ("lenet5", 1, 128), ("resnet20", 1, 128),
         ("resnet20", 2, 128), ("resnet20", 3, 128), ("resnet20", 5, 128))


def layers(quick):
    """(network, batch, layer)"""
    if quick:
        return [(name, batch, NETWORKS[name][0][place]) for name, place, batch in QUICK]
    return [(name, batch, layer) for name, (of, batches) in NETWORKS.items() for batch in batches for layer in of]


def arrays(batch, size, c, o, r, stride, padding):
    """x, w, bias, y: random but for y, which has the output's shape."""
    p = (size + 2 * padding - r) // stride + 1
    rng, made = np.random.default_rng(0), []
    for shape in ((batch, size, size, c), (r, r, c, o), (o,), (batch, p, p, o)):
        made.append(aligned(shape, "float32"))
        made[-1][...] = rng.standard_normal(shape, "float32")
    return made


def ours(direction, x, w, bias, y, stride, padding):
    """(a program of one call, as a network's graph has it; its output)"""
    from engine import target
    from engine.kernels import TABLE
    from engine.kernels.activation import ACTIVATIONS
    from engine.kernels.program import Program
    a = {"stride": (stride,) * 2, "padding": (padding,) * 4}
    name, inputs, out, more = {
        "forward": ("conv2d", [x, w, bias], y, {"activation": ACTIVATIONS["relu"]}),
        "dx": ("conv2d_input_gradient", [y, w], x, {"shape": x.shape}),
        "dw": ("conv2d_weight_gradient", [x, y], w, {"kernel": w.shape[:2]})}[direction]
    out, program, op = aligned(out.shape, "float32"), Program(target.cpu), TABLE[name]
    if direction != "forward" and w.shape[:2] == (1, 1) and stride == 1:
        flat = [v.reshape(-1, v.shape[3]) for v in (*inputs, out)]
        turned = {"transpose_a": direction == "dw", "transpose_b": direction == "dx"}
        program.add(TABLE["matmul"], flat[:2], flat[2:], turned)
    else:
        program.add(op, inputs, [out], op.complete({**a, **more}))
    return program.run, out


def torchs(direction, x, w, bias, y, stride, padding):
    """name -> a call of PyTorch's in one of its formats"""
    import torch
    sides = {}
    for name, form in (("channels last", torch.channels_last), ("channels first", torch.contiguous_format)):
        x_, y_ = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=form) for a in (x, y))
        w_ = torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(memory_format=form)
        sides[name] = call(direction, x_, w_, torch.from_numpy(bias), y_, stride, padding)
    return sides


def call(direction, x, w, bias, y, stride, padding):
    import torch
    if direction == "forward":
        return lambda: torch.relu_(torch.nn.functional.conv2d(x, w, bias, stride, padding))
    mask, place = ([True, False, False], 0) if direction == "dx" else ([False, True, False], 1)
    numbers = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1
    return lambda: torch.ops.aten.convolution_backward(y, x, w, None, *numbers, mask)[place]


def agree(out, theirs, direction):
    """Refuses a result that is not PyTorch's."""
    order = (2, 3, 1, 0) if direction == "dw" else (0, 2, 3, 1)
    want = theirs.permute(*order).numpy()
    error = np.abs(out - want).max() / max(1e-9, np.abs(want).max())
    assert error < 1e-4, f"wrong {direction}: {error}"


def one(direction, batch, layer, threads):
    size, c, o, r, stride, padding = layer
    given = arrays(batch, *layer)
    run_ours, out = ours(direction, *given, stride, padding)
    sides = {"ours": run_ours, **torchs(direction, *given, stride, padding)}
    run_ours()
    agree(out, sides["channels last"](), direction)
    times = race(sides, 7, 0.01, threads)
    peer = best_of(times, [n for n in sides if n != "ours"])
    flops = 2 * math.prod(given[1].shape) * math.prod(given[3].shape[:3])
    return {"gflops": flops / median(times["ours"]) / 1e9, "ours_us": median(times["ours"]) * 1e6, "peer": peer,
            "ratio": ratio(times[peer], times["ours"]), "best": min(times[peer]) / min(times["ours"])}


def run(threads, only=None):
    """Prints rows and geometric means by network and direction."""
    import torch
    torch.set_num_threads(threads)
    words, found = [w for w in (only or "").split(",") if w and w != "quick"], Rows("nets", threads)
    for network, batch, layer in layers("quick" in (only or "")):
        size, c, o, r, stride, _ = layer
        name = f"{network} {size}x{size} {c}-{o} {r}x{r}{f' /{stride}' if stride > 1 else ''} batch {batch}"
        for direction in DIRECTIONS:
            if any(w in f"{name} {direction}" for w in words or [""]):
                row = {"network": network, "batch": batch, "row": name, "direction": direction, "threads": threads}
                found.append({**row, **one(direction, batch, layer, threads)})
    table(f"convolutions, float32, {threads} threads (ratio = PyTorch's best / ours)",
          ["layer", "direction", "GFLOP/s", "us", "peer", "median ratio", "best ratio"],
          [[r["row"], r["direction"], f"{r['gflops']:.0f}", f"{r['ours_us']:.0f}", r["peer"], f"{r['ratio']:.2f}",
            f"{r['best']:.2f}"] for r in found])
    for network in dict.fromkeys(r["network"] for r in found):
        for direction in DIRECTIONS:
            ratios = [r["ratio"] for r in found if r["network"] == network and r["direction"] == direction]
            if ratios:
                print(f"{network:<8} {direction:<8} geometric mean {geometric_mean(ratios):.3f}, lowest "
                      f"{min(ratios):.2f}, rows {len(ratios)}")
    print(f"all      geometric mean {geometric_mean(r['ratio'] for r in found):.3f}")
    return found
