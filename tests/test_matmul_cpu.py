"""The CPU's matrix products, task by task: every form, awkward sizes, and the same bits however the work is shared."""
import itertools

import numpy as np
import pytest
from numba import config
from shares import unequal

from engine.kernels.formula import Formula
from engine.kernels.matmul import blocking, cpu
from engine.kernels.simd import ROWS, lanes

FORMS = list(itertools.product((0, 1), (0, 1)))
SMALL = [(1, 1, 1), (0, 3, 2), (3, 0, 2), (2, 3, 0), (3, 5, 7), (4, 33, 31), (13, 40, 9), (16, 34, 65), (33, 17, 5)]
LARGE = [(64, 10, 65), (130, 67, 257), (29, 300, 1030), (32, 100, 300), (170, 700, 2500), (1, 300, 500), (15, 31, 2049),
         (160, 10, 40), (256, 40, 530), (37, 1, 300), (1, 1, 1000), (300, 530, 2), (64, 257, 1), (45, 200, 1)]
SIZES = SMALL[:6] if config.DISABLE_JIT else SMALL + LARGE
DTYPES = ("float32", "float64")


def random(shape, dtype):
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape).astype(dtype)


def factors(m, n, k, transpose_a, transpose_b, dtype):
    return (random((k, m) if transpose_a else (m, k), dtype), random((n, k) if transpose_b else (k, n), dtype))


def product(a, b, transpose_a, transpose_b):
    a, b = a.astype("f8"), b.astype("f8")
    return (a.swapaxes(-1, -2) if transpose_a else a) @ (b.swapaxes(-1, -2) if transpose_b else b)


def run(kernel, arguments, plan, order=1, shares=None):
    """All tasks, one after the other, of equal shares or of those that the seed `shares` gives; work starts as
    garbage."""
    tasks, work, numbers = plan
    scratch = [np.full(s.shape, np.nan, s.dtype) for s in work]
    phases = {cpu.MATMUL_PHASES: cpu.matmul_phases, cpu.DENSE_PHASES: cpu.dense_phases}
    for phase in [kernel[i] for i in phases[kernel](numbers)] if kernel in phases else [kernel]:
        for task in (range(tasks) if shares is None else unequal(tasks, shares))[::order]:
            phase(*arguments, *scratch, *numbers, task, tasks)


def close(got, want, k):
    """k roundings, each of half an ulp of a partial sum, which is no larger than the largest sums; like steps of a
    random walk they add up to sqrt(k) of them."""
    assert not np.isnan(got).any(), "a value was never written"
    assert got.shape == want.shape
    largest = max(1, abs(want).max(initial=0))
    np.testing.assert_allclose(got, want, rtol=0, atol=np.finfo(got.dtype).eps * (8 + 4 * k ** 0.5 * largest))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_matmul(size, form, dtype):
    m, n, k = size
    a, b = factors(m, n, k, *form, dtype)
    want, before = product(a, b, *form), random((m, n), dtype)
    for threads, add in itertools.product((1, 2, 3), (False, True)):
        c = before.copy()
        run(cpu.MATMUL_PHASES, (a, b, *form, c), cpu.plan_matmul(m, n, k, *form, dtype, threads, add))
        close(c, want + before if add else want, k)
        equal, c = c, before.copy()
        run(cpu.MATMUL_PHASES, (a, b, *form, c), cpu.plan_matmul(m, n, k, *form, dtype, threads, add), shares=threads)
        np.testing.assert_array_equal(c, equal)


