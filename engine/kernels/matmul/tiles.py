"""How a product is computed on one thread: rectangles of C as panels x strips of register tiles.

`rectangle` takes `mc` rows of A at a time, few enough to stay in the L2 cache, and goes over B in groups of `ns`
strips. A strip is two vectors of columns wide, a panel of A some rows (`next_panels`) high. One panel times one strip
is a tile, whose sums stay in registers over `kc` steps of k. This is the blocking of Goto and van de Geijn, Anatomy of
High-Performance Matrix Multiplication (ACM TOMS 2008), with a much longer k block: an L2 cache of megabytes feeds both
operands fast enough, and C is seldom read again.

Operands are copied ("packed") only where that pays: A when many strips read it (turned, in registers, before), or when
it is transposed (a panel's first strip stores what it reads); B when it is transposed (in registers,
before), or large and used by many panels (the first panel of each strip stores what it reads). Sums run over k in
order, in one chain of multiply-adds for each value of C (in some chains for one row: `cpu.py`), so the bits do not
depend on blocking, packing, tasks or threads.

A's row may lie in `lines` stretches of kc values each, `a_line` apart (a convolution's taps in an image); mostly it is
one.

An operand is a tuple: a pointer, then distances in elements. `f` and `slope` are formulas or None.
"""
from engine.kernels.matmul.one_row import one_row
from engine.kernels.matmul.packing import copy_transposed, least, pack_panels, pack_transposed, panel_values
from engine.kernels.simd import (
    HEIGHTS,
    ROWS,
    by_rows,
    call_hook,
    hook,
    lanes_of,
    next_panels,
    outer_fma,
    part,
    prefetch,
    prefetch_to_write,
    tile,
    tile_load,
    tile_store,
    unit,
)

BEFORE, ON_THE_WAY = 1, 2                    # how B is packed (0: not at all)
ALONE, FIRST, LATER = 0, 1, 2                # of calls with the same B
WIDE = 8                                     # vectors of partial sums of a dot product, and of zeros to start from
TALL = max(h for h in HEIGHTS if h <= 8)     # a tile of one vector with fewer rows waits for its own additions
LOW = 4                                      # rows of a low panel: as fast as one of two
AHEAD, PACKED_AHEAD = 8, 64                  # rows of B asked for before they are used
A_AHEAD = 16                                 # the same of a transposed A
PIECES, PIECE, ASKED = 4, 32, 3              # of a sum of so many steps, and rows of C asked for before each piece
SPREAD = 96                                  # rows of A over which the request for the next strips of B is spread
SAME_SETS = 256                              # a row of C of a multiple of so many values: its panels meet in a cache
FEW = 2048                                   # k steps x strips up to which tiles ask for A's next panel, not for B
SHORT, SHORTEST, NEAR = 64, 16, 256          # k steps and k steps x strips: where C is asked for (`is_short`)


@part
def is_short(kc, strips):
    """Whether tiles ask the memory for the part of C behind the next panel rather than for B: sums so short that C
    comes and goes faster than a cache can follow by itself, and B lies in the nearest one."""
    return kc <= SHORTEST or (kc <= SHORT and kc * strips <= NEAR)


@part
def tiles(rows, vectors, strips, kc, cols, left, right, out, start, soon, then, copy, copy_strip):
    """A panel of `rows` rows of A times strips of B: c = start + a[:, :kc] @ b[:kc], one tile after the other.
    `cols`, if not None, is the number of columns in a narrow tile (a masked load takes a turn of the multiply-adds);
    `copy`, if not None, is where to pack B. What stands behind `is not None` of a None, Numba drops.

    Each step asks the memory for a row of B (`soon`), each piece of a sum for some rows of C, or of what comes to C in
    the end (`then`): all of them at once would hold up the loads of the steps behind."""
    a, a_row, a_col, lines, a_line = left    # distances from row to row, along k; stretches of k
    b, ldb, b_strip = right
    c, ldc = out
    ahead, ahead_row, ahead_strip = soon
    then, then_row, then_strip = then
    before, before_row, before_col = start
    width, pieces = vectors * lanes_of(c), lines
    if lines == 1 and kc >= PIECE:
        pieces = PIECES
    for s in range(strips):
        acc = tile_load(tile(rows, vectors, c), before, before_row, cols)
        for piece in range(pieces):
            at, first, steps = a + piece * a_line, piece * kc, kc
            if lines < pieces:
                first = kc * piece // pieces
                at, steps = a + first * a_col, kc * (piece + 1) // pieces - first
            prefetch(acc, then + piece * ASKED * then_row, then_row, ASKED)
            for k in range(steps):
                prefetch(acc, ahead + (first + k) * ahead_row, 0, 1)
                row = tile_load(tile(1, vectors, c), b + (first + k) * ldb, 0, cols)
                if copy is not None:
                    tile_store(row, copy + (s * copy_strip + (first + k) * width), 0)
                acc = outer_fma(acc, at + k * a_col, a_row, row)
        tile_store(acc, c, ldc, cols)
        b, c, before = b + b_strip, c + width, before + width * before_col
        ahead, then = ahead + ahead_strip, then + then_strip


