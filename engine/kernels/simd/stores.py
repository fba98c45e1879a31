"""How a loop stores its values: a thing that a call hands to its kernel, as it hands a formula."""
from numba import types
from numba.core.datamodel import models
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, register_model, unbox

from engine.kernels.simd.host import VECTOR_BYTES
from engine.kernels.simd.tile_type import I1, I32, I64, Tile


class StoreType(types.Opaque):
    """The Numba type of a `Store`; it carries no data."""

    def __init__(self, store):
        super().__init__(f"Store({store.digest})")
        self.past = store.past


register_model(StoreType)(models.OpaqueModel)


@lower_constant(StoreType)
def _no_data(context, builder, numba_type, value):
    return context.get_dummy_value()


@unbox(StoreType)
def _from_python(numba_type, value, context):
    return NativeValue(context.context.get_dummy_value())        # for kernels that are called from Python


class Store:
    """One of NEAR, an ordinary store, and PAST, a store that goes past the caches."""

    def __init__(self, digest, past):
        self.digest, self.past = digest, past
        self._numba_type_ = StoreType(self)

    def cpu(self, dtype):
        return self


NEAR, PAST = Store("near", False), Store("past", True)


def _keep_past(store, module, stored):
    """Makes an LLVM store one past the caches, where `store` says so."""
    if store.past:
        stored.align = VECTOR_BYTES
        stored.set_metadata("nontemporal", module.add_metadata([I32(1)]))


@intrinsic
def put(typing, store, array, k, value):
    """array[k] = value, for a loop over k from 0 on that LLVM vectorises. PAST takes an array that begins where
    `to_boundary` said: the store says of itself what is true of the vectors, that each begins at a multiple of its
    size."""
    def codegen(context, builder, sig, args):
        data = context.make_array(array)(context, builder, args[1]).data
        _keep_past(store, builder.module, builder.store(args[3], builder.gep(data, [args[2]])))
        return context.get_dummy_value()
    if isinstance(store, StoreType):
        return types.void(store, array, types.int64, array.dtype), codegen


@intrinsic
def tile_put(typing, store, acc, p):
    """p[j] = acc[0, j], a tile of one row; PAST takes a p at a multiple of a vector's bytes (`to_boundary`)."""
    def codegen(context, builder, sig, args):
        for vector, place in zip(acc.unpack(builder, args[1]), acc.addresses(builder, args[2], I64(0))):
            _keep_past(store, builder.module, builder.store(vector, place, align=acc.dtype.bitwidth // 8))
        return context.get_dummy_value()
    if isinstance(store, StoreType) and isinstance(acc, Tile) and acc.rows == 1:
        return types.void(store, acc, p), codegen


@intrinsic
def is_past(typing, store):
    """Whether a `Store` is PAST, known while compiling."""
    if isinstance(store, StoreType):
        return types.boolean(store), lambda context, builder, sig, args: I1(store.past)
