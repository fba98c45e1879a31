"""One training step of multi-layer perceptrons, with SGD and Adam, against PyTorch eager at its best setting.

Ours runs an epoch as one call, as `fit` does; "train_step" is the same step called from Python with NumPy batches.
PyTorch's time is the best of its optimiser variants (fused, foreach, for-loop). Both start from the same weights and
see the same batches; the losses after the race are compared. Floor: the products' operations over the measured peak.
"""
import numpy as np

from tools.bench.timing import best_of, geometric_mean, median, race, table

NETWORKS = {"64-32-10": (64, 32, 10), "784-128-10": (784, 128, 10), "784-512-256-10": (784, 512, 256, 10),
            "8x1024": (1024,) * 9}
BATCHES = (32, 128, 1024)
STEPS = 16                                   # batches in the data set that both sides go through


def make_ours(sizes, batch, optimizer, x, y):
    """(one epoch as a callable, one train_step as a callable, the model)"""
    import engine
    engine.seed(0)
    model = engine.Sequential([*(engine.Dense(n, activation="relu") for n in sizes[1:-1]), engine.Dense(sizes[-1])])
    model.build(sizes[0])
    model.compile(engine.optimizers.get(optimizer), "cross_entropy")
    epoch = model._epoch(*model._data(x, y, None, None, "bench"), batch, model.optimizer)
    order, rates = np.arange(len(x)), np.full(STEPS, model.optimizer.learning_rate.at(0))

    def run():
        epoch.start(order, rates)
        epoch.plans[0].run(STEPS)
    return run, lambda: model.train_step(x[:batch], y[:batch]), model


def make_torch(model, batch, optimizer, x, y, variant):
    """One epoch over the same batches in PyTorch eager, from the model's weights."""
    import torch
    layers = []
    weights = model.get_weights()
    for kernel, bias in zip(weights[::2], weights[1::2]):
        linear = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    settings = {"fused": {"fused": True}, "foreach": {"foreach": True}, "for-loop": {"foreach": False}}[variant]
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    update = make(net.parameters(), lr={"sgd": 1e-2, "adam": 1e-3}[optimizer], **settings)
    criterion = torch.nn.CrossEntropyLoss()
    batches = [(torch.from_numpy(x[i:i + batch]), torch.from_numpy(y[i:i + batch])) for i in range(0, len(x), batch)]

    def run():
        for data, labels in batches:
            update.zero_grad(set_to_none=True)
            loss = criterion(net(data), labels)
            loss.backward()
            update.step()
    return run


def floor(sizes, batch, threads):
    """Seconds that the products alone take at the peak of a large product."""
    from engine import target
    from engine.runtime.profile import peak
    flops = sum(2 * batch * i * o * (3 if layer else 2) for layer, (i, o) in enumerate(zip(sizes, sizes[1:])))
    return flops / peak(target.cpu, np.float32)


def run(threads, only=None):
    """Prints the table; returns the rows as dicts."""
    import torch
    torch.set_num_threads(threads)
    rows, found = [], []
    for name, sizes in NETWORKS.items():
        for batch in BATCHES:
            for optimizer in ("sgd", "adam"):
                title = f"{name} batch {batch} {optimizer}"
                if only and only not in title:
                    continue
                row = one(title, sizes, batch, optimizer, threads)
                found.append(row)
                rows.append([title, f"{row['ours_us']:.1f}", f"{row['train_step_us']:.1f}", f"{row['torch_us']:.1f}",
                             row["torch_variant"], f"{row['ratio']:.2f}", f"{row['floor_us']:.1f}",
                             f"{row['ours_us'] / row['floor_us']:.2f}"])
    table(f"training step, {threads} threads (us; ratio = torch / ours)",
          ["network", "ours", "train_step", "torch", "setting", "ratio", "floor", "ours/floor"], rows)
    print(f"geometric mean of the ratios: {geometric_mean(r['ratio'] for r in found):.2f}")
    return found


def one(title, sizes, batch, optimizer, threads):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch * STEPS, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], len(x))
    ours, single, model = make_ours(sizes, batch, optimizer, x, y)
    variants = ("fused", "foreach", "for-loop")
    sides = {"ours": ours, **{v: make_torch(model, batch, optimizer, x, y, v) for v in variants}, "single": single}
    times = race(sides)
    best = best_of(times, variants)
    per_step = {n: median(t) / (1 if n == "single" else STEPS) for n, t in times.items()}
    return {"row": title, "threads": threads, "ours_us": per_step["ours"] * 1e6, "torch_us": per_step[best] * 1e6,
            "train_step_us": per_step["single"] * 1e6, "torch_variant": best,
            "ratio": per_step[best] / per_step["ours"],
            "floor_us": floor(sizes, batch, threads) * 1e6}
