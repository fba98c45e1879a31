"""The words for hardware: Numba intrinsics that write LLVM, for numba's built-in CUDA and for numba-cuda.

They are intrinsics, no device functions, so that a shared array's address space and a 16-byte access survive whatever
the compiler does or does not inline. Imported when the first kernel is compiled; see words.py for what they mean.
"""
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.cuda.extending import intrinsic

from engine import target

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
ALL_LANES = 0xffffffff


def address(context, builder, array_type, array, at=None):
    """A pointer to the element at a flat place of an array."""
    data = context.make_array(array_type)(context, builder, array).data
    if at is None:
        return data
    return builder.gep(data, [at if at.type.width == 64 else builder.sext(at, I64)])


@intrinsic
def shared_array(typing, size, dtype):
    if not isinstance(size, types.IntegerLiteral):       # Numba asks for the type of any integer, then for this one
        return None
    count, array = size.literal_value, types.Array(dtype.dtype, 1, "C")

    def codegen(context, builder, signature, arguments):
        item = context.get_data_type(array.dtype)
        held = ir.ArrayType(item, count)
        name = builder.module.get_unique_name("_shared")
        variable = cgutils.add_global_variable(builder.module, held, name, addrspace=3)
        variable.linkage, variable.align, variable.initializer = "internal", 16, ir.Constant(held, ir.Undefined)
        data = builder.bitcast(builder.addrspacecast(variable, ir.IntType(8).as_pointer()), item.as_pointer())
        width = I64(context.get_abi_sizeof(item))
        made = context.make_array(array)(context, builder)
        context.populate_array(made, data=data, shape=[I64(count)], strides=[width], itemsize=width, meminfo=None)
        return made._getvalue()
    return array(size, dtype), codegen


@intrinsic
def load1(typing, x, at):
    def codegen(context, builder, signature, arguments):
        return builder.load(address(context, builder, x, *arguments))
    return x.dtype(x, at), codegen


@intrinsic
def store1(typing, x, at, value):
    def codegen(context, builder, signature, arguments):
        array, place, number = arguments
        builder.store(number, address(context, builder, x, array, place))
        return context.get_dummy_value()
    return types.void(x, at, x.dtype), codegen


def _vectors(context, builder, array_type, array, at):
    """Pointers to the 16-byte vectors (two of float64) that hold the four values from a flat place on."""
    pointer = address(context, builder, array_type, array, at)
    lanes = min(4, 16 // context.get_abi_sizeof(pointer.type.pointee))
    kind = ir.VectorType(pointer.type.pointee, lanes).as_pointer()
    return lanes, [builder.bitcast(builder.gep(pointer, [I64(k)]), kind) for k in range(0, 4, lanes)]


@intrinsic
def load4(typing, x, at):
    def codegen(context, builder, signature, arguments):
        lanes, pointers = _vectors(context, builder, x, *arguments)
        values = []
        for pointer in pointers:
            vector = builder.load(pointer)
            vector.align = 16
            values += [builder.extract_element(vector, I32(k)) for k in range(lanes)]
        return context.make_tuple(builder, signature.return_type, values)
    return types.UniTuple(x.dtype, 4)(x, at), codegen


@intrinsic
def store4(typing, x, at, a, b, c, d):
    def codegen(context, builder, signature, arguments):
        array, place, *values = arguments
        lanes, pointers = _vectors(context, builder, x, array, place)
        for number, pointer in enumerate(pointers):
            vector = ir.Constant(pointer.type.pointee, ir.Undefined)
            for k in range(lanes):
                vector = builder.insert_element(vector, values[number * lanes + k], I32(k))
            builder.store(vector, pointer).align = 16
        return context.get_dummy_value()
    return types.void(x, at, *[x.dtype] * 4), codegen


@intrinsic
def is_aligned(typing, x):
    def codegen(context, builder, signature, arguments):
        low = builder.and_(builder.ptrtoint(address(context, builder, x, *arguments), I64), I64(15))
        return builder.icmp_unsigned("==", low, I64(0))
    return types.boolean(x), codegen


@intrinsic
def bits_of(typing, x):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], I32)
    return types.uint32(types.float32), codegen


@intrinsic
def float_of(typing, bits):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], F32)
    return types.float32(types.uint32), codegen


def _register(text):
    """A word that reads a special register anew: as an `asm` with effects it is never joined with an earlier read."""
    @intrinsic
    def read(typing):
        def codegen(context, builder, signature, arguments):
            kind = ir.FunctionType(I32, [])
            return builder.call(ir.InlineAsm(kind, f"mov.u32 $0, {text};", "=r", True), [])
        return types.int32(), codegen
    return read


