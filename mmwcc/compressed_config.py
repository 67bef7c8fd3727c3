"""Read and change the configs of models that ``CompressedModel`` and ``WAEModel`` build.

The config of such a model names the factory as its ``type``. The keys of the factory stand next to
those of the model. ``task_type`` names the type to build. If another factory comes in between, it
lists several types, outermost first. The two factories can be nested in either order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import MODELS
from torch import nn

from mmwcc.registry import type_name

__all__ = [
    'build_within',
    'compression_path',
    'find_compression',
    'is_compressed',
    'with_compression',
    'without_compression',
]

_COMPRESSED = 'mmwcc.CompressedModel'
_FACTORIES = (_COMPRESSED, 'mmwcc.WAEModel')


def _factory(kind) -> str | None:
    """Return the name of a factory, or None for anything else."""
    name = type_name(kind)
    # The prefix is missing when the factory is called in Python, or in the scope of mmwcc.
    name = name if '.' in name else f'mmwcc.{name}'
    return name if name in _FACTORIES else None


def _unfold(model: Mapping) -> tuple[list, dict]:
    """Return all types named in a config, outermost first, and all its other keys."""
    keys = {key: value for key, value in model.items() if key != 'type'}
    kind = model.get('type')
    if _factory(kind) is None or 'task_type' not in keys:
        return [kind], keys
    inner = keys.pop('task_type')
    # The config of another factory, which holds the keys of the model.
    if isinstance(inner, Mapping):
        types, own = _unfold(inner)
        return [kind, *types], {**keys, **own}
    return [kind, *(inner if isinstance(inner, (list, tuple)) else [inner])], keys


def _fold(types: Sequence, keys: Mapping) -> dict:
    """Build the config that :func:`_unfold` takes apart."""
    outer, *inner = types
    if inner and 'task_type' in keys:
        raise ValueError(
            f'{type_name(outer)}: a model may not have a key task_type of its own, which is where '
            f'the factory names the model, got task_type={keys["task_type"]!r}. Rename the '
            'argument of the model.'
        )
    if not inner:
        return {**keys, 'type': outer}
    return {**keys, 'type': outer, 'task_type': inner if len(inner) > 1 else inner[0]}


def is_compressed(model: Mapping) -> bool:
    """Tell whether the config of a model compresses it."""
    return any(_factory(kind) == _COMPRESSED for kind in _unfold(model)[0])


def find_compression(model: Mapping) -> dict | None:
    """Return the ``compression`` in a model's config (not a copy), or None for a dense model."""
    return _unfold(model)[1].get('compression') if is_compressed(model) else None


def compression_path(model: Mapping) -> str:
    """Return where ``compression`` is in the config of a compressed model, as keys joined by dots.

    Example:
        >>> inner = dict(type='mmwcc.CompressedModel', task_type='Segmentor', compression=dict())
        >>> compression_path(inner), compression_path(dict(type='mmwcc.WAEModel', task_type=inner))
        ('compression', 'task_type.compression')
    """
    if 'compression' in model:
        return 'compression'
    return f'task_type.{compression_path(model["task_type"])}'


def with_compression(model: Mapping, compression: dict) -> dict:
    """Wrap the config of a dense model in ``mmwcc.CompressedModel``.

    Args:
        model: A model's config, with or without a factory.
        compression: The ``compression`` dictionary.

    Raises:
        ValueError: If the model has an argument called ``task_type``, the key in which a factory
            names its model.
    """
    types, keys = _unfold(model)
    return _fold([_COMPRESSED, *types], {**keys, 'compression': compression})


def without_compression(model: Mapping) -> dict:
    """Return the config of the dense model, still built by any other factory it has."""
    if not is_compressed(model):
        return dict(model)
    types, keys = _unfold(model)
    keys.pop('compression', None)
    return _fold([kind for kind in types if _factory(kind) != _COMPRESSED], keys)


def build_within(owner: str, task_type, model: Mapping) -> nn.Module:
    """Build the model that a factory is about to change.

    Args:
        owner: Name of the factory.
        task_type: The ``task_type`` that the factory received: a type, several of them, or the
            config of another factory.
        model: All keys except those of the factory.

    Raises:
        ValueError: If task_type does not name a model, or names the factory itself.
    """
    (_, *types), keys = _unfold({**model, 'type': owner, 'task_type': task_type})
    # In a list, mmengine does not resolve the lazily imported classes of pure-Python configs.
    types = [kind.build() if isinstance(kind, (LazyObject, LazyAttr)) else kind for kind in types]
    names = [_factory(kind) for kind in types]
    if names[-1] is not None:
        raise ValueError(
            f'{owner}: task_type must be the type of a model, or end with one, got '
            f'{names[-1]}. Use task_type=[_base_.model.type, _base_.model.task_type] over a '
            'model that has a factory, or compress(_base_.model, ...) of mmwcc.presets.'
        )
    if _factory(owner) in names:
        raise ValueError(
            f'{owner}: task_type must not name the factory again, got {_factory(owner)}. '
            'Inherit the config and change the keys of the factory only.'
        )
    return MODELS.build(_fold(types, keys))
