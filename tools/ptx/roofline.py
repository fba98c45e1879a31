"""What a kernel could reach on GPUs that are not at hand: the roofline (Williams et al. 2009), and how near the inner
loop's instructions let it come to the peak.

A scheduler issues one instruction a cycle for a warp. Where the units take a warp's FFMA in two cycles (16 lanes for
each scheduler: T4, V100, A100), every second instruction may be something else for nothing; where they take it in one
(H100), everything else costs time.
"""
from typing import NamedTuple


class Gpu(NamedTuple):
    name: str
    float32: float                           # TFLOP/s
    float64: float
    tensor: float                            # TFLOP/s of float16 with float32 sums
    memory: float                            # GB/s
    cycles: int                              # a warp's FFMA


GPUS = (Gpu("T4", 8.1, 0.25, 65, 320, 2), Gpu("V100", 15.7, 7.8, 125, 900, 2), Gpu("A100", 19.5, 9.7, 312, 1555, 2),
        Gpu("H100", 66.9, 33.5, 989, 3350, 1), Gpu("H200", 66.9, 33.5, 989, 4800, 1))


def peak(gpu, mix):
    """TFLOP/s that the inner loop's instructions allow."""
    if mix.get("HMMA"):
        return gpu.tensor
    singles, doubles = mix.get("FFMA", 0), mix.get("DFMA", 0)
    top, work = (gpu.float64, doubles) if doubles > singles else (gpu.float32, singles)
    return top * min(1, gpu.cycles * work / mix["all"]) if work > mix["all"] / 4 else top


def estimate(gpu, mix, cost):
    """(milliseconds at best, what bounds them) of an op whose work this kernel does."""
    compute, traffic = cost.flops / peak(gpu, mix) / 1e9, cost.bytes / gpu.memory / 1e6
    return max(compute, traffic), "arithmetic" if compute > traffic else "memory"
