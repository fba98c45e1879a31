"""A region of threads by OpenMP's own entry point, which compilers call for `#pragma omp parallel`.

A region of numba's `prange` takes 1.5 us longer: it packs its arguments for any number of loops and divides a range.
The threads are the same, those of the library behind numba's own layer.
"""
import ctypes
import os

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.simd.parts import as_part
from engine.kernels.simd.tile_type import I32, I64

REGION, NUMBER = "engine_region", "engine_thread_number"     # their names in machine code
SYMBOLS = {REGION: "GOMP_parallel", NUMBER: "omp_get_thread_num"}
ANY = ir.IntType(8).as_pointer()


def find_openmp():
    """Makes the entry point known to machine code; False where numba's OpenMP has none by this name (GNU's and, on most
    systems, LLVM's have it). Before code with `on_threads` is loaded."""
    from numba.np.ufunc import omppool

    # As for numba's own calls, an OpenMP that another package has loaded for all comes before the one that this is
    # linked with: two of them would have threads of their own, bound to the same cores.
    for library in (None, omppool.__file__) if os.name == "posix" else (omppool.__file__,):
        loaded = ctypes.CDLL(library)
        if all(hasattr(loaded, name) for name in SYMBOLS.values()):
            for name, symbol in SYMBOLS.items():
                binding.add_symbol(name, ctypes.cast(getattr(loaded, symbol), ctypes.c_void_p).value)
            return True
    return False


@intrinsic
def on_threads(typing, function, count, arguments):
    """Calls function(number, *arguments) on up to `count` threads, whose numbers are 0, 1, ...; 0 is this thread.
    Returns when all have."""
    if not isinstance(arguments, types.BaseTuple):
        return None

    def codegen(context, builder, sig, args):
        made = as_part(function.dispatcher).variant((types.int64, *arguments), unrolled=False)
        context.active_code_library.add_linking_library(made.library)
        body = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [ANY]), f"thread.{made.fndesc.mangled_name}")
        body.linkage = "internal"
        inside = ir.IRBuilder(body.append_basic_block())
        number = inside.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), NUMBER), [])
        given = inside.load(inside.bitcast(body.args[0], args[2].type.as_pointer()))
        values = cgutils.unpack_tuple(inside, given, len(arguments))
        context.call_internal_no_propagate(inside, made.fndesc, made.signature, [inside.sext(number, I64), *values])
        inside.ret_void()
        kind = ir.FunctionType(ir.VoidType(), [body.type, ANY, I32, I32])
        place = builder.bitcast(cgutils.alloca_once_value(builder, args[2]), ANY)
        builder.call(cgutils.get_or_insert_function(builder.module, kind, REGION),
                     [body, place, builder.trunc(args[1], I32), I32(0)])
        return context.get_dummy_value()
    return types.void(function, types.int64, arguments), codegen
