"""Whole networks on a GPU: training steps and inference against PyTorch with cuDNN, float32 (TF32 off), same weights.

    python -m tools.bench cuda_networks [--only TEXT]

Ours trains as `fit` does, an epoch of steps on the placed data in one call. PyTorch is eager in both memory formats
and, with nothing of Python left between the kernels, a captured graph of the same steps; the fastest of them counts. A
unit is an epoch of a few steps, more where they are short: what begins an epoch is paid once, as in training. It ends
when the GPU is done. `--only` is a text in a row's name; "profile" prints what each call of ours takes. What is going
on (a network's kernels take some seconds the first time, with few processors a minute) is said line by line.
"""
import time

import numpy as np

from tools.bench.cuda import demand_gpu, replayed
from tools.bench.networks import batch_of, formats, make, our_epoch, our_prediction, show, torch_epoch, torch_prediction
from tools.bench.timing import best_of, median, race, ratio

STARTED, STEPS = time.perf_counter(), {"lenet5": 64, "resnet20": 16}
FEW_STEPS = 4                                # of the others
TRAINING = {"lenet5 batch 128": ("lenet5", 128, {}), "resnet20 batch 128": ("resnet20", 128, {}),
            "alexnet batch 32": ("alexnet", 32, {"dropout": 0.0}), "resnet50 batch 32": ("resnet50", 32, {})}
INFERENCE = {"resnet50 batch 1": ("resnet50", 1), "resnet50 batch 32": ("resnet50", 32),
             "mobilenet_v2 batch 1": ("mobilenet_v2", 1)}


def say(text):
    print(f"  {time.perf_counter() - STARTED:6.1f} s  {text}", flush=True)


def first_run(title, make):
    """What `make()` gives, after one run of its first part; says how long that took and what had to be compiled."""
    from engine.progress import compiling
    say(f"{title}: ours is built, compiled and run once")
    started, before = time.perf_counter(), len(compiling.times)
    made = make()
    finished(made[0])()
    times = [seconds for _, seconds in compiling.times[before:]]
    say(f"{title}: {time.perf_counter() - started:.1f} s, {len(times)} kernels compiled in {sum(times):.1f} s together")
    return made


def both_ways(kind, work):
    """PyTorch's work as written, and as a captured graph."""
    say(f"{kind}: run and captured")
    return {kind: finished(work), f"{kind} graph": finished(replayed(work))}


def finished(work):
    import torch

    def run():
        work()
        torch.cuda.synchronize()             # of the whole GPU, whichever stream the work is in
    return run


def training_row(title, name, size, more, profile):
    say(f"{title}: weights and data")
    model, steps = make(name, **more), STEPS.get(name, FEW_STEPS)
    x, y = batch_of(model, size, steps)
    ours, plan = first_run(title, lambda: our_epoch(model, x, y, size))
    if profile:
        print(plan.profile_run(5))
    sides = {"ours": finished(ours)}
    for kind, memory in formats().items():
        sides |= both_ways(kind, torch_epoch(model, x, y, size, memory, "cuda"))
    return row(title, sides, steps)


def inference_row(title, name, size, profile):
    from tools.bench.twins import twin
    say(f"{title}: weights and data")
    model = make(name)
    x, _ = batch_of(model, size)
    ours, plan = first_run(title, lambda: our_prediction(model, x))
    if profile:
        print(plan.profile_run(5))
    sides = {"ours": finished(ours)}
    for kind, memory in formats().items():
        predict = torch_prediction(twin(model).eval(), x, memory, "cuda")
        sides |= both_ways(kind, predict)
    ours()
    want, got = predict().cpu().numpy(), plan.fetch("prediction")
    assert np.abs(want - got).max() < 1e-3 * np.abs(want).max(), f"{title}: both compute the same"
    return row(title, sides, 1)


def row(title, sides, steps):
    say(f"{title}: {len(sides)} sides are timed in turn")
    times = race(sides, rounds=5, seconds=0.05, threads=1)
    best, eager = (best_of(times, [n for n in times if n != "ours" and n.endswith("graph") <= graphs])
                   for graphs in (True, False))
    return {"row": title, "threads": 1, "ms": {n: median(t) * 1e3 / steps for n, t in times.items()}, "torch": eager,
            "ratio": ratio(times[eager], times["ours"]), "best": best,
            "best_ratio": ratio(times[best], times["ours"]), "absent": ""}


def run(threads, only=None):
    """Prints a table as each row comes; returns the rows. Refuses where there is no GPU or no PyTorch with CUDA."""
    from engine.progress import compiling
    demand_gpu()
    compiling.each = lambda name, seconds: say(f"compiled {name} in {seconds:.1f} s")
    profile, only = (only or "").startswith("profile"), (only or "").removeprefix("profile").strip()
    found = []
    for kind, made, of in (("training", training_row, TRAINING), ("inference", inference_row, INFERENCE)):
        for title, arguments in of.items():
            if only in f"{title}, {kind}":
                found.append(made(title, *arguments, profile))
                show(f"{kind} on a GPU", found[-1:], "ratio = PyTorch's / ours")
    return found
