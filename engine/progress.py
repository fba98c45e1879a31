"""What the engine says while it works: compiling, progress bars. Everything goes to standard error."""
import contextlib
import sys
import time
import warnings

from engine import settings


class _Compiling:
    """Announces the first compilation as it starts and says what it took when asked: no silent minutes."""

    def __init__(self):
        self.times = []                      # (name, seconds) of each kernel compiled for this process
        self.each = None                     # a function to be called with these as they come
        self._inside = []                    # for each span in progress: seconds of the compilations within it
        self._first = None                   # which of `times` is the first since the announcement
        self._seconds = 0.0

    def announce(self):
        """Says that compiling begins, once until `finish`."""
        if self._first is None:
            self._first = len(self.times)
            notice("compiling kernels for this machine (first use only, then cached on disk) ...")

    @contextlib.contextmanager
    def span(self):
        """Around whatever compiles; yields a function that gives its seconds without those of spans within."""
        self.announce()
        self._inside.append(0.0)
        started = time.perf_counter()
        try:
            yield lambda: time.perf_counter() - started - self._inside[-1]
        finally:
            seconds = time.perf_counter() - started
            self._inside.pop()
            if self._inside:
                self._inside[-1] += seconds
            else:
                self._seconds += seconds

    @contextlib.contextmanager
    def of(self, name):
        """Around the compilation of one kernel."""
        with self.span() as seconds:
            try:
                yield
            finally:
                self.note(name, seconds())

    def add(self, name, started):
        """Notes a kernel compiled since `started` (as of time.perf_counter) where no span could be put around it."""
        seconds = time.perf_counter() - started
        self.note(name, seconds)
        if not self._inside:
            self._seconds += seconds

    def note(self, name, seconds):
        """Enters a kernel that is compiled, here or by a process that worked for this one."""
        self.times.append((name, seconds))
        if self.each:
            self.each(name, seconds)

    def finish(self):
        """Ends one announcement; says how many kernels it was and how long they took."""
        if self._first is not None and len(self.times) > self._first:
            notice(f"compiled {len(self.times) - self._first} kernels in {self._seconds:.1f} s")
        self._first, self._seconds = None, 0.0


compiling = _Compiling()


def bar(total, title, verbose):
    """A tqdm progress bar (a silent one when `verbose` is 0)."""
    from tqdm import TqdmWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)     # a notebook without ipywidgets gets a bar of text
        from tqdm.auto import tqdm
    return tqdm(total=total, desc=title, leave=False, disable=not verbose, mininterval=0.2, dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {postfix}")


def notice(text):
    """Says something once that a person should know; `ENGINE_QUIET=1` silences it."""
    if not settings.quiet():
        print(f"engine: {text}", file=sys.stderr, flush=True)


def figures(title, named):
    """One line of figures on standard output."""
    print(f"{title}  " + "  ".join(f"{k} {v:.4f}" for k, v in named.items() if isinstance(v, float)), flush=True)


def show(text):
    """Text that a person asked for, on standard output."""
    print(text)
