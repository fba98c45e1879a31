"""Checks in a kernel's body: before every load, store and atomic a call that judges the access.

The judge (`access.py`) gets the address, the size, the kind of access, what the pointer is known to point into, and the
source line; it gives back the address to use, which is a scratch place when the access was wrong, so that nothing of
the host is touched. Where a pointer comes from is found by walking its definition back to an argument, a shared array,
a local array or a constant.
"""
import re

from engine.kernels.emulator import records as r

_POINTER = r'getelementptr[\w ]*\(.*?\)|[%@](?:"[^"]+"|[\w.$-]+)'
_OPERAND = r'%(?:"[^"]+"|[\w.$-]+)|@(?:"[^"]+"|[\w.$-]+)|getelementptr .*?\)'
_LOAD = re.compile(rf"\s+%\S+ = load (?:atomic )?(?:volatile )?(.+?), ptr ({_OPERAND}),")
_EXPRESSION = r"getelementptr [\w ]*\([^()]*(?:\([^()]*\)[^()]*)*\)"
_STORE = re.compile(rf"\s+store (?:atomic )?(?:volatile )?(.+?), ptr ({_EXPRESSION}|{_OPERAND})(?: [\w() -]+)?"
                    r"(?:, align \d+)?(?:, ![^()]*)?$")      # to the line's end: a stored constant may hold pointers
_ATOMIC = re.compile(rf"\s+%\S+ = (?:atomicrmw|cmpxchg) (?:weak )?(?:volatile )?(?:\w+ )?ptr ({_OPERAND}), (\w+) ")
_DEFINITION = re.compile(r'\s+(%(?:"[^"]+"|[\w.$-]+)) = (.*)')


def memory_access(line):
    """(value type, pointer, kind) of a memory instruction in LLVM's own printing, or None."""
    if " load " in line:
        found = _LOAD.match(line + ",")
        # Numba's compare-and-swap loops begin with a volatile load: a part of an atomic operation
        return found and (found.group(1), found.group(2), r.ATOMIC if " volatile " in line else r.READ)
    if " store " in line:
        found = _STORE.match(line)
        return found and (_first_type(found.group(1)), found.group(2), r.WRITE)
    if " atomicrmw " in line or " cmpxchg " in line:
        found = _ATOMIC.match(line)
        return found and (found.group(2), found.group(1), r.ATOMIC)
    return None


def _first_type(text):
    """The type at the start of "type value"."""
    if text[0] not in "<[{":
        return text.split(" ")[0]
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "<[{") - (letter in ">]}")
        if not depth:
            return text[:place + 1]
    return text


class Origins:
    """Where the pointers of one body come from."""

    def __init__(self, lines, parameters, constants):
        found = (_DEFINITION.match(line) for line in lines)
        self.definitions = {m.group(1): m.group(2) for m in found if m}
        self.parameters = {name: place for place, name in enumerate(parameters)}
        self.constants = constants               # name -> type of a global constant
        self._known = {}

    def of(self, pointer, seen=()):
        """("argument", word), ("shared", offset), ("private", name, type), "own" (the emulator's), or None."""
        if pointer not in self._known:
            found = self._find(pointer, seen)
            if seen and found is None:           # perhaps only because of the loop being walked
                return None
            self._known[pointer] = found
        return self._known[pointer]

    def _find(self, pointer, seen):
        if pointer[0] != "%":
            shared = re.search(r"@emu\.shared(?:, i64 (\d+))?", pointer)
            if shared:
                return ("shared", int(shared.group(1) or 0))
            name = re.search(r'@(?:"[^"]+"|[\w.$-]+)', pointer)
            known = name and self.constants.get(name.group(0))
            return ("private", name.group(0), known) if known else "own"
        if pointer in self.parameters:
            return ("argument", self.parameters[pointer])
        definition = self.definitions.get(pointer, "")
        if definition.startswith("alloca"):
            return ("private", pointer, re.match(r"alloca (.+?), align", definition + ", align").group(1))
        if definition.startswith("load ptr, ptr @emu."):
            return "own"
        if pointer in seen or not definition.startswith(("getelementptr", "bitcast", "freeze", "phi", "select")):
            return None
        operands = re.findall(rf"(?:ptr |\[ )({_POINTER})", definition)
        if definition.startswith("get"):
            operands = operands[:1]
        found = {self.of(o, (*seen, pointer)) for o in operands if o not in seen and o != pointer}
        return found.pop() if len(found) == 1 else None


class Checks:
    """Instruments the lines of one body; `private` collects (name, type) of the local arrays that were met."""

    def __init__(self, lines, parameters, text, line_of):
        pattern = r'^(@(?:"[^"]+"|[\w.$-]+)) = .*?\b(?:constant|global) (\[[^\n]*?\]) '
        constants = dict(re.findall(pattern, text, flags=re.M))
        self.lines, self.line_of = lines, line_of
        self.origins = Origins(lines, parameters, {k: v for k, v in constants.items() if not k.startswith("@emu.")})
        self.private = []

    def run(self, shared):
        out = []
        for number, line in enumerate(self.lines):
            access = memory_access(line)
            origin = access and self.origins.of(access[1])
            if access and origin != "own":
                line = self._checked(out, number, line, access, origin, shared)
            elif "@emu_async_" in line:          # its last argument is the line
                line = re.sub(r"(@emu_async_copy\(.*), i64 0\)", rf"\1, i64 {self.line_of(line)})", line)
            out.append(line)
        return out

    def _checked(self, out, number, line, access, origin, shared):
        kind_of_value, pointer, kind = access
        what, base, limit = r.UNKNOWN, "0", "0"
        name, more = f"%emu.c{number}", kind << r.KIND_AT | int(self.line_of(line)) << r.LINE_AT
        if origin and origin[0] == "argument":
            what = origin[1]
        elif origin and origin[0] == "shared":
            inside = (k for k, a in enumerate(shared) if a.offset <= origin[1] < a.offset + a.bytes)
            what = r.SHARED - next(inside, len(shared))
        elif origin:
            what, base, limit = self._private_place(origin), f"{name}.base", _size(origin[2])
            out.append(f"  {base} = ptrtoint ptr {origin[1]} to i64")
        out += [f"  {name}.at = ptrtoint ptr {pointer} to i64",
                f"  {name}.env = load ptr, ptr @emu.environment",
                f"  {name}.use = call i64 @emu_check(i64 {name}.at, i64 add (i64 {_size(kind_of_value)}, i64 {more}), "
                f"i64 {what}, ptr {name}.env, i64 {base}, i64 {limit})",
                f"  {name}.ptr = inttoptr i64 {name}.use to ptr"]
        before, _, after = line.rpartition(f"ptr {pointer}")
        return f"{before}ptr {name}.ptr{after}"

    def _private_place(self, origin):
        entry = origin[1], origin[2]
        if entry not in self.private:
            self.private.append(entry)
        return r.PRIVATE - self.private.index(entry)


def _size(kind):
    return f"ptrtoint (ptr getelementptr ({kind}, ptr null, i32 1) to i64)"
