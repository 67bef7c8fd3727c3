"""The orthonormal Haar transform of a feature map.

It comes as norms, pack (feature map to kept rows) and unpack (kept rows to feature map).
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .dispatch import accelerate
from .int8 import to_int8
from .layout import is_channels_last
from .library import Cost, free, register
from .transform import analysis, check_map, empty_map, passes_clamp, synthesis

__all__ = ['haar_norms', 'haar_pack', 'haar_pack_int8', 'haar_unpack']


def _norms(x: Tensor, levels: int) -> Tensor:
    """Transform and sum the squares over channels, shape (B, N)."""
    return analysis(x, levels).square().sum(-1)


def _pack(x: Tensor, slot: Tensor, k: int, levels: int) -> Tensor:
    """Transform and take the kept rows, shape (B, k, C), which ``slot`` numbers in order."""
    rows = analysis(x, levels)[slot >= 0]
    return rows.reshape(x.shape[0], k, x.shape[1]).to(x.dtype)


def _pack_int8(
    x: Tensor, slot: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Transform, take the kept rows, shape (B, k, C), and round them to a grid."""
    rows = analysis(x, levels)[slot >= 0].reshape(x.shape[0], k, x.shape[1])
    return to_int8(rows, step, low, high)


def _unpack(
    rows: Tensor,
    slot: Tensor,
    bias: Tensor | None,
    height: int,
    width: int,
    levels: int,
    channels_last: bool,
    residual: Tensor | None,
    low: float | None,
    high: float | None,
) -> Tensor:
    """Spread rows over the positions, invert the transform, then add bias and residual and clamp.

    All arithmetic is in float32 at least. Only the copy into the result converts to its dtype.
    """
    compute = torch.promote_types(rows.dtype, torch.float32)
    coefficients = rows.new_zeros(*slot.shape, rows.shape[2], dtype=compute)
    coefficients[slot >= 0] = rows.reshape(-1, rows.shape[2]).to(compute)
    y = synthesis(coefficients, height, width, levels).permute(0, 3, 1, 2)
    if bias is not None:
        y = y + bias.to(compute).reshape(-1, 1, 1)
    if residual is not None:
        y = y + residual.to(compute)
    if low is not None or high is not None:
        y = y.clamp(low, high)
    return empty_map(rows, height, width, channels_last).copy_(y)


def _fake_norms(x, levels):
    """Return empty norms, shape (B, N), in float32 at least."""
    return x.new_empty(
        x.shape[0], check_map(x, levels), dtype=torch.promote_types(x.dtype, torch.float32)
    )


def _fake_pack(x, slot, k, levels):
    """Return empty rows, shape (B, k, C), of the dtype of ``x``."""
    check_map(x, levels)
    return x.new_empty(x.shape[0], k, x.shape[1])


def _fake_pack_int8(x, slot, k, levels, step, low, high):
    """Return empty int8 rows, shape (B, k, C)."""
    check_map(x, levels)
    return x.new_empty(x.shape[0], k, x.shape[1], dtype=torch.int8)


def _fake_unpack(rows, slot, bias, height, width, levels, channels_last, residual, low, high):
    """Return an empty map, shape (B, C, height, width), in the requested memory format."""
    return empty_map(rows, height, width, channels_last)


# Pack and unpack of a layer have the same slots, so that both gradients save one tensor. To save
# only which positions are kept would take a map of bytes for each, and eight launches to number
# them again.
def _save_positions(ctx, x, slot, levels):
    """Save what the gradient of a pack needs: the slots and the layout of ``x``."""
    ctx.save_for_backward(slot)
    ctx.shape = (*x.shape[2:], levels, is_channels_last(x))


def _gradient_of_map(ctx, grad):
    """Invert the transform: it is orthonormal, so its transpose is its inverse."""
    (slot,) = ctx.saved_tensors
    return haar_unpack(grad, slot, None, *ctx.shape)


def _save_pack(ctx, inputs, output):
    """Save what the gradient of a pack needs."""
    x, slot, _, levels = inputs
    _save_positions(ctx, x, slot, levels)


def _pack_backward(ctx, grad):
    """Return the gradient of the map. The other arguments have none."""
    return _gradient_of_map(ctx, grad), None, None, None


def _save_unpack(ctx, inputs, output):
    """Save the slots, and the output only if it tells where the clamp cut values off."""
    rows, slot, _, _, _, levels, _, _, ctx.low, ctx.high = inputs
    clamped = ctx.low is not None or ctx.high is not None
    ctx.save_for_backward(slot, *([output] if clamped else []))
    ctx.k, ctx.levels = rows.shape[1], levels


def _unpack_backward(ctx, grad):
    """Return the gradients of rows, bias and residual. Values that were clamped pass none."""
    slot, *output = ctx.saved_tensors
    if output:
        grad = torch.where(passes_clamp(output[0], ctx.low, ctx.high), grad, 0)
    rows = haar_pack(grad, slot, ctx.k, ctx.levels) if ctx.needs_input_grad[0] else None
    bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
    residual = grad if ctx.needs_input_grad[7] else None
    return rows, None, bias, None, None, None, None, residual, None, None


