"""What kernels call in place of the GPU's own instructions, as LLVM IR: special registers, warp operations, barriers.

A collective stores its arguments in the thread's record and suspends the thread; the scheduler answers in the record.
Everything here is inlined into the kernel, so that the suspensions stand in the kernel's own body.
"""
import re

from engine.kernels.emulator import records as r

INVARIANT = ", !invariant.load !0"           # one thread's own record never moves: lets LLVM join equal loads


def field(name, at, register):
    """Two lines: %register = address of word `at` of field `name` of the current thread's record."""
    return (f"  %t.{register} = load ptr, ptr @emu.thread{INVARIANT}\n"
            f"  %{register} = getelementptr i8, ptr %t.{register}, i64 {r.OFFSET[name] + 4 * at}\n")


def _function(result, name, parameters, *lines):
    body = "".join(f"  {line}\n" for line in lines)
    return f"define {result} @emu.{name}({parameters}) alwaysinline {{\n{body}}}\n"


def _register(name, *lines):
    return _function("i32", name, "", *lines, "ret i32 %v")


def _collective(name, result, parameters, operation, mask, given, before=()):
    """A function %a0, %a1, ...: stores `given` [(value, type, word)], suspends, returns the words of the answer."""
    listed = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(parameters))
    text = f"define {result} @emu.{name}({listed}) alwaysinline convergent {{\n"
    text += "".join(f"  {line}\n" for line in before)
    stores = [("operation", 0, "i32", operation), ("mask", 0, "i32", mask)]
    stores += [("given", word, kind, value) for value, kind, word in given]
    is_barrier = not isinstance(operation, str) and operation >= r.BARRIER
    stores.append(("status", 0, "i32", r.AT_BARRIER if is_barrier else r.AT_WARP))
    for number, (name_, word, kind, value) in enumerate(stores):
        text += field(name_, word, f"s{number}") + f"  store {kind} {value}, ptr %s{number}\n"
    text += "  call void @emu.suspend()\n"
    return text + _answer(result) + "}\n"


def _answer(result):
    if result == "void":
        return "  ret void\n"
    if result == "i32":
        return field("answer", 0, "p") + "  %r = load i32, ptr %p\n  ret i32 %r\n"
    text, whole = "", "undef"
    for word, kind in enumerate(result.strip("{}").split(", ")):
        text += field("answer", word, f"p{word}")
        text += (f"  %w{word} = load i32, ptr %p{word}\n  %r{word} = trunc i32 %w{word} to i1\n" if kind == "i1"
                 else f"  %r{word} = load {kind}, ptr %p{word}\n")
        text += f"  %g{word} = insertvalue {result} {whole}, {kind} %r{word}, {word}\n"
        whole = f"%g{word}"
    return text + f"  ret {result} {whole}\n"


def _registers():
    names = [f"{n}.{axis}" for n in ("ntid", "nctaid", "ctaid") for axis in "xyz"] + ["dynamic_smem_size"]
    text = ""
    for place, name in enumerate(names):
        text += _register(name, f"%p = getelementptr i32, ptr @emu.sizes, i64 {place}",
                          f"%v = load i32, ptr %p{INVARIANT}")
    for place, axis in enumerate("xyz"):
        text += _register(f"tid.{axis}", field("index", place, "p").strip(), f"%v = load i32, ptr %p{INVARIANT}")
    text += _register("laneid", field("lane", 0, "p").strip(), f"%v = load i32, ptr %p{INVARIANT}")
    text += _register("warpsize", "%v = add i32 32, 0")
    text += _register("activemask", "%v = add i32 -1, 0")
    text += _register("lanemask_lt", "%l = call i32 @emu.laneid()", "%b = shl i32 1, %l", "%v = sub i32 %b, 1")
    return text


def _collectives():
    pair = "{i32, i1}"
    text = _collective("shuffle", pair, ["i32"] * 5, "%a1", "%a0",
                       [("%a2", "i32", 0), ("%a3", "i32", 1), ("%a4", "i32", 2)])
    text += _collective("vote", pair, ["i32", "i32", "i1"], "%k", "%a0", [("%v", "i32", 0)],
                        (f"%k = add i32 %a1, {r.VOTE}", "%v = zext i1 %a2 to i32"))
    for name, result, operation in (("any", "i32", r.MATCH_ANY), ("all", pair, r.MATCH_ALL)):
        text += _collective(f"match.{name}.i64", result, ["i32", "i64"], operation, "%a0", [("%a1", "i64", 0)])
        text += _collective(f"match.{name}.i32", result, ["i32", "i32"], operation, "%a0", [("%v", "i64", 0)],
                            ("%v = sext i32 %a1 to i64",))
    text += _collective("syncwarp", "void", ["i32"], r.SYNCWARP, "%a0", [])
    text += _collective("barrier", "void", [], r.BARRIER, -1, [])
    for name, operation in (("popc", r.BARRIER_POPC), ("and", r.BARRIER_AND), ("or", r.BARRIER_OR)):
        text += _collective(f"barrier.{name}", "i32", ["i32"], operation, -1, [("%a0", "i32", 0)])
    return text + _matrix_collectives()


