"""Running a model on batches, as calibration and the measurement of sensitivity do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from mmwcc.model_tree import described

__all__ = ['Forward', 'run_model']

Forward = Callable[[nn.Module, Any], Any]
"""Called with a model and a batch."""


def run_model(model: nn.Module, batch: Any, training: bool = False) -> Any:
    """Run a model on one batch as it comes from a data loader, without losses or post-processing.

    Args:
        model: Any model. A model of mmengine preprocesses the batch and runs in mode 'tensor'; any
            other model is called with the batch.
        batch: For a model of mmengine, what the data loader of its config yields, as in
            ``dict(inputs=[image, ...], data_samples=[...])``. For any other model, what it is
            called with, for example images (B, C, H, W).
        training: Whether to preprocess as in training, which pads crops of different sizes.
            Defaults to False.

    Raises:
        ValueError: If the model cannot run on the batch.
    """
    # mmengine's BaseModel; its _run_forward unpacks dicts, lists and tuples
    of_mmengine = hasattr(model, '_run_forward')
    try:
        if of_mmengine:
            prepared = model.data_preprocessor(batch, training)  # type: ignore[operator]  # a module
            return model._run_forward(prepared, mode='tensor')  # type: ignore[operator]  # a method
        return model(batch)
    except Exception as error:  # the model may raise anything
        wanted = (
            'what the data loader of its config yields, such as dict(inputs=[image, ...], '
            'data_samples=[...])'
            if of_mmengine
            else 'what it is called with. If it is only a part of the batch, say so by forward=, '
            'as in forward=lambda model, batch: model(batch[0])'
        )
        reason = (str(error).splitlines() or [''])[0].rstrip('.')
        raise ValueError(
            f'run_model: {type(model).__name__} must run on each batch, got {described(batch)}, '
            f'which raised {type(error).__name__}: {reason}. A batch is {wanted}.'
        ) from error
