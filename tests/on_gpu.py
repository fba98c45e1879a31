"""What tests of CUDA kernels at their real tile sizes share: on a GPU, or in the emulator and its checks."""
import contextlib

import pytest
from numba import config

from engine import target as targets

TARGETS = [t for name, t in targets.TARGETS.items() if name.startswith("cuda") and t.present()]
needed = pytest.mark.skipif(config.ENABLE_CUDASIM or not TARGETS, reason="neither a GPU nor the emulator is here")


@pytest.fixture(params=TARGETS, ids=lambda t: t.name)
def target(request):
    return request.param


def looking(checked):
    """A context in which the emulator checks every access and looks for races, if asked to."""
    return targets.cuda_emulated.checking(race=True) if checked else contextlib.nullcontext()


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["checked", "plain"], autouse=True)
def both_ways(request):
    """Every test under checks and race detection, and as a long one without."""
    with looking(request.param):
        yield
