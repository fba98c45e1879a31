"""The CUDA emulator: inline PTX. Tensor-core fragments, ldmatrix, cp.async and its waits, vector access, predicates."""
import numpy as np
import pytest
from numba import float32, int32, types

import engine
from engine import target as targets
from engine.errors import EmulationError, UnsupportedKernel

if not targets.cuda_emulated.present():
    pytest.skip(targets.cuda_emulated.reason(), allow_module_level=True)
cuda = targets.cuda.module

from llvmlite import ir  # noqa: E402
from numba.cuda.extending import intrinsic  # noqa: E402

from engine.kernels.emulator.records import MMA_KINDS  # noqa: E402

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
QUAD = ir.LiteralStructType([F32] * 4)


def asm(builder, result, arguments, text, constraints):
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(ir.InlineAsm(kind, text, constraints, True), arguments)


def statement(text):
    @intrinsic
    def made(tyctx):
        def codegen(context, builder, signature, arguments):
            asm(builder, ir.VoidType(), [], text, "~{memory}")
            return context.get_dummy_value()
        return types.void(), codegen
    return made


def unary(text, result, given, constraints):
    """An intrinsic of one argument over one PTX statement."""
    @intrinsic
    def made(tyctx, x):
        def codegen(context, builder, signature, arguments):
            return asm(builder, context.get_value_type(result), list(arguments), text, constraints)
        return result(given), codegen
    return made


def _element(context, builder, array_type, array, place):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [place if place.type.width == 64 else builder.sext(place, I64)])


def _shared_address(builder, pointer):
    return builder.ptrtoint(builder.addrspacecast(pointer, ir.PointerType(pointer.type.pointee, 3)), I32)


