"""`@part`: a function that becomes part of the compiled entries that call it. All CPU kernels are parts.

Numba optimises an `@njit` function and makes machine code of it, and again inside every caller, and inside the
caller's callers. For a kernel put together from a dozen functions and tile variants that is most of the compile time.
A part is typed and lowered once for each signature; LLVM sees it first in the entry, where it is needed.

A part allocates nothing, as all memory is planned: `np.empty` is refused when the entry is compiled, and so is (with
Numba's words, "NRT required") `a[i] = b` of two arrays, which may overlap. So nothing counts references to arrays.
"""
import functools
from types import CodeType

from llvmlite import ir
from numba import config, njit
from numba.core import compiler, lowering, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.datamodel import models
from numba.core.dispatcher import _FunctionCompiler
from numba.core.imputils import lower_constant
from numba.core.registry import CPUDispatcher
from numba.extending import register_model

INTERLEAVED = 4                              # vectors of a loop that are computed at once


class _InterleavedLower(lowering.Lower):
    """Marks the branches that close loops. The mark is lost where a loop ends with the call of another part: LLVM moves
    the test of what that returned into the branch."""

    def post_lower(self):
        super().post_lower()
        for place, block in enumerate(self.function.blocks):
            end = block.terminator
            if isinstance(end, ir.Branch) and end.operands[0] in self.function.blocks[:place + 1]:
                end.set_metadata("llvm.loop", self._hint())

    def _hint(self):
        """A node that names a loop has itself as its first operand."""
        count = self.module.add_metadata(["llvm.loop.interleave.count", ir.IntType(32)(INTERLEAVED)])
        node = ir.values.MDValue(self.module, (), str(len(self.module.metadata)))
        node.operands = node, count
        return node


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):
    """Without counting references. (If it were said before type inference, Numba would refuse functions that return
    part of an array.)"""
    _name = "lowering"

    def run_pass(self, state):
        state.targetctx.enable_nrt = False
        return super().run_pass(state)


@register_pass(mutates_CFG=True, analysis_only=False)
class _InterleavedLowering(_Lowering):
    _name = "interleaved_lowering"
    lowering_class = _InterleavedLower


class _Pipeline(compiler.CompilerBase):
    """The steps of Numba that kernels need. Left out are those for functions inside functions, `with`, array
    expressions, `literally` and `literal_unroll`: a tenth of the compile time."""
    STEPS = (untyped_passes.TranslateByteCode, untyped_passes.FixupArgs, untyped_passes.IRProcessing,
             untyped_passes.RewriteSemanticConstants, untyped_passes.DeadBranchPrune, untyped_passes.GenericRewrites,
             untyped_passes.ReconstructSSA, untyped_passes.DeadBranchPrune, typed_passes.NopythonTypeInference,
             typed_passes.PreLowerStripPhis, typed_passes.IRLegalization, typed_passes.AnnotateTypes,
             _Lowering, typed_passes.NoPythonBackend)

    def define_pipelines(self):
        manager = PassManager("kernel")
        for step in self.STEPS:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


class _Interleaved(_Pipeline):
    STEPS = tuple(_InterleavedLowering if step is _Lowering else step for step in _Pipeline.STEPS)


def pipeline_of(function):
    """Numba's steps for a function: all of them where it has functions (or comprehensions) inside."""
    inside = any(isinstance(constant, CodeType) for constant in function.__code__.co_consts)
    return compiler.Compiler if inside else _Pipeline


class Ingredients(JITCodeLibrary):
    """LLVM code that is only ever linked into other libraries: not optimised as a whole, no machine code."""

    def finalize(self):
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True


class PartCompiler(_FunctionCompiler):
    disjoint = apart = interleaved = False

    def _compile_core(self, args, return_type):
        context = self.targetdescr.target_context
        library = Ingredients(context.codegen(), self.py_func.__qualname__)
        result = compiler.compile_extra(self.targetdescr.typing_context, context, self.py_func, args=args,
                                        return_type=return_type, flags=flags_of(self), locals={}, library=library,
                                        pipeline_class=_Interleaved if self.interleaved else pipeline_of(self.py_func))
        if self.apart:
            function = library._final_module.get_function(result.fndesc.llvm_func_name)
            function.add_function_attribute("noinline")
        key = object()                       # Numba finds a function's implementation by its entry point: here a name
        context.insert_user_function(key, result.fndesc, [library])
        return result._replace(entry_point=key)


