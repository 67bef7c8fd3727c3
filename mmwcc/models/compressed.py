"""The factory that switches compression on in a config."""
from __future__ import annotations

from torch import nn

from mmwcc.compressed_config import build_within
from mmwcc.compression import compress_model
from mmwcc.registry import MODELS

__all__ = ['CompressedModel']


@MODELS.register_module()
def CompressedModel(task_type: str | type | list | dict, compression: dict, **model) -> nn.Module:
    """Build a model and compress it: ``model = dict(type='mmwcc.CompressedModel', task_type=..., compression=...)``.

    Compression is decided where the model is built, before the optimizer, DDP and the checkpoint
    see it, and in every place that builds models: training, testing, inference APIs, TTA. The
    result is an object of the original class with the original keys.

    Args:
        task_type: The ``type`` of the model to build, in the scope of the config; or those of other
            factories and of the model, outermost first, as ``['mmwcc.WAEModel',
            'EncoderDecoder']``.
        compression: See :class:`mmwcc.compression.CompressionConfig`.
        **model: All other keys of the model's config, unchanged.

    Returns:
        The model, an instance of ``task_type``'s class.

    Raises:
        ValueError: If task_type names no model or CompressedModel again, or compression does not
            fit the model.
    """
    built = build_within('CompressedModel', task_type, model)
    compress_model(built, compression)
    return built
