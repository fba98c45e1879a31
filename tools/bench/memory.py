"""Peak memory of a training step: what it adds to a process that has run a small network before. A process for each."""
import subprocess
import sys

import numpy as np

from tools.bench.timing import table

NETWORKS = {"784-512-256-10 batch 128": ((784, 512, 256, 10), 128), "8x1024 batch 1024": ((1024,) * 9, 1024)}
WARM = (8, 8, 8)                             # compiles, and loads, what the others need
STEPS = 3


def resident(word):
    """MiB of this process: `VmRSS` now, `VmHWM` at most since the start or `forget_peak`. (The peak that `getrusage`
    gives is at least that of the process which started this one.)"""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(word))


def forget_peak():
    """The peak so far, of compiling say, no longer counts."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def ours(sizes, x, y):
    import engine
    model = engine.Sequential([*(engine.Dense(n, activation="relu") for n in sizes[1:-1]), engine.Dense(sizes[-1])])
    model.compile("adam", "cross_entropy")
    return lambda: model.train_step(x, y)


def theirs(sizes, x, y):
    import torch
    layers = []
    for i, o in zip(sizes, sizes[1:]):
        layers += [torch.nn.Linear(i, o), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    update, x, y = torch.optim.Adam(net.parameters(), 1e-3), torch.from_numpy(x), torch.from_numpy(y)

    def step():
        update.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), y).backward()
        update.step()
    return step


SIDES = {"ours": ours, "torch": theirs}


def added(side, sizes, batch):
    """(MiB that STEPS steps added at most, the process's peak)"""
    rng = np.random.default_rng(0)

    def steps(sizes, batch):
        step = SIDES[side](sizes, rng.standard_normal((batch, sizes[0])).astype(np.float32),
                           rng.integers(0, sizes[-1], batch))
        for _ in range(STEPS):
            step()
    steps(WARM, batch)
    forget_peak()
    before = resident("VmRSS")
    steps(sizes, batch)
    return resident("VmHWM") - before, resident("VmHWM")


def run(threads, only=None):
    """Prints MiB: what building and some steps added, and the process's peak."""
    found = []
    for name, (sizes, batch) in NETWORKS.items():
        row = {"row": name}
        for side in SIDES:
            code = f"from tools.bench import memory; print(*memory.added({side!r}, {sizes}, {batch}))"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            row[side], row[f"{side}_process"] = map(float, done.stdout.split())
        found.append(row)
    table("peak memory of training with Adam (MiB)",
          ["network", "ours", "torch", "ratio", "our process", "torch process"],
          [[r["row"], f"{r['ours']:.1f}", f"{r['torch']:.1f}", f"{r['torch'] / r['ours']:.2f}",
            f"{r['ours_process']:.0f}", f"{r['torch_process']:.0f}"] for r in found])
    return found
