"""The promise of `engine.kernels.split`: not a bit depends on the number of tasks or threads."""
import numpy as np
import pytest
from numba import config

from engine import target as targets
from engine.kernels import TABLE
from engine.kernels import entry as entries
from engine.kernels.op import spec
from engine.kernels.program import Program

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="slow in Python, which adds in the same order")
rng = np.random.default_rng(11)


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


ROWS, COLUMNS = floats(4000, 37), [np.abs(floats(37)) + 0.5 for _ in range(4)]
FLAT = [np.abs(floats(100_003)) for _ in range(4)]
STEP = np.array([1e-3]), np.array([3, 8])
# name, inputs, attributes: all large enough to be shared out
CASES = [
    ("uniform", (np.array([1, 2]),), {"shape": (50_001,)}), ("normal", (np.array([1, 2]),), {"shape": (50_001,)}),
    ("dropout", (FLAT[0], np.array([1, 2])), {}),
    ("adam", (*FLAT, *STEP), {}), ("clip_by_norm", (FLAT[0],), {}),
    ("cross_entropy", (ROWS, rng.integers(0, 37, 4000), np.ones(4000, np.float32)), {"label_smoothing": 0.1}),
    ("cross_entropy_probabilities", (ROWS, np.abs(ROWS), np.ones(4000, np.float32)), {}),
    ("mean_squared", (ROWS, floats(4000, 37), np.abs(floats(4000))), {}),
    ("binary_cross_entropy", (FLAT[0][:, None], FLAT[1][:, None], FLAT[2]), {}),
    ("batch_norm", (ROWS, *COLUMNS), {}), ("batch_norm_grad", (floats(4000, 37), ROWS, *COLUMNS), {}),
    ("batch_norm_inference", (ROWS, *COLUMNS), {}),
    ("batch_norm_inference_grad", (floats(4000, 37), ROWS, *COLUMNS[:3]), {}),
    ("layer_norm", (ROWS, *COLUMNS[:2]), {}), ("layer_norm_grad", (floats(4000, 37), ROWS, COLUMNS[0]), {}),
    ("rms_norm_grad", (floats(4000, 37), ROWS, COLUMNS[0]), {}),
    ("correct_count", (ROWS, rng.integers(0, 37, 4000)), {}), ("squared_error", (ROWS, floats(4000, 37)), {}),
    ("take_batch", (ROWS, rng.permutation(4000), np.zeros(1, np.int64)), {"size": 3900}),
]


def outputs(name, inputs, attributes, tasks, monkeypatch):
    """The op's outputs when its call is made for so many threads, and the number of tasks that it was cut into."""
    op, inputs = TABLE[name], [a.copy() for a in inputs]
    made = [np.zeros(s.shape, s.dtype) for s in op.infer(*map(spec, inputs), **attributes)]
    for output, source in op.updates.items():
        made[output] = inputs[source]
    with monkeypatch.context() as patch:
        patch.setattr(entries.threads, "get", lambda: tasks)
        program = Program(targets.cpu)
        call = program.add(op, inputs, made, op.complete(attributes))
    program.run()
    return made, call.arrangement.tasks


@pytest.mark.parametrize("name, inputs, attributes", CASES, ids=[c[0] for c in CASES])
def test_the_same_bits_for_any_number_of_tasks(name, inputs, attributes, monkeypatch):
    alone, _ = outputs(name, inputs, attributes, 1, monkeypatch)
    for tasks in (2, 3, 7, 64):
        found, cut = outputs(name, inputs, attributes, tasks, monkeypatch)
        assert cut == tasks, f"{name} is not shared out at this size"
        for one, other in zip(alone, found):
            assert one.tobytes() == other.tobytes(), f"{name} with {tasks} tasks"
