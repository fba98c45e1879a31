"""Arrays of other libraries as inputs, over the same memory: DLPack on the host, __cuda_array_interface__ on a GPU
(here an imitation of it over the emulated GPU's memory)."""
import ctypes

import numpy as np
import pytest

import engine
from engine import Dense, Sequential
from engine import target as targets
from engine.errors import ShapeError, TargetError
from engine.kernels import TABLE


class OnHost:
    """An array that only DLPack leads to."""

    def __init__(self, array, device=1):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device, 0


class OnGpu:
    """An array in a GPU's memory, as CuPy and PyTorch describe theirs."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.array.shape, "typestr": self.array.dtype.str, "version": 3, "strides": None,
                "data": (self.array.memory.ctypes.data, False), "stream": 1}


def as_emulated(foreign):
    """What numba.cuda.as_cuda_array does, over the emulated GPU's memory."""
    face = foreign.__cuda_array_interface__
    dtype, size = np.dtype(face["typestr"]), int(np.prod(face["shape"]))
    memory = (ctypes.c_char * (size * dtype.itemsize)).from_address(face["data"][0])
    return targets.EmulatedArray(np.frombuffer(memory, dtype).reshape(face["shape"]))


def test_host_memory_is_taken_as_it_is():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for device in (1, 3):
        assert np.shares_memory(engine.from_dlpack(OnHost(x, device)), x)
    np.testing.assert_array_equal(TABLE["add"](OnHost(x), x), 2 * x)
    np.testing.assert_array_equal(np.from_dlpack(TABLE["add"](OnHost(x), OnHost(x))), 2 * x)
    with pytest.raises(ShapeError, match="C-contiguous"):
        TABLE["relu"](OnHost(x.T))


def test_a_model_takes_other_libraries_arrays():
    x, y = np.random.default_rng(0).standard_normal((40, 4)).astype("f4"), np.arange(40) % 3
    made = Sequential([Dense(3)], target="cpu")
    made.compile("sgd", "cross_entropy")
    made.fit(OnHost(x), OnHost(y), epochs=1, verbose=0)
    np.testing.assert_array_equal(made.predict(OnHost(x)), made.predict(x))


def test_memory_that_is_not_here_is_refused():
    with pytest.raises(TargetError, match="DLPack device 10 of OnHost"):
        engine.from_dlpack(OnHost(np.zeros(2), 10))
    if not targets.cuda.present():
        gpu = OnGpu(targets.EmulatedArray(np.zeros(2, "f4")))
        with pytest.raises(TargetError, match="relu: input 0: expected a GPU .* got none"):
            TABLE["relu"](gpu)


@pytest.mark.skipif(not targets.cuda_emulated.present(), reason=targets.cuda_emulated.reason())
def test_arrays_on_the_gpu_are_taken_as_they_are(monkeypatch):
    placed = targets.cuda_emulated.place(np.arange(-3, 4, dtype=np.float32))
    monkeypatch.setattr(targets.cuda.module, "as_cuda_array", as_emulated)
    monkeypatch.setattr(type(targets.cuda), "present", lambda self: True)
    monkeypatch.setattr(type(targets.cuda), "simulated", False)
    foreign = OnGpu(placed)
    assert np.shares_memory(targets.adopt(foreign).memory, placed.memory)
    np.testing.assert_array_equal(targets.to_host(foreign), np.arange(-3, 4))
    out = TABLE["relu"](foreign)
    assert targets.cuda_emulated.owns(out)
    np.testing.assert_array_equal(targets.to_host(out), [0, 0, 0, 0, 1, 2, 3])


@pytest.mark.torch
def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert engine.from_dlpack(x).ctypes.data == x.data_ptr()
    y = TABLE["scale"](x, factor=2.0)
    assert torch.equal(torch.from_dlpack(y), 2 * x)
    made = Sequential([Dense(3)], target="cpu")
    made.compile("sgd", "cross_entropy")
    made.fit(x, torch.tensor([0, 2]), epochs=1, verbose=0)
    np.testing.assert_array_equal(made.predict(x), made.predict(x.numpy()))
