"""Targets: where arrays live and kernels run. The only file that knows devices.

`cpu` is always present. `cuda` is present when a CUDA package (built-in numba.cuda or numba-cuda) finds a GPU, or when
the CUDA simulator is on. `cuda-emulated` runs the CUDA kernels on the host (`engine/kernels/emulator`): only when it
is asked for by name. Asking for an absent target is an error that gives the reason, never a silent fallback.
"""
import contextlib
import os.path
import threading

import numpy as np

from engine import settings
from engine.errors import TargetError, unknown
from engine.transfers import AtOnce, Stream

ALIGNMENT = 64                               # bytes: a cache line, and the longest vector
DEVICE_ALIGNMENT = 256                       # bytes: where a GPU's allocations begin
HOST_MEMORY = 1, 3                           # DLPack's kDLCPU and kDLCUDAHost (page-locked)
_crossings = threading.local()


def crossings():
    """Host/device copies made by this thread so far, as `{"to": int, "from": int, "bytes": int}`."""
    if not hasattr(_crossings, "count"):
        _crossings.count = {"to": 0, "from": 0, "bytes": 0}
    return _crossings.count


class Cpu:
    """The host: arrays are NumPy arrays."""
    name = "cpu"

    def present(self):
        return True

    def reason(self):
        return "the host's processor is always there"

    def owns(self, array):
        return isinstance(array, np.ndarray)

    def empty(self, size):
        """`size` bytes on a 64-byte boundary, zeroed."""
        raw = np.zeros(size + ALIGNMENT, np.uint8)
        skip = -raw.ctypes.data % ALIGNMENT
        return raw[skip:skip + size]

    def part(self, memory, offset, shape, dtype):
        """The array of `shape` and `dtype` that starts `offset` bytes into `memory`."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return memory[offset:offset + size].view(dtype).reshape(shape)

    def place(self, array):
        return np.asarray(array, order="C")

    def fetch(self, array):
        return array

    def fill(self, destination, source):
        """destination[...] = source, where source is a NumPy array."""
        np.copyto(destination, source)

    def copy(self, destination, source):
        """destination[...] = source, where both live here."""
        np.copyto(destination, source)

    def finish(self):
        """Returns when all that was launched here is done."""


class Cuda:
    """A GPU (or the CUDA simulator): arrays are numba device arrays.

    work, copies   the streams in which kernels run and in which conveyors copy (see `engine.transfers`)
    """
    name = "cuda"

    def __init__(self):
        self._module, self._absent = None, None
        self._looked, self._streams = False, {}
        self._lock = threading.Lock()

    def _stream(self, name):
        with self._lock:
            if name not in self._streams:
                self._streams[name] = AtOnce(self.copy) if self.simulated else Stream(self.module)
            return self._streams[name]

    work = property(lambda self: self._stream("work"))
    copies = property(lambda self: self._stream("copies"))

    def page_locked(self, size):
        """`size` bytes of the host that a copy to the GPU need not touch with the processor."""
        return self.module.pinned_array(size, np.uint8)

    @property
    def module(self):
        """numba's `cuda` module, or None where it cannot be imported; the reason is in `reason()`."""
        if self._module is None and self._absent is None:
            try:
                from numba import cuda
                self._module = cuda
            except Exception as error:       # numba-cuda without its toolkit raises whatever its loader raises
                self._absent = f"numba's CUDA package does not import: {type(error).__name__}: {error}"
        return self._module

    @property
    def simulated(self):
        from numba import config
        return bool(config.ENABLE_CUDASIM)

    @property
    def has_graphs(self):
        """Whether launches can be captured and made as one (`engine/kernels/gpu/graphs.py`)."""
        return not self.simulated

    def present(self):
        if not self._looked:
            self._looked = True
            if self.module is not None and not self.simulated:
                self._available()
        return self._absent is None and self.module is not None

    def _available(self):
        devices = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu")
        if os.path.exists("/proc") and not any(os.path.exists(p) for p in devices):
            self._absent = "no NVIDIA device file (/dev/nvidiactl) on this machine"    # spares loading the driver
            return False
        if not self._module.is_available():
            self._absent = f"no usable GPU: {self._module.cuda_error() or 'the driver reports no device'}"
            return False
        return True

    def reason(self):
        if not self.present():
            return self._absent
        if self.simulated:
            return "the CUDA simulator is on (NUMBA_ENABLE_CUDASIM=1)"
        device = self.module.get_current_device()
        name = device.name if isinstance(device.name, str) else device.name.decode()     # numba-cuda; numba's own
        return f"a GPU is present: {name} (compute capability {'{}.{}'.format(*device.compute_capability)})"

    def demand(self, capability, name):
        """Refuses a GPU whose compute capability is less than the kernel `name` needs."""
        found = tuple(self.module.get_current_device().compute_capability)
        if found < capability:
            wanted, got = ("{}.{}".format(*c) for c in (capability, found))
            raise TargetError(f"{name}: expected a GPU of compute capability {wanted} or later, got {got}; "
                              f"run it on the target cpu")

    def owns(self, array):
        return hasattr(array, "copy_to_host")

    def empty(self, size):
        return self._placed(np.zeros(max(size, 1), np.uint8))

    def _placed(self, array):
        made = self.module.to_device(array, stream=self.work.handle)
        self.work.synchronize()              # the host's memory may be used again
        return made

    def part(self, memory, offset, shape, dtype):
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return memory[offset:offset + size].view(dtype).reshape(shape)

    def place(self, array):
        array = np.asarray(array, order="C")       # ascontiguousarray would make () into (1,)
        self.count("to", array.nbytes)
        return self._placed(array)

    def fetch(self, array):
        self.count("from", array.nbytes)
        found = array.copy_to_host(stream=self.work.handle)
        self.work.synchronize()
        return found

    def fill(self, destination, source):
        source = np.asarray(source, order="C")
        self.count("to", source.nbytes)
        destination.copy_to_device(source, stream=self.work.handle)
        self.work.synchronize()

    def copy(self, destination, source):
        if destination.size:                 # numba disagrees with itself on the strides of nothing
            destination.copy_to_device(source, stream=self.work.handle)      # from device memory: no crossing

    def finish(self):
        self.work.synchronize()

    @staticmethod
    def count(way, size):
        """Enters a copy between host and device for `crossings`."""
        count = crossings()
        count[way] += 1
        count["bytes"] += size


