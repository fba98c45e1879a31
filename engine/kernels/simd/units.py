"""`@unit`: a part that is machine code of its own, called by name; `hook`: a function that a unit is to call.

A part is compiled into every entry that calls it. That is too much for the heart of the matrix product: some ten tile
variants, which dense layers, products and convolutions share. A unit is compiled once for each signature, cached on
disk by itself, and an entry holds no more than its symbol. Numba keeps in a cached entry what has to be done before it
is loaded (`reload_init`): here, loading the unit, or compiling it where the cache has lost it.

What a unit should not know at its compile time, a formula above all, is a *hook*: the address of a function that the
caller has inside.
"""
import ctypes
import functools
import importlib

from llvmlite import binding, ir
from numba.core import cgutils, compiler, funcdesc, itanium_mangler, types, typing
from numba.core.caching import NullCache
from numba.extending import intrinsic

from engine.kernels.cache import alone, cache_of
from engine.kernels.simd.parts import (
    Ingredients,
    Part,
    PartCompiler,
    as_part,
    flags_of,
    pipeline_of,
)
from engine.kernels.simd.tile_type import I64
from engine.progress import compiling


class _Symbols(Ingredients):
    """Links nothing into a caller, which finds a unit by its symbol; says what to do before the caller is loaded."""

    def _get_module_for_linking(self):
        return binding.parse_assembly("")


class _Others:
    """In a process that compiles for another one: who is told of a unit (module, name, argument types) that it meets
    and leaves to whoever is free. What it compiles itself is never run there."""
    asked = None


others = _Others()


class _UnitCompiler(PartCompiler):

    def _compile_core(self, args, return_type):
        """What callers need: the types, the symbol and what is to be done before they are loaded."""
        context, function = self.targetdescr.target_context, self.py_func
        symbol, address = self.symbol(args), self.address(args)
        if address is None:
            others.asked(function.__module__, function.__qualname__, args)
            address = ctypes.cast(ctypes.pythonapi.abort, ctypes.c_void_p).value
        binding.add_symbol(symbol, address)
        symbols = _Symbols(context.codegen(), symbol)
        symbols._reload_init.add(functools.partial(_load, function.__module__, function.__qualname__, args))
        key, known = object(), funcdesc.ExternalFunctionDescriptor(symbol, types.none, args)
        context.insert_user_function(key, known, [symbols])
        return compiler.compile_result(signature=typing.signature(types.none, *args), fndesc=known, library=symbols,
                                       entry_point=key, objectmode=False)

    @property
    def name(self):
        return f"{self.py_func.__module__}.{self.py_func.__qualname__}"

    def symbol(self, args):
        return itanium_mangler.mangle(self.name, args)

    def address(self, args, left=True):
        """Where the unit's machine code is, from the cache or compiled now; None if it is `left` to others."""
        cache, signature = cache_of(self.py_func), typing.signature(types.none, *args)
        context, symbol = self.targetdescr.target_context, self.symbol(args)
        made = cache.load_overload(signature, context)
        if made is None and left and others.asked and not isinstance(cache, NullCache):
            return None
        if made is None:
            with alone(self.name):
                made = cache.load_overload(signature, context)           # by another process meanwhile?
                if made is None:
                    with compiling.of(self.name.replace(".", "_")):
                        made = self._compile_unit(symbol, args)
                        cache.save_overload(signature, made)
        return made.library.get_pointer_to_function(symbol)

    def _compile_unit(self, symbol, args):
        context = self.targetdescr.target_context
        library = context.codegen().create_library(symbol)
        library.enable_object_caching()
        made = compiler.compile_extra(self.targetdescr.typing_context, context, self.py_func, args=args,
                                      return_type=types.none, flags=flags_of(self), locals={}, library=library,
                                      pipeline_class=pipeline_of(self.py_func))
        # Numba's own name counts the functions of this process: another process would not find it
        library._final_module.get_function(made.fndesc.llvm_func_name).name = symbol
        made.fndesc.mangled_name = symbol
        library.finalize()
        made.reload_init.extend(library._reload_init)
        return made


def _load(module, name, args):
    """Makes the symbol of a unit known; called by Numba before it loads code that needs it."""
    getattr(importlib.import_module(module), name).compile(args)


class Unit(Part):
    """See the module's text. A unit returns nothing, and no argument is a formula."""
    compiler = _UnitCompiler

    def make(self, args):
        """Leaves the unit for these argument types in the cache."""
        self._compiler.address(args, left=False)


def unit(function):
    """Decorator of a part that is compiled by itself and called by its symbol."""
    return Unit(function)


@intrinsic
def hook(typing, function, call, f, g):
    """The address of a function that, called with values of the types of the tuple `call`, calls
    function(*those, f, g), where f and g are formulas or None."""
    def codegen(context, builder, sig, args):
        made = as_part(function.dispatcher).variant((*call, f, g), unrolled=False)
        context.active_code_library.add_linking_library(made.library)
        kind = context.call_conv.get_function_type(types.none, tuple(call))
        caller = cgutils.get_or_insert_function(builder.module, kind, f"hook.{made.fndesc.mangled_name}")
        if caller.is_declaration:
            caller.linkage = "internal"
            inside = ir.IRBuilder(caller.append_basic_block())
            values = [*caller.args[2:], *(context.get_dummy_value() for _ in (f, g))]
            status, _ = context.call_internal_no_propagate(inside, made.fndesc, made.signature, values)
            inside.ret(status.code)
        return builder.ptrtoint(caller, I64)
    return types.int64(function, call, f, g), codegen


@intrinsic
def call_hook(typing, address, call):
    """Calls the function of a `hook` with the values of the tuple `call`."""
    def codegen(context, builder, sig, args):
        kind = context.call_conv.get_function_type(types.none, tuple(call))
        values = cgutils.unpack_tuple(builder, args[1], len(call))
        context.call_conv.call_function(builder, builder.inttoptr(args[0], kind.as_pointer()), types.none, tuple(call),
                                        values)
        return context.get_dummy_value()
    return types.void(types.int64, call), codegen


@intrinsic
def call_entry(typing, entry, block, task, tasks):
    """Calls the entry at address `entry` on the block at address `block`."""
    def codegen(context, builder, sig, args):
        words = I64.as_pointer()
        function = builder.inttoptr(args[0], ir.FunctionType(ir.VoidType(), [words, I64, I64]).as_pointer())
        builder.call(function, [builder.inttoptr(args[1], words), args[2], args[3]])
        return context.get_dummy_value()
    return types.void(types.int64, types.int64, types.int64, types.int64), codegen
