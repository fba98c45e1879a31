"""The sentence for an error that a worker recorded: kernel, block, thread, line, what happened to which element."""
import re

import numpy as np

from engine.errors import EmulationError
from engine.kernels.emulator import records as r

_KINDS = ("read", "write", "atomic")
_SIZES = {"float": 4, "double": 8, "half": 2, "ptr": 8}


class Buffer:
    """What an argument word points to: an array by its name."""

    def __init__(self, name, array, low, size, origin):
        self.name, self.array, self.low, self.size, self.origin = name, array, low, size, origin

    def element(self, address):
        """`out[3, 4]`: the element at an address, also one outside."""
        array, offset = self.array, address - self.low
        if not array.flags.c_contiguous or array.ndim == 0 or 0 in array.shape[1:]:
            return f"byte {offset} of {self.name}"
        place, index = offset // array.itemsize, []
        for size in reversed(array.shape[1:]):
            place, rest = divmod(place, size)
            index.insert(0, rest)
        return f"{self.name}[{', '.join(str(int(i)) for i in (place, *index))}]"

    @property
    def extent(self):
        shape = self.array.shape
        return f"array of {shape[0]}" if len(shape) == 1 else f"array of shape {shape}"


class Report:
    """One failed launch: `raise Report(...).error()`."""

    def __init__(self, name, facts, env, threads, grid, block, buffers, dynamic, checked):
        self.name, self.facts, self.env, self.threads, self.checked = name, facts, env, threads, checked
        self.grid, self.block, self.buffers = grid, block, buffers
        self.shared = [*facts["shared"]]
        if facts["dynamic"]:
            found = list(facts["dynamic"])
            found[2] = dynamic
            self.shared.append(found)

    def error(self):
        code, env = int(self.env[r.ERROR]), self.env
        if code in (r.DIVERGED, r.EXITED, r.STUCK):
            return EmulationError(f"kernel {self.name}, block {self._block(self.block)}: {self._waiting(code)}")
        line = f", line {env[r.LINE]}" if env[r.LINE] else ""
        where = f"kernel {self.name}, block {self._block(self.block)}, thread {self._thread(env[r.BY_THREAD])}{line}: "
        return EmulationError(where + self._what(code))

    def _what(self, code):
        env = self.env
        kind, size, address = _KINDS[env[r.KIND]], int(env[r.BYTES]), int(env[r.ADDRESS])
        if code == r.QUEUE_FULL:
            return (f"expected at most {r.Q_ENTRIES} cp.async copies under way in one thread, got more; is a "
                    f"cp.async.wait_group missing in the loop?")
        if code == r.OUTSIDE_PRIVATE:
            return self._outside_private(kind, size, address)
        element, extent, low, length = self._place(int(env[r.WHAT]), address)
        if code in (r.OUTSIDE, r.OUTSIDE_SHARED):
            if element is None:
                return f"{kind} of {size} bytes at {address:#x}, which lies in no array of this launch"
            past = address + size - (low + length)
            far = f"by {past} bytes" if past > 0 else f"by {low - address} bytes before its start"
            return f"{kind} of {element} outside {extent} (out of bounds {far})"
        return f"{kind} of {element} {self._trouble(code, size, address)}"

    def _trouble(self, code, size, address):
        env = self.env
        if code == r.MISALIGNED:
            what = int(env[r.WHAT])
            promised = self.shared[r.SHARED - what][4] if what <= r.SHARED else 0
            if promised and size > promised:
                return (f"as {size} bytes is misaligned: the shared array is declared with an alignment of {promised} "
                        f"bytes only, so a GPU may put it anywhere; declare it with alignment {size}")
            return f"as {size} bytes is misaligned: its address is no multiple of {size}"
        if code == r.UNINITIALISED:
            return ("before anything was written there in this block: shared memory starts with arbitrary values (is a "
                    "barrier missing after the write?)")
        if code == r.PENDING:
            return ("while a cp.async copy to it is under way: the thread that copies has to execute "
                    "cp.async.wait_group first, and the others a barrier after that")
        other = f"thread {self._thread(env[r.OTHER_THREAD])}"
        shared = int(env[r.WHAT]) <= r.SHARED
        if not shared and env[r.OTHER_BLOCK] != self.block:
            return (f"races with a {_KINDS[env[r.OTHER_KIND]]} by block {self._block(env[r.OTHER_BLOCK])}, {other}: "
                    f"blocks run in any order; use an atomic, or a fence and an atomic between the two")
        return f"races with a {_KINDS[env[r.OTHER_KIND]]} by {other}: no barrier between them"

    def _place(self, what, address):
        """(element, extent, first address, bytes) of an access; element None when it lies nowhere."""
        if what >= 0:
            buffer = self.buffers[what]
            if buffer is None:
                return None, None, 0, 0
            return buffer.element(address), buffer.extent, buffer.low, buffer.size
        if what == r.UNKNOWN or not self.shared:
            return None, None, 0, 0
        base, number = int(self.env[r.SHARED_BASE]), r.SHARED - what
        if what == r.ANY_SHARED or number >= len(self.shared):
            number = max((k for k, a in enumerate(self.shared) if a[1] <= address - base), default=0)
        name, offset, length, granule, _ = self.shared[number]
        return (f"{name}[{(address - base - offset) // granule}]",
                f"shared array of {length // granule} elements of {granule} bytes", base + offset, length)

    def _outside_private(self, kind, size, address):
        base, limit = int(self.env[r.OTHER_KIND]), int(self.env[r.OTHER_THREAD])
        name, type_text = self.facts["private"][r.PRIVATE - int(self.env[r.WHAT])]
        found = re.search(r"x (\w+)\]+$", type_text)
        item = found and (_SIZES.get(found.group(1)) or max(1, int(found.group(1).lstrip("i") or 8) // 8)) or 1
        past = address + size - (base + limit)
        far = f"by {past} bytes" if past > 0 else f"by {base - address} bytes before its start"
        if name == "constant array":             # Numba keeps its bytes only
            return f"{kind} of byte {address - base} of a constant array of {limit} bytes (out of bounds {far})"
        return (f"{kind} of {name}[{(address - base) // item}] outside local array of {limit // item} "
                f"(out of bounds {far})")

    # --------------------------------------------------------------------------------------------- who waits where

    def _block(self, number):
        number = int(number)
        return (number % self.grid[0], number // self.grid[0] % self.grid[1], number // self.grid[0] // self.grid[1])

    def _thread(self, number):
        return tuple(int(i) for i in self.threads["index"][int(number)])

    def _some(self, chosen):
        numbers = np.flatnonzero(chosen)
        named = ", ".join(str(self._thread(n)) for n in numbers[:3])
        return f"{len(numbers)} threads ({named}{', ...' if len(numbers) > 3 else ''})"

    def _waiting(self, code):
        threads, parts = self.threads, []
        waiting = threads[threads["status"] != r.DONE]
        for place, status in sorted({(int(t["place"]), int(t["status"])) for t in waiting}):
            chosen = (threads["place"] == place) & (threads["status"] == status)
            line = f" on line {place & 65535}" if place & 65535 else f" number {place >> 16}"
            name = "barrier" if status == r.AT_BARRIER else "warp operation"
            parts.append(f"{self._some(chosen)} wait at the {name}{line}")
        if (threads["status"] == r.DONE).any():
            parts.append(f"{self._some(threads['status'] == r.DONE)} have returned")
        what = "warp operation with lanes missing" if code == r.STUCK else "divergent barrier"
        hint = "" if self.checked else "; check=True gives the lines"
        return f"{what}: {'; '.join(parts)}. All threads of a {'mask' if code == r.STUCK else 'block'} have to " \
               f"reach it{hint}"
