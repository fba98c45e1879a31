"""The CUDA emulator: every feature of a kernel against NumPy, once plain and once with checks and race detection."""
import math

import numpy as np
import pytest
from numba import config, float32, float64, int32

import engine
from engine import target as targets

if not targets.cuda_emulated.present():
    pytest.skip(targets.cuda_emulated.reason(), allow_module_level=True)
cuda = targets.cuda.module
SQUARES = np.arange(8, dtype=np.float32) ** 2
ALL = 0xffffffff


@pytest.fixture(params=["plain", "race"])
def emulate(request):
    """`engine.emulate` with nothing checked, or with everything."""
    def made(kernel):
        return engine.emulate(kernel, check=request.param == "race", race=request.param == "race")
    return made


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@cuda.jit(device=True)
def gelu(x):
    return float32(0.5) * x * (float32(1) + math.erf(x * float32(0.70710678)))


@cuda.jit(device=True)
def warp_sum(value):
    offset = 16
    while offset > 0:
        value += cuda.shfl_down_sync(ALL, value, offset)
        offset >>= 1
    return value


def test_device_function(emulate, rng):
    @cuda.jit
    def kernel(a, b):
        i = cuda.grid(1)
        if i < a.size:
            b[i] = gelu(a[i])
    a = rng.standard_normal(1000).astype("f4")
    b = np.zeros_like(a)
    emulate(kernel)[8, 128](a, b)
    np.testing.assert_allclose(b, [0.5 * x * (1 + math.erf(x * 0.70710678)) for x in a], atol=1e-6)


def test_plain_python_function(emulate):
    def kernel(a):
        a[cuda.grid(1)] = cuda.blockDim.x
    a = np.zeros(64)
    emulate(kernel)[2, 32](a)
    assert (a == 32).all()


def test_grid_of_three_dimensions(emulate):
    @cuda.jit
    def kernel(a):
        x, y, z = cuda.grid(3)
        if x < a.shape[2] and y < a.shape[1] and z < a.shape[0]:
            a[z, y, x, 0] = x + 100 * y + 10000 * z
    a = np.zeros((7, 5, 9, 2), np.int64)
    emulate(kernel)[(3, 2, 4), (4, 3, 2)](a)
    z, y, x = np.mgrid[:7, :5, :9]
    np.testing.assert_array_equal(a[..., 0], x + 100 * y + 10000 * z)
    assert not a[..., 1].any()


def test_many_blocks_over_the_cores(emulate):
    @cuda.jit
    def kernel(a):
        for i in range(cuda.grid(1), a.size, cuda.gridsize(1)):
            a[i] += i
    a = np.zeros(20003)
    emulate(kernel)[50, 96](a)
    np.testing.assert_array_equal(a, np.arange(20003))


def test_shared_memory_and_a_partial_warp(emulate, rng):
    @cuda.jit
    def kernel(a, out):
        held = cuda.shared.array(64, float32)
        thread = cuda.threadIdx.x
        held[thread] = a[thread]
        cuda.syncthreads()
        if thread == 0:
            total = float32(0)
            for i in range(cuda.blockDim.x):
                total += held[i]
            out[0] = total
    a, out = rng.random(45).astype("f4"), np.zeros(1, "f4")
    emulate(kernel)[1, 45](a, out)
    np.testing.assert_allclose(out[0], a.sum(), rtol=1e-5)


