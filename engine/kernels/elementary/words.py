"""The words in which the elementary functions are written: each is an instruction on a vector register, or a few.

None has a branch or a call, so a loop over what is written with them vectorises. They take float32 or float64 and have
a meaning inside compiled functions only.
"""
from llvmlite import binding, ir
from numba import float32, types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.simd.host import VECTORS

# a * b + c may become one fused multiply-add; nothing is reordered, NaN and infinity keep their meaning
FLAGS = ("contract",)
# x * 2**n is one instruction on vectors with AVX-512, and LLVM has known it since 22 (elsewhere it calls the C library)
SCALES = VECTORS.bytes == 64 and binding.llvm_version_info >= (22, 0, 0)


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
def counted(typing, t, from_):
    """(bits of t) - from_, an integer, as a number of t's dtype"""
    def emit(context, builder, signature, values):
        return builder.sitofp(_count(context, builder, t, values), values[0].type)
    return t(t, from_), emit


@intrinsic
def times_power_of_2(typing, x, t, from_):
    """x * 2**((bits of t) - from_), rounded once"""
    def emit(context, builder, signature, values):
        n = _count(context, builder, t, values[1:])
        name, kind = f"llvm.ldexp.f{t.bitwidth}.i{t.bitwidth}", values[0].type
        called = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, n.type]), name)
        return builder.call(called, [values[0], n])
    return x(x, t, from_), emit


def _count(context, builder, t, values):
    """(bits of t) - from_, as an integer as wide as t"""
    width = ir.IntType(t.bitwidth)
    from_ = builder.trunc(values[1], width) if values[1].type.width > t.bitwidth else values[1]
    return builder.sub(builder.bitcast(values[0], width), from_)


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
