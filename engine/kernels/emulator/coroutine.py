"""A kernel's body as an LLVM switched-resume coroutine: one coroutine is one CUDA thread, a suspension is a barrier or
a warp operation. LLVM splits it into a function that goes on where the thread stopped; no stacks are switched.
"""
import re

import llvmlite.binding as llvm

from engine.kernels.emulator import records as r
from engine.kernels.emulator.runtime import INVARIANT, field

# llvm.coro.end lost its result in LLVM 22
_END = "call void" if llvm.llvm_version_info[0] >= 22 else "%emu.e = call i1"
DECLARATIONS = f"""declare token @llvm.coro.id(i32, ptr, ptr, ptr)
declare i64 @llvm.coro.size.i64()
declare ptr @llvm.coro.begin(token, ptr)
declare i8 @llvm.coro.suspend(token, i1)
declare {_END.split()[-1]} @llvm.coro.end(ptr, i1, token)
declare ptr @llvm.coro.free(token, ptr)
declare ptr @malloc(i64)
declare void @free(ptr)
declare i64 @emu_check(i64, i64, i64, ptr, i64, i64)
"""


def _suspend(register, final, then):
    return (f"  {register} = call i8 @llvm.coro.suspend(token none, i1 {final})\n"
            f"  switch i8 {register}, label %emu.suspended [i8 0, label %{then}\n    i8 1, label %emu.clean]")


def coroutine(parameters, lines, line_of):
    """(IR of @emu.kernel and @emu_start, number of suspensions); without any the kernel stays an ordinary function.

    parameters  (type, name) of each; lines: the body; line_of(line): its source line
    """
    allocas = [line for line in lines if re.match(r"\s+%\S+ = alloca ", line)]
    first = re.match(r'("[^"]+"|[\w.$-]+):', lines[0]).group(1)
    out, count = _split(lines, set(allocas), line_of)
    done = [field("status", 0, "emu.st").rstrip(), f"  store i32 {r.DONE}, ptr %emu.st"]
    if count:
        head, tail = _frame(allocas, first, done)
    else:
        head = ["emu.start:", *allocas, f"  br label %{first}"]
        tail = ["emu.finished:", *done, "  ret ptr null", "}"]
    body = "\n".join(head + out + tail).replace(INVARIANT, "")       # a resumed thread reads its record anew
    listed = ", ".join(f"{kind} {name}" for kind, name in parameters)
    return (f"define internal ptr @emu.kernel({listed}) {'presplitcoroutine ' if count else ''}{{\n{body}\n"
            + _entry(parameters)), count


def _split(lines, allocas, line_of):
    """The body with every call of @emu.suspend as a suspension; blocks are cut in two there."""
    out, block, last, count = [], None, {}, 0
    for line in lines:
        label = re.match(r'("[^"]+"|[\w.$-]+):', line)
        if label:
            block = label.group(1)
        if line in allocas:
            continue
        if "call void @emu.suspend()" in line:
            count += 1
            out += [field("place", 0, f"emu.l{count}").rstrip(),
                    f"  store i32 {count << 16 | int(line_of(line)) & 0xffff}, ptr %emu.l{count}",
                    _suspend(f"%emu.s{count}", "false", f"emu.r{count}"), f"emu.r{count}:"]
            last[block] = f"emu.r{count}"
        elif line.strip().startswith("ret void"):
            out.append("  br label %emu.finished")
        else:
            out.append(line)
    for block, resumed in last.items():          # a phi names the block that jumps to it: now the last part
        out = [re.sub(r", %" + re.escape(block) + r" \]", f", %{resumed} ]", line) if " phi " in line else line
               for line in out]
    return out, count


def _frame(allocas, first, done):
    head = ["emu.start:", *allocas,
            "  %emu.id = call token @llvm.coro.id(i32 0, ptr null, ptr null, ptr null)",
            "  %emu.size = call i64 @llvm.coro.size.i64()",
            "  %emu.mem = call ptr @malloc(i64 %emu.size)",
            "  %emu.h = call ptr @llvm.coro.begin(token %emu.id, ptr %emu.mem)",
            _suspend("%emu.s0", "false", first)]
    tail = ["emu.finished:", *done, _suspend("%emu.sf", "true", "emu.trap"), "emu.trap:", "  unreachable",
            "emu.clean:", "  %emu.m = call ptr @llvm.coro.free(token %emu.id, ptr %emu.h)",
            "  call void @free(ptr %emu.m)", "  br label %emu.suspended",
            "emu.suspended:", f"  {_END} @llvm.coro.end(ptr %emu.h, i1 false, token none)", "  ret ptr %emu.h", "}"]
    return head, tail


def _entry(parameters):
    """@emu_start: calls the kernel with arguments from an array of 64-bit words; gives the thread's handle."""
    text = "define i64 @emu_start(ptr %p) {\n"
    for place, (kind, _) in enumerate(parameters):
        text += f"  %q{place} = getelementptr i64, ptr %p, i64 {place}\n  %v{place} = load {kind}, ptr %q{place}\n"
    listed = ", ".join(f"{kind} %v{place}" for place, (kind, _) in enumerate(parameters))
    return text + f"  %h = call ptr @emu.kernel({listed})\n  %r = ptrtoint ptr %h to i64\n  ret i64 %r\n}}\n"
