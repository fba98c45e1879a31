"""The CUDA emulator: every mistake it finds, with the sentence that it says."""
import numpy as np
import pytest
from numba import float32, float64, int32
from numba.cuda import libdevice
from test_emulator import tiled

import engine
from engine import target as targets
from engine.errors import EmulationError, EngineError, TargetError, UnsupportedKernel

cuda = targets.cuda.module


def run(kernel, grid, block, *arguments, race=False, dynamic=0):
    with pytest.raises(EmulationError) as caught:
        engine.emulate(kernel, race=race)[grid, block, 0, dynamic](*arguments)
    assert isinstance(caught.value, EngineError)
    return str(caught.value)


def line_of(kernel, text):
    """The number of the line of a kernel's source that holds `text`."""
    import inspect
    lines, first = inspect.getsourcelines(getattr(kernel, "py_func", kernel))
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_read_outside_an_array():
    @cuda.jit
    def histogram(src, out):
        i = cuda.grid(1)
        src[i] = out[i + 1]
    said = run(histogram, 4, 32, np.zeros(128, "f4"), np.zeros(128, "f4"))
    assert said == (f"kernel histogram, block (3, 0, 0), thread (31, 0, 0), line {line_of(histogram, 'i + 1')}: read "
                    f"of out[128] outside array of 128 (out of bounds by 4 bytes)")


def test_read_before_the_start_of_an_array():
    @cuda.jit
    def kernel(a, first):
        a[0] = a[first - a.size]
    assert "read of a[-2] outside array of 8 (out of bounds by 8 bytes before its start)" in run(
        kernel, 1, 1, np.zeros(8, "f4"), -2)


def test_write_outside_a_matrix_names_the_element():
    @cuda.jit
    def kernel(a, n):
        i, j = cuda.grid(2)
        a[i, j] = n
    said = run(kernel, (2, 2), (8, 4), np.zeros((15, 8)), 3)
    assert "block (1, 0, 0), thread (7, 0, 0)" in said
    assert "write of a[15, 0] outside array of shape (15, 8) (out of bounds by 8 bytes)" in said


def test_an_argument_that_spills_into_another():
    @cuda.jit
    def kernel(a, b):
        a[cuda.threadIdx.x + 32] = b[cuda.threadIdx.x]
    both = np.zeros(64, "f4")
    assert "write of a[32] outside array of 32" in run(kernel, 1, 32, both[:32], both[32:])


def test_shared_array_outside_and_by_name():
    @cuda.jit
    def kernel(a):
        held = cuda.shared.array(32, float32)
        t = cuda.threadIdx.x
        held[t] = a[t]
        cuda.syncthreads()
        a[t] = held[t + 1]
    said = run(kernel, 1, 32, np.zeros(32, "f4"))
    assert "thread (31, 0, 0)" in said and f"line {line_of(kernel, 't + 1')}" in said
    assert "read of held[32] outside shared array of 32 elements of 4 bytes (out of bounds by 4 bytes)" in said


def test_shared_array_that_spills_into_the_next():
    @cuda.jit
    def kernel(a):
        first = cuda.shared.array(32, float32)
        second = cuda.shared.array(640, float32)
        t = cuda.threadIdx.x
        first[t + 64] = a[t]
        second[t] = 1
        cuda.syncthreads()
        a[t] = first[t] + second[t]
    assert "write of first[64] outside shared array of 32" in run(kernel, 1, 32, np.zeros(32, "f4"))


def test_dynamic_shared_memory_outside():
    @cuda.jit
    def kernel(a):
        held = cuda.shared.array(0, float32)
        held[cuda.threadIdx.x] = a[cuda.threadIdx.x]
    said = run(kernel, 1, 32, np.zeros(32, "f4"), dynamic=64)
    assert "write of held[16] outside shared array of 16" in said


def test_local_array_outside():
    @cuda.jit
    def kernel(a, n):
        held = cuda.local.array(4, float64)
        for i in range(n):
            held[i] = i
        a[0] = held[n - 2]
    said = run(kernel, 1, 1, np.zeros(1), 5)
    assert "write of held[4] outside local array of 4 (out of bounds by 8 bytes)" in said


def test_constant_array_outside():
    table = np.arange(8.0)

    @cuda.jit
    def kernel(a):
        held = cuda.const.array_like(table)
        a[cuda.threadIdx.x] = held[cuda.threadIdx.x]
    said = run(kernel, 1, 32, np.zeros(32))
    assert "thread (8, 0, 0)" in said and "read of byte 64 of a constant array of 64 bytes" in said


