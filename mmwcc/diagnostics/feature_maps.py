"""The error of compressed feature maps: joint wavelet shrinkage and quantization at equal cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmwcc.functional import (
    QuantizationSpec,
    bits_of_positions,
    kept_positions,
    pack,
    quantize,
    unpack,
)
from mmwcc.kernels import padded_size, unfold
from mmwcc.layers import WaveletCompressedLinear, is_eligible
from mmwcc.quantizers import EnergyActQuantizer, choose_clip, measure

__all__ = [
    'CompressedMap',
    'MapError',
    'compress_by_energy',
    'compress_map',
    'eligible_layers',
    'equal_cost_bits',
    'map_error',
    'mosaic',
    'observe_inputs',
    'quantize_map',
]


class CompressedMap(NamedTuple):
    """A feature map after shrinkage.

    Attributes:
        values: The feature map, shape (B, C, H, W), float32.
        kept: Which wavelet positions were kept, in the layout of :func:`mosaic`, shape
            (B, Hp, Wp), bool.
        widths: Bits of each position, in the same layout, uint8. None if all that were kept have
            the same.
    """

    values: Tensor
    kept: Tensor
    widths: Tensor | None = None


@dataclass(frozen=True)
class MapError:
    """The error of changed feature maps; errors of several feature maps can be added.

    Attributes:
        squared: Sum of squared differences.
        energy: Sum of squares of the original.
        size: Number of values.
    """

    squared: float = 0.0
    energy: float = 0.0
    size: int = 0

    @property
    def mse(self) -> float:
        """Mean squared error, or nan if there are no values."""
        return self.squared / self.size if self.size else float('nan')

    @property
    def relative(self) -> float:
        """Squared error as a fraction of the energy, or nan if there is no energy."""
        return self.squared / self.energy if self.energy else float('nan')

    def __add__(self, other: MapError) -> MapError:
        return MapError(
            self.squared + other.squared, self.energy + other.energy, self.size + other.size
        )


def map_error(original: Tensor, changed: Tensor) -> MapError:
    """Compare two feature maps of the same shape, with sums in float64.

    Example:
        >>> map_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])).relative
        0.04
    """
    original, changed = original.double(), changed.double()
    return MapError(
        (original - changed).square().sum().item(), original.square().sum().item(), original.numel()
    )


def equal_cost_bits(keep_ratio: float, bits: int = 8) -> int:
    """Return the bits of plain quantization that cost as much as wavelet compression.

    This is ``bits * keep_ratio`` for kept coefficients of ``bits`` bits. It is rounded up to an
    integer, in favor of quantization.

    Example:
        >>> equal_cost_bits(0.25), equal_cost_bits(0.3)
        (2, 3)

    Reference:
        Finder et al., NeurIPS 2022, figure 1 ("effective bits").
    """
    return kept_positions(bits, keep_ratio)


def _rounded(x: Tensor, bits: int, signed: bool) -> Tensor:
    """Round ``x`` to the uniform grid that gives the least squared error."""
    magnitudes = measure(x)
    levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    clip = x.new_tensor(choose_clip(magnitudes, 'mse', levels, percentile=100.0))
    return quantize(x, clip, torch.tensor(signed, device=x.device), QuantizationSpec(bits))


def quantize_map(x: Tensor, bits: int) -> Tensor:
    """Quantize a feature map uniformly, with the clip that gives it the least squared error.

    The grid is that of the quantizers, signed if any value is negative. With 1 bit, a signed
    symmetric grid would have no level but zero. The grid is then {0, a} if no value is negative,
    and {-a, a} otherwise.

    Args:
        x: Values, any shape.
        bits: Number of bits, in 1 ... 16, or 32 for no quantization.

    Returns:
        Rounded values, float32.

    Raises:
        ValueError: If bits is anything else.

    Example:
        >>> quantize_map(torch.tensor([-1.0, 3.0]), bits=1).tolist()
        [-2.0, 2.0]
    """
    if bits not in (*range(1, 17), 32):
        raise ValueError(
            f'quantize_map: bits must be in 1 ... 16, or 32 for no quantization, got {bits}. Use 8 '
            'for a start.'
        )
    x = x.detach().float()
    if bits == 32:
        return x
    signed = bool((x < 0).any())
    if bits > 1:
        return _rounded(x, bits, signed)
    if signed:
        return torch.where(x < 0, -1.0, 1.0) * x.abs().mean()
    clip = choose_clip(measure(x), 'mse', 1, percentile=100.0)
    return torch.where(x > clip / 2, clip, 0.0)


def compress_map(
    x: Tensor,
    keep_ratio: float,
    bits: int = 8,
    *,
    levels: int = 3,
    wavelet: str = 'haar',
    selection: str = 'energy',
) -> CompressedMap:
    """Transform a feature map, keep and quantize its jointly largest coefficients, transform back.

    A :class:`mmwcc.layers.WaveletCompressedConv2d` computes the same if its kernel is the identity
    and its clip gives the least squared error for this feature map.

    Args:
        x: Feature map, shape (B, C, H, W).
        keep_ratio: Fraction of wavelet positions to keep in each image, in (0, 1].
        bits: Bits of the kept coefficients, in 2 ... 16, or 32 for no quantization. Defaults to 8.
        levels: Depth of the transform. Defaults to 3.
        wavelet: 'haar', or a wavelet of PyWavelets. Defaults to 'haar'.
        selection: 'energy' or 'coarse'. Defaults to 'energy'.

    Returns:
        The feature map and the positions that were kept.

    Raises:
        ValueError: If bits is anything else.

    Example:
        >>> compress_map(torch.ones(1, 2, 8, 8), keep_ratio=1 / 64).kept.sum().item()
        1

    Reference:
        Finder et al., NeurIPS 2022, equation (9).
    """
    if bits not in (*range(2, 17), 32):
        raise ValueError(
            f'compress_map: bits must be in 2 ... 16, or 32 for no quantization, got {bits}. Use 8 '
            'as the paper does.'
        )
    x = x.detach().float()
    rows, slot = pack(x, keep_ratio=keep_ratio, levels=levels, wavelet=wavelet, selection=selection)
    if bits != 32:
        rows = _rounded(rows, bits, signed=True)
    kept = mosaic((slot >= 0).unsqueeze(2), x.shape[2:], levels).squeeze(1)
    return CompressedMap(unpack(rows, slot, size=x.shape[2:], levels=levels, wavelet=wavelet), kept)


def compress_by_energy(
    x: Tensor,
    quantizer: EnergyActQuantizer,
    *,
    levels: int = 3,
    wavelet: str = 'haar',
    selection: str = 'energy',
) -> CompressedMap:
    """Transform a feature map, quantize its positions by their energy, and transform back.

    Args:
        x: Feature map, shape (B, C, H, W).
        quantizer: A quantizer that has learned its clips.
        levels: As in :func:`compress_map`, like wavelet and selection.

    Returns:
        The feature map, and the positions that were kept with their bits.
    """
    x = x.detach().float()
    transform: dict[str, Any] = dict(levels=levels, wavelet=wavelet, unit_atoms=True)
    rows, slot = pack(x, keep_ratio=quantizer.largest_share, selection=selection, **transform)
    clips, signed, spec = quantizer.arguments(rows, slot.shape[1])
    bits = bits_of_positions(rows, spec).gather(1, slot.clamp(min=0).long()) * (slot >= 0)
    widths = mosaic(bits.unsqueeze(2), x.shape[2:], levels).squeeze(1)
    rows = quantize(rows, clips, signed, spec)
    return CompressedMap(unpack(rows, slot, size=x.shape[2:], **transform), widths > 0, widths)


def mosaic(coefficients: Tensor, size: Sequence[int], levels: int = 3) -> Tensor:
    """Arrange coefficients in the layout of ``pywt.coeffs_to_array``.

    The approximation cA is in the top left corner, the horizontal detail cH below it, the vertical
    detail cV to the right of it and the diagonal detail cD diagonally opposite.

    Args:
        coefficients: One row per position, in the order of :mod:`mmwcc.kernels.layout`, shape
            (B, N, C).
        size: Height and width of the feature map.
        levels: Depth of the transform. Defaults to 3.

    Returns:
        Shape (B, C, Hp, Wp), where Hp and Wp are height and width rounded up to multiples of
        ``2**levels``.
    """
    height, width = (padded_size(side, levels) for side in size)
    corner, details = unfold(coefficients, height, width, levels)
    for detail in details:
        horizontal, vertical, diagonal = detail.unbind(3)
        corner = torch.cat(
            [torch.cat([corner, vertical], 2), torch.cat([horizontal, diagonal], 2)], 1
        )
    return corner.permute(0, 3, 1, 2)


def eligible_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that are or could be wavelet compressed, by qualified name.

    They are convolutions, and the linear layers that are.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, WaveletCompressedLinear)
        or (
            isinstance(module, nn.Conv2d)
            and is_eligible(module.kernel_size, module.padding, module.groups)
        )
    }


@contextmanager
def observe_inputs(
    layers: Mapping[str, nn.Module], observer: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call ``observer(name, x)`` with every feature map that one of ``layers`` multiplies.

    For a layer with a stride, this is every stride-th pixel of its input. For a linear layer, it is
    each map that its tokens form. ``x`` is detached.

    Args:
        layers: Layers of :func:`eligible_layers` by name.
        observer: Called in each forward pass, for each use of a layer.
    """
    handles = [
        layer.register_forward_pre_hook(partial(_observe, name, observer))
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _observe(name: str, observer: Callable[[str, Tensor], None], layer: Any, inputs: tuple) -> None:
    x = inputs[0].detach()
    if isinstance(layer, WaveletCompressedLinear):
        for feature, levels in layer.read_maps(x):
            if levels:
                observer(name, feature)
    else:
        height, width = layer.stride
        observer(name, x[..., ::height, ::width])
