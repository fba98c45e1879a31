"""Fair timing on a shared machine: sides in turn (A B A B), medians and best, a pause before each side."""
import json
import os
import pathlib
import platform
import statistics
import sys
import time

PAUSE = 0.006                                # seconds: another runtime's threads spin 2 ms after their work
LONG_PAUSE = 0.1                             # the same beside ONNX Runtime, whose threads have a clock of their own
SLOW = 0.5                                   # seconds: a unit that long needs no warming and fewer turns
PRECISE, PATIENCE = 0.02, 4                  # standard error that a ratio may have; how many times the turns for it


def race(sides, rounds=9, seconds=0.02, threads=2, pause=PAUSE):
    """Times callables in turn.

    sides    name -> callable that does one unit of work
    rounds   turns of each side; five where one unit of some side takes more than SLOW seconds. Where the best peer's
             ratio to the first side is not known to PRECISE by then, as many again, up to PATIENCE times
    seconds  how long one turn of a side should last at least
    threads  how many the sides use; with one there is nobody whose spinning has to be waited for
    pause    seconds before each turn
    returns  name -> seconds for one unit, turn by turn
    """
    repeats, slowest = {}, 0.0
    for name, work in sides.items():
        work()
        started = time.perf_counter()
        work()
        once = time.perf_counter() - started
        repeats[name], slowest = max(1, int(seconds / max(once, 1e-9))), max(slowest, once)
    times = {name: [] for name in sides}
    rounds = rounds if slowest < SLOW else min(rounds, 5)
    for done in range(PATIENCE * rounds):
        if done and done % rounds == 0 and uncertainty(times) <= PRECISE:
            break
        for name, work in sides.items():
            time.sleep(pause if threads > 1 else 0)
            if slowest < SLOW:
                work()                       # wakes this side's threads and warms its caches
            started = time.perf_counter()
            for _ in range(repeats[name]):
                work()
            times[name].append((time.perf_counter() - started) / repeats[name])
    return times


def uncertainty(times):
    """The relative standard error of the ratio of the fastest other side to the first: of a median of n values it is
    about 0.93 times the distance of their quartiles over the root of n (normally distributed values)."""
    first, *others = times
    fastest = times[best_of(times, others)] if others else times[first]
    low, middle, high = statistics.quantiles((a / b for a, b in zip(fastest, times[first], strict=True)), n=4)
    return 0.93 * (high - low) / middle / len(fastest) ** 0.5


class Rows(list):
    """A suite's rows, each said on stderr when it comes and written to FILE: an interrupted run keeps its rows."""
    FILE = None                              # path of a JSON file; the lists of other suites in it stay

    def __init__(self, suite, threads):
        super().__init__()
        self.key, self.started = f"{suite} {threads}", time.perf_counter()

    def append(self, row):
        super().append(row)
        name = " ".join(str(row[part]) for part in ("group", "op", "size", "row", "direction") if part in row)
        print(f"{time.perf_counter() - self.started:6.0f} s  {self.key}: {len(self)}: {name}: {row['ratio']:.2f}",
              file=sys.stderr, flush=True)
        keep(self.key, self)


def keep(key, rows):
    """Writes rows to `Rows.FILE` under a key; does nothing without a file."""
    if Rows.FILE:
        path = pathlib.Path(Rows.FILE)
        held = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**held, key: rows}, indent=1))


def median(times):
    return statistics.median(times)


def ratio(theirs, ours):
    """How many times as fast ours is: the median over the turns. A shared machine changes its speed by half from one
    second to the next; the two times of a turn are neighbours, medians of all turns of a side are not."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def best_of(times, names):
    """The name, among `names`, with the smallest median."""
    return min(names, key=lambda n: median(times[n]))


def machine(threads):
    """One line that says what was measured on what."""
    import numba
    import numpy
    from numba.core.registry import cpu_target
    _, processor, _ = cpu_target.target_context.codegen().magic_tuple()
    versions = [f"Python {platform.python_version()}", f"numba {numba.__version__}", f"numpy {numpy.__version__}"]
    for module in ("torch", "jax", "sklearn", "onnxruntime", "scipy"):
        try:
            versions.append(f"{module} {__import__(module).__version__}")
        except ImportError:
            versions.append(f"no {module}")
    return f"{processor}, {os.cpu_count()} cores, {threads} threads; {', '.join(versions)}"


def table(title, header, rows):
    """Prints rows of text under a header, columns aligned."""
    widths = [max(len(str(r[i])) for r in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for row in [header, ["-" * w for w in widths], *rows]:
        cells = [f"{str(cell):>{w}}" if i else f"{str(cell):<{w}}" for i, (cell, w) in enumerate(zip(row, widths))]
        print("  ".join(cells), flush=True)


def geometric_mean(values):
    values = list(values)
    return statistics.geometric_mean(values) if values else float("nan")
