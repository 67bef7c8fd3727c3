"""Layers whose feature maps are smaller than a patch, whatever the size of the image.

A transform of L levels works on patches of ``2**L`` pixels in each direction and pads smaller maps.
A layer behind global pooling works on one pixel. With three levels, its map would be padded to 64,
and the product would cost 16 times that of the dense layer at a keep ratio of 25 %. Such layers are
quantized, not transformed. Version 0.1 transformed them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmwcc.quantizers import COEFFICIENTS, stored_code

__all__ = ['too_small', 'watch_tiny_maps']


def too_small(sizes: Sequence[tuple[int, int]], levels: int) -> str:
    """Return why a transform does not suit maps of these sizes, or '' if it does.

    Args:
        sizes: Height and width of all maps of a layer; empty if they depend on the image.
        levels: Depth of the transform.

    Example:
        >>> too_small([(1, 1)], 3), too_small([(8, 8), (1, 1)], 3)
        ('works on one pixel', '')
        >>> too_small([(2, 2), (6, 6)], 3)
        'works on maps of 2x2, 6x6, smaller than a patch of 8x8'
    """
    patch = 2**levels
    if not sizes or any(min(size) >= patch for size in sizes):
        return ''
    if set(sizes) == {(1, 1)}:
        return 'works on one pixel'
    shown = ', '.join(f'{height}x{width}' for height, width in dict.fromkeys(sizes))
    return f'works on maps of {shown}, smaller than a patch of {patch}x{patch}'


class _Watch:
    """Warn when a checkpoint transforms layers that are now only quantized.

    A clip for coefficients does not suit pixels, so the quantizer does not take it over.

    Args:
        names: Names of the layers.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def __call__(
        self, module: nn.Module, state: MutableMapping[str, Tensor], prefix: str, *_: Any
    ) -> None:
        keys = {name: f'{prefix}{name}.act_quant.initialized' for name in self.names}
        transformed = [
            name for name, key in keys.items() if stored_code(state, key) == COEFFICIENTS
        ]
        if transformed:
            pattern = '|'.join(map(re.escape, transformed))
            warnings.warn(
                f'{type(module).__name__}: {", ".join(transformed)} must be learned again, because '
                'the checkpoint transforms them, as version 0.1 did. Their maps are smaller than a '
                'patch whatever the image, so they are only quantized now. To build the network '
                'that the checkpoint belongs to, add dict(type='
                f"'mmwcc.WaveletCompressedConv2d', pattern={pattern!r}) to the rules of the "
                'compression config.',
                stacklevel=2,
            )


def watch_tiny_maps(model: nn.Module, names: list[str]) -> None:
    """Let a model warn when a checkpoint of 0.1 transforms layers that are now only quantized.

    Args:
        model: The model.
        names: Names of the layers whose maps are smaller than a patch.
    """
    if names:
        model.register_load_state_dict_pre_hook(_Watch(names))
