"""From the host to a GPU while it computes: streams, and a conveyor that brings each step's inputs.

A **stream** is a queue of work; work of two streams is unordered but for events. A target with a GPU has two: `work`,
in which kernels run, and `copies`. A **conveyor** takes what the next step needs while the GPU is busy with this one:

    host       arrays -> page-locked memory, two turns: one is filled while the other is copied
    copies     page-locked memory -> staging memory on the GPU
    work       staging memory -> where the plan's kernels read it, between two steps

Three waits make it safe: page-locked memory is filled again only when the copy out of it has ended, staging memory is
overwritten only when it was handed on, and it is handed on only when all has arrived.
"""
import threading

import numpy as np


class AtOnce:
    """A stream whose work is done when it is asked for: where there is no GPU (simulator, emulator)."""
    handle = 0

    def __init__(self, copy):
        self._copy = copy

    def copy(self, destination, source):
        self._copy(destination, source)

    def record(self, event=None):
        """An event that has happened when all that was asked of the stream before is done."""
        return self

    def wait(self, event):
        """What is asked of the stream from now on happens after the event."""

    def synchronize(self):
        """Returns when the stream's work is done; an event's: when it has happened."""


class Stream:
    """A CUDA stream."""

    def __init__(self, module):
        self.module, self.handle = module, module.stream()

    def copy(self, destination, source):
        destination.copy_to_device(source, stream=self.handle)

    def record(self, event=None):
        event = event or self.module.event(timing=False)
        event.record(self.handle)
        return event

    def wait(self, event):
        event.wait(self.handle)

    def synchronize(self):
        self.handle.synchronize()


class Conveyor:
    """Brings arrays into `block`, a target's array of bytes; all of one `put` arrive together, between two steps.

    `put` returns as soon as the arrays may be changed again.
    """
    TURNS = 2

    def __init__(self, target, block):
        self.target, self.block, size = target, block, block.size
        self._staging = target.empty(size)
        self._locked = [target.page_locked(size) for _ in range(self.TURNS)]
        self._left, self._handed_on, self._turn = [None] * self.TURNS, None, 0
        self._lock = threading.Lock()

    def put(self, parts):
        """parts: [(first byte in the block, host array)]"""
        with self._lock:
            turn, self._turn = self._turn, (self._turn + 1) % self.TURNS
            if self._left[turn] is not None:
                self._left[turn].synchronize()
            locked, spans = self._locked[turn], []
            for first, array in sorted(parts, key=lambda part: part[0]):
                array = np.asarray(array, order="C")
                last = first + array.nbytes
                locked[first:last].view(array.dtype).reshape(array.shape)[...] = array
                self._join(spans, first, last)
            self._send(turn, spans)

    @staticmethod
    def _join(spans, first, last):
        """Adds bytes to send; padding between two arrays goes along, or each would be a copy of its own."""
        if spans and first - spans[-1][1] < 256:
            spans[-1] = spans[-1][0], last
        elif last > first:
            spans.append((first, last))

    def _send(self, turn, spans):
        work, copies = self.target.work, self.target.copies
        if self._handed_on is not None:
            copies.wait(self._handed_on)
        for first, last in spans:
            self.target.count("to", last - first)
            copies.copy(self._staging[first:last], self._locked[turn][first:last])
        self._left[turn] = copies.record(self._left[turn])
        work.wait(self._left[turn])
        for first, last in spans:
            work.copy(self.block[first:last], self._staging[first:last])
        self._handed_on = work.record(self._handed_on)
