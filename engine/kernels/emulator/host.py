"""From captured IR to machine code of the host: link, inline, instrument, make a coroutine, optimise, load."""
import ctypes
import ctypes.util
import functools
import re

import llvmlite.binding as llvm
import numpy as np

from engine.errors import EmulationError, UnsupportedKernel
from engine.kernels.emulator import coroutine, ptx
from engine.kernels.emulator import records as r
from engine.kernels.emulator import runtime
from engine.kernels.emulator.instrument import Checks
from engine.kernels.emulator.retarget import to_host

# After linking: everything into the kernel, values into registers, so that pointers can be followed to their origin;
# then once more for loops' counters, whose places Numba puts into a structure.
_FIRST_PASSES = ("always_inliner", "sroa", "instruction_combine", "simplify_cfg", "new_gvn", "sroa", "simplify_cfg",
                 "global_dead_code_eliminate")
_PROVIDED = {"malloc", "free", "memset", "memcpy", "memmove", "emu_check", "emu_async_copy", "emu_async_commit",
             "emu_async_wait"}


@functools.cache
def machine():
    """LLVM's description of this processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return _new_machine()


def _new_machine():
    return llvm.Target.from_default_triple().create_target_machine(
        opt=3, cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), jit=True)


def head():
    return f'target triple = "{machine().triple}"\ntarget datalayout = "{machine().target_data}"\n'


def optimise(module, passes=None):
    builder = llvm.create_pass_builder(machine(), llvm.create_pipeline_tuning_options(speed_level=3))
    if passes is None:
        manager = builder.getModulePassManager()
    else:
        manager = llvm.create_new_module_pass_manager()
        for name in passes:
            getattr(manager, f"add_{name}_pass")()
    manager.run(module, builder)


def load(module=None, object_code=None):
    """An execution engine that holds a module or an object file."""
    machine()
    engine = llvm.create_mcjit_compiler(module or llvm.parse_assembly(head()), _new_machine())
    if object_code is not None:
        engine.add_object_file(llvm.ObjectFileRef.from_data(object_code))
    engine.finalize_object()
    return engine


def words_at(engine, name, count, dtype):
    """The global `name` of a loaded engine as an array over its memory."""
    address = engine.get_global_value_address(name)
    return np.frombuffer((ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(address), dtype)


def build(texts, name, check):
    """(object code, what a launch has to know about it as a JSON-able dict) of the kernel `name`."""
    symbol = re.search(r'@"([^"]+)", !"kernel"', "\n".join(texts)).group(1)
    host = to_host(texts)
    used = sum(a.bytes for a in host.shared)
    if used > r.STATIC_SHARED_LIMIT:
        raise EmulationError(f"kernel {name}: expected at most {r.STATIC_SHARED_LIMIT} bytes of static shared memory, "
                             f"got {used}: no GPU would run it; use dynamic shared memory, cuda.shared.array(0, dtype)")
    text = str(_link(host, symbol))
    text, facts = _kernel_text(text, symbol, host, name, check)
    module = llvm.parse_assembly(text)
    module.verify()
    optimise(module)
    _refuse_unknown(module, name)
    facts["asynchronous"] = "@emu_async_copy" in text
    return machine().emit_object(module), facts


def _link(host, symbol):
    """One module with the kernel, everything inlined into it."""
    provided = runtime.text() + ptx.runtime() + host.functions
    declared = runtime.declarations(provided)
    module = llvm.parse_assembly(head() + provided)
    for text in host.texts:
        used = {n for n in re.findall(r'@"?([\w.]+)"?\(', text) if n in declared}
        already = set(re.findall(r'^declare .*?@"?([\w.]+)"?\(', text, flags=re.M))
        needed = "".join(declared[n] for n in sorted(used - already))
        module.link_in(llvm.parse_assembly(head() + "@emu.shared = external global i8\n" + needed + text))
    for function in module.functions:
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
    module.verify()
    optimise(module, _FIRST_PASSES)
    return module


def _kernel_text(text, symbol, host, name, check):
    """(the module's text with the kernel as a coroutine, facts for launches)"""
    body = re.search(r'^define [^\n]*@"?' + re.escape(symbol) + r'"?\((.*?)\)[^\n]*\{\n(.*?)^\}\n', text,
                     flags=re.M | re.S)
    pattern = r'(?:ptr|i\d+|float|double|half)\b[^,]*?%(?:"[^"]*"|[\w.$-]+)'
    parameters = [(p.split(" ")[0], p.split(" ")[-1]) for p in re.findall(pattern, body.group(1))]
    lines = body.group(2).rstrip("\n").split("\n")
    line_of = _line_finder(text)
    private = []
    if check:
        checks = Checks(lines, [p for _, p in parameters], text, line_of)
        lines, private = checks.run(host.shared), checks.private
    lines = [line for line in lines if "#dbg_" not in line and "@llvm.dbg" not in line]
    rest = text[:body.start()] + text[body.end():]
    rest = re.sub(r"^declare void @emu\.suspend\(.*$", "", rest, flags=re.M)
    rest = re.sub(r"^(define .*?) !dbg !\d+", r"\1", rest, flags=re.M)
    if "@emu.suspend" in rest:
        raise UnsupportedKernel(f"kernel {name}: the emulator cannot run a barrier or warp operation inside a "
                                f"recursive device function")
    room = host.static + (r.SHARED_LIMIT if host.dynamic else 0) + 128
    rest = re.sub(r"^@emu\.shared = .*$", f"@emu.shared = global [{room} x i8] zeroinitializer, align 128", rest,
                  flags=re.M)
    kernel, suspensions = coroutine.coroutine(parameters, lines, line_of)
    kernel = re.sub(r", !dbg !\d+", "", kernel)
    facts = {"words": len(parameters), "shared": [list(a) for a in host.shared], "static": host.static,
             "dynamic": host.dynamic and list(host.dynamic), "suspensions": suspensions,
             "private": [[_local_name(n, host.names), kind] for n, kind in private]}
    return rest + _missing_declarations(rest) + kernel, facts


def _missing_declarations(rest):
    return "\n".join(line for line in coroutine.DECLARATIONS.splitlines() if line not in rest) + "\n"


def _local_name(name, names):
    plain = name.strip('%@"')
    if plain.startswith("_cudapy"):
        return names.get(plain) or names.get(re.sub(r"\.i\d*$", "", plain)) or (
            "local array" if "lmem" in plain else "constant array")
    return "local variable"


def _line_finder(text):
    """The source line of an instruction: the kernel's own, where a device function was inlined into it. The outermost
    place is Numba's wrapper, which has the line of the decorator for everything."""
    lines = dict(re.findall(r"^(!\d+) = (?:distinct )?!DILocation\(line: (\d+)", text, flags=re.M))
    above = dict(re.findall(r"^(!\d+) = (?:distinct )?!DILocation\(.*inlinedAt: (!\d+)", text, flags=re.M))

    def line_of(instruction):
        found = re.search(r"!dbg (!\d+)", instruction)
        place = found and found.group(1)
        while place in above and above[place] in above and int(lines.get(above[place], 0)):
            place = above[place]
        return int(lines.get(place, 0))
    return line_of


@functools.cache
def _libm():
    return ctypes.CDLL(ctypes.util.find_library("m"))


def _refuse_unknown(module, name):
    """MCJIT ends the process on a symbol that nobody has: look first."""
    for function in module.functions:
        called = function.name
        if not function.is_declaration or called in _PROVIDED:
            continue
        if called.startswith("llvm.") and not called.startswith("llvm.nvvm"):
            continue
        if called.startswith("llvm.") or "print" in called or not hasattr(_libm(), called):
            hint = "; take print out of the kernel" if "print" in called else (
                "; engine/kernels/emulator is the place to add it")
            raise UnsupportedKernel(f"kernel {name}: the emulator has no {called}, which this kernel calls{hint}")
