"""Words of 64 bits that threads share: each is read, written and claimed whole, and what was done before a write is
seen by whoever reads it.

`where` is the place of the word in an array, counted through all its axes.
"""
import ctypes
import os

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.simd.host import CLOCK, PAUSE
from engine.kernels.simd.tile_type import I32, I64, llvm

YIELD = "engine_yield"                       # the operating system's: another thread may have this core
if os.name == "nt":
    _function = ctypes.windll.kernel32.SwitchToThread    # type: ignore[attr-defined]
else:
    _function = ctypes.CDLL(None).sched_yield
binding.add_symbol(YIELD, ctypes.cast(_function, ctypes.c_void_p).value)


def _word(context, builder, array, value, where):
    return builder.gep(context.make_array(array)(context, builder, value).data, [where])


@intrinsic
def shared_load(typing, array, where):
    """The word"""
    def codegen(context, builder, sig, args):
        return builder.load_atomic(_word(context, builder, array, *args), "acquire", 8)
    return types.int64(array, types.int64), codegen


@intrinsic
def shared_store(typing, array, where, value):
    """The word becomes `value`"""
    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], _word(context, builder, array, *args[:2]), "seq_cst", 8)
        return context.get_dummy_value()
    return types.void(array, types.int64, types.int64), codegen


def _real(builder, address, i):
    return builder.gep(builder.inttoptr(address, ir.DoubleType().as_pointer()), [i])


@intrinsic
def real_at(typing, address, i):
    """The float64 number i from an address on"""
    def codegen(context, builder, sig, args):
        return builder.load(_real(builder, *args))
    return types.float64(types.int64, types.int64), codegen


@intrinsic
def put_real_at(typing, address, i, value):
    """That number becomes `value`"""
    def codegen(context, builder, sig, args):
        builder.store(args[2], _real(builder, *args[:2]))
        return context.get_dummy_value()
    return types.void(types.int64, types.int64, types.float64), codegen


@intrinsic
def claimed(typing, array, where, before, value):
    """Whether the word was `before`, and now is `value`: of several threads that try, one succeeds"""
    def codegen(context, builder, sig, args):
        place = _word(context, builder, array, *args[:2])
        return builder.extract_value(builder.cmpxchg(place, args[2], args[3], "seq_cst", "seq_cst"), 1)
    return types.boolean(array, types.int64, types.int64, types.int64), codegen


@intrinsic
def rest(typing):
    """Some nanoseconds during which this thread wants nothing of its core"""
    def codegen(context, builder, sig, args):
        if PAUSE:
            llvm(builder, PAUSE[0], ir.VoidType(), [I32(x) for x in PAUSE[1]])
        return context.get_dummy_value()
    return types.void(), codegen


@intrinsic
def ticks(typing):
    """A clock's ticks, of the same length on all cores, some nanoseconds or less; always 0 where there is no clock"""
    def codegen(context, builder, sig, args):
        if CLOCK is None:
            return I64(0)
        if CLOCK.startswith("llvm."):
            return llvm(builder, CLOCK, I64, [])
        return builder.asm(ir.FunctionType(I64, []), CLOCK, "=r", [], True)
    return types.int64(), codegen


@intrinsic
def yield_core(typing):
    """Lets another thread have this core, if one waits for it"""
    def codegen(context, builder, sig, args):
        builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), YIELD), [])
        return context.get_dummy_value()
    return types.void(), codegen


@intrinsic
def use_threads(typing, count):
    """Numba's own setting, one for each Python thread: how many share a `prange`"""
    def codegen(context, builder, sig, args):
        function = ir.FunctionType(ir.VoidType(), [I32])
        builder.call(cgutils.get_or_insert_function(builder.module, function, "set_num_threads"),
                     [builder.trunc(args[0], I32)])
        return context.get_dummy_value()
    return types.void(types.int64), codegen