class EmulatedArray:
    """An array of the emulated GPU: NumPy memory that the host may reach only through `place`, `fill` and `fetch`."""
    __slots__ = ("memory",)

    def __init__(self, memory):
        self.memory = memory

    shape = property(lambda self: self.memory.shape)
    strides = property(lambda self: self.memory.strides)
    dtype = property(lambda self: self.memory.dtype)
    ndim = property(lambda self: self.memory.ndim)
    size = property(lambda self: self.memory.size)
    nbytes = property(lambda self: self.memory.nbytes)

    def __len__(self):
        return len(self.memory)

    def __repr__(self):
        return f"<emulated GPU array {self.dtype}{list(self.shape)}>"

    def __getitem__(self, part):
        return EmulatedArray(self.memory[part])

    def reshape(self, *shape):
        return EmulatedArray(self.memory.reshape(*shape))

    def view(self, dtype):
        return EmulatedArray(self.memory.view(dtype))

    def __array__(self, *_, **__):
        raise TargetError("an array of the target cuda-emulated was used as a NumPy array; fetch it first")


class CudaEmulated(Cuda):
    """The CUDA kernels on the host, by the emulator: for machines without a GPU. Never chosen by itself.

    check, race   what the emulator looks for in every launch; see `checking`
    """
    name = "cuda-emulated"
    has_graphs = False

    def __init__(self):
        super().__init__()
        self._looked_for = None
        self._streams = {name: AtOnce(self._move) for name in ("work", "copies")}

    @staticmethod
    def _move(destination, source):
        np.copyto(destination.memory, source.memory if isinstance(source, EmulatedArray) else source)

    def page_locked(self, size):
        return np.zeros(size, np.uint8)

    def _looks(self):
        if self._looked_for is None:
            words = settings.emulation()
            self._looked_for = bool(words), "race" in words
        return self._looked_for

    check = property(lambda self: self._looks()[0])
    race = property(lambda self: self._looks()[1])

    def present(self):
        return self._why_absent() is None

    def _why_absent(self):
        from numba import config
        if config.DISABLE_JIT:
            return "the emulator compiles kernels, and NUMBA_DISABLE_JIT=1 forbids it"
        if self.simulated:
            return "the CUDA simulator is on (NUMBA_ENABLE_CUDASIM=1): it has no compiler whose output could be run"
        return None if cuda.module is not None else cuda._absent

    def reason(self):
        looks = ", with race detection" if self.race else ", with checks" if self.check else ""
        return self._why_absent() or f"the CUDA kernels run on the host's processor{looks}"

    @contextlib.contextmanager
    def checking(self, check=True, race=False):
        """Within it, launches look for wrong accesses (and races) and raise `EmulationError`."""
        before, self._looked_for = self._looked_for, (check or race, race)
        try:
            yield self
        finally:
            self._looked_for = before

    def owns(self, array):
        return isinstance(array, EmulatedArray)

    def empty(self, size):
        raw = np.zeros(size + DEVICE_ALIGNMENT, np.uint8)
        skip = -raw.ctypes.data % DEVICE_ALIGNMENT
        return EmulatedArray(raw[skip:skip + size])

    def place(self, array):
        array = np.asarray(array, order="C")
        made = self.part(self.empty(array.nbytes), 0, array.shape, array.dtype)
        self.fill(made, array)
        return made

    def fetch(self, array):
        self.count("from", array.nbytes)
        return array.memory.copy()

    def fill(self, destination, source):
        source = np.asarray(source, order="C")
        self.count("to", source.nbytes)
        np.copyto(destination.memory, source)

    def copy(self, destination, source):
        np.copyto(destination.memory, source.memory)


