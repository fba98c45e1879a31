"""Tiles of whole numbers: vectors of uint64 that hold two words of 32 bits each, as counter-based random numbers need.

Two words are one lane because a processor multiplies them so: low half times low half is a lane. Moving the upper half
down by a shuffle, not a shift, takes the unit that multiplications leave free.
"""
import operator

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from engine.kernels.simd.host import SIDE_BY_SIDE, VECTOR_BYTES
from engine.kernels.simd.tile_type import I32, Tile, splat

LANES = VECTOR_BYTES // 8
WHOLE = Tile(1, SIDE_BY_SIDE, types.uint64)
WOVEN = Tile(1, 2 * SIDE_BY_SIDE, types.uint64)
LOW = ir.Constant(WHOLE.vec, [0xffffffff] * LANES)


def _places(places):
    return ir.Constant(ir.VectorType(I32, len(places)), places)


def _each(builder, function, *tiles):
    """function(vectors) of each vector of WHOLE tiles"""
    return WHOLE.pack(builder, [function(*vectors) for vectors in zip(*(WHOLE.unpack(builder, t) for t in tiles))])


@intrinsic
def numbered(typing, first):
    """A tile of the numbers from `first` on; of each vector the first half in the even lanes, the second in the odd
    ones. `woven` brings them in order."""
    def codegen(context, builder, sig, args):
        start, steps = splat(builder, args[0], LANES), [lane // 2 + lane % 2 * (LANES // 2) for lane in range(LANES)]
        return WHOLE.pack(builder, [builder.add(start, ir.Constant(WHOLE.vec, [v * LANES + step for step in steps]))
                                    for v in range(SIDE_BY_SIDE)])
    return WHOLE(types.uint64), codegen


class _Xor(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 2 and args[0] == args[1] == WHOLE:
            return WHOLE(*args)


infer_global(operator.xor)(_Xor)


@lower_builtin(operator.xor, Tile, Tile)
def _xor(context, builder, sig, args):
    return _each(builder, builder.xor, *args)


@intrinsic
def low_product(typing, t, x):
    """The products of the lower halves of t with x, a number below 2**32."""
    def codegen(context, builder, sig, args):
        factor = splat(builder, args[1], LANES)
        return _each(builder, lambda v: builder.mul(builder.and_(v, LOW), factor), args[0])
    if t == WHOLE:
        return WHOLE(t, types.uint64), codegen


@intrinsic
def swapped(typing, t):
    """The halves exchanged."""
    turned = _places([place ^ 1 for place in range(2 * LANES)])

    def codegen(context, builder, sig, args):
        def swap(vector):
            words = builder.bitcast(vector, ir.VectorType(I32, 2 * LANES))
            return builder.bitcast(builder.shuffle_vector(words, words, turned), WHOLE.vec)
        return _each(builder, swap, args[0])
    if t == WHOLE:
        return WHOLE(t), codegen


@intrinsic
def lower(typing, t):
    """The lower halves, zero above."""
    def codegen(context, builder, sig, args):
        return _each(builder, lambda v: builder.and_(v, LOW), args[0])
    if t == WHOLE:
        return WHOLE(t), codegen


@intrinsic
def woven(typing, t, u):
    """t[0] u[0] t[1] u[1] ..., where t and u are in the order of `numbered`; lower halves come first."""
    halves = [_places([lane // 2 * 2 + odd + lane % 2 * LANES for lane in range(LANES)]) for odd in (0, 1)]

    def codegen(context, builder, sig, args):
        pairs = zip(*(WHOLE.unpack(builder, a) for a in args))
        return WOVEN.pack(builder, [builder.shuffle_vector(*pair, half) for pair in pairs for half in halves])
    if t == u == WHOLE:
        return WOVEN(t, u), codegen


@intrinsic
def tile_of_words(typing, like):
    """A tile of zeros, of the dtype of the pointer `like`, with a value for each of WORDS words."""
    tile = Tile(1, WOVEN.vectors * like.dtype.bitwidth // 32, like.dtype)
    return tile(like), lambda context, builder, sig, args: ir.Constant(context.get_value_type(tile), None)


@intrinsic
def where_at_most(typing, words, limit, t):
    """t where the word is at most `limit`, else 0."""
    def codegen(context, builder, sig, args):
        limit = splat(builder, builder.trunc(args[1], I32), 2 * LANES)
        kept = []
        for vector in words.unpack(builder, args[0]):
            kept.append(builder.icmp_unsigned("<=", builder.bitcast(vector, limit.type), limit))
        each = t.vectors // words.vectors
        chosen = []
        for place, vector in enumerate(t.unpack(builder, args[2])):
            mask, begin = kept[place // each], place % each * t.lanes
            part = builder.shuffle_vector(mask, mask, _places(list(range(begin, begin + t.lanes))))
            chosen.append(builder.select(part, vector, ir.Constant(t.vec, None)))
        return t.pack(builder, chosen)
    if words == WOVEN and isinstance(t, Tile) and t.size == 2 * words.size:
        return t(words, types.uint64, t), codegen
