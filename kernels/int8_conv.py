"""Convolutions of 8-bit maps with int8 kernels, exact in int32, with the rounding to 8 bits after.

A map is stored as bytes: unsigned levels as they are, signed ones 128 higher. oneDNN computes it
where the processor has exact 8-bit products; elsewhere, and under ``MMWCC_KERNELS=reference``, the
same integers are summed in floating point.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import chosen_path

__all__ = ['PackedConv', 'int8_conv2d', 'pack_int8_conv']

_EXACT = 2**24  # integers up to here are exact in float32
_CLIPS = {'': (-inf, inf), 'relu': (0.0, inf), 'relu6': (0.0, 6.0)}
_POST_OPS = dict(hardswish='hardswish', silu='swish')
_ACTIVATIONS = dict(relu=F.relu, relu6=F.relu6, hardswish=F.hardswish, silu=F.silu)


class PackedConv(NamedTuple):
    """The constants of a convolution.

    Attributes:
        weight: Kernel (O, C / groups, Kh, Kw), int8.
        scale: Step of the weights of each output channel (O,), float32.
        bias: Added to the scaled sums, (O,), float32.
        step: Step of the input.
        zero: The byte that stands for 0 in the input: 0 or 128.
        geometry: Stride, padding and dilation, a pair each, and groups.
        packed: The kernel in oneDNN's layout, or None where oneDNN is not exact.
        zeros: Zero points of the weights (O,), int32, which are all 0.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor
    step: float
    zero: int
    geometry: tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]
    packed: Any
    zeros: Tensor


@lru_cache
def is_exact() -> bool:
    """Tell whether oneDNN's 8-bit convolutions run here and are exact.

    Without VNNI, oneDNN adds pairs of 8-bit products in saturating 16-bit arithmetic.
    """
    if not hasattr(torch.ops.onednn, 'qconv2d_pointwise'):
        return False
    generator = torch.Generator().manual_seed(0)
    ends = torch.tensor([-128, 127], dtype=torch.int8)  # products of these need all 16 bits
    levels = 255 * torch.randint(0, 2, (1, 64, 9, 8), dtype=torch.uint8, generator=generator)
    levels = levels.contiguous(memory_format=torch.channels_last)
    # oneDNN chooses its code by the geometry: 1x1, k x k and depthwise.
    for size, groups in ((1, 1), (3, 1), (3, 64)):
        shape = (64, 64 // groups, size, size)
        weight = ends[torch.randint(0, 2, shape, generator=generator)]
        geometry = ((1, 1), (size // 2, size // 2), (1, 1), groups)
        scale, bias = torch.ones(64), torch.zeros(64)
        zeros = torch.zeros(64, dtype=torch.int32)
        conv = PackedConv(weight, scale, bias, 1.0, 128, geometry, None, zeros)
        try:
            packed = torch.ops.onednn.qconv_prepack(weight, scale, 1.0, 128, *geometry, None)
            y = _onednn(levels, conv._replace(packed=packed), '', None)
        except (AttributeError, RuntimeError):
            return False
        if not torch.equal(y, _reference(levels, conv, '', None)):
            return False
    return True


def pack_int8_conv(
    weight: Tensor, scale: Tensor, bias: Tensor, step: float, zero: int, geometry
) -> PackedConv:
    """Prepare the constants of a convolution; see :class:`PackedConv`.

    While torch.jit traces, there is no oneDNN layout. Do not keep the result beyond the trace.
    """
    packed, on_cpu = None, weight.device.type == 'cpu' and chosen_path('cpu') == 'cpu'
    if on_cpu and not torch.jit.is_tracing() and is_exact():
        packed = torch.ops.onednn.qconv_prepack(weight, scale, step, zero, *geometry, None)
    zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return PackedConv(weight, scale, bias, step, zero, geometry, packed, zeros)


def int8_conv2d(
    levels: Tensor,
    conv: PackedConv,
    activation: str = '',
    output: tuple[float, int, int, int] | None = None,
) -> Tensor:
    """Convolve a map of bytes.

    Args:
        levels: The map, (B, C, H, W), uint8.
        conv: The constants, see :func:`pack_int8_conv`.
        activation: 'relu', 'relu6', 'hardswish', 'silu' or '' for none. Defaults to ''.
        output: Step of the output, the byte that stands for 0, and the lowest and highest byte; or
            None for float32. Defaults to None.

    Returns:
        The map (B, O, H', W'), channels_last: float32, or uint8 rounded half to even.
    """
    if conv.packed is None or torch.jit.is_tracing():  # a trace cannot hold oneDNN's layout
        return _reference(levels, conv, activation, output)
    return _onednn(levels, conv, activation, output)


def _onednn(levels: Tensor, conv: PackedConv, activation: str, output) -> Tensor:
    step, zero, low, high = output or (1.0, 0, 0, 255)
    post_op, post_arguments = _post_op(activation, output)
    y = torch.ops.onednn.qconv2d_pointwise(
        levels.contiguous(memory_format=torch.channels_last),
        conv.step,
        conv.zero,
        conv.packed,
        conv.scale,
        conv.zeros,
        conv.bias,
        *conv.geometry,
        step,
        zero,
        torch.uint8 if output else torch.float32,
        post_op,
        post_arguments,
        '',
    )
    if activation in _CLIPS or (low, high) == (0, 255):
        return y
    return y.clamp_(low, high)


def _post_op(activation: str, output) -> tuple[str, list[float]]:
    """Return oneDNN's name and arguments of an activation.

    If the output has fewer levels than a byte, a clip of the activation becomes narrower, which
    saves another pass over the output. oneDNN itself saturates at the ends of a byte.
    """
    if activation not in _CLIPS:
        return _POST_OPS[activation], []
    lower, upper = _CLIPS[activation]
    if output is not None:
        step, zero, low, high = output
        lower = max(lower, step * (low - zero)) if low > 0 else lower
        upper = min(upper, step * (high - zero)) if high < 255 else upper
    if (lower, upper) == (-inf, inf):
        return 'none', []
    return 'hardtanh', [lower, upper]


def _reference(levels: Tensor, conv: PackedConv, activation: str, output) -> Tensor:
    """Compute :func:`int8_conv2d` in floating point, exactly up to the scaling of the sums."""
    terms = conv.weight[0].numel()
    # On other devices, float32 may mean a shorter format or sums in another form.
    short = levels.device.type == 'cpu' and 255 * 128 * terms < _EXACT
    dtype = torch.float32 if short else torch.float64
    stride, padding, dilation, groups = conv.geometry
    with torch.autocast(levels.device.type, enabled=False):
        sums = F.conv2d(
            (levels.to(dtype) - conv.zero).contiguous(memory_format=torch.channels_last),
            conv.weight.to(dtype),
            None,
            stride,
            padding,
            dilation,
            groups,
        )
    y = sums.float() * (conv.step * conv.scale).view(-1, 1, 1) + conv.bias.view(-1, 1, 1)
    y = _ACTIVATIONS[activation](y) if activation else y
    if output is None:
        return y
    step, zero, low, high = output
    return (y / step).round_().add_(zero).clamp_(low, high).to(torch.uint8)
