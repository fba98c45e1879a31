"""The command line: `python -m engine info | ops | train | warm`; `ops relu --show asm` shows a kernel."""
import argparse
import platform
import sys
import time


def info(arguments):
    """What this machine offers and what the engine chose."""
    import llvmlite
    import numba
    import numpy
    from numba.core.registry import cpu_target

    from engine import target, version
    from engine.kernels import TABLE
    from engine.kernels.cache import cache_folder
    from engine.kernels.entry import threads
    from engine.kernels.simd import host
    _, processor, _ = cpu_target.target_context.codegen().magic_tuple()
    vectors = (f"{host.VECTOR_BYTES * 8} bits, tiles of {host.ROWS} x 2 of them; caches "
               f"{', '.join(f'L{n} {host.cache_bytes(n) >> 10} KiB' for n in (1, 2, 3))}")
    threads.runner()
    chosen = target.choose()
    folder = cache_folder()
    files = list(folder.rglob("*.nbc")) if folder.exists() else []
    rows = [("engine", version.__version__), ("Python", platform.python_version()), ("numba", numba.__version__),
            ("llvmlite", llvmlite.__version__), ("NumPy", numpy.__version__), ("processor", processor),
            ("vectors", vectors), ("threads", f"{threads.get()} (layer {threads.layer() or 'none: serial'})"),
            *((f"target {t.name}", f"{'present' if t.present() else 'absent'}: {t.reason()}")
              for t in target.TARGETS.values()),
            ("chosen", target.why(chosen)), ("ops", str(len(TABLE))),
            ("cache", f"{folder} ({len(files)} kernels, {sum(f.stat().st_size for f in files) / 2**20:.1f} MiB)")]
    for name, text in rows:
        print(f"{name:<12} {text}")


def ops(arguments):
    """TABLE: every op with its targets, its gradient and what one call costs."""
    import numpy as np

    from engine.kernels import TABLE
    from engine.kernels.op import spec
    if arguments.names:
        for name in arguments.names:
            print(TABLE[name].show(arguments.show))
        return
    print(f"{'op':<28} {'targets':<10} {'gradient':<9} {'flops':>12} {'bytes':>12}  of")
    for name, op in sorted(TABLE.items()):
        inputs, attributes = max(op.samples(np.random.default_rng(0)), key=lambda s: sum(np.size(a) for a in s[0]))
        specs = [spec(np.asarray(a)) for a in inputs]
        attributes = op.complete(attributes)
        cost = op.cost(specs, op.infer(*specs, **attributes), attributes)
        names = "+".join(t for t in ("cpu", "cuda") if getattr(op, t) is not None)
        print(f"{name:<28} {names:<10} {'yes' if op.grad else '-':<9} {cost.flops:>12,.0f} {cost.bytes:>12,.0f}  "
              f"{' '.join(str(s) for s in specs)}")


