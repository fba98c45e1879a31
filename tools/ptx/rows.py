"""From kernels to figures, in processes of their own: ops side by side on all cores.

What the machine code of a kernel shows is kept on disk, under a name that changes with the kernel, the compilers and
what reads their output: only what is new is compiled.
"""
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
from concurrent.futures import ProcessPoolExecutor

from engine import settings
from tools.ptx import assembler, roofline
from tools.ptx.compiler import Compiler, launch_all, with_kernels

ESTIMATED = 1e6                              # bytes or operations from which on a time is worth estimating


@functools.cache
def _tools():
    """Which tools these are, and how their output is read; nothing where one is missing."""
    paths = [assembler.find(name) for name in ("ptxas", "nvdisasm")]
    return all(paths) and repr([assembler.run(path, "--version") for path in paths]) + \
        pathlib.Path(assembler.__file__).read_text()


def _report(kernel, capability):
    """The assembler's Report of a kernel, from disk if it is there; nothing without the tools."""
    if not _tools():
        return kernel.ptx(capability) and None           # that it compiles is all that can be said
    limit = kernel.options.get("max_registers")
    name = hashlib.sha256(f"{kernel.mark} {capability} {_tools()}".encode()).hexdigest()
    path = settings.cache_folder() / "ptx" / f"{name}.json"
    if kernel.mark and path.exists():
        return assembler.Report(**json.loads(path.read_text()))
    found = assembler.report(kernel.ptx(capability), capability, limit)
    if kernel.mark:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(found._asdict()))
        os.replace(part, path)               # another process sees the whole file or none
    return found


def row(wanted, capability):
    """The figures of one kernel for one compute capability, as a dict."""
    kernel = wanted.kernel
    found = {"op": wanted.op, "kernel": kernel.name, "cc": list(capability), "threads": wanted.threads,
             "arguments": str(kernel.signature), "large": wanted.large, "error": ""}
    try:
        report = _report(kernel, capability)
    except Exception as problem:             # whatever the compilers raise is this row's result
        return {**found, "error": f"{type(problem).__name__}: {problem}"}
    if report:
        blocks, share = assembler.occupancy(capability, report, wanted.threads)
        found.update(report._asdict(), blocks=blocks, occupancy=share)
        if max(wanted.cost) >= ESTIMATED and report.every:
            mix = report.loop or report.every
            found["estimates"] = {gpu.name: roofline.estimate(gpu, mix, wanted.cost) for gpu in roofline.GPUS}
    return found


@functools.cache
def _compiler(least):
    return Compiler(least)                   # one for the process: kernels keep the launcher that they got first


def _rows_of(name, capabilities, dtypes, large, shown):
    found = []
    for wanted in launch_all(_compiler(min(capabilities)), name, dtypes, large):
        able = [capability for capability in capabilities if capability >= wanted.kernel.needs]
        if shown and shown in wanted.kernel.name:
            print(*map(wanted.kernel.ptx, able), sep="\n")
        found += [row(wanted, capability) for capability in able]
    return found


def rows_of_all(names, *given):
    """Rows of all kernels of ops (all, or those named): compute capabilities, dtypes, only large inputs?, whose PTX to
    print. A kernel that several ops launch has a row for each of them."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_rows_of, name, *given) for name in with_kernels(names)]
        return [found for job in jobs for found in job.result()]
