"""The benchmarks time what they say they time."""
import importlib
import json
import sys

import numpy as np
import pytest

import engine
from engine import Dense, Sequential
from tools.bench import memory, timing
from tools.bench.__main__ import SUITES
from tools.bench.ours import epoch_of


def model():
    engine.seed(5)
    made = Sequential([Dense(6, activation="relu"), Dense(3)])
    made.build(4)
    made.compile(engine.optimizers.SGD(0.1, momentum=0.9), "cross_entropy")
    return made


def test_a_timed_epoch_is_an_epoch_of_fit(blobs):
    x, y = blobs
    timed, fitted = model(), model()
    run, plan = epoch_of(timed, x, y, 30)
    run()
    fitted.fit(x, y, batch_size=30, epochs=1, shuffle=False, verbose=0)
    for one, other in zip(timed.get_weights(), fitted.get_weights()):
        np.testing.assert_array_equal(one, other)
    assert "matmul" in str(plan) or "dense" in str(plan)


@pytest.mark.parametrize("scatter, turns", [(0, 5), (0.9, 5 * timing.PATIENCE)])
def test_turns_go_on_until_the_ratio_is_known_or_patience_ends(scatter, turns, monkeypatch):
    now, rng = [0.0], np.random.default_rng(0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)

    def ours():
        now[0] += 0.01

    def theirs():
        now[0] += 0.02 * (1 + scatter * rng.uniform(-1, 1))

    times = timing.race({"ours": ours, "theirs": theirs}, rounds=5, seconds=0.02)
    assert len(times["ours"]) == len(times["theirs"]) == turns
    assert timing.ratio(times["theirs"], times["ours"]) == pytest.approx(2, rel=0.9 * scatter + 1e-9)


def test_an_interrupted_suite_keeps_its_rows(tmp_path, monkeypatch, capsys):
    file = tmp_path / "rows.json"
    file.write_text('{"step 1": [1]}')
    monkeypatch.setattr(timing.Rows, "FILE", str(file))
    found, row = timing.Rows("gemm", 2), {"group": "odd", "row": "7x13x17", "ratio": 1.5}
    found.append(row)
    assert json.loads(file.read_text()) == {"step 1": [1], "gemm 2": [row]}
    assert "gemm 2: 1: odd 7x13x17: 1.50" in capsys.readouterr().err


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_has_what_the_command_calls(suite):
    assert callable(importlib.import_module(f"tools.bench.{suite}").run)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_peak_is_that_of_what_comes_after_it_was_forgotten():
    before = np.ones(1 << 24, np.uint8)
    del before
    memory.forget_peak()
    start = memory.resident("VmRSS")
    np.ones(1 << 22)                         # 32 MiB, given back at once
    assert 30 < memory.resident("VmHWM") - start < 40
    assert memory.resident("VmRSS") - start < 10
