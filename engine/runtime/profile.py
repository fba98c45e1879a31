"""A plan as text, and how long each of its calls takes.

    plan.profile_run(rounds=100); print(plan)
"""
import math
import statistics
import time

import numpy as np

CLOCK = 5e-8                                 # seconds: what is shorter is not measured here
REPEATS = 20                                 # runs of one call between two looks at the clock


def profile(plan, rounds=50):
    """Times every call by itself and sets plan.profile, a list of (node, seconds, cost): medians of `rounds` times.

    The calls run in their order on what those before them gave, as in a run of the plan; afterwards weights, states and
    counters are what they were before: a profile changes nothing.
    """
    kept = {v: np.array(plan.target.fetch(plan.array(v.name))) for v in plan.graph.values.values()
            if v.kind in ("parameter", "state") and v not in plan.graph.parts}
    calls = plan.calls[len(plan.preparation.calls):]
    parts = [plan.program.part(i, i + 1) for i in range(len(calls))]
    overwritten = [_overwritten(plan, node) for node, _ in calls]
    times = [[] for _ in parts]
    empty, idle, alone = type(plan.program)(plan.target), [], []
    with plan._lock:
        plan.prepare()
        for _ in range(rounds):
            plan.program.run()
            _restore(plan, kept)             # a second step must not find the counters of the first
            idle.append(_repeated(empty))
            alone.append(_one_by_one(plan, empty, ()))
            for part, values, taken in zip(parts, overwritten, times):
                taken.append(_one_by_one(plan, part, values) if values else _repeated(part))
            _restore(plan, kept)             # an update repeated so often leaves all that is usual
    # what entering the runner from Python costs is not the kernel's: measured on a program of nothing
    overhead = {True: statistics.median(alone), False: statistics.median(idle)}
    plan.profile = [(node, max(1e-9, statistics.median(t) - overhead[bool(values)]) / REPEATS, call.cost)
                    for (node, call), values, t in zip(calls, overwritten, times)]
    return plan.profile


def _restore(plan, kept):
    for value, array in kept.items():
        plan.target.fill(plan.array(value.name), array)


def _overwritten(plan, node):
    """The inputs in whose memory a node's outputs stand, other than parameters and states that it updates."""
    roots = {plan.root(out) for place, out in enumerate(node.outputs) if place not in node.op.updates}
    return [value for value in node.inputs if plan.root(value) in roots]


def _repeated(part):
    """Seconds of REPEATS runs."""
    started = time.perf_counter()
    part.run(REPEATS)
    part.target.finish()
    return time.perf_counter() - started


def _one_by_one(plan, part, values):
    """Seconds of REPEATS runs, each on what the given values are now: a call in place, done again and again, would
    soon see infinities, or numbers so small that they are slow."""
    held, taken = [np.array(plan.target.fetch(plan.array(v.name))) for v in values], 0.0
    for _ in range(REPEATS):
        for value, array in zip(values, held):
            plan.target.fill(plan.array(value.name), array)
        plan.target.finish()
        started = time.perf_counter()
        part.run()
        plan.target.finish()
        taken += time.perf_counter() - started
    return taken


def large_product(target, dtype):
    """(the program of one large product, its operations)"""
    from engine.kernels import TABLE
    from engine.kernels.program import Program
    n, program = 768, Program(target)
    a = target.place(np.ones((n, n), dtype))
    c = target.part(target.empty(n * n * np.dtype(dtype).itemsize), 0, (n, n), dtype)
    program.add(TABLE["matmul"], [a, a], [c], TABLE["matmul"].complete({}))
    return program, 2 * n ** 3


def peak(target, dtype):
    """Operations a second of a large product on this target, measured once: what % of peak refers to."""
    key = target.name, np.dtype(dtype).name
    if key not in _peaks:
        (program, operations), best = large_product(target, dtype), math.inf
        for _ in range(8):
            started = time.perf_counter()
            program.run()
            target.finish()
            best = min(best, time.perf_counter() - started)
        _peaks[key] = operations / best
    return _peaks[key]


_peaks = {}


def describe(plan):
    """The plan as a readable program: one line a call; with times, GFLOP/s and % of peak after a profile."""
    kinds = {}
    for value in plan.graph.values.values():
        if value.kind in ("feed", "parameter", "state") and value not in plan.graph.parts:
            kinds.setdefault(value.kind, []).append(f"{value.name}{list(value.shape)}".replace(" ", ""))
    prepared = len(plan.preparation.calls)
    lines = [f"plan on {plan.target.name}: {len(plan.program.calls)} calls, {_bytes(plan.bytes)} for values computed"]
    lines += [f"  {kind + 's':<11} {', '.join(names)}" for kind, names in kinds.items()]
    timed = plan.profile and {id(call): row for call, row in zip(plan.program.calls, plan.profile)}
    total = sum(row[1] for row in plan.profile) if plan.profile else 0
    top = peak(plan.target, _float_of(plan)) if plan.profile else None
    for number, (node, call) in enumerate(plan.calls, -prepared):
        lines.append(_line("once" if number < 0 else number, node, call, timed and timed.get(id(call)), total, top))
    if plan.profile:
        lines.append(f"  sum of all calls {total * 1e6:.1f} us; peak is a 768 x 768 product, {top / 1e9:.0f} GFLOP/s")
    return "\n".join(lines)


def _float_of(plan):
    return next((v.dtype for v in plan.graph.values.values() if v.kind == "parameter"), np.dtype(np.float32))


def _line(number, node, call, timed, total, top):
    shapes = " ".join(_shape(v) for v in node.inputs)
    outs = " ".join(_shape(v) for v in node.outputs)
    given = {k: v for k, v in node.attributes.items() if node.op.attributes.get(k) != v}
    name = f"{node.op.name}{'(' + ', '.join(f'{k}={v!r}' for k, v in given.items()) + ')' if given else ''}"
    text = f"  {number:>4}  {node.label or '-':<22} {name:<34} {shapes} -> {outs}"
    if call.arrangement.tasks > 1:
        text += f"  x{call.arrangement.tasks} tasks"
    if timed:
        _, seconds, cost = timed
        if seconds < CLOCK:
            return f"{text:<110} {'under 0.05 us':>12}"
        rate = cost.flops / seconds
        share, traffic = 100 * seconds / total, cost.bytes / seconds
        text = (f"{text:<110} {seconds * 1e6:9.2f} us {share:5.1f} %  {rate / 1e9:7.1f} GFLOP/s "
                f"{traffic / 1e9:6.1f} GB/s {100 * rate / top:5.1f} % of peak")
    return text


def _shape(value):
    return f"({','.join(map(str, value.shape))})"


def _bytes(size):
    return f"{size / 1024:.1f} KiB" if size < 1 << 20 else f"{size / 2**20:.1f} MiB"
