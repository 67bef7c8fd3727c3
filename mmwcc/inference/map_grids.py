"""The grids of the maps of an integer network, as its checkpoint holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmwcc.maps import MapPlan

from .exact_buffers import ExactBuffers
from .quantized_map import Grid, Stored

__all__ = ['GridBuffers', 'MapGrids']


class GridBuffers(ExactBuffers):
    """A grid in a checkpoint: its step and its lowest and highest level."""

    step: Tensor
    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('step', torch.ones(()))
        self.register_buffer('grid', torch.zeros(2, dtype=torch.int16))

    def take(self, step: Tensor, low: int, high: int) -> None:
        """Store a grid."""
        self.step.copy_(step)
        self.grid.copy_(torch.tensor([low, high]))

    def value(self) -> Grid:
        """Return the grid."""
        low, high = self.grid.tolist()
        if low == high:
            raise RuntimeError(
                'MapGrids: every map must have a grid, got none so far. Load a checkpoint of an '
                'integer model (tools/deployment/to_integer.py writes them).'
            )
        return Grid(self.step.item(), low, high)


class MapGrids(nn.Module):
    """The grids of the maps between integer layers, by the names of the maps.

    Args:
        plan: Which maps are stored, and on which grids.
    """

    def __init__(self, plan: MapPlan) -> None:
        super().__init__()
        self.plan = plan
        for name in plan.own:
            self.add_module(name.replace('.', '/'), GridBuffers())
        self._layers: dict[str, Any] = {}
        self._stored: dict[str, Stored] = {}

    def forward(self, x: Any) -> Any:
        """Return the input: an ``nn.Sequential`` calls whatever it holds, and so this as well."""
        return x

    def belong_to(self, layers: Mapping[str, nn.Module]) -> None:
        """Remember the integer layers on whose input grids maps may be stored, by name."""
        self._layers = dict(layers)

    @property
    def stored(self) -> Mapping[str, Stored]:
        """How maps are stored, by the first name of their chain. Read once after each loading."""
        if not self._stored:
            grids = {name: self._grid(name) for name in self.plan.grids}
            self._stored = {
                first: Stored(grids[last], last, self.plan.activation(first))
                for first, last in ((first, self.plan.last(first)) for first in self.plan.chains)
                if last in grids
            }
        return self._stored

    def of(self, name: str) -> GridBuffers:
        """Return the grid of a map that has one of its own."""
        buffers: Any = self._modules[name.replace('.', '/')]
        return buffers

    def _grid(self, name: str) -> Grid:
        grid = self.plan.grids[name]
        return self._layers[grid].reads if self.plan.on_layer(name) else self.of(grid).value()

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.forget()

    def forget(self) -> None:
        """Read the grids again at the next call, because a checkpoint was loaded."""
        self._stored = {}
