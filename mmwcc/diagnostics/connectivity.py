"""Which output channels of a layer or a network depend on which input channels."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ['adjacency', 'path_counts']


def adjacency(module: nn.Module, in_channels: int, size: Sequence[int] = (5, 5)) -> Tensor:
    """Return which output channels of ``module`` depend on which input channels.

    A copy with random parameters is differentiated in float64 at a few random inputs, so the result
    depends on the structure and not on the weights. A derivative is exactly zero if there is no
    path, and a sum of random numbers otherwise.

    Args:
        module: Any module that maps (B, in_channels, H, W) to (B, channels, ...), or to a tuple
            whose last entry has such a shape.
        in_channels: Channels of the input.
        size: Height and width of the input. Defaults to (5, 5).

    Returns:
        Matrix of 0 and 1, shape (out_channels, in_channels), int64.

    Example:
        >>> adjacency(nn.Conv2d(4, 4, 1, groups=2), in_channels=4).tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    module = copy.deepcopy(module).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            # Scales of normalization are made positive, so that activations do not die.
            parameter.copy_(
                torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5
                if parameter.dim() == 1
                else torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            )
    x = torch.randn(
        4, in_channels, *size, generator=generator, dtype=torch.float64
    ).requires_grad_()
    y = module(x)
    y = (y if isinstance(y, Tensor) else y[-1]).transpose(0, 1).flatten(1)
    rows = [
        torch.autograd.grad(channel.sum(), x, retain_graph=True)[0].abs().sum((0, 2, 3))
        for channel in y
    ]
    return (torch.stack(rows) > 0).long()


def path_counts(*adjacencies: Tensor) -> Tensor:
    """Count the paths from every input channel to every output channel through several layers.

    Args:
        *adjacencies: Matrices from :func:`adjacency`, in the order of the layers.

    Returns:
        Number of paths, shape (output channels of the last layer, input channels of the first),
        int64.

    Raises:
        ValueError: If none is given, or if a layer does not have as many inputs as the one before
            has outputs.

    Example:
        >>> two = adjacency(nn.Conv2d(2, 2, 1), in_channels=2)
        >>> path_counts(two, two).tolist()
        [[2, 2], [2, 2]]
    """
    if not adjacencies:
        raise ValueError(
            'path_counts: at least one adjacency must be given, got none. Make them with '
            'adjacency().'
        )
    total = adjacencies[0]
    for matrix in adjacencies[1:]:
        if matrix.shape[1] != total.shape[0]:
            raise ValueError(
                'path_counts: a layer must have as many inputs as the layer before has outputs, '
                f'got {matrix.shape[1]} after {total.shape[0]}. Give the first layer first.'
            )
        total = matrix @ total
    return total
