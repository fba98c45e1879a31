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


@pytest.mark.parametrize("capability", ["80", "90"])
def test_products_keep_to_registers_and_to_their_mix(capability, tmp_path):
    found = rows(tmp_path, "--cc", capability, "--ops", "matmul", "dense", "dense_residual", "matmul_sums", "--large",
                 "--dtypes", "float32")
    tiled = [r for r in found if r["kernel"] in ("product", "product_piece", "product_and_sums")]
    assert {r["threads"] for r in tiled} == {64, 256} and len(tiled) >= 15
    for r in tiled:
        assert r["spills"] == r["stack"] == 0, r
        assert r["registers"] <= 128, r
        high = r["loop"]["FFMA"] // r["loop"]["LDS.128"]
        added = r["loop"].get("FADD", 0)         # each with a read of its own
        assert high in (8, 16) and r["loop"]["LDS"] - added == r["loop"]["LDS.128"], r   # 64 FFMA per 4 reads, 16 per 2
        assert r["loop"]["BAR"] == 1 and r["loop"]["LDG.128"] >= 2 and added <= 16, r
        assert r["loop"]["other"] < r["loop"]["FFMA"], r
    assert any(r["loop"]["FFMA"] == 512 and r["loop"]["LDS"] == 32 for r in tiled)


def test_tensor_cores_are_fed_by_ldmatrix_and_asynchronous_copies(tmp_path):
    found = rows(tmp_path, "--ops", "matmul_half", "--large", "--dtypes", "float32")
    assert len(found) == 6
    for r in found:
        assert r["spills"] == r["stack"] == 0 and r["registers"] <= 128, r
        assert r["loop"]["HMMA"] == 16 and r["loop"]["LDSM"] == 6, r
        assert r["every"]["LDGSTS"] >= 8, r


def test_no_kernel_uses_local_memory(tmp_path):
    found = rows(tmp_path, "--large", "--dtypes", "float32", "--ops", "relu", "add", "sum", "softmax",
                 "softmax_grad", "layer_norm", "batch_norm", "cross_entropy", "cross_entropy_probabilities", "adam")
    for r in found:
        assert r["spills"] == r["stack"] == 0, r


def test_convolutions_keep_to_registers(tmp_path):
    found = rows(tmp_path, "--large", "--dtypes", "float32", "--ops", "conv2d", "conv2d_input_gradient",
                 "conv2d_weight_gradient")
    tiled = [r for r in found if r["kernel"].startswith("convolve")]
    assert len(tiled) >= 6
    for r in found:
        assert r["spills"] == 0 and r["registers"] <= 128, r
    for r in tiled:
        assert r["loop"]["LDS"] == r["loop"]["LDS.128"] and r["loop"]["LDG.128"] >= 2, r
        assert r["loop"]["other"] < r["loop"]["FFMA"] * 2 / 3, r


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
