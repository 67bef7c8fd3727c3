"""Vectors of 16 float32 for numba: loads, stores, arithmetic, and the transposition of tiles.

Numba's own vectorizer must first prove, at run time and for every pair of rows, that a loop's reads and writes do not
overlap. For rows of some hundred channels that costs more than the arithmetic, so the inner loops of the Haar kernels
say themselves what a vector is::

    a, b = load(x, i, mask), load(x, j, mask)
    store(y, i, (a + b) * splat(half), mask)

``mask`` is None for 16 values, or what :func:`first_lanes` returns for the last few. LLVM cuts vectors into what the
processor has. Nothing here checks bounds. Arrays may be given by their :func:`address`: numba counts references to
arrays at every call, with locked instructions, which took most of the time of rows of some hundred channels.
"""
from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    'LANES', 'address', 'clamp', 'first_lanes', 'hold', 'load', 'load_either', 'only', 'prefetch', 'splat', 'store',
    'stream', 'total', 'transpose_tile'
]

LANES = 16
_LANES = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_TILE = ir.VectorType(ir.FloatType(), 8)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)


class _Vector(types.Type):

    def __init__(self) -> None:
        super().__init__(name=f'float32x{LANES}')


class _Mask(types.Type):

    def __init__(self) -> None:
        super().__init__(name=f'bool x{LANES}')


_vector, _mask = _Vector(), _Mask()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):

    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, _LANES)


@register_model(_Mask)
class _MaskModel(models.PrimitiveModel):

    def __init__(self, manager, kind) -> None:
        super().__init__(manager, kind, _BITS)


def _address(context, builder, kind, place, index, pointee):
    """Return a pointer to element ``index`` of an array, or of the values at an address."""
    data = (context.make_array(kind)(context, builder, place).data if isinstance(kind, types.Array) else
            builder.inttoptr(place, ir.FloatType().as_pointer()))
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def _masked(builder, action: str, arguments: list, result):
    kinds = [argument.type for argument in arguments]
    name = f'llvm.masked.{action}.v{LANES}f32.p0'
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments)


_ALIGNMENT = ir.Constant(ir.IntType(32), 4)


def _read(builder, pointer, mask):
    if isinstance(mask.type, ir.VectorType):
        return _masked(builder, 'load', [pointer, _ALIGNMENT, mask, ir.Constant(_LANES, [0.0] * LANES)], _LANES)
    return builder.load(pointer, align=4)


@intrinsic
def address(typingctx, array):
    """Return where the values of an array begin: what :func:`load` and :func:`store` take, without its owner."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(context.make_array(signature.args[0])(context, builder, arguments[0]).data,
                                context.get_value_type(types.uintp))

    return types.uintp(array), generate


@intrinsic
def hold(typingctx, arrays):
    """Keep a tuple of arrays alive up to here, for the sake of their addresses."""

    def generate(context, builder, signature, arguments):
        return context.get_dummy_value()

    return types.void(arrays), generate


@intrinsic
def load(typingctx, array, index, mask):
    """Read 16 values from ``array[index]`` on; with a mask, zeros where it is false."""

    def generate(context, builder, signature, arguments):
        array, index, mask = arguments
        return _read(builder, _address(context, builder, signature.args[0], array, index, _LANES), mask)

    return _vector(array, types.uintp, mask), generate


@intrinsic
def load_either(typingctx, condition, array, index, other, other_index, mask):
    """Read 16 values from ``array[index]`` on if the condition holds, else from ``other[other_index]`` on."""

    def generate(context, builder, signature, arguments):
        condition, array, index, other, other_index, mask = arguments
        pointer = builder.select(condition, _address(context, builder, signature.args[1], array, index, _LANES),
                                 _address(context, builder, signature.args[3], other, other_index, _LANES))
        return _read(builder, pointer, mask)

    return _vector(types.boolean, array, types.uintp, other, types.uintp, mask), generate


@intrinsic
def store(typingctx, array, index, value, mask):
    """Write 16 values from ``array[index]`` on; with a mask, those where it is true."""

    def generate(context, builder, signature, arguments):
        array, index, value, mask = arguments
        pointer = _address(context, builder, signature.args[0], array, index, _LANES)
        if isinstance(mask.type, ir.VectorType):
            _masked(builder, 'store', [value, pointer, _ALIGNMENT, mask], ir.VoidType())
        else:
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.uintp, _vector, mask), generate


@intrinsic
def stream(typingctx, array, index, value):
    """Write 16 values to a cache line, ``array[index]`` on, past the cache; its address must be a multiple of 64."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        write = builder.store(value, _address(context, builder, signature.args[0], array, index, _LANES), align=64)
        write.set_metadata('nontemporal', builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(array, types.uintp, _vector), generate


def _broadcast(builder, value, kind):
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), ir.Constant(_INTEGERS, [0] * LANES))