@part(forceinline=True)
def near_step(acc, like, a, b, ahead, copy):
    """One step of k of `near_tiles`; a row of B is a tile like `like`."""
    prefetch(acc, ahead, 0, 1)
    if copy is not None:
        for r in range(0, ROWS, lanes_of(b)):
            tile_store(tile_load(tile(1, 1, b), a + r, 0, ROWS - r), copy + r, 0)
    return outer_fma(acc, a, 1, tile_load(like, b, 0))


@part
def near_tiles(rows, vectors, strips, kc, a, a_col, right, out, start, soon, wanted, copy):
    """As `tiles`, for ROWS rows of A that lie side by side. `copy`, if not None, is where this panel of a transposed A
    is copied to, what belongs to one k together; if it is None, `a` is such a copy. A step stores whole vectors, the
    next one its values over what was too much. `wanted`: see `blocks`. Two steps a turn: a processor that shares its
    core has no time for the loop's own instructions."""
    b, ldb, b_strip = right
    c, ldc = out
    ahead, ahead_row, ahead_strip = soon
    before, before_row, before_col = start
    wanted, wanted_row = wanted
    width, odd, to = vectors * lanes_of(c), kc % 2, copy
    if copy is None:
        a_col = ROWS                         # a constant: all addresses of a step are one register and numbers
    like = tile(1, vectors, c)
    for _ in range(strips):
        acc = tile_load(tile(rows, vectors, c), before, before_row)
        if wanted_row != 0:
            prefetch_to_write(acc, wanted, wanted_row, rows)
        elif kc > NEAR:                      # after shorter sums C has not left the caches near by
            prefetch(acc, c + width, ldc, rows)
        if odd:
            acc = near_step(acc, like, a, b, ahead, copy)
        for k in range(odd, kc, 2):
            if copy is not None:
                to = copy + k * ROWS
            acc = near_step(acc, like, a + k * a_col, b + k * ldb, ahead + k * ahead_row, to)
            if copy is not None:
                to = copy + (k + 1) * ROWS
            acc = near_step(acc, like, a + (k + 1) * a_col, b + (k + 1) * ldb, ahead + (k + 1) * ahead_row, to)
        tile_store(acc, c, ldc)
        b, c, before, ahead = b + b_strip, c + width, before + width * before_col, ahead + ahead_strip
        wanted += width


@part
def outer_rows(rows, columns, a, a_row, b, out, start):
    """c = start + a b for one step of k, which is hardly more than writing C: whole rows, as the memory likes them."""
    c, ldc = out
    before, before_row, before_col = start
    pair, width = tile(1, 2, c), 2 * lanes_of(c)
    whole = columns - columns % width
    for _ in range(rows):
        for j in range(0, whole, width):
            acc = tile_load(pair, before + j * before_col, 0)
            tile_store(outer_fma(acc, a, 0, tile_load(pair, b + j, 0)), c + j, 0)
        if whole < columns:
            acc = tile_load(pair, before + whole * before_col, 0, columns - whole)
            row = tile_load(pair, b + whole, 0, columns - whole)
            tile_store(outer_fma(acc, a, 0, row), c + whole, 0, columns - whole)
        a, c, before = a + a_row, c + ldc, before + before_row