def _map_cost(x, slot, k, levels, *grid) -> Cost:
    """Count the transform of all positions, however many of them are kept."""
    return Cost(transform=(x[1], prod(slot), levels))


def _unpack_cost(rows, slot, bias, height, width, levels, *rest) -> Cost:
    """Count the inverse transform of all positions, however many of them were kept."""
    return Cost(transform=(rows[2], prod(slot), levels))


# The norms cost nothing here: their transform is counted where the coefficients are packed.
_norms_op = register('haar_norms(Tensor x, int levels) -> Tensor', _norms, _fake_norms, cost=free)
_pack_op = register(
    'haar_pack(Tensor x, Tensor slot, SymInt k, int levels) -> Tensor',
    _pack,
    _fake_pack,
    _save_pack,
    _pack_backward,
    cost=_map_cost,
)
_pack_int8_op = register(
    'haar_pack_int8(Tensor x, Tensor slot, SymInt k, int levels, Tensor step, int low, int high) '
    '-> Tensor',
    _pack_int8,
    _fake_pack_int8,
    cost=_map_cost,
)
_unpack_op = register(
    'haar_unpack(Tensor rows, Tensor slot, Tensor? bias, SymInt height, SymInt width, int levels, '
    'bool channels_last, Tensor? residual, float? low, float? high) -> Tensor',
    _unpack,
    _fake_unpack,
    _save_unpack,
    _unpack_backward,
    cost=_unpack_cost,
)

accelerate('haar_norms', 'haar', _norms)
accelerate('haar_pack', 'haar', _pack)
accelerate('haar_pack_int8', 'haar', _pack_int8)
accelerate('haar_unpack', 'haar', _unpack)


def haar_norms(x: Tensor, levels: int) -> Tensor:
    """Return the squared norm over channels of each wavelet position of ``x``.

    Args:
        x: Feature map, shape (B, C, H, W), any floating dtype and layout.
        levels: Depth of the transform, at least 1.

    Returns:
        Norms in position order, shape (B, N), float32 (float64 for float64 input). They carry no
        gradient.
    """
    return _norms_op(x, levels)


def haar_pack(x: Tensor, slot: Tensor, k: int, levels: int) -> Tensor:
    """Transform ``x`` and keep the coefficients that ``slot`` numbers: ``T H x`` of equation (9).

    Args:
        x: Feature map, shape (B, C, H, W).
        slot: Row of each position or -1, shape (B, N), int32. Every image keeps exactly ``k``.
        k: Number of kept positions per image.
        levels: Depth of the transform.

    Returns:
        Kept coefficients, shape (B, k, C), dtype of ``x``. The gradient is :func:`haar_unpack`.
    """
    return _pack_op(x, slot, k, levels)


def haar_pack_int8(
    x: Tensor, slot: Tensor, k: int, levels: int, step: Tensor, low: int, high: int
) -> Tensor:
    """Return :func:`haar_pack` rounded to the grid ``low * step ... high * step``, as its integers.

    Args:
        x: Feature map, shape (B, C, H, W).
        slot: Row of each position or -1, shape (B, N), int32. Every image keeps exactly ``k``.
        k: Number of kept positions per image.
        levels: Depth of the transform.
        step: Distance between two neighbours on the grid, one element, float32.
        low: Lowest integer of the grid, at least -128.
        high: Highest integer of the grid, at most 127.

    Returns:
        ``clamp(coefficient / step, low, high)``, rounded half to even, shape (B, k, C), int8. NaN
        becomes 0. It carries no gradient.
    """
    return _pack_int8_op(x, slot, k, levels, step, low, high)


def haar_unpack(
    rows: Tensor,
    slot: Tensor,
    bias: Tensor | None,
    height: int,
    width: int,
    levels: int,
    channels_last: bool,
    residual: Tensor | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """Put rows back at their positions, with zeros elsewhere, and invert the transform.

    This is ``H^T T^T rows`` of equation (9).

    Args:
        rows: Kept coefficients, shape (B, k, C).
        slot: Row of each position or -1, shape (B, N), int32.
        bias: Added once to every pixel, shape (C,), or None.
        height: Height of the map in pixels. Padding up to a multiple of ``2**levels`` is cropped.
        width: Width of the map in pixels.
        levels: Depth of the transform.
        channels_last: Whether the result is in torch's channels_last memory format.
        residual: Added to the map, shape (B, C, height, width), any memory format. Defaults to
            None.
        low: Lower bound to which the sum is then clamped. Defaults to None, no bound.
        high: Upper bound, likewise. With ``low=0, high=6`` the map passes through ReLU6.

    Returns:
        Feature map, shape (B, C, height, width), dtype of ``rows``. The gradient is
        :func:`haar_pack`.
    """
    return _unpack_op(rows, slot, bias, height, width, levels, channels_last, residual, low, high)
