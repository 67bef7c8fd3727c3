"""The factory that switches compression on in a config."""
from __future__ import annotations

from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.registry import MODELS

__all__ = ['CompressedModel']


@MODELS.register_module()
def CompressedModel(task_type: str, compression: dict, **model) -> nn.Module:
    """Build a model and compress it: ``model = dict(type='mmwcc.CompressedModel', task_type=..., compression=...)``.

    Compression is decided where the model is built, before the optimizer, DDP and the checkpoint see it, and in every
    place that builds models: training, testing, inference APIs, TTA. The result is an object of the original class
    with the original keys.

    Args:
        task_type: The ``type`` of the model to build, in the scope of the config.
        compression: See :class:`mmwcc.compression.CompressionConfig`.
        **model: All other keys of the model's config, unchanged.

    Returns:
        The model, an instance of ``task_type``'s class.

    Raises:
        ValueError: If task_type is mmwcc.CompressedModel itself, or compression does not fit the model.
    """
    if task_type in ('CompressedModel', 'mmwcc.CompressedModel', CompressedModel):
        raise ValueError('CompressedModel: task_type must be the type of the model to compress, got '
                         f'{task_type!r}. Use task_type=_base_.model.type of a config that is not compressed yet, or '
                         'inherit the compressed config and change `compression` only.')
    built = ROOT_MODELS.build(dict(type=task_type, **model))
    compress_model(built, compression)
    return built
