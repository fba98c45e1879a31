"""Batches made in the background: one thread works ahead while a step runs (a plan releases Python's lock)."""
import contextlib
import queue
import threading

from engine.errors import DataError, EngineError

AHEAD = 2                                    # batches that wait, ready
PATIENCE = 10.0                              # seconds to wait for a source that is asked to stop


class Loader:
    """Batches of an iterator in its order, each one prepared, by one thread that is at most two of them ahead.

    batches    an iterator; only the thread uses it
    prepare    prepare(batch) -> what `take` gives; runs in the thread
    caller     for error messages

    take()     the next batch, or None after the last; an error of the source is raised here, with the batch's number
    close()    ends the thread; leaving a `with` block does so too
    """

    def __init__(self, batches, prepare, caller="fit"):
        self.caller, self.number = caller, 0
        self._ready, self._stop = queue.Queue(AHEAD), threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(batches, prepare), name="engine-loader", daemon=True)
        self._thread.start()

    def _fill(self, batches, prepare):
        try:
            for batch in batches:
                if not self._put((prepare(batch), None)):
                    return
            self._put((None, None))
        except BaseException as error:       # whatever it is, it is raised where the batch is asked for
            self._put((None, error))
        finally:
            if hasattr(batches, "close"):
                batches.close()

    def _put(self, item):
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=0.1)
                return True
        return False

    def take(self):
        batch, error = self._ready.get()
        if error is not None:
            self._raise(error)
        self.number += 1
        return batch

    def _raise(self, error):
        if isinstance(error, EngineError):
            raise self.named(error) from error
        if isinstance(error, Exception):
            raise DataError(f"{self.caller}: batch {self.number}: the data's source raised {type(error).__name__}: "
                            f"{error}") from error
        raise error

    def named(self, error, back=0):
        """The same error of the engine with the number of the batch that was asked for (or of one `back`)."""
        return type(error)(f"{self.caller}: batch {self.number - back}: {str(error).removeprefix(f'{self.caller}: ')}")

    def close(self):
        self._stop.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._ready.get_nowait()
        if self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
