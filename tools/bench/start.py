"""Starting: import, the first fit from an empty cache, a warm start of a script that trains digits for one epoch.

Each is a process of its own, several times, in turn with the peers that are installed. A second table says where the
time from an empty cache goes: what was compiled, and how long each took without what was compiled within.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from tools.bench.timing import table

OURS = """
import engine
from engine import Dense, Flatten, Sequential
(x, y), _ = engine.data.load("digits")
model = Sequential([Flatten(), Dense(64, activation="relu"), Dense(10)])
model.compile(engine.optimizers.Adam(1e-3), "cross_entropy", ["accuracy"])
model.fit(x, y, epochs=1, verbose=0)
"""
COMPILED = """
import json
from engine.progress import compiling
print(json.dumps(compiling.times))
"""
TORCH = """
import numpy as np, torch
from sklearn.datasets import load_digits
d = load_digits(); x = torch.from_numpy((d.data / 16).astype(np.float32))
y = torch.from_numpy(d.target.astype(np.int64))
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
update = torch.optim.Adam(net.parameters(), 1e-3); loss = torch.nn.CrossEntropyLoss()
for i in range(0, len(x), 32):
    update.zero_grad(); loss(net(x[i:i + 32]), y[i:i + 32]).backward(); update.step()
"""
SKLEARN = """
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
d = load_digits(); net = MLPClassifier((64,), batch_size=32); net.partial_fit(d.data / 16, d.target, classes=range(10))
"""


def run_code(code, **environment):
    """(wall seconds, output) of a fresh interpreter that runs the code; no seconds when it fails (a peer that is not
    installed)."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "ENGINE_QUIET": "1", **environment})
    return time.perf_counter() - started if done.returncode == 0 else None, done.stdout


def run(threads, only=None):
    """Prints medians of five warm runs; the empty-cache run once."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {"ENGINE_CACHE_DIR": cache, "ENGINE_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        cold, compiled = run_code(OURS + COMPILED, **environment)
        cases = {"import numpy": "import numpy", "import numba": "import numba", "import engine": "import engine",
                 "import torch": "import torch", "warm: engine, digits, 1 epoch": OURS,
                 "warm: torch, digits, 1 epoch": TORCH, "warm: scikit-learn, digits, 1 epoch": SKLEARN}
        times = {name: [] for name in cases}
        for _ in range(5):
            for name, code in cases.items():
                times[name].append(run_code(code, **environment)[0])
    rows = [["first fit, empty cache", f"{cold:.2f}"]]
    rows += [[name, f"{statistics.median(t):.2f}" if None not in t else "not installed"] for name, t in times.items()]
    table(f"start, {threads} threads (wall seconds of a whole process)", ["what", "seconds"], rows)
    kernels = sorted(json.loads(compiled), key=lambda row: -row[1])
    table(f"compiled in the first fit: {len(kernels)} kernels", ["kernel", "seconds"],
          [[name, f"{t:.2f}"] for name, t in [*kernels, ("all", sum(t for _, t in kernels))]])
    return [{"row": name, "seconds": value} for name, value in rows]
