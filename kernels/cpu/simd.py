"""Vectors of 16 float32 for numba: loads, stores and arithmetic.

Numba's own vectorizer must first prove, at run time and for every pair of rows, that the reads and
writes of a loop do not overlap. For rows of a few hundred channels, that costs more than the
arithmetic. So the inner loops of the Haar kernels state explicitly what a vector is::

    a, b = load(x, i, mask), load(x, j, mask)
    store(y, i, (a + b) * splat(half), mask)

``mask`` is None for 16 values, or what :func:`first_lanes` returns for the last few. LLVM splits
vectors into what the processor has. Nothing here checks bounds.

Arrays may be given by their addresses, see :mod:`addresses`.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from .addresses import pointer_to

__all__ = [
    'FLOATS',
    'LANES',
    'clamp',
    'first_lanes',
    'load',
    'only',
    'read',
    'rounded',
    'splat',
    'store',
    'stream',
    'total',
    'vector',
]

LANES = 16
FLOATS = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f'float32x{LANES}')


class _Mask(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f'bool x{LANES}')


vector, _mask = _Vector(), _Mask()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, FLOATS)


@register_model(_Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, _BITS)


def _masked(builder, action: str, arguments: list, result):
    """Call LLVM's masked load or store of 16 float32.

    It does not touch memory where the mask is false.
    """
    kinds = [argument.type for argument in arguments]
    name = f'llvm.masked.{action}.v{LANES}f32.p0'
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments)


_ALIGNMENT = ir.Constant(ir.IntType(32), 4)  # bytes: vectors may start at any float32


def read(builder, pointer, mask):
    """Read 16 values at a pointer; with a mask, zeros where it is false."""
    if isinstance(mask.type, ir.VectorType):
        return _masked(
            builder, 'load', [pointer, _ALIGNMENT, mask, ir.Constant(FLOATS, [0.0] * LANES)], FLOATS
        )
    return builder.load(pointer, align=4)


@intrinsic
def load(typingctx, array, index, mask):
    """Read 16 values from ``array[index]`` on; with a mask, zeros where it is false."""

    def generate(context, builder, signature, arguments):
        array, index, mask = arguments
        return read(
            builder, pointer_to(context, builder, signature.args[0], array, index, FLOATS), mask
        )

    return vector(array, types.uintp, mask), generate


@intrinsic
def store(typingctx, array, index, value, mask):
    """Write 16 values from ``array[index]`` on; with a mask, those where it is true."""

    def generate(context, builder, signature, arguments):
        array, index, value, mask = arguments
        pointer = pointer_to(context, builder, signature.args[0], array, index, FLOATS)
        if isinstance(mask.type, ir.VectorType):
            _masked(builder, 'store', [value, pointer, _ALIGNMENT, mask], ir.VoidType())
        else:
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.uintp, vector, mask), generate


@intrinsic
def stream(typingctx, array, index, value):
    """Write 16 values past the cache, from ``array[index]`` on.

    They fill a cache line: the address must be a multiple of 64.
    """

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        write = builder.store(
            value, pointer_to(context, builder, signature.args[0], array, index, FLOATS), align=64
        )
        write.set_metadata(
            'nontemporal', builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        )
        return context.get_dummy_value()

    return types.void(array, types.uintp, vector), generate


def _broadcast(builder, value, kind):
    """Return a vector with the value in all 16 lanes."""
    single = builder.insert_element(
        ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    return builder.shuffle_vector(
        single, ir.Constant(kind, ir.Undefined), ir.Constant(_INTEGERS, [0] * LANES)
    )


@intrinsic
def splat(typingctx, value):
    """Return a vector with the value in all 16 lanes."""

    def generate(context, builder, signature, arguments):
        return _broadcast(builder, arguments[0], FLOATS)

    return vector(types.float32), generate


@intrinsic
def first_lanes(typingctx, count):
    """Return the mask that is true in the first ``count`` lanes."""

    def generate(context, builder, signature, arguments):
        count = builder.trunc(arguments[0], ir.IntType(32))
        lanes = ir.Constant(_INTEGERS, list(range(LANES)))
        return builder.icmp_unsigned('<', lanes, _broadcast(builder, count, _INTEGERS))

    return _mask(types.uintp), generate


@intrinsic
def only(typingctx, value, mask):
    """Return the vector with zeros where the mask is false, or as it is if the mask is None."""

    def generate(context, builder, signature, arguments):
        value, mask = arguments
        if isinstance(mask.type, ir.VectorType):
            return builder.select(mask, value, ir.Constant(FLOATS, [0.0] * LANES))
        return value

    return vector(vector, mask), generate


@intrinsic
def clamp(typingctx, value, low, high):
    """Return the vector clamped to ``low ... high``. NaN stays NaN."""

    def generate(context, builder, signature, arguments):
        value, low, high = arguments
        value = builder.select(builder.fcmp_ordered('<', value, low), low, value)
        return builder.select(builder.fcmp_ordered('>', value, high), high, value)

    return vector(vector, vector, vector), generate


@intrinsic
def total(typingctx, value):
    """Return the sum of the 16 values, by repeatedly adding one half to the other."""

    def generate(context, builder, signature, arguments):
        value, width = arguments[0], LANES
        while width > 1:
            width //= 2
            pick = ir.VectorType(ir.IntType(32), width)
            halves = [
                builder.shuffle_vector(
                    value,
                    ir.Constant(value.type, ir.Undefined),
                    ir.Constant(pick, list(range(start, start + width))),
                )
                for start in (0, width)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector), generate


@intrinsic
def rounded(typingctx, value):
    """Return the vector rounded to integers, halves to even."""

    def generate(context, builder, signature, arguments):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(FLOATS, [FLOATS]), f'llvm.rint.v{LANES}f32'
        )
        return builder.call(function, arguments)

    return vector(vector), generate


def _define(operation, instruction: str) -> None:
    """Make an operation of Python on two vectors an instruction of LLVM."""

    @intrinsic
    def apply(typingctx, a, b):

        def generate(context, builder, signature, arguments):
            # Products may be fused into sums. Transforms do not change, since halving is exact, and
            # norms only need to be accurate.
            return getattr(builder, instruction)(*arguments, flags=('contract',))

        return vector(vector, vector), generate

    @overload(operation)
    def choose(a, b):
        if a is vector and b is vector:
            return lambda a, b: apply(a, b)
        return None


for _operation, _instruction in (
    (operator.add, 'fadd'),
    (operator.sub, 'fsub'),
    (operator.mul, 'fmul'),
    (operator.truediv, 'fdiv'),
):
    _define(_operation, _instruction)
