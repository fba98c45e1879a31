"""One training step of multi-layer perceptrons, with SGD and Adam, against PyTorch, JAX, scikit-learn and tinygrad.

Ours runs an epoch as one call, as `fit` does; "train_step" is the same step called from Python with NumPy batches.
All start from the same weights and see the same batches (`peers.py`); ours also gathers its batches, in the order of
the epoch, where the peers' lie ready. The asked-for ratio is that to PyTorch's best. Floor: the products' operations
over the peak, that of large products that take their turn with the others. GB/s: what has to come from memory in any
case, each weight twice and each state of the optimiser once, and go back once, over the step's time; where the weights
are larger than the caches this has a limit too (`elementwise` prints a triad's).
"""
import numpy as np

from tools.bench import peers
from tools.bench.ours import epoch_of
from tools.bench.timing import Rows, best_of, geometric_mean, median, race, ratio, table

NETWORKS = {"64-32-10": (64, 32, 10), "784-128-10": (784, 128, 10), "784-512-256-10": (784, 512, 256, 10),
            "8x1024": (1024,) * 9}
BATCHES = (32, 128, 1024)
OPERATIONS = 4e9                             # an epoch is 2 to 16 batches of about so many operations together
SLOW_PEERS = 5e8                             # operations of a step above which the peers that compile for long rest


def operations(sizes, batch):
    """Of the products of a step: forward, gradient by the weights and, behind the first layer, by the input."""
    return sum(2 * batch * i * o * (3 if layer else 2) for layer, (i, o) in enumerate(zip(sizes, sizes[1:])))


def make_ours(sizes, batch, optimizer, x, y):
    """(one epoch as a callable, one train_step as a callable, the model)"""
    import engine
    engine.seed(0)
    model = engine.Sequential([*(engine.Dense(n, activation="relu") for n in sizes[1:-1]), engine.Dense(sizes[-1])])
    model.build(sizes[0])
    model.compile(engine.optimizers.get({"class": {"sgd": "SGD", "adam": "Adam"}[optimizer],
                                         "learning_rate": peers.LEARNING_RATE[optimizer]}), "cross_entropy")
    return epoch_of(model, x, y, batch)[0], lambda: model.train_step(x[:batch], y[:batch]), model


def products(least):
    """(a large product, again and again, as a callable; how many operations it does: about `least`)"""
    from engine import target
    from engine.runtime.profile import large_product
    program, done = large_product(target.cpu, np.float32)
    rounds = max(1, round(least / done))
    return lambda: program.run(rounds), rounds * done


def traffic(sizes, optimizer):
    """Bytes of weights and states that a step reads and writes."""
    weights = sum(i * o + o for i, o in zip(sizes, sizes[1:]))
    return 4 * weights * (3 + {"sgd": 0, "adam": 4}[optimizer])


def one(title, sizes, batch, optimizer, threads, rest):
    steps = int(max(2, min(16, OPERATIONS / operations(sizes, batch))))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch * steps, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], len(x))
    ours, single, model = make_ours(sizes, batch, optimizer, x, y)
    weights = model.get_weights()
    if rest or operations(sizes, batch) > SLOW_PEERS:
        sides = {name: peers.torch_eager(weights, batch, optimizer, x, y, settings)
                 for name, settings in peers.TORCH.items()}
        absent = {}
    else:
        sides, absent = peers.all_of(weights, batch, optimizer, x, y)
    large, done = products(operations(sizes, batch) * steps)
    times = race({"ours": ours, **sides, "single": single, "products": large}, threads=threads)
    torch = best_of(times, [n for n in sides if n.startswith("torch")])
    best = best_of(times, sides)
    us = {n: median(t) / (1 if n in ("single", "products") else steps) * 1e6 for n, t in times.items()}
    floors = [t * operations(sizes, batch) * steps / done for t in times["products"]]
    return {"row": title, "threads": threads, "us": us, "torch": torch, "best": best, "absent": absent,
            "ratio": ratio(times[torch], times["ours"]), "best_ratio": ratio(times[best], times["ours"]),
            "floor_us": median(floors) / steps * 1e6, "over_floor": ratio(times["ours"], floors),
            "gbs": traffic(sizes, optimizer) / us["ours"] / 1e3}


def run(threads, only=None):
    """Prints the tables; returns the rows. `only`: a text in the row's name; "torch" leaves the other peers out."""
    import torch
    torch.set_num_threads(threads)
    found = Rows("step", threads)
    for name, sizes in NETWORKS.items():
        for batch in BATCHES:
            for optimizer in ("sgd", "adam"):
                title = f"{name} batch {batch} {optimizer}"
                if only in (None, "torch") or only in title:
                    found.append(one(title, sizes, batch, optimizer, threads, only == "torch"))
    table(f"training step, {threads} threads (us; ratio = torch's best / ours)",
          ["network", "ours", "train_step", "torch", "setting", "ratio", "floor", "ours/floor", "GB/s", "best peer",
           "ratio"],
          [[r["row"], f"{r['us']['ours']:.1f}", f"{r['us']['single']:.1f}", f"{r['us'][r['torch']]:.1f}",
            r["torch"].removeprefix("torch "), f"{r['ratio']:.2f}", f"{r['floor_us']:.1f}",
            f"{r['over_floor']:.2f}", f"{r['gbs']:.1f}", r["best"], f"{r['best_ratio']:.2f}"] for r in found])
    names = list(dict.fromkeys(n for r in found for n in r["us"] if n not in ("ours", "single", "products")))
    table("every peer (us a step)", ["network", "ours", *names],
          [[r["row"], f"{r['us']['ours']:.1f}", *(f"{r['us'][n]:.1f}" if n in r["us"] else "-" for n in names)]
           for r in found])
    for name, why in {n: w for r in found for n, w in r["absent"].items()}.items():
        print(f"not measured: {name}: {why}")
    print(f"geometric mean of the ratios: {geometric_mean(r['ratio'] for r in found):.2f} to torch's best, "
          f"{geometric_mean(r['best_ratio'] for r in found):.2f} to the best peer")
    return found
