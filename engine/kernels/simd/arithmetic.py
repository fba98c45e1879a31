"""Arithmetic on tiles: multiply-adds, operators, sums and maxima, transpose, and any scalar function on every value."""
import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from engine.kernels.simd.host import VECTOR_BYTES
from engine.kernels.simd.tile_type import (
    I32,
    I64,
    Tile,
    multiply_add,
    row_pointers,
    splat,
)


@intrinsic
def outer_fma(typing, acc, a, a_row, row):
    """acc[i, :] += a[i * a_row] * row[:], one step of a matrix product; `row` is a tile of one row."""
    def codegen(context, builder, sig, args):
        values, of_row = acc.unpack(builder, args[0]), row.unpack(builder, args[3])
        for i, place in enumerate(row_pointers(builder, args[1], args[2], acc.rows)):
            x = splat(builder, builder.load(place), acc.lanes)
            for v, y in enumerate(of_row, i * acc.vectors):
                values[v] = multiply_add(builder, acc, x, y, values[v])
        return acc.pack(builder, values)
    if row == Tile(1, acc.vectors, acc.dtype):
        return acc(acc, a, types.int64, row), codegen


@intrinsic
def tile_fma(typing, acc, x, y):
    """acc + x * y, value by value, of three tiles of one shape."""
    def codegen(context, builder, sig, args):
        z, x_, y_ = (acc.unpack(builder, a) for a in args)
        return acc.pack(builder, [multiply_add(builder, acc, *three) for three in zip(x_, y_, z, strict=True)])
    if x == acc and y == acc:
        return acc(acc, x, y), codegen


def _larger(builder, x, y):
    """x where it is larger or NaN, else y (so NaN wins on either side)."""
    keep_x = builder.or_(builder.fcmp_ordered(">", x, y), builder.fcmp_unordered("uno", x, x))
    return builder.select(keep_x, x, y)


def _by_vector(builder, tile, x, y, operation):
    """operation(builder, vector, vector) on two tiles of one shape, given and returned as LLVM values."""
    pairs = zip(tile.unpack(builder, x), tile.unpack(builder, y), strict=True)
    return tile.pack(builder, [operation(builder, *pair) for pair in pairs])


@intrinsic
def tile_max(typing, x, y):
    """The larger of two tiles, value by value; NaN where one of them is."""
    def codegen(context, builder, sig, args):
        return _by_vector(builder, x, *args, _larger)
    if isinstance(x, Tile) and x == y:
        return x(x, y), codegen


def _choice(condition):
    """A word choice(x, y, a, b) of four tiles of one shape: a where the condition holds for x and y, else b."""
    def definition(typing, x, y, a, b):
        def codegen(context, builder, sig, args):
            chosen = [builder.select(condition(builder, p, q), r, s)
                      for p, q, r, s in zip(*(x.unpack(builder, arg) for arg in args), strict=True)]
            return x.pack(builder, chosen)
        if isinstance(x, Tile) and x == y == a == b:
            return x(x, y, a, b), codegen
    return intrinsic(definition)


where_larger = _choice(lambda builder, x, y: builder.or_(builder.fcmp_ordered(">", x, y),
                                                         builder.fcmp_unordered("uno", x, x)))
where_larger.__doc__ = "a where x is larger than y, or NaN, else b: what `tile_max(x, y)` keeps of x."
where_equal = _choice(lambda builder, x, y: builder.fcmp_ordered("==", x, y))
where_equal.__doc__ = "a where x is y, else b."