@pytest.mark.parametrize("n", [64, 96])
def test_tiled_product(emulate, rng, n):
    a, b = rng.random((2, n, n)).astype("f4")
    c = np.zeros((n, n), "f4")
    emulate(tiled(True, True))[(n // 16, n // 16), (16, 16)](a, b, c)
    np.testing.assert_allclose(c, a @ b, rtol=1e-5)


def tiled(first, second):
    """A product in 16 x 16 tiles, with or without each of its two barriers."""
    @cuda.jit
    def product(a, b, c):
        left = cuda.shared.array((16, 16), float32)
        right = cuda.shared.array((16, 16), float32)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        row, column = cuda.blockIdx.y * 16 + ty, cuda.blockIdx.x * 16 + tx
        total = float32(0)
        for k in range(a.shape[1] // 16):
            left[ty, tx] = a[row, k * 16 + tx]
            right[ty, tx] = b[k * 16 + ty, column]
            if first:
                cuda.syncthreads()
            for j in range(16):
                total += left[ty, j] * right[j, tx]
            if second:
                cuda.syncthreads()
        c[row, column] = total
    return product


def test_dynamic_shared_memory(emulate):
    @cuda.jit
    def kernel(a):
        held = cuda.shared.array(0, float32)
        thread = cuda.threadIdx.x
        held[thread] = a[thread]
        cuda.syncthreads()
        a[thread] = held[cuda.blockDim.x - 1 - thread]
    a = np.arange(100, dtype="f4")
    emulate(kernel)[1, 100, 0, 400](a)
    np.testing.assert_array_equal(a, np.arange(100)[::-1])


def test_local_array(emulate, rng):
    @cuda.jit
    def kernel(a, out):
        held = cuda.local.array((4, 4), float64)
        i = cuda.grid(1)
        for j in range(16):
            held[j // 4, j % 4] = a[i] * j
        cuda.syncthreads()
        total = 0.0
        for j in range(16):
            total += held[(j * i) % 4, j % 4]
        out[i] = total
    a, out = rng.random(64), np.zeros(64)
    emulate(kernel)[2, 32](a, out)
    np.testing.assert_allclose(out, [sum(a[i] * (4 * ((j * i) % 4) + j % 4) for j in range(16)) for i in range(64)])


def test_constant_array(emulate):
    @cuda.jit
    def kernel(a):
        table = cuda.const.array_like(SQUARES)
        i = cuda.grid(1)
        a[i] = table[i % 8]
    a = np.zeros(32, "f4")
    emulate(kernel)[1, 32](a)
    np.testing.assert_array_equal(a, np.tile(SQUARES, 4))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_mathematics(emulate, rng, dtype):
    @cuda.jit
    def kernel(a, out):
        i = cuda.grid(1)
        x = a[i]
        out[0, i], out[1, i], out[2, i], out[3, i] = math.exp(x), math.tanh(x), math.erf(x), math.sqrt(x)
        out[4, i], out[5, i], out[6, i], out[7, i] = math.log(x), math.pow(x, x), math.sin(x), math.floor(x)
        out[8, i], out[9, i], out[10, i], out[11, i] = math.fabs(-x), x ** 2, math.log1p(x), math.cos(x) / x
        out[12, i], out[13, i] = math.isnan(x) + math.isinf(x), x % a[2]
        out[14, i], out[15, i] = max(x, a[1]), min(x, a[1]) + abs(-x)
    a = (rng.random(64) * 3 + 0.1).astype(dtype)
    out = np.zeros((16, 64), dtype)
    emulate(kernel)[2, 32](a, out)
    want = [np.exp(a), np.tanh(a), np.vectorize(math.erf)(a), np.sqrt(a), np.log(a), a ** a, np.sin(a), np.floor(a), a,
            a ** 2, np.log1p(a), np.cos(a) / a, 0 * a, a % a[2], np.maximum(a, a[1]), np.minimum(a, a[1]) + a]
    np.testing.assert_allclose(out, want, rtol=2e-5 if dtype == "f4" else 1e-13, atol=1e-6 if dtype == "f4" else 1e-15)


def test_fastmath(emulate, rng):
    @cuda.jit(fastmath=True)
    def kernel(a, out):
        i = cuda.grid(1)
        out[i] = math.exp(a[i]) / a[i] + math.sin(a[i]) + math.tanh(a[i]) + math.log(a[i])
    a = rng.random(32).astype("f4") + 1
    out = np.zeros_like(a)
    emulate(kernel)[1, 32](a, out)
    np.testing.assert_allclose(out, np.exp(a) / a + np.sin(a) + np.tanh(a) + np.log(a), rtol=1e-5)


def test_integers(emulate, rng):
    @cuda.jit
    def kernel(a, b, out, small):
        i = cuda.grid(1)
        out[0, i], out[1, i], out[2, i] = a[i] // b[i], a[i] % b[i], a[i] >> 1
        out[3, i] = cuda.popc(a[i]) + cuda.clz(a[i])
        small[i] += 200
    a = rng.integers(-99, 99, 64).astype(np.int32)
    b = (rng.integers(1, 9, 64) * rng.choice([-1, 1], 64)).astype(np.int32)
    out, small = np.zeros((4, 64), np.int32), np.full(64, 100, np.uint8)
    emulate(kernel)[2, 32](a, b, out, small)
    for got, want in zip(out, (a // b, a % b, a >> 1)):
        np.testing.assert_array_equal(got, want)
    assert (small == 44).all()
    assert out[3, 0] == bin(int(a[0]) & ALL).count("1") + 32 - (int(a[0]) & ALL).bit_length()


def test_scalars_tuples_and_bytes(emulate):
    @cuda.jit
    def kernel(out, n, x, f, flag, bytes_, sizes):
        out[0], out[1], out[2], out[3], out[4], out[5] = n, x, f, flag, bytes_[1], sizes[1]
    out = np.zeros(6)
    emulate(kernel)[1, 1](out, -5, 2.5, np.float32(0.5), True, np.array([1, 200], np.uint8), (7, 8))
    assert list(out) == [-5, 2.5, 0.5, 1, 200, 8]


def test_half_precision_storage(emulate, rng):
    @cuda.jit
    def kernel(a, out):
        i = cuda.grid(1)
        out[i] = float32(a[i]) * float32(2)
    a, out = rng.random(32).astype(np.float16), np.zeros(32, "f4")
    emulate(kernel)[1, 32](a, out)
    np.testing.assert_array_equal(out, a.astype("f4") * 2)


def test_strided_view(emulate, rng):
    @cuda.jit
    def kernel(a, out):
        i = cuda.grid(1)
        row = a[i]
        out[i] = row[0] + row[1:][0] + len(row)
    a, out = rng.random((32, 6))[:, ::2], np.zeros(32)
    emulate(kernel)[1, 32](a, out)
    np.testing.assert_allclose(out, a[:, 0] + a[:, 1] + 3)


def test_atomics(emulate, rng):
    @cuda.jit
    def kernel(a, f, d, i, u):
        held = cuda.shared.array(1, float32)
        t = cuda.grid(1)
        if cuda.threadIdx.x == 0:
            held[0] = 0
        cuda.syncthreads()
        cuda.atomic.add(held, 0, a[t])
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            cuda.atomic.add(f, 0, held[0])
        cuda.atomic.max(f, 1, a[t])
        cuda.atomic.min(f, 2, a[t])
        cuda.atomic.add(d, 0, float64(a[t]))
        cuda.atomic.add(i, 0, 1)
        cuda.atomic.max(i, 1, int32(t))
        cuda.atomic.sub(i, 2, 1)
        cuda.atomic.exch(i, 3, 7)
        cuda.atomic.cas(i, 4, 0, int32(t + 1))
        cuda.atomic.inc(u, 0, 1000)
    a, d = rng.random(256).astype("f4"), np.zeros(1)
    f, i, u = np.array([0, 0, 9], "f4"), np.zeros(5, np.int32), np.zeros(1, np.uint32)
    emulate(kernel)[4, 64](a, f, d, i, u)
    np.testing.assert_allclose(f, [a.sum(), a.max(), a.min()], rtol=1e-5)
    np.testing.assert_allclose(d, [a.sum()], rtol=1e-6)
    assert list(i[:4]) == [256, 255, -256, 7] and i[4] > 0 and u[0] == 256


def test_shuffles_votes_and_counting_barriers(emulate, rng):
    @cuda.jit
    def kernel(a, out):
        t = cuda.grid(1)
        v = a[t]
        out[0, t], out[1, t] = warp_sum(v), cuda.shfl_sync(ALL, v, 3)
        out[2, t], out[3, t] = cuda.shfl_up_sync(ALL, v, 1), cuda.shfl_xor_sync(ALL, float64(v), 5)
        out[4, t], out[5, t] = cuda.ballot_sync(ALL, v > 0) & 0xffff, cuda.any_sync(ALL, v > 0.5)
        out[6, t], out[7, t] = cuda.all_sync(ALL, v > -9), cuda.match_any_sync(ALL, t % 4) & 0xffff
        out[8, t] = cuda.laneid
        cuda.syncwarp()
        out[9, t] = cuda.syncthreads_count(int32(v > 0))
        out[10, t] = cuda.syncthreads_or(int32(t == 5))
        out[11, t] = cuda.syncthreads_and(int32(t >= 0))
    a, out = rng.standard_normal(64).astype("f4"), np.zeros((12, 64))
    emulate(kernel)[1, 64](a, out)
    warps, lane = a.reshape(2, 32), np.arange(32)
    out = out.reshape(12, 2, 32)
    np.testing.assert_allclose(out[0, :, 0], warps.sum(1), atol=1e-5)
    for place, want in ((1, warps[:, 3:4] + 0 * warps), (2, warps[:, np.maximum(lane - 1, 0)]), (3, warps[:, lane ^ 5]),
                        (8, lane + 0 * warps), (9, (a > 0).sum() + 0 * warps), (10, 1 + 0 * warps),
                        (11, 1 + 0 * warps), (6, 1 + 0 * warps)):
        np.testing.assert_array_equal(out[place], want)
    assert out[4, 0, 0] == sum(1 << i for i in range(16) if a[i] > 0) and out[7, 0, 0] == 0x1111


def test_half_warps_shuffle_apart(emulate):
    @cuda.jit
    def kernel(out):
        t = cuda.threadIdx.x
        if t < 16:
            out[t] = cuda.shfl_sync(0xffff, t, 2)
        else:
            out[t] = cuda.shfl_sync(0xffff0000, t, 20)
        out[t] += cuda.ballot_sync(ALL, True) & 0xff
    out = np.zeros(32, np.int64)
    emulate(kernel)[1, 32](out)
    assert list(out) == [2 + 255] * 16 + [20 + 255] * 16


def test_syncwarp_orders_a_warp(emulate):
    @cuda.jit
    def kernel(a):
        held = cuda.shared.array(32, float32)
        t = cuda.threadIdx.x
        held[t] = a[t]
        cuda.syncwarp()
        a[t] = held[31 - t]
    a = np.arange(32, dtype="f4")
    emulate(kernel)[1, 32](a)
    np.testing.assert_array_equal(a, np.arange(32)[::-1])


def test_the_last_block_sums_up(emulate):
    @cuda.jit
    def kernel(a, parts, counter, out):
        last = cuda.shared.array(1, int32)
        if cuda.threadIdx.x == 0:
            parts[cuda.blockIdx.x] = a[cuda.blockIdx.x]
            cuda.threadfence()
            last[0] = cuda.atomic.add(counter, 0, 1) == cuda.gridDim.x - 1
        cuda.syncthreads()
        if last[0] and cuda.threadIdx.x == 0:
            total = 0.0
            for i in range(parts.size):
                total += parts[i]
            out[0] = total
    a, out = np.arange(20.0), np.zeros(1)
    emulate(kernel)[20, 64](a, np.zeros(20), np.zeros(1, np.int32), out)
    assert out[0] == a.sum()


def test_spin_lock():
    @cuda.jit
    def kernel(lock, out):
        if cuda.threadIdx.x % 32 == 0:
            while cuda.atomic.cas(lock, 0, 0, 1) != 0:
                pass
            out[0] += 1
            cuda.threadfence()
            cuda.atomic.exch(lock, 0, 0)
    lock, out = np.zeros(1, np.int32), np.zeros(1, np.int32)
    engine.emulate(kernel, check=False)[2, 128](lock, out)
    assert out[0] == 8


def test_shared_memory_starts_as_nan():
    @cuda.jit
    def kernel(out):
        held = cuda.shared.array(32, float32)
        out[cuda.threadIdx.x] = held[cuda.threadIdx.x]
    out = np.zeros(32, "f4")
    engine.emulate(kernel, check=False)[1, 32](out)
    assert np.isnan(out).all()


def test_many_blocks_give_the_same_bits_on_one_thread_and_on_all(rng):
    a, b = rng.random((2, 96, 96)).astype("f4")
    made, results = engine.emulate(tiled(True, True), check=False), []
    before = engine.threads.get()
    try:
        for threads in {1, config.NUMBA_NUM_THREADS}:
            engine.threads.set(threads)
            results.append(np.zeros((96, 96), "f4"))
            made[(6, 6), (16, 16)](a, b, results[-1])
    finally:
        engine.threads.set(before)
    assert all((r == results[0]).all() for r in results)


def test_objects_are_found_again_on_disk(monkeypatch):
    from engine.kernels.emulator import front, host

    def kernel(a):
        a[cuda.grid(1)] += 3
    a = np.zeros(32)
    engine.emulate(kernel, check=False)[1, 32](a)
    for module, name in ((front, "capture"), (host, "build")):       # neither Numba nor LLVM is needed again
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("compiled again"))
    engine.emulate(kernel, check=False)[1, 32](a)
    assert (a == 6).all()


def test_what_a_kernel_names_is_part_of_its_fingerprint():
    from engine.kernels.emulator.cache import fingerprint

    def made(step):
        @cuda.jit(device=True)
        def helper(x):
            return x + step

        def kernel(a):
            a[0] = helper(a[0])
        return kernel
    marks = [fingerprint(made(s), False) for s in (1, 1, 2)]
    assert marks[0] == marks[1] != marks[2]

    class Own:
        pass
    own = Own()

    def strange(a):
        a[0] = own.value
    assert fingerprint(strange, False) is None


def test_importing_the_engine_does_not_load_the_emulator():
    import subprocess
    import sys
    code = "import sys, engine; print([m for m in sys.modules if m == 'numba.cuda' or m.startswith(" \
           "'engine.kernels.emulator.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
