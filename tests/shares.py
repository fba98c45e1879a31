"""Tasks of unequal shares, as the runner cuts them for cores of unequal speeds."""
import numpy as np
from numba import njit

from engine.kernels import team
from engine.kernels.program import prepare
from engine.kernels.shares import WHOLE, with_share
from engine.kernels.simd.units import call_entry


def unequal(tasks, seed):
    """Tasks 0 .. tasks - 1 with the shares of random speeds, the extremes among them."""
    speeds = np.random.default_rng(seed).choice([team.SLOWEST, team.FASTEST, 1], tasks)
    ends = np.round(np.cumsum(speeds) / speeds.sum() * WHOLE).astype(int)
    return [with_share(task, begin, end) for task, (begin, end) in enumerate(zip([0, *ends], ends))]


@njit
def call(address, block, task, tasks):
    call_entry(address, block, task, tasks)


def run_unequal(program, seed=0):
    """Works through a program on this thread; says how many of its calls have tasks of unequal shares."""
    prepare(program)
    cut = 0
    for address, block, tasks, grains in program._table:
        cut += tasks > 1 and grains > 0
        for task in unequal(tasks, seed) if grains else range(tasks):
            call(address, block, task, tasks)
    return cut
