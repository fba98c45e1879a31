"""Units: compiled once for each signature, found by cached callers of another process, calling back through hooks."""
import subprocess
import sys

import numpy as np
import pytest
from numba import config, njit

from engine.kernels.formula import Formula
from engine.kernels.simd import call_hook, hook, part, pointer, unit

MODULE = """
from numba import njit
from engine.kernels.simd import pointer, unit

@unit
def double_all(p, n):
    for i in range(n):
        p[i] *= 2

@njit(cache=True)
def doubled(x):
    double_all(pointer(x), x.size)
"""
SCRIPT = """
import sys; sys.path.insert(0, {folder!r})
import numpy, doubling
x = numpy.arange(3.0)
doubling.doubled(x)
assert x.tolist() == [0, 2, 4]
print(sum(doubling.doubled.stats.cache_hits.values()), len(doubling.double_all.overloads))
"""


@unit
def for_pairs(p, n, done):
    for i in range(0, n, 2):
        if done != 0:
            call_hook(done, (p + i, 2))


@part
def apply(p, n, f, g):
    for i in range(n):
        if f is not None:
            p[i] = f(p[i])
        if g is not None:
            p[i] = g(p[i], p[i])


@part
def apply_by_pairs(x, f, g, hooked):
    p, done = pointer(x), 0
    if hooked:
        done = hook(apply, (p, x.size), f, g)
    for_pairs(p, x.size, done)


def squared_less(x):
    return x * x - 1


def added(x, y):
    return x + y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_unit_calls_the_formula_of_its_caller(dtype):
    square, add = Formula(squared_less).cpu(dtype), Formula(added).cpu(dtype)
    for f, g, hooked, want in ((square, None, 1, [-1, 0, 3, 8]), (None, add, 1, [0, 2, 4, 6]),
                               (square, None, 0, [0, 1, 2, 3])):
        x = np.arange(4, dtype=dtype)
        apply_by_pairs(x, f, g, hooked)
        assert x.tolist() == want
    if not config.DISABLE_JIT:
        assert len([a for a in for_pairs.overloads if dtype in str(a)]) == 1, "compiled once for all formulas"


@pytest.mark.skipif(config.DISABLE_JIT, reason="looks at Numba's cache")
def test_a_caller_from_the_cache_finds_its_unit(tmp_path):
    (tmp_path / "doubling.py").write_text(MODULE)
    found = []
    for _ in range(2):
        code = SCRIPT.format(folder=str(tmp_path))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert found == [["0", "1"], ["1", "1"]], "the second process has the caller from the cache, and made its unit"


@pytest.mark.skipif(config.DISABLE_JIT, reason="looks at what is compiled")
def test_a_unit_is_called_like_any_compiled_function():
    @njit
    def both(x):
        for_pairs(pointer(x), x.size, 0)
        return x.sum()
    assert both(np.arange(4.0)) == 6
