"""Which layers and functions make the maps of a network, and which read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from .watching import NORM, MapWatcher, watching

__all__ = ['Map', 'map_flow']


@dataclass
class Map:
    """A map between layers, as one or more runs of the network have shown it.

    Attributes:
        name: How it is made: a layer's name, or a function and the names of what it reads.
        operation: The name of the function, or '' for a layer.
        reads: Names of the maps that it is made of; '' for tensors of other origin.
        layers: Names of the layers that read it.
        functions: Names of the maps that functions make of it.
        left: Names of functions that read it and have no integer form.
        norm: The module, if a BatchNorm makes it.
    """

    name: str
    operation: str
    reads: tuple[str, ...]
    norm: nn.Module | None = None
    layers: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def only_function(self) -> str:
        """The map that a function makes of this one, if nothing else reads it; otherwise ''."""
        alone = len(self.functions) == 1 and not self.layers and not self.left
        return self.functions[0] if alone else ''


class _Recorder(MapWatcher):
    """Write down all maps with what reads them."""

    def __init__(self, layers: Mapping[nn.Module, str]) -> None:
        super().__init__(layers)
        self.maps: dict[str, Map] = {}

    def made(self, name, operation, reads, result, norm) -> Tensor:
        known = self.maps.setdefault(name, Map(name, operation, tuple(reads), norm))
        if known.norm is not norm:  # shared convolutions with one BatchNorm for each level
            self.left(NORM, [read for read in reads if read])
        for read in filter(None, reads):
            readers = self.maps[read].functions if operation else self.maps[read].layers
            if name not in readers:
                readers.append(name)
        return result

    def left(self, operation: str, reads: list[str]) -> None:
        for read in reads:
            if operation not in self.maps[read].left:
                self.maps[read].left.append(operation)


def map_flow(
    model: nn.Module, layers: Mapping[nn.Module, str], run: Callable[[], object]
) -> dict[str, Map]:
    """Run a network and return its maps by name, in the order in which they were made.

    Args:
        model: The network, in evaluation mode.
        layers: Names of the layers whose maps are followed, by module.
        run: Runs the network, once or several times.
    """
    recorder = _Recorder(layers)
    with watching(recorder, model):
        run()
    return recorder.maps
