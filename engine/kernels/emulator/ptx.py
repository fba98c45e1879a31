"""Inline PTX to LLVM IR: the statements of one `asm` call become a small function over the emulator's runtime.

Known: tensor cores (mma.sync m16n8k16/k8/k4 with f32 sums), ldmatrix, cp.async, loads and stores, conversions and
arithmetic of f16 and bf16, approximate functions, special registers, predicates on any of them. Anything else is an
error that quotes the statement; `_STATEMENTS` at the foot is the place to add one.
"""
import re

from engine.errors import UnsupportedKernel

TYPE_OF = {"f": "float", "d": "double", "r": "i32", "l": "i64", "h": "i16", "b": "i1", "q": "i128"}
COMPARISON = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "lo": "ult", "ls": "ule",
              "hi": "ugt", "hs": "uge"}
WIDTH = {"b8": "i8", "u8": "i8", "s8": "i8", "b16": "i16", "u16": "i16", "s16": "i16", "b32": "i32", "u32": "i32",
         "s32": "i32", "b64": "i64", "u64": "i64", "s64": "i64", "f32": "float", "f64": "double", "f16": "i16",
         "bf16": "i16", "f16x2": "i32", "bf16x2": "i32", "pred": "i1"}


class Statements:
    """The function being written for one `asm` call: PTX registers as SSA values, in `self.lines`."""

    def __init__(self, text, constraints, argument_types):
        self.text = re.sub(r"\\([0-9A-Fa-f]{2})", lambda m: chr(int(m.group(1), 16)), text)
        self.lines, self.values, self.types, self.count = [], {}, {}, 0
        self.outputs, parameters = [], []
        for constraint in (c.strip() for c in constraints.split(",")):
            register = f"${len(self.outputs) + len(parameters)}"
            if constraint.startswith("="):
                self.outputs.append(TYPE_OF[constraint.lstrip("=&+")])
                self.types[register] = self.outputs[-1]
            elif not constraint.startswith("~"):
                place = len(parameters)
                kind = argument_types[place] if place < len(argument_types) else "i32"
                parameters.append(kind)
                self.values[register], self.types[register] = f"%a{place}", kind
                if kind == "ptr":
                    self.values[register] = self.emit(f"ptrtoint ptr %a{place} to i64")
                    self.types[register] = "i64"
                if constraint.isdigit():         # the same register as an output: what it holds before
                    self.values[f"${constraint}"] = self.values[register]
        self.parameters = parameters

    def unknown(self, statement=None):
        return UnsupportedKernel(f"the emulator does not know this inline PTX: {(statement or self.text).strip()!r}; "
                                 f"engine/kernels/emulator/ptx.py is the place to add it")

    # ------------------------------------------------------------------------------------------------ values

    def emit(self, instruction):
        self.count += 1
        self.lines.append(f"  %v{self.count} = {instruction}")
        return f"%v{self.count}"

    def say(self, instruction):
        self.lines.append(f"  {instruction}")

    def value(self, operand):
        """(SSA value, type) of a register, special register or number."""
        operand = operand.strip()
        if operand in self.values:
            return self.values[operand], self.types[operand]
        if re.fullmatch(r"-?\d+|0x[0-9A-Fa-f]+", operand):
            return str(int(operand, 0)), "i32"
        if re.fullmatch(r"0[fF][0-9A-Fa-f]{8}", operand):
            return self.emit(f"bitcast i32 {int(operand[2:], 16)} to float"), "float"
        special = re.fullmatch(r"%(laneid|lanemask_lt|dynamic_smem_size|(?:n?tid|n?ctaid)\.[xyz])", operand)
        if special:
            return self.emit(f"call i32 @emu.{special.group(1)}()"), "i32"
        raise self.unknown(operand)

    def as_type(self, operand, kind):
        """The value of an operand with its bits seen as `kind`."""
        value, has = self.value(operand)
        bits = {"float": 32, "double": 64}
        wide, want = (bits.get(t) or int(t[1:]) for t in (has, kind))
        if has in bits and wide != want or kind in bits and wide != want:
            raise self.unknown()
        if has[0] == "i" and kind[0] == "i" and wide != want:
            if re.fullmatch(r"-?\d+", value):
                return value
            return self.emit(f"{'sext' if wide < want else 'trunc'} {has} {value} to {kind}")
        return value if has == kind else self.emit(f"bitcast {has} {value} to {kind}")

    def put(self, register, value, kind):
        register = register.strip()
        want = self.types.get(register, kind)
        if want != kind and want[0] == "i" and kind[0] == "i":
            value = self.emit(f"{'zext' if int(kind[1:]) < int(want[1:]) else 'trunc'} {kind} {value} to {want}")
        elif want != kind:
            value = self.emit(f"bitcast {kind} {value} to {want}")
        self.values[register], self.types[register] = value, want

    def address(self, operand, space="global"):
        """The pointer that `[register + offset]` names; shared memory may be given by its low 32 bits."""
        found = re.fullmatch(r"\[\s*([^\s+\]]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand.strip())
        if not found:
            raise self.unknown(operand)
        value, kind = self.value(found.group(1))
        if kind == "i32":
            value = self.emit(f"call i64 @emu.shared.address(i32 {value})")
        if found.group(2):
            value = self.emit(f"add i64 {value}, {int(found.group(2), 0)}")
        return value

    # -------------------------------------------------------------------------------------------- statements

    def function(self, name):
        """The whole function as IR."""
        body = self.text.strip()
        while body.startswith("{") and body.endswith("}"):
            body = body[1:-1].strip()
        for statement in body.split(";"):
            if statement.strip():
                self.statement(statement.strip())
        kinds = self.outputs
        result = "void" if not kinds else kinds[0] if len(kinds) == 1 else "{" + ", ".join(kinds) + "}"
        if not kinds:
            self.say("ret void")
        elif len(kinds) == 1:
            self.say(f"ret {result} {self.values['$0']}")
        else:
            whole = "undef"
            for place, kind in enumerate(kinds):
                whole = self.emit(f"insertvalue {result} {whole}, {kind} {self.values[f'${place}']}, {place}")
            self.say(f"ret {result} {whole}")
        listed = ", ".join(f"{kind} %a{place}" for place, kind in enumerate(self.parameters))
        return f"define {result} @{name}({listed}) alwaysinline {{\n" + "\n".join(self.lines) + "\n}\n"

    def statement(self, text):
        found = re.match(r"(?:@(!?)(\S+)\s+)?([\w.:]+)\s*(.*)$", text, re.S)
        if not found:
            raise self.unknown(text)
        negated, guard, opcode, rest = found.groups()
        if opcode.startswith(".reg"):
            kind = WIDTH[rest.split(".")[-1].split()[0]] if "." in rest else WIDTH[opcode.split(".")[-1]]
            names = rest.split(None, 1)[1] if rest.startswith(".") else rest
            self.types.update((name.strip(), kind) for name in names.split(","))
            return
        operands = _split(rest)
        for pattern, method in _STATEMENTS:
            fits = re.fullmatch(pattern, opcode)
            if fits:
                break
        else:
            raise self.unknown(text)
        if not guard:
            return method(self, fits, *operands)
        before, label = dict(self.values), f"skip{self.count}"
        condition = self.as_type(guard, "i1")
        yes, no = (label, f"do{label}") if negated else (f"do{label}", label)
        self.say(f"br i1 {condition}, label %{yes}, label %{no}")
        self.lines.append(f"do{label}:")
        method(self, fits, *operands)
        if self.values != before:                # a register written under a predicate would need a phi
            raise self.unknown(text)
        self.say(f"br label %{label}")
        self.lines.append(f"{label}:")

    def move(self, fits, to, source):
        if source.startswith("{"):               # two halves into one register
            low, high = (self.as_type(o, "i16") for o in _split(source[1:-1]))
            low, high = (self.emit(f"zext i16 {v} to i32") for v in (low, high))
            high = self.emit(f"shl i32 {high}, 16")
            return self.put(to, self.emit(f"or i32 {low}, {high}"), "i32")
        if to.startswith("{"):
            value = self.as_type(source, "i32")
            for place, register in enumerate(_split(to[1:-1])):
                part = self.emit(f"lshr i32 {value}, {16 * place}")
                self.put(register, self.emit(f"trunc i32 {part} to i16"), "i16")
            return None
        return self.put(to, *self.value(source))

    def call(self, name, result, to, *arguments):
        """to = @emu.name(arguments given as "type value")."""
        self.put(to, self.emit(f"call {result} @emu.{name}({', '.join(arguments)})"), result)

    def approximate(self, fits, to, x):
        self.call(f"approximate.{fits.group(1)}", "float", to, f"float {self.as_type(x, 'float')}")

    def special(self, fits, to):
        self.call("activemask", "i32", to)

    def convert(self, fits, to, *sources):
        target, source = fits.groups()
        if target in ("f16x2", "bf16x2"):        # the first operand is the upper half
            high, low = (self.half_of(self.as_type(x, "float"), target[:-2]) for x in sources)
            high, low = (self.emit(f"zext i16 {v} to i32") for v in (high, low))
            high = self.emit(f"shl i32 {high}, 16")
            both = self.emit(f"or i32 {high}, {low}")
            self.put(to, both, "i32")
        elif target in ("f16", "bf16"):
            self.put(to, self.half_of(self.as_type(sources[0], "float"), target), "i16")
        elif target == "tf32":
            self.put(to, self.emit(f"and i32 {self.as_type(sources[0], 'i32')}, -8192"), "i32")
        else:
            self.put(to, self.float_of(self.as_type(sources[0], "i16"), source), "float")

    def half_of(self, value, kind):
        return self.emit(f"call i16 @emu.{kind}.of.f32(float {value})")

    def float_of(self, value, kind):
        return self.emit(f"call float @emu.f32.of.{kind}(i16 {value})")

    def half_arithmetic(self, fits, to, *operands):
        """Computed in float32, each value rounded once; x2: both halves."""
        operation, kind, two = fits.groups()
        width, parts = ("i32", 2) if two else ("i16", 1)
        given = [self.as_type(o, width) for o in operands]
        answer = None
        for part in range(parts):
            halves = [self.emit(f"trunc i32 {self.emit(f'lshr i32 {v}, {16 * part}')} to i16") if two else v
                      for v in given]
            floats = ", ".join(f"float {self.float_of(h, kind)}" for h in halves)
            made = self.half_of(self.emit(f"call float @emu.half.{operation}({floats})"), kind)
            if two:
                made = self.emit(f"shl i32 {self.emit(f'zext i16 {made} to i32')}, {16 * part}")
            answer = made if answer is None else self.emit(f"or i32 {answer}, {made}")
        self.put(to, answer, width)

    def mma(self, fits, d, a, b, c):
        shape, kind = fits.groups()
        given = [f"i32 {self.as_type(o, 'i32')}" for group in (a, b) for o in _split(group.strip("{} "))]
        given += [f"float {self.as_type(o, 'float')}" for o in _split(c.strip("{} "))]
        result = "{float, float, float, float}"
        whole = self.emit(f"call {result} @emu.mma.{shape}.{kind}({', '.join(given)})")
        self.spread(whole, result, "float", d)

    def ldmatrix(self, fits, to, address):
        number, transposed = int(fits.group(1)), fits.group(2) or ""
        value = self.emit(f"trunc i64 {self.address(address)} to i32")
        result = "i32" if number == 1 else "{" + ", ".join(["i32"] * number) + "}"
        whole = self.emit(f"call {result} @emu.ldmatrix.x{number}{transposed}(i32 {value})")
        if number == 1:
            self.put(to.strip("{} "), whole, "i32")
        else:
            self.spread(whole, result, "i32", to)

    def spread(self, whole, result, kind, registers):
        for place, register in enumerate(_split(registers.strip("{} "))):
            self.put(register, self.emit(f"extractvalue {result} {whole}, {place}"), kind)

    def async_copy(self, fits, to, source, size, read=None):
        bytes_ = self.as_type(size, "i64")
        read = self.as_type(read, "i64") if read else bytes_
        self.say(f"call void @emu.async.copy(i64 {self.address(to)}, i64 {self.address(source)}, i64 {bytes_}, "
                 f"i64 {read})")

    def async_commit(self, fits):
        self.say("call void @emu.async.commit()")

    def async_wait(self, fits, left="0"):
        if not left.strip().isdigit():
            raise self.unknown(left)
        self.say(f"call void @emu.async.wait(i64 {left if 'group' in fits.group(0) else -1})")

    def load(self, fits, to, address):
        number, kind = int(fits.group(2) or 1), WIDTH[fits.group(3)]
        pointer = self.emit(f"inttoptr i64 {self.address(address)} to ptr")
        if number == 1:
            return self.put(to, self.emit(f"load {kind}, ptr {pointer}, align 1"), kind)
        whole = self.emit(f"load <{number} x {kind}>, ptr {pointer}, align 1")
        for place, register in enumerate(_split(to.strip("{} "))):
            self.put(register, self.emit(f"extractelement <{number} x {kind}> {whole}, i32 {place}"), kind)
        return None

    def store(self, fits, address, source):
        number, kind = int(fits.group(2) or 1), WIDTH[fits.group(3)]
        pointer = self.emit(f"inttoptr i64 {self.address(address)} to ptr")
        if number == 1:
            return self.say(f"store {kind} {self.as_type(source, kind)}, ptr {pointer}, align 1")
        whole = "undef"
        for place, register in enumerate(_split(source.strip("{} "))):
            whole = self.emit(f"insertelement <{number} x {kind}> {whole}, {kind} {self.as_type(register, kind)}, "
                              f"i32 {place}")
        return self.say(f"store <{number} x {kind}> {whole}, ptr {pointer}, align 1")

    def compare(self, fits, to, a, b):
        kind = WIDTH[fits.group(2)]
        condition = COMPARISON[fits.group(1)]
        if fits.group(2)[0] == "u" and condition[0] == "s":
            condition = "u" + condition[1:]
        self.put(to, self.emit(f"icmp {condition} {kind} {self.as_type(a, kind)}, {self.as_type(b, kind)}"), "i1")

    def choose(self, fits, to, a, b, predicate):
        kind = WIDTH[fits.group(1)]
        self.put(to, self.emit(f"select i1 {self.as_type(predicate, 'i1')}, {kind} {self.as_type(a, kind)}, {kind} "
                               f"{self.as_type(b, kind)}"), kind)

    def same(self, fits, to, source):
        self.put(to, *self.value(source))

    def fence(self, fits, *_):
        self.say("call void @emu.fence()")

    def barrier(self, fits, number="0"):
        if number.strip() != "0":
            raise self.unknown(f"bar.sync {number}")
        self.say("call void @emu.barrier()")

    def warp_barrier(self, fits, mask):
        self.say(f"call void @emu.syncwarp(i32 {self.as_type(mask, 'i32')})")

    def nothing(self, fits, *_):
        pass


def _split(text):
    """Operands at the commas outside braces and brackets."""
    parts = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", text)
    return [p.strip() for p in parts if p.strip()]


_CACHING = r"(?:\.(?:nc|ca|cg|cs|lu|cv|wb|wt|weak|relaxed|volatile|L1::\w+|L2::\w+))*"
_STATEMENTS = (
    (r"mov\.\w+", Statements.move),
    (r"cvta(?:\.to)?\.\w+\.\w+", Statements.same),
    (r"(tanh|ex2|lg2|rcp|rsqrt|sqrt|sin|cos)\.(?:approx|rn)(?:\.ftz)?\.f32", Statements.approximate),
    (r"cvt(?:\.r\w+)?(?:\.satfinite)?(?:\.ftz)?\.(f16x2|bf16x2|f16|bf16|tf32)\.(f32)", Statements.convert),
    (r"cvt(?:\.ftz)?\.(f32)\.(f16|bf16)", Statements.convert),
    (r"(add|sub|mul|fma|neg|abs|min|max)(?:\.rn)?(?:\.ftz)?\.(f16|bf16)(x2)?", Statements.half_arithmetic),
    (r"mma\.sync\.aligned\.(m16n8k\d+)\.row\.col\.f32\.(f16|bf16|tf32)\.\2\.f32", Statements.mma),
    (r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared(?:::cta)?\.b16", Statements.ldmatrix),
    (r"cp\.async\.c[ag]\.shared(?:::cta)?\.global(?:\.L2::\w+)?", Statements.async_copy),
    (r"cp\.async\.commit_group", Statements.async_commit),
    (r"cp\.async\.wait_(?:group|all)", Statements.async_wait),
    (r"ld\.(global|shared)(?:::cta)?" + _CACHING + r"(?:\.v([24]))?\.(\w+)", Statements.load),
    (r"st\.(global|shared)(?:::cta)?" + _CACHING + r"(?:\.v([24]))?\.(\w+)", Statements.store),
    (r"setp\.(\w+)\.(\w+)", Statements.compare),
    (r"selp\.(\w+)", Statements.choose),
    (r"activemask\.b32", Statements.special),
    (r"membar\.\w+|fence\..*", Statements.fence),
    (r"bar\.sync|barrier\.sync(?:\.aligned)?", Statements.barrier),
    (r"bar\.warp\.sync", Statements.warp_barrier),
    (r"nanosleep\.u32|prefetch.*", Statements.nothing),
)
RUNTIME = """declare float @tanhf(float)
declare float @exp2f(float)
declare float @log2f(float)
declare float @sinf(float)
declare float @cosf(float)
declare float @llvm.fma.f32(float, float, float)
declare float @llvm.minnum.f32(float, float)
declare float @llvm.maxnum.f32(float, float)
define float @emu.f32.of.f16(i16 %x) alwaysinline {
  %h = bitcast i16 %x to half
  %r = fpext half %h to float
  ret float %r
}
define i16 @emu.f16.of.f32(float %x) alwaysinline {
  %h = fptrunc float %x to half
  %r = bitcast half %h to i16
  ret i16 %r
}
define float @emu.f32.of.bf16(i16 %x) alwaysinline {
  %w = zext i16 %x to i32
  %s = shl i32 %w, 16
  %r = bitcast i32 %s to float
  ret float %r
}
define i16 @emu.bf16.of.f32(float %x) alwaysinline {
  %b = bitcast float %x to i32
  %h = lshr i32 %b, 16
  %o = and i32 %h, 1
  %n = add i32 %o, 32767
  %s = add i32 %b, %n
  %u = lshr i32 %s, 16
  %nan = fcmp uno float %x, 0.0
  %q = or i32 %h, 64
  %v = select i1 %nan, i32 %q, i32 %u
  %r = trunc i32 %v to i16
  ret i16 %r
}
"""


def runtime():
    """The functions that translated statements call, as IR."""
    text = RUNTIME
    for name, line in (
            ("tanh", "call float @tanhf(float %x)"), ("ex2", "call float @exp2f(float %x)"),
            ("lg2", "call float @log2f(float %x)"), ("sin", "call float @sinf(float %x)"),
            ("cos", "call float @cosf(float %x)"), ("sqrt", "call float @llvm.sqrt.f32(float %x)"),
            ("rcp", "fdiv float 1.0, %x"), ("rsqrt", "call float @emu.nv.rsqrtf(float %x)")):
        text += f"define float @emu.approximate.{name}(float %x) alwaysinline {{\n  %r = {line}\n  ret float %r\n}}\n"
    for name, number, line in (
            ("add", 2, "fadd float %a0, %a1"), ("sub", 2, "fsub float %a0, %a1"), ("mul", 2, "fmul float %a0, %a1"),
            ("fma", 3, "call float @llvm.fma.f32(float %a0, float %a1, float %a2)"), ("neg", 1, "fneg float %a0"),
            ("abs", 1, "call float @llvm.fabs.f32(float %a0)"),
            ("min", 2, "call float @llvm.minnum.f32(float %a0, float %a1)"),
            ("max", 2, "call float @llvm.maxnum.f32(float %a0, float %a1)")):
        listed = ", ".join(f"float %a{i}" for i in range(number))
        text += f"define float @emu.half.{name}({listed}) alwaysinline {{\n  %r = {line}\n  ret float %r\n}}\n"
    return text
