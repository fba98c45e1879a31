"""The words in which the elementary functions are written: each is an instruction on a vector register, or a few.

None has a branch or a call, so a loop over what is written with them vectorises. They take float32 or float64 and have
a meaning inside compiled functions only.
"""
from llvmlite import ir
from numba import float32, types
from numba.extending import intrinsic

# a * b + c may become one fused multiply-add; nothing is reordered, NaN and infinity keep their meaning
FLAGS = ("contract",)


@intrinsic
def bits_of(typing, x):
    """The bit pattern of x as an integer"""
    integer = types.int32 if x == float32 else types.int64
    return integer(x), lambda context, builder, signature, values: builder.bitcast(
        values[0], context.get_value_type(integer))


@intrinsic
def from_bits(typing, like, integer):
    """The number of `like`'s dtype whose bit pattern is `integer` (of which only the low bits count)"""
    def emit(context, builder, signature, values):
        bits, width = values[1], ir.IntType(like.bitwidth)
        if bits.type.width > like.bitwidth:
            bits = builder.trunc(bits, width)
        return builder.bitcast(bits, context.get_value_type(like))
    return like(like, integer), emit


@intrinsic
def where(typing, condition, a, b):
    """a if condition else b, both already computed"""
    return a(condition, a, a), lambda context, builder, signature, values: builder.select(*values)


@intrinsic
def polynomial(typing, x, c):
    """c[0] + x * (c[1] + x * (c[2] + ...))"""
    def emit(context, builder, signature, values):
        z, terms = values[0], [builder.extract_value(values[1], i) for i in range(len(c))]
        total = terms.pop()
        while terms:
            total = builder.fadd(builder.fmul(total, z, flags=FLAGS), terms.pop(), flags=FLAGS)
        return total
    return x(x, c), emit


def _call(name):
    def emit(context, builder, signature, values):
        kind = values[0].type
        called = builder.module.declare_intrinsic(f"llvm.{name}", [kind], ir.FunctionType(kind, [kind] * len(values)))
        return builder.call(called, values)
    return emit


def _unary(name):
    @intrinsic
    def instruction(typing, x):
        return x(x), _call(name)
    return instruction


absolute, root, down, up, toward_zero = (_unary(name) for name in ("fabs", "sqrt", "floor", "ceil", "trunc"))


@intrinsic
def with_sign(typing, x, sign):
    """|x| with the sign of `sign`"""
    return x(x, x), _call("copysign")


@intrinsic
def fused(typing, a, b, c):
    """a * b + c, rounded once (also where the machine has no such instruction: then it is slow)"""
    return a(a, a, a), _call("fma")
