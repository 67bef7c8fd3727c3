"""Compress a model in one line of a Python config: ``compress(_base_.model, 'wcc_w8a8_k50')``.

The presets themselves are the files in ``configs/_base_/compression``.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config

from mmwcc.compressed_config import is_compressed, with_compression

__all__ = ['compress', 'preset', 'preset_names', 'quantizer_optim']

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
        nearest = get_close_matches(name, preset_names(), n=1, cutoff=0.4)
        hint = f'Did you mean {nearest[0]!r}? ' if nearest else ''
        raise ValueError(
            f'compress: there is no preset {name!r}. {hint}Known presets: '
            f'{", ".join(preset_names())}.'
        )
    return Config.fromfile(_FOLDER / f'{name}.py')


def preset(name: str, **changes) -> dict:
    """Return the ``compression`` dictionary of a preset.

    Args:
        name: File name in ``configs/_base_/compression`` without ``.py``.
        **changes: Keys to change. Dicts are merged into those of the preset; other values replace
            them.

    Raises:
        FileNotFoundError: If mmwcc was not installed, so that its configs are not in place.
        ValueError: If there is no such preset. The message lists the known presets and the closest
            match.
    """
    config = _load(name)
    config.merge_from_dict({f'compression.{key}': value for key, value in changes.items()})
    return config.compression.to_dict()


def compress(model: dict, compression: str | dict, **changes) -> dict:
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
        ValueError: If there is no such preset, or the model is compressed already.

    Example:
        >>> compress(dict(type='EncoderDecoder', backbone=dict()), 'wcc_w8a8_k50')['task_type']
        'EncoderDecoder'
    """
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
    return with_compression(model, compression)


def quantizer_optim(optim_wrapper: dict) -> dict:
    """Add the presets' learning-rate factor for learned clips, and exempt clips from weight decay.

    Args:
        optim_wrapper: An optimizer wrapper's config, for example ``_base_.optim_wrapper``.

    Returns:
        A new config. Other entries of ``paramwise_cfg`` are kept. If the optimizer does not set a
        weight decay, it is set to 0.
    """
    ours = _load('wcc_w8a8_k50').quantizer_paramwise.to_dict()
    theirs = dict(optim_wrapper.get('paramwise_cfg') or {})
    keys = {**ours['custom_keys'], **theirs.get('custom_keys', {})}
    # mmengine refuses a factor for a weight decay that the optimizer does not set.
    optimizer = {'weight_decay': 0.0, **optim_wrapper.get('optimizer', {})}
    return {
        **optim_wrapper,
        'optimizer': optimizer,
        'paramwise_cfg': {**theirs, 'custom_keys': keys},
    }
