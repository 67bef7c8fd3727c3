"""Quantizers between the layers of an exported network, where its maps have scales."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwcc.maps import MAP_SCALES, NORM, FollowedMaps, MapScales, MapWatcher, combined
from mmwcc.quantizers import UniformQuantizer

from .layers import QuantizedValues
from .targets import Target

__all__ = ['ExportableMaps', 'owners_of_scales', 'take_off_scales']


def owners_of_scales(network: nn.Module) -> Iterator[tuple[nn.Module, MapScales]]:
    """Yield the modules of a network that hold scales of their maps, and these scales."""
    for owner in list(network.modules()):
        scales = getattr(owner, MAP_SCALES, None)
        if isinstance(scales, MapScales):
            yield owner, scales


class _Writing(MapWatcher):
    """Round each stored map by the operators that are exported."""

    def __init__(
        self,
        layers: Mapping[str, str],
        norms: Collection[str],
        quantizers: Mapping[str, nn.Module],
    ) -> None:
        super().__init__(layers, norms)
        self._quantizers = quantizers

    def made(self, name: str, operation: str, reads: list[str], result: Tensor) -> Tensor:
        return self.averaged(name, result)

    def averaged(self, name: str, result: Tensor) -> Tensor:
        return self._quantizers[name](result) if name in self._quantizers else result


class ExportableMaps(FollowedMaps):
    """The scales of the maps of an exported network.

    A layer that reads a map on its own grid rounds the map a second time. The graph loses these
    copies later, see :func:`mmwcc.deployment.tidy.tidy`.

    Args:
        scales: The trained scales.
        quantizers: The trained quantizers of the stored maps, by name.
        folded: The layers into which a BatchNorm was folded, by name.
        target: The runtime that QuantizeLinear is written for, or None to write Round.
    """

    def __init__(
        self,
        scales: MapScales,
        quantizers: Mapping[str, UniformQuantizer],
        folded: Container[str],
        target: Target | None,
    ) -> None:
        super().__init__(scales.plan)
        self._folded = folded
        self._written = {name: QuantizedValues(one, target) for name, one in quantizers.items()}
        self._modules.update({name.replace('.', '/'): one for name, one in self._written.items()})

    def watcher(self, model: nn.Module) -> MapWatcher:
        return _Writing(
            {name: self._name_of(name) for name in self.plan.layers},
            self.plan.norms.values(),
            self._written,
        )

    def _name_of(self, layer: str) -> str:
        """Return the name of the map that a layer makes, with the BatchNorm that it contains."""
        if layer not in self._folded:
            return layer
        return combined(NORM, [layer]) if layer in self.plan.norms else ''


def take_off_scales(
    network: nn.Module, pairs: Mapping[Any, _BatchNorm | None], target: Target | None
) -> dict[nn.Module, ExportableMaps]:
    """Remove the scales of maps, and return for each module that had some what replaces them.

    Args:
        network: The network, with its trained layers.
        pairs: The convolutions that run, each with the BatchNorm that is folded into it, or None.
        target: The runtime that QuantizeLinear is written for, or None to write Round.
    """
    maps = {}
    for owner, scales in owners_of_scales(network):
        layers: dict[str, Any] = {name: owner.get_submodule(name) for name in scales.plan.layers}
        folded = {name for name, layer in layers.items() if pairs.get(layer) is not None}
        maps[owner] = ExportableMaps(scales, scales.quantizers(owner), folded, target)
        scales.leave(owner)
    return maps
