"""Deciding which maps of a network are stored in 8 bits, and on whose grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .flow import Map
from .operations import FUSED
from .watching import NORM

__all__ = ['MapPlan', 'plan_maps']

_FUSED_WITH_ADD = frozenset({'relu'})
_SATURATING = frozenset({'relu', 'relu6'})
_MAP_BITS = 8


@dataclass
class MapPlan:
    """What happens to each map.

    A chain is a layer or an addition with the BatchNorm and the activation that alone read it. Only
    the last map of a chain is stored.

    Attributes:
        layers: The names of the layers that ran, and so write maps.
        chains: The maps of each chain from first to last, by the name of the first.
        norms: The name of the BatchNorm that is folded into a layer, by the layer's name. The layer
            may also be one that computes in floating point, and then has no map here.
        grids: For each stored map, the name of the layer on whose input grid it is stored, or the
            name of the map that has this grid of its own: itself, or the concatenation that alone
            reads it. Maps that are not listed stay in floating point.
    """

    layers: list[str] = field(default_factory=list)
    chains: dict[str, list[str]] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)
    grids: dict[str, str] = field(default_factory=dict)

    @property
    def own(self) -> list[str]:
        """The maps that have a grid of their own."""
        return [name for name, grid in self.grids.items() if grid == name]

    def on_layer(self, name: str) -> bool:
        """Tell whether a map is stored on the grid of a layer's input.

        What a layer writes has the name of the layer, and may have a grid of its own.
        """
        grid = self.grids[name]
        return grid != name and not grid.startswith('cat(')

    def activation(self, first: str) -> str:
        """Return the activation at the end of a chain, or ''."""
        chain = self.chains.get(first, [first])
        last = chain[-1].partition('(')[0]
        return last if last in FUSED and len(chain) > 1 else ''

    def last(self, first: str) -> str:
        """Return the map at the end of a chain."""
        return self.chains[first][-1]


def plan_maps(
    maps: Mapping[str, Map],
    norms: Mapping[str, str],
    layers: Mapping[str, Any],
    round_sums: bool = False,
) -> MapPlan:
    """Decide on the grids of all maps.

    A map that one layer reads is stored on the grid of that layer's input, so that nothing is
    rounded twice; other functions then read it on this grid, unless it has fewer than 8 bits. A map
    that only a concatenation reads is stored on the grid of the concatenation. Any other map that
    is read in integers has a grid of its own.

    Args:
        maps: All maps of the network, see :func:`map_flow`.
        norms: The names of the BatchNorm layers that can be folded, see :func:`map_flow`.
        layers: The quantized layers that read and write maps, by name.
        round_sums: Whether what a layer writes also has a grid where a function reads it, except
            for ReLU and ReLU6, which the end of a grid can do. Defaults to False.
    """
    plan = MapPlan([name for name, made in maps.items() if not made.operation], norms=dict(norms))
    inner: set[str] = set()
    for name, made in maps.items():
        if name not in inner:
            plan.chains[name] = list(_chain(maps, made, _SATURATING if round_sums else FUSED))
            inner.update(plan.chains[name])
    for first in reversed(plan.chains):  # readers come before what they read
        last = plan.chains[first][-1]
        grid = _grid(maps[last], plan, layers)
        read = maps[last].functions or NORM in maps[last].left
        if round_sums and read and not maps[first].operation:
            grid = grid or last
        if grid:
            plan.grids[last] = grid
    plan.grids = dict(reversed(plan.grids.items()))
    return plan


def _chain(maps: Mapping[str, Map], made: Map, fused: frozenset[str]) -> Iterator[str]:
    yield made.name
    if made.operation not in ('', 'add'):
        return
    after = _next(maps, made)
    if after is not None and after.operation == NORM:
        yield after.name
        after = _next(maps, after)
    fused = _FUSED_WITH_ADD if made.operation else fused
    if after is not None and after.operation in fused:
        yield after.name


def _next(maps: Mapping[str, Map], made: Map) -> Map | None:
    """Return the map that a function makes of a whole map which nothing else reads, or None."""
    return None if made.moved else maps.get(made.only_function)


def _grid(made: Map, plan: MapPlan, layers: Mapping[str, Any]) -> str:
    """Return the name of the grid on which a map is stored, or '' if it stays floating point."""
    # A function computes in integers where its own result is stored in integers.
    stored = [name for name in made.functions if _end(plan, name) in plan.grids]
    if not made.layers and not stored:
        return ''
    if made.only_function.startswith('cat('):
        return plan.grids[made.only_function]
    # Which grids are equal is known only after training, so two readers count as two grids.
    alone = not stored and not made.left
    if len(made.layers) == 1 and (alone or layers[made.layers[0]].act_quant.bits == _MAP_BITS):
        return made.layers[0]
    return made.name


def _end(plan: MapPlan, name: str) -> str:
    return plan.chains[name][-1] if name in plan.chains else name
