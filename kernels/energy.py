"""Quantization of rows by their energy: a scale and a number of bits for each row.

A row is what all channels have at one position, of wavelet coefficients or of pixels. It is divided
by its root mean square and rounded to a grid whose clip, in units of that root mean square, was
learned for its width. Its width follows from its energy by reverse water-filling: with ``e`` the
mean square, ``b = Q(log2(e / theta) / 2)``, where Q rounds to the nearest allowed width. The same
``theta`` serves all rows of an image, and is the smallest whose widths fit into the budget.

Rounding to the nearest width compares ``e`` with ``theta * 2**(w + v)`` for two neighbouring widths
w and v. Widths are integers. So in floating point, these products only change the exponent, and the
comparison is exact between the bits of the two numbers, read as integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .dispatch import accelerate
from .library import free, register
from .select import _sortable

__all__ = [
    'WIDTHS',
    'energy_int8',
    'energy_quant',
    'energy_quant_backward',
    'position_bits',
    'row_bits',
]

WIDTHS = tuple(range(2, 9))
"""Widths that a row can have, besides 0. There is a clip for each, in this order."""

_SMALLEST_CLIP = 1e-8  # keeps the step positive if an optimizer pushes a clip to 0 or below
_SMALLEST_ENERGY = 1e-30  # a row below is divided by the root of this instead


def gains(widths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return what each step from a width to the next costs, and the exponent at which it is made.

    Args:
        widths: Allowed widths, ascending.

    Returns:
        The bits that step i adds, and the n with which it is made where ``e >= theta * 2**n``.
    """
    steps = list(pairwise(widths))
    return [wide - narrow for narrow, wide in steps], [wide + narrow for narrow, wide in steps]


def _row_bits(energy: Tensor, total: int, widths: Sequence[int]) -> Tensor:
    """Sort all steps that rows could make, and make them from the top as far as the budget goes."""
    keys = _sortable(energy).long()
    exponent = 52 if energy.dtype == torch.float64 else 23
    costs, exponents = (keys.new_tensor(part) for part in gains(widths))
    if not len(costs) or not keys.numel():
        return torch.full_like(keys, widths[-1], dtype=torch.uint8)
    # A step is made if `level` is at least the bits of theta.
    level = keys.unsqueeze(1) - (exponents << exponent).unsqueeze(1)  # (B, steps, k)
    prices = costs.unsqueeze(1).expand_as(level)
    budget = total - widths[0] * keys.shape[1]
    order = level.flatten(1).argsort(dim=1, descending=True)
    spent = prices.flatten(1).gather(1, order).cumsum(1)
    first = (spent <= budget).sum(1, keepdim=True).clamp(max=spent.shape[1] - 1)
    theta = level.flatten(1).gather(1, order.gather(1, first))
    theta = torch.where(spent[:, -1:] <= budget, -1, theta).clamp(min=-1).unsqueeze(1)
    above, tied = level > theta, (level == theta) & (level >= 0)
    made = (prices * above).sum(1)
    # What is left goes to rows at the threshold, lower positions first.
    extra = (prices * tied).sum(1)
    made += extra * (extra.cumsum(1) <= budget - made.sum(1, keepdim=True))
    bits = made + widths[0]
    nothing = ~bits.any(1, keepdim=True) & (keys > 0)
    largest = torch.zeros_like(nothing).scatter(1, keys.argmax(1, keepdim=True), True)
    return torch.where(nothing & largest, next(filter(None, widths)), bits).to(torch.uint8)


def _fake_row_bits(energy, total, widths):
    """Return empty widths, shape (B, k), uint8."""
    torch._check(
        energy.dim() == 2,
        lambda: f'mmwcc::row_bits: energy must have shape (B, k), got {tuple(energy.shape)}.',
    )
    return energy.new_empty(energy.shape, dtype=torch.uint8)


class Grids(NamedTuple):
    """The grid of each row, shape (B, k, 1) each.

    Attributes:
        root: Root mean square.
        bits: Width, int64.
        step: Distance between two neighbouring levels.
        low: Lowest level, like the highest 0 for rows of width 0.
        high: Highest level.
    """

    root: Tensor
    bits: Tensor
    step: Tensor
    low: Tensor
    high: Tensor

    def gradient_of_clips(self, sums: Tensor, clips: Tensor) -> Tensor:
        """Add up what rows contribute to the gradient of the clip of their width.

        Args:
            sums: Sum over the values of each row, times their slopes in units of the step, shape
                (B, k, 1).
            clips: The clips.
        """
        of_row = torch.where(self.bits > 0, sums * self.root / self.high.clamp(min=1), 0)
        # Not index_add_, which adds atomically on a GPU, in an order that differs from run to run.
        widths = torch.arange(WIDTHS[0], WIDTHS[-1] + 1, device=of_row.device).unsqueeze(1)
        of_width = torch.where(self.bits.flatten() == widths, of_row.flatten(), 0)
        return of_width.sum(1).to(clips.dtype)


