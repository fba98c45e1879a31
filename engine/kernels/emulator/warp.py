"""Operations in which the lanes of a warp meet: shuffles, votes, matches, ldmatrix and mma. Compiled by Numba.

Each takes what the lanes gave and writes every lane's answer. The fragment layouts of mma and ldmatrix are those of the
PTX manual: group g = lane / 4, q = 2 (lane % 4); a register holds the neighbours (row g, columns q and q + 1).
"""
import numpy as np
from numba import njit

from engine.kernels.emulator.access import access, check, fail
from engine.kernels.emulator.records import *  # codes and places, all constants


def tables():
    """float32 of every f16 and of every bf16, by their 16 bits."""
    bits = np.arange(65536, dtype=np.uint32)
    with np.errstate(invalid="ignore"):
        half = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    return np.stack([half, (bits << 16).view(np.float32)])


@njit
def shuffle(threads, first, lanes, mask, mode):
    for lane in range(lanes):
        if mask >> lane & 1:
            given = threads[first + lane].given
            offset, clamp = given[1], given[2]
            segment, limit = clamp >> 8 & 31, clamp & 31
            low = lane & segment
            high = low | (limit & ~segment)
            if mode == 0:
                source = low | (offset & 31 & ~segment)
            elif mode == 1:
                source = lane - offset
            elif mode == 2:
                source = lane + offset
            else:
                source = lane ^ offset
            valid = source >= high if mode == 1 else source <= high
            if not valid or source >= lanes:
                source = lane
            threads[first + lane].answer[0] = threads[first + source].given[0]
            threads[first + lane].answer[1] = valid


@njit
def vote(threads, first, lanes, mask, mode):
    ballot = 0
    for lane in range(lanes):
        if mask >> lane & 1 and threads[first + lane].given[0]:
            ballot |= 1 << lane
    every, some = ballot == mask, ballot != 0
    for lane in range(lanes):
        if mask >> lane & 1:
            answer = threads[first + lane].answer
            answer[0] = ballot
            answer[1] = every if mode == 0 else some if mode == 1 else (every or not some)


@njit
def match(threads, first, lanes, mask, wants_all):
    for lane in range(lanes):
        if mask >> lane & 1:
            mine, same = threads[first + lane].given, 0
            for other in range(lanes):
                theirs = threads[first + other].given
                if mask >> other & 1 and theirs[0] == mine[0] and theirs[1] == mine[1]:
                    same |= 1 << other
            threads[first + lane].answer[0] = same if not wants_all or same == mask else 0
            threads[first + lane].answer[1] = same == mask


@njit
def mma(threads, first, kind, tables, tiles):
    """d = a b + c on 16 x k, k x 8 and 16 x 8 tiles; sums in float32, k ascending."""
    a, b, c = tiles[0], tiles[1], tiles[2]
    depth = 16 if kind < 2 else 4 if kind == 5 else 8
    for lane in range(WARP):
        words = threads[first + lane].given
        floats = words.view(np.float32)
        group, pair, place = lane >> 2, (lane & 3) * 2, lane & 3
        if kind >= 4:                                    # tf32: one value a register, its low 13 bits are ignored
            for register in range(4 if kind == 4 else 2):
                words[register] &= -8192
                a[group + 8 * (register & 1), place + 4 * (register >> 1)] = floats[register]
            for register in range(4, 6 if kind == 4 else 5):
                words[register] &= -8192
                b[place + 4 * (register - 4), group] = floats[register]
        else:
            values = tables[kind & 1]
            for half in range(2):
                for register in range(4 if kind < 2 else 2):
                    a[group + 8 * (register & 1), pair + 8 * (register >> 1) + half] = values[
                        words[register] >> 16 * half & 65535]
                for register in range(2 if kind < 2 else 1):
                    b[pair + 8 * register + half, group] = values[words[4 + register] >> 16 * half & 65535]
        c[group, pair], c[group, pair + 1] = floats[6], floats[7]
        c[group + 8, pair], c[group + 8, pair + 1] = floats[8], floats[9]
    for i in range(16):
        for k in range(depth):
            factor = a[i, k]
            for j in range(8):
                c[i, j] += factor * b[k, j]
    for lane in range(WARP):
        group, pair = lane >> 2, (lane & 3) * 2
        answer = threads[first + lane].answer.view(np.float32)
        answer[0], answer[1] = c[group, pair], c[group, pair + 1]
        answer[2], answer[3] = c[group + 8, pair], c[group + 8, pair + 1]


@njit
def ldmatrix(threads, first, power, transposed, shared, env):
    """Loads 1, 2 or 4 matrices of 8 x 8 16-bit values; lane 8 i + r gives the address of row r of matrix i."""
    halves = shared.view(np.uint16)
    for matrix in range(1 << power):
        for row in range(8):
            source = first + 8 * matrix + row
            address = env[SHARED_BASE] + ((np.int64(threads[source].given[0]) - env[SHARED_BASE]) & 0xffffffff)
            outside = address - env[SHARED_BASE] + 16 > shared.size
            if outside or env[CHECK] or address & 15:
                env[CURRENT], env[WARP_EPOCH] = source, threads[source].warp_epoch
                line = threads[source].place & 65535
                if outside:
                    fail(env, OUTSIDE_SHARED, address, 16, READ, ANY_SHARED, line)
                elif env[CHECK]:
                    check(address, access(16, READ, line), ANY_SHARED, env[SELF], 0, 0)
                else:
                    fail(env, MISALIGNED, address, 16, READ, ANY_SHARED, line)
                if env[ERROR]:
                    return
        for lane in range(WARP):
            word = np.int64(0)
            for half in range(2):
                row, column = lane >> 2, (lane & 3) * 2 + half
                if transposed:
                    row, column = column, row
                start = (np.int64(threads[first + 8 * matrix + row].given[0]) - env[SHARED_BASE]) & 0xffffffff
                word |= np.int64(halves[start // 2 + column]) << 16 * half
            threads[first + lane].answer[matrix] = word


@njit
def operate(threads, first, mask, operation, shared, env, tables, tiles):
    """The lanes of `mask` have all arrived at `operation`: every lane's answer."""
    lanes = min(WARP, len(threads) - first)
    if operation < VOTE:
        shuffle(threads, first, lanes, mask, operation - SHUFFLE)
    elif operation < SYNCWARP:
        vote(threads, first, lanes, mask, operation - VOTE)
    elif operation == SYNCWARP:
        for lane in range(lanes):
            if mask >> lane & 1:
                threads[first + lane].warp_epoch += 1
    elif operation <= MATCH_ALL:
        match(threads, first, lanes, mask, operation == MATCH_ALL)
    elif lanes < WARP:                                   # matrices need a whole warp
        env[ERROR] = STUCK
    elif operation >= MMA:
        mma(threads, first, operation - MMA, tables, tiles)
    else:
        ldmatrix(threads, first, (operation - LDMATRIX) >> 1, (operation - LDMATRIX) & 1, shared, env)
