"""The scales of maps: quantizers for the maps that have a grid of their own, and rounding by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from mmwcc.quantizers import LearnedClipActQuantizer, UniformQuantizer

from .watching import MapWatcher, watching

__all__ = ['CHILD', 'MapScales', 'simulated_maps']

CHILD = 'map_scales'
"""The name under which a network holds its :class:`MapScales`, and so of its keys in a checkpoint."""


class MapScales(nn.Module):
    """The quantizers of the maps of a network that have a grid of their own, by the map's name.

    Args:
        names: The names of the maps.
        bits: Bits of a map. Defaults to 8.
    """

    def __init__(self, names: list[str], bits: int = 8) -> None:
        super().__init__()
        for name in names:
            self.add_module(name.replace('.', '/'), LearnedClipActQuantizer(bits))

    def of(self, name: str) -> UniformQuantizer:
        """Return the quantizer of a map."""
        return self._modules[name.replace('.', '/')]  # type: ignore[return-value]


class _Rounding(MapWatcher):
    """Round each stored map to its grid as soon as it is made."""

    def __init__(
        self, layers: Mapping[nn.Module, str], quantizers: Mapping[str, UniformQuantizer]
    ) -> None:
        super().__init__(layers)
        self._quantizers = quantizers

    def made(self, name, operation, reads, result, norm) -> Tensor:
        quantizer = self._quantizers.get(name)
        if quantizer is None:
            return result
        with self.paused():
            return quantizer(result)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


@contextmanager
def simulated_maps(
    model: nn.Module, layers: Mapping[nn.Module, str], quantizers: Mapping[str, UniformQuantizer]
) -> Iterator[None]:
    """Round the stored maps of a network to their grids inside the block.

    Args:
        model: The network.
        layers: Names of the layers that read and write maps, by module.
        quantizers: The quantizer of each stored map.
    """
    with watching(_Rounding(layers, quantizers), model):
        yield
