"""Peak memory of a training step (resident set over the imported library), each side in a process of its own."""
import subprocess
import sys

from tools.bench.timing import table

NETWORKS = {"784-512-256-10 batch 128": ((784, 512, 256, 10), 128), "8x1024 batch 1024": ((1024,) * 9, 1024)}
COMMON = """
import resource, sys
import numpy as np
sizes, batch = {sizes}, {batch}
rng = np.random.default_rng(0)
x = rng.standard_normal((batch, sizes[0])).astype(np.float32)
y = rng.integers(0, sizes[-1], batch)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
"""
OURS = COMMON + """
import engine
warm = engine.Sequential([engine.Dense(4, activation="relu"), engine.Dense(3)])
warm.compile("adam", "cross_entropy"); warm.train_step(x[:2, :4], y[:2] % 3)
before = peak()
model = engine.Sequential([*(engine.Dense(n, activation="relu") for n in sizes[1:-1]), engine.Dense(sizes[-1])])
model.compile("adam", "cross_entropy")
for _ in range(3): model.train_step(x, y)
print(peak() - before, peak())
"""
TORCH = COMMON + """
import torch
def step(net, update, x, y):
    update.zero_grad(set_to_none=True); torch.nn.functional.cross_entropy(net(x), y).backward(); update.step()
def make(sizes):
    layers = []
    for i, o in zip(sizes, sizes[1:]): layers += [torch.nn.Linear(i, o), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    return net, torch.optim.Adam(net.parameters(), 1e-3)
x, y = torch.from_numpy(x), torch.from_numpy(y)
step(*make((4, 4, 3)), x[:2, :4], y[:2] % 3)
before = peak()
net, update = make(sizes)
for _ in range(3): step(net, update, x, y)
print(peak() - before, peak())
"""


def run(threads, only=None):
    """Prints MiB: what building and three steps added, and the process's peak."""
    found = []
    for name, (sizes, batch) in NETWORKS.items():
        row = {"row": name}
        for side, code in (("ours", OURS), ("torch", TORCH)):
            done = subprocess.run([sys.executable, "-c", code.format(sizes=sizes, batch=batch)], capture_output=True,
                                  text=True)
            row[side], row[f"{side}_process"] = map(float, done.stdout.split()) if done.returncode == 0 else (0, 0)
        found.append(row)
    table("peak memory of training with Adam (MiB)",
          ["network", "ours", "torch", "ratio", "our process", "torch process"],
          [[r["row"], f"{r['ours']:.1f}", f"{r['torch']:.1f}", f"{r['torch'] / max(r['ours'], 1e-9):.2f}",
            f"{r['ours_process']:.0f}", f"{r['torch_process']:.0f}"] for r in found])
    return found
