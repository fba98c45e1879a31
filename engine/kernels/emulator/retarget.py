"""NVVM IR to host IR, as text: GPU words become calls of the runtime (`@emu.*`), shared arrays become places in one
block of shared memory, libdevice becomes libm.

LLVM's own text is edited because llvmlite cannot change a parsed module; the patterns below are those of Numba's
printer, and the emulator's tests run every one of them.
"""
import linecache
import re
from typing import NamedTuple

from engine.errors import UnsupportedKernel
from engine.kernels.emulator import ptx, runtime

INTRINSICS = {
    "barrier0": "barrier", "barrier0.popc": "barrier.popc", "barrier0.and": "barrier.and", "barrier0.or": "barrier.or",
    "bar.warp.sync": "syncwarp", "shfl.sync.i32": "shuffle", "vote.sync": "vote",
    "membar.gl": "fence", "membar.cta": "nothing", "membar.sys": "fence",
    "match.any.sync.i32": "match.any.i32", "match.any.sync.i64": "match.any.i64",
    "match.all.sync.i32": "match.all.i32", "match.all.sync.i64": "match.all.i64",
    "atomic.load.add.f32.p0f32": "atomic.add.f32", "atomic.load.add.f64.p0f64": "atomic.add.f64",
    "atomic.load.inc.32.p0i32": "atomic.inc.32", "atomic.load.dec.32.p0i32": "atomic.dec.32",
}
BYTES = {"half": 2, "bfloat": 2, "float": 4, "double": 8, "i1": 1}
RED_ZONE = 128                               # bytes between shared arrays, so that an access past one meets no other


class SharedArray(NamedTuple):
    """One static shared array; the dynamic one has no bytes."""
    name: str
    offset: int
    bytes: int
    granule: int                             # bytes of an element
    alignment: int                           # what its declaration promises


class HostText(NamedTuple):
    """A kernel's IR for the host."""
    texts: list
    functions: str                           # what inline PTX became
    shared: list                             # SharedArrays
    static: int                              # bytes of static shared memory, red zones included
    dynamic: SharedArray | None
    names: dict                              # name of a local array in the IR -> the kernel's own name for it


