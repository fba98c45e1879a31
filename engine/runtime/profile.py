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

    The plan runs as a whole in between, so that each call sees real data; afterwards weights, states and counters are
    what they were before: a profile changes nothing.
    """
    kept = {v: np.array(plan.target.fetch(plan.array(v.name))) for v in plan.graph.values.values()
            if v.kind in ("parameter", "state") and v not in plan.graph.parts}
    parts = [plan.program.part(i, i + 1) for i in range(len(plan.program.calls))]
    times = [[] for _ in parts]
    empty, idle = type(plan.program)(plan.target), []
    with plan._lock:
        for _ in range(rounds):
            plan.program.run()
            for part, taken in zip([empty, *parts], [idle, *times]):
                started = time.perf_counter()
                part.run(REPEATS)
                taken.append(time.perf_counter() - started)
            for value, array in kept.items():            # else an update repeated so often leaves all that is usual
                plan.target.fill(plan.array(value.name), array)
    # what entering the runner from Python costs is not the kernel's: measured on a program of nothing
    overhead = statistics.median(idle)
    plan.profile = [(node, max(1e-9, statistics.median(t) - overhead) / REPEATS, call.cost)
                    for node, call, t in zip(plan._nodes, plan.program.calls, times)]
    return plan.profile


def peak(target, dtype):
    """Operations a second of a large product on this target, measured once: what % of peak refers to."""
    from engine.kernels import TABLE
    from engine.kernels.program import Program
    key = target.name, np.dtype(dtype).name
    if key not in _peaks:
        n, best = 768, math.inf
        a = target.place(np.ones((n, n), dtype))
        c = target.part(target.empty(n * n * np.dtype(dtype).itemsize), 0, (n, n), dtype)
        program = Program(target)
        program.add(TABLE["matmul"], [a, a], [c], TABLE["matmul"].complete({}))
        for _ in range(8):
            started = time.perf_counter()
            program.run()
            best = min(best, time.perf_counter() - started)
        _peaks[key] = 2 * n ** 3 / best
    return _peaks[key]


_peaks = {}


def describe(plan):
    """The plan as a readable program: one line a call; with times, GFLOP/s and % of peak after a profile."""
    kinds = {}
    for value in plan.graph.values.values():
        if value.kind in ("feed", "parameter", "state") and value not in plan.graph.parts:
            kinds.setdefault(value.kind, []).append(f"{value.name}{list(value.shape)}".replace(" ", ""))
    lines = [f"plan on {plan.target.name}: {len(plan.program.calls)} calls, {_bytes(plan.bytes)} for values computed"]
    lines += [f"  {kind + 's':<11} {', '.join(names)}" for kind, names in kinds.items()]
    timed = plan.profile and {id(call): row for call, row in zip(plan.program.calls, plan.profile)}
    total = sum(row[1] for row in plan.profile) if plan.profile else 0
    top = peak(plan.target, _float_of(plan)) if plan.profile else None
    for number, (node, call) in enumerate(zip(plan._nodes, plan.program.calls)):
        lines.append(_line(number, node, call, timed and timed[id(call)], total, top))
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
    text = f"  {number:3d}  {node.label or '-':<22} {name:<34} {shapes} -> {outs}"
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
