"""A k x k convolution that is split into a depthwise convolution and a 1x1 convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmwcc.registry import MODELS

from .swap import check_parameters

__all__ = ['SeparableConv2d', 'separable_kernels']

_GEOMETRY = ('stride', 'padding', 'dilation', 'padding_mode')


def check_init(owner: str, init: str) -> None:
    """Raise an error if the initialization of separated convolutions is unknown.

    Raises:
        ValueError: If init is neither 'svd' nor 'random'.
    """
    if init not in ('svd', 'random'):
        raise ValueError(
            f"{owner}: init must be 'svd' or 'random', got {init!r}. Use 'svd' to start from the "
            'dense '
            'weights.'
        )


@torch.no_grad()
def separable_kernels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the depthwise and 1x1 kernels whose product is nearest to a dense kernel.

    Nearest is meant in the least-squares sense. The product connects input channel c to output
    channel o by ``pointwise[o, c] * depthwise[c]``. For each c, this is a matrix of rank one over
    (o, tap). The largest singular value and its vectors give the best such matrix. Both factors get
    the same norm.

    Args:
        weight: A dense kernel (O, C, kh, kw).

    Returns:
        The depthwise kernel (C, 1, kh, kw) and the 1x1 kernel (O, C, 1, 1), in the dtype of
        ``weight``.

    Example:
        >>> depthwise, pointwise = separable_kernels(torch.full((2, 1, 3, 3), 4.0))
        >>> torch.allclose(pointwise * depthwise.transpose(0, 1), torch.tensor(4.0))
        True
    """
    out_channels, in_channels, *taps = weight.shape
    left, values, right = torch.linalg.svd(
        weight.double().transpose(0, 1).flatten(2), full_matrices=False
    )
    scale = values[:, :1].sqrt()
    depthwise = (scale * right[:, 0]).reshape(in_channels, 1, *taps)
    pointwise = (scale * left[:, :, 0]).t().reshape(out_channels, in_channels, 1, 1)
    return depthwise.to(weight.dtype), pointwise.to(weight.dtype)


@MODELS.register_module()
class SeparableConv2d(nn.Sequential):
    """A depthwise k x k convolution followed by a 1x1 convolution, replacing a dense k x k one.

    The depthwise convolution has the stride, padding and dilation, and no bias. The 1x1 convolution
    has the bias. They are called ``depthwise_conv`` and ``pointwise_conv``, as in mmcv. Checkpoints
    with a dense kernel under this layer's name also load: the kernel is replaced by the nearest
    separable one.

    Args:
        in_channels: As in :class:`torch.nn.Conv2d`, like all other arguments.
        groups: Must be 1. Defaults to 1.

    Shape:
        As :class:`torch.nn.Conv2d`.

    Raises:
        ValueError: If kernel_size is 1 or groups is not 1.

    Note:
        The layer has no ``weight``, so code that reads the kernel of a convolution does not work
        with it.

    Example:
        >>> SeparableConv2d(8, 16, 3, stride=2, padding=1)(torch.rand(1, 8, 5, 5)).shape
        torch.Size([1, 16, 3, 3])

    Reference:
        Finder et al., Wavelet Feature Maps Compression for Image-to-Image CNNs, NeurIPS 2022,
        appendix A.
    """

    kernel_size: tuple[int, int]

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
    ) -> None:
        if _pair(kernel_size) == (1, 1) or groups != 1:
            raise ValueError(
                'SeparableConv2d: kernel_size must be larger than 1 and groups must be 1, got '
                f'{kernel_size} and {groups}. Use torch.nn.Conv2d for it.'
            )
        super().__init__()
        factory = dict(device=device, dtype=dtype)
        self.depthwise_conv = nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups=in_channels,
            bias=False,
            padding_mode=padding_mode,
            **factory,
        )
        self.pointwise_conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias, **factory)
        # mmcv's ConvModule reads these attributes from its convolution.
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        for name in ('kernel_size', *_GEOMETRY, 'transposed', 'output_padding'):
            setattr(self, name, getattr(self.depthwise_conv, name))

    @classmethod
    def from_conv2d(cls, conv: nn.Conv2d, init: str = 'svd') -> SeparableConv2d:
        """Build the layer that replaces ``conv``, with the same geometry and ``bias`` object.

        Args:
            conv: The convolution to replace.
            init: 'svd' for the nearest separable kernel, 'random' for torch's initialization.
                Defaults to 'svd'.

        Returns:
            The new layer, with the device, dtype and training mode of ``conv``. Its kernels require
            gradients if that of ``conv`` does, and carry the same attributes.

        Raises:
            ValueError: If init is unknown, if ``conv`` is 1x1 or has groups, or if its weight or
                bias is not a parameter.
        """
        check_init('SeparableConv2d', init)
        check_parameters('SeparableConv2d', conv)
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            groups=conv.groups,
            bias=conv.bias is not None,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
            **{name: getattr(conv, name) for name in _GEOMETRY},
        )
        if init == 'svd':
            layer.load_state_dict(dict(weight=conv.weight), strict=False)
        layer.pointwise_conv.bias = conv.bias
        for part in (layer.depthwise_conv, layer.pointwise_conv):
            part.weight.requires_grad_(conv.weight.requires_grad)
            vars(part.weight).update(vars(conv.weight))
        return layer.train(conv.training)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        dense = state_dict.get(f'{prefix}weight')
        if dense is not None and tuple(dense.shape) == (
            self.out_channels,
            self.in_channels,
            *self.kernel_size,
        ):
            kernels = separable_kernels(state_dict.pop(f'{prefix}weight'))
            for name, kernel in zip(('depthwise_conv', 'pointwise_conv'), kernels, strict=True):
                state_dict[f'{prefix}{name}.weight'] = kernel
            if f'{prefix}bias' in state_dict:
                state_dict[f'{prefix}pointwise_conv.bias'] = state_dict.pop(f'{prefix}bias')
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
