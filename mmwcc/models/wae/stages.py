"""The stages of training: what a decomposition learns in each of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ['decompose', 'set_stage']


def set_stage(owner: str, decomposition: nn.Module, stage: int, gamma: float) -> None:
    """Freeze what a decomposition does not train in a stage.

    Args:
        owner: Class name for error messages.
        decomposition: The module that splits the images.
        stage: 2 trains the networks on a frozen decomposition; 3 trains everything jointly.
        gamma: Weight of the transform loss in stage 3.

    Raises:
        ValueError: If stage is neither 2 nor 3, gamma is negative, or gamma is positive in stage 3
            although the decomposition has no transform loss.
    """
    if stage not in (2, 3):
        raise ValueError(
            f'{owner}: stage must be 2 (networks on a frozen decomposition) or 3 (all jointly), '
            f'got {stage!r}. Stage 1 trains mmwcc.WAE alone.'
        )
    if gamma < 0:
        raise ValueError(
            f'{owner}: gamma must not be negative, got {gamma}. Use 0.001 as published.'
        )
    has_loss = hasattr(decomposition, 'transform_losses')
    if stage == 3 and gamma and not has_loss:
        raise ValueError(
            f'{owner}: gamma must be 0 for a decomposition without a transform loss, got {gamma} '
            f'for {type(decomposition).__name__}. Use gamma=0, or mmwcc.WAE.'
        )
    if stage == 2:
        decomposition.requires_grad_(False)
    elif has_loss and not gamma:
        # Without the loss the decoders have no part in training, and DDP waits for gradients that
        # never come.
        decomposition.decoder_low.requires_grad_(False)
        decomposition.decoder_high.requires_grad_(False)


def decompose(decomposition: nn.Module, x: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """Return the low and the high part, computed without gradients in stage 2."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and stage == 3):
        return decomposition(x)
