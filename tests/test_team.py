"""A team of threads works through a program: however late a member comes, each task is done once and in its turn."""
import numpy as np
import pytest
from numba import config, njit
from shares import run_unequal

from engine import target
from engine.kernels import TABLE, entry, team
from engine.kernels.op import Op, flat, same
from engine.kernels.program import Program, prepare
from engine.kernels.shares import most
from engine.kernels.simd import part
from engine.kernels.simd.region import on_threads
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
def leader_first(program, rounds, board, members, speeds):
    """As where a threading layer runs the members one after the other."""
    team._lead(program, rounds, board, members, speeds)
    for member in range(1, members):
        team._follow(program, board, member, members)


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


@pytest.mark.skipif(config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
@pytest.mark.parametrize("openmp", [True, False])
def test_threads_come_from_openmp_or_any_layer_of_numba(chain, monkeypatch, openmp):
    made, arrays = chain
    threads = entry._Threads()
    threads.set(2)
    threads._launch()
    if openmp and not (threads.layer() == "omp" and entry.find_openmp()):
        pytest.skip("no OpenMP with an entry point of this name")
    monkeypatch.setattr(entry, "find_openmp", lambda: openmp)
    threads.run(made._table, 300)
    runner, = threads._made
    assert runner.py_func is (team.run_on_openmp if openmp else team.run_parallel)
    np.testing.assert_array_equal(arrays, expected(300))


@njit
def numbers_of(count, numbers):
    on_threads(note_number, count, (numbers,))


@part
def note_number(number, numbers):
    numbers[number] += 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_number_of_a_region_comes_once(count):
    entry.threads._launch()
    if not (entry.threads.layer() == "omp" and entry.find_openmp()):
        pytest.skip("no OpenMP with an entry point of this name")
    numbers = np.zeros(5, np.int64)
    for _ in range(10):
        numbers_of(count, numbers)
    np.testing.assert_array_equal(numbers, [10] * count + [0] * (5 - count))


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_a_leader_whose_members_come_late_does_their_share(chain, members):
    made, arrays = chain
    board = np.zeros(members * team.ROW, np.int64)
    speeds = np.ones(members)
    leader_first(made._table, 3, board, members, speeds.ctypes.data)
    np.testing.assert_array_equal(arrays, expected(3))


@njit
def learned(board, members, grains, speeds, took):
    """The members' tasks, cut by the speeds, after a call that took them so long."""
    for member in range(members):
        board[member * team.ROW + team.SPEED] = int(team.real_at(speeds, member) * team.ONE)
    team._cut(board, members)
    for member in range(members):
        board[member * team.ROW + team.TOOK] = took[member]
    team._learn(board, members, grains, speeds)


@pytest.mark.parametrize("took", [[10 ** 7, 10 ** 7], [10 ** 7, 2 * 10 ** 7], [10 ** 9, 10 ** 3, 10 ** 6],
                                  [3, 5, 4, 4, 4, 4, 4, 10 ** 12]])
def test_shares_follow_speeds_and_none_is_twice_an_equal_one(took):
    members, speeds = len(took), np.ones(len(took))
    board = np.zeros(members * team.ROW, np.int64)
    for _ in range(20):
        learned(board, members, 1000, speeds.ctypes.data, np.array(took))
    spans = [span(1000, board[m * team.ROW + team.TASK], members) for m in range(members)]
    assert [first for first, _ in spans] == list(np.cumsum([0, *(count for _, count in spans)])[:-1])
    assert sum(count for _, count in spans) == 1000
    assert max(count for _, count in spans) <= most(1000, members) <= 2 * 1000 / members
    order = np.argsort(took, kind="stable")
    assert all(spans[a][1] >= spans[b][1] - 1 for a, b in zip(order, order[1:])), "the faster one has more"


def test_without_a_clock_shares_stay_equal():
    speeds, board = np.ones(3), np.zeros(3 * team.ROW, np.int64)
    learned(board, 3, 1000, speeds.ctypes.data, np.zeros(3, np.int64))
    np.testing.assert_array_equal(speeds, 1)


@pytest.mark.parametrize("shares", range(4))
def test_elementwise_ops_in_unequal_shares(shares):
    x = np.random.default_rng(0).standard_normal(200_001).astype(np.float32)
    y, made = np.full_like(x, np.nan), Program(target.cpu)
    call = made.add(TABLE["gelu"], [x], [y], {})
    call.arrangement = call.arrangement._replace(tasks=3)
    assert run_unequal(made, shares) == 1
    np.testing.assert_array_equal(y, TABLE["gelu"](x))


def test_a_program_of_single_tasks_needs_no_team(monkeypatch):
    monkeypatch.setattr(entry.threads, "_runners", {})
    x, made = np.zeros(7), Program(target.cpu)
    made.add(TABLE["exp"], [x], [x], {})
    made.run()
    assert x[0] == 1 and "parallel" not in entry.threads._runners
