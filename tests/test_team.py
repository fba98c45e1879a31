"""A team of threads works through a program: however late a member comes, each task is done once and in its turn."""
import numpy as np
import pytest
from numba import config, njit

from engine import target
from engine.kernels import entry
from engine.kernels.op import Op, flat, same
from engine.kernels.program import Program, prepare
from engine.kernels.simd import part
from engine.kernels.split import span

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="programs are data where they are compiled")
CALLS, SIZE = 4, 1001


@part
def turned_cpu(x, y, task, tasks):
    """y[i] += x[-1 - i] + 1: a task needs what other tasks of the call before made, and shows if it is done twice"""
    first, count = span(x.size, task, tasks)
    for i in range(first, first + count):
        y[i] += x[x.size - 1 - i] + 1


TURNED = Op("turned", lambda x: x[::-1] + 1, lambda x: same((x,)), turned_cpu,
            arrange=lambda *given: flat(*given)._replace(tasks=3))


@njit
def leader_first(program, rounds, board, members):
    """As where a threading layer runs the members one after the other."""
    entry._lead(program, rounds, board, members)
    for member in range(1, members):
        entry._follow(program, board, member, members)


@pytest.fixture
def chain():
    """(a prepared program, its arrays)"""
    arrays, made = [np.zeros(SIZE) for _ in range(CALLS + 1)], Program(target.cpu)
    arrays[0][:] = np.arange(SIZE)
    for x, y in zip(arrays, arrays[1:]):
        made.add(TURNED, [x], [y], {})
    prepare(made)
    return made, arrays


def expected(rounds):
    arrays = [np.zeros(SIZE) for _ in range(CALLS + 1)]
    arrays[0][:] = np.arange(SIZE)
    for _ in range(rounds):
        for x, y in zip(arrays, arrays[1:]):
            y += x[::-1] + 1
    return arrays


@pytest.mark.parametrize("rounds", [0, 1, 300])
def test_each_task_is_done_once_and_in_its_turn(chain, rounds):
    made, arrays = chain
    made.run(rounds)
    np.testing.assert_array_equal(arrays, expected(rounds))


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_a_leader_whose_members_come_late_does_their_share(chain, members):
    made, arrays = chain
    board = np.zeros(members * entry.ROW, np.int64)
    leader_first(made._table, 3, board, members)
    np.testing.assert_array_equal(arrays, expected(3))
