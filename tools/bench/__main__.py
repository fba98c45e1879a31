"""`python -m tools.bench SUITE [--threads 1 2] [--only TEXT] [--json FILE]`"""
import argparse
import importlib
import json
import pathlib

from tools.bench.timing import machine

SUITES = sorted(p.stem for p in pathlib.Path(__file__).parent.glob("*.py")
                if p.stem not in ("__init__", "__main__", "timing"))


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--target", choices=("cpu", "cuda"), default="cpu", help="cuda: the suite of that name")
    parser.add_argument("--threads", type=int, nargs="*", default=None, help="default: 1 and all")
    parser.add_argument("--only", help="only rows whose name has this text")
    parser.add_argument("--json", help="file for the rows")
    arguments = parser.parse_args()
    if arguments.target == "cuda":
        arguments.suites = ["cuda"]
    if not arguments.suites or set(arguments.suites) - set(SUITES):
        parser.error(f"expected suites of {', '.join(SUITES)}, got {' '.join(arguments.suites) or 'none'}")
    import engine
    from engine import threads
    found = {}
    for count in arguments.threads or sorted({1, threads.get()}):
        threads.set(count)
        print(machine(count), f"engine {engine.__version__}")
        for suite in arguments.suites:
            found[f"{suite} {count}"] = importlib.import_module(f"tools.bench.{suite}").run(count, arguments.only)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