def grids(
    energy: Tensor,
    clips: Tensor,
    signed: Tensor,
    total: int,
    widths: Sequence[int],
    symmetric: bool,
) -> Grids:
    """Return the grids of rows of some energy, shape (B, k)."""
    bits = row_bits(energy, total, widths).long().unsqueeze(-1)
    positive = (1 << (bits - 1).clamp(min=0)) - 1
    high = torch.where(signed.bool(), positive, (1 << bits) - 1).to(energy.dtype)
    low = torch.where(signed.bool(), -positive if symmetric else -positive - (bits > 0).long(), 0)
    root = energy.clamp(min=_SMALLEST_ENERGY).sqrt().unsqueeze(-1)
    clip = clips.to(energy.dtype).clamp_min(_SMALLEST_CLIP)[(bits - WIDTHS[0]).clamp(min=0)]
    return Grids(root, bits, root * clip / high.clamp(min=1), low.to(energy.dtype), high)


def _energy_quant(rows, clips, signed, total, widths, symmetric):
    """Divide each row by its step, clamp, round half to even and multiply again."""
    values = rows.to(torch.promote_types(rows.dtype, torch.float32))
    grid = grids(values.square().mean(-1), clips, signed, total, widths, symmetric)
    levels = torch.clamp(values / grid.step, grid.low, grid.high).round()
    return (levels * grid.step).to(rows.dtype)


def _energy_quant_backward(grad, rows, clips, signed, total, widths, symmetric):
    """Return the gradients of rows and clips, with energies and widths as constants."""
    values = rows.to(torch.promote_types(rows.dtype, torch.float32))
    grid = grids(values.square().mean(-1), clips, signed, total, widths, symmetric)
    scaled = values / grid.step
    clipped = torch.clamp(scaled, grid.low, grid.high)
    inside = (clipped == scaled) & (grid.bits > 0)
    slope = torch.where(inside, clipped.round() - scaled, clipped)
    sums = (grad.to(slope.dtype) * slope).sum(-1, keepdim=True)
    return torch.where(inside, grad, 0).to(rows.dtype), grid.gradient_of_clips(sums, clips)


def stored_lower(signed: Tensor) -> Tensor:
    """Return how much lower levels are stored as int8."""
    return torch.where(signed.bool(), 0, 128)


def _energy_int8(rows, clips, signed, total, widths, symmetric):
    """Divide each row by its step, clamp, and round half to even."""
    values = rows.to(torch.promote_types(rows.dtype, torch.float32))
    grid = grids(values.square().mean(-1), clips, signed, total, widths, symmetric)
    levels = torch.clamp(values / grid.step, grid.low, grid.high).round().nan_to_num(0.0)
    return (levels - stored_lower(signed)).to(torch.int8), grid.step.squeeze(-1)


def _fake_int8(rows, clips, signed, total, widths, symmetric):
    """Return empty levels and steps."""
    return rows.new_empty(rows.shape, dtype=torch.int8), rows.new_empty(
        rows.shape[:2], dtype=torch.promote_types(rows.dtype, torch.float32)
    )


def _fake_quant(rows, clips, signed, total, widths, symmetric):
    """Return an empty tensor like the rows."""
    torch._check(
        rows.dim() == 3 and clips.shape == (len(WIDTHS),),
        lambda: (
            f'mmwcc::energy_quant: rows must have shape (B, k, C) and clips ({len(WIDTHS)},), got '
            f'{tuple(rows.shape)} and {tuple(clips.shape)}.'
        ),
    )
    return torch.empty_like(rows)


def _fake_backward(grad, rows, clips, signed, total, widths, symmetric):
    """Return empty gradients of rows and clips."""
    return torch.empty_like(rows), torch.empty_like(clips)


def _save(ctx, inputs, output):
    """Save the tensors for the gradient, and what describes the grid beside them."""
    rows, clips, signed, *ctx.grid = inputs
    ctx.save_for_backward(rows, clips, signed)