def to_host(texts):
    """The `HostText` for a kernel's NVVM IR; errors: `UnsupportedKernel` for PTX that is not known."""
    shared, found, end, dynamic, names, functions = [], [], 0, [], {}, []
    for number, text in enumerate(texts):
        text = re.sub(r'^(target (triple|datalayout)|!nvvm|@"llvm.used").*$', "", text, flags=re.M)
        lines = _Lines(text)
        names.update(_local_names(text, lines))
        pattern = r'^(@"[^"]*") = .*addrspace\(3\) global \[(\d+) x (.+?)\](?: [^,\n]*)?(?:, align (\d+))?'
        for name, count, element, align in re.findall(pattern, text, flags=re.M):
            size = _size(element)
            given = lines.name_for(text, name)
            array = SharedArray(given, end, int(count) * size, size, int(align or size))
            text = re.sub("^" + re.escape(name) + " = .*$", "", text, flags=re.M)
            text = re.sub(r"\[\d+ x [^\]\n]+\] addrspace\(3\)\* " + re.escape(name) + r"(?![\w.])",
                          f"ptr getelementptr (i8, ptr @emu.shared, i64 {end if array.bytes else 'DYNAMIC'})", text)
            if array.bytes:
                shared.append(array._replace(name=given or f"shared array {len(shared) + 1}"))
                end = -(-(end + array.bytes + RED_ZONE) // 128) * 128
            else:
                dynamic.append(array)
        found.append(_rewrite(text, number, functions))
    found = [text.replace("i64 DYNAMIC", f"i64 {end}") for text in found]
    return HostText(found, "".join(functions), shared, end, _dynamic(dynamic, end), names)


def _dynamic(arrays, end):
    """All dynamic arrays are views of the same memory: one range with the finest elements."""
    if not arrays:
        return None
    named = " / ".join(dict.fromkeys(a.name for a in arrays if a.name)) or "dynamic shared memory"
    # without static arrays before it, dynamic shared memory starts on a large boundary
    alignment = 128 if end == 0 else max(a.alignment for a in arrays)
    return SharedArray(named, end, 0, min(a.granule for a in arrays), alignment)


def _size(element):
    element = element.strip()
    if element in BYTES:
        return BYTES[element]
    if re.fullmatch(r"i\d+", element):
        return max(1, int(element[1:]) // 8)
    parts = re.fullmatch(r"\{(.*)\}", element)
    if parts:
        return sum(_size(p) for p in parts.group(1).split(","))
    vector = re.fullmatch(r"[<\[](\d+) x (.*)[>\]]", element)
    if vector:
        return int(vector.group(1)) * _size(vector.group(2))
    raise UnsupportedKernel(f"the emulator does not know shared arrays of {element}")


class _Lines:
    """Source lines by debug location: what a kernel calls the array that it makes on a line."""

    def __init__(self, text):
        self.lines = dict(re.findall(r"^(!\d+) = !DILocation\([^\n]*?line: (\d+)", text, flags=re.M))
        file = re.search(r'!DIFile\(directory: "([^"]*)", filename: "([^"]*)"', text)
        self.file = f"{file.group(1)}/{file.group(2)}" if file else None

    def name_for(self, text, symbol):
        """The variable on the left of the line that first uses the array `symbol`, or ""."""
        use = re.search(re.escape(symbol) + r"(?![\w.])[^\n]*!dbg (!\d+)", text)
        if not use or not self.file or use.group(1) not in self.lines:
            return ""
        source = linecache.getline(self.file, int(self.lines[use.group(1)]))
        assigned = re.match(r"\s*(\w+)\s*=[^=]", source) if source.count("array(") <= 1 else None
        return assigned.group(1) if assigned else ""


def _local_names(text, lines):
    found = {}
    for symbol in re.findall(r'^\s+(%"?_cudapy_lmem[\w.]*"?) = alloca', text, flags=re.M):
        found[symbol.strip('%"')] = lines.name_for(text, symbol)
    return found


def _rewrite(text, number, functions):
    text = re.sub(r"addrspacecast (\S.*?) to", r"bitcast \1 to", text)
    kind = r"(?:\[[^\]\n]*\]|\{[^}\n]*\}|<[^>\n]*>|[^\s,)])[^\s,)]*"
    text = re.sub(r"bitcast ptr (getelementptr \(.*?\)|@\S+) to " + kind, r"getelementptr i8, ptr \1, i64 0", text)
    text = re.sub(r" ?addrspace\(\d\)", "", text)
    # NumPy data need not lie on 16 bytes; the check instrumentation looks at alignment itself
    text = re.sub(r"((?:load|store) <.*), align \d+", r"\1, align 1", text)
    text = _inline_ptx(text, functions)
    text = re.sub(r'@"?llvm\.nvvm\.read\.ptx\.sreg\.([\w.]+)"?', r"@emu.\1", text)
    text = re.sub(r'@"?llvm\.nvvm\.([\w.]+)"?',
                  lambda m: f"@emu.{INTRINSICS[m.group(1)]}" if m.group(1) in INTRINSICS else m.group(0), text)
    text = re.sub(r'@"?__nv_(?:fast_)?(\w+)"?',
                  lambda m: ("@emu.nv." if m.group(1) in runtime.OWN_MATHEMATICS else "@") + m.group(1), text)
    text = re.sub(r"^(define .*\))", r"\1 alwaysinline", re.sub(r"\bnoinline\b", "", text), flags=re.M)
    return text.replace('@"_cudapy_cmem', f'@"_cudapy{number}_cmem')     # constants of two texts may share a name


_ASM = re.compile(r'asm\s+(?:sideeffect\s+)?(?:alignstack\s+)?"([^"]*)"\s*,\s*"([^"]*)"\s*\(')


def _inline_ptx(text, functions):
    """Puts a call of a translated function in the place of every `asm`."""
    parts, at = [], 0
    for found in _ASM.finditer(text):
        kinds = _argument_types(text, found.end())
        name = f"emu.ptx.{len(functions)}"
        functions.append(ptx.Statements(found.group(1), found.group(2), kinds).function(name))
        parts += [text[at:found.start()], f"@{name}("]
        at = found.end()
    return "".join((*parts, text[at:]))


def _argument_types(text, start):
    depth, end = 1, start
    while depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    given = [a.strip() for a in re.split(r",(?![^{<\[(]*[}>\])])", text[start:end - 1]) if a.strip()]
    return ["ptr" if "*" in a.split("%")[0] or a.startswith("ptr") else a.split()[0] for a in given]
