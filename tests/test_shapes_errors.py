"""What elementwise ops, reductions, moves and softmax refuse, and the sentences with which they do."""
import numpy as np
import pytest

from engine.errors import DtypeError, ShapeError, UnknownName
from engine.kernels import TABLE

X, I = np.zeros((3, 4)), np.zeros(3, np.int64)                      # noqa: E741


def op(name, *inputs, **attributes):
    return lambda: TABLE[name](*inputs, **attributes)


REFUSALS = {
    "shapes that do not broadcast": (ShapeError, r"add: expected shapes that broadcast .*got \(3, 4\) and \(3,\)",
                                     op("add", X, X[:, 0].copy())),
    "axes repeated in too many ways": (ShapeError, "mul: expected at most 4 groups of axes .*broadcast_to one",
                                       op("mul", np.zeros((2, 1, 2, 1, 2)), np.zeros((1, 2, 1, 2, 1)))),
    "two dtypes": (DtypeError, "div: expected inputs of one dtype, got float64, float32", op("div", X, X.astype("f"))),
    "integers": (DtypeError, "exp: expected float32 or float64, got int64", op("exp", I)),
    "gradient of another shape": (ShapeError, r"maximum_grad_a: expected dy of the shape of the output, \(3, 4\)",
                                  op("maximum_grad_a", X[:1].copy(), X, X)),
    "one input too few": (ShapeError, "sub: got 1 inputs", op("sub", X)),
    "limits crossed": (ShapeError, "clip: expected low at most high, got low=1, high=0", op("clip", X, low=1, high=0)),
    "attribute misspelt": (UnknownName, "scale: unknown attribute 'by'; it takes factor, offset", op("scale", X, by=2)),
    "axis outside": (ShapeError, "sum: expected an axis of a 2-dimensional array, got 2", op("sum", X, axis=2)),
    "axes apart": (ShapeError, r"mean: expected an axis, a tuple of neighbouring axes, or None, got \(0, 2\)",
                   op("mean", np.zeros((2, 3, 4)), axis=(0, 2))),
    "largest of nothing": (ShapeError, r"max: expected at least one value along the axis, got x of shape \(0, 4\)",
                           op("max", X[:0], axis=0)),
    "place of nothing": (ShapeError, "argmax: expected at least one value", op("argmax", X[:0])),
    "sum to a foreign shape": (ShapeError, r"sum_to: expected a shape that broadcasts to x of shape \(3, 4\)",
                               op("sum_to", X, shape=(4, 4))),
    "sum to more axes": (ShapeError, "sum_to: expected a shape that broadcasts", op("sum_to", X, shape=(1, 3, 4))),
    "sum over too many groups": (ShapeError, "sum_to: expected at most two groups",
                                 op("sum_to", np.zeros((2, 2, 2, 2, 2)), shape=(1, 2, 1, 2, 1))),
    "extreme's gradient": (ShapeError, "extreme_grad: expected dy and y of 3 values",
                           op("extreme_grad", np.zeros(4), X, np.zeros(3), axis=1)),
    "reshape": (ShapeError, r"reshape: expected a shape for the 12 values of \(3, 4\), got \(5, 2\) for 10",
                op("reshape", X, shape=(5, 2))),
    "reshape with -1": (ShapeError, r"a shape for the 12 values .*got \(5, -1\); the sizes without the -1 make 5",
                        op("reshape", X, shape=(5, -1))),
    "reshape with two -1": (ShapeError, "at most one -1", op("reshape", X, shape=(-1, -1))),
    "flatten": (ShapeError, "flatten: expected an axis from 0 to 2, got 3", op("flatten", X, axis=3)),
    "transpose of too few": (ShapeError, "transpose: expected one of 2 axes for each axis of the output",
                             op("transpose", X, axes=(0,))),
    "transpose twice": (ShapeError, "transpose: expected every axis once", op("transpose", X, axes=(0, -2))),
    "transpose of six axes": (ShapeError, "transpose: expected at most 5 axes that cannot be joined",
                              op("transpose", np.zeros((2,) * 6))),
    "broadcast_to": (ShapeError, r"broadcast_to: expected a shape to which \(3, 4\) broadcasts",
                     op("broadcast_to", X, shape=(3, 5))),
    "slice of too many axes": (ShapeError, "slice: expected starts, stops and steps of one length, at most 2",
                               op("slice", X, starts=(0, 0, 0), stops=(1, 1, 1))),
    "slice backwards": (ShapeError, "slice: expected steps of at least 1",
                        op("slice", X, starts=(3,), stops=(0,), steps=(-1,))),
    "slice_grad": (ShapeError, r"slice_grad: expected dy of the shape of the slice, \(2, 4\)",
                   op("slice_grad", X, shape=(3, 4), starts=(0,), stops=(2,))),
    "pad": (ShapeError, "pad: expected before and after with 2 numbers", op("pad", X, before=(1,), after=(1,))),
    "pad inwards": (ShapeError, "pad: expected numbers of at least 0.*slice cuts off",
                    op("pad", X, before=(0, -1), after=(0, 0))),
    "concat": (ShapeError, r"concat: expected shapes that agree but for axis 0, got \(3, 4\) and \(3, 3\)",
               op("concat", X, X[:, :3].copy())),
    "concat of two dtypes": (DtypeError, "concat: expected inputs of one dtype, got float64, float32",
                             op("concat", X, X.astype("f"))),
    "gather with floats": (DtypeError, "gather: expected indices as int64, got float64", op("gather", X, X)),
    "scatter_add": (ShapeError, r"scatter_add: expected dy that starts with the shape of indices, \(3,\)",
                    op("scatter_add", X[:2].copy(), I, rows=3)),
    "one_hot of no class": (ShapeError, "one_hot: expected classes of at least 1", op("one_hot", I, classes=0)),
    "one_hot of floats": (DtypeError, "one_hot: expected labels as int64", op("one_hot", X, classes=3)),
    "one_hot in integers": (DtypeError, "one_hot: expected dtype float32 or float64",
                            op("one_hot", I, classes=3, dtype="int64")),
    "softmax": (ShapeError, "softmax: expected an axis of a 2-dimensional array, got 2", op("softmax", X, axis=2)),
    "softmax of a number": (ShapeError, "softmax: expected x with at least one axis", op("softmax", np.zeros(()))),
    "softmax's gradient": (ShapeError, r"softmax_grad: expected dy of the shape of y, \(3, 4\)",
                           op("softmax_grad", X[:1].copy(), X)),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_refusal(case):
    error, sentence, call = REFUSALS[case]
    with pytest.raises(error, match=sentence):
        call()