def _backward(ctx, grad):
    """Return the gradients of rows and clips. The other arguments have none."""
    return *energy_quant_backward(grad, *ctx.saved_tensors, *ctx.grid), None, None, None, None


_arguments = 'Tensor rows, Tensor clips, Tensor signed, SymInt total, int[] widths, bool symmetric'
_bits_op = register(
    'row_bits(Tensor energy, SymInt total, int[] widths) -> Tensor',
    _row_bits,
    _fake_row_bits,
    cost=free,
)
_op = register(
    f'energy_quant({_arguments}) -> Tensor', _energy_quant, _fake_quant, _save, _backward, cost=free
)
_backward_op = register(
    f'energy_quant_backward(Tensor grad, {_arguments}) -> (Tensor, Tensor)',
    _energy_quant_backward,
    _fake_backward,
    cost=free,
)
_int8_op = register(
    f'energy_int8({_arguments}) -> (Tensor, Tensor)', _energy_int8, _fake_int8, cost=free
)

accelerate('row_bits', 'energy', _row_bits, paths=('cpu',))
accelerate('energy_quant', 'energy', _energy_quant)
accelerate('energy_quant_backward', 'energy', _energy_quant_backward, values=1)
accelerate('energy_int8', 'energy', _energy_int8, paths=('cpu',))


def row_bits(energy: Tensor, total: int, widths: Sequence[int]) -> Tensor:
    """Divide bits among rows by their energy: reverse water-filling.

    Args:
        energy: Mean square of each row, shape (B, k), float32 or float64.
        total: Bits that the rows of an image have together, at most.
        widths: Allowed widths, ascending, out of 0 and :data:`WIDTHS`. With one, all rows have it.

    Returns:
        Bits of each row, shape (B, k), uint8. What is left at the threshold goes to lower positions
        first. If the budget is too small for any row, the row of largest energy has the smallest
        width.

    Reference:
        Cover and Thomas, Elements of Information Theory, section 10.3.3 (reverse water-filling).
    """
    return _bits_op(energy, total, list(widths))


def position_bits(rows: Tensor, total: int, widths: Sequence[int]) -> Tensor:
    """Return the bits that :func:`energy_quant` gives to rows, shape (B, k), uint8.

    Args:
        rows: Values, shape (B, k, C).
        total: As in :func:`row_bits`.
        widths: Likewise.
    """
    values = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
    return row_bits(values.square().mean(-1), total, widths)


def energy_quant(
    rows: Tensor,
    clips: Tensor,
    signed: Tensor,
    total: int,
    widths: Sequence[int],
    symmetric: bool,
) -> Tensor:
    """Round each row to a grid with a scale and a number of bits of its own.

    Args:
        rows: Values, shape (B, k, C), any floating dtype. The arithmetic is in float32 at least.
        clips: The clip of each of :data:`WIDTHS`, in units of the root mean square of a row, shape
            (7,).
        signed: Whether negative values have levels, one boolean element.
        total: As in :func:`row_bits`.
        widths: Likewise.
        symmetric: Whether signed grids leave out their lowest level.

    Returns:
        Rounded rows, with the shape and dtype of ``rows``. Rows of width 0 are zero. The gradient
        of rows passes between the clips. That of the clips is LSQ's. Energies and widths are
        constants in it.
    """
    return _op(rows, clips, signed, total, list(widths), symmetric)


def energy_quant_backward(
    grad: Tensor,
    rows: Tensor,
    clips: Tensor,
    signed: Tensor,
    total: int,
    widths: Sequence[int],
    symmetric: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of :func:`energy_quant` with respect to ``rows`` and ``clips``."""
    return _backward_op(grad, rows, clips, signed, total, list(widths), symmetric)


def energy_int8(
    rows: Tensor,
    clips: Tensor,
    signed: Tensor,
    total: int,
    widths: Sequence[int],
    symmetric: bool,
) -> tuple[Tensor, Tensor]:
    """Return the integers that :func:`energy_quant` rounds rows to, and their steps.

    Args:
        rows: As in :func:`energy_quant`, like all that follow.

    Returns:
        Levels, shape (B, k, C), int8, and the distance between two neighbours for each row, shape
        (B, k), float32 at least. Their product is what :func:`energy_quant` returns. Unsigned
        levels are stored 128 lower. NaN becomes level 0.
    """
    return _int8_op(rows, clips, signed, total, list(widths), symmetric)
