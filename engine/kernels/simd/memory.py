"""Tiles and memory: typed pointers, zero tiles, loads and stores with masked edges, prefetch.

Each `@intrinsic` is a function to call inside `@njit` code; the arguments after `typing` are the ones it takes there.
"""
import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from engine.kernels.simd.host import LINE_BYTES, VECTOR_BYTES
from engine.kernels.simd.tile_type import (
    BYTE,
    I32,
    I64,
    Tile,
    edge_masks,
    edge_type,
    llvm,
    load,
    splat,
    store,
)


@intrinsic
def pointer(typing, array):
    """Pointer to an array's first element. `p + n` moves it by n elements; `p[n]` reads and writes."""
    def codegen(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, args[0]).data
    return types.CPointer(array.dtype)(array), codegen


class _PointerAdd(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 2 and isinstance(args[0], types.CPointer) and isinstance(args[1], types.Integer):
            return args[0](args[0], types.int64)


for _symbol in (operator.add, operator.iadd):
    infer_global(_symbol)(type("_PointerAdd", (_PointerAdd,), {}))

    @lower_builtin(_symbol, types.CPointer, types.Integer)
    def _pointer_add(context, builder, sig, args):
        return builder.gep(args[0], [args[1]])


@intrinsic
def lanes_of(typing, like):
    """Values of the pointer's (or tile's) dtype in one vector."""
    return types.int64(like), lambda context, builder, sig, args: I64(VECTOR_BYTES * 8 // like.dtype.bitwidth)


def _zeros(tile, *arguments):
    return tile(*arguments), lambda context, builder, sig, args: ir.Constant(context.get_value_type(tile), None)


@intrinsic(prefer_literal=True)
def tile(typing, rows, vectors, like):
    """A tile of zeros; rows and vectors are literals, the dtype is that of the pointer `like`."""
    if isinstance(rows, types.IntegerLiteral) and isinstance(vectors, types.IntegerLiteral):
        return _zeros(Tile(rows.literal_value, vectors.literal_value, like.dtype), rows, vectors, like)


@intrinsic
def square_tile(typing, like):
    """A tile of zeros with as many rows as one vector has lanes, for `transpose`."""
    return _zeros(Tile(VECTOR_BYTES * 8 // like.dtype.bitwidth, 1, like.dtype), like)


@intrinsic
def broadcast(typing, like, x):
    """A tile like `like` with the scalar x everywhere."""
    def codegen(context, builder, sig, args):
        return like.pack(builder, [splat(builder, args[1], like.lanes)] * (like.rows * like.vectors))
    return like(like, like.dtype), codegen


@intrinsic
def tile_load(typing, like, p, ld, columns=None):
    """A tile like `like` from p[i * ld + j] (ld = 0 repeats one row: a bias). With `columns`, only columns before
    that are read and the others are zero; without, whole rows are read."""
    def codegen(context, builder, sig, args):
        masks = edge_masks(builder, like, columns, args[3])
        places = like.addresses(builder, args[1], args[2])
        return like.pack(builder, [load(builder, like, place, masks[i % like.vectors])
                                   for i, place in enumerate(places)])
    return like(like, p, types.int64, edge_type(columns)), codegen


@intrinsic
def tile_store(typing, acc, p, ld, columns=None):
    """p[i * ld + j] = acc[i, j]; with `columns`, only for columns before that."""
    def codegen(context, builder, sig, args):
        masks = edge_masks(builder, acc, columns, args[3])
        places = acc.addresses(builder, args[1], args[2])
        for i, vector in enumerate(acc.unpack(builder, args[0])):
            store(builder, acc, vector, places[i], masks[i % acc.vectors])
        return context.get_dummy_value()
    return types.void(acc, p, types.int64, edge_type(columns)), codegen


@intrinsic
def flattened(typing, array):
    """The values of a C-contiguous array in one dimension. (Numba's `reshape` is longer to compile than most kernels.)
    """
    if not (isinstance(array, types.Array) and array.layout == "C"):
        return None
    line = types.Array(array.dtype, 1, "C")

    def codegen(context, builder, sig, args):
        from numba.np import arrayobj  # 30 ms that only compiling needs
        given, made = context.make_array(array)(context, builder, args[0]), context.make_array(line)(context, builder)
        arrayobj.populate_array(made, data=given.data, shape=[given.nitems], strides=[given.itemsize],
                                itemsize=given.itemsize, meminfo=None)
        return made._getvalue()
    return line(array), codegen


@intrinsic
def stream_end(typing):
    """Waits until what was stored past the caches is visible to all."""
    def codegen(context, builder, sig, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()
    return types.void(), codegen


@intrinsic
def to_boundary(typing, p):
    """How many elements lie between p and the next multiple of a vector's bytes."""
    def codegen(context, builder, sig, args):
        address = builder.ptrtoint(args[0], I64)
        missing = builder.and_(builder.neg(address), I64(VECTOR_BYTES - 1))
        return builder.udiv(missing, I64(p.dtype.bitwidth // 8))
    return types.int64(p), codegen


def _ask(builder, place, to_write):
    place = builder.bitcast(place, BYTE.as_pointer())
    llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [place, to_write, I32(3), I32(1)])            # keep, data


@intrinsic
def prefetch_inputs(typing, inputs, out, first, count):
    """Asks for `count` values from place `first` on, whether they are there or not, of every array in the tuple
    `inputs` but for one that begins where `out` does."""
    def codegen(context, builder, sig, args):
        own = context.make_array(out)(context, builder, args[1]).data
        for value, array in zip(cgutils.unpack_tuple(builder, args[0], len(inputs)), inputs):
            if isinstance(array, types.Array):
                data = context.make_array(array)(context, builder, value).data
                step = LINE_BYTES * 8 // array.dtype.bitwidth
                with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(data, I64),
                                                           builder.ptrtoint(own, I64))):
                    with cgutils.for_range_slice(builder, args[2], builder.add(args[2], args[3]), I64(step),
                                                 inc=True) as (k, _):
                        _ask(builder, builder.gep(data, [k]), I32(0))
        return context.get_dummy_value()
    return types.void(inputs, out, types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def prefetch(typing, like, p, ld, rows):
    """Asks for the cache lines of the first `rows` rows (a literal, at most all) of a tile like `like` at p.
    The address need not be valid."""
    return _asking(like, p, rows, I32(0))


@intrinsic(prefer_literal=True)
def prefetch_to_write(typing, like, p, ld, rows):
    """As `prefetch`, for lines that will be written: other cores give up their copies now, not when that is done."""
    return _asking(like, p, rows, I32(1))


def _asking(like, p, rows, to_write):
    def codegen(context, builder, sig, args):
        part = Tile(min(rows.literal_value, like.rows), like.vectors, like.dtype)
        for place in part.addresses(builder, args[1], args[2]):
            _ask(builder, place, to_write)
        return context.get_dummy_value()
    if isinstance(rows, types.IntegerLiteral):
        return types.void(like, p, types.int64, rows), codegen
    return None