class _SameShape(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 2 and isinstance(args[0], Tile) and args[0] == args[1]:
            return args[0](*args)


def _operator(symbol, operation):
    """x `symbol` y of two tiles of one shape."""
    infer_global(symbol)(type("_SameShape", (_SameShape,), {}))

    @lower_builtin(symbol, Tile, Tile)
    def on_tiles(context, builder, sig, args):
        return _by_vector(builder, sig.return_type, *args, operation)


_operator(operator.add, lambda builder, x, y: builder.fadd(x, y))
_operator(operator.sub, lambda builder, x, y: builder.fsub(x, y))
_operator(operator.mul, lambda builder, x, y: builder.fmul(x, y))
_operator(operator.truediv, lambda builder, x, y: builder.fdiv(x, y))


def _row_reduction(combine):
    """A tile whose every column holds the row's combined value. The order is that of a fixed tree: the vectors of a
    row first, then halves of a vector, so that the bits depend on the tile's shape only."""
    def definition(typing, acc):
        def codegen(context, builder, sig, args):
            values, out = acc.unpack(builder, args[0]), []
            for row in range(acc.rows):
                total = values[row * acc.vectors]
                for v in range(1, acc.vectors):
                    total = combine(builder, total, values[row * acc.vectors + v])
                half = acc.lanes // 2
                while half:
                    other = ir.Constant(ir.VectorType(I32, acc.lanes), [lane ^ half for lane in range(acc.lanes)])
                    total = combine(builder, total, builder.shuffle_vector(total, total, other))
                    half //= 2
                out += [total] * acc.vectors
            return acc.pack(builder, out)
        return acc(acc), codegen
    return intrinsic(definition)


row_sum = _row_reduction(lambda builder, x, y: builder.fadd(x, y))
row_sum.__doc__ = "A tile whose every column holds the sum of its row: `tile_store(row_sum(t), p, ld, 1)` keeps one."
row_max = _row_reduction(_larger)
row_max.__doc__ = "A tile whose every column holds the maximum of its row (NaN if there is one)."


@intrinsic
def column_sum(typing, acc):
    """A tile of one row: the sums of the columns, rows added in pairs, pairs of pairs and so on."""
    out = Tile(1, acc.vectors, acc.dtype)

    def codegen(context, builder, sig, args):
        values, sums = acc.unpack(builder, args[0]), []
        for v in range(acc.vectors):
            column = values[v::acc.vectors]
            while len(column) > 1:
                pairs = [builder.fadd(x, y) for x, y in zip(column[::2], column[1::2])]
                column = pairs + column[len(column) // 2 * 2:]
            sums += column
        return out.pack(builder, sums)
    return out(acc), codegen


@intrinsic
def transpose(typing, acc):
    """A square tile (`square_tile`) with rows and columns exchanged, by log2(lanes) rounds of interleaving."""
    def codegen(context, builder, sig, args):
        n, rows = acc.lanes, acc.unpack(builder, args[0])
        low, high = (ir.Constant(ir.VectorType(I32, n), [half * n // 2 + i // 2 + i % 2 * n for i in range(n)])
                     for half in (0, 1))
        for _ in range(n.bit_length() - 1):
            rows = [builder.shuffle_vector(x, y, mask)
                    for x, y in zip(rows[:n // 2], rows[n // 2:]) for mask in (low, high)]
        return acc.pack(builder, rows)
    if acc.vectors == 1 and acc.rows == acc.lanes:
        return acc(acc), codegen


def _map(context, builder, tile, function, arguments):
    """function(*values) for every place of the tiles: a loop over copies on the stack (they stay in L1), which LLVM
    inlines the function into and vectorises. The loop is a function of its own, shared by all tiles of the caller's
    module: a kernel has many variants of a tile, and the formula is the long part of their code."""
    scalar = types.float32 if tile.dtype == types.float32 else types.float64
    value = tile.vec.element
    result = function.dispatcher.get_compile_result(
        function.get_call_type(context.typing_context, (scalar,) * len(arguments), {}))
    context.active_code_library.add_linking_library(result.library)
    loop = _map_loop(context, builder.module, value, result, len(arguments))
    copies = []
    for argument in arguments:
        copy = cgutils.alloca_once(builder, argument.type)
        copy.align = VECTOR_BYTES
        builder.store(argument, copy)
        copies.append(builder.bitcast(copy, value.as_pointer()))
    builder.call(loop, copies + [I64(tile.size)])
    return builder.load(builder.bitcast(copies[0], ir.ArrayType(tile.vec, tile.rows * tile.vectors).as_pointer()))


def _map_loop(context, module, value, result, count):
    """void loop(x*, ..., n): x[i] = function(x[i], ...) for i < n."""
    name = f"map.{result.fndesc.mangled_name}"
    if name in module.globals:
        return module.globals[name]
    loop = ir.Function(module, ir.FunctionType(ir.VoidType(), [value.as_pointer()] * count + [I64]), name)
    loop.linkage = "internal"
    loop.attributes.add("noinline")
    for argument in loop.args[:count]:
        argument.add_attribute("noalias")
    builder = ir.IRBuilder(loop.append_basic_block())
    callee = context.declare_function(module, result.fndesc)
    with cgutils.for_range(builder, loop.args[count]) as places:
        pointers = [builder.gep(argument, [places.index]) for argument in loop.args[:count]]
        _, out = context.call_conv.call_function(builder, callee, result.signature.return_type, result.signature.args,
                                                 [builder.load(p) for p in pointers])
        out = context.cast(builder, out, result.signature.return_type,
                           types.float32 if isinstance(value, ir.FloatType) else types.float64)
        builder.store(out, pointers[0])
    builder.ret_void()
    return loop


@intrinsic
def tile_map(typing, acc, f):
    """f(x) of every value; f is an njit function of one number or a `Formula`."""
    f.get_call_type(typing, (acc.dtype,), {})

    def codegen(context, builder, sig, args):
        return _map(context, builder, acc, f, args[:1])
    return acc(acc, f), codegen


@intrinsic
def tile_map2(typing, acc, f, other):
    """f(x, y) of every two values of `acc` and `other`; f is an njit function of two numbers or a `Formula`."""
    f.get_call_type(typing, (acc.dtype, acc.dtype), {})

    def codegen(context, builder, sig, args):
        return _map(context, builder, acc, f, [args[0], args[2]])
    if other == acc:
        return acc(acc, f, other), codegen