def _matrix_collectives():
    text = ""
    for number, kind in enumerate(r.MMA_KINDS):
        a, b = (4, 2) if kind.startswith("m16n8k16") or kind == "m16n8k8.tf32" else (2, 1)      # registers of a, of b
        given = [(f"%a{i}", "i32", i) for i in range(a)] + [(f"%a{a + i}", "i32", 4 + i) for i in range(b)]
        given += [(f"%a{a + b + i}", "float", 6 + i) for i in range(4)]
        text += _collective(f"mma.{kind}", "{float, float, float, float}", ["i32"] * (a + b) + ["float"] * 4,
                            r.MMA + number, -1, given)
    for power in range(3):
        result = "i32" if power == 0 else "{" + ", ".join(["i32"] * (1 << power)) + "}"
        for transposed, suffix in enumerate(("", ".trans")):
            text += _collective(f"ldmatrix.x{1 << power}{suffix}", result, ["i32"],
                                r.LDMATRIX + 2 * power + transposed, -1, [("%a0", "i32", 0)])
    return text


def _environment(word):
    return ("%e = load ptr, ptr @emu.environment", f"%w = getelementptr i64, ptr %e, i64 {word}")


def _memory():
    """Fences, cp.async, and the 32-bit addresses of shared memory that inline PTX takes."""
    text = _function("void", "fence", "", *_environment(r.FENCED), "store i64 1, ptr %w", "ret void")
    text += _function("void", "nothing", "", "ret void")
    text += _function("i64", "shared.address", "i32 %s", *_environment(r.SHARED_BASE), "%b = load i64, ptr %w",
                      "%low = trunc i64 %b to i32", "%d = sub i32 %s, %low", "%o = zext i32 %d to i64",
                      "%a = add i64 %b, %o", "ret i64 %a")
    text += "declare void @emu_async_copy(ptr, i64, i64, i64, i64, i64)\n"
    text += "declare void @emu_async_commit(ptr)\ndeclare void @emu_async_wait(ptr, i64)\n"
    text += _function("void", "async.copy", "i64 %to, i64 %from, i64 %bytes, i64 %read",
                      "%e = load ptr, ptr @emu.environment",
                      "call void @emu_async_copy(ptr %e, i64 %to, i64 %from, i64 %bytes, i64 %read, i64 0)", "ret void")
    text += _function("void", "async.commit", "", "%e = load ptr, ptr @emu.environment",
                      "call void @emu_async_commit(ptr %e)", "ret void")
    text += _function("void", "async.wait", "i64 %left", "%e = load ptr, ptr @emu.environment",
                      "call void @emu_async_wait(ptr %e, i64 %left)", "ret void")
    return text


def _atomics():
    text = ""
    for kind, name, operation in (("float", "add.f32", "fadd"), ("double", "add.f64", "fadd"),
                                  ("i32", "inc.32", "uinc_wrap"), ("i32", "dec.32", "udec_wrap")):
        text += _function(kind, f"atomic.{name}", f"ptr %p, {kind} %v",
                          f"%o = atomicrmw {operation} ptr %p, {kind} %v seq_cst", f"ret {kind} %o")
    return text


def _mathematics():
    """libdevice functions that the host's libm lacks."""
    text = ("declare float @llvm.sqrt.f32(float)\ndeclare double @llvm.sqrt.f64(double)\n"
            "declare float @llvm.fabs.f32(float)\ndeclare double @llvm.fabs.f64(double)\n")
    text += _function("float", "nv.fdividef", "float %x, float %y", "%r = fdiv float %x, %y", "ret float %r")
    for kind, bits, end, names in (("float", "f32", "f", ("isnanf", "isinff", "finitef")),
                                   ("double", "f64", "", ("isnand", "isinfd", "isfinited"))):
        text += _function(kind, f"nv.rsqrt{end}", f"{kind} %x", f"%s = call {kind} @llvm.sqrt.{bits}({kind} %x)",
                          f"%r = fdiv {kind} 1.0, %s", f"ret {kind} %r")
        for name, condition in zip(names, ("uno", "oeq", "olt")):        # |x| against infinity
            text += _function("i32", f"nv.{name}", f"{kind} %x", f"%a = call {kind} @llvm.fabs.{bits}({kind} %x)",
                              f"%c = fcmp {condition} {kind} %a, 0x7FF0000000000000", "%r = zext i1 %c to i32",
                              "ret i32 %r")
    return text


OWN_MATHEMATICS = {"rsqrt", "rsqrtf", "isnand", "isnanf", "isinfd", "isinff", "isfinited", "finitef", "fdividef"}


def text():
    """The runtime as IR. Shared memory has no known size here, or LLVM would move loads of it out of branches."""
    return ("@emu.thread = global ptr null\n@emu.environment = global ptr null\n"
            "@emu.sizes = global [10 x i32] zeroinitializer\n@emu.shared = external global i8\n"
            "declare void @emu.suspend() convergent\n"
            + _registers() + _collectives() + _memory() + _atomics() + _mathematics() + "!0 = !{}\n")


def declarations(defined):
    """Name -> declaration of every function of the runtime's text."""
    found = re.findall(r"^define (.*?) @([\w.]+)\((.*?)\)", defined, flags=re.M)
    return {name: f"declare {result} @{name}({re.sub(r' %[^,)]+', '', parameters)})\n"
            for result, name, parameters in found}
