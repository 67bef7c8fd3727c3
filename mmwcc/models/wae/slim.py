"""Derive a backbone config with a quarter of the widths, for the high part of images."""

from __future__ import annotations

import inspect
from copy import deepcopy

from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

from .auto_encoder import is_pretrained

__all__ = ['build_slim', 'slim_config']

_COUNTS = ('base_channels', 'stem_channels', 'embed_dims')
_FACTORS = ('widen_factor',)
_DIVISOR = 4


def slim_config(backbone: dict, in_channels: int = 3) -> dict:
    """Return the config of a backbone with a quarter of the widths.

    The widths are the arguments base_channels, stem_channels, embed_dims and widen_factor of the
    backbone's class and its parents, whether they are given or left at their defaults. Pretrained
    weights are dropped, because they cannot fit.

    Args:
        backbone: Config of the backbone.
        in_channels: Channels of its input. Defaults to 3.

    Returns:
        A new config.

    Raises:
        ValueError: If the class has none of these arguments, or if in_channels is not 3 and the
            class has no such argument.
        KeyError: If the type of the backbone is not registered.
    """
    kind = backbone['type']
    defaults = _defaults(kind)
    slim = deepcopy(dict(backbone))
    # Frozen stages and statistics belong to pretrained weights, which the slim copy does not have.
    if is_pretrained(slim.get('init_cfg')):
        slim['init_cfg'] = None
    for key, value in dict(pretrained=None, frozen_stages=-1, norm_eval=False).items():
        if key in slim or key in defaults:
            slim[key] = value
    found = False
    for key in (*_COUNTS, *_FACTORS):
        width = slim.get(key, defaults.get(key))
        if isinstance(width, (int, float)) and not isinstance(width, bool):
            slim[key] = width / _DIVISOR if key in _FACTORS else max(1, width // _DIVISOR)
            found = True
    if not found:
        raise ValueError(
            f'WAE: high_backbone must be given for {kind}, whose width has none of the names '
            f'{", ".join((*_COUNTS, *_FACTORS))}. Use high_backbone=dict(type={kind!r}, ...) with '
            'a quarter of the widths.'
        )
    if in_channels != 3:
        if 'in_channels' not in defaults:
            raise ValueError(
                f'WAE: high_backbone must be given where the high part has {in_channels} channels '
                f'and {kind} has no in_channels. Use a backbone with in_channels, or mmwcc.WAE.'
            )
        slim['in_channels'] = in_channels
    return slim


def build_slim(backbone: dict, wide: nn.Module, in_channels: int = 3) -> nn.Module:
    """Build the backbone with a quarter of the widths, and check its number of parameters.

    Raises:
        ValueError: As in :func:`slim_config`, or if more than an eighth of the parameters are left,
            where a sixteenth is expected.
    """
    slim = ROOT_MODELS.build(slim_config(backbone, in_channels))
    counts = [
        sum(parameter.numel() for parameter in network.parameters()) for network in (slim, wide)
    ]
    if 8 * counts[0] > counts[1]:
        raise ValueError(
            f'WAE: high_backbone must be given for {backbone["type"]}, which keeps {counts[0]:,} '
            f'of {counts[1]:,} parameters when its width arguments are divided by {_DIVISOR}. Use '
            f'high_backbone=dict(type={backbone["type"]!r}, ...) with a quarter of the widths.'
        )
    return slim


def _defaults(kind) -> dict:
    """Return the default arguments of a registered class.

    If the class takes ``**kwargs``, the arguments of its parents are included.
    """
    cls = kind
    if isinstance(kind, str):
        with ROOT_MODELS.switch_scope_and_registry(None) as registry:
            cls = registry.get(kind)
    if cls is None:
        raise KeyError(
            f'WAE: {kind} is not in the model registry. Write its scope, such as mmdet.{kind}, or '
            'import the module that registers it.'
        )
    defaults: dict = {}
    for parent in inspect.getmro(cls) if inspect.isclass(cls) else (cls,):
        function = parent.__dict__.get('__init__') if inspect.isclass(parent) else parent
        if function is None:
            continue
        parameters = inspect.signature(function).parameters
        for name, parameter in parameters.items():
            defaults.setdefault(name, parameter.default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return defaults
