"""Fake quantization with a learned clip.

The forward pass rounds to a uniform grid. The backward pass is a straight-through estimate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import accelerate
from .library import free, register

__all__ = ['fake_quant', 'fake_quant_backward']

_SMALLEST_CLIP = 1e-8  # keeps the step positive if an optimizer pushes clip_alpha to 0 or below


def grid(
    dtype: torch.dtype, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step of the grid and its lowest and highest level, as tensors of ``dtype``.

    The levels are scalars. The step is a scalar for one clip, and has the shape of the clips for
    several.
    """
    positive = 2 ** (bits - 1) - 1
    high = torch.where(signed.bool(), positive, 2**bits - 1).to(dtype)
    low = torch.where(signed.bool(), -positive if symmetric else -positive - 1, 0).to(dtype)
    clip = clip_alpha.reshape(()) if clip_alpha.numel() == 1 else clip_alpha
    return clip.to(dtype).clamp_min(_SMALLEST_CLIP) / high, low, high


def values_per_clip(x: Tensor, clip_alpha: Tensor) -> int | None:
    """Return how many values of ``x``, consecutive in memory, share a clip.

    There is such a number where there is one clip, or one for each index of the outermost axes.

    Returns:
        The number, or None where the values of a clip are scattered over memory.
    """
    clips = clip_alpha.numel()
    if clips == 1:
        return x.numel()
    if clip_alpha.dim() != x.dim():
        return None
    outer = next((n for n, size in enumerate(clip_alpha.shape) if size != x.shape[n]), x.dim())
    if any(size != 1 for size in clip_alpha.shape[outer:]) or not clip_alpha.is_contiguous():
        return None
    # Both memory formats store the values of one output channel together.
    together = x.is_contiguous() or (outer == 1 and x.stride(0) * clips == x.numel())
    return x.numel() // clips if together else None


def _fake_quant(
    x: Tensor,
    clip_alpha: Tensor,
    signed: Tensor,
    bits: int,
    symmetric: bool,
    clip_gradient: bool,
    alpha_scale: float,
    rounding_gradient: bool = True,
) -> Tensor:
    """Divide by the step, clamp, round half to even and multiply again, in float32 at least."""
    _check(x, clip_alpha)
    dtype = torch.promote_types(x.dtype, torch.float32)
    step, low, high = grid(dtype, clip_alpha, signed, bits, symmetric)
    return ((x.to(dtype) / step).clamp(low, high).round() * step).to(x.dtype)