def test_uninitialised_shared_memory():
    @cuda.jit
    def kernel(a):
        held = cuda.shared.array(32, float32)
        t = cuda.threadIdx.x
        if t < 16:
            held[t] = a[t]
        cuda.syncthreads()
        a[t] = held[t]
    said = run(kernel, 1, 32, np.zeros(32, "f4"))
    assert "thread (16, 0, 0)" in said and "read of held[16] before anything was written there in this block" in said


def test_barrier_in_a_branch_gives_the_lines():
    @cuda.jit
    def kernel(a):
        if cuda.threadIdx.x < 10:
            cuda.syncthreads()
        a[cuda.threadIdx.x] = 1
    said = run(kernel, 1, 64, np.zeros(64))
    assert "divergent barrier: 10 threads ((0, 0, 0), (1, 0, 0), (2, 0, 0), ...) wait at the barrier on line " \
           f"{line_of(kernel, 'syncthreads')}; 54 threads" in said and "have returned" in said


def test_two_different_barriers():
    @cuda.jit
    def kernel(a):
        if cuda.threadIdx.x < 10:
            a[0] = 1
            cuda.syncthreads()
        else:
            a[1] = 1
            cuda.syncthreads()
    said = run(kernel, 1, 64, np.zeros(64))
    assert said.count("wait at the barrier on line") == 2


def test_shuffle_with_lanes_missing():
    @cuda.jit
    def kernel(a):
        if cuda.threadIdx.x < 10:
            a[cuda.threadIdx.x] = cuda.shfl_sync(0xffffffff, 1.0, 0)
        cuda.syncthreads()
    said = run(kernel, 1, 64, np.zeros(64))
    assert "warp operation with lanes missing: 10 threads" in said


def test_race_in_shared_memory():
    a, b = np.ones((2, 64, 64), "f4")
    c = np.zeros((64, 64), "f4")
    assert "in this block" in run(tiled(False, True), (4, 4), (16, 16), a, b, c, race=True)
    said = run(tiled(True, False), (4, 4), (16, 16), a, b, c, race=True)
    assert "races with a " in said and "no barrier between them" in said and ("left[" in said or "right[" in said)
    engine.emulate(tiled(True, True), race=True)[(4, 4), (16, 16)](a, b, c)


def test_missing_syncwarp():
    @cuda.jit
    def kernel(a):
        held = cuda.shared.array(32, float32)
        t = cuda.threadIdx.x
        held[t] = a[t]
        held[(t + 1) % 32] += 1
    said = run(kernel, 1, 32, np.zeros(32, "f4"), race=True)
    assert "thread (0, 0, 0)" in said and "read of held[1] before anything was written" in said


def test_bytes_side_by_side_are_no_race():
    @cuda.jit
    def kernel(out):
        held = cuda.shared.array(64, np.uint8)
        t = cuda.threadIdx.x
        held[t] = t
        out[t] = held[t]
    out = np.zeros(64, np.uint8)
    engine.emulate(kernel, race=True)[1, 64](out)
    np.testing.assert_array_equal(out, np.arange(64))


def test_race_between_blocks():
    @cuda.jit
    def kernel(a):
        a[cuda.threadIdx.x] = cuda.blockIdx.x
    a = np.zeros(32)
    engine.emulate(kernel)[4, 32](a)                     # only looked for when asked
    said = run(kernel, 4, 32, a, race=True)
    assert "block (1, 0, 0), thread (0, 0, 0)" in said
    assert "write of a[0] races with a write by block (0, 0, 0), thread (0, 0, 0)" in said


def test_race_between_a_reader_and_a_later_block():
    @cuda.jit
    def kernel(a, out):
        out[cuda.grid(1)] = a[cuda.threadIdx.x]
        if cuda.blockIdx.x == 3:
            a[cuda.threadIdx.x] = 1
    said = run(kernel, 4, 32, np.zeros(32), np.zeros(128), race=True)
    assert "block (3, 0, 0)" in said and "write of a[0] races with a read by block (2, 0, 0)" in said


def test_a_counter_without_a_fence_orders_nothing():
    @cuda.jit
    def kernel(parts, counter, out):
        if cuda.threadIdx.x == 0:
            parts[cuda.blockIdx.x] = 1
            if cuda.atomic.add(counter, 0, 1) == cuda.gridDim.x - 1:
                for i in range(parts.size):
                    out[0] += parts[i]
    said = run(kernel, 4, 32, np.zeros(4), np.zeros(1, np.int32), np.zeros(1), race=True)
    assert "read of parts[0] races with a write by block (0, 0, 0)" in said


