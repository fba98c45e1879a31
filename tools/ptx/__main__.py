"""Every CUDA kernel of TABLE through the real compilers, without a GPU.

    python -m tools.ptx [--cc 80 90] [--ops matmul dense] [--large] [--dtypes float32] [--json FILE]

The simulator runs kernels as Python and sees no types; this is what Numba's CUDA compiler makes of them (extra `cuda`).
Where ptxas and nvdisasm are installed (extra `ptx`) it goes on to machine code and prints, for each kernel, registers,
spills, shared memory, occupancy, the inner loop's instructions, and for large inputs the time of the op at best.
`--cuda-c` compiles a CUDA C++ product of the same tiling with nvcc and prints it beside.
"""
import argparse
import json
import pathlib
import re

from tools.ptx import assembler, cuda_c
from tools.ptx.rows import rows_of_all


def mixture(loop):
    """The inner loop's instructions as text, the most frequent first."""
    parts = {k: v for k, v in loop.items() if k not in ("all", "other")}
    return " ".join(f"{v} {k}" for k, v in sorted(parts.items(), key=lambda kv: -kv[1])) + \
        f" {loop.get('other', 0)} other" if loop else "no loop"


def show(found):
    name = f"{found['op']}: {found['kernel']}{found['arguments'] if found['error'] else ''}"
    if found["error"]:
        print(f"  {name}: {found['error']}")
    elif "registers" in found:
        kind = {"float64": "f64", "float16": "f16"}.get(re.search(r"float\d+|$", found["arguments"]).group(), "f32")
        print(f"  {name[:44]:44} {kind} {found['registers']:4} {found['spills']:6} {found['shared']:6} "
              f"{found['threads']:5} {found['occupancy']:5.0%}  {mixture(found['loop'])}")
        if "estimates" in found:
            print(" " * 45 + "op at best: " + ", ".join(f"{gpu} {time:.3g} ms ({bound})" for gpu, (time, bound)
                                                        in found["estimates"].items()))


def show_all(capability, rows, with_cuda_c):
    """Prints the rows of one compute capability."""
    rows = [r for r in rows if tuple(r["cc"]) == capability]
    failed = sum(bool(r["error"]) for r in rows)
    print(f"sm_{capability[0]}{capability[1]}: {len(rows) - failed} kernels compiled, {failed} failed")
    if not assembler.find("ptxas") or not assembler.find("nvdisasm"):
        print("  no machine code: ptxas or nvdisasm is missing (pip install 'engine[ptx]')")
    else:
        print(f"  {'op: kernel':44} {'':3} regs spills shared  thr   occ  inner loop")
    for found in rows:
        show(found)
    if with_cuda_c:
        show(cuda_c.row(capability))


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.ptx", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cc", nargs="+", default=["80"], help="compute capabilities: 75, 80, 89, 90, 100, ...")
    parser.add_argument("--ops", nargs="*", default=(), help="only these ops")
    parser.add_argument("--large", action="store_true", help="only large inputs, not the ops' samples")
    parser.add_argument("--dtypes", nargs="*", default=("float32", "float64"))
    parser.add_argument("--show", help="print the PTX of kernels whose name has this text")
    parser.add_argument("--json", help="file for the rows")
    parser.add_argument("--cuda-c", action="store_true", help="compare with a CUDA C++ product of the same tiling")
    arguments = parser.parse_args()
    capabilities = tuple((int(text[:-1]), int(text[-1])) for text in arguments.cc)
    rows = rows_of_all(arguments.ops, capabilities, arguments.dtypes, arguments.large, arguments.show)
    for capability in capabilities:
        show_all(capability, rows, arguments.cuda_c)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1))
    return 1 if any(r["error"] for r in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
