"""A step's launches as one: a CUDA graph, made and launched by the driver's own functions.

A launch costs the processor some microseconds, also a prepared one, whatever its kernel does. A graph of launches costs
that once: the GPU starts the kernels itself, about a microsecond apart. What a plan launches does not change from step
to step (what changes is data on the GPU), so its second run captures the launches of its first.

The driver's library is called directly, since neither numba's package nor numba-cuda has words for graphs.
(https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
"""
import ctypes
import functools
import sys
import weakref

from engine.errors import TargetError

RELAXED = ctypes.c_int(2)                    # memory that Python frees meanwhile is not the captured work's business


@functools.cache
def driver():
    """The driver's library, which numba has already loaded."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def call(name, *arguments):
    """Calls a function of the driver. Errors: `TargetError` with the driver's name for what went wrong."""
    code = getattr(driver(), name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        driver().cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
        raise TargetError(f"CUDA graph: {name} failed with {(text.value or b'error').decode()} ({code})")


class CudaGraph:
    """The work that `launches`, functions, put into a stream (numba's), to be put there again by `launch()`."""

    def __init__(self, launches, stream):
        self._stream, self._kept = ctypes.c_void_p(int(stream)), launches          # their arrays have to stay
        made, graph = ctypes.c_void_p(), ctypes.c_void_p()
        call("cuStreamBeginCapture_v2", self._stream, RELAXED)
        try:
            for launch in launches:
                launch()
        finally:                             # a stream that is left capturing would be of no use to anybody
            call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_ulonglong(0))
        call("cuGraphDestroy", graph)
        self._made = made
        weakref.finalize(self, driver().cuGraphExecDestroy, made)

    def launch(self):
        call("cuGraphLaunch", self._made, self._stream)
