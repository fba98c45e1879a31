"""CPU kernels of half precision: plain loops; the product converts as it reads."""
import numpy as np

from engine.kernels.half import bits
from engine.kernels.simd.parts import part
from engine.kernels.split import span

brief_of = part(bits.brief_of, forceinline=True)
half_of = part(bits.half_of, forceinline=True)
bits_of_half = part(bits.bits_of_half, forceinline=True)


@part
def to_half(x, brief, out, work, task, tasks):
    """out[i] = the half nearest to x[i]"""
    first, count = span(x.size, task, tasks)
    single = work[task]
    word = single.view(np.uint32)
    for k in range(first, first + count):
        single[0] = x[k]
        out[k] = brief_of(word[0]) if brief else half_of(word[0])


@part
def from_half(h, brief, out, task, tasks):
    """out[i] = the value of h[i]"""
    first, count = span(h.size, task, tasks)
    words = out.view(np.uint32)
    for k in range(first, first + count):
        half = np.uint32(h[k])
        words[k] = half << np.uint32(16) if brief else bits_of_half(half)


@part
def matmul_half(a, b, transpose_a, transpose_b, brief, c, work, task, tasks):
    """c = op(a) op(b), row by row"""
    first, count = span(c.shape[0], task, tasks)
    k, n = a.shape[0] if transpose_a else a.shape[1], c.shape[1]
    single = work[task]
    words = single.view(np.uint32)
    for i in range(first, first + count):
        for j in range(n):
            total = np.float32(0)
            for q in range(k):
                left = np.uint32(a[q, i] if transpose_a else a[i, q])
                right = np.uint32(b[j, q] if transpose_b else b[q, j])
                words[0] = left << np.uint32(16) if brief else bits_of_half(left)
                words[1] = right << np.uint32(16) if brief else bits_of_half(right)
                total += single[0] * single[1]
            c[i, j] = total