@intrinsic
def splat(typingctx, value):
    """Return a vector of 16 times the value."""

    def generate(context, builder, signature, arguments):
        return _broadcast(builder, arguments[0], _LANES)

    return _vector(types.float32), generate


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
    """Return the vector with zeros where the mask is false; the vector itself if the mask is None."""

    def generate(context, builder, signature, arguments):
        value, mask = arguments
        if isinstance(mask.type, ir.VectorType):
            return builder.select(mask, value, ir.Constant(_LANES, [0.0] * LANES))
        return value

    return _vector(_vector, mask), generate


@intrinsic
def clamp(typingctx, value, low, high):
    """Return the vector within ``low ... high``; NaN stays NaN."""

    def generate(context, builder, signature, arguments):
        value, low, high = arguments
        value = builder.select(builder.fcmp_ordered('<', value, low), low, value)
        return builder.select(builder.fcmp_ordered('>', value, high), high, value)

    return _vector(_vector, _vector, _vector), generate


@intrinsic
def total(typingctx, value):
    """Return the sum of the 16 values, halves onto halves."""

    def generate(context, builder, signature, arguments):
        value, width = arguments[0], LANES
        while width > 1:
            width //= 2
            pick = ir.VectorType(ir.IntType(32), width)
            halves = [builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined),
                                             ir.Constant(pick, list(range(start, start + width))))
                      for start in (0, width)]
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(_vector), generate


def _define(operation, instruction: str) -> None:

    @intrinsic
    def apply(typingctx, a, b):

        def generate(context, builder, signature, arguments):
            # Products may be fused into sums: halving is exact, and norms only need to be accurate.
            return getattr(builder, instruction)(*arguments, flags=('contract', ))

        return _vector(_vector, _vector), generate

    @overload(operation)
    def choose(a, b):
        if a is _vector and b is _vector:
            return lambda a, b: apply(a, b)
        return None


for _operation, _instruction in ((operator.add, 'fadd'), (operator.sub, 'fsub'), (operator.mul, 'fmul')):
    _define(_operation, _instruction)


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of ``array[index]``, which may lie outside of the array."""

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, signature.args[0], *arguments, ir.IntType(8))
        flags = [ir.Constant(ir.IntType(32), flag) for flag in (0, 3, 1)]  # to read, into all levels, data
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer.type, *(flag.type for flag in flags)]),
            'llvm.prefetch.p0')
        builder.call(function, [pointer, *flags])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _shuffle(builder, a, b, lanes: list[int]):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), 8), lanes))


def _transposed(builder, rows: list) -> list:
    """Interleave pairs of values, then pairs of pairs, then halves."""
    pairs = [_shuffle(builder, rows[n], rows[n + 1], lanes) for n in range(0, 8, 2)
             for lanes in ([0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15])]
    fours = [_shuffle(builder, pairs[n], pairs[n + 2], lanes) for n in (0, 1, 4, 5)
             for lanes in ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15])]
    return [_shuffle(builder, fours[n], fours[n + 4], lanes)
            for lanes in ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]) for n in range(4)]


@intrinsic
def transpose_tile(typingctx, source, start, stride, target, target_start, target_stride):
    """Write ``target[target_start + j * target_stride + i] = source[start + i * stride + j]`` for i, j in 0 ... 7."""

    def generate(context, builder, signature, arguments):
        source, start, stride, target, target_start, target_stride = arguments

        def row(kind, array, start, stride, n):
            index = builder.add(start, builder.mul(stride, ir.Constant(stride.type, n)))
            return _address(context, builder, kind, array, index, _TILE)

        rows = [builder.load(row(signature.args[0], source, start, stride, n), align=4) for n in range(8)]
        for n, column in enumerate(_transposed(builder, rows)):
            builder.store(column, row(signature.args[3], target, target_start, target_stride, n), align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate
