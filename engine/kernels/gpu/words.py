"""The words that kernels use beyond numba's module. Each is an intrinsic on hardware (`intrinsics.py`) and plain Python
in the simulator (`simulated.py`).

| word | meaning |
|---|---|
| shared_array(size, dtype) | a shared array of one dimension on a 16-byte boundary |
| load1(x, at), store1(x, at, value) | one value at a flat place, without the test for a negative index |
| load4(x, at) | the four values from flat place `at` on (a multiple of 4), in 16-byte reads |
| store4(x, at, a, b, c, d) | writes four values likewise |
| is_aligned(x) | whether x begins on a 16-byte boundary, as load4 and store4 need it |
| shuffle_xor(value, distance) | the value of the lane whose number differs in the bit `distance` |
| warp_sum(value), warp_max(value) | over the lanes of a full warp, the same bits in each; warp_max passes over NaN |
| thread_anew(), block_anew(), block_z_anew() | threadIdx.x, blockIdx.x, blockIdx.z, read once more: what is
  computed from them again need not stay in registers meanwhile |
| bits_of(x), float_of(bits) | the 32 bits of a float32 as uint32, and back |
| copy_async(kept, at, x, place) | 16 bytes from global into shared memory, on their way until `copy_wait` |
| copy_commit(), copy_wait(n) | closes a group of copies; waits until all but the last n groups have arrived |
| ldmatrix(kept, at), ldmatrix_turned(kept, at) | four 8x8 matrices of halves, as they lie or transposed: lane i of
  each eight says where row i of its matrix begins |
| mma_float16(c0..c3, a0..a3, b0, b1), mma_bfloat16(...) | c + a b of 16x16 by 16x8 halves with float32 sums |

All lanes of a warp must reach shuffles, sums, ldmatrix and mma together. Fragments lie as the PTX manual says (mma.sync
m16n8k16).
"""
from engine import target


class Word:
    """Stands for a word until a kernel that names it is compiled."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"<word {self.name}>"

    def compiled(self):
        if target.cuda.simulated:
            from engine.kernels.gpu import simulated as words
        else:
            from engine.kernels.gpu import intrinsics as words
        return getattr(words, self.name)


load1, store1 = Word("load1"), Word("store1")
shared_array, load4, store4, is_aligned = Word("shared_array"), Word("load4"), Word("store4"), Word("is_aligned")
thread_anew, block_anew = Word("thread_anew"), Word("block_anew")
block_z_anew = Word("block_z_anew")
bits_of, float_of = Word("bits_of"), Word("float_of")
copy_async, copy_commit, copy_wait = Word("copy_async"), Word("copy_commit"), Word("copy_wait")
ldmatrix, ldmatrix_turned = Word("ldmatrix"), Word("ldmatrix_turned")
mma_float16, mma_bfloat16 = Word("mma_float16"), Word("mma_bfloat16")
shuffle_xor, warp_sum, warp_max = Word("shuffle_xor"), Word("warp_sum"), Word("warp_max")
