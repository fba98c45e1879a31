"""Halves from the bits of a float32 and back, in whole numbers: the same text for both targets.

All numbers are typed: in Numba a Python number next to a uint32 would make an int64.
"""
import numpy as np

U = np.uint32
SIGN, TOP, ONE, THIRTEEN, SIXTEEN = U(0x8000), U(0x7fffffff), U(1), U(13), U(16)
INFINITE, QUIET, BRIEF_QUIET = U(0x7f800000), U(0x7e00), U(0x40)
LARGEST, NORMAL, SMALLEST = U(0x477ff000), U(0x38800000), U(0x33000000)     # 65520, 2^-14, 2^-25 as float32
REBIAS, HIDDEN, FRACTION = U(0x38000000), U(0x800000), U(0x7fffff)


def brief_of(bits):
    """bfloat16 of the bits of a float32: rounded to nearest, ties to even."""
    if bits & TOP > INFINITE:
        return (bits >> SIXTEEN) | BRIEF_QUIET
    return (bits + U(0x7fff) + ((bits >> SIXTEEN) & ONE)) >> SIXTEEN


def half_of(bits):
    """float16 of the bits of a float32: rounded to nearest, ties to even."""
    sign, top = (bits >> SIXTEEN) & SIGN, bits & TOP
    if top > INFINITE:
        return sign | QUIET | ((top >> THIRTEEN) & U(0x1ff))
    if top >= LARGEST:
        return sign | U(0x7c00)
    if top <= SMALLEST:
        return sign
    value, shift = top - REBIAS, THIRTEEN
    if top < NORMAL:                         # a half without a hidden digit
        value, shift = (top & FRACTION) | HIDDEN, U(126) - (top >> U(23))
    return sign | ((value + ((ONE << (shift - ONE)) - ONE) + ((value >> shift) & ONE)) >> shift)


def bits_of_half(half):
    """The bits of the float32 that a float16 is."""
    sign, exponent, fraction = (half & SIGN) << SIXTEEN, (half >> U(10)) & U(31), half & U(0x3ff)
    if exponent == U(31):
        return sign | INFINITE | (fraction << THIRTEEN)
    if exponent:
        return sign | ((exponent + U(112)) << U(23)) | (fraction << THIRTEEN)
    if fraction == U(0):
        return sign
    exponent = U(113)
    while fraction & U(0x400) == U(0):       # shift the first digit to where it is not written
        fraction, exponent = fraction << ONE, exponent - ONE
    return sign | (exponent << U(23)) | ((fraction & U(0x3ff)) << THIRTEEN)
