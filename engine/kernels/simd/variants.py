"""`by_rows`: one compiled variant of a function for each height of a tile; `next_panels` chooses among them."""
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernels.simd.host import HEIGHTS, ROWS
from engine.kernels.simd.parts import as_part, part
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


@part
def next_panels(rows):
    """(height, count): the next panels when so many rows remain. Heights are some of HEIGHTS, the tallest first."""
    if rows >= _FEW:
        return ROWS, (rows - _FEW) // ROWS + 1
    return _NEXT[rows], _TIMES[rows]


@intrinsic(prefer_literal=True)
def by_rows(typing, function, rows, first, last, arguments):
    """function(rows, *arguments) where the function sees `rows` as a literal: a switch over those HEIGHTS that are
    first .. last (literals); other heights do nothing."""
    if not (isinstance(first, types.IntegerLiteral) and isinstance(last, types.IntegerLiteral)):
        return None
    heights = [h for h in HEIGHTS if first.literal_value <= h <= last.literal_value]

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[4], len(arguments))
        after = builder.append_basic_block("rows.end")
        switch = builder.switch(args[1], after)
        for height in heights:
            with builder.goto_block(builder.append_basic_block(f"rows.{height}")):
                switch.add_case(I64(height), builder.block)
                variant = as_part(function.dispatcher).variant((types.literal(height), *arguments))
                context.active_code_library.add_linking_library(variant.library)
                context.call_internal(builder, variant.fndesc, variant.signature, [I64(height), *values])
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()
    return types.void(function, types.int64, first, last, arguments), codegen