thread_anew, block_anew, block_z_anew = _register("%tid.x"), _register("%ctaid.x"), _register("%ctaid.z")


# -------------------------------------------------------------------------------------------------------- tensor cores


def _ptx(builder, result, text, constraints, arguments, effects=True):
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(ir.InlineAsm(kind, text, constraints, effects), arguments)


def _shared(builder, pointer):
    """The 32-bit address of a pointer into shared memory, as PTX takes it."""
    return builder.ptrtoint(builder.addrspacecast(pointer, ir.PointerType(pointer.type.pointee, 3)), I32)


@intrinsic
def copy_async(typing, kept, at, x, place):
    def codegen(context, builder, signature, arguments):
        to = _shared(builder, address(context, builder, kept, arguments[0], arguments[1]))
        data = address(context, builder, x, arguments[2], arguments[3])
        source = builder.ptrtoint(builder.addrspacecast(data, ir.PointerType(data.type.pointee, 1)), I64)
        _ptx(builder, ir.VoidType(), "cp.async.cg.shared.global [$0], [$1], 16;", "r,l,~{memory}", [to, source])
        return context.get_dummy_value()
    return types.void(kept, at, x, place), codegen


@intrinsic
def copy_commit(typing):
    def codegen(context, builder, signature, arguments):
        _ptx(builder, ir.VoidType(), "cp.async.commit_group;", "~{memory}", [])
        return context.get_dummy_value()
    return types.void(), codegen


@intrinsic
def copy_wait(typing, groups):
    if not isinstance(groups, types.IntegerLiteral):
        return None
    text = f"cp.async.wait_group {groups.literal_value};"

    def codegen(context, builder, signature, arguments):
        _ptx(builder, ir.VoidType(), text, "~{memory}", [])
        return context.get_dummy_value()
    return types.void(groups), codegen


def _four_words(context, builder, signature, struct):
    words = [builder.extract_value(struct, k) for k in range(4)]
    return context.make_tuple(builder, signature.return_type, words)


def _ldmatrix(turn):
    text = f"ldmatrix.sync.aligned.m8n8.x4{turn}.shared.b16 {{$0,$1,$2,$3}}, [$4];"

    @intrinsic
    def ldmatrix(typing, kept, at):
        def codegen(context, builder, signature, arguments):
            place = _shared(builder, address(context, builder, kept, *arguments))
            found = _ptx(builder, ir.LiteralStructType([I32] * 4), text, "=r,=r,=r,=r,r,~{memory}", [place])
            return _four_words(context, builder, signature, found)
        return types.UniTuple(types.int32, 4)(kept, at), codegen
    return ldmatrix


ldmatrix, ldmatrix_turned = _ldmatrix(""), _ldmatrix(".trans")


def _mma(kind):
    text = (f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 "
            "{$0,$1,$2,$3},{$4,$5,$6,$7},{$8,$9},{$10,$11,$12,$13};")

    @intrinsic
    def mma(typing, c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):
        def codegen(context, builder, signature, arguments):
            found = _ptx(builder, ir.LiteralStructType([F32] * 4), text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
                         [*arguments[4:], *arguments[:4]], effects=False)
            return _four_words(context, builder, signature, found)
        return types.UniTuple(types.float32, 4)(*[types.float32] * 4, *[types.int32] * 6), codegen
    return mma


mma_float16, mma_bfloat16 = _mma("f16"), _mma("bf16")


# --------------------------------------------------------------------------------------------------------------- warps


def _device(function):
    return target.cuda.module.jit(device=True)(function)


cuda = target.cuda.module


@_device
def shuffle_xor(value, distance):
    return cuda.shfl_xor_sync(ALL_LANES, value, distance)


@_device
def warp_sum(value):
    # both partners add the same two numbers: every lane ends with the same bits
    value += cuda.shfl_xor_sync(ALL_LANES, value, 16)
    value += cuda.shfl_xor_sync(ALL_LANES, value, 8)
    value += cuda.shfl_xor_sync(ALL_LANES, value, 4)
    value += cuda.shfl_xor_sync(ALL_LANES, value, 2)
    return value + cuda.shfl_xor_sync(ALL_LANES, value, 1)


@_device
def warp_max(value):
    for bit in range(5):
        other = cuda.shfl_xor_sync(ALL_LANES, value, 16 >> bit)
        value = other if other > value or value != value else value
    return value