@intrinsic
def shared16(tyctx, count, dtype):
    """A shared array on a boundary of 16 bytes."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    length, array = count.literal_value, types.Array(dtype.dtype, 1, "C")

    def codegen(context, builder, signature, arguments):
        item = context.get_data_type(array.dtype)
        kind = ir.ArrayType(item, length)
        held = ir.GlobalVariable(builder.module, kind, builder.module.get_unique_name("tile"), addrspace=3)
        held.linkage, held.align, held.initializer = "internal", 16, ir.Constant(kind, ir.Undefined)
        data = builder.bitcast(builder.addrspacecast(held, ir.PointerType(kind)), item.as_pointer())
        size, number = ir.Constant(I64, context.get_abi_sizeof(item)), ir.Constant(I64, length)
        made = context.make_array(array)(context, builder)
        context.populate_array(made, data=data, shape=[number], strides=[size], itemsize=size, meminfo=None)
        return made._getvalue()
    return array(count, dtype), codegen


def mma_of(kind):
    @intrinsic
    def mma(tyctx, c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):
        signature = types.UniTuple(types.float32, 4)(*[types.float32] * 4, *[types.int32] * 6)

        def codegen(context, builder, signature, arguments):
            text = (f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 {{$0,$1,$2,$3}},{{$4,$5,$6,$7}},"
                    f"{{$8,$9}},{{$10,$11,$12,$13}};")
            given = list(arguments)
            made = asm(builder, QUAD, given[4:] + given[:4], text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f")
            parts = [builder.extract_value(made, i) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)
        return signature, codegen
    return mma


mma_f16, mma_bf16 = mma_of("f16"), mma_of("bf16")


def ldmatrix_of(suffix):
    @intrinsic
    def ldmatrix(tyctx, array, place):
        signature = types.UniTuple(types.int32, 4)(array, place)

        def codegen(context, builder, signature, arguments):
            pointer = _element(context, builder, signature.args[0], *arguments)
            made = asm(builder, ir.LiteralStructType([I32] * 4), [_shared_address(builder, pointer)],
                       f"ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{$0,$1,$2,$3}}, [$4];",
                       "=r,=r,=r,=r,r,~{memory}")
            parts = [builder.extract_value(made, i) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)
        return signature, codegen
    return ldmatrix


ldmatrix, ldmatrix_t = ldmatrix_of(""), ldmatrix_of(".trans")


def async_copy_of(text):
    @intrinsic
    def copy(tyctx, to, to_place, source, place, number):
        signature = types.void(to, to_place, source, place, types.int32)

        def codegen(context, builder, signature, arguments):
            target = _element(context, builder, signature.args[0], arguments[0], arguments[1])
            given = _element(context, builder, signature.args[2], arguments[2], arguments[3])
            given = builder.ptrtoint(builder.addrspacecast(given, ir.PointerType(given.type.pointee, 1)), I64)
            asm(builder, ir.VoidType(), [_shared_address(builder, target), given, arguments[4]], text,
                "r,l,r,~{memory}")
            return context.get_dummy_value()
        return signature, codegen
    return copy


copy16 = async_copy_of("cp.async.cg.shared.global [$0], [$1], 16, $2;")        # $2 bytes, then zeros
copy16_if = async_copy_of("{ .reg .pred p; setp.ne.b32 p, $2, 0; @p cp.async.cg.shared.global [$0], [$1], 16; }")
commit, wait_0, wait_1 = (statement(f"cp.async.{t};") for t in ("commit_group", "wait_group 0", "wait_group 1"))
wait_all = statement("cp.async.wait_all;")


@intrinsic
def load4(tyctx, array, place):
    signature = types.UniTuple(array.dtype, 4)(array, place)

    def codegen(context, builder, signature, arguments):
        pointer = _element(context, builder, signature.args[0], *arguments)
        value = builder.load(builder.bitcast(pointer, ir.VectorType(F32, 4).as_pointer()))
        value.align = 16
        parts = [builder.extract_element(value, ir.Constant(I32, i)) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)
    return signature, codegen


@pytest.fixture(params=["plain", "race"])
def emulate(request):
    def made(kernel):
        return engine.emulate(kernel, check=request.param == "race", race=request.param == "race")
    return made


def bits_of(x, kind):
    """float32 -> the 16 bits of f16 or bf16 as uint16, and the value they stand for."""
    if kind == "f16":
        return x.astype(np.float16).view(np.uint16), x.astype(np.float16).astype(np.float32)
    bits = x.astype(np.float32).view(np.uint32) >> 16
    return bits.astype(np.uint16), (bits << 16).astype(np.uint32).view(np.float32)


def product_kernel(mma):
    """C (16, 8) = A (16, 16) @ B (16, 8) by one warp: cp.async into shared memory, ldmatrix, one mma."""
    @cuda.jit
    def product(a, b, c):
        left = shared16(256, types.uint16)
        right = shared16(128, types.uint16)
        lane = cuda.threadIdx.x
        copy16(left, lane * 8, a, lane * 8, 16)
        if lane < 16:
            copy16(right, lane * 8, b, lane * 8, 16)
        commit()
        wait_0()
        cuda.syncthreads()
        f = ldmatrix(left, (lane & 15) * 16 + (lane >> 4) * 8)
        g = ldmatrix_t(right, (lane & 15) * 8)
        zero = float32(0)
        d = mma(zero, zero, zero, zero, f[0], f[1], f[2], f[3], g[0], g[1])
        row, column = lane >> 2, (lane & 3) * 2
        c[row, column], c[row, column + 1] = d[0], d[1]
        c[row + 8, column], c[row + 8, column + 1] = d[2], d[3]
    return product


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_tensor_cores(emulate, kind):
    rng = np.random.default_rng(1)
    a, left = bits_of(rng.standard_normal((16, 16)), kind)
    b, right = bits_of(rng.standard_normal((16, 8)), kind)
    c = np.zeros((16, 8), "f4")
    emulate(product_kernel(mma_f16 if kind == "f16" else mma_bf16))[1, 32](a.ravel(), b.ravel(), c)
    np.testing.assert_allclose(c, left @ right, rtol=1e-5, atol=1e-5)


def fragment_word(shape, kind):
    """An intrinsic: d = a b by one warp, whose lanes take their registers out of arrays of words."""
    depth = int(shape.split("k")[1])
    count_a = 16 * depth // 32 // (1 if kind == "tf32" else 2)
    numbers = [f"${k}" for k in range(4 + count_a + count_a // 2 + 4)]
    groups = [",".join(part) for part in (numbers[:4], numbers[4:4 + count_a], numbers[4 + count_a:-4], numbers[-4:])]
    text = (f"mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32 "
            + ", ".join(f"{{{group}}}" for group in groups) + ";")

    @intrinsic
    def mma(tyctx, a, b, lane):
        def codegen(context, builder, signature, arguments):
            given = []
            for kept, array, count in zip(signature.args, arguments, (count_a, count_a // 2)):
                first = builder.mul(builder.sext(arguments[2], I64), I64(count))
                given += [builder.load(_element(context, builder, kept, array, builder.add(first, I64(k))))
                          for k in range(count)]
            constraints = ",".join(["=f"] * 4 + ["r"] * len(given) + ["f"] * 4)
            made = asm(builder, QUAD, given + [F32(1)] * 4, text, constraints)
            parts = [builder.extract_value(made, i) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)
        return types.UniTuple(types.float32, 4)(a, b, types.int32), codegen
    return mma, count_a


def registers_of(values, kind, is_a):
    """The words of a fragment, (32, registers): row and column by lane as the PTX manual has them (m16n8k4 to k16)."""
    each = 1 if kind == "tf32" else 2
    count = values.size // 32 // each
    words = np.zeros((32, count), np.uint32)
    for lane in range(32):
        for register in range(count):
            for part in range(each):
                line = lane >> 2
                along = (lane & 3) * each + part
                if is_a:
                    line, along = line + 8 * (register & 1), along + 4 * each * (register >> 1)
                else:
                    along += 4 * each * register
                value = values[line, along] if is_a else values[along, line]
                bits = value.view(np.uint32) if kind == "tf32" else np.uint32(bits_of(value, kind)[0])
                words[lane, register] |= np.uint32(int(bits) << 16 * part)
    return words.view(np.int32)


@pytest.mark.parametrize("shape,kind", [k.split(".") for k in MMA_KINDS])
def test_tensor_cores_of_every_shape(shape, kind):
    rng, depth = np.random.default_rng(1), int(shape.split("k")[1])
    a, b = rng.standard_normal((16, depth)).astype("f4"), rng.standard_normal((depth, 8)).astype("f4")
    word, _ = fragment_word(shape, kind)

    @cuda.jit
    def kernel(left, right, c):
        lane = cuda.threadIdx.x
        c[lane, 0], c[lane, 1], c[lane, 2], c[lane, 3] = word(left, right, int32(lane))
    c = np.zeros((32, 4), "f4")
    engine.emulate(kernel)[1, 32](registers_of(a, kind, True).ravel(), registers_of(b, kind, False).ravel(), c)

    def rounded(x):
        return (x.view(np.uint32) & 0xffffe000).view("f4") if kind == "tf32" else bits_of(x, kind)[1]
    lane = np.arange(32)
    rows, columns = lane[:, None] // 4 + [0, 0, 8, 8], lane[:, None] % 4 * 2 + [0, 1, 0, 1]
    np.testing.assert_allclose(c, 1 + (rounded(a) @ rounded(b))[rows, columns], rtol=1e-5, atol=1e-5)


def pipeline(wait):
    """Two groups of copies under way; `wait` is what comes before the first is read."""
    @cuda.jit
    def kernel(a, out):
        held = shared16(256, types.float32)
        t = cuda.threadIdx.x
        held[4 * t] = 7
        copy16(held, 4 * t, a, 4 * t, 16)
        commit()
        copy16(held, 128 + 4 * t, a, 128 + 4 * t, 8)
        commit()
        wait()
        out[0, t] = held[4 * t]
        wait_all()
        out[1, t] = held[128 + 4 * t]
        out[2, t] = held[128 + 4 * t + 2]
    return kernel


def test_a_copy_is_seen_after_its_wait(emulate):
    a, out = np.arange(256, dtype="f4") + 1, np.zeros((3, 32), "f4")
    emulate(pipeline(wait_1))[1, 32](a, out)
    np.testing.assert_array_equal(out, [a[:128:4], a[128::4], np.zeros(32)])       # 8 bytes read, the rest zeros


def test_a_copy_is_not_seen_before_its_wait():
    nothing = statement("membar.gl;")
    a, out = np.arange(256, dtype="f4") + 1, np.zeros((3, 32), "f4")
    engine.emulate(pipeline(nothing), check=False)[1, 32](a, out)
    assert (out[0] == 7).all()                           # what was there before
    with pytest.raises(EmulationError, match=r"read of held\[0\] while a cp.async copy to it is under way"):
        engine.emulate(pipeline(nothing))[1, 32](a, out)


def test_a_wait_alone_does_not_order_threads():
    @cuda.jit
    def kernel(a, out):
        held = shared16(128, types.float32)
        t = cuda.threadIdx.x
        copy16(held, 4 * t, a, 4 * t, 16)
        wait_all()
        cuda.shfl_sync(0xffffffff, t, 0)                 # lanes meet, but this orders no memory
        out[t] = held[4 * (31 - t)]
    with pytest.raises(EmulationError, match="races with a write by thread"):
        engine.emulate(kernel, race=True)[1, 32](np.zeros(128, "f4"), np.zeros(32, "f4"))


def test_predicated_copy(emulate):
    @cuda.jit
    def kernel(a, out):
        held = shared16(128, types.float32)
        t = cuda.threadIdx.x
        for i in range(4):
            held[4 * t + i] = -1
        copy16_if(held, 4 * t, a, 4 * t, int32(t & 1))
        wait_all()
        out[t] = held[4 * t]
    a, out = np.arange(128, dtype="f4"), np.zeros(32, "f4")
    emulate(kernel)[1, 32](a, out)
    np.testing.assert_array_equal(out, np.where(np.arange(32) % 2, a[::4], -1))


def test_copies_that_nobody_waits_for():
    @cuda.jit
    def kernel(a):
        held = shared16(128, types.float32)
        for _ in range(300):
            copy16(held, 4 * cuda.threadIdx.x, a, 4 * cuda.threadIdx.x, 16)
            commit()
    with pytest.raises(EmulationError, match="expected at most 256 cp.async copies under way in one thread, got more; "
                                             "is a cp.async.wait_group missing in the loop"):
        engine.emulate(kernel)[1, 32](np.zeros(128, "f4"))


def vector_kernel(shift):
    @cuda.jit
    def kernel(a, out):
        t = cuda.threadIdx.x
        v = load4(a, 4 * t + shift)
        out[t] = v[0] + v[1] + v[2] + v[3]
    return kernel


def test_sixteen_byte_access(emulate):
    a, out = np.arange(128, dtype="f4"), np.zeros(32, "f4")
    emulate(vector_kernel(0))[1, 32](a, out)
    np.testing.assert_array_equal(out, a.reshape(32, 4).sum(1))


def test_misaligned_access():
    a, out = np.arange(256, dtype="f4"), np.zeros(32, "f4")
    with pytest.raises(EmulationError, match=r"read of a\[1\] as 16 bytes is misaligned: its address is no mult"):
        engine.emulate(vector_kernel(1))[1, 32](a, out)


def test_vector_access_to_a_shared_array_that_promises_four_bytes():
    @cuda.jit
    def kernel(a):
        held = cuda.shared.array(128, float32)
        t = cuda.threadIdx.x
        for i in range(4):
            held[4 * t + i] = a[t]
        a[t] = load4(held, 4 * t)[0]
    with pytest.raises(EmulationError, match=r"held\[0\] as 16 bytes is misaligned: the shared array is declared with "
                                             r"an alignment of 4 bytes only"):
        engine.emulate(kernel)[1, 32](np.zeros(32, "f4"))


def test_ldmatrix_outside_shared_memory():
    @cuda.jit
    def kernel(out):
        held = shared16(256, types.uint16)
        t = cuda.threadIdx.x
        for i in range(8):
            held[8 * t + i] = 1
        cuda.syncthreads()
        out[t] = ldmatrix(held, 8 * t + 64)[0]
    with pytest.raises(EmulationError, match=r"thread \(24, 0, 0\).*read of held\[256\] outside shared array of 256"):
        engine.emulate(kernel)[1, 32](np.zeros(32, np.int32))


APPROXIMATE = {"tanh": np.tanh, "ex2": np.exp2, "lg2": np.log2, "rcp": np.reciprocal, "rsqrt": lambda x: x ** -0.5,
               "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos}
HALVES = {"add": lambda x: x + x, "sub": lambda x: x - x, "mul": lambda x: x * x, "neg": np.negative, "abs": np.abs,
          "min": lambda x: x, "max": lambda x: x, "fma": lambda x: x * x + x}


def half_statement(name, kind):
    given = {"neg": "h", "abs": "h", "fma": "h, h, h"}.get(name, "h, h")
    return (f"{{ .reg .b16 h; cvt.rn.{kind}.f32 h, $1; {name}.{kind} h, {given}; cvt.f32.{kind} $0, h; }}")


def test_every_scalar_word_in_one_kernel():
    """Approximations, half arithmetic, conversions, predicates, loads and stores by their addresses, fences."""
    words = [unary(f"{name}.approx.f32 $0, $1;", types.float32, types.float32, "=f,f") for name in APPROXIMATE]
    words += [unary(half_statement(name, kind), types.float32, types.float32, "=f,f")
              for kind in ("f16", "bf16") for name in HALVES]
    words.append(unary("{ .reg .b32 t; cvt.rna.tf32.f32 t, $1; mov.b32 $0, t; }", types.float32, types.float32, "=f,f"))
    words.append(unary("{ .reg .b32 h; .reg .b16 l, u; cvt.rn.bf16x2.f32 h, $1, 0f3F800000; mov.b32 {l, u}, h; "
                       "cvt.f32.bf16 $0, u; }", types.float32, types.float32, "=f,f"))
    words.append(unary("{ .reg .pred p; setp.le.u32 p, $1, 0x40000000; selp.f32 $0, $1, 0f00000000, p; }",
                       types.float32, types.float32, "=f,f"))
    together = chained(words)
    lanes = unary("{ nanosleep.u32 $1; activemask.b32 $0; }", types.int32, types.int32, "=r,r")
    fence, barrier, warp = (statement(text) for text in ("fence.acq_rel.gpu;", "bar.sync 0;", "bar.warp.sync -1;"))

    @cuda.jit
    def kernel(a, out, active):
        i = cuda.threadIdx.x
        together(a[i], out, i)
        fence()
        barrier()
        warp()
        active[i] = lanes(20)
    a, out, active = np.linspace(0.1, 3, 32).astype("f4"), np.zeros((len(words), 32), "f4"), np.zeros(32, np.uint32)
    engine.emulate(kernel)[1, 32](a, out, active)
    want = [f(a) for f in APPROXIMATE.values()]
    want += [f(bits_of(a, kind)[1]) for kind in ("f16", "bf16") for f in HALVES.values()]
    want += [a, a, np.where(a.view(np.uint32) <= 0x40000000, a, 0)]
    np.testing.assert_allclose(out, want, rtol=2 ** -6, atol=1e-6)
    np.testing.assert_allclose(out[:len(APPROXIMATE)], want[:len(APPROXIMATE)], rtol=1e-5, atol=1e-6)
    assert (active == 0xffffffff).all()


def chained(words):
    """A device function that writes what each word makes of x, a row each."""
    first, *rest = words
    following = chained(rest) if rest else None
    row = -len(words)

    @cuda.jit(device=True)
    def write(x, out, i):
        out[out.shape[0] + row, i] = first(x)
        if following is not None:
            following(x, out, i)
    return write


def memory_word(text, given):
    """An intrinsic: a statement that reads or writes four values at an address."""
    @intrinsic
    def load(tyctx, array, place):
        def codegen(context, builder, signature, arguments):
            pointer = builder.ptrtoint(_element(context, builder, signature.args[0], *arguments), I64)
            made = asm(builder, QUAD, [pointer], text, "=f,=f,=f,=f,l")
            parts = [builder.extract_value(made, i) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)
        return types.UniTuple(types.float32, 4)(array, place), codegen

    @intrinsic
    def store(tyctx, array, place, a, b):
        def codegen(context, builder, signature, arguments):
            pointer = builder.ptrtoint(_element(context, builder, signature.args[0], *arguments[:2]), I64)
            asm(builder, ir.VoidType(), [pointer, *arguments[2:]], text, "l,f,f,~{memory}")
            return context.get_dummy_value()
        return types.void(array, place, types.float32, types.float32), codegen
    return load if given == "load" else store


def test_loads_and_stores_by_address(emulate):
    load = memory_word("ld.global.nc.L1::no_allocate.v4.f32 {$0, $1, $2, $3}, [$4];", "load")
    store = memory_word("st.global.cs.v2.f32 [$0 + 8], {$1, $2};", "store")

    @cuda.jit
    def kernel(a, out):
        t = cuda.threadIdx.x
        v = load(a, 4 * t)
        store(out, 4 * t, v[0] + v[1], v[2] + v[3])
    a, out = np.arange(128, dtype="f4"), np.zeros(128, "f4")
    emulate(kernel)[1, 32](a, out)
    np.testing.assert_array_equal(out.reshape(32, 2, 2)[:, 1], a.reshape(32, 2, 2).sum(2))


SCALARS = [
    ("tanh.approx.f32 $0, $1;", types.float32, types.float32, "=f,f", np.tanh),
    ("ex2.approx.ftz.f32 $0, $1;", types.float32, types.float32, "=f,f", np.exp2),
    ("rcp.approx.f32 $0, $1;", types.float32, types.float32, "=f,f", lambda x: 1 / x),
    ("{ .reg .b16 h; cvt.rn.f16.f32 h, $1; cvt.f32.f16 $0, h; }", types.float32, types.float32, "=f,f",
     lambda x: x.astype(np.float16).astype(np.float32)),
    ("{ .reg .b16 h; cvt.rn.bf16.f32 h, $1; mov.b32 $0, {0, h}; }", types.int32, types.float32, "=r,f", None),
    ("{ .reg .b32 h; cvt.rn.f16x2.f32 h, $1, $1; fma.rn.f16x2 $0, h, h, h; }", types.int32, types.float32, "=r,f",
     None),
    ("{ .reg .pred p; setp.gt.s32 p, $1, 3; selp.b32 $0, 10, $1, p; }", types.int32, types.int32, "=r,r",
     lambda x: np.where(x > 3, 10, x)),
    ("add.s32 $0, $1, 1; ", types.int32, types.int32, "=r,r", "unknown"),
]


@pytest.mark.parametrize("text,result,given,constraints,want", SCALARS, ids=lambda v: None)
def test_scalar_statements(text, result, given, constraints, want):
    word = unary(text, result, given, constraints)

    @cuda.jit
    def kernel(a, out):
        i = cuda.threadIdx.x
        out[i] = word(a[i])
    a = (np.linspace(0.1, 3, 32) if given == types.float32 else np.arange(32)).astype(str(given))
    out = np.zeros(32, str(result))
    if want == "unknown":
        with pytest.raises(UnsupportedKernel, match="does not know this inline PTX: 'add.s32 "):
            engine.emulate(kernel)[1, 32](a, out)
        return
    engine.emulate(kernel)[1, 32](a, out)
    if "bf16" in text:
        want, out = a, out.view(np.float32)
        np.testing.assert_allclose(out, want, rtol=2 ** -8)
    elif "f16x2" in text:
        half = a.astype(np.float16).astype(np.float32)
        want = np.stack([half * half + half] * 2, 1)
        np.testing.assert_allclose(out.view(np.float16).reshape(32, 2), want, rtol=1e-3)
    else:
        np.testing.assert_allclose(out, want(a), rtol=1e-6)
