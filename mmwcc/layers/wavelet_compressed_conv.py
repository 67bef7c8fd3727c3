"""Wavelet compressed convolution, and the function that builds it from ``conv_cfg``."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmwcc.functional import check_compression, pack, unpack
from mmwcc.kernels import is_channels_last
from mmwcc.registry import MODELS

from .quant_conv import QuantConv2d
from .swap import CompressedConvMixin, is_eligible
from .wavelet_settings import WaveletSettings

__all__ = ['WCC', 'WaveletCompressedConv2d']


@MODELS.register_module()
class WaveletCompressedConv2d(WaveletSettings, CompressedConvMixin, nn.Conv2d):
    """A 1x1 convolution on the jointly largest wavelet coefficients.

    It computes ``y = H^T T^T K T H x + bias``. The wavelet transform H is applied to the input. T
    keeps the ``k = ceil(keep_ratio * N)`` positions that have the largest energy over all channels.
    The kept coefficients are quantized and multiplied by the kernel K. The results are put back in
    their positions and transformed back. With ``keep_ratio=1`` and no quantizers, the layer equals
    ``nn.Conv2d``. A stride subsamples the input first. Parameters keep their names and shapes.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Must be 1. Defaults to 1.
        stride: Stride of the convolution. Defaults to 1.
        padding: Must be 0. Defaults to 0.
        dilation: Has no effect on a 1x1 kernel. Defaults to 1.
        groups: Must be 1. Defaults to 1.
        bias: Whether to add a learned bias, once, in the spatial domain. Defaults to True.
        keep_ratio: Fraction of wavelet positions to keep in each image, in (0, 1]. It can be
            changed at any time.
        levels: Depth of the wavelet transform, at least 1. Defaults to 3.
        wavelet: 'haar', or a wavelet of PyWavelets. Defaults to 'haar'.
        selection: 'energy' (largest joint energy) or 'coarse' (coarsest positions). It can be
            changed at any time. Defaults to 'energy'.
        weight_quant: Quantizer of the weight, or its config. Defaults to None, which does not
            quantize.
        act_quant: Quantizer of the kept coefficients, or its config. Defaults to None, which does
            not quantize.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride)), any H and
        W, in the memory format of the input. The batch dimension may be left out.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If kernel_size is not 1, padding is not 0, groups is not 1, keep_ratio is not in
            (0, 1], levels is below 1, wavelet or selection is unknown, or act_quant is unsigned.

    Note:
        No gradient flows through the selection. For backward, the layer saves the kept coefficients
        and four bytes per position, not the input.

    Example:
        >>> layer = WaveletCompressedConv2d(64, 256, keep_ratio=0.25)
        >>> layer(torch.rand(1, 64, 30, 41)).shape
        torch.Size([1, 256, 30, 41])

    Reference:
        Finder et al., Wavelet Feature Maps Compression for Image-to-Image CNNs, NeurIPS 2022,
        equation (9).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size=1,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        bias: bool = True,
        device=None,
        dtype=None,
        *,
        keep_ratio: float,
        levels: int = 3,
        wavelet: str = 'haar',
        selection: str = 'energy',
        weight_quant: dict | None = None,
        act_quant: dict | None = None,
    ) -> None:
        self._check_geometry(kernel_size, padding, groups)
        check_compression(
            type(self).__name__,
            keep_ratio=keep_ratio,
            levels=levels,
            wavelet=wavelet,
            selection=selection,
        )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0,
            dilation,
            groups,
            bias,
            'zeros',
            device,
            dtype,
        )
        self._build_settings(keep_ratio, levels, wavelet, selection)
        self._build_quantizers(weight_quant, act_quant)
        self._check_coefficients()

    @staticmethod
    def _check_geometry(kernel_size, padding, groups: int) -> None:
        remedy = (
            "Use QuantConv2d for it, or conv_cfg=dict(type='mmwcc.WCC', ...), which chooses by "
            'itself.'
        )
        if _pair(kernel_size) != (1, 1):
            raise ValueError(
                f'WaveletCompressedConv2d: kernel_size must be 1, got {kernel_size}. {remedy}'
            )
        if not is_eligible(1, padding, 1):
            raise ValueError(f'WaveletCompressedConv2d: padding must be 0, got {padding}. {remedy}')
        if groups != 1:
            raise ValueError(f'WaveletCompressedConv2d: groups must be 1, got {groups}. {remedy}')

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        batch = self._batched(x)
        channels_last = is_channels_last(batch)
        if self.stride != (1, 1):
            batch = batch[:, :, :: self.stride[0], :: self.stride[1]]
        rows, slot = pack(
            batch,
            keep_ratio=self.packed_ratio,
            levels=self.levels,
            wavelet=self.wavelet,
            selection=self.selection,
            unit_atoms=self._by_energy,
        )
        rows = self._product(rows, weight, positions=slot.shape[1])
        y = unpack(
            rows,
            slot,
            bias,
            size=batch.shape[2:],
            levels=self.levels,
            wavelet=self.wavelet,
            channels_last=channels_last,
            unit_atoms=self._by_energy,
        )
        return y if x.dim() == 4 else y.squeeze(0)


@MODELS.register_module()
def WCC(
    in_channels: int,
    out_channels: int,
    kernel_size,
    stride=1,
    padding=0,
    dilation=1,
    groups: int = 1,
    bias: bool = True,
    *,
    weight_quant: dict | None = None,
    act_quant: dict | None = None,
    **compression,
) -> nn.Conv2d:
    """Build the layer that suits a convolution, for ``conv_cfg``.

    Use it as ``conv_cfg=dict(type='mmwcc.WCC', keep_ratio=0.25, ...)``. OpenMMLab passes the same
    ``conv_cfg`` to stems, depthwise and pointwise convolutions, so this function chooses the layer.
    An eligible 1x1 convolution becomes a :class:`WaveletCompressedConv2d`. Any other becomes a
    :class:`QuantConv2d`, or a ``torch.nn.Conv2d`` if nothing is quantized.

    Args:
        in_channels: As in :class:`torch.nn.Conv2d`, like all arguments up to ``bias``.
        weight_quant: Quantizer config of the weight. Defaults to None, which does not quantize.
        act_quant: Quantizer config of the input. Defaults to None, which does not quantize.
        **compression: keep_ratio, levels, wavelet and selection of
            :class:`WaveletCompressedConv2d`.

    Returns:
        The layer.
    """
    geometry = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias)
    if is_eligible(kernel_size, padding, groups):
        return WaveletCompressedConv2d(
            in_channels,
            out_channels,
            kernel_size,
            **geometry,
            **compression,
            weight_quant=weight_quant,
            act_quant=act_quant,
        )
    if weight_quant is None and act_quant is None:
        return nn.Conv2d(in_channels, out_channels, kernel_size, **geometry)
    return QuantConv2d(
        in_channels,
        out_channels,
        kernel_size,
        **geometry,
        weight_quant=weight_quant,
        act_quant=act_quant,
    )
