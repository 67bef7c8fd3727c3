"""Tiles of 8x8 and 16x16 float32 for numba, transposed in registers, and shuffles of neighbours.

As in :mod:`simd`, LLVM splits vectors into what the processor has, and nothing checks bounds.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .addresses import pointer_to
from .simd import FLOATS, LANES, read, vector

__all__ = [
    'evens',
    'gather_tile',
    'left_zip',
    'odds',
    'right_zip',
    'transpose_tile',
    'turn_tile',
]

_TILE = ir.VectorType(ir.FloatType(), 8)


def _shuffle(builder, a, b, lanes: list[int]):
    """Return the given lanes of two vectors. Those of ``b`` are numbered after those of ``a``."""
    return builder.shuffle_vector(
        a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    )


def _chosen(lanes: list[int]):
    """Return a function for kernels that takes the given lanes of two vectors."""

    @intrinsic
    def choose(typingctx, a, b):

        def generate(context, builder, signature, arguments):
            return _shuffle(builder, arguments[0], arguments[1], lanes)

        return vector(vector, vector), generate

    return choose


# Of two vectors, `evens` and `odds` take every other value. `left_zip` and `right_zip` alternate
# the values of both, for their left and their right halves.
evens, odds = _chosen(list(range(0, 2 * LANES, 2))), _chosen(list(range(1, 2 * LANES, 2)))
left_zip, right_zip = (
    _chosen([lane for n in range(first, first + LANES // 2) for lane in (n, LANES + n)])
    for first in (0, LANES // 2)
)


def _transposed(builder, rows: list) -> list:
    """Transpose as many vectors as each has lanes, 8 or 16, by shuffles of two vectors at a time.

    Two stages interleave values and then pairs within blocks of four. The others bring blocks of
    the same place together, and the last line puts the rows in order.
    """
    width = len(rows)
    stages = [
        (
            step,
            [
                [block + lane + shift for block in range(0, width, 4) for lane in lanes]
                for shift in (0, 2)
            ],
        )
        for step, lanes in ((1, (0, width, 1, width + 1)), (2, (0, 1, width, width + 1)))
    ]
    parts = [
        [block + lane for block in range(first, 2 * width, 8) for lane in range(4)]
        for first in (0, 4)
    ]
    stages += [(step, parts) for step in (4, 8) if step < width]
    for step, (low, high) in stages:
        rows = [
            _shuffle(builder, rows[n & ~step], rows[n | step], high if n & step else low)
            for n in range(width)
        ]
    return [rows[n ^ 3 if n % 4 in (1, 2) else n] for n in range(width)]


@intrinsic
def transpose_tile(typingctx, source, start, stride, target, target_start, target_stride):
    """Transpose 8x8 values from ``source[start]`` on to ``target[target_start]`` and on.

    The lines of the source are ``stride`` apart, those of the target ``target_stride``.
    """

    def generate(context, builder, signature, arguments):
        source, start, stride, target, target_start, target_stride = arguments

        def row(kind, array, start, stride, n):
            index = builder.add(start, builder.mul(stride, ir.Constant(stride.type, n)))
            return pointer_to(context, builder, kind, array, index, _TILE)

        rows = [
            builder.load(row(signature.args[0], source, start, stride, n), align=4)
            for n in range(8)
        ]
        for n, column in enumerate(_transposed(builder, rows)):
            builder.store(
                column, row(signature.args[3], target, target_start, target_stride, n), align=4
            )
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


def _pointer(builder, place, index=None):
    """Return a pointer to 16 values, from ``index`` on at an address."""
    index = place.type(0) if index is None else index
    return pointer_to(None, builder, types.uintp, place, index, FLOATS)


def _pointers(builder, rows, offsets, first, spare) -> list:
    """Return where 16 rows lie.

    Row n is at ``rows[offsets[first + n]]``, or at ``spare`` where that offset is negative.
    """
    nowhere, pointers = _pointer(builder, spare), []
    table = builder.bitcast(_pointer(builder, offsets), first.type.as_pointer())
    for n in range(LANES):
        offset = builder.load(builder.gep(table, [builder.add(first, first.type(n))]))
        row = _pointer(builder, rows, offset)
        pointers.append(
            builder.select(builder.icmp_signed('<', offset, first.type(0)), nowhere, row)
        )
    return pointers


@intrinsic
def gather_tile(typingctx, rows, offsets, first, spare, mask, tile):
    """Write 16 values of each of 16 rows to a tile, transposed.

    The rows are chosen as in :func:`_pointers`. All places are addresses.
    """

    def generate(context, builder, signature, arguments):
        rows, offsets, first, spare, mask, tile = arguments
        pointers = _pointers(builder, rows, offsets, first, spare)
        values = [read(builder, pointer, mask) for pointer in pointers]
        for n, column in enumerate(_transposed(builder, values)):
            builder.store(column, _pointer(builder, tile, tile.type(n * LANES)), align=4)
        return context.get_dummy_value()

    place = types.uintp
    return types.void(place, place, types.intp, place, mask, place), generate


@intrinsic
def turn_tile(typingctx, tile, start):
    """Transpose the 16x16 values from ``tile[start]`` on in place. ``tile`` is an address."""

    def generate(context, builder, signature, arguments):
        tile, start = arguments
        lines = [
            _pointer(builder, tile, builder.add(start, start.type(n * LANES))) for n in range(LANES)
        ]
        columns = _transposed(builder, [builder.load(line, align=4) for line in lines])
        for line, column in zip(lines, columns, strict=True):
            builder.store(column, line, align=4)
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp), generate