def many_tasks(m, n, k, transpose_a, transpose_b, dtype, way, tasks, **changes):
    """A plan that shares any product by `tasks`, with some numbers changed."""
    numbers = blocking.block(m, n, k, transpose_a, transpose_b, np.dtype(dtype), tasks)._replace(**changes)
    n_tasks = max(1, tasks // numbers.m_tasks)
    values = blocking.work_values(m, n, k, numbers, n_tasks, np.dtype(dtype))
    if way == blocking.TURNED:
        values = blocking.turned_values(m, n, k, numbers, 1, n_tasks, np.dtype(dtype))
    shape = (values * numbers.m_tasks * n_tasks,)
    return numbers.m_tasks * n_tasks, (blocking.Spec(shape, np.dtype(dtype)),), (0, way, *numbers)


@pytest.mark.skipif(config.DISABLE_JIT, reason="large")
@pytest.mark.parametrize("form", FORMS)
def test_the_same_bits_however_the_work_is_shared(form):
    m, n, k = 75, 330, 700
    a, b = factors(m, n, k, *form, "float32")
    results = []
    changes = [{}, {"kc": 64}, {"kc": 700, "mc": 24}, {"ns": 3}, {"pack_a": 1}, {"pack_a": 1, "kc": 321},
               {"pack_a": 0, "m_tasks": 1}]
    if not form[1]:
        changes += [{"pack_b": blocking.ON_THE_WAY}, {"pack_b": blocking.ON_THE_WAY, "mc": 36, "kc": 350}]
    for tasks, change in itertools.product((1, 2, 3, 5, 8), changes):
        c = np.full((m, n), np.nan, "float32")
        if change.get("pack_b") and tasks > 1:
            continue                         # needs ROWS rows in every task
        run(cpu.MATMUL_PHASES, (a, b, *form, c), many_tasks(m, n, k, *form, "float32", 0, tasks, **change), -1)
        results.append(c.copy())
        run(cpu.MATMUL_PHASES, (a, b, *form, c), many_tasks(m, n, k, *form, "float32", 0, tasks, **change), -1, tasks)
        results.append(c)
    close(results[0], product(a, b, *form), k)
    for c in results[1:]:
        np.testing.assert_array_equal(c, results[0])


@pytest.mark.skipif(config.DISABLE_JIT, reason="large")
@pytest.mark.parametrize(("m", "n", "k", "form", "way"), [
    (3, 500, 400, (0, 1), blocking.DOTS), (64, 1000, 300, (0, 1), blocking.TURNED),
    (784, min(10, 2 * lanes(np.dtype("f4")) - 1), 300, (1, 0), blocking.TURNED)])
def test_other_ways_have_the_same_bits_for_any_number_of_threads(m, n, k, form, way):
    a, b = factors(m, n, k, *form, "float32")
    results = []
    for threads in (1, 2, 3, 7):
        c = np.full((m, n), np.nan, "float32")
        plan = cpu.plan_matmul(m, n, k, *form, "float32", threads)
        assert plan[2][1] == way
        run(cpu.MATMUL_PHASES, (a, b, *form, c), plan)
        close(c, product(a, b, *form), k)
        results.append(c)
    for c in results[1:]:
        np.testing.assert_array_equal(c, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(1, 3), (5, 1), (37, 40), (70, 130), (331, 16)])
def test_one_row_in_chunks(n, k, dtype, monkeypatch):
    """C, C += and a dense layer: the same bits for any number of threads, of equal shares or not."""
    monkeypatch.setattr(blocking, "CHUNKED_BEYOND", 0)
    x, w, bias, f = random((1, k), dtype), random((k, n), dtype), random((n,), dtype), DAMPED.cpu(dtype)
    want, results = product(x, w, 0, 0), []
    for threads, shares in itertools.product((1, 2, 3, 40), (None, 1)):
        c, added, y = np.full((1, n), np.nan, dtype), bias.reshape(1, n).copy(), np.full((1, n), np.nan, dtype)
        for form, out, add in (((0, 0), c, False), ((1, 0), added, True)):
            plan = cpu.plan_matmul(1, n, k, *form, dtype, threads, add, chunks=True)
            assert plan[2][-1] == 0 or n == 1
            run(cpu.MATMUL_PHASES, (x.reshape(k, 1) if form[0] else x, w, *form, out), plan, shares=shares)
        run(cpu.DENSE_PHASES, (x, w, bias, f, y), cpu.plan_dense(1, n, k, dtype, threads, chunks=True), shares=shares)
        results.append((c, added, y))
    total = want + bias
    for got, right in zip(results[0], (want, total, np.where(total > 0, total, 0.1 * total)), strict=True):
        close(got, right, k)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def damped(x):
    return x if x > 0 else 0.1 * x