def test_plain_and_atomic_access_race():
    @cuda.jit
    def kernel(a):
        if cuda.threadIdx.x == 40:
            a[0] = 1
        cuda.atomic.add(a, 0, 1)
    assert "races with" in run(kernel, 1, 64, np.zeros(1, np.int32), race=True)


def test_unsupported_kernels_say_what_they_use():
    @cuda.jit
    def printing(a):
        print(a[0])
    with pytest.raises(UnsupportedKernel, match="kernel printing: .*print"):
        engine.emulate(printing)[1, 1](np.zeros(1))


def test_a_function_of_the_gpu_that_the_emulator_has_not():
    @cuda.jit
    def kernel(a):
        a[0] = libdevice.normcdfinv(a[0])
    with pytest.raises(UnsupportedKernel, match="kernel kernel: the emulator has no .*normcdfinv, which this kernel "
                                                "calls; engine/kernels/emulator is the place to add it"):
        engine.emulate(kernel)[1, 1](np.ones(1))


def test_without_the_emulator_it_is_said_why(monkeypatch):
    monkeypatch.setattr(type(targets.cuda_emulated), "present", lambda self: False)
    monkeypatch.setattr(type(targets.cuda_emulated), "reason", lambda self: "no such package")
    with pytest.raises(TargetError, match="emulate: no such package"):
        engine.emulate(lambda a: None)


def test_too_much_static_shared_memory():
    @cuda.jit
    def kernel(a):
        held = cuda.shared.array(20000, float32)
        held[cuda.threadIdx.x] = a[cuda.threadIdx.x]
        cuda.syncthreads()
        a[cuda.threadIdx.x] = held[31 - cuda.threadIdx.x]
    said = run(kernel, 1, 32, np.zeros(32, "f4"))
    assert "expected at most 49152 bytes of static shared memory, got 80000" in said


@pytest.mark.parametrize("arguments,text", [
    (("text", 1), "argument a: expected a NumPy array"), ((np.zeros(3),), "expected 2 arguments \\(a, n\\), got 1"),
    ((np.zeros(3), [1, 2]), "argument n: expected a NumPy array"),
    ((np.zeros(3), np.zeros(3)), "cannot compile it for the arguments"),
])
def test_wrong_arguments(arguments, text):
    @cuda.jit
    def kernel(a, n):
        a[0] = n
    with pytest.raises(EmulationError, match=text):
        engine.emulate(kernel)[1, 1](*arguments)


@pytest.mark.parametrize("grid,block,text", [
    (1, 2000, "at most 1024 threads"), (0, 32, "sizes of at least 1"), ((1, 1, 1, 1), 32, "one to three sizes"),
    ((1, 70000), 32, "at most 65535 along y and z")])
def test_wrong_launches(grid, block, text):
    @cuda.jit
    def kernel(a):
        a[0] = 1
    with pytest.raises(EmulationError, match=text):
        engine.emulate(kernel)[grid, block](np.zeros(1))


def one(a):
    a[0] = 1


def test_what_is_no_kernel_and_no_launch():
    @cuda.jit(device=True)
    def helper(x):
        return x
    with pytest.raises(EmulationError, match=r"kernel one: expected \[grid, block\], got \[3\]"):
        engine.emulate(one)[3](np.zeros(1))
    with pytest.raises(EmulationError, match="expected 0 to 232448 bytes of dynamic shared memory, got 300000"):
        engine.emulate(one)[1, 1, 0, 300_000](np.zeros(1))
    for given, text in ((3, "expected a function decorated with @cuda.jit"), (helper, "is a device function")):
        with pytest.raises(EmulationError, match=text):
            engine.emulate(given)


def test_an_error_of_the_lowest_block_is_reported_whatever_the_timing():
    @cuda.jit
    def kernel(a, n):
        total = 0
        for i in range(n if cuda.blockIdx.x == 2 else 1):
            total += i
        if cuda.blockIdx.x >= 2:
            a[2000 + cuda.blockIdx.x] = int32(total)
    for _ in range(3):
        said = run(kernel, 64, 128, np.zeros(100, np.int32), 100000)
        assert "block (2, 0, 0)" in said


def test_the_host_survives_and_the_next_launch_works():
    @cuda.jit
    def kernel(a, shift):
        a[cuda.threadIdx.x + shift] = 1
    made, a = engine.emulate(kernel), np.zeros(32)
    with pytest.raises(EmulationError):
        made[1, 32](a, 1_000_000_000)
    made[1, 32](a, 0)
    assert (a == 1).all()
