"""Whole networks: training steps against PyTorch, inference against PyTorch and ONNX Runtime, peak memory of training.

Ours trains as `fit` does, an epoch in one call, and predicts by a prepared plan. PyTorch is eager, in both of its
memory formats, of which the faster one counts. ONNX Runtime gets PyTorch's export. All start from the same weights.
`--only` is a text in a row's name; "profile" prints what each call of ours takes.
"""
import contextlib
import io
import os
import subprocess
import sys

import numpy as np

from tools.bench.ours import epoch_of
from tools.bench.peers import eager_epoch
from tools.bench.timing import LONG_PAUSE, best_of, geometric_mean, median, race, ratio, table

TRAINING = {"lenet5 batch 128": ("lenet5", 128, {}), "resnet20 batch 128": ("resnet20", 128, {}),
            "alexnet batch 32": ("alexnet", 32, {"dropout": 0.0})}
INFERENCE = {"resnet50 batch 1": ("resnet50", 1), "resnet50 batch 8": ("resnet50", 8), "vgg19 batch 1": ("vgg19", 1),
             "alexnet batch 1": ("alexnet", 1), "mobilenet_v2 batch 1": ("mobilenet_v2", 1)}
RATE = 1e-4


def make(name, **more):
    import engine
    engine.seed(0)
    return getattr(engine.zoo, name)(**more).build()


def batch_of(model, size, steps=1):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((size * steps, *model.network.shape), np.float32)
    return x, rng.integers(0, model.network.output_shape[0], size * steps)


def first(x, memory, device="cpu"):
    """x (n, h, w, c) as a tensor (n, c, h, w) in one of PyTorch's memory formats."""
    import torch
    turned = torch.from_numpy(x).to(device).permute(0, 3, 1, 2)
    return turned.contiguous(memory_format=memory)


def formats():
    import torch
    return {"torch nchw": torch.contiguous_format, "torch nhwc": torch.channels_last}


# ------------------------------------------------------------------------------------------------------------- training


def our_epoch(model, x, y, size):
    import engine
    model.compile(engine.optimizers.SGD(RATE, momentum=0.9), "cross_entropy")
    return epoch_of(model, x, y, size)


def torch_epoch(model, x, y, size, memory, device="cpu"):
    """An epoch of PyTorch, by the fastest of its updates on the device."""
    import torch

    from tools.bench.twins import twin
    net = twin(model).to(device).to(memory_format=memory).train()
    update = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, **{"foreach" if device == "cpu" else "fused": True})
    pairs = [(first(x[i:i + size], memory, device), torch.from_numpy(y[i:i + size]).to(device))
             for i in range(0, len(x), size)]
    return eager_epoch(net, torch.nn.CrossEntropyLoss(), update, pairs)


def training_row(title, name, size, more, threads, profile):
    model = make(name, **more)
    x, y = batch_of(model, size)
    sides = {kind: torch_epoch(model, x, y, size, memory) for kind, memory in formats().items()}
    ours, plan = our_epoch(model, x, y, size)
    if profile:
        print(plan.profile_run(5))
    return _row(title, {"ours": ours, **sides}, threads)


def _row(title, sides, threads, absent=""):
    times = race(sides, rounds=5, seconds=0.1, threads=threads, pause=LONG_PAUSE)
    ms = {kind: median(t) * 1e3 for kind, t in times.items()}
    torch = best_of(times, [kind for kind in times if kind.startswith("torch")])
    best = best_of(times, [kind for kind in times if kind != "ours"])
    return {"row": title, "threads": threads, "ms": ms, "torch": torch, "ratio": ratio(times[torch], times["ours"]),
            "best": best, "best_ratio": ratio(times[best], times["ours"]), "absent": absent}


# ------------------------------------------------------------------------------------------------------------ inference


def our_prediction(model, x):
    from engine import training
    plan = training.plan_of(training.predict_graph(model.state, len(x)), model.state)
    plan.run(x=x)
    return plan.run, plan


def torch_prediction(net, x, memory, device="cpu"):
    import torch
    net, data = net.to(device).to(memory_format=memory), first(x, memory, device)

    def run():
        with torch.inference_mode():
            return net(data)
    return run


