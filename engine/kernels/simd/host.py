"""What the processor of this computer offers to kernels: vector length, registers, tile shape, cache sizes.

`NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` are honoured, since Numba compiles for what they say: with
`NUMBA_CPU_NAME=haswell` every tile is made of 32-byte vectors. All of this is part of Numba's own cache key, except
the cache sizes: kernels take what follows from those as arguments.

| processor | vector | registers | tile (rows x vectors) |
|---|---|---|---|
| x86 with AVX-512 | 64 bytes | 32 | 12 x 2 |
| x86 with AVX2 and FMA | 32 bytes | 16 | 6 x 2 |
| ARM64 (NEON) | 16 bytes | 32 | 12 x 2 |
| any other | 16 bytes | 16 | 6 x 2 |
"""
import functools
import pathlib
from typing import NamedTuple

from numba import config
from numba.core.registry import cpu_target

# what the name says when it was set by hand without features: Numba then still lists this computer's own
_NAMES_WITH_AVX512 = ("avx512", "knl", "knm", "cannonlake", "icelake", "tigerlake", "rocketlake", "sapphirerapids",
                      "emeraldrapids", "graniterapids", "znver4", "znver5", "x86-64-v4", "native")
_NAMES_WITHOUT_AVX2 = ("generic", "x86-64", "x86-64-v2", "core2", "nehalem", "westmere", "sandybridge", "ivybridge",
                       "bdver1", "bdver2", "bdver3")


class Vectors(NamedTuple):
    """Vector length in bytes, number of registers, whether a fused multiply-add is an instruction, whether a masked
    load or store is one."""
    bytes: int
    registers: int
    fma: bool
    masked: bool


def _vectors(triple, name, features, name_was_set):
    """The `Vectors` of an LLVM target; `name_was_set`: the features are not those of the named processor."""
    have = {f[1:] for f in features.split(",") if f.startswith("+")}
    if "aarch64" in triple or "arm64" in triple:
        return Vectors(16, 32, True, False)
    avx512, avx2 = "avx512f" in have, "avx2" in have and "fma" in have
    if name_was_set:
        avx512 = avx512 and any(part in name for part in _NAMES_WITH_AVX512)
        avx2 = avx2 and name not in _NAMES_WITHOUT_AVX2
    if avx512:
        return Vectors(64, 32, True, True)
    if avx2:
        return Vectors(32, 16, True, True)
    return Vectors(16, 16, "fma" in have, False)


def _host():
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    return _vectors(triple, name, features, bool(config.CPU_NAME) and config.CPU_FEATURES is None)


def _pause(triple):
    """LLVM's name, and arguments, of the instruction for a thread that waits; None where there is none."""
    if "aarch64" in triple or "arm64" in triple:
        return "llvm.aarch64.hint", (1,)
    return ("llvm.x86.sse2.pause", ()) if triple.startswith("x86_64") else None


def _clock(triple):
    """The instruction that reads a clock which all cores share, as assembly or a name of LLVM's; None where there is
    none that a program may use."""
    if "aarch64" in triple or "arm64" in triple:
        return "mrs $0, cntvct_el0"
    return "llvm.readcyclecounter" if triple.startswith("x86_64") else None


VECTORS = _host()
PAUSE, CLOCK = (read(cpu_target.target_context.codegen().magic_tuple()[0]) for read in (_pause, _clock))
VECTOR_BYTES = VECTORS.bytes
LINE_BYTES = 64                              # of a cache; where lines are longer, every other request is idle
SIDE_BY_SIDE = 4                             # vectors of a tile of whole numbers: each step waits for the one before
WORDS = SIDE_BY_SIDE * VECTOR_BYTES // 2     # words of random numbers that such tiles make at once
# rows x 2 accumulators, two vectors of B and a broadcast value, and with 32 registers some to spare: with 14 rows every
# one is taken, and LLVM moves accumulators in and out of memory as soon as a loop does anything else
ROWS = 12 if VECTORS.registers == 32 else 6
# Every height costs compile time. A tile of up to 4 rows takes as long as one of 4: it waits for its own additions.
HEIGHTS = tuple(h for h in (1, 4, 8) if h < ROWS) + (ROWS,)


def lanes(dtype):
    """Values of a NumPy dtype in one vector."""
    return VECTOR_BYTES // dtype.itemsize


@functools.cache
def cache_bytes(level):
    """Size of one core's data cache of level 1 or 2, or of the shared level 3; a cautious guess where unknown."""
    folder = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")
    for index in sorted(folder.glob("index*")):
        try:
            kind, at, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            if int(at) == level and kind != "Instruction":
                return int(size[:-1]) * {"K": 1024, "M": 1024 ** 2}[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return {1: 32 * 1024, 2: 512 * 1024}.get(level, 8 * 1024 ** 2)
