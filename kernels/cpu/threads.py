"""Parallel loops on torch's own threads.

Numba brings a thread pool of its own. But after each operator, the threads of the other pool would
go on spinning for about a millisecond, on cores that are needed. So loops are run by torch's
OpenMP. Where that cannot be called (Windows), they run on one thread::

    @jit()
    def _lines(begin, end, x, y):  # raises nothing, returns nothing, works on any range
        ...

    @jit()
    def _kernel(count, threads, *arguments):
        fork(_lines, count, threads, arguments)

    _kernel(count, thread_count(count), x, y)
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ['HAS_OPENMP', 'fork', 'thread_count']

_OPENMP = ('GOMP_parallel', 'omp_get_thread_num', 'omp_get_num_threads')


def _find_openmp() -> bool:
    """Make the entry points of torch's OpenMP known to the code that numba compiles."""
    try:
        library = ctypes.CDLL(
            str(next((Path(torch.__file__).parent / 'lib').glob('libtorch_cpu.*')))
        )
        addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _OPENMP]
    except (OSError, AttributeError, StopIteration):
        return False
    for name, address in zip(_OPENMP, addresses, strict=True):
        binding.add_symbol(f'mmwcc_{name}', address)
    return True


HAS_OPENMP = _find_openmp()
_INDEX, _BYTES, _INT = ir.IntType(64), ir.IntType(8).as_pointer(), ir.IntType(32)


def _borrowed(context, builder, kind, value):
    """Return an array, or the arrays in a tuple, without their owners.

    With the owner, all threads would compete to update its reference count.
    """
    if isinstance(kind, types.BaseTuple):
        items = cgutils.unpack_tuple(builder, value)
        items = [
            _borrowed(context, builder, each, item)
            for each, item in zip(kind.types, items, strict=True)
        ]
        return context.make_tuple(builder, kind, items)
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    return array._getvalue()


def _call_of(typingctx, body, arguments):
    """Return the types of the call ``body(begin, end, *arguments)``."""
    return body.get_call_type(typingctx, (types.intp, types.intp, *arguments.types), {})


def _call_body(context, builder, body, call, bounds, arguments) -> None:
    """Emit the call ``body(*bounds, *arguments)``, where ``arguments`` is a tuple."""
    result = body.dispatcher.get_compile_result(call)
    context.active_code_library.add_linking_library(result.library)
    function = context.declare_function(builder.module, result.fndesc)
    values = cgutils.unpack_tuple(builder, arguments)
    values = [
        _borrowed(context, builder, kind, value)
        for kind, value in zip(call.args[2:], values, strict=True)
    ]
    context.call_conv.call_function(
        builder, function, call.return_type, call.args, [*bounds, *values]
    )


@intrinsic
def fork(typingctx, body, count, threads, arguments):
    """Call ``body(begin, end, *arguments)`` on each of ``threads`` threads.

    Each thread gets its part of ``range(count)``.
    """
    call = _call_of(typingctx, body, arguments)

    def generate(context, builder, signature, values):
        # OpenMP calls a C function with one pointer. So the arguments are put in a struct on the
        # stack, and a function is emitted here that unpacks them, works out the range of its thread
        # and calls the body. The caller waits for all threads, so the struct lives long enough.
        _, count, threads, arguments = values
        module = builder.module
        data = cgutils.pack_struct(builder, [count, arguments])
        place = cgutils.alloca_once_value(builder, data)

        part = ir.Function(
            module,
            ir.FunctionType(ir.VoidType(), [_BYTES]),
            name=module.get_unique_name('mmwcc_part'),
        )
        part.linkage = 'internal'
        inner = ir.IRBuilder(part.append_basic_block())
        count, arguments = cgutils.unpack_tuple(
            inner, inner.load(inner.bitcast(part.args[0], place.type))
        )
        ask = ir.FunctionType(_INT, [])
        thread, team = (
            inner.zext(
                inner.call(cgutils.get_or_insert_function(module, ask, f'mmwcc_{name}'), []), _INDEX
            )
            for name in _OPENMP[1:]
        )
        bounds = [
            inner.sdiv(inner.mul(count, edge), team)
            for edge in (thread, inner.add(thread, _INDEX(1)))
        ]
        _call_body(context, inner, body, call, bounds, arguments)
        inner.ret_void()

        run = ir.FunctionType(ir.VoidType(), [part.type, _BYTES, _INT, _INT])
        builder.call(
            cgutils.get_or_insert_function(module, run, f'mmwcc_{_OPENMP[0]}'),
            [part, builder.bitcast(place, _BYTES), builder.trunc(threads, _INT), _INT(0)],
        )
        return context.get_dummy_value()

    return types.void(body, types.intp, types.intp, arguments), generate


# This is an intrinsic too: numba does not cache code that takes a function as an argument.
@intrinsic
def _run_alone(typingctx, body, count, threads, arguments):
    """Call ``body(0, count, *arguments)`` on this thread."""
    call = _call_of(typingctx, body, arguments)

    def generate(context, builder, signature, values):
        _call_body(context, builder, body, call, [values[1].type(0), values[1]], values[3])
        return context.get_dummy_value()

    return types.void(body, types.intp, types.intp, arguments), generate


if not HAS_OPENMP:
    fork = _run_alone


def thread_count(count: int) -> int:
    """Return how many threads run a loop of ``count`` steps, at least 1.

    These are as many as torch uses, but no more than there are steps.
    """
    return max(1, min(torch.get_num_threads(), count))
