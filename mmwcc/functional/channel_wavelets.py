"""The Haar transform of the channels of a feature map (DFWT).

It returns pieces: the differences of every step, then the sums of the last one. Each piece is a
tensor of its own, so that a convolution of pieces reads them as they were written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmwcc.kernels import is_channels_last

__all__ = ['dfwt', 'inverse_dfwt']


def dfwt(x: Tensor, kappa: int, orthonormal: bool = False) -> tuple[Tensor, ...]:
    """Transform the channels of ``x`` in ``kappa`` steps.

    Each step pairs channel j of n with channel j + n/2. It emits the differences
    ``d_j = x_j - x_{j+n/2}`` and goes on with the sums ``x_j + x_{j+n/2}``.

    Args:
        x: Feature map, shape (B, D, ...), D divisible by ``2**kappa``.
        kappa: Number of steps, at least 0. With 0, nothing is transformed.
        orthonormal: Whether to divide every step by the square root of 2, so that norms are
            preserved. Defaults to False, as published.

    Returns:
        ``kappa + 1`` pieces with D/2, D/4, ..., D/2**kappa and D/2**kappa channels: the differences
        of each step, then the sums of the last one.

    Raises:
        ValueError: If ``2**kappa`` does not divide D.

    Example:
        >>> [piece.flatten().tolist() for piece in dfwt(torch.tensor([[5., 3., 2., 1.]]), kappa=2)]
        [[3.0, 2.0], [3.0], [11.0]]

    Reference:
        Jing, Dangovski and Soljacic, WaveletNet: Logarithmic Scale Efficient Convolutional Neural
        Networks for Edge Devices, 2018.
    """
    if x.shape[1] % (1 << kappa):
        raise ValueError(
            f'dfwt: the channels of x must be divisible by 2**kappa={1 << kappa}, got '
            f'{x.shape[1]}. Lower kappa.'
        )
    if kappa == 0:
        return (x,)
    scale = 0.5**0.5 if orthonormal else 1.0
    plain = _is_compiled() or not (x.requires_grad and torch.is_grad_enabled())
    return tuple(_split(x, kappa, scale)) if plain else _Split.apply(x, kappa, scale)


def inverse_dfwt(pieces: tuple[Tensor, ...], orthonormal: bool = False) -> Tensor:
    """Invert :func:`dfwt`.

    Args:
        pieces: What ``dfwt`` returned: the differences of each step, then the sums.
        orthonormal: The value that was given to ``dfwt``. Defaults to False.

    Returns:
        The feature map, shape (B, D, ...).

    Example:
        >>> inverse_dfwt(dfwt(torch.tensor([[5., 3., 2., 1.]]), kappa=2)).tolist()
        [[5.0, 3.0, 2.0, 1.0]]
    """
    if len(pieces) == 1:
        return pieces[0]
    scale = 0.5**0.5 if orthonormal else 0.5
    return _merge_plainly(pieces, scale) if _is_compiled() else _Merge.apply(scale, *pieces)


def _is_compiled() -> bool:
    """Tell whether to use plain additions, which compilers can fuse and differentiate.

    Exporters know them too.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _split(x: Tensor, kappa: int, scale: float) -> list[Tensor]:
    """Transform with plain additions, and scale each result in place."""
    pieces = []
    for _ in range(kappa):
        left, right = x.chunk(2, dim=1)
        pieces.append(left - right if scale == 1 else (left - right).mul_(scale))
        x = left + right if scale == 1 else (left + right).mul_(scale)
    return [*pieces, x]


def _merge_plainly(pieces, scale: float) -> Tensor:
    """Invert the transform by concatenation, with operators that every compiler knows."""
    x = pieces[-1]
    for difference in reversed(pieces[:-1]):
        x = torch.cat([x + difference, x - difference], dim=1) * scale
    return x


def _merge(pieces, scale: float) -> Tensor:
    """Compute :func:`_merge_plainly` without concatenations, in the format of the first piece.

    Both halves of each step are written straight to their place in the result.
    """
    x = pieces[-1]
    channels_last = x.dim() == 4 and is_channels_last(pieces[0])
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for difference in reversed(pieces[:-1]):
        half = x.shape[1]
        shape = (x.shape[0], 2 * half, *x.shape[2:])
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
        torch.add(x, difference, out=y[:, :half])
        torch.sub(x, difference, out=y[:, half:])
        x = y if scale == 1 else y.mul_(scale)
    return x


# At the same scale, the two functions are each other's adjoint. Autograd through the slices of
# `_split` would pad every half with zeros and add them up. Forward and backward then took 1.1 to
# 1.6 times as long on one core of an AMD EPYC (AVX-512) at 144x56x56, 192x28x28 and 384x14x14,
# batches of 1 and 8. A numba kernel for the transform was measured too. It would have saved about
# 2 % of a network's time, so there is none.
class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, kappa: int, scale: float):
        ctx.scale = scale
        return tuple(_split(x, kappa, scale))

    @staticmethod
    def backward(ctx, *grads: Tensor):
        return _Merge.apply(ctx.scale, *grads), None, None


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale: float, *pieces: Tensor) -> Tensor:
        ctx.scale, ctx.kappa = scale, len(pieces) - 1
        return _merge(pieces, scale)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return None, *_Split.apply(grad, ctx.kappa, ctx.scale)
