"""Addresses of float32 values in numba, and prefetching of what lies there.

Numba counts references to arrays at every call, with locked instructions. For rows of a few hundred
channels, that took most of the time. So inner loops are given addresses instead: unsigned integers,
from which :mod:`simd` loads and to which it stores. Nothing here checks bounds.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import jit

__all__ = [
    'address',
    'address_at',
    'hold',
    'pointer_to',
    'prefetch',
    'prefetch_to_write',
    'scratch',
]

_LINE = 16  # values of a cache line
_inline = jit(error_model='numpy', forceinline=True)


def pointer_to(context, builder, kind, place, index, pointee):
    """Return a pointer to element ``index`` of an array, or of the values at an address."""
    data = (
        context.make_array(kind)(context, builder, place).data
        if isinstance(kind, types.Array)
        else builder.inttoptr(place, ir.FloatType().as_pointer())
    )
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


@intrinsic
def address(typingctx, array):
    """Return the address of the first value of an array. It does not keep the array alive."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(
            context.make_array(signature.args[0])(context, builder, arguments[0]).data,
            context.get_value_type(types.uintp),
        )

    return types.uintp(array), generate


@_inline
def address_at(place, index):
    """Return the address of the value ``index`` after the one at an address."""
    return place + np.uintp(4) * np.uintp(index)


@intrinsic
def hold(typingctx, arrays):
    """Keep a tuple of arrays alive up to here, so that their addresses stay valid."""

    def generate(context, builder, signature, arguments):
        return context.get_dummy_value()

    return types.void(arrays), generate


@_inline
def scratch(count):
    """Return an uninitialized array that starts at a cache line.

    A vector that spans two cache lines costs twice.
    """
    memory = np.empty(count + _LINE, np.float32)
    first = -(address(memory) // np.uintp(4)) % np.uintp(_LINE)
    return memory[first : first + np.uintp(count)]


def _prefetch(to_write: int):
    """Return a function for kernels that prefetches a cache line, to be read or written."""

    @intrinsic
    def ask(typingctx, array, index):

        def generate(context, builder, signature, arguments):
            array, index = arguments
            pointer = pointer_to(context, builder, signature.args[0], array, index, ir.IntType(8))
            # To be read or written, kept in all levels of the cache, data and not instructions.
            flags = [ir.Constant(ir.IntType(32), flag) for flag in (to_write, 3, 1)]
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [pointer.type, *(flag.type for flag in flags)]),
                'llvm.prefetch.p0',
            )
            builder.call(function, [pointer, *flags])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return ask


# Prefetch the cache line of ``array[index]``, which may lie outside the array.
prefetch, prefetch_to_write = _prefetch(0), _prefetch(1)
