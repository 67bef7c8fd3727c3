"""Compress a model in one line of a Python config: ``compress(_base_.model, 'wcc_w8a8_k50')``.

The presets themselves are the files in ``configs/_base_/compression``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import nn

from mmwcc.compressed_config import is_compressed, with_compression
from mmwcc.compression import CompressionConfig
from mmwcc.messages import did_you_mean, some_of

__all__ = ['compress', 'preset', 'preset_names', 'quantizer_optim', 'quantizer_paramwise']

_FOLDER = Path(__file__).parent / '.mim' / 'configs' / '_base_' / 'compression'


def preset_names() -> list[str]:
    """Return the names of the shipped presets, sorted."""
    return sorted(path.stem for path in _FOLDER.glob('*.py'))


def _load(name: str) -> Config:
    if not preset_names():
        raise FileNotFoundError(
            f'compress: the presets are missing from {_FOLDER}. Install mmwcc, which puts them '
            'there: pip install -e . in its folder.'
        )
    if name not in preset_names():
        raise ValueError(
            f'compress: there is no preset {name!r}. '
            f'{did_you_mean(name, preset_names(), cutoff=0.4)}'
            f'Known presets: {", ".join(preset_names())}.'
        )
    return Config.fromfile(_FOLDER / f'{name}.py')


def preset(name: str, **changes) -> ConfigDict:
    """Return the ``compression`` dictionary of a preset.

    Args:
        name: File name in ``configs/_base_/compression`` without ``.py``.
        **changes: Keys to change. Dicts are merged into those of the preset; other values replace
            them.

    Raises:
        FileNotFoundError: If mmwcc was not installed, so that its configs are not in place.
        ValueError: If there is no such preset, or no such key. The message lists what there is,
            and the closest match.
    """
    config = _load(name)
    config.merge_from_dict({f'compression.{key}': value for key, value in changes.items()})
    CompressionConfig.check_keys(config.compression)
    return ConfigDict(config.compression.to_dict())


def compress(model: dict, compression: str | dict, **changes) -> ConfigDict:
    """Return the config of ``model``, compressed.

    Args:
        model: A model's config, for example ``_base_.model``.
        compression: Name of a preset, or a complete ``compression`` dictionary.
        **changes: Keys of the preset to change, for example ``rules=[...]``.

    Returns:
        A new config of type ``mmwcc.CompressedModel``; everything else is as in ``model``. If
        another factory builds the model, such as ``mmwcc.WAEModel``, ``task_type`` lists both
        types.

    Raises:
        TypeError: If ``model`` or ``compression`` is not a config.
        ValueError: If there is no such preset or no such key, the config holds a model and is not
            one itself, or the model is compressed already.

    Example:
        >>> compress(dict(type='EncoderDecoder', backbone=dict()), 'wcc_w8a8_k50')['task_type']
        'EncoderDecoder'
    """
    _check_model(model)
    if is_compressed(model):
        raise ValueError(
            'compress: the model is compressed already (type mmwcc.CompressedModel). Change its '
            '`compression` instead, or inherit the dense config.'
        )
    if isinstance(compression, str):
        compression = preset(compression, **changes)
    elif changes:
        raise ValueError(
            f'compress: {", ".join(changes)} can only change a named preset. Put the values into '
            'the dictionary instead.'
        )
    if not isinstance(compression, Mapping):
        raise TypeError(
            'compress: compression must be the name of a preset or a dictionary, got '
            f"{compression!r}. Use 'wcc_w8a8_k50'."
        )
    CompressionConfig.check_keys(compression)
    return ConfigDict(with_compression(model, dict(compression)))


def _check_model(model: Any) -> None:
    """Refuse what is not the config of a model."""
    if isinstance(model, nn.Module):
        raise TypeError(
            'compress: model must be the config of a model, got a model that is built: '
            f"{type(model).__name__}. Use compress_model(model, preset('wcc_w8a8_k50')) with "
            'compress_model of mmwcc.compression and preset of mmwcc.presets.'
        )
    if not isinstance(model, (Mapping, Config)):
        raise TypeError(
            f'compress: model must be the config of a model, got {model!r}. Use '
            'compress(_base_.model, ...).'
        )
    if 'type' not in model:
        inside = model.get('model') is not None
        remedy = 'Use compress(_base_.model, ...).' if inside else 'Give it a type.'
        raise ValueError(
            'compress: model must be the config of a model, with a type, got a dictionary with the '
            f'keys {some_of(model) or "none"}. {remedy}'
        )


def quantizer_paramwise() -> ConfigDict:
    """Return the ``paramwise_cfg`` of the presets, for the learning of clips."""
    return ConfigDict(_load('wcc_w8a8_k50').quantizer_paramwise.to_dict())


def quantizer_optim(optim_wrapper: dict) -> ConfigDict:
    """Add the presets' learning-rate factor for learned clips, and exempt clips from weight decay.

    Args:
        optim_wrapper: An optimizer wrapper's config, for example ``_base_.optim_wrapper``.

    Returns:
        A new config. Other entries of ``paramwise_cfg`` are kept. If the optimizer does not set a
        weight decay, it is set to 0.

    Raises:
        ValueError: If it has no ``optimizer``.

    Example:
        >>> optim_wrapper = quantizer_optim(dict(optimizer=dict(type='SGD', lr=0.1)))
        >>> optim_wrapper.optimizer.lr /= 10
        >>> optim_wrapper.optimizer
        {'weight_decay': 0.0, 'type': 'SGD', 'lr': 0.01}
    """
    if 'optimizer' not in optim_wrapper:
        raise ValueError(
            'quantizer_optim: optim_wrapper must be the config of an optimizer wrapper, with an '
            f'optimizer, got a dictionary with the keys {some_of(optim_wrapper) or "none"}. Use '
            'quantizer_optim(_base_.optim_wrapper).'
        )
    ours = quantizer_paramwise()
    theirs = dict(optim_wrapper.get('paramwise_cfg') or {})
    keys = {**ours['custom_keys'], **theirs.get('custom_keys', {})}
    # mmengine refuses a factor for a weight decay that the optimizer does not set.
    optimizer = {'weight_decay': 0.0, **optim_wrapper['optimizer']}
    return ConfigDict(
        {
            **optim_wrapper,
            'optimizer': optimizer,
            'paramwise_cfg': {**theirs, 'custom_keys': keys},
        }
    )
