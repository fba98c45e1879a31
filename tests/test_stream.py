"""Outputs written past the caches hold what ordinary stores write, at any alignment and for any number of tasks."""
import re

import numpy as np
import pytest
from numba import config

from engine.errors import EngineError
from engine.kernels import TABLE, stream
from engine.kernels.entry import threads
from engine.kernels.op import SERIAL_BELOW, Op, same
from engine.kernels.simd import part

CASES = {
    "tanh": [(1,), (31,), (8192,), (3017,)],
    "tanh_grad": [(2005,)] * 2,
    "clip": [(129,)],
    "clip_grad": [(1025,)] * 2,
    "maximum_grad_a": [(77, 65), (77, 65), (65,)],
    "softmax": [(7, 331)],
    "log_softmax": [(7, 331)],
    "layer_norm": [(7, 331), (331,), (331,)],
    "rms_norm": [(9, 33), (33,)],
}


def results(name, arrays, attributes):
    return TABLE[name](*arrays, **attributes)


@pytest.fixture
def large(monkeypatch):
    """Every call counts as a large one."""
    def use(value):
        monkeypatch.setattr(stream, "streams", lambda inputs, outputs: value)
    return use


def cases():
    for name, shapes in CASES.items():
        if TABLE[name].shapes.__code__.co_argcount == 1 and len(shapes) > 1:
            yield from ((name, [shape]) for shape in shapes)
        else:
            yield name, shapes
    for a, b in (((5000,), (5000,)), ((3, 5000), (5000,)), ((3, 5000), (3, 1)), ((1, 3001), (2, 3, 3001)), ((), (9,))):
        yield "add", [a, b]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_streamed_is_the_same(large, dtype):
    rng = np.random.default_rng(0)
    for name, shapes in cases():
        arrays = []
        for shape in shapes:                 # one value further than where memory begins: rows are not aligned
            flat = rng.standard_normal(int(np.prod(shape)) + 1).astype(dtype)
            arrays.append(flat[1:].reshape(shape))
        attributes = {"low": -0.5, "high": 0.5} if name.startswith("clip") else {}
        large(False)
        expected = results(name, arrays, attributes)
        large(True)
        np.testing.assert_array_equal(results(name, arrays, attributes), expected, err_msg=f"{name} {shapes}")


def test_streamed_dropout_is_the_same(large):
    """Its random words come in whole tiles, and past the caches only where these begin at a vector's boundary."""
    from engine.kernels.random import dropout_reference
    counter, held = np.array([7, 2 ** 33 + 1]), np.random.default_rng(0).standard_normal(2100)
    for dtype in ("float32", "float64"):
        for offset, rate in ((0, 0.5), (1, 0.25), (0, 0.0)):
            x = held.astype(dtype)[offset:]
            for value in (False, True):
                large(value)
                dropped = TABLE["dropout"](x, counter, rate=rate, stream=5)
                np.testing.assert_allclose(dropped, dropout_reference(x, counter, rate, 5), rtol=1e-6)


def test_streamed_by_several_tasks_and_into_any_place(large):
    from engine import target
    from engine.kernels.program import Program
    large(True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SERIAL_BELOW + 3).astype(np.float32)
    for offset in (0, 1, 5):
        held = np.full(x.size + 32, 7, np.float32)
        out = held[offset:offset + x.size]
        program = Program(target.cpu)
        call = program.add(TABLE["add"], [x, x], [out], {})
        assert call.arrangement.tasks == threads.get() and call.arrangement.blocking == (stream.PAST,)
        program.run()
        np.testing.assert_array_equal(out, x + x)
        assert (held[:offset] == 7).all() and (held[offset + x.size:] == 7).all()


def test_only_what_no_cache_keeps_is_streamed():
    from engine.kernels.op import Spec
    small, large_ = Spec((1000,), np.dtype("f4")), Spec((1 << 30,), np.dtype("f4"))
    assert not stream.streams([small], [small]) and stream.streams([large_], [large_])


@pytest.mark.skipif(config.DISABLE_JIT, reason="compiles")
def test_the_loop_works_on_four_vectors_at_once():
    text = TABLE["exp"].show("llvm")
    assert len(re.findall(r"store <\d+ x float>", text)) >= 4
    assert "NRT_incref" not in text, "kernels count no references"


@pytest.mark.skipif(config.DISABLE_JIT, reason="compiles")
def test_a_kernel_that_allocates_is_refused():
    @part
    def turned(x, y, task, tasks):
        held = np.empty(x.size)
        for i in range(x.size):
            held[x.size - 1 - i] = x[i]
        for i in range(x.size):
            y[i] = held[i]

    with pytest.raises(EngineError, match="allocates nothing"):
        Op("turned", lambda x: x[::-1], lambda x: same((x,)), turned)(np.arange(5.0))
