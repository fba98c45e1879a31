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
def every(tmp_path_factory):
    """All kernels of TABLE in float32 and float64, by the name of their function."""
    found = {}
    for r in rows(tmp_path_factory.mktemp("ptx"), "--cc", "80"):
        found.setdefault(r["kernel"], []).append(r)
    return found


def single(r):
    return "float64" not in r["arguments"]


def keeps_to_registers(r):
    """The one thing in local memory: what the library's cosine needs for angles beyond 1e5, of which `_window` takes
    one for a sample (and none so large)."""
    assert r["spills"] == 0 and r["stack"] == (40 if r["kernel"] == "_window" else 0), r
    assert r["kernel"] == "_window" or not {"LDL", "STL"} & set(r["every"]), r
    assert r["registers"] <= (128 if r["threads"] >= 256 else 168), r


def test_no_kernel_spills_or_uses_local_memory(every):
    assert len(every) > 60 and sum(map(len, every.values())) > 480
    for r in (r for made in every.values() for r in made):
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


@pytest.mark.parametrize("capability", ["80", "90"])
def test_large_products_keep_to_their_mix(capability, tmp_path):
    found = rows(tmp_path, "--cc", capability, "--ops", "matmul", "dense", "dense_residual", "matmul_sums", "--large",
                 "--dtypes", "float32")
    tiled = [r for r in found if r["kernel"] in ("product", "product_piece", "product_and_sums")]
    assert {r["threads"] for r in tiled} == {64, 256} and len(tiled) >= 15
    for r in tiled:
        keeps_to_registers(r)
        added = r["loop"].get("FADD", 0)
        assert r["registers"] <= 128 and r["loop"]["LDG.128"] >= 2 and added <= 16, r
        assert r["loop"]["other"] < r["loop"]["FFMA"], r
    assert any(r["loop"]["FFMA"] == 512 and r["loop"]["LDS"] == 32 for r in tiled)


@pytest.mark.parametrize("capability", ["80", "90"])
def test_large_convolutions_keep_to_their_mix(capability, tmp_path):
    found = rows(tmp_path, "--cc", capability, "--large", "--dtypes", "float32", "--ops", "conv2d", "conv2d_plain",
                 "conv2d_input_gradient", "conv2d_weight_gradient")
    tiled = [r for r in found if r["kernel"].startswith("convolve")]
    assert {r["threads"] for r in tiled} == {64, 128, 256} and len(tiled) >= 18
    for r in tiled:
        keeps_to_registers(r)
        if r["loop"].get("LDG.128", 0) >= 2:             # channels in fours; else places are reckoned value by value
            # the smallest tile reckons as many places for a quarter of the multiply-adds, or fewer
            assert r["loop"]["other"] < r["loop"]["FFMA"] * (2 / 3 if r["threads"] > 64 else 2), r
    assert sum(r["loop"].get("LDG.128", 0) >= 2 for r in tiled) >= 6


def test_tensor_cores_are_fed_by_ldmatrix_and_asynchronous_copies(tmp_path):
    found = rows(tmp_path, "--ops", "matmul_half", "--large", "--dtypes", "float32")
    assert len(found) == 6
    for r in found:
        keeps_to_registers(r)
        assert r["registers"] <= 128 and r["loop"]["HMMA"] == 16 and r["loop"]["LDSM"] == 6, r
        assert r["every"]["LDGSTS"] >= 8, r


KEPT = '''
import sys
from types import SimpleNamespace

from numba import cuda, float32, types
from numba.cuda import codegen, dispatcher

from engine import target
from engine.kernels.matmul import cuda as products

# what only a GPU or its driver could say
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(8, 0))
codegen.JITCUDACodegen.magic_tuple = lambda self: ((13, 0), (8, 0))
codegen.CUDACodeLibrary._ensure_cc = lambda self, cc: (8, 0)
dispatcher._Kernel.bind = lambda self: self._codelibrary.get_asm_str()
target.cuda._module, target.cuda._looked, target.cuda.demand = cuda, True, lambda capability, name: None

tile = getattr(products, sys.argv[1])
made = products._product(products.PLAIN, None, tile, False, False, "f4")._compiled()
matrix = types.Array(float32, 2, "C")
made.compile((matrix, matrix, types.int64, types.int64, matrix))
print(sum(made._cache_hits.values()), *(kernel._codelibrary.get_asm_str().count("fma.rn.f32")
                                        for kernel in made.overloads.values()))
'''


def test_a_compiled_kernel_is_found_on_disk_by_another_process(tmp_path):
    def compiled(tile):
        done = subprocess.run([sys.executable, "-c", KEPT, tile], cwd=ROOT, capture_output=True, text=True,
                              env={**os.environ, "ENGINE_CACHE_DIR": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        hits, products = map(int, done.stdout.split())
        return hits, products
    first = compiled("SMALL")
    assert first[0] == 0 and first[1] >= 256, "16 steps of k, written out"
    assert compiled("SMALL") == (1, first[1])
    assert compiled("SMALL_DOUBLE")[0] == 0, "another tile is another kernel"
