"""Launching: `emulate(kernel)[grid, block](*arguments)` from arguments to an error or to filled arrays."""
import functools
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import typeof, types

from engine import target as targets
from engine.errors import EmulationError, TargetError
from engine.kernels import entry
from engine.kernels.emulator import cache, host
from engine.kernels.emulator import records as r
from engine.kernels.emulator.capture import capture
from engine.kernels.emulator.report import Buffer, Report
from engine.kernels.emulator.schedule import provide, runner
from engine.kernels.emulator.warp import tables

SERIAL_BELOW = 1024                          # threads of a launch that one worker runs alone
NO_BYTES = -1                                # of a range that is no array
_launching = threading.RLock()
_bounds = getattr(np.lib, "array_utils", np).byte_bounds


@functools.cache
def _tables():
    return tables()


@functools.cache
def _pool(count):
    return ThreadPoolExecutor(count, "emulator")


def _shift(size):
    """log2 of the largest power of two that divides an element's size."""
    return (size & -size).bit_length() - 1


class Worker:
    """One core's copy of a kernel's code, with shared memory, thread records and environment of its own."""

    def __init__(self, compiled):
        facts = compiled.facts
        self.engine = host.load(object_code=compiled.code)
        self.start = self.engine.get_function_address("emu_start")
        room = facts["static"] + (r.SHARED_LIMIT if facts["dynamic"] else 0) + 128
        self.shared = host.words_at(self.engine, "emu.shared", room, np.uint8) if facts["shared"] or facts[
            "dynamic"] else np.zeros(128, np.uint8)
        self.sizes = host.words_at(self.engine, "emu.sizes", 10, np.int32) if self._has("emu.sizes") else np.zeros(
            10, np.int32)
        self.slot = self.engine.get_global_value_address("emu.thread")
        self.environment = host.words_at(self.engine, "emu.environment", 1, np.int64) if self._has(
            "emu.environment") else np.zeros(1, np.int64)
        self.scratch = np.zeros(4096, np.uint8)
        self.tiles = np.zeros((3, 16, 16), np.float32)
        self.threads, self.block = None, None
        self.queues = np.zeros((0, r.Q_WORDS), np.int64)

    def _has(self, name):
        return self.engine.get_global_value_address(name) != 0

    def prepare(self, block, queued):
        """Thread records (and cp.async queues) for blocks of this shape."""
        if self.block != block:
            count = block[0] * block[1] * block[2]
            number = np.arange(count)
            self.threads, self.block = np.zeros(count, r.THREAD), block
            self.threads["index"] = np.stack([number % block[0], number // block[0] % block[1],
                                              number // (block[0] * block[1])], 1)
            self.threads["lane"] = number % r.WARP
            self.queues = np.zeros((count if queued else 0, r.Q_WORDS), np.int64)


class Launch:
    """One launch of a compiled kernel: its arguments as words, its grid, what the workers share."""

    def __init__(self, compiled, grid, block, dynamic, arguments):
        self.compiled, self.grid, self.block, self.dynamic = compiled, grid, block, dynamic
        self.words, self.buffers = [], []
        for name, value in zip(compiled.names, arguments):
            self._add(name, value)
        if len(self.words) != compiled.facts["words"]:
            raise EmulationError(f"kernel {compiled.name}: expected arrays, numbers and tuples of them as arguments, "
                                 f"got {', '.join(type(a).__name__ for a in arguments)}, which become "
                                 f"{len(self.words)} words where the kernel takes {compiled.facts['words']}")
        self.packed = np.array(self.words or [0], np.int64)
        self.kept = []                           # cells of global memory, alive until the launch ends

    def _add(self, name, value):
        if isinstance(value, targets.EmulatedArray):
            self._add_array(name, value.memory, 0)
        elif isinstance(value, np.ndarray):
            self._add_array(name, value, value.ctypes.data)      # a GPU's copy of it would start aligned
        elif isinstance(value, tuple):
            for part in value:
                self._add(name, part)
        else:
            given = np.asarray(value).tobytes()
            if len(given) > 8:
                self.words += [int(np.frombuffer(given[i:i + 8], np.int64)[0]) for i in range(0, len(given), 8)]
            else:
                self.words.append(int(np.frombuffer(given.ljust(8, b"\0"), np.int64)[0]))
            self.buffers += [None] * (len(self.words) - len(self.buffers))

    def _add_array(self, name, array, origin):
        address = array.ctypes.data
        low, size = (address, array.nbytes) if array.flags.c_contiguous else (
            (lambda ends: (ends[0], ends[1] - ends[0]))(_bounds(array)))
        self.words += [0, 0, array.size, array.itemsize, address, *array.shape, *array.strides]
        self.buffers += [None] * (len(self.words) - len(self.buffers))
        self.buffers[len(self.buffers) - 2 * array.ndim - 1] = Buffer(name, array, low, size, origin)

    def environment(self, worker, global_cells):
        """The worker's env words for this launch, and the states of shared memory it points to."""
        compiled, facts = self.compiled, self.compiled.facts
        shared = [tuple(a) for a in facts["shared"]]
        if facts["dynamic"]:
            name, offset, _, granule, alignment = facts["dynamic"]
            shared.append((name, offset, self.dynamic, granule, alignment))
        env = np.zeros(r.RANGES + r.RANGE_WORDS * (len(shared) + len(self.buffers)), np.int64)
        env[r.SELF], base = env.ctypes.data, worker.shared.ctypes.data
        env[r.SCRATCH], env[r.SHARED_BASE] = worker.scratch.ctypes.data, base
        env[r.CHECK], env[r.RACE] = compiled.check, compiled.race
        env[r.SHARED_ARRAYS], env[r.BUFFERS], env[r.QUEUE] = len(shared), len(self.buffers), worker.queues.ctypes.data
        shifts = [_shift(granule) for _, _, _, granule, _ in shared]
        counts = [(size >> shift) + 1 for (_, _, size, _, _), shift in zip(shared, shifts)]
        states = np.zeros(sum(counts) if compiled.check else 0, np.uint8)
        cells = np.zeros((sum(counts) if compiled.race else 0, r.SHARED_CELL), np.int32)
        done, at = 0, r.RANGES
        for (_, offset, size, _, alignment), shift, count in zip(shared, shifts, counts):
            env[at:at + r.RANGE_WORDS] = (
                base + offset, size, base + offset, alignment, shift,
                states.ctypes.data + done if compiled.check else 0,
                cells.ctypes.data + 4 * r.SHARED_CELL * done if compiled.race else 0)
            done, at = done + count, at + r.RANGE_WORDS
        for buffer, cell in zip(self.buffers, global_cells):
            env[at:at + r.RANGE_WORDS] = (0, NO_BYTES, 0, 0, 0, 0, 0) if buffer is None else (
                buffer.low, buffer.size, buffer.origin, 256, _shift(buffer.array.itemsize), 0, cell)
            at += r.RANGE_WORDS
        self.kept += [states, cells]
        return env, states

    def global_cells(self):
        """Addresses of the race cells of every argument word (0: none). Arrays over the same memory share cells only
        when they start together."""
        if not self.compiled.race:
            return [0] * len(self.buffers)
        made, addresses = {}, []
        for buffer in self.buffers:
            if buffer is None or not buffer.size:
                addresses.append(0)
                continue
            place = buffer.low, _shift(buffer.array.itemsize)
            if place not in made or len(made[place]) <= buffer.size >> place[1]:
                made[place] = np.zeros(((buffer.size >> place[1]) + 1, r.GLOBAL_CELL), np.int32)
            addresses.append(made[place].ctypes.data)
        self.kept += made.values()
        return addresses

    def run(self):
        compiled, facts = self.compiled, self.compiled.facts
        total = self.grid[0] * self.grid[1] * self.grid[2]
        count = min(total, entry.threads.get())
        if compiled.race or count == 1 or total * int(np.prod(self.block)) < SERIAL_BELOW:
            count = 1                            # races are found by the order of blocks
        control = np.array([0, total], np.int64)
        cells = self.global_cells()
        releases = np.zeros(total if compiled.race else 1, np.int32)
        jobs = []
        for worker in compiled.workers(count):
            worker.prepare(self.block, facts["asynchronous"])
            env, states = self.environment(worker, cells)
            env[r.RELEASES] = releases.ctypes.data
            worker.sizes[:] = (*self.block, *self.grid, 0, 0, 0, self.dynamic)
            worker.environment[0] = env.ctypes.data
            used = worker.shared[:facts["static"] + self.dynamic]
            jobs.append((worker, env, (
                worker.threads, worker.threads.ctypes.data, worker.sizes, control, control.ctypes.data, worker.start,
                self.packed.ctypes.data, worker.slot, used, states, worker.queues, env, _tables(), worker.tiles)))
        run_blocks = runner()
        others = [_pool(entry.config.NUMBA_NUM_THREADS).submit(run_blocks, *job) for _, _, job in jobs[1:]]
        failed = [run_blocks(*jobs[0][2]), *(f.result() for f in others)]
        found = [(block, job) for block, job in zip(failed, jobs) if block >= 0]
        if found:
            block, (worker, env, _) = min(found, key=lambda pair: pair[0])
            raise Report(compiled.name, facts, env, worker.threads, self.grid, block, self.buffers, self.dynamic,
                         compiled.check).error()


class Compiled:
    """A kernel for one signature and one kind of checking, from the disk or compiled now."""

    def __init__(self, function, names, arguments, options, check, race):
        self.name, self.names, self.check, self.race = function.__name__, names, check, race
        self.code, self.facts = self._load(function, arguments, options, check)
        for needed, wanted in (("emu_check", check), ("emu_async_copy", self.facts["asynchronous"]),
                               ("emu_async_commit", self.facts["asynchronous"]),
                               ("emu_async_wait", self.facts["asynchronous"])):
            if wanted:
                provide(needed)
        self._workers = []

    @staticmethod
    def _load(function, arguments, options, check):
        mark = cache.fingerprint(function, check)
        name = mark and cache.key("fingerprint", mark, arguments, sorted(options.items()), check)
        found = name and cache.read(name)
        if found:
            return found
        texts = capture(function, arguments, options, check)
        by_text = cache.key("text", *cache.stable(texts), check)
        made = cache.read(by_text)
        if made is None:
            made = host.build(texts, function.__name__, check)
            cache.write(by_text, *made)
        if name:
            cache.write(name, *made)
        return made

    def workers(self, count):
        while len(self._workers) < count:
            self._workers.append(Worker(self))
        return self._workers[:count]


class Emulated:
    """`[grid, block, stream, dynamic shared bytes](*arguments)` runs the kernel here, on the CPU."""

    def __init__(self, kernel, check=True, race=False):
        self.function = getattr(kernel, "py_func", kernel)
        if not inspect.isfunction(self.function):
            raise EmulationError(f"emulate: expected a function decorated with @cuda.jit, or a plain Python function, "
                                 f"got {type(kernel).__name__}")
        options = getattr(kernel, "targetoptions", {})
        if options.get("device"):
            raise EmulationError(f"emulate: {self.function.__name__} is a device function; give a kernel that calls it")
        if not targets.cuda_emulated.present():
            raise TargetError(f"emulate: {targets.cuda_emulated.reason()}")
        self.check, self.race = bool(check or race), bool(race)
        self.options = {"fastmath": True} if options.get("fastmath") else {}
        self.names = list(inspect.signature(self.function).parameters)
        self._compiled = {}

    def __repr__(self):
        return f"<emulated kernel {self.function.__name__}>"

    def __getitem__(self, configuration):
        if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
            raise EmulationError(f"kernel {self.function.__name__}: expected [grid, block], got [{configuration!r}]")
        grid, block = (self._sizes(c, what) for c, what in zip(configuration, ("grid", "block")))
        dynamic = int(configuration[3]) if len(configuration) > 3 else 0
        if block[0] * block[1] * block[2] > r.LARGEST_BLOCK or block[2] > 64:
            raise EmulationError(f"kernel {self.function.__name__}: expected at most {r.LARGEST_BLOCK} threads in a "
                                 f"block and at most 64 along z, got block {block}")
        if not 0 <= dynamic <= r.SHARED_LIMIT:
            raise EmulationError(f"kernel {self.function.__name__}: expected 0 to {r.SHARED_LIMIT} bytes of dynamic "
                                 f"shared memory, got {dynamic}")
        return functools.partial(self._launch, grid, block, dynamic)

    def _sizes(self, given, what):
        sizes = tuple(int(s) for s in given) if isinstance(given, (tuple, list)) else (int(given),)
        if not 1 <= len(sizes) <= 3 or min(sizes) < 1 or what == "grid" and max(sizes[1:], default=1) > 65535:
            raise EmulationError(f"kernel {self.function.__name__}: expected one to three sizes of at least 1 (at most "
                                 f"65535 along y and z) as {what}, got {given!r}")
        return (*sizes, 1, 1)[:3]

    def _launch(self, grid, block, dynamic, *arguments):
        with _launching:
            self._compile(arguments)
            Launch(self._compiled[self._key(arguments)], grid, block, dynamic, arguments).run()

    @staticmethod
    def _key(arguments):
        return tuple(_key_of(a) for a in arguments)

    def _compile(self, arguments):
        key = self._key(arguments)
        if key in self._compiled:
            return
        if len(arguments) != len(self.names):
            raise EmulationError(f"kernel {self.function.__name__}: expected {len(self.names)} arguments "
                                 f"({', '.join(self.names)}), got {len(arguments)}")
        kinds = tuple(_type_of(a, self.function.__name__, n) for a, n in zip(arguments, self.names))
        self._compiled[key] = Compiled(self.function, self.names, kinds, self.options, self.check, self.race)


def _key_of(value):
    if isinstance(value, targets.EmulatedArray):
        value = value.memory
    if isinstance(value, np.ndarray):
        flags = value.flags
        return value.dtype, value.ndim, flags.c_contiguous, flags.f_contiguous, flags.writeable
    if isinstance(value, tuple):
        return tuple(_key_of(part) for part in value)
    return type(value)


def _type_of(value, kernel, name):
    """The Numba type of an argument."""
    if isinstance(value, targets.EmulatedArray):
        value = value.memory
    if not isinstance(value, (np.ndarray, np.generic, int, float, bool, complex, tuple)):
        raise EmulationError(f"kernel {kernel}: argument {name}: expected a NumPy array, a number or a tuple of them, "
                             f"got {type(value).__name__}")
    try:
        kind = typeof(value)
    except ValueError as error:
        raise EmulationError(f"kernel {kernel}: argument {name}: {error}") from error
    if isinstance(kind, types.Array) and kind.layout == "F" and value.flags.c_contiguous:
        kind = kind.copy(layout="C")
    return kind
