"""The yardstick: `sgemm.cu`, compiled by nvcc to PTX and then treated like Numba's kernels."""
import pathlib
import tempfile

from tools.ptx import assembler

SOURCE = pathlib.Path(__file__).with_name("sgemm.cu")
THREADS = 256


def row(capability):
    """The figures of the CUDA C++ product, in the form of the other kernels' rows."""
    found = {"op": "nvcc", "kernel": "sgemm.cu", "cc": list(capability), "threads": THREADS, "arguments": "float32",
             "error": ""}
    compiler = assembler.find("nvcc")
    if not compiler:
        return {**found, "error": "nvcc is not installed (pip install 'engine[ptx]', or a CUDA toolkit on PATH)"}
    with tempfile.TemporaryDirectory() as folder:
        ptx = pathlib.Path(folder, "sgemm.ptx")
        assembler.run(compiler, "-ptx", f"-arch=compute_{capability[0]}{capability[1]}", str(SOURCE), "-o", str(ptx))
        report = assembler.report(ptx.read_text(), capability)
    blocks, share = assembler.occupancy(capability, report, THREADS)
    return {**found, **report._asdict(), "blocks": blocks, "occupancy": share}
