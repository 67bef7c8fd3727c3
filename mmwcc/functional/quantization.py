"""Fake quantization: how a tensor is rounded, and its gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmwcc import kernels

from .energy import energy_quantize, energy_quantize_backward

__all__ = [
    'OFF',
    'QuantizationSpec',
    'normalization',
    'quantize',
    'quantize_backward',
    'quantize_forward',
]


class QuantizationSpec(NamedTuple):
    """How a quantizer rounds: everything about it that is not a tensor.

    Operators, layers and exports read this. Besides it, they read only the clip and the sign of a
    quantizer.

    Attributes:
        bits: Width in 2 ... 16, or 32 for no quantization.
        symmetric: Whether a signed grid leaves out its lowest level.
        clip_gradient: Whether the gradient is zero outside the clips.
        alpha_scale: Factor on the gradient of ``clip_alpha``.
        normalize: '', 'standard' (quantize ``(w - mean) / std``) or 'rescale' (the same, times
            ``std``). Mean and standard deviation are those of the whole tensor.
        rounding_gradient: Whether values between the clips add their rounding error to the gradient
            of ``clip_alpha``. If not, it is the gradient of the clamp alone, as in PACT.
        axes: Axes of the tensor along which the clip differs. It is shared over all others. ()
            means one clip, (0,) means one for each output channel of a kernel.
        widths: Numbers of bits that a position can have, if each position has a scale of its own;
            see :func:`mmwcc.kernels.energy_quant`. With it, there is a clip for each of
            :data:`mmwcc.kernels.WIDTHS`. () means one scale for all positions.
        mean_bits: Mean number of bits of the positions of an image, at most. With one width, it
            means nothing.
        positions: Number of positions of an image, if values have fewer: those that were dropped
            count as 0 bits. None means those that there are.
    """

    bits: int
    symmetric: bool = True
    clip_gradient: bool = True
    alpha_scale: float = 1.0
    normalize: str = ''
    rounding_gradient: bool = True
    axes: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    mean_bits: float = 0.0
    positions: int | None = None

    # No property, because compilers up to torch 2.8 cannot trace one of a tuple.
    def grid(self) -> tuple:
        """Return the static arguments of the fake-quantization operator."""
        return (
            self.bits,
            self.symmetric,
            self.clip_gradient,
            self.alpha_scale,
            self.rounding_gradient,
        )

    def among(self, positions: int | None) -> QuantizationSpec:
        """Return this for values that are some rows of a map with this number of positions."""
        # Not _replace, which the compiler of torch 2.4 cannot trace. Positions come last.
        return QuantizationSpec(*self[:-1], positions)

    def spread(self, per_clip: Tensor, x: Tensor) -> Tensor:
        """Return a tensor with one element per clip in the shape that broadcasts to ``x``."""
        if not self.axes:
            return per_clip
        shape = [size if axis in self.axes else 1 for axis, size in enumerate(x.shape)]
        return per_clip.reshape(shape)


OFF = QuantizationSpec(bits=32)
"""Leaves values as they are."""


def normalization(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased standard deviation of a weight tensor, in float32 at least.

    They carry no gradient.
    """
    std, mean = torch.std_mean(weight.detach().to(torch.promote_types(weight.dtype, torch.float32)))
    return mean, std


def quantize_forward(
    x: Tensor, clip_alpha: Tensor | None, signed: Tensor | None, spec: QuantizationSpec
) -> Tensor:
    """Round values as ``spec`` says. At 32 bits, return ``x`` itself."""
    if spec.bits == 32:
        return x
    assert clip_alpha is not None, 'only 32 bits go without a clip'
    if spec.widths:
        assert signed is not None, 'only 32 bits go without a sign'
        return energy_quantize(x, clip_alpha, signed, spec)
    clip_alpha = spec.spread(clip_alpha, x)
    if not spec.normalize:
        return kernels.fake_quant(x, clip_alpha, signed, *spec.grid())
    mean, std = normalization(x)
    rounded = kernels.fake_quant((x - mean) / std, clip_alpha, signed, *spec.grid())
    return rounded * std if spec.normalize == 'rescale' else rounded


def quantize_backward(
    grad: Tensor,
    x: Tensor,
    clip_alpha: Tensor | None,
    signed: Tensor | None,
    spec: QuantizationSpec,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of ``x`` and ``clip_alpha``.

    Mean and deviation of a normalized tensor count as constants.
    """
    if spec.bits == 32:
        # A zero, not None: DistributedDataParallel needs every gradient in every step.
        return grad, None if clip_alpha is None else torch.zeros_like(clip_alpha)
    assert clip_alpha is not None, 'only 32 bits go without a clip'
    if spec.widths:
        assert signed is not None, 'only 32 bits go without a sign'
        return energy_quantize_backward(grad, x, clip_alpha, signed, spec)
    clips, values = spec.spread(clip_alpha, x), x
    if spec.normalize:
        mean, std = normalization(x)
        values = (x - mean) / std
        grad = grad * std if spec.normalize == 'rescale' else grad
    grad, grad_alpha = kernels.fake_quant_backward(grad, values, clips, signed, *spec.grid())
    return grad / std if spec.normalize else grad, grad_alpha.view_as(clip_alpha)


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, clip_alpha, signed, spec):
        ctx.save_for_backward(x, clip_alpha, signed)
        ctx.spec = spec
        y = quantize_forward(x, clip_alpha, signed, spec)
        return y.clone() if y is x else y  # a view could not be written to in place

    @staticmethod
    @once_differentiable  # straight-through estimates have no useful second derivative
    def backward(ctx, grad):
        x, clip_alpha, signed = ctx.saved_tensors
        return *quantize_backward(grad, x, clip_alpha, signed, ctx.spec), None, None


def quantize(x: Tensor, clip_alpha: Tensor, signed: Tensor, spec: QuantizationSpec) -> Tensor:
    """Return ``x`` rounded as ``spec`` says, differentiable in ``x`` and ``clip_alpha``.

    Args:
        x: Values, any shape.
        clip_alpha: Learned clip: one element, or one for each index of ``spec.axes``.
        signed: Whether negative values have levels, one boolean element.
        spec: The grid.

    Returns:
        Rounded values, shape of ``x``. At 32 bits this is ``x`` itself if no gradient is recorded.

    Raises:
        RuntimeError: If its gradient is differentiated again.

    Reference:
        Finder et al., NeurIPS 2022, equations (1) and (2).
    """
    if spec.bits == 32 and not torch.is_grad_enabled():
        return x
    return _Quantize.apply(x, clip_alpha, signed, spec)
