"""The factory that enables compression in a config."""

from __future__ import annotations

from torch import nn

from mmwcc.compressed_config import build_within
from mmwcc.compression import compress_model
from mmwcc.registry import MODELS

__all__ = ['CompressedModel']


@MODELS.register_module()
def CompressedModel(task_type: str | type | list | dict, compression: dict, **model) -> nn.Module:
    """Build a model and compress it.

    Use it as ``model = dict(type='mmwcc.CompressedModel', task_type=..., compression=...)``. The
    model is compressed when it is built, before the optimizer, DDP and the checkpoint see it. This
    works wherever models are built: in training, testing, the inference APIs and TTA. The result is
    an object of the original class with the original keys. Building says in one line what was
    compressed. The table of layers, and what the compression gains, follow when the first training
    step begins, because that step knows the size of the images. The model refuses weights that
    do not fit its compression (see docs/compression.md, "What a model accepts").

    Args:
        task_type: The ``type`` of the model to build, in the scope of the config. Several factories
            can be combined in a list that ends with the model, outermost first, as in
            ``['mmwcc.WAEModel', 'EncoderDecoder']``.
        compression: See :class:`mmwcc.compression.CompressionConfig`.
        **model: All other keys of the model's config, unchanged.

    Returns:
        The model, an instance of ``task_type``'s class.

    Raises:
        ValueError: If task_type names no model or CompressedModel again, or compression does not
            fit the model.
    """
    built = build_within('CompressedModel', task_type, model)
    compress_model(built, compression, verbose='in training')
    return built
