"""PyTorch's files without PyTorch, and without running anything that stands in them.

A `.pt` file is a pickle, a program for a small stack machine that can import and call any Python function, and next to
it the tensors' bytes. `Machine` below is such a machine with only the instructions that state dicts are made of. It
imports nothing: the names that a file may call are the keys of a table in this file, and all that they can make is
dictionaries, and tensors as views of storages whose bounds are checked. Every other name and instruction is refused.

read(path) knows the zip format (since PyTorch 1.6), the format before it (one stream of pickles and storages, in which
torchvision published most weights), and safetensors.
"""
import math
import os
import struct
import zipfile
from typing import NamedTuple

import numpy as np

from engine.errors import FileError

LARGEST_PICKLE = 1 << 26                     # bytes: a state dict takes about 100 for a tensor
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
            "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
            "BoolStorage": "?"}
SAFETENSORS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bfloat16", "I64": "i8", "I32": "i4", "I16": "i2",
               "I8": "i1", "U8": "u1", "BOOL": "?"}
# What broken bytes can make the machine stumble over
STUMBLES = (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error, AttributeError, EOFError,
            RuntimeError)


def read(path):
    """What the file holds: dictionaries, lists, numbers, strings, and tensors as NumPy arrays (bfloat16 as float32).

    Errors: FileError for a file that is no such file, is cut short, or asks for anything but tensors.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"load_torch: no file {path!r}")
    with open(path, "rb") as file:
        start = file.read(512)
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        if start[257:262] == b"ustar":
            raise FileError(f"load_torch: {path!r} is a tar archive, PyTorch's format before version 0.1.10; load it "
                            f"with an old PyTorch and save its state_dict() again")
        if start[:2] == b"\x80\x02":
            return _read_legacy(path)
        if start[8:9] == b"{":
            return _read_safetensors(path)
    except (*STUMBLES, zipfile.BadZipFile) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"load_torch: {path!r} ({os.path.getsize(path)} bytes) is damaged: {type(error).__name__}: "
                        f"{error}; was its writing or copying cut short?") from None
    raise FileError(f"load_torch: {path!r} is neither a file of torch.save nor a safetensors file; it begins with "
                    f"{start[:8]!r}")


# ---------------------------------------------------------------------------------------------------- the three formats


def _read_zip(path):
    size = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        pickles = [n for n in archive.namelist() if n.endswith("data.pkl")]
        if len(pickles) != 1:
            raise FileError(f"load_torch: {path!r} is a zip archive, but not one of torch.save: it has {len(pickles)} "
                            f"files data.pkl (TorchScript archives and those of other programs cannot be read)")
        folder = pickles[0][:-len("data.pkl")]
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.namelist() else b"little"
        if order != b"little":
            raise FileError(f"load_torch: {path!r} was written on a machine of byte order {order[:16]!r}; expected "
                            f"little")

        def entry(name, largest):
            info = archive.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(size, largest):
                raise FileError(f"load_torch: {path!r}: {name} is compressed or larger than a file of torch.save has "
                                f"it ({info.file_size} bytes)")
            return archive.read(name)
        return Machine(entry(pickles[0], LARGEST_PICKLE), lambda key: entry(f"{folder}data/{key}", size)).run()


def _read_legacy(path):
    """Pickles of a number, a version, the writer's machine, the object and the storages' keys; then the storages."""
    with open(path, "rb") as file:
        data = file.read()
    machine = Machine(data, None)
    if machine.run() != LEGACY_MAGIC:
        raise FileError(f"load_torch: {path!r} is a pickle, but not one of torch.save; expected a file that "
                        f"torch.save(model.state_dict(), path) wrote")
    machine.run(), machine.run()
    made = machine.run()
    storages = machine.waiting
    for key in machine.run():
        (count,) = struct.unpack_from("<q", data, machine.at)
        storages[key].fill(memoryview(data)[machine.at + 8:machine.at + 8 + count * storages[key].itemsize])
        machine.at += 8 + count * storages[key].itemsize
    return _finished(made)


def _finished(made):
    """The object with each tensor that waited for its storage in place."""
    if isinstance(made, Later):
        return made.array()
    if isinstance(made, dict):
        return {k: _finished(v) for k, v in made.items()}
    return type(made)(_finished(v) for v in made) if isinstance(made, (list, tuple)) else made


def _read_safetensors(path):
    from safetensors import SafetensorError, deserialize
    with open(path, "rb") as file:
        data = file.read()
    try:
        found = deserialize(data)
    except SafetensorError as error:
        raise FileError(f"load_torch: {path!r} is not a whole safetensors file ({len(data)} bytes): {error}") from None
    tensors = {}
    for name, entry in found:
        if entry["dtype"] not in SAFETENSORS:
            raise FileError(f"load_torch: {path!r}: {name}: elements of {entry['dtype']} are not known here; known: "
                            f"{', '.join(SAFETENSORS)}")
        tensors[name] = numbers(entry["data"], SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def numbers(data, kind):
    """A flat read-only array of bytes of a kind; bfloat16, the upper half of a float32, becomes that."""
    if kind != "bfloat16":
        return np.frombuffer(data, np.dtype(kind).newbyteorder("<"))
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


# ------------------------------------------------------------------------------------------------------ what files make


class Storage:
    """Elements in a row, which several tensors may share."""

    def __init__(self, kind, count, data=None):
        self.kind, self.count = kind, count
        self.itemsize = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
        self.values = None
        if data is not None:
            self.fill(data)

    def fill(self, data):
        if len(data) < self.count * self.itemsize or self.count < 0:
            raise FileError(f"load_torch: a storage of {self.count} elements has only {len(data)} bytes in the file; "
                            f"was it cut short?")
        self.values = numbers(memoryview(data)[:self.count * self.itemsize], self.kind)


class Later(NamedTuple):
    """A tensor: a strided view of a storage, whose bytes may come later in the file."""
    storage: Storage
    offset: int
    shape: tuple
    strides: tuple

    def array(self):
        sizes, values = self.shape, self.storage.values
        whole = (self.offset, *sizes, *self.strides)
        if not all(type(v) is int and v >= 0 for v in whole) or len(sizes) != len(self.strides) or len(sizes) > 32:
            raise FileError(f"load_torch: a tensor of shape {sizes} and strides {self.strides} cannot be")
        last = self.offset + sum((n - 1) * s for n, s in zip(sizes, self.strides))
        if math.prod(sizes) == 0:
            return np.zeros(sizes, values.dtype)
        if last >= len(values):
            raise FileError(f"load_torch: a tensor of shape {sizes} reaches element {last} of a storage of "
                            f"{len(values)}")
        item = values.itemsize
        return np.lib.stride_tricks.as_strided(values[self.offset:], sizes, [s * item for s in self.strides],
                                               writeable=False)


class Name(NamedTuple):
    """A name that a file may use: what to call, or the kind of a storage."""
    name: str
    call: object


def _tensor(storage, offset, shape, strides, *rest):
    """torch._utils._rebuild_tensor_v2; what follows (whether gradients are wanted, and hooks) is left out."""
    if not isinstance(storage, Storage):
        raise FileError(f"load_torch: a tensor is made of {type(storage).__name__} instead of a storage")
    made = Later(storage, offset, tuple(shape), tuple(strides))
    return made if storage.values is None else made.array()


CALLS = {
    "collections.OrderedDict": lambda *pairs: dict(*pairs),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, wants_gradient, hooks: tensor,
    "torch.Size": lambda sizes=(): tuple(sizes),
}
HINTS = (("torch.nn", "the file holds a whole module, which is code; save only its numbers: "
          "torch.save(model.state_dict(), path)"),
         ("numpy", "the file holds NumPy objects beside the tensors; save the state_dict alone"),
         ("torch.", "the file holds a kind of tensor that is not known here; save float tensors"))


def named(module, name):
    """The Name of module.name, if a state dict may hold it."""
    full = f"{module}.{name}"
    if module == "torch" and name in STORAGES:
        return Name(full, None)
    if full not in CALLS:
        hint = next((h for start, h in HINTS if full.startswith(start)), "a state_dict needs nothing of the kind: the "
                    "file is something else, or was made to run code on the reader's machine")
        raise FileError(f"load_torch: refused: the file asks for {full}; {hint}")
    return Name(full, CALLS[full])


# --------------------------------------------------------------------------------------------------------- the machine


class Machine:
    """The stack machine of pickles of protocol 2 to 5, without whatever runs code.

    data      bytes with one or several pickles; `run` works through the next one and returns what it made
    storage   storage(key) -> bytes, or None when the storages follow the pickles (`waiting` then collects them)
    """

    def __init__(self, data, storage):
        self.data, self.at, self.storage = data, 0, storage
        self.waiting, self._known = {}, {}

    def run(self):
        self.stack, self.marks, self.memo = [], [], {}
        while True:
            code = self.take(1)
            if code == b".":
                (made,) = self.stack
                return made
            if code in SIMPLE:
                self.stack.append(SIMPLE[code]())
            elif code in FIXED:
                layout, then = FIXED[code]
                size = struct.calcsize(layout)
                then(self, struct.unpack(layout, self.take(size))[0])
            elif code in PLAIN:
                PLAIN[code](self)
            else:
                raise FileError(f"load_torch: refused: the file's pickle has the instruction {code!r} at byte "
                                f"{self.at - 1}, which no state dict of torch.save needs")

    def take(self, count):
        """The next bytes."""
        if count < 0 or self.at + count > len(self.data):
            raise FileError(f"load_torch: the file ends within its pickle at byte {len(self.data)}; was its writing or "
                            f"copying cut short?")
        self.at += count
        return bytes(self.data[self.at - count:self.at])

    def line(self):
        end = self.data.index(b"\n", self.at, self.at + 1000)
        return self.take(end + 1 - self.at)[:-1].decode("utf-8")

    def since_mark(self):
        """What was put on the stack since the last mark."""
        first = self.marks.pop()
        found, self.stack[first:] = self.stack[first:], []
        return found

    def global_(self):
        self.stack.append(named(self.line(), self.line()))

    def stack_global(self):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(named(module, name))

    def reduce(self):
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or function.call is None:
            raise FileError("load_torch: refused: the file's pickle calls what is no function of state dicts")
        self.stack.append(function.call(*arguments))

    def build(self):
        self.stack.pop()                     # attributes of the dictionary (`_metadata`): versions of modules
        if not isinstance(self.stack[-1], dict):
            raise FileError("load_torch: refused: the file's pickle sets attributes of what is no dictionary")

    def persistent(self):
        """("storage", kind, key, device, elements) stands for a storage."""
        word, kind, key, _, count = self.stack.pop()[:5]
        if word != "storage" or not isinstance(kind, Name) or kind.call is not None or type(count) is not int:
            raise FileError(f"load_torch: refused: the file's pickle refers to {word!r} outside it")
        if key not in self._known:
            data = None if self.storage is None else self.storage(str(key))
            self._known[key] = self.waiting[key] = Storage(STORAGES[kind.name.split(".")[1]], count, data)
        self.stack.append(self._known[key])

    def set_items(self, items):
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def remember(self, place):
        self.memo[place] = self.stack[-1]

    def text(self, size):
        self.stack.append(self.take(size).decode("utf-8"))

    def set_item(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def append(self, items):
        if not isinstance(self.stack[-1], list):
            raise FileError("load_torch: refused: the file's pickle appends to what is no list")
        self.stack[-1].extend(items)

    def tuple_of(self, count):
        first = len(self.stack) - count
        found, self.stack[first:] = tuple(self.stack[first:]), []
        self.stack.append(found)


def _push(machine, value):
    machine.stack.append(value)


SIMPLE = {b"}": dict, b"]": list, b")": tuple, b"N": lambda: None, b"\x88": lambda: True, b"\x89": lambda: False}
# an instruction with a number behind it: how that is written, and what is done with it
FIXED = {
    b"K": ("<B", _push), b"M": ("<H", _push), b"J": ("<i", _push), b"G": (">d", _push),
    b"\x8a": ("<B", lambda m, size: _push(m, int.from_bytes(m.take(size), "little", signed=True))),
    b"X": ("<I", Machine.text), b"\x8c": ("<B", Machine.text), b"\x8d": ("<Q", Machine.text),
    b"q": ("<B", Machine.remember), b"r": ("<I", Machine.remember),
    b"h": ("<B", lambda m, place: _push(m, m.memo[place])), b"j": ("<I", lambda m, place: _push(m, m.memo[place])),
    b"\x80": ("<B", lambda m, version: None), b"\x95": ("<Q", lambda m, size: None),
}
PLAIN = {
    b"(": lambda m: m.marks.append(len(m.stack)), b"\x94": lambda m: m.remember(len(m.memo)),
    b"c": Machine.global_, b"\x93": Machine.stack_global, b"R": Machine.reduce, b"b": Machine.build,
    b"Q": Machine.persistent, b"s": Machine.set_item, b"u": lambda m: m.set_items(m.since_mark()),
    b"a": lambda m: m.append([m.stack.pop()]), b"e": lambda m: m.append(m.since_mark()),
    b"t": lambda m: _push(m, tuple(m.since_mark())), b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2), b"\x87": lambda m: m.tuple_of(3),
}
