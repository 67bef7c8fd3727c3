"""ReLU and ReLU6 that save one byte per value for backward instead of their output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmwcc.functional import one_call

__all__ = ['LeanReLU', 'LeanReLU6']


class _Clip(torch.autograd.Function):
    """Clamp to at least 0 and at most ``upper``, and save only where values were not clamped."""

    @staticmethod
    def forward(ctx, x: Tensor, upper: float | None, inplace: bool) -> Tensor:
        stopped = x <= 0  # written this way round so that NaN passes, as in torch
        if upper is not None:
            stopped |= x >= upper
        # Backward multiplies by these bytes. For 4x192x64x64 on two cores that takes 0.8 ms, while
        # masked_fill takes 8.5 ms and torch.where 6.1 ms.
        ctx.save_for_backward(stopped.logical_not_().view(torch.uint8))
        if not inplace:
            return x.clamp(0, upper)
        ctx.mark_dirty(x)
        return x.clamp_(0, upper)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (passed,) = ctx.saved_tensors
        return grad * passed, None, None


def _is_recorded(x: Tensor) -> bool:
    """Tell whether eager autograd records operations on ``x``; compilers choose what they save."""
    return torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling()


class LeanReLU(nn.ReLU):
    """A :class:`torch.nn.ReLU` that needs a quarter of the memory for backward in float32.

    Outputs and gradients are the same.

    The stock module saves its output for backward. This costs nothing if the next layer saves the
    same tensor as its input, as a convolution does. A wavelet compressed layer does not.

    Args:
        inplace: Whether to overwrite the input. Defaults to False.

    Shape:
        Any shape to the same shape.

    Note:
        Where the input was clamped, an infinite gradient becomes NaN. In torch it becomes 0.

    Example:
        >>> LeanReLU()(torch.tensor([-1., 2.]))
        tensor([0., 2.])
    """

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        return _Clip.apply(x, None, self.inplace) if _is_recorded(x) else super().forward(x)


class LeanReLU6(nn.ReLU6):
    """A :class:`torch.nn.ReLU6` that needs a quarter of the memory for backward in float32.

    Outputs and gradients are the same; see :class:`LeanReLU`.

    Args:
        inplace: Whether to overwrite the input. Defaults to False.

    Shape:
        Any shape to the same shape.

    Example:
        >>> LeanReLU6()(torch.tensor([-1., 2., 7.]))
        tensor([0., 2., 6.])
    """

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        return _Clip.apply(x, 6.0, self.inplace) if _is_recorded(x) else super().forward(x)
