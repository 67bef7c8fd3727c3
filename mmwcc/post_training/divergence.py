"""How far the output of a compressed network is from that of the dense one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

__all__ = ['divergence']


def _tensors(output: Any) -> list[Tensor]:
    """Return the tensors of nested tuples, lists and dicts in order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if not isinstance(output, (list, tuple)):
        return []
    return [tensor for item in output for tensor in _tensors(item)]


def divergence(reference: Any, output: Any) -> float:
    """Return how far an output is from that of the dense network.

    For one tensor of logits, as from a segmentor or classifier, this is the Kullback-Leibler
    divergence of the class probabilities along dimension 1, in nats, averaged over images and
    pixels. For several tensors, as from a detector, it is the squared error as a fraction of the
    energy, averaged over tensors.

    Args:
        reference: Output of the dense network: a tensor, or nested lists, tuples and dicts of them.
        output: Output of the compressed network, of the same form.

    Raises:
        ValueError: If there is no tensor in the output, or if the outputs differ in their number of
            tensors.

    Example:
        >>> round(divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])), 4)
        0.1201
    """
    ours, theirs = _tensors(output), _tensors(reference)
    if not ours or len(ours) != len(theirs):
        raise ValueError(
            'divergence: the outputs must hold as many tensors as each other, and at least one, '
            f'got {len(theirs)} and {len(ours)}. Give a forward that returns logits.'
        )
    if len(ours) == 1 and ours[0].dim() > 1:
        expected, log = log_softmax(theirs[0].float(), 1), log_softmax(ours[0].float(), 1)
        # Rounding could make it slightly negative.
        return max((expected.exp() * (expected - log)).sum(1).mean().item(), 0.0)
    errors = [
        (a - b).float().square().sum() / b.float().square().sum().clamp(min=1e-12)
        for a, b in zip(ours, theirs, strict=True)
    ]
    return torch.stack(errors).mean().item()
