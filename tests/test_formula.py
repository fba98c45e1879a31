"""Formulas: typed numbers, the right source, digests that name what is computed."""
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from numba import config

from engine.errors import EngineError
from engine.kernels.activation import activation
from engine.kernels.formula import Formula
from engine.kernels.op import Op

SHIFT = 0.25


def helper(x):
    return x * SHIFT


def shifted(x):
    """A docstring computes nothing."""
    return helper(x) + 1


pair = (Formula(lambda x: x + 1, "one"), Formula(lambda x: x + 2, "two"))


def test_an_elementary_function_is_called_by_its_name():
    """On the CPU it is what loops are compiled with, elsewhere its Python text."""
    from engine.kernels.elementary.normal import normal
    f = Formula(lambda x: 2 * normal(x), "twice")
    assert "math.erfc" in f._names()["normal"].source
    assert set(f._names()["normal"]._names()) == {"math", "SQRT_HALF"} and len(f.digest) == 12
    assert math.isclose(f(0.5), 1 + math.erf(0.5 / math.sqrt(2)), rel_tol=1e-14)
    if not config.DISABLE_JIT:
        assert math.isclose(f._cpu("float32")(np.float32(0.5)), f(0.5), rel_tol=3e-7)


def bodies(formulas):
    return [f.source.split("return ")[1] for f in formulas]


def test_several_lambdas_on_a_line_are_told_apart():
    k = 3
    several = map(Formula, (lambda x: x, lambda x: 1, lambda x: x + k, lambda x: x * k, lambda k: k))
    assert bodies(pair) == ["x + 1", "x + 2"]
    assert bodies(several) == ["x", "1", "x + k", "x * k", "k"]


def test_lambdas_are_told_apart_where_python_keeps_no_columns(tmp_path):
    """Nor does Python 3.12 keep one for a lambda that is nothing but a constant."""
    script = tmp_path / "two.py"
    script.write_text("from engine.kernels.formula import Formula\n"
                      "same, one = Formula(lambda z: z), Formula(lambda z: 1)\nprint(same.source, one.source)\n")
    said = subprocess.run([sys.executable, "-X", "no_debug_ranges", script], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])})
    assert said.stdout.count("return z") == 1 and said.stdout.count("return 1") == 1, said.stderr


def test_digest_covers_code_constants_and_called_functions():
    def make(k, inner):
        return Formula(lambda x: inner(x) * k, "f")
    a = make(2.0, helper).digest
    assert a == make(2.0, helper).digest
    assert a != make(3.0, helper).digest
    assert a != make(2.0, shifted).digest


@pytest.mark.skipif(config.DISABLE_JIT, reason="looks at compiled types")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_take_the_dtype_of_the_values(dtype):
    from numba import types
    compiled = Formula(shifted)._cpu(dtype)
    signature = getattr(types, dtype)
    compiled.compile((signature,))
    assert compiled.nopython_signatures[0].return_type == signature


def test_a_users_activation_runs_in_an_op_of_its_own():
    cube = activation("cube", lambda x: x * x * x, lambda x: 3 * x * x)
    x = np.linspace(-2, 2, 7)
    assert isinstance(cube.op, Op)
    np.testing.assert_allclose(cube.op(x), x ** 3)
    np.testing.assert_allclose(cube.slope_op(np.ones(7), x), 3 * x * x)


def test_a_formula_without_source_is_refused_in_words():
    namespace = {}
    exec("f = lambda x: x", namespace)
    with pytest.raises(EngineError, match="source text can be read"):
        Formula(namespace["f"], "f").digest


def test_a_bare_math_function_is_refused_in_words():
    from math import exp
    with pytest.raises(EngineError, match=r"write math\.exp"):
        Formula(lambda x: exp(x), "f").digest


def test_an_array_inside_a_formula_is_refused_in_words():
    table = np.zeros(3)
    with pytest.raises(EngineError, match="expected table to be a number"):
        Formula(lambda x: x + table, "f").digest


def test_formula_runs_as_plain_python():
    assert Formula(shifted)(4.0) == 2.0
    assert math.isclose(Formula(lambda x: math.exp(x), "e")(1.0), math.e)
