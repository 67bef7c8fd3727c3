"""Wavelet convolution (WConv), and the function that builds it from ``conv_cfg``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmwcc.functional import one_call
from mmwcc.registry import MODELS

from .dfwt import DepthwiseFastWaveletTransform, check_kappa, deepest_kappa

__all__ = ['WConv', 'WaveletConv2d', 'wavelet_partition']


def wavelet_partition(channels: int, kappa: int) -> list[int]:
    """Divide ``channels`` into D/2, D/4, ..., D/2**kappa and D/2**kappa.

    Example:
        >>> wavelet_partition(64, 3)
        [32, 16, 8, 8]
    """
    return [channels >> step for step in range(1, kappa + 1)] + [channels >> kappa]


@MODELS.register_module()
class WaveletConv2d(nn.Module):
    """An asymmetric grouped convolution: long pieces of the input feed short pieces of the output.

    The input is divided into pieces of D/2, D/4, ..., D/2**kappa, D/2**kappa channels. The output
    is divided into the same fractions of D' in reverse order. An ordinary convolution leads from
    each input piece to its output piece. Together these convolutions take
    ``(kappa + 3) / 2**(kappa + 2)`` of the weights and multiplications of a dense convolution: 3/16
    at kappa = 3.

    With ``dfwt``, the input first passes through a :class:`DepthwiseFastWaveletTransform` of that
    many steps. This connects every input channel with every output channel. The pieces of the
    transform go straight to the convolutions and are never joined into one tensor.

    Args:
        in_channels: Channels D of the input, divisible by ``2**kappa`` and ``2**dfwt``.
        out_channels: Channels D' of the output, divisible by ``2**kappa``.
        kernel_size: Size of the kernel.
        stride: Stride. Defaults to 1.
        padding: An integer, a pair, 'same' or 'valid'. Defaults to 0.
        dilation: Dilation. Defaults to 1.
        groups: Must be 1.
        bias: Whether to add a learned bias. Defaults to True.
        padding_mode: As in :class:`torch.nn.Conv2d`. Defaults to 'zeros'.
        kappa: Depth of the division; 0 is an ordinary convolution. Defaults to 3, as published.
        dfwt: Number of steps of the transform in front, 0 for none. Defaults to 0.
        orthonormal: Whether that transform preserves norms. Defaults to False, as published.

    Attributes:
        pieces: The ``kappa + 1`` convolutions, each a plain ``nn.Conv2d``. Code that compresses,
            quantizes or counts convolutions finds them there.

    Shape:
        (B, D, H, W) to (B, D', H', W') as in :class:`torch.nn.Conv2d`, in the memory format of the
        input. The batch dimension may be left out.

    Raises:
        TypeError: If kappa or dfwt is not an integer.
        ValueError: If kappa or dfwt is negative, groups is not 1, a channel count is not divisible,
            or the input has another number of channels.

    Example:
        >>> layer = WaveletConv2d(64, 32, 1, bias=False, kappa=3)
        >>> sum(p.numel() for p in layer.parameters())  # 3/16 of 64 * 32
        384

    Reference:
        Jing, Dangovski and Soljacic, WaveletNet: Logarithmic Scale Efficient Convolutional Neural
        Networks for Edge Devices, 2018. For the weights, its Table 1 prints (kappa + 1) / 2**kappa,
        but its own parameter counts contradict that.
    """

    # mmcv's ConvModule reads these attributes from its convolution.
    transposed, output_padding, groups = False, (0, 0), 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Any = 'zeros',
        device=None,
        dtype=None,
        *,
        kappa: int = 3,
        dfwt: int = 0,
        orthonormal: bool = False,
    ) -> None:
        super().__init__()
        self._check(in_channels, out_channels, groups, kappa, dfwt)
        self.in_channels, self.out_channels, self.kappa = in_channels, out_channels, kappa
        sizes = zip(
            wavelet_partition(in_channels, kappa),
            reversed(wavelet_partition(out_channels, kappa)),
            strict=True,
        )
        self.dfwt = DepthwiseFastWaveletTransform(dfwt, orthonormal) if dfwt else None
        self.pieces = nn.ModuleList(
            nn.Conv2d(
                long,
                short,
                kernel_size,
                stride,
                padding,
                dilation,
                1,
                bias,
                padding_mode,
                device,
                dtype,
            )
            for long, short in sizes
        )
        first = self.pieces[0]
        self.kernel_size, self.stride, self.dilation = (
            first.kernel_size,
            first.stride,
            first.dilation,
        )
        self.padding, self.padding_mode = first.padding, padding_mode

    @classmethod
    def _check(cls, in_channels, out_channels, groups, kappa, dfwt) -> None:
        check_kappa(cls.__name__, 'kappa', kappa)
        check_kappa(cls.__name__, 'dfwt', dfwt)
        if groups != 1:
            raise ValueError(
                f'{cls.__name__}: groups must be 1, got {groups}. Use nn.Conv2d for it, or '
                "conv_cfg=dict(type='mmwcc.WConv', ...), which chooses by itself."
            )
        for name, channels in (('in_channels', in_channels), ('out_channels', out_channels)):
            if channels % (1 << kappa):
                raise ValueError(
                    f'{cls.__name__}: {name} must be divisible by 2**kappa={1 << kappa}, got '
                    f'{channels}. Use kappa={deepest_kappa(kappa, in_channels, out_channels)} at '
                    'most.'
                )
        if in_channels % (1 << dfwt):
            raise ValueError(
                f'{cls.__name__}: in_channels must be divisible by 2**dfwt={1 << dfwt}, got '
                f'{in_channels}. Use dfwt={deepest_kappa(dfwt, in_channels)} at most.'
            )

    @one_call
    def forward(self, x: Tensor) -> Tensor:
        batch = x if x.dim() == 4 else x.unsqueeze(0)
        if batch.dim() != 4 or batch.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__}: x must have shape (B, {self.in_channels}, H, W) or '
                f'({self.in_channels}, H, W), got {tuple(x.shape)}. Give the layer the channel '
                'count of its input.'
            )
        parts = (batch,) if self.dfwt is None else self.dfwt.pieces(batch)
        outputs = [
            piece(part) for piece, part in zip(self.pieces, self._aligned(parts), strict=True)
        ]
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        return y if x.dim() == 4 else y.squeeze(0)

    def _aligned(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return one part for each convolution.

        If there are too few parts, the last one is divided. If there are too many, the last ones
        are joined.
        """
        kappa, depth = len(self.pieces) - 1, len(parts) - 1
        if depth < kappa:
            return (
                *parts[:-1],
                *parts[-1].split(wavelet_partition(parts[-1].shape[1], kappa - depth), dim=1),
            )
        if depth > kappa:
            return (*parts[:kappa], torch.cat(parts[kappa:], dim=1))
        return parts

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, kappa={self.kappa}'


@MODELS.register_module()
def WConv(
    in_channels: int,
    out_channels: int,
    kernel_size,
    stride=1,
    padding=0,
    dilation=1,
    groups: int = 1,
    bias: bool = True,
    *,
    kappa: int = 3,
    dfwt: int = 0,
    orthonormal: bool = False,
    lower: bool = False,
    **kwargs,
) -> nn.Module:
    """Build the convolution for ``conv_cfg=dict(type='mmwcc.WConv', kappa=3, dfwt=3)``.

    OpenMMLab passes the same ``conv_cfg`` to all convolutions of a network, so this function
    chooses the layer. Grouped convolutions, and all convolutions with kappa = dfwt = 0, become
    ``torch.nn.Conv2d``. The others become :class:`WaveletConv2d`.

    Args:
        in_channels: As in :class:`torch.nn.Conv2d`, like all arguments up to ``bias``.
        kappa: Depth of the division. Defaults to 3.
        dfwt: Number of steps of the transform in front. Defaults to 0.
        orthonormal: Whether that transform preserves norms. Defaults to False.
        lower: Whether to lower kappa to the largest depth that divides both channel counts instead
            of raising an error. dfwt is lowered with it, so that their pieces coincide. A stem with
            three channels then becomes an ordinary convolution. Defaults to False.
        **kwargs: ``padding_mode``, ``device`` and ``dtype``.

    Returns:
        The layer.
    """
    geometry = dict(
        stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias, **kwargs
    )
    if groups != 1:
        return nn.Conv2d(in_channels, out_channels, kernel_size, **geometry)
    if lower:
        check_kappa('WConv', 'kappa', kappa)
        check_kappa('WConv', 'dfwt', dfwt)
        allowed = deepest_kappa(kappa, in_channels, out_channels)
        dfwt = deepest_kappa(min(dfwt, allowed) if allowed < kappa else dfwt, in_channels)
        kappa = allowed
    if kappa == dfwt == 0:
        return nn.Conv2d(in_channels, out_channels, kernel_size, **geometry)
    return WaveletConv2d(
        in_channels,
        out_channels,
        kernel_size,
        **geometry,
        kappa=kappa,
        dfwt=dfwt,
        orthonormal=orthonormal,
    )