def train(arguments):
    """Trains a multi-layer perceptron, or another network, on one of the data sets and shows what it does."""
    started = time.perf_counter()
    import numpy as np

    import engine
    from engine import data, progress, target
    changes = {"flip": data.augment.RandomFlip, "crop": data.augment.RandomCrop}
    engine.seed(arguments.seed)
    chosen = target.choose(arguments.target)
    progress.show(f"target: {target.why(chosen)}; {engine.threads.get()} threads")
    found = data.load(arguments.data, folder=arguments.folder, subset=arguments.subset or None)
    progress.show(str(found))
    (x, y), (x_test, y_test) = found
    model, (x, x_test) = _network(arguments, chosen, x, x_test, int(y.max()) + 1)
    rate = arguments.rate
    if arguments.decay == "cosine":
        rate = engine.schedules.Cosine(rate, arguments.epochs * -(-len(x) // arguments.batch_size))
    model.compile(engine.optimizers.Adam(rate), "cross_entropy", ["accuracy"])
    model.summary()
    model._batch_size = arguments.batch_size
    progress.show(str(model.plan))
    progress.show(f"training starts {time.perf_counter() - started:.1f} s after the command")
    goal = None if arguments.until is None else engine.callbacks.Goal("val_accuracy", arguments.until)
    watched = {"validation_split": 0.1} if goal is None else {"validation_data": (x_test, y_test), "callbacks": [goal]}
    history = model.fit(x, y, batch_size=arguments.batch_size, epochs=arguments.epochs, verbose=arguments.verbose,
                        augment=[changes[name]() for name in arguments.augment], **watched)
    loss, accuracy = model.evaluate(x_test, y_test)
    progress.show(f"\ntest loss {loss:.4f}, test accuracy {accuracy:.4f} on {len(x_test)} images")
    _confusion(np, y_test, model.predict(x_test).argmax(1))
    if arguments.save:
        model.save(arguments.save)
        progress.show(f"model written to {arguments.save}")
    _curves(history, arguments.curves)
    reached = goal is None or _reached(goal, found, history)
    progress.show(f"done in {time.perf_counter() - started:.1f} s")
    return 0 if accuracy >= arguments.demand and reached else 1


def _network(arguments, chosen, x, x_test, classes):
    """(the network that was asked for, the images as it wants them)"""
    import engine
    if arguments.network == "lenet5":
        x, x_test = ((a if a.ndim == 4 else a[..., None]) for a in (x, x_test))
        model = engine.zoo.lenet5(classes, x.shape[1:], activation=arguments.activation, pooling="max", target=chosen)
    else:
        model = engine.Sequential([engine.Flatten(), *(engine.Dense(units, activation=arguments.activation)
                                                       for units in arguments.hidden), engine.Dense(classes)],
                                  target=chosen)
        model.build(x.shape[1:])
    return model, (x, x_test)


def _confusion(np, y, predicted):
    from engine import progress
    classes = int(max(y.max(), predicted.max())) + 1
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (y, predicted), 1)
    progress.show("confusion matrix (row: label, column: predicted)")
    width = len(str(matrix.max())) + 1
    for label, row in enumerate(matrix):
        progress.show(f"{label:>4} |" + "".join(f"{n or '.':>{width}}" for n in row))


def _reached(goal, found, history):
    """Says when the test accuracy that was asked for was reached; true if it was, or could not be expected."""
    from engine import progress
    from engine.kernels.entry import threads
    if goal.seconds is not None:
        progress.show(f"test accuracy {goal.value:.2f} reached after {goal.epoch + 1} epochs and {goal.seconds:.1f} s "
                      f"of training (compiling and testing included), {threads.get()} threads")
        return True
    best = max(history.history["val_accuracy"])
    progress.show(f"test accuracy {goal.value:.2f} was not reached, the best was {best:.4f}")
    if found.subset:
        progress.show("this was the part of the images that comes with the engine; the goal is one for all of them: "
                      "apt-get install dataset-fashion-mnist, or --folder with the published files")
    return found.subset


def _curves(history, path):
    from engine import progress
    if path:
        try:
            progress.show(f"learning curves written to {history.plot(path)}")
        except ImportError as error:
            progress.show(f"no learning curves: {error}")


def warm(arguments):
    """Compiles ahead what training needs, with progress: later runs load it from the cache."""
    import numpy as np

    from engine import progress, target
    from engine.kernels import TABLE
    from engine.kernels.cache import cache_folder
    names = sorted(TABLE) if not arguments.ops else arguments.ops
    started = time.perf_counter()
    chosen = target.choose(arguments.target)
    with progress.bar(len(names) * len(arguments.dtypes), "compiling", 1) as bar:
        for dtype in arguments.dtypes:
            for name in names:
                op = TABLE[name]
                for inputs, attributes in op.samples(np.random.default_rng(0)):
                    given = [a.astype(dtype) if a.dtype.kind == "f" else a for a in map(np.asarray, inputs)]
                    with np.errstate(all="ignore"):
                        op(*[chosen.place(a) for a in given], **attributes)
                bar.update(1)
    progress.show(f"{len(names)} ops for {', '.join(arguments.dtypes)} ready in {time.perf_counter() - started:.1f} s; "
                  f"cache: {cache_folder()}")


def main(given=None):
    """Runs one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help=info.__doc__).set_defaults(run=info)
    table = commands.add_parser("ops", help=ops.__doc__)
    table.add_argument("names", nargs="*", help="show these ops' kernels instead")
    table.add_argument("--show", choices=("source", "entry", "llvm", "asm"), default="source")
    table.set_defaults(run=ops)
    one = commands.add_parser("train", help=train.__doc__)
    one.add_argument("data", nargs="?", default="digits", help="digits, fashion_mnist, mnist, cifar10")
    one.add_argument("--folder", help="where the data set's files are")
    one.add_argument("--subset", action="store_true", help="only the part of fashion_mnist that comes with the engine")
    one.add_argument("--network", choices=("mlp", "lenet5"), default="mlp")
    one.add_argument("--hidden", type=int, nargs="*", default=[128, 64], help="units of the hidden layers")
    one.add_argument("--activation", default="relu")
    one.add_argument("--augment", nargs="*", choices=("flip", "crop"), default=[], help="images changed by chance")
    one.add_argument("--epochs", type=int, default=40)
    one.add_argument("--batch-size", type=int, default=32)
    one.add_argument("--rate", type=float, default=2e-3, help="Adam's learning rate")
    one.add_argument("--decay", choices=("none", "cosine"), default="none", help="of the rate, over all epochs")
    one.add_argument("--until", type=float, help="stop at this test accuracy, seen after each epoch, and say when")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--target", help="cpu, cuda or cuda-emulated")
    one.add_argument("--curves", help="file for the learning curves (needs matplotlib)")
    one.add_argument("--save", help="file for the trained model")
    one.add_argument("--demand", type=float, default=0.0, help="exit with 1 below this test accuracy")
    one.add_argument("--verbose", type=int, default=1)
    one.set_defaults(run=train)
    ahead = commands.add_parser("warm", help=warm.__doc__)
    ahead.add_argument("ops", nargs="*", help="ops to compile (default: all)")
    ahead.add_argument("--dtypes", nargs="*", default=["float32"])
    ahead.add_argument("--target", help="cpu, cuda or cuda-emulated")
    ahead.set_defaults(run=warm)
    arguments = parser.parse_args(given)
    return arguments.run(arguments) or 0


if __name__ == "__main__":
    sys.exit(main())
