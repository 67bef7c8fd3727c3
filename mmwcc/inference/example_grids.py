"""Running an integer network that has no weights, to see the shapes of its maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .integer_layer import IntegerLayer
from .map_grids import GridBuffers

__all__ = ['example_grids']


@contextmanager
def example_grids(model: nn.Module) -> Iterator[None]:
    """Give the integer layers and maps that have no grid so far any grid, inside the block.

    An integer network that was built from its config refuses to compute before a checkpoint has
    filled it, because its outputs would mean nothing. Their shapes are right.

    Args:
        model: Any module. It does not change.
    """
    grids = [
        module.grid
        for module in model.modules()
        if isinstance(module, (IntegerLayer, GridBuffers)) and not module.grid.any()
    ]
    _fill(model, grids, 1)
    try:
        yield
    finally:
        _fill(model, grids, 0)


@torch.no_grad()
def _fill(model: nn.Module, grids: list[Tensor], high: int) -> None:
    """Set grids to the levels from 0 to ``high``."""
    for grid in grids:
        grid[1] = high
    for module in model.modules() if grids else ():
        if isinstance(module, IntegerLayer):
            module.forget()
