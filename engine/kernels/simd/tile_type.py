"""The Numba type of a register tile, and the few pieces of LLVM that its operations are put together from."""
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

from engine.kernels.simd.host import VECTOR_BYTES, VECTORS

I1, I32, I64, BYTE = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.IntType(8)
ELEMENTS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.uint64: I64}


class Tile(types.Type):
    """rows x (vectors * lanes) values held in vector registers; row-major, one LLVM vector for each register."""

    def __init__(self, rows, vectors, dtype):
        self.rows, self.vectors, self.dtype = rows, vectors, dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(f"Tile({rows}x{vectors}x{self.lanes},{dtype})")

    @property
    def vec(self):
        return ir.VectorType(ELEMENTS[self.dtype], self.lanes)

    @property
    def size(self):
        return self.rows * self.vectors * self.lanes

    def unpack(self, builder, value):
        """The vectors of a tile's LLVM value."""
        return [builder.extract_value(value, i) for i in range(self.rows * self.vectors)]

    def pack(self, builder, vectors):
        """The LLVM value of a tile made of these vectors."""
        value = ir.Constant(ir.ArrayType(self.vec, len(vectors)), ir.Undefined)
        for i, vector in enumerate(vectors):
            value = builder.insert_value(value, vector, i)
        return value

    def addresses(self, builder, pointer, ld):
        """LLVM pointers to the places of a row-major block, in order."""
        out = []
        for row in row_pointers(builder, pointer, ld, self.rows):
            out += [builder.bitcast(builder.gep(row, [I64(v * self.lanes)]), self.vec.as_pointer())
                    for v in range(self.vectors)]
        return out


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, tile):
        super().__init__(manager, tile, ir.ArrayType(tile.vec, tile.rows * tile.vectors))


def row_pointers(builder, pointer, ld, rows):
    """Pointers to pointer[i * ld], each three from one base. The base goes through an empty piece of assembly, which
    LLVM cannot look into: otherwise it makes one chain of additions of all rows, in a microkernel as slow as the
    multiply-adds, and spends much of its compile time on choosing that chain. Constant distances need none."""
    out, known = [], isinstance(ld, ir.Constant)
    for row in range(rows):
        if known:
            out.append(builder.gep(pointer, [I64(row * ld.constant)]))
            continue
        if row and row % 3 == 0:
            moved = builder.gep(pointer, [builder.mul(ld, I64(3))])
            pointer = builder.asm(ir.FunctionType(moved.type, [moved.type]), "", "=r,0", [moved], False)
        out.append(builder.gep(pointer, [builder.mul(ld, I64(row % 3))]))
    return out


def llvm(builder, name, returns, arguments):
    """Calls an LLVM intrinsic by its full name."""
    kind = ir.FunctionType(returns, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def splat(builder, scalar, lanes):
    """A vector with the scalar in every lane."""
    undef = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(undef, scalar, I32(0)), undef,
                                  ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def multiply_add(builder, tile, x, y, z):
    """x * y + z of vectors: fused where the processor has it (a library call otherwise: then two operations)."""
    if VECTORS.fma:
        return llvm(builder, f"llvm.fma.v{tile.lanes}f{tile.dtype.bitwidth}", tile.vec, [x, y, z])
    return builder.fadd(builder.fmul(x, y), z)


def edge_type(columns):
    """The type of an optional argument `columns`, given the type that the caller passes (None: not at all)."""
    if columns is None:
        return types.Omitted(None)
    return types.none if isinstance(columns, types.NoneType) else types.int64


def edge_masks(builder, tile, columns, value):
    """One <lanes x i1> for each vector of a row, true before column `value`; None where `columns` was not given."""
    if columns is None or isinstance(columns, types.NoneType):
        return [None] * tile.vectors
    limit = splat(builder, builder.trunc(value, I32), tile.lanes)
    return [builder.icmp_signed("<", ir.Constant(ir.VectorType(I32, tile.lanes), list(range(v, v + tile.lanes))), limit)
            for v in range(0, tile.vectors * tile.lanes, tile.lanes)]


def load(builder, tile, place, mask):
    """The vector at an LLVM address that need not be aligned; zeros where the mask is false."""
    size = tile.dtype.bitwidth // 8
    if mask is None:
        return builder.load(place, align=size)
    return llvm(builder, f"llvm.masked.load.v{tile.lanes}f{size * 8}.p0", tile.vec,
                [place, I32(size), mask, ir.Constant(tile.vec, None)])


def store(builder, tile, vector, place, mask):
    """Stores a vector at an LLVM address that need not be aligned; where the mask is false nothing is touched."""
    size = tile.dtype.bitwidth // 8
    if mask is None:
        builder.store(vector, place, align=size)
    else:
        llvm(builder, f"llvm.masked.store.v{tile.lanes}f{size * 8}.p0", ir.VoidType(), [vector, place, I32(size), mask])