def passed(d, y):
    return d * y * (1 - y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_dense(size, dtype):
    m, n, k = size
    x, w, bias, y = random((m, k), dtype), random((k, n), dtype), random((n,), dtype), np.full((m, n), np.nan, dtype)
    want = product(x, w, 0, 0) + bias
    want = np.where(want > 0, want, 0.1 * want)
    f = DAMPED.cpu(dtype)
    for threads in (1, 2):
        run(cpu.DENSE_PHASES, (x, w, bias, f, y), cpu.plan_dense(m, n, k, dtype, threads))
        close(y, want, k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_a_gradient_passes_through_an_activation(size, dtype):
    m, n, k = size
    dz, w = factors(m, n, k, 0, 1, dtype)
    y, dx = random((m, n), dtype), np.full((m, n), np.nan, dtype)
    want = product(dz, w, 0, 1) * y * (1 - y.astype("f8"))
    for threads in (1, 2):
        run(cpu.SLOPE_PHASES, (dz, w, y, 0, 1, PASSED.cpu(dtype), dx), cpu.plan_slope(m, n, k, 0, 1, dtype, threads))
        close(dx, want, k)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1, 3, 5), (7, 16, 4)] + ([] if config.DISABLE_JIT else [(65, 40, 70)]))
def test_batched(size, form):
    m, n, k = size
    pairs = [factors(m, n, k, *form, "float32") for _ in range(5)]
    a, b = (np.stack(x) for x in zip(*pairs, strict=True))
    before, want = random((5, m, n), "float32"), product(a, b, *form)
    for threads, add in itertools.product((1, 3), (False, True)):
        c = before.copy()
        run(cpu.BATCHED_PHASES, (a, b, *form, c), cpu.plan_batched(5, m, n, k, *form, "float32", threads, add))
        close(c, want + before if add else want, k)


def test_plans_fit_any_shape():
    """A plan's numbers are positive and its tasks no more than there is work for."""
    sizes = (0, 1, 2, 17, 160, 1000, 4096)
    for m, n, k, form, threads in itertools.product(sizes, sizes, sizes, FORMS, (1, 2, 7, 64)):
        tasks, work, numbers = cpu.plan_matmul(m, n, k, *form, "float32", threads)
        _, _, kc, mc, ns, _, pack_b, m_tasks = numbers
        assert 1 <= tasks <= threads
        assert tasks % m_tasks == 0
        assert min(kc, mc, ns) >= 1
        assert work[0].size >= tasks
        if pack_b == blocking.ON_THE_WAY:
            assert min(m // m_tasks - ROWS, mc) >= 3 * ROWS, "the first panel has to be a tall one"


DAMPED, PASSED = Formula(damped), Formula(passed)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_short_sum_whose_right_side_is_packed_on_the_way(k, monkeypatch):
    monkeypatch.setattr(blocking, "cache_bytes", lambda level: 8192)       # so that B is large
    m, n = (13, 70) if config.DISABLE_JIT else (170, 2060)
    a, b = factors(m, n, k, 0, 0, "float32")
    c = np.full((m, n), np.nan, "float32")
    plan = blocking.plan_matmul(m, n, k, False, False, "float32", 1)
    assert config.DISABLE_JIT or blocking.Blocking(*plan[2][2:]).pack_b == blocking.ON_THE_WAY
    run(cpu.MATMUL_PHASES, (a, b, 0, 0, c), plan)
    close(c, product(a, b, 0, 0), k)
