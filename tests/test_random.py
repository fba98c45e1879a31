"""The counter-based generator against its published vectors, its distributions, and its independence of threads."""
import numpy as np
import pytest
from numba import njit

from engine import target as targets
from engine.errors import DtypeError, ShapeError
from engine.kernels import TABLE, random

TARGETS = [t for t in targets.TARGETS.values() if t.present()]
# philox 4x32-10 in the Random123 library's kat_vectors (Salmon et al. 2011): counter, key, words
VECTORS = (
    ((0x00000000, 0x00000000, 0x00000000, 0x00000000), (0x00000000, 0x00000000),
     (0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8)),
    ((0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff), (0xffffffff, 0xffffffff),
     (0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd)),
    ((0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344), (0xa4093822, 0x299f31d0),
     (0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1)),
)


@njit(error_model="numpy")
def compiled_words(a, b, c, d, k0, k1):
    return random.philox(a, b, c, d, k0, k1)


@pytest.mark.parametrize("counter, key, words", VECTORS)
def test_philox_gives_the_published_words(counter, key, words):
    numbers = [np.uint64(x) for x in (*counter, *key)]
    assert tuple(int(w) for w in random.philox_at(*numbers)) == words
    assert tuple(int(w) for w in compiled_words(*numbers)) == words


def test_the_counter_says_where_a_word_stands():
    """Value i is word i % 4 of block (i // 4, stream, step low, step high) under the key (seed low, seed high)."""
    seed, step, stream = 0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3
    words = random.words_reference(11, (seed, step), stream)
    for block in range(3):
        given = (block, stream, step & 0xffffffff, step >> 32, seed & 0xffffffff, seed >> 32)
        want = [int(w) for w in random.philox_at(*map(np.uint64, given))]
        assert [int(w) for w in words[4 * block:4 * block + 4]] == want[:11 - 4 * block]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_uniform_numbers_are_the_words(target):
    counter = np.array([123456789012345, 7])
    words = random.words_reference(1001, counter, 3)
    short = target.fetch(TABLE["uniform"](target.place(counter), shape=(1001,), stream=3))
    long = target.fetch(TABLE["uniform"](target.place(counter), shape=(1001,), stream=3, dtype="float64"))
    np.testing.assert_array_equal(short, (words >> np.uint64(8)).astype(np.float32) * np.float32(2.0 ** -24))
    np.testing.assert_array_equal(long, words * 2.0 ** -32)


def test_moments():
    counter, n = np.array([42, 0]), 400_000
    u = TABLE["uniform"](counter, shape=(n,), low=-1.0, high=3.0, dtype="float64")
    z = TABLE["normal"](counter, shape=(n,), mean=2.0, std=0.5, stream=1)
    assert u.min() >= -1 and u.max() < 3
    assert abs(u.mean() - 1) < 0.01 and abs(u.var() - 16 / 12) < 0.01
    z = (z.astype(np.float64) - 2) / 0.5
    assert abs(z.mean()) < 0.01 and abs(z.var() - 1) < 0.01
    assert abs((z ** 3).mean()) < 0.03 and abs((z ** 4).mean() - 3) < 0.06
    assert abs(np.mean(np.abs(z) > 1.959964) - 0.05) < 0.002
    assert abs(np.corrcoef(z[0::2], z[1::2])[0, 1]) < 0.01      # the two of a pair


def test_both_precisions_hold_the_same_numbers():
    counter = np.array([5, 9])
    for op in ("uniform", "normal"):
        short, long = (TABLE[op](counter, shape=(10_007,), dtype=d) for d in ("float32", "float64"))
        np.testing.assert_allclose(short, long, rtol=2e-6, atol=4e-6)


def test_seed_step_and_stream_give_other_numbers():
    draw = TABLE["uniform"]
    drawn = [draw(np.array(c), shape=(1000,), stream=s).tobytes() for c, s in (
        ((0, 0), 0), ((1, 0), 0), ((0, 1), 0), ((0, 0), 1), ((2 ** 32, 0), 0), ((0, 2 ** 32), 0))]
    assert len(set(drawn)) == len(drawn)
    assert draw(np.array([0, 0]), shape=(1000,)).tobytes() == drawn[0]


def test_dropout_drops_its_share_and_keeps_the_mean():
    x, counter = np.ones(100_003, np.float32), np.array([3, 4])
    for rate in (0.0, 0.1, 0.5, 0.9):
        y = TABLE["dropout"](x, counter, rate=rate)
        assert abs(np.mean(y == 0) - rate) < 0.005
        np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)
    both = [TABLE["dropout"](x.astype(d), counter, rate=0.3) == 0 for d in ("float32", "float64")]
    np.testing.assert_array_equal(*both)


def test_shuffled_is_a_permutation_that_never_changes():
    order = random.shuffled(1000, 5, 2)
    assert order.dtype == np.int64 and sorted(order) == list(range(1000))
    np.testing.assert_array_equal(order, random.shuffled(1000, 5, 2))
    assert (order != random.shuffled(1000, 5, 3)).any() and (order != random.shuffled(1000, 6, 2)).any()
    assert random.shuffled(8, 1, 0).tolist() == [0, 6, 2, 3, 4, 5, 1, 7]
    assert random.shuffled(0, 1, 0).shape == (0,) and random.shuffled(1, 1, 0).tolist() == [0]
    places = np.mean([random.shuffled(10, 7, epoch) for epoch in range(2000)], axis=0)
    np.testing.assert_allclose(places, 4.5, atol=0.35)


@pytest.mark.parametrize("call, error, words", [
    (lambda: TABLE["dropout"](np.ones(3), np.zeros(2, int), rate=1.0), ShapeError, "share of values"),
    (lambda: TABLE["dropout"](np.ones(3), np.zeros(2), rate=0.5), DtypeError, "the counter as int64"),
    (lambda: TABLE["dropout"](np.ones(3), np.zeros(3, int)), ShapeError, r"\[seed, step\]"),
    (lambda: TABLE["uniform"](np.zeros(2, int), shape=(2 ** 35,)), ShapeError, "2\\*\\*34"),
    (lambda: TABLE["uniform"](np.zeros(2, int), shape=(2,), dtype="int64"), ShapeError, "float32 or float64"),
    (lambda: TABLE["normal"](np.zeros(2, int), shape=(2,), stream=-1), ShapeError, "a stream from 0"),
])
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
