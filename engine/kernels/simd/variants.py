"""`by_rows`: one compiled variant of a function for each height of a tile; `next_panels` chooses among them."""
import numpy as np
from numba import njit, types
from numba.core import cgutils, compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from engine.kernels.simd.host import HEIGHTS, ROWS
from engine.kernels.simd.tile_type import I64


def _panels(limit):
    """For rows = 0 .. limit - 1: the heights that add up to them in the least time, the tallest first."""
    best = [(0, ())]
    for rows in range(1, limit):
        options = [(best[rows - h][0] + max(h, 4) + 0.5, tuple(sorted((*best[rows - h][1], h), reverse=True)))
                   for h in HEIGHTS if h <= rows]
        best.append(min(options))
    return [heights for _, heights in best]


_FEW = 3 * ROWS                              # from here on, panels of ROWS rows lose nothing
_NEXT = np.array([heights[:1] or (1,) for heights in _panels(_FEW)])[:, 0]
_TIMES = np.array([heights.count(heights[0]) if heights else 0 for heights in _panels(_FEW)])


@njit(inline="always")
def next_panels(rows):
    """(height, count): the next panels when so many rows remain. Heights are some of HEIGHTS, the tallest first."""
    if rows >= _FEW:
        return ROWS, (rows - _FEW) // ROWS + 1
    return _NEXT[rows], _TIMES[rows]


@intrinsic(prefer_literal=True)
def by_rows(typing, function, rows, least, arguments):
    """function(rows, *arguments) where the function sees `rows` as a literal: a switch over the HEIGHTS from the
    literal `least` on; other heights do nothing."""
    if not isinstance(least, types.IntegerLiteral):
        return None
    heights = [h for h in HEIGHTS if h >= least.literal_value]

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[3], len(arguments))
        after = builder.append_basic_block("rows.end")
        switch = builder.switch(args[1], after)
        for height in heights:
            with builder.goto_block(builder.append_basic_block(f"rows.{height}")):
                switch.add_case(I64(height), builder.block)
                variant = types.void(types.literal(height), *arguments)
                _call(context, builder, function, variant, [I64(height), *values])
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()
    return types.void(function, types.int64, least, arguments), codegen


@global_compiler_lock
def _call(context, builder, function, signature, args):
    """Lowers the function into the caller's own module and calls it. A library of its own for each variant, which is
    what calling a dispatcher makes, would be optimised and compiled to machine code twice: alone and in the caller."""
    library = context.active_code_library
    flags = compiler.Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    result = compiler.compile_internal(context.typing_context, context, library, function.dispatcher.py_func,
                                       signature.args, signature.return_type, flags, {})
    lowered = library._final_module.get_function(result.fndesc.llvm_func_name)
    lowered.linkage = "linkonce_odr"
    lowered.add_function_attribute("noinline")
    lowered.add_function_attribute("optsize")
    context.call_internal(builder, result.fndesc, signature, args)
