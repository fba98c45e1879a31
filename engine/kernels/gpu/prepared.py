"""Launches that are made again with the same arguments: what Numba makes of them is kept.

Numba turns every argument of every launch into words for the driver, some microseconds for each array. A plan launches
the same kernels on the same arrays in every step: the first time it notes the last call before the driver, with the
words that it got; from then on it makes that call alone.

    with recorded() as calls: launcher(x, y)             # runs, and notes
    for call in calls: call()                            # runs again
"""
import contextlib
import functools
import threading


class Notes:
    """A list in which this thread enters things for as long as somebody asks for it."""

    def __init__(self):
        self._of = threading.local()

    @contextlib.contextmanager
    def taken(self):
        """The list, of what is entered within the `with`."""
        before, self._of.thread = self.now, []
        try:
            yield self._of.thread
        finally:
            self._of.thread = before

    @property
    def now(self):
        """The list that is being kept, or None."""
        return getattr(self._of, "thread", None)


_calls = Notes()
recorded = _calls.taken                      # functions that launch again what this thread launches meanwhile


def note(call):
    """Enters a function that launches again what was just launched."""
    if _calls.now is not None:
        _calls.now.append(call)


@functools.cache
def last_step():
    """Puts a function that notes its arguments before Numba's last call before the driver, once.

    That is `driver.launch_kernel` of numba's built-in CUDA and `launch` of numba-cuda, both named in its dispatcher.
    """
    from numba.cuda import dispatcher
    holder, name = next((h, n) for h, n in ((dispatcher, "launch"), (dispatcher.driver, "launch_kernel"))
                        if hasattr(h, n))
    start = getattr(holder, name)
    start = getattr(start, "noting", start)              # never around itself: each launch is noted once

    @functools.wraps(start)
    def noted(*arguments, **options):
        note(functools.partial(start, *arguments, **options))
        return start(*arguments, **options)
    noted.noting = start
    setattr(holder, name, noted)


@functools.cache
def few_blocks_are_meant():
    """Numba's warning that a grid is small, one for each launch, is off: small work has few blocks on purpose."""
    from numba.cuda import dispatcher
    dispatcher.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
