"""From PTX to machine code and what can be read from it: registers, spills, shared memory, and the inner loop's mix.

`ptxas` and `nvdisasm` come from PyPI (extra `ptx`) or from a CUDA toolkit on PATH.
"""
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from typing import NamedTuple

# What an instruction's first word counts as; the rest is "other" (addresses, comparisons, branches).
KINDS = {"FFMA": "FFMA", "DFMA": "DFMA", "HMMA": "HMMA", "LDS": "LDS", "LDSM": "LDSM", "STS": "STS", "LDG": "LDG",
         "STG": "STG", "LDGSTS": "LDGSTS", "LDL": "LDL", "STL": "STL", "SHFL": "SHFL", "BAR": "BAR", "MUFU": "MUFU",
         "FADD": "FADD", "FMUL": "FMUL", "DADD": "DADD", "DMUL": "DMUL"}
MATHEMATICS = "FFMA", "DFMA", "HMMA"


class Machine(NamedTuple):
    """Limits of a multiprocessor, by compute capability."""
    threads: int
    blocks: int
    shared: int
    reserved: int                            # bytes of shared memory that the system takes for each block


MACHINES = {(7, 0): Machine(2048, 32, 98304, 0), (7, 5): Machine(1024, 16, 65536, 0),
            (8, 0): Machine(2048, 32, 167936, 1024), (8, 6): Machine(1536, 16, 102400, 1024),
            (8, 9): Machine(1536, 24, 102400, 1024), (9, 0): Machine(2048, 32, 233472, 1024),
            (10, 0): Machine(2048, 32, 233472, 1024), (12, 0): Machine(1536, 24, 102400, 1024)}
REGISTERS = 65536                            # of a multiprocessor
WARP_REGISTERS = 256                         # they are given to warps in units of so many


class Report(NamedTuple):
    """What the machine code of one kernel shows."""
    registers: int
    spills: int                              # bytes stored and loaded
    stack: int                               # bytes of local memory
    shared: int
    loop: dict                               # instructions of the inner loop by kind, "LDS.128" and so on besides "LDS"
    every: dict                              # the same of the whole kernel


def find(name):
    """The path of a tool of the CUDA toolkit, or None: from PyPI's packages first, then from PATH."""
    try:
        import nvidia
        places = [p for folder in nvidia.__path__ for p in pathlib.Path(folder).glob(f"*/bin/{name}")]
        places += [p for folder in nvidia.__path__ for p in pathlib.Path(folder).glob(f"*/bin/{name}.exe")]
    except ImportError:
        places = []
    return str(sorted(places)[-1]) if places else shutil.which(name)


def run(*command):
    """The output of a tool; its complaint becomes the error."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{pathlib.Path(command[0]).name}: {(done.stderr or done.stdout).strip()}")
    return done.stdout + done.stderr


def assemble(ptx, capability, max_registers=None):
    """(the assembler's remarks, the disassembled machine code)."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = pathlib.Path(folder, "kernel.ptx"), pathlib.Path(folder, "kernel.cubin")
        source.write_text(ptx)
        limit = ["--maxrregcount", str(max_registers)] if max_registers else []
        remarks = run(find("ptxas"), "-v", f"-arch=sm_{capability[0]}{capability[1]}", *limit, str(source), "-o",
                      str(binary))
        return remarks, run(find("nvdisasm"), "-c", str(binary))


def number(pattern, text):
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def report(ptx, capability, max_registers=None):
    """The Report of a kernel's PTX for one compute capability."""
    remarks, code = assemble(ptx, capability, max_registers)
    spills = number(r"(\d+) bytes spill stores", remarks) + number(r"(\d+) bytes spill loads", remarks)
    return Report(number(r"Used (\d+) registers", remarks), spills, number(r"(\d+) bytes stack frame", remarks),
                  number(r"(\d+) bytes smem", remarks), count(inner_loop(code)), count(code.splitlines()))


def instruction(line):
    """The words of an instruction (`FFMA`, `LDS.128`), or None for another line."""
    found = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", line)
    return found.group(1) if found else None


def count(lines):
    """Instructions by kind; 16-byte ones of shared and global memory once more under their own names."""
    found = Counter()
    for line in lines:
        words = instruction(line)
        if words and words != "NOP":
            first = words.split(".")[0]
            found["all"] += 1
            found[KINDS.get(first, "other")] += 1
            if first in ("LDS", "STS", "LDG", "STG") and ".128" in words:
                found[first + ".128"] += 1
    return dict(found)


def inner_loop(code):
    """The lines of the loop that computes most; of loops that compute alike, the shortest."""
    lines = code.splitlines()
    labels = {m.group(1): k for k, line in enumerate(lines) if (m := re.match(r"(\.L_x_\d+):", line))}
    loops = []
    for k, line in enumerate(lines):
        to = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)
        if to and labels.get(to.group(1), k + 1) < k:
            body = lines[labels[to.group(1)]:k + 1]
            mix = count(body)
            loops.append((-sum(mix.get(m, 0) for m in MATHEMATICS), len(body), body))
    loops = [loop for loop in loops if loop[1] > 2]      # the last instruction of all jumps to itself
    return min(loops, key=lambda loop: loop[:2])[2] if loops else []


def occupancy(capability, found, threads):
    """(blocks on a multiprocessor, share of its threads that are there)."""
    machine = MACHINES[capability]
    warps = -(-threads // 32)
    by_registers = REGISTERS // (-(-found.registers * 32 // WARP_REGISTERS) * WARP_REGISTERS * warps)
    by_shared = machine.shared // max(1, found.shared + machine.reserved)
    blocks = min(by_registers, by_shared, machine.threads // (32 * warps), machine.blocks)
    return blocks, blocks * warps * 32 / machine.threads
