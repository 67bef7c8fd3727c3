"""Parts that kernels share: places of pixels, the transform as a product, rounding to a grid."""

import triton
import triton.language as tl

__all__ = [
    'UNIT_CHANNEL',
    'UNIT_COLUMN',
    'UNIT_NONE',
    'clamp',
    'divide',
    'in_map',
    'map_offsets',
    'pixels',
    'positions_of',
    'round_even',
    'to_int8',
    'transform',
]

UNIT_NONE, UNIT_CHANNEL, UNIT_COLUMN = 0, 1, 2
"""Which axis of a map is contiguous. Kernels know this when they are compiled and load vectors."""

_INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def pixels(tile, patches_w, LEVELS: tl.constexpr):
    """Return row and column of each pixel of a tile, patch by patch, [64].

    Pixels past the last patch lie below the map.
    """
    side: tl.constexpr = 1 << LEVELS
    area: tl.constexpr = 1 << (2 * LEVELS)
    j = tl.arange(0, 64)
    patch = tile if LEVELS == 3 else tile * (64 // area) + j // area
    inner = j % area
    return patch // patches_w * side + inner // side, patch % patches_w * side + inner % side


@triton.jit
def in_map(row, column, height, width):
    """Tell which pixels lie in the map, [64]."""
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def map_offsets(
    row, column, channel, stride_c, stride_h, stride_w, UNIT: tl.constexpr, ALIGN: tl.constexpr
):
    """Return where pixels of an image lie in memory, [pixels, channels].

    The strides come divided by ``ALIGN``, so that the compiler knows that it divides them.
    """
    across = column if UNIT == 2 else column.to(tl.int64) * stride_w * ALIGN
    deep = channel if UNIT == 1 else channel.to(tl.int64) * stride_c * ALIGN
    return (row.to(tl.int64) * stride_h * ALIGN + across)[:, None] + deep[None, :]


@triton.jit
def positions_of(
    tile, patches_w, positions, LEVELS: tl.constexpr, TOTAL: tl.constexpr, DEEPER: tl.constexpr
):
    """Return the position of each coefficient of a tile in the whole transform, [64].

    It is -1 past the end, and for approximations that a deeper pass transforms further. ``TOTAL``
    is the depth of the whole transform, and ``DEEPER`` says how many of its levels follow after
    this pass. See :mod:`mmwcc.kernels.layout` for the order.
    """
    n = tile * 64 + tl.arange(0, 64)
    j = n % (1 << (2 * LEVELS))
    if DEEPER == 0:
        position = (n // (1 << (2 * LEVELS))) * (1 << (2 * TOTAL)) + j
    else:
        # A tile is one of the 4**DEEPER that a patch of the whole transform has. Its cells of each
        # level lie in a square of `side` cells among all cells of the patch.
        row, column = tile // patches_w, tile % patches_w
        patch = (row >> DEEPER) * (patches_w >> DEEPER) + (column >> DEEPER)
        depth = (j >= 4).to(tl.int32) + (j >= 16).to(tl.int32)
        side = 1 << depth
        cell, kind = (j - side * side) // 3, (j - side * side) % 3
        down = row % (1 << DEEPER) * side + cell // side
        across = column % (1 << DEEPER) * side + cell % side
        whole = side << DEEPER
        position = patch * (1 << (2 * TOTAL)) + whole * whole + 3 * (down * whole + across) + kind
        position = tl.where(j > 0, position, -1)
    return tl.where(n < positions, position, -1)


@triton.jit
def _apart(first, second):
    """Add two products, each with an accumulator of its own.

    Triton would turn a plain sum into two products into one accumulator. That has been miscompiled
    on sm_100, and on sm_90 the accumulator goes through shared memory from one product to the next.
    """
    return tl.fma(first, 1.0, second)


@triton.jit
def transform(matrix, values, PRECISION: tl.constexpr):
    """Multiply a matrix [64, 64] by values [64, channels] into float32.

    The matrix is exact in every dtype, so only the values may need splitting. ``PRECISION`` says
    how float32 values enter the tensor cores. 'ieee': as they are. 'tf32': as two terms of 11 bits,
    which leaves an error of 2**-22. 'bfloat16': as two terms of 8 bits, which leaves 2**-17, for
    results in half precision.
    """
    if _INTERPRETED:  # the interpreter cannot multiply bfloat16
        product = tl.dot(matrix.to(tl.float32), values.to(tl.float32), input_precision='ieee')
    elif values.dtype != tl.float32:
        product = tl.dot(matrix, values)
    elif PRECISION == 'ieee':
        product = tl.dot(matrix, values, input_precision='ieee')
    elif PRECISION == 'tf32':
        leading = (values.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        rest = tl.dot(matrix, values - leading, input_precision='tf32')
        product = _apart(rest, tl.dot(matrix, leading, input_precision='tf32'))
    else:
        leading = values.to(tl.bfloat16)
        rest = tl.dot(matrix, (values - leading.to(tl.float32)).to(tl.bfloat16))
        product = _apart(rest, tl.dot(matrix, leading))
    return product


@triton.jit
def clamp(values, low, high):
    """Clamp to the bounds that are not None. NaN stays NaN."""
    if low is not None:
        values = tl.where(values < low, low, values)
    if high is not None:
        values = tl.where(values > high, high, values)
    return values


@triton.jit
def round_even(values):
    """Round float32 values below 2**22 in magnitude half to even."""
    return (values + 12582912.0) - 12582912.0  # 1.5 * 2**23 leaves the sum no bits for a fraction


@triton.jit
def divide(values, step):
    """Divide by a scalar, rounded as IEEE requires, in five instructions.

    A product with the inverse is corrected by Markstein's method.
    """
    if _INTERPRETED:  # the interpreter has no fused multiply-add
        quotient = tl.div_rn(values, step)
    else:
        inverse = tl.div_rn(1.0, step)
        product = values * inverse
        corrected = tl.fma(tl.fma(-product, step, values), inverse, product)
        # Infinities have no remainder.
        quotient = tl.where(corrected == corrected, corrected, product)
    return quotient


@triton.jit
def to_int8(values, step, low, high):
    """Round to the levels ``low ... high`` of a grid, 128 lower if ``high`` is above 127.

    NaN is level 0.
    """
    levels = divide(values, step)
    levels = tl.minimum(tl.maximum(tl.where(levels == levels, levels, 0.0), low), high)
    # Adding 1.5 * 2**23, or 128 less, leaves the rounded level in the low byte of the float. So no
    # conversion is needed.
    return (
        (levels + tl.where(high > 127, 12582784.0, 12582912.0))
        .to(tl.int32, bitcast=True)
        .to(tl.int8)
    )
