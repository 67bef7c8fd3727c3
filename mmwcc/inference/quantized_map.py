"""A feature map in 8 bits that passes through the code of a network like a float tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmwcc import kernels

__all__ = ['Grid', 'QuantizedMap', 'Stored', 'dequantized']


@dataclass(frozen=True)
class Grid:
    """The values that a map can have: ``step`` times the integers from ``low`` to ``high``.

    Attributes:
        step: Distance between two values.
        low: Lowest level, at least -128.
        high: Highest level, at most 127, or at most 255 if ``low`` is not negative.
    """

    step: float
    low: int
    high: int

    @property
    def zero(self) -> int:
        """The byte that stands for the value 0: signed levels are stored 128 higher."""
        return 128 if self.low < 0 else 0

    @property
    def bytes(self) -> tuple[float, int, int, int]:
        """Step, the byte that stands for 0, lowest and highest byte, as the kernels take them."""
        return self.step, self.zero, self.low + self.zero, self.high + self.zero

    def bytes_of(self, x: Tensor) -> Tensor:
        """Round floating values to the grid. NaN becomes level 0."""
        return kernels.round_map(x, *self.bytes)

    def values_of(self, levels: Tensor) -> Tensor:
        """Return the float32 values that bytes stand for."""
        return kernels.map_values(levels, self.step, self.zero)


@dataclass(frozen=True)
class Stored:
    """How a map is stored.

    Attributes:
        grid: Its grid.
        name: Its name after the activation, if one is applied with it.
        activation: The activation that is applied with it, or ''.
    """

    grid: Grid
    name: str
    activation: str = ''


class QuantizedMap(Tensor):
    """A feature map stored as bytes on a grid.

    To other code it is a float32 tensor of the same shape. Functions of torch that
    :mod:`mmwcc.inference.map_functions` knows compute on the bytes. Any other function receives the
    float values, so that every network runs, if not every part of it in integers. A function in
    place changes this map, but no other map that was made as a view of it.

    Attributes:
        levels: The bytes, uint8, of the shape of the map; or float32 values without a grid, while
            an activation is pending or after a function in place that cannot compute in integers.
        grid: Their grid, or None.
        map_name: The name of the map, see :func:`mmwcc.maps.combined`.
        stored: How the maps that functions make are stored, by name.
        pending: The activation that is applied already and whose call is still to come, or ''.
        rounded: The bytes on other grids, which several readers may ask for.
    """

    levels: Tensor
    grid: Grid | None
    map_name: str
    stored: Mapping[str, Stored]
    pending: str
    rounded: dict[Grid, Tensor]

    @staticmethod
    def __new__(cls, levels, grid, name='', stored=None, pending=''):
        """Wrap bytes without copying them."""
        made = Tensor._make_wrapper_subclass(
            cls,
            levels.shape,
            strides=levels.stride(),
            dtype=torch.float32,
            device=levels.device,
        )
        made.levels, made.grid, made.map_name = levels, grid, name
        made.stored, made.pending = {} if stored is None else stored, pending
        made.rounded = {}
        return made

    def like(self, levels: Tensor) -> QuantizedMap:
        """Return bytes of another shape on the same grid and under the same name."""
        return QuantizedMap(levels, self.grid, self.map_name, self.stored)

    def made(self, levels: Tensor, stored: Stored) -> QuantizedMap:
        """Return the map that a function of this map makes, as it is to be stored."""
        return QuantizedMap(levels, stored.grid, stored.name, self.stored, stored.activation)

    def dequantize(self) -> Tensor:
        """Return the float32 values."""
        return self.levels if self.grid is None else self.grid.values_of(self.levels)

    def on(self, grid: Grid) -> Tensor:
        """Return the bytes of this map on another grid, rounded again if it differs.

        Raises:
            RuntimeError: If an activation is pending.
        """
        self.check_settled('a layer')
        if self.grid is None:
            return grid.bytes_of(self.levels)
        if grid == self.grid:
            return self.levels
        if grid not in self.rounded:
            own = self.grid.step, self.grid.zero
            self.rounded[grid] = kernels.rescale_map(self.levels, *own, *grid.bytes)
        return self.rounded[grid]

    def become(self, other: Tensor) -> QuantizedMap:
        """Take over everything from another tensor, for functions that work in place.

        Raises:
            RuntimeError: If the other tensor has another shape.
        """
        if other.shape != self.shape:
            raise RuntimeError(
                f'QuantizedMap: a function in place must keep the shape, got '
                f'{tuple(self.shape)} before and {tuple(other.shape)} after it. Use the '
                'function that returns a new tensor.'
            )
        self.rounded = {}
        if isinstance(other, QuantizedMap):
            self.levels, self.grid, self.map_name = other.levels, other.grid, other.map_name
            self.pending = other.pending
        else:
            self.levels, self.grid, self.map_name = other, None, ''
            self.pending = ''
        return self

    def check_settled(self, reader: str) -> None:
        """Check that no activation is pending.

        Raises:
            RuntimeError: If one is.
        """
        if self.pending:
            raise RuntimeError(
                f'QuantizedMap: {self.map_name!r} must be read by {self.pending} first, as when '
                f'its scales were added, got {reader}. Add the scales with an input shape for '
                'which all of the network runs.'
            )

    def __repr__(self, **kwargs: Any) -> str:  # type: ignore[override]  # the stub names a type
        return f'QuantizedMap({self.map_name!r}, shape={tuple(self.levels.shape)}, {self.grid})'

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from .map_functions import call  # the functions need the class

        return call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # the stub lacks the function
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        # Reached from C++ only, where torch functions cannot be overridden.
        return func(*dequantized(args), **dequantized(kwargs or {}))


def dequantized(value: Any) -> Any:
    """Return arguments of a function with float tensors in place of maps."""
    if isinstance(value, QuantizedMap):
        return value.dequantize()
    if isinstance(value, (tuple, list)):
        return type(value)(dequantized(item) for item in value)
    if isinstance(value, dict):
        return {key: dequantized(item) for key, item in value.items()}
    return value
