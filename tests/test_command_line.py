"""The command line and the start: what people type, as processes of their own."""
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def run(*arguments, cache, **environment):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300,
                          env={**os.environ, "ENGINE_QUIET": "0", **({"ENGINE_CACHE_DIR": str(cache)} if cache else {}),
                               **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_importing_compiles_nothing_and_stays_light():
    code = ("import sys, engine; assert 'torch' not in sys.modules and 'numba.cuda' not in sys.modules and "
            "'matplotlib' not in sys.modules; from engine.progress import compiling; assert not compiling.times; "
            "from engine.kernels import entry; assert not entry._entries")
    run("-W", "error", "-c", code, cache=None)


def test_info_says_what_is_here():
    text = run("-m", "engine", "info", cache=None).stdout
    for word in ("numba", "threads", "target cpu", "target cuda", "chosen", "cache", "vectors"):
        assert word in text, text


def test_ops_lists_the_table():
    from engine.kernels import TABLE
    text = run("-m", "engine", "ops", cache=None).stdout
    assert all(f"\n{name} " in text for name in TABLE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_compiling_is_announced_once_and_then_cached(cache, tmp_path):
    arguments = ("-m", "engine", "train", "digits", "--epochs", "1", "--hidden", "8", "--save", str(tmp_path / "m.st"))
    first = run(*arguments, cache=cache)
    assert "compiling kernels for this machine" in first.stderr and "engine: compiled" in first.stderr
    assert "test accuracy" in first.stdout and "confusion matrix" in first.stdout and "plan on" in first.stdout
    second = run(*arguments, cache=cache)
    assert "compil" not in second.stderr, second.stderr
    assert (tmp_path / "m.st").exists()
    lines = [line for line in first.stdout.splitlines() if line.startswith("test loss")]
    assert lines == [line for line in second.stdout.splitlines() if line.startswith("test loss")]


@pytest.mark.slow
def test_lenet_trains_to_a_goal(cache):
    """As `./tools/demo fashion` does, on the part of the images that is always there."""
    arguments = ("-m", "engine", "train", "fashion_mnist", "--subset", "--network", "lenet5", "--epochs", "6", "--rate",
                 "3e-3", "--decay", "cosine", "--augment", "flip", "--verbose", "0")
    text = run(*arguments, "--until", "0.7", cache=cache).stdout
    assert "test accuracy 0.70 reached after" in text and "s of training" in text and "conv2d" in text
    text = run(*arguments, "--until", "0.99", "--epochs", "1", cache=cache).stdout
    assert "0.99 was not reached, the best was" in text and "dataset-fashion-mnist" in text


def test_a_users_formula_is_found_in_the_cache_again(cache, tmp_path):
    script = tmp_path / "own.py"
    script.write_text(
        "import math, numpy as np, engine\n"
        "f = engine.activation('bump', lambda x: math.exp(-x * x), lambda x: -2 * x * math.exp(-x * x))\n"
        "print(f.op(np.array([0.0, 1.0]))[0])\n"
        "from engine.progress import compiling\n"
        "print('compiled', [n for n, _ in compiling.times if 'map' in n])\n")
    assert "compiled ['engine" in run(str(script), cache=cache).stdout
    assert "compiled []" in run(str(script), cache=cache).stdout
    script.write_text(script.read_text().replace("math.exp(-x * x)", "math.exp(-2 * x * x)"))
    changed = run(str(script), cache=cache).stdout
    assert "compiled ['engine" in changed, "a changed formula is compiled anew"


def test_warm_compiles_ahead(cache):
    run("-m", "engine", "warm", "relu", "matmul", cache=cache)
    again = run("-m", "engine", "warm", "relu", "matmul", cache=cache)
    assert "compiling kernels for this machine" not in again.stderr
    assert "2 ops for float32 ready" in again.stdout


def test_unwritable_cache_still_works(tmp_path):
    if os.geteuid() == 0:
        blocked = tmp_path / "file"
        blocked.write_text("a file where the cache's folder should be")
    else:
        blocked = tmp_path / "folder"
        blocked.mkdir(mode=0o500)
    code = "import numpy as np; from engine.kernels import TABLE; print(TABLE['relu'](np.array([-1.0, 2.0])))"
    done = run("-c", code, cache=blocked)
    assert "[0. 2.]" in done.stdout and "cannot be written" in done.stderr


def test_a_forked_child_and_several_threads_run_the_same():
    code = """
import os, threading
import numpy as np
from engine.kernels import TABLE
a = np.random.default_rng(0).standard_normal((300, 300))
want = TABLE["matmul"](a, a)
child = os.fork()
if child == 0:
    os._exit(0 if (TABLE["matmul"](a, a) == want).all() else 3)
assert os.waitpid(child, 0)[1] == 0
found = []
workers = [threading.Thread(target=lambda: found.append((TABLE["matmul"](a, a) == want).all())) for _ in range(8)]
[w.start() for w in workers]; [w.join() for w in workers]
assert len(found) == 8 and all(found)
print("same")
"""
    assert "same" in run("-c", code, cache=None).stdout