def flags_of(part_compiler):
    """Numba's flags for a part: no wrappers, and no machine code before it is linked."""
    flags = compiler.Flags()
    part_compiler.targetdescr.options.parse_as_flags(flags, part_compiler.targetoptions)
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.noalias = part_compiler.disjoint
    return flags


class PartType(types.Dispatcher):
    """The Numba type of a part (or a formula) that is handed to another part. A plain dispatcher would become the
    address of a Python object in the machine code, which cannot be cached on disk; this carries no data."""

    def __init__(self, dispatcher, name):
        super().__init__(dispatcher)
        self.name = name


register_model(PartType)(models.OpaqueModel)


@lower_constant(PartType)
def _no_data(context, builder, numba_type, value):
    return context.get_dummy_value()


class Part(CPUDispatcher):
    """A function that entries and other parts call like an `@njit` function; called from Python it is one."""
    compiler = PartCompiler

    def __init__(self, py_func, disjoint=False, apart=False, interleaved=False, **options):
        self._options = {"error_model": "numpy", **options}
        super().__init__(py_func, targetoptions={"nopython": True, "boundscheck": None, **self._options})
        self._compiler = self.compiler(py_func, self.targetdescr, self.targetoptions, {}, compiler.Compiler)
        self._compiler.disjoint, self._compiler.apart, self._compiler.interleaved = disjoint, apart, interleaved
        self._compiled = None

    @functools.cached_property
    def _numba_type_(self):
        return PartType(self, f"Part({self.py_func.__module__}.{self.py_func.__qualname__})")

    def compile(self, sig):
        return super().compile(tuple(types.unliteral(a) for a in sig))

    def add_overload(self, result):
        self.overloads[tuple(result.signature.args)] = result        # nothing that Python could call

    def variant(self, arguments, unrolled=True):
        """The compile result for these argument types, literals kept: a function of its own that is not inlined.
        `unrolled`: its loops are unrolled by hand, and LLVM is to make no copies of them; else it may, and checks first
        whether pointers overlap where that lets it compute with vectors."""
        if arguments not in self.overloads:
            super().compile(arguments)
            result = self.overloads[arguments]
            function = result.library._final_module.get_function(result.fndesc.llvm_func_name)
            function.add_function_attribute("noinline")
            if unrolled:
                function.add_function_attribute("optsize")
        return self.overloads[arguments]

    def __call__(self, *arguments):
        if self._compiled is None:
            self._compiled = njit(**self._options)(self.py_func)
        return self._compiled(*arguments)


def part(function=None, *, disjoint=False, apart=False, interleaved=False, **options):
    """Decorator of kernels and of the functions that they call; options are those of `@njit` (fastmath, forceinline).

    disjoint: no array that the function writes overlaps another argument, except that an output may be an input that it
    replaces value by value. Without this promise LLVM compares addresses before each loop, and a loop over an op done
    in place runs one value at a time. Loop over slices that start at the task's first value (`xs = x[first:last]`,
    `for i in range(xs.size)`): an index that might be negative becomes a gather.

    apart: not inlined. A loop whose formula has more constants than fit into the registers has them loaded again for
    every vector, if it stands inside another loop; in a function of its own they are loaded once.

    interleaved: loops work on four vectors at once. In a formula each operation waits for the one before; a processor
    finds what it can do meanwhile in the next vectors, but does not look far enough ahead.
    """
    if function is None:
        return functools.partial(part, disjoint=disjoint, apart=apart, interleaved=interleaved, **options)
    return function if config.DISABLE_JIT else Part(function, disjoint, apart, interleaved, **options)


def as_part(dispatcher):
    """The part of an `@njit` function (itself, where it is one)."""
    if isinstance(dispatcher, Part):
        return dispatcher
    if not hasattr(dispatcher, "part"):
        dispatcher.part = Part(dispatcher.py_func)
    return dispatcher.part
