"""`python -m tools.bench SUITE [--threads 1 2] [--only TEXT] [--json FILE]`, or `--target cuda` for the suite on a GPU

Each number of threads is a process of its own that is bound to as many cores before any library starts: some peers
have no other way to be limited.
"""
import argparse
import importlib
import os
import pathlib
import subprocess
import sys

SUITES = sorted(p.stem for p in pathlib.Path(__file__).parent.glob("*.py")
                if p.stem not in ("__init__", "__main__", "timing", "ours", "peers", "twins"))


def cores():
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def measure(suites, count, only, file):
    """Runs suites in this process, with `count` threads."""
    from engine import __version__, threads
    from tools.bench.timing import Rows, keep, machine
    threads.set(count)
    Rows.FILE = file
    print(machine(count), f"engine {__version__}", flush=True)
    for suite in suites:
        keep(f"{suite} {count}", importlib.import_module(f"tools.bench.{suite}").run(count, only))


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--target", choices=("cpu", "cuda"), default="cpu", help="cuda: the suites of that name")
    parser.add_argument("--threads", type=int, nargs="*", default=None, help="default: 1 and all; on a GPU all")
    parser.add_argument("--only", help="only rows whose name has this text")
    parser.add_argument("--json", help="file for the rows; rows of other suites in it are kept")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.target == "cuda":
        arguments.suites = ["cuda", "cuda_networks"]
    if not arguments.suites or set(arguments.suites) - set(SUITES):
        parser.error(f"expected suites of {', '.join(SUITES)}, got {' '.join(arguments.suites) or 'none'}")
    on_gpu = all(suite.startswith("cuda") for suite in arguments.suites)      # threads compile kernels there
    counts = arguments.threads or sorted({len(cores())} if on_gpu else {1, len(cores())})
    if arguments.here:
        return measure(arguments.suites, counts[0], arguments.only, arguments.json)
    rest = [x for name in ("only", "json") if getattr(arguments, name) for x in (f"--{name}", getattr(arguments, name))]
    for count in counts:
        own = cores()[:count]
        # Idle threads of OpenBLAS and of each OpenMP runtime (PyTorch brings one, Numba uses the system's) spin for 20
        # to 100 ms before they sleep, on the cores that the next side needs. Here it is 2 ms for all, longer than any
        # pause between two calls of one side; and each OpenMP thread has its core, or some wait for another's spinning.
        limited = {"OMP_NUM_THREADS": str(count), "NUMBA_NUM_THREADS": str(count), "OPENBLAS_NUM_THREADS": str(count),
                   "OPENBLAS_THREAD_TIMEOUT": "22", "GOMP_SPINCOUNT": "30000", "OMP_PROC_BIND": "true"}
        command = [sys.executable, "-m", "tools.bench", *arguments.suites, "--here", "--threads", str(count), *rest]
        if hasattr(os, "sched_setaffinity"):
            code = f"import os, sys; os.sched_setaffinity(0, {own}); os.execv(sys.argv[1], sys.argv[1:])"
            command = [sys.executable, "-c", code, *command]
        done = subprocess.run(command, env={**os.environ, **limited})
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
