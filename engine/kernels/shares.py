"""The shares of tasks on the CPU: equal, or as fast as each core is.

Cores of one machine are seldom equally fast: other work, another thread on the same core, cores of two kinds. Where an
op's tasks may share unequally (`Arrangement.grains`), the runner hands each its number and, above that, where its share
begins and ends; a task without these has an equal one. No share is twice an equal one or more.
"""
from engine.kernels.simd.parts import part

WHOLE = 1 << 15                              # what begins and ends are parts of


@part
def with_share(number, begin, end):
    """The task of this number whose share is what lies from begin to end, parts of WHOLE."""
    return number | begin << 16 | end << 32


@part
def number_of(task):
    """Which of a call's tasks it is, from 0 on, whatever its share."""
    return task & 0xFFFF


@part
def share_of(task):
    """(begin, end) of a task with a share; (0, 0) where it has none."""
    return task >> 16 & 0xFFFF, task >> 32


@part
def cut_at(size, place):
    """How many of `size` things lie before a share's begin or end."""
    return (size * place + WHOLE // 2) // WHOLE


@part(forceinline=True)
def span(size, task, tasks):
    """(first, count) of the share of one task in `size` things."""
    begin, end = share_of(task)
    if end > 0:
        first = max(0, cut_at(size, begin))
        return first, cut_at(size, end) - first
    first = max(0, size * task // tasks)
    return first, size * (task + 1) // tasks - first


@part
def place_of(task, m_tasks, n_tasks):
    """(row, column) of a task where m_tasks x n_tasks of them share both sides of something, each for `span`: where
    only one side is shared, the task's share of it may be unequal."""
    row, column = number_of(task) // n_tasks, number_of(task) % n_tasks
    if n_tasks == 1:
        row = task
    elif m_tasks == 1:
        column = task
    return row, column


def most(size, tasks):
    """How many of `size` things one of so many tasks has at most."""
    return max(1, size if tasks == 1 else min(size, -(-2 * size // (tasks + 1)) + 1))
