"""CUDA kernels on the CPU, from the very IR that the GPU's compiler would get: an emulator and a sanitizer in one.

    emulate(kernel)[grid, block](*arrays)            any @cuda.jit kernel; no GPU, no toolkit

How it works, one file a step:

    capture     Numba compiles the kernel; where it would hand its IR to libNVVM, the IR is taken.
    retarget    The IR becomes host IR: special registers, barriers, warp operations and inline PTX (`ptx`) become calls
                of small functions (`runtime`), shared arrays become places in one block of memory.
    instrument  With `check`, a call before every load, store and atomic lets `access` judge it.
    coroutine   The kernel becomes an LLVM coroutine: a CUDA thread is a coroutine, a barrier suspends it.
    host        LLVM optimises it for this processor; `cache` keeps the object on disk.
    schedule    A scheduler compiled by Numba runs blocks over the cores, warps in turn, and joins lanes (`warp`).
    front       Arguments, launches; `report` writes the sentence for an error.

What it is not: a GPU. Threads of a block run in a fixed order between barriers, so a race shows only with `race=True`;
f16 and bf16 products are summed in order in float32; mathematical functions are the host's; a thread that spins until
a later block does something never ends. Timings say nothing about a GPU.
"""


def emulate(kernel, check=True, race=False):
    """A kernel that runs on the CPU: `emulate(kernel)[grid, block, stream, dynamic_bytes](*arguments)`.

    kernel   a function decorated with `numba.cuda.jit` (or a plain Python function written like one)
    check    every access: inside its array, aligned; shared memory: written before it is read, no copy under way
    race     also: no two threads touch an element, one of them writing, with nothing that orders them; in shared
             memory, and in global memory within and between blocks. Implies `check`; blocks run one after another.
    Arguments are NumPy arrays (changed in place), numbers, and tuples of them.
    Errors: `engine.errors.EmulationError` names kernel, block, thread, line, array and element; `UnsupportedKernel` for
    what cannot be run: print, recursion around a barrier, cooperative groups, PTX that is not in `ptx.py`.
    """
    from engine.kernels.emulator.front import Emulated
    return Emulated(kernel, check, race)
