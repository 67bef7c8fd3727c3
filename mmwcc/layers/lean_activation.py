"""ReLU and ReLU6 that keep one byte a value for backward instead of their output."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from mmwcc.functional import one_call

__all__ = ['LeanReLU', 'LeanReLU6']


class _Clip(torch.autograd.Function):
    """Clip to 0 and above, or to 0 ... upper; backward needs only to know where values were stopped."""

    @staticmethod
    def forward(ctx, x: Tensor, upper: float | None, inplace: bool) -> Tensor:
        stopped = x <= 0  # not x > 0: NaN passes, as in torch
        if upper is not None:
            stopped |= x >= upper
        # Multiplying by bytes takes 0.8 ms for 4x192x64x64 on two cores, masked_fill 8.5 ms and torch.where 6.1 ms.
        ctx.save_for_backward(stopped.logical_not_().view(torch.uint8))
        if not inplace:
            return x.clamp(0, upper)
        ctx.mark_dirty(x)
        return x.clamp_(0, upper)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        passed, = ctx.saved_tensors
        return grad * passed, None, None


def _is_recorded(x: Tensor) -> bool:
    """Tell whether autograd will run backward through an eager operation on ``x``; compilers keep what they like."""
    return torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling()


class LeanReLU(nn.ReLU):
    """:class:`torch.nn.ReLU` with the same outputs and gradients, and a quarter of its memory in float32.

    The stock module keeps its output for backward. That costs nothing where the next layer keeps the same tensor as its
    input, as a convolution does, but a wavelet compressed layer does not.

    Args:
        inplace: Whether to overwrite the input. Defaults to False.

    Shape:
        Any to the same.

    Note:
        A gradient that is infinite where the input was stopped becomes NaN, where torch's becomes 0.

    Example:
        >>> LeanReLU()(torch.tensor([-1., 2.]))
        tensor([0., 2.])
    """

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        return _Clip.apply(x, None, self.inplace) if _is_recorded(x) else super().forward(x)


class LeanReLU6(nn.ReLU6):
    """:class:`torch.nn.ReLU6` with the same outputs and gradients, and a quarter of its memory in float32.

    Args:
        inplace: Whether to overwrite the input. Defaults to False.

    Shape:
        Any to the same.

    Example:
        >>> LeanReLU6()(torch.tensor([-1., 2., 7.]))
        tensor([0., 2., 6.])
    """

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        return _Clip.apply(x, 6., self.inplace) if _is_recorded(x) else super().forward(x)