cpu, cuda = Cpu(), Cuda()
cuda_emulated = CudaEmulated()
TARGETS = {"cpu": cpu, "cuda": cuda, "cuda-emulated": cuda_emulated}


def owner(array):
    """The target whose array this is, or None."""
    return next((t for t in (cpu, cuda_emulated, cuda) if t.owns(array)), None)


def adopt(array):
    """An array of another library as one of ours over the same memory: a GPU's by `__cuda_array_interface__` (CuPy,
    PyTorch, Numba), one of the host by DLPack; anything else as it is.

    Errors: `TargetError` for memory of a GPU where the target cuda is absent.
    """
    if owner(array) is not None:
        return array
    if hasattr(array, "__cuda_array_interface__"):
        if not cuda.present() or cuda.simulated:
            raise TargetError(f"expected a GPU for an array in a GPU's memory, got none: {cuda.reason()}")
        return cuda.module.as_cuda_array(array)
    return from_dlpack(array) if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__") else array


def from_dlpack(array):
    """The array behind anything with `__dlpack__`, over the same memory: a NumPy array, or an array of the target cuda.

    Errors: `TargetError` for memory that is neither the host's nor a GPU's that Numba can reach.
    """
    kind = int(array.__dlpack_device__()[0])
    if kind in HOST_MEMORY:
        return np.from_dlpack(array)
    if hasattr(array, "__cuda_array_interface__"):
        return adopt(array)
    raise TargetError(f"from_dlpack: expected memory of the host, or of a GPU with __cuda_array_interface__ (CuPy, "
                      f"PyTorch, Numba), got DLPack device {kind} of {type(array).__name__}; copy it to the host first")


def to_host(array):
    """A NumPy array of what lives on any target, ours or another library's; anything else as it is."""
    array = adopt(array)
    found = owner(array)
    return array if found is None else found.fetch(array)


def choose(name=None):
    """The target by name, or (None) the one of `ENGINE_TARGET`, or a GPU when present, else the CPU.

    Errors: `UnknownName` for a name that is no target, `TargetError` with the reason when it is absent.
    """
    asked, by = (name, "target=") if name is not None else (settings.target(), "ENGINE_TARGET=")
    if asked in TARGETS.values():
        return asked
    if asked is None:
        return cuda if cuda.present() else cpu
    if asked not in TARGETS:
        raise unknown("target", asked, TARGETS)
    if not TARGETS[asked].present():
        raise TargetError(f"target: {by}{asked} was asked for but is absent: {TARGETS[asked].reason()}. "
                          f"Ask for cpu, or install the extra 'cuda' on a machine with an NVIDIA GPU.")
    return TARGETS[asked]


def why(target):
    """One sentence: which target this is and why it was chosen."""
    asked = settings.target()
    if asked:
        return f"{target.name}, as ENGINE_TARGET={asked} asks; {target.reason()}"
    if target is cpu and not cuda.present():
        return f"cpu, because cuda is absent: {cuda.reason()}"
    return f"{target.name}: {target.reason()}"


def of(arrays, op):
    """The one target that all `arrays` live on; an error names `op` when they do not agree."""
    found = {next((t.name for t in (cuda_emulated, cuda) if t.owns(a)), "cpu") for a in arrays}
    if len(found) > 1:
        raise TargetError(f"{op}: expected all inputs on one target, got some on {' and some on '.join(sorted(found))}"
                          f"; place them first with engine.place(array)")
    return TARGETS[found.pop()] if found else cpu