@unit
def full_strips(rows, strips, kc, left, right, out, start, ahead, end, packed, packed_strip):
    """A block of A times full strips of B. With `packed_strip` > 0 the first panel packs B on its way, for the others;
    a single row reads B as it lies. `ahead`: how far behind a step's values of B lies what it asks the memory for; over
    how many rows of A this is spread (the next strips, for all panels of these), or 0: every panel asks for as much as
    it reads. `end`: see `ended`."""
    a, a_row, a_col, lines, a_line = left
    b, ldb, b_strip = right
    c, ldc = out
    before, before_row, before_col = start
    (far, spread), width, i = ahead, 2 * lanes_of(c), 0
    beside, beside_row, short = c, ldc, is_short(lines * kc, strips)
    if end[0] != 0:
        beside, beside_row = end[1], end[2]
    if short:
        announce(least(ROWS, rows), strips * width, beside, beside_row)
    # A's rows in one stretch, beside a B that stays near
    of_a = a_row == lines * kc and kc * strips <= FEW
    # of C, the next panel; where that falls on the same cache sets as this one, two tiles further
    coming = 2 * width if beside_row % SAME_SETS == 0 else ROWS * beside_row
    while i < rows:
        height, panels = next_panels(rows - i)
        back = steps_back(rows - i, i, LOW, before_row)
        if back > 0:
            a, i, height, panels = a + -back * a_row, i - back, LOW, 1
        for _ in range(panels):
            at, of, to = (a, a_row, a_col, lines, a_line), (b, ldb, b_strip), (c + i * ldc, ldc)
            since, soon = (before + i * before_row, before_row, before_col), (b + far, ldb, b_strip)
            if i < spread:
                soon = b + (far + least(i, spread - height) * kc // spread * ldb), ldb * height // spread, b_strip
            elif spread > 0:
                soon = b + PACKED_AHEAD * width, ldb, b_strip
            then = beside + (i * beside_row + coming), beside_row, width
            if of_a and (kc >= PIECE or not short):              # pieces ask for C
                share = (height + strips - 1) // strips
                soon = a + height * a_row, share, kc * share
            elif short:
                soon = then
            if i == 0 and packed_strip > 0:
                by_rows(tiles, height, ROWS, ROWS,
                        (2, strips, kc, None, at, of, to, since, soon, then, packed, packed_strip))
                b, ldb, b_strip, far = packed, width, packed_strip, PACKED_AHEAD * width
            elif height == 1 and b_strip == width:
                one_row(strips * width, kc, at, of, to[0], since)
            else:
                by_rows(tiles, height, 1, ROWS, (2, strips, kc, None, at, of, to, since, soon, then, None, 0))
            ended(end, height, strips * width, c + i * ldc, ldc, i)
            a += height * a_row
            i += height


@unit
def copied_strips(panels, strips, kc, a, a_col, right, out, start, ahead, end, wanted, copy, size, fresh):
    """Panels of ROWS rows of a transposed A times full strips of B. The panels' copies are `size` values apart; if
    `fresh`, the first strip makes them on its way: a load and a store among so many multiply-adds cost nothing. `end`:
    see `ended`; `wanted`: see `blocks`."""
    b, ldb, b_strip = right
    c, ldc = out
    before, before_row, before_col = start
    width, short = 2 * lanes_of(c), is_short(kc, strips)
    coming = 2 * width if ldc % SAME_SETS == 0 else ROWS * ldc
    for panel in range(panels):
        of, to, since, soon = right, (c, ldc), (before, before_row, before_col), (b + ahead, ldb, b_strip)
        beside = shifted(wanted, panel * ROWS, 0)
        if short:
            soon = c + coming, ldc, width
        if fresh:
            far = a + A_AHEAD * a_col, a_col, 0
            by_rows(near_tiles, ROWS, ROWS, ROWS, (2, 1, kc, a, a_col, of, to, since, far, beside, copy))
            beside = shifted(beside, 0, width)
            of, to, soon = (b + b_strip, ldb, b_strip), (c + width, ldc), (soon[0] + soon[2], soon[1], soon[2])
            since = before + width * before_col, before_row, before_col
        by_rows(near_tiles, ROWS, ROWS, ROWS,
                (2, strips - fresh, kc, copy, 0, of, to, since, soon, beside, None))
        ended(end, ROWS, strips * width, c, ldc, panel * ROWS)
        a, c, before, copy = a + ROWS, c + ROWS * ldc, before + ROWS * before_row, copy + size


@part
def block_strips(rows, strips, kc, left, right, out, start, ahead, end, wanted, packed, packed_strip, copy, size,
                 copied):
    """As `full_strips`; A's panels of ROWS rows, but a first one that packs B, are copied if `copied` is 1, or have
    been if it is 2."""
    a, a_row, a_col, lines, a_line = left
    c, ldc = out
    before, before_row, before_col = start
    done, width = 0, 2 * lanes_of(c)
    if copied and rows >= 2 * ROWS:
        if packed_strip > 0:
            full_strips(ROWS, strips, kc, left, right, out, start, (ahead, 0), end, packed, packed_strip)
            done, right, ahead, packed_strip = ROWS, (packed, width, packed_strip), PACKED_AHEAD * width, 0
        panels = rows // ROWS - done // ROWS
        copied_strips(panels, strips, kc, a + done, a_col, right, (c + done * ldc, ldc),
                      (before + done * before_row, before_row, before_col), ahead, moved(end, done, 0),
                      shifted(wanted, done, 0), copy, size, copied % 2)
        done += panels * ROWS
    if done < rows:
        full_strips(rows - done, strips, kc, (a + done * a_row, a_row, a_col, lines, a_line), right,
                    (c + done * ldc, ldc), (before + done * before_row, before_row, before_col), (ahead, 0),
                    moved(end, done, 0), packed, packed_strip)


@unit
def narrow_strip(rows, cols, kc, left, right, out, start, end):
    """A block of A times the last `cols` columns of B, less than a strip; low panels as single rows, to compile less.
    `end`: see `ended`."""
    a, a_row, a_col, lines, a_line = left
    c, ldc = out
    before, before_row, before_col = start
    soon, i, lanes = (right[0] + AHEAD * right[1], right[1], 0), 0, lanes_of(c)
    while i < rows:
        height, panels = next_panels(rows - i)
        back = steps_back(rows - i, i, TALL, before_row)
        if back > 0:
            a, i, height, panels = a + -back * a_row, i - back, TALL, 1
        for _ in range(panels):
            together = height if height >= TALL else 1
            for r in range(i, i + height, together):
                at, to = (a + (r - i) * a_row, a_row, a_col, lines, a_line), (c + r * ldc, ldc)
                since, then = (before + r * before_row, before_row, before_col), (c + (r + ROWS) * ldc, ldc, 0)
                if together == 1:
                    by_rows(tiles, 1, 1, 1, (2, 1, kc, cols, at, right, to, since, soon, then, None, 0))
                elif cols > lanes:
                    by_rows(tiles, height, TALL, ROWS, (2, 1, kc, cols, at, right, to, since, soon, then, None, 0))
                else:
                    by_rows(tiles, height, TALL, ROWS, (1, 1, kc, cols, at, right, to, since, soon, then, None, 0))
            ended(end, height, cols, c + i * ldc, ldc, i)
            a += height * a_row
            i += height


@part
def steps_back(left, i, low, before_row):
    """How many rows before i a panel of `low` rows begins that is the last one: fewer are left, and lower panels would
    wait for their own additions. Some rows are computed twice, with the same result. 0: enough are left, there are not
    so many before, or sums start from what C holds."""
    back = low - left
    return back if 0 < back <= i and before_row == 0 else 0


@part
def announce(rows, cols, c, ldc):
    """Asks for the cache lines of C that will be stored soon."""
    t, lanes = tile(1, 1, c), lanes_of(c)
    for i in range(rows):
        for j in range(0, cols, lanes):
            prefetch(t, c + (i * ldc + j), 0, 1)


@part
def finish(rows, cols, c, ld, y, y_row, f, slope):
    """f of a panel of C, or slope of it and y, while the panel is in the cache; what there is not of both is None."""
    for i in range(rows):
        line, other = c + i * ld, y + i * y_row
        for j in range(cols):
            if f is not None:
                line[j] = f(line[j])
            if slope is not None:
                line[j] = slope(line[j], other[j])


@part
def ended(end, rows, cols, c, ld, i):
    """Calls what a panel of C that has its sums is given to, rows i, i + 1, ... of a block. `end`: a hook of `finish`
    without its formulas, or 0; y of the block, and the distance of its rows."""
    done, y, y_row = end
    if done != 0:
        if cols == ld == y_row:              # in one go
            rows, cols = 1, rows * cols
        call_hook(done, (rows, cols, c, ld, y + i * y_row, y_row))


@part
def moved(end, i, j):
    """`end` of the block that begins at row i, column j of this one's."""
    return end[0], end[1] + (i * end[2] + j), end[2]


@part
def shifted(wanted, i, j):
    """`wanted` of the block that begins at row i, column j of this one's."""
    return wanted[0] + (i * wanted[1] + j), wanted[1]


@part
def rectangle(m, n, k, left, right, out, start, f, slope, work, kc, mc, ns, pack_a, pack_b):
    """c[:m, :n] = f(start + a[:m, :k] @ b[:k, :n]) or slope(that, y), on one thread."""
    c, ldc, y = out
    done = 0
    if f is not None:
        done = hook(finish, (m, n, c, ldc, y, ldc), f, None)
    if slope is not None:
        done = hook(finish, (m, n, c, ldc, y, ldc), None, slope)
    blocks(m, n, k, left, right, (c, ldc), start, (done, y, ldc), (c, 0), ALONE, work, kc, mc, ns, pack_a,
           pack_b)


@unit
def blocks(m, n, k, left, right, out, start, end, wanted, series, work, kc, mc, ns, pack_a, pack_b):
    """As `rectangle`; `end`: see `ended`. `wanted`: a matrix of C's shape that will be written next, and the distance
    of its rows (0: none); the memory is asked for it meanwhile, if A's panels are copied. `series`: whether this is the
    FIRST of several calls with the same B and work, or LATER, when the copies of B are there."""
    a, a_row, a_col = left
    b, b_row, b_col = right
    c, ldc = out
    if k == b_col == 1:
        outer_rows(m, n, a, a_row, b, out, start)
        ended(end, m, n, c, ldc, 0)
        return
    lanes = lanes_of(c)
    width = 2 * lanes
    full, k_blocks = n // width, ((k if k > 0 else 1) + kc - 1) // kc
    strips = full + (n % width > 0)
    b_size = kc * width                      # strips without a gap, which would spread them over few cache sets
    a_size = panel_values(kc, lanes) if pack_a else 0
    turns = pack_a and a_col == 1
    apart = a_size if full > ns or turns else 0                # copies that are read only once take turns
    keep = m > mc or series != ALONE         # B's packed strips are used again
    packed_a = work + ((k_blocks * strips if keep else ns) * b_size + lanes * width) * (pack_b > 0)
    for i in range(0, m, mc):
        rows, fresh = least(mc, m - i), i == 0 and series != LATER
        for q in range(k_blocks):
            p = q * kc
            steps, last = least(kc, k - p), q == k_blocks - 1
            closing, near = (end[0] if last else 0, end[1], end[2]), (wanted[0], wanted[1] if last else 0)
            at = (a + (i * a_row + p * a_col), a_row, a_col, 1, 0)
            if turns and rows >= 2 * ROWS:
                first = ROWS * (pack_b == ON_THE_WAY and fresh)
                pack_panels((rows - first) // ROWS, m - i - first, steps, at[0] + first * a_row, a_row, packed_a,
                            a_size)
            before, before_row, before_col = c + i * ldc, ldc, 1
            if q == 0:
                before, before_row, before_col = start[0] + i * start[1], start[1], start[2]
            for s in range(0, full, ns):
                j, count = s * width, least(ns, full - s)
                packed, packed_strip = work + (q * strips + s if keep else 0) * b_size, 0
                of, far = (b + (p * b_row + j), b_row, width), AHEAD * b_row
                if pack_b == ON_THE_WAY and fresh:
                    packed_strip = b_size
                elif pack_b:
                    of, far = (packed, width, b_size), PACKED_AHEAD * width
                    if fresh:
                        pack_transposed(count, steps, b + (p * b_row + j * b_col), b_col, packed, b_size)
                block_strips(rows, count, steps, at, of, (c + (i * ldc + j), ldc),
                             (before + j * before_col, before_row, before_col), far, moved(closing, i, j),
                             shifted(near, i, j), packed, packed_strip, packed_a, apart,
                             pack_a if s == 0 and not turns else 2 * pack_a)
            j = full * width
            if j < n:
                of = (b + (p * b_row + j), b_row, 0)
                if pack_b == BEFORE:
                    of = (work + (q * strips + full if keep else 0) * b_size, width, 0)
                    if fresh:
                        copy_transposed(steps, n - j, b + (p * b_row + j * b_col), b_col, of[0], width)
                narrow_strip(rows, n - j, steps, at, of, (c + (i * ldc + j), ldc),
                             (before + j * before_col, before_row, before_col), moved(closing, i, j))
