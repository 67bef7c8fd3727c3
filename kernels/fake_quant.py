"""Fake quantization with a learned clip: a uniform grid in the forward pass, straight-through in the backward."""
from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import accelerate
from .library import register

__all__ = ['fake_quant', 'fake_quant_backward']

_SMALLEST_CLIP = 1e-8  # keeps the step positive if an optimizer step carries clip_alpha to zero or below


def grid(dtype: torch.dtype, clip_alpha: Tensor, signed: Tensor, bits: int,
         symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step of the grid and its lowest and highest level, as scalar tensors of ``dtype``."""
    positive = 2**(bits - 1) - 1
    high = torch.where(signed.bool(), positive, 2**bits - 1).to(dtype)
    low = torch.where(signed.bool(), -positive if symmetric else -positive - 1, 0).to(dtype)
    return clip_alpha.reshape(()).to(dtype).clamp_min(_SMALLEST_CLIP) / high, low, high


def _fake_quant(x: Tensor, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool, clip_gradient: bool,
                alpha_scale: float) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    step, low, high = grid(dtype, clip_alpha, signed, bits, symmetric)
    return ((x.to(dtype) / step).clamp(low, high).round() * step).to(x.dtype)


def _fake_quant_backward(grad: Tensor, x: Tensor, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool,
                         clip_gradient: bool, alpha_scale: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    step, low, high = grid(dtype, clip_alpha, signed, bits, symmetric)
    scaled = x.to(dtype) / step
    clipped = scaled.clamp(low, high)
    inside = clipped == scaled
    grad_x = torch.where(inside, grad, 0) if clip_gradient else grad.clone()
    slope = torch.where(inside, clipped.round() - scaled, clipped)
    total = (grad.to(slope.dtype) * slope).sum() / high * alpha_scale
    return grad_x.to(x.dtype), total.to(clip_alpha.dtype).reshape(clip_alpha.shape)


def _save(ctx, inputs, output):
    x, clip_alpha, signed, *ctx.grid = inputs
    ctx.save_for_backward(x, clip_alpha, signed)


def _backward(ctx, grad):
    grad_x, grad_alpha = fake_quant_backward(grad, *ctx.saved_tensors, *ctx.grid)
    return grad_x, grad_alpha, None, None, None, None, None


_arguments = ('Tensor x, Tensor clip_alpha, Tensor signed, int bits, bool symmetric, bool clip_gradient, '
              'float alpha_scale')
# Element-wise arithmetic is its own fake: shapes, dtypes and strides follow from it.
_op = register(f'fake_quant({_arguments}) -> Tensor', _fake_quant, _fake_quant, _save, _backward)
_backward_op = register(f'fake_quant_backward(Tensor grad, {_arguments}) -> (Tensor, Tensor)', _fake_quant_backward,
                        _fake_quant_backward)


accelerate('fake_quant', 'fake_quant', _fake_quant)
accelerate('fake_quant_backward', 'fake_quant', _fake_quant_backward, values=1)


def fake_quant(x: Tensor, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool, clip_gradient: bool,
               alpha_scale: float) -> Tensor:
    """Round ``x`` to a uniform grid of ``bits`` bits between the clips.

    The step is ``clip_alpha / n`` with ``n = 2**(bits - 1) - 1`` (signed) or ``2**bits - 1`` (unsigned), the levels
    are ``-n ... n`` (signed, symmetric), ``-n - 1 ... n`` (signed, not symmetric) or ``0 ... n`` (unsigned).

    Args:
        x: Values, any shape and floating dtype; the arithmetic is in float32 at least. NaN stays NaN.
        clip_alpha: Upper clip, one element.
        signed: Whether negative values have levels, one boolean element (a tensor, so that reading it needs no
            synchronization with the device).
        bits: Width in 2 ... 16.
        symmetric: Whether a signed grid leaves out its lowest level.
        clip_gradient: Whether the gradient of ``x`` is zero outside the clips (straight-through everywhere if not).
        alpha_scale: Factor on the gradient of ``clip_alpha``.

    Returns:
        Rounded values, shape, dtype and strides of ``x``.

    Reference:
        Finder et al., NeurIPS 2022, equations (1) and (2); Li et al., ICLR 2020 (APoT), uniform form.
    """
    return _op(x, clip_alpha, signed, bits, symmetric, clip_gradient, alpha_scale)


def fake_quant_backward(grad: Tensor, x: Tensor, clip_alpha: Tensor, signed: Tensor, bits: int, symmetric: bool,
                        clip_gradient: bool, alpha_scale: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of :func:`fake_quant` with respect to ``x`` and ``clip_alpha``."""
    return _backward_op(grad, x, clip_alpha, signed, bits, symmetric, clip_gradient, alpha_scale)
