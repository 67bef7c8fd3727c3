"""The factory that adds the transform loss of a WAE front-end to the losses of any model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmwcc.compressed_config import build_within
from mmwcc.registry import MODELS

from .backbone import WAEBackbone

__all__ = ['WAEModel']

_PROBE = 512


@MODELS.register_module()
def WAEModel(task_type: str | type | list | dict, **model) -> nn.Module:
    """Build a model with a WAE front-end.

    Use it as ``model = dict(type='mmwcc.WAEModel', task_type=..., backbone=...)``, where the
    backbone is a :class:`WAEBackbone`. The result is an object of the model's original class with
    the original keys. Two forward hooks add the transform loss to what the model returns in mode
    'loss', as ``wae.loss_reconstruction`` and ``wae.loss_high``. It is therefore logged and trained
    like the other losses, also under DDP and in copies of the model.

    The features have twice the stride of the wrapped backbone. The anchor or point generators and
    the RoI extractors of a detector must be given these new strides. To check this, backbone and
    neck are run once on a black image.

    Args:
        task_type: The ``type`` of the model to build, in the scope of the config. Several factories
            can be combined in a list that ends with the model, outermost first, as in
            ``['mmwcc.CompressedModel', 'EncoderDecoder']``.
        **model: All other keys of the model's config, unchanged.

    Returns:
        The model.

    Raises:
        ValueError: If task_type names no model or WAEModel again, or no part of the model is a
            WAEBackbone.
        ValueError: If the strides of a detector are not those of its features.

    Note:
        Code that calls ``model.loss(...)`` directly instead of the model, as the semi-supervised
        wrappers of mmdetection do, gets only the model's own losses.
    """
    built = build_within('WAEModel', task_type, model)
    front_ends = _front_ends(built)
    if not front_ends:
        raise ValueError(
            'WAEModel: the model must have a mmwcc.WAEBackbone, got none in '
            f'{type(built).__name__}. Use '
            "backbone=dict(_delete_=True, type='mmwcc.WAEBackbone', "
            'backbone=_base_.model.backbone).'
        )
    _check_strides(built)
    for front_end in front_ends:
        front_end.attached = True
    built.register_forward_pre_hook(_begin, with_kwargs=True)
    built.register_forward_hook(_end, with_kwargs=True)
    return built


def _front_ends(model: nn.Module) -> list[WAEBackbone]:
    return [module for module in model.modules() if isinstance(module, WAEBackbone)]


# The hooks are module-level functions, so that they can be copied and pickled with the model.
def _is_loss(args: tuple, kwargs: dict) -> bool:
    return kwargs.get('mode', args[2] if len(args) > 2 else None) == 'loss'


def _begin(model: nn.Module, args: tuple, kwargs: dict) -> None:
    if _is_loss(args, kwargs):
        for front_end in _front_ends(model):
            front_end.begin_losses()


def _end(
    model: nn.Module, args: tuple, kwargs: dict, losses: dict[str, Tensor]
) -> dict[str, Any] | None:
    if not _is_loss(args, kwargs):
        return None
    collected = [front_end.end_losses() for front_end in _front_ends(model)]
    return {
        **losses,
        **{
            f'wae.{name}': sum(part[name] for part in collected if name in part)
            for name in {name: None for part in collected for name in part}
        },
    }


def _check_strides(model: Any) -> None:
    """Compare the strides given to heads and RoI extractors with those of their features."""
    given = _given_strides(model)
    if not given or not hasattr(model, 'extract_feat'):
        return
    training = model.training
    model.eval()
    with torch.no_grad():
        features = model.extract_feat(torch.zeros(1, 3, _PROBE, _PROBE))
    model.train(training)
    features = (features,) if isinstance(features, Tensor) else features
    actual = tuple(_PROBE // feature.shape[-1] for feature in features)
    for name, strides in given.items():
        if strides != actual[: len(strides)]:
            raise ValueError(
                f'WAEModel: {name} must be the strides of the features, {actual[: len(strides)]}, '
                f'got {strides}. A WAE front-end doubles every stride of the wrapped backbone; '
                f'write {list(actual[: len(strides)])} into the config.'
            )


def _given_strides(model: nn.Module) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, WAEBackbone):
            continue
        generator = getattr(module, 'prior_generator', None)
        for key, value in (
            (f'{name}.prior_generator.strides', getattr(generator, 'strides', None)),
            (
                f'{name}.strides',
                getattr(module, 'strides', None) if generator is not None else None,
            ),
            (f'{name}.featmap_strides', getattr(module, 'featmap_strides', None)),
        ):
            if isinstance(value, (tuple, list)) and value:
                found[key] = tuple(
                    item[0] if isinstance(item, (tuple, list)) else item for item in value
                )
    return found
