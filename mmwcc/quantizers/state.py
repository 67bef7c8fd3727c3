"""The state of quantizers in checkpoints: what it holds, and how other states are loaded.

A quantizer has three entries, and a fourth if it has several clips:

- ``clip_alpha``: the clips, shape (1,), (out_channels,) with one clip for each output channel, or
  (7,) with one for each number of bits from 2 to 8.
- ``initialized``: 0 before anything was learned, 1 for a clip learned from values, 2 for one
  learned from wavelet coefficients, 3 as long as all values were zero.
- ``signed``: whether negative values have levels.
- ``granularity``: the code of :class:`~mmwcc.quantizers.granularity.Granularity`. A state without
  it has one clip.

:data:`VERSION` counts the changes of this format. It is stored in the metadata of a state
dictionary. Files without metadata, such as those of safetensors, are recognized by their shapes and
names.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .granularity import LAYER, WIDTH

if TYPE_CHECKING:
    from .base import UniformQuantizer

__all__ = [
    'COEFFICIENTS',
    'NOTHING',
    'PIXELS',
    'VERSION',
    'ZEROS',
    'refusal',
    'stored_code',
    'upgrade',
]

VERSION = 2
"""1: the clip is a scalar, and weights have no ``signed`` (before this release). 2: as above."""

NOTHING, PIXELS, COEFFICIENTS, ZEROS = range(4)
"""Values of ``initialized``: what the clip was learned from."""


def stored_code(state: Mapping[str, Tensor], key: str) -> int | None:
    """Return the code that a state stores, or None if it has none, or no values (on 'meta')."""
    code = state.get(key)
    return None if code is None or code.is_meta else int(code)


def refusal(
    quantizer: UniformQuantizer, state: MutableMapping[str, Tensor], prefix: str, version: int
) -> str:
    """Return why a state cannot belong to a quantizer, or '' if it can.

    Args:
        quantizer: The quantizer that is to load it.
        state: The entries of a state dictionary.
        prefix: Name of the quantizer in it, with a dot.
        version: The version in the metadata, or 1 if there is none.
    """
    name, clip = type(quantizer).__name__, state.get(f'{prefix}clip_alpha')
    if version > VERSION:
        return (
            f'{name}: the state of {prefix[:-1]} must be of version {VERSION} or older, got '
            f'version {version}. Load it with the mmwcc that wrote it, or a later one.'
        )
    code, clips = stored_code(state, f'{prefix}granularity'), quantizer.clip_alpha.numel()
    if quantizer.scales == WIDTH and clip is not None and clip.numel() != clips:
        return (
            f'{name}: {prefix}clip_alpha must have a clip for each of {clips} widths, got '
            f'{clip.numel()}, which another kind of quantizer has learned. Build the quantizer as '
            'it was trained, or train or calibrate the model first.'
        )
    if clip is None or clip.numel() == 1:
        return ''
    if quantizer.scales == LAYER:
        return (
            f'{name}: {prefix}clip_alpha must be one clip, got {clip.numel()}, one for each '
            'output channel. Build the quantizer with per_channel=True, as it was trained.'
        )
    if code is not None and code != quantizer.scales.code:
        return (
            f'{name}: {prefix}granularity must be {quantizer.scales.code} '
            f'({quantizer.scales.name}), got {code}. Build the quantizer as it was '
            'trained.'
        )
    if code is None and quantizer.scales == WIDTH:
        return (
            f'{name}: {prefix}granularity must be {quantizer.scales.code} '
            f'({quantizer.scales.name}), got none. Build the quantizer as it was trained.'
        )
    if clips not in (1, clip.numel()):
        return (
            f'{name}: {prefix}clip_alpha must have a clip for each of {clips} output channels, '
            f'got {clip.numel()}. Build the network that the checkpoint belongs to.'
        )
    return ''


def upgrade(quantizer: UniformQuantizer, state: MutableMapping[str, Tensor], prefix: str) -> None:
    """Adapt a state to the quantizer that is to load it.

    The state may be one from before this release, one that was learned on other kinds of values, or
    one with a single clip.

    Args:
        quantizer: The quantizer that is to load it.
        state: The entries of a state dictionary. They are changed in place.
        prefix: Name of the quantizer in it, with a dot.
    """
    clip, initialized, signed, granularity = (
        f'{prefix}{name}' for name in ('clip_alpha', 'initialized', 'signed', 'granularity')
    )
    if clip in state:
        if state[clip].dim() == 0:
            state[clip] = state[clip].reshape(1)
        if signed not in state and quantizer._sign:
            state[signed] = torch.ones((), dtype=torch.uint8)  # older weights have none
        _spread(quantizer, state, clip, granularity)
    quantizer._left = NOTHING
    code = stored_code(state, initialized)
    if code is not None and code not in (NOTHING, ZEROS, quantizer._domain):
        quantizer._left = code
        state[initialized] = torch.zeros_like(state[initialized])
        if quantizer._sign:
            state[signed] = torch.ones_like(state[initialized])


def _spread(
    quantizer: UniformQuantizer, state: MutableMapping[str, Tensor], clip: str, granularity: str
) -> None:
    """Give each output channel the single clip of a layer, which leaves the same grid."""
    kind, clips = quantizer.scales, quantizer.clip_alpha.numel()
    if kind == LAYER:
        state.pop(granularity, None)  # it had a single channel
        return
    if kind.axes and state[clip].numel() == 1 and clips > 1:
        state[clip] = state[clip].expand(clips).clone()
    if kind.axes:
        quantizer.fit(state[clip].numel())
    state[granularity] = torch.tensor(kind.code, dtype=torch.uint8)