def _fake_quant_backward(
    grad: Tensor,
    x: Tensor,
    clip_alpha: Tensor,
    signed: Tensor,
    bits: int,
    symmetric: bool,
    clip_gradient: bool,
    alpha_scale: float,
    rounding_gradient: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``x`` and of the clip.

    With the step written as ``clip / high``, the derivative of a rounded value by the clip is
    ``(round(scaled) - scaled) / high`` inside the clips and ``level / high`` outside.
    """
    _check(x, clip_alpha)
    dtype = torch.promote_types(x.dtype, torch.float32)
    step, low, high = grid(dtype, clip_alpha, signed, bits, symmetric)
    values = x.to(dtype)
    scaled = values / step
    clipped = scaled.clamp(low, high)
    inside = clipped == scaled
    grad_x = torch.where(inside, grad, 0) if clip_gradient else grad.clone()
    if rounding_gradient:
        slope = torch.where(inside, clipped.round() - scaled, clipped)
    else:
        # Compare with the clip itself, not with the level. A value equal to the clip, as ReLU6
        # returns, must count as clipped, but its quotient by the step may round to either side.
        clip = clip_alpha.to(dtype).clamp_min(_SMALLEST_CLIP)
        slope = torch.where((values > clip * (low / high)) & (values < clip), 0, clipped)
    total = grad.to(slope.dtype) * slope
    total = total.sum() if clip_alpha.numel() == 1 else total.sum_to_size(clip_alpha.shape)
    total = total / high * alpha_scale
    return grad_x.to(x.dtype), total.to(clip_alpha.dtype).reshape(clip_alpha.shape)


def _check(x: Tensor, clip_alpha: Tensor) -> None:
    """Refuse clips that are neither one element nor shaped to broadcast against ``x``."""
    shape, clips = x.shape, clip_alpha.shape
    torch._check(
        clip_alpha.numel() == 1
        or (
            len(clips) == len(shape)
            and all(one in (1, size) for one, size in zip(clips, shape, strict=True))
        ),
        lambda: (
            'mmwcc: clip_alpha must have one element, or the shape of x with 1 on every axis over '
            f'which a clip is shared, got {tuple(clips)} for x of shape {tuple(shape)}.'
        ),
    )


def _save(ctx, inputs, output):
    """Save the tensors for the gradient, and what describes the grid beside them."""
    x, clip_alpha, signed, *ctx.grid = inputs
    ctx.save_for_backward(x, clip_alpha, signed)


def _backward(ctx, grad):
    """Return the gradients of the values and of the clip. The other arguments have none."""
    grad_x, grad_alpha = fake_quant_backward(grad, *ctx.saved_tensors, *ctx.grid)
    return grad_x, grad_alpha, None, None, None, None, None, None


_arguments = (
    'Tensor x, Tensor clip_alpha, Tensor signed, int bits, bool symmetric, bool clip_gradient, '
    'float alpha_scale, bool rounding_gradient=True'
)
# The reference is element-wise, so it can serve as its own fake implementation: the shapes,
# dtypes and strides of the results follow from it.
_op = register(
    f'fake_quant({_arguments}) -> Tensor', _fake_quant, _fake_quant, _save, _backward, cost=free
)
_backward_op = register(
    f'fake_quant_backward(Tensor grad, {_arguments}) -> (Tensor, Tensor)',
    _fake_quant_backward,
    _fake_quant_backward,
    cost=free,
)


accelerate('fake_quant', 'fake_quant', _fake_quant)
accelerate('fake_quant_backward', 'fake_quant', _fake_quant_backward, values=1)


def fake_quant(
    x: Tensor,
    clip_alpha: Tensor,
    signed: Tensor,
    bits: int,
    symmetric: bool,
    clip_gradient: bool,
    alpha_scale: float,
    rounding_gradient: bool = True,
) -> Tensor:
    """Round ``x`` to a uniform grid of ``bits`` bits between the clips.

    The step is ``clip_alpha / n`` with ``n = 2**(bits - 1) - 1`` (signed) or ``2**bits - 1``
    (unsigned). The levels are ``-n ... n`` (signed, symmetric), ``-n - 1 ... n`` (signed, not
    symmetric) or ``0 ... n`` (unsigned).

    Args:
        x: Values, any shape and floating dtype. The arithmetic is in float32 at least. NaN stays
            NaN.
        clip_alpha: Upper clip: one element, or several that broadcast against ``x``. Several clips
            have the shape of ``x`` with 1 on every axis over which a clip is shared, such as
            (O, 1, 1, 1) for a kernel with one clip for each output channel.
        signed: Whether negative values have levels, one boolean element. It is a tensor so that
            passing it on needs no synchronization with the device.
        bits: Width in 2 ... 16.
        symmetric: Whether a signed grid leaves out its lowest level.
        clip_gradient: Whether the gradient of ``x`` is zero outside the clips. If not, it is
            straight-through everywhere.
        alpha_scale: Factor on the gradient of ``clip_alpha``.
        rounding_gradient: Whether values between the clips add their rounding error to the gradient
            of ``clip_alpha``. If not, only values at the clips or beyond contribute to it, as in
            PACT. Defaults to True.

    Returns:
        Rounded values, with the shape, dtype and strides of ``x``.

    Reference:
        Finder et al., NeurIPS 2022, equations (1) and (2); Li et al., ICLR 2020 (APoT), uniform
        form; Choi et al., PACT, 2018, for ``rounding_gradient=False``.
    """
    return _op(
        x, clip_alpha, signed, bits, symmetric, clip_gradient, alpha_scale, rounding_gradient
    )


def fake_quant_backward(
    grad: Tensor,
    x: Tensor,
    clip_alpha: Tensor,
    signed: Tensor,
    bits: int,
    symmetric: bool,
    clip_gradient: bool,
    alpha_scale: float,
    rounding_gradient: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of :func:`fake_quant` with respect to ``x`` and ``clip_alpha``."""
    return _backward_op(
        grad, x, clip_alpha, signed, bits, symmetric, clip_gradient, alpha_scale, rounding_gradient
    )
