"""What the machine code of the CUDA kernels shows, without a GPU: runs where the extra `ptx` is installed.

`pip install -e .[ptx,test]`, then `pytest tests/test_ptx.py`.
"""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from engine.kernels import TABLE
from tools.ptx import cuda_c

ROOT = pathlib.Path(__file__).parent.parent
installed = importlib.util.find_spec("numba_cuda") is not None
pytestmark = pytest.mark.skipif(not installed, reason="the extra `ptx` is not installed")


def rows(folder, *arguments):
    file = folder / "rows.json"
    done = subprocess.run([sys.executable, "-m", "tools.ptx", "--json", str(file), *arguments], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    if "registers" not in found[0]:
        pytest.skip("ptxas or nvdisasm is not installed (extra `ptx`)")
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Kernels of large inputs in float32, for two generations of GPUs."""
    return rows(tmp_path_factory.mktemp("ptx"), "--cc", "80", "90", "--large", "--dtypes", "float32")


@pytest.fixture(scope="module")
def every(tmp_path_factory, large):
    """All kernels of TABLE in float32 and float64, by the name of their function. (Those that are in `large` too are
    on disk by now.)"""
    found = {}
    for r in rows(tmp_path_factory.mktemp("ptx"), "--cc", "80"):
        found.setdefault(r["kernel"], []).append(r)
    return found


def single(r):
    return "float64" not in r["arguments"]


def keeps_to_registers(r):
    assert r["spills"] == 0 and r["stack"] == 0 and not {"LDL", "STL"} & set(r["every"]), r
    assert r["registers"] <= (128 if r["threads"] >= 256 else 168), r


def test_no_kernel_spills_or_uses_local_memory(every, large):
    assert len(every) > 60 and sum(map(len, every.values())) > 480
    assert {r["op"] for made in every.values() for r in made} == {name for name, op in TABLE.items() if op.cuda}
    for r in (r for made in (*every.values(), large) for r in made):
        keeps_to_registers(r)


ELEMENTWISE = ("map_values", "map_values_with", "scale_by_slope", "scale_by_slope_with", "zip_equal", "zip_one",
               "_dropout_cuda", "sgd", "sgd_momentum", "adam")


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_kernels_read_and_write_16_bytes(every, name):
    assert every[name]
    for r in every[name]:
        assert r["every"]["LDG.128"] and r["every"]["STG.128"], r


@pytest.mark.parametrize("name", ["matmul_half", "product", "product_batch", "product_piece", "product_and_sums",
                                  "convolve", "convolve_back", "convolve_weights"])
def test_what_is_multiplied_comes_out_of_shared_memory_in_16_bytes(every, name):
    """A thread of every tiled kernel multiplies high x wide values for each (high + wide) / 4 reads: 4 x 4, 8 x 4 or
    8 x 8 of float32; float64 reads two values at once. Tensor cores take fragments of four or six reads."""
    assert {single(r) for r in every[name]} >= ({True} if name == "matmul_half" else {True, False})
    for r in every[name]:
        loop = r["loop"]
        if name == "matmul_half":
            assert (loop["HMMA"], loop["LDSM"]) in ((16, 6), (8, 4)), r
            continue
        multiplied, added = ("FFMA", "FADD") if single(r) else ("DFMA", "DADD")
        read = loop["LDS"] - (loop.get(added, 0) if name == "product_and_sums" else 0)    # each with a read of its own
        assert read == loop["LDS.128"] and loop["BAR"] == 1, r
        assert loop[multiplied] / loop["LDS.128"] in ((8, 32 / 3, 16) if single(r) else (4,)), r


@pytest.mark.parametrize("capability", [[8, 0], [9, 0]])
def test_large_products_keep_to_their_mix(capability, large):
    tiled = [r for r in large if r["cc"] == capability and r["kernel"] in ("product", "product_piece",
                                                                           "product_and_sums")]
    assert {r["threads"] for r in tiled} == {64, 256} and len(tiled) >= 15
    for r in tiled:
        added = r["loop"].get("FADD", 0)
        assert r["registers"] <= 128 and r["loop"]["LDG.128"] >= 2 and added <= 16, r
        assert r["loop"]["other"] < r["loop"]["FFMA"], r
    assert any(r["loop"]["FFMA"] == 512 and r["loop"]["LDS"] == 32 for r in tiled), "64 for each 4 reads of 16 bytes"


@pytest.mark.parametrize("capability", [[8, 0], [9, 0]])
def test_large_convolutions_keep_to_their_mix(capability, large):
    tiled = [r for r in large if r["cc"] == capability and r["kernel"].startswith("convolve")]
    assert {r["threads"] for r in tiled} == {64, 128, 256} and len(tiled) >= 18
    for r in tiled:
        if r["loop"].get("LDG.128", 0) >= 2:             # channels in fours; else places are reckoned value by value
            # the smallest tile reckons as many places for a quarter of the multiply-adds, or fewer
            assert r["loop"]["other"] < r["loop"]["FFMA"] * (2 / 3 if r["threads"] > 64 else 2), r
    assert sum(r["loop"].get("LDG.128", 0) >= 2 for r in tiled) >= 6


def test_tensor_cores_are_fed_by_ldmatrix_and_asynchronous_copies(large):
    found = [r for r in large if r["kernel"] == "matmul_half"]
    assert len(found) == 12, "two formats, three forms, for two generations"
    for r in found:
        assert r["registers"] <= 128 and r["loop"]["HMMA"] == 16 and r["loop"]["LDSM"] == 6, r
        assert r["every"]["LDGSTS"] >= 8, r


def test_a_cuda_c_product_of_the_same_tiling_is_the_yardstick(large):
    """What nvcc makes of the same product needs as many reads of shared memory, and registers much alike."""
    theirs = cuda_c.row((8, 0))
    if "nvcc is not installed" in theirs["error"]:
        pytest.skip(theirs["error"])
    assert not theirs["error"] and theirs["spills"] == 0
    ours = [r for r in large if r["cc"] == [8, 0] and r["op"] == "matmul" and r["kernel"] == "product"
            and r["loop"]["FFMA"] == theirs["loop"]["FFMA"]]
    assert len(ours) == 4, "the transposed forms at the largest tile"
    for r in ours:
        assert r["threads"] == cuda_c.THREADS and r["blocks"] >= theirs["blocks"], (r, theirs)
        assert r["loop"]["LDS.128"] == theirs["loop"]["LDS.128"], (r, theirs)
        assert r["loop"]["all"] < 1.1 * theirs["loop"]["all"], (r, theirs)


PRETENDED = '''
import os
import sys
from types import SimpleNamespace

from numba import cuda, float32, types
from numba.cuda import codegen, dispatcher

from engine import target

here = os.getpid()

# what only a GPU or its driver could say, which answers no fork
def said(answer):
    assert os.getpid() == here, "CUDA initialized before forking"
    return answer

dispatcher.get_current_device = lambda: said(SimpleNamespace(compute_capability=(9, 0)))
codegen.JITCUDACodegen.magic_tuple = lambda self: said(((13, 0), (9, 0)))
codegen.CUDACodeLibrary._ensure_cc = lambda self, cc: cc or said((9, 0, "a"))
dispatcher._Kernel.bind = lambda self: self._codelibrary.get_asm_str()
target.cuda._module, target.cuda._looked, target.cuda.demand = cuda, True, lambda capability, name: None
'''
KEPT = PRETENDED + '''
from engine.kernels.matmul import cuda as products

tile = getattr(products, sys.argv[1])
made = products._product(products.PLAIN, None, tile, False, False, "f4")._compiled()
matrix = types.Array(float32, 2, "C")
made.compile((matrix, matrix, types.int64, types.int64, matrix))
print(sum(made._cache_hits.values()), *(kernel._codelibrary.get_asm_str().count("fma.rn.f32")
                                        for kernel in made.overloads.values()))
'''


AHEAD = PRETENDED + """
import numpy as np

from engine.kernels import TABLE
from engine.kernels.entry import threads
from engine.kernels.gpu.ahead import compile_ahead, gathered
from engine.kernels.op import spec
from engine.progress import compiling

threads.set(2)
x, y = np.ones(8, "f4"), np.ones(8, "f4")
with gathered() as wanted:
    for name in ("relu", "exp", "square", "relu"):
        op = TABLE[name]
        op.cuda(x, *op.arrange([spec(x)], [spec(y)], {}, 1).scalars, y)
from engine.kernels import together

together.notice = sys.exit                   # that processes did not deliver
compile_ahead(wanted)
assert not any(kernel.overloads for kernel, _ in wanted), "they are loaded when they are launched"
for kernel, types in wanted:
    made = kernel.compile(types)
    assert list(made._codelibrary._cubin_cache) == [(9, 0, "a")], "machine code for what a launch asks for"
hits, misses = ({id(k): sum(found.values()) for k in (kernel for kernel, _ in wanted) for found in [getattr(k, name)]}
                for name in ("_cache_hits", "_cache_misses"))
print(len(wanted), len(compiling.times), sum(hits.values()), sum(misses.values()))
"""


def run_python(code, tmp_path, *arguments):
    """The whole numbers that a script prints, which keeps its kernels in tmp_path."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "ENGINE_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
def test_what_a_program_launches_is_compiled_ahead_by_processes_that_have_no_gpu(tmp_path):
    assert run_python(AHEAD, tmp_path) == (4, 3, 3, 0)
    assert run_python(AHEAD, tmp_path) == (4, 0, 3, 0), "another process finds all of it on disk"


def test_a_compiled_kernel_is_found_on_disk_by_another_process(tmp_path):
    def compiled(tile):
        return run_python(KEPT, tmp_path, tile)
    first = compiled("SMALL")
    assert first[0] == 0 and first[1] >= 256, "16 steps of k, written out"
    assert compiled("SMALL") == (1, first[1])
    assert compiled("SMALL_DOUBLE")[0] == 0, "another tile is another kernel"
