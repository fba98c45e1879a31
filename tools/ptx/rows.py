"""From kernels to figures, in processes of their own: ops side by side on all cores."""
import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from tools.ptx import assembler, roofline
from tools.ptx.compiler import Compiler, launch_all, with_kernels

ESTIMATED = 1e6                              # bytes or operations from which on a time is worth estimating


def row(made, capability):
    """The figures of one kernel, as a dict."""
    found = {"op": made.op, "kernel": made.name, "cc": list(capability), "threads": made.threads,
             "arguments": str(made.signature), "error": made.error}
    if made.error or not assembler.find("ptxas") or not assembler.find("nvdisasm"):
        return found
    report = assembler.report(made.ptx, capability, made.options.get("max_registers"))
    blocks, share = assembler.occupancy(capability, report, made.threads)
    found.update(report._asdict(), blocks=blocks, occupancy=share)
    if max(made.cost) >= ESTIMATED and report.every:
        mix = report.loop or report.every
        found["estimates"] = {gpu.name: roofline.estimate(gpu, mix, made.cost) for gpu in roofline.GPUS}
    return found


@functools.cache
def _compiler(capability):
    return Compiler(capability)


def _rows_of(name, capability, dtypes, large, shown):
    compiler = _compiler(capability)         # one for the process: kernels keep the launcher that they got first
    before = set(compiler.made)
    for dtype in dtypes:
        launch_all(compiler, dtype, [name], large)
    found = [made for key, made in compiler.made.items() if key not in before]
    for made in found:
        if shown and shown in made.name:
            print(made.ptx)
    return [row(made, capability) for made in found]


def rows_of_all(names, *given):
    """Rows of all kernels of ops (all, or those named): capability, dtypes, only large inputs?, whose PTX to print."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_rows_of, name, *given) for name in with_kernels(names)]
        return [found for job in jobs for found in job.result()]