@contextlib.contextmanager
def all_cores():
    """OpenMP has bound this thread to a core of its own; threads made in here may use all that the process's have."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set().union(*(os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task"))))
    yield
    os.sched_setaffinity(0, own)


def onnx_prediction(net, x, threads):
    """(run, "") or (None, why it is absent)."""
    import torch
    try:
        import onnx  # noqa: F401
        import onnxruntime
        data, file = first(x, torch.contiguous_format), io.BytesIO()
        torch.onnx.export(net, (data,), file, dynamo=False, input_names=["x"], output_names=["y"])
    except Exception as error:               # an exporter that is not installed or fails is reported
        return None, f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with all_cores():
        session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    given = {"x": data.numpy()}
    return lambda: session.run(None, given)[0], ""


def inference_row(title, name, size, threads, profile):
    from tools.bench.twins import twin
    model = make(name)
    x, _ = batch_of(model, size)
    ours, plan = our_prediction(model, x)
    if profile:
        print(plan.profile_run(5))
    net = twin(model).eval()
    exported, absent = onnx_prediction(net, x, threads)
    sides = {"ours": ours, **({"onnxruntime": exported} if exported else {})}
    for kind, memory in formats().items():
        sides[kind] = torch_prediction(twin(model).eval(), x, memory)
    ours()
    want, got = sides["torch nchw"]().numpy(), plan.fetch("prediction")
    assert np.abs(want - got).max() < 1e-3 * np.abs(want).max(), "both compute the same"
    return _row(title, sides, threads, absent)


# --------------------------------------------------------------------------------------------------------------- memory

MEMORY = """
import sys
from tools.bench import networks
from tools.bench.memory import forget_peak, resident
side, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
more = {{"dropout": 0.0}} if name == "alexnet" else {{}}
warm = networks.make("lenet5")
x, y = networks.batch_of(warm, 2)
warming = (lambda: networks.our_epoch(warm, x, y, 2)[0]) if side == "ours" else (
    lambda: networks.torch_epoch(warm, x, y, 2, networks.formats()[side]))
warming()()
forget_peak()
before = resident("VmRSS")
if side == "ours":
    model = networks.make(name, **more)
    x, y = networks.batch_of(model, size)
    run = networks.our_epoch(model, x, y, size)[0]
else:
    run = networks.torch_memory(name, size, side, more)
for _ in range(2): run()
print(resident("VmHWM") - before)
"""


def torch_memory(name, size, side, more):
    """PyTorch's step without a model of ours beside it."""
    import gc
    model = make(name, **more)
    x, y = batch_of(model, size)
    run = torch_epoch(model, x, y, size, formats()[side])
    del model
    gc.collect()
    return run


def memory_row(title, name, size):
    row = {"row": title}
    for side in ("ours", *formats()):
        done = subprocess.run([sys.executable, "-c", MEMORY.format(), side, name, str(size)], capture_output=True,
                              text=True)
        row[side] = float(done.stdout.split()[-1]) if done.returncode == 0 else float("nan")
        if done.returncode:
            print(f"{title}: {side}: {done.stderr.splitlines()[-1] if done.stderr else done.returncode}")
    return row


# -------------------------------------------------------------------------------------------------------------- the run


def run(threads, only=None):
    """Prints the tables; returns the rows. `only`: a text in a row's name, or "training", "inference", "memory"; with
    "profile " before it each call of ours is timed too."""
    import torch
    torch.set_num_threads(threads)
    profile = (only or "").startswith("profile")
    only = (only or "").removeprefix("profile").strip()

    def wanted(title, kind):
        return not only or only in title or only == kind
    found = [training_row(t, *arguments, threads, profile) for t, arguments in TRAINING.items()
             if wanted(t, "training")]
    show("training step", found, f"{threads} threads; ratio = theirs / ours")
    guesses = [inference_row(f"{t}, inference", *arguments, threads, profile) for t, arguments in INFERENCE.items()
               if wanted(f"{t}, inference", "inference")]
    show("inference", guesses, f"{threads} threads; ratio = theirs / ours")
    used = [memory_row(t, name, size) for t, (name, size, _) in TRAINING.items() if wanted(f"{t} memory", "memory")]
    if used:
        table("peak memory of a training step (MiB)", ["network", "ours", *formats(), "ratio"],
              [[r["row"], *(f"{r[k]:.0f}" for k in ("ours", *formats())),
                f"{min(r[k] for k in formats()) / r['ours']:.2f}"] for r in used])
    return found + guesses + used


def show(title, rows, says):
    """Prints a table of rows, milliseconds and ratios."""
    if not rows:
        return
    names = list(dict.fromkeys(kind for r in rows for kind in r["ms"]))
    table(f"{title} (ms; {says})", ["network", *names, "to torch", "to the best"],
          [[r["row"], *(f"{r['ms'][k]:.2f}" if k in r["ms"] else "-" for k in names), f"{r['ratio']:.2f}",
            f"{r['best_ratio']:.2f}"] for r in rows])
    for why in {r["absent"] for r in rows if r["absent"]}:
        print(f"not measured: onnxruntime: {why}")
    print(f"geometric mean: {geometric_mean(r['ratio'] for r in rows):.2f} to torch")
