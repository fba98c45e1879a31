"""TABLE: every operation of the engine, by name. The only list of ops there is.

>>> from engine.kernels import TABLE
>>> TABLE["relu"](numpy.array([-1.0, 2.0]))          # runs where the input lives
array([0., 2.])
>>> TABLE["relu"].reference                         # the NumPy truth
"""
from engine.errors import EngineError, unknown
from engine.kernels import (
    activation,
    attention,
    augment,
    batch_norm,
    control,
    conv,
    elementwise,
    fused,
    group_norm,
    half,
    local_response_norm,
    loss,
    matmul,
    metric,
    norm,
    pool,
    prelu,
    random,
    recurrent,
    reduce,
    resize,
    shape,
    softmax,
    update,
)
from engine.kernels.conv import add as conv_add
from engine.kernels.matmul import fused as fused_products
from engine.kernels.matmul import update as product_updates

FAMILIES = (
    activation,
    prelu,
    elementwise,
    fused,
    reduce,
    softmax,
    shape,
    matmul,
    fused_products,
    conv,
    conv_add,
    half,
    attention,
    batch_norm,
    norm,
    group_norm,
    local_response_norm,
    pool,
    resize,
    recurrent,
    loss,
    metric,
    random,
    augment,
    update,
    product_updates,
    control,
)


class Table(dict):
    """Name -> Op; an unknown name is an error that lists the near ones."""

    def __missing__(self, name):
        raise unknown("op", name, self)

    def register(self, op):
        """Adds a user's op, so that graphs, tests and tools see it. A name can be taken once."""
        if op.name in self and self[op.name] is not op:
            raise EngineError(f"op {op.name}: this name is taken; choose another")
        self[op.name] = op
        return op


TABLE = Table()
for _family in FAMILIES:
    for _op in _family.OPS:
        TABLE.register(_op)
