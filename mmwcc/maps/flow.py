"""Which layers and functions make the maps of a network, and which read them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from .watching import NORM, MapWatcher, watching

__all__ = ['Map', 'map_flow']


@dataclass
class Map:
    """A map between layers, as one or more runs of a network have shown it.

    Attributes:
        name: How it is made: the name of a layer, or a function and the names of what it reads.
        operation: The name of the function, or '' for a layer.
        reads: Names of the maps that it is made of; '' for tensors of other origin.
        layers: Names of the layers that read it.
        functions: Names of the maps that functions make of it.
        left: Names of functions that read it and cannot compute in integers.
        moved: Whether a function that keeps its name has read it, such as pooling or slicing.
    """

    name: str
    operation: str
    reads: tuple[str, ...]
    layers: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    moved: bool = False

    @property
    def only_function(self) -> str:
        """The map that a function makes of this one, if nothing else reads it; otherwise ''."""
        alone = len(self.functions) == 1 and not self.layers and not self.left
        return self.functions[0] if alone else ''


class _Recorder(MapWatcher):
    """Write down all maps with what reads them."""

    def __init__(self, layers: Iterable[str], norms: Collection[str] = ()) -> None:
        super().__init__({name: name for name in layers}, norms)
        self.maps: dict[str, Map] = {}
        self.norms: dict[str, set[str]] = {}

    def made(self, name: str, operation: str, reads: list[str], result: Tensor) -> Tensor:
        self.maps.setdefault(name, Map(name, operation, tuple(reads)))
        for read in filter(None, reads):
            readers = self.maps[read].functions if operation else self.maps[read].layers
            if name not in readers:
                readers.append(name)
        return result

    def moved(self, name: str) -> None:
        self.maps[name].moved = True

    def left(self, operation: str, reads: list[str]) -> None:
        for read in reads:
            if operation not in self.maps[read].left:
                self.maps[read].left.append(operation)

    def called_norm(self, norm: str, name: str) -> None:
        self.norms.setdefault(name, set()).add(norm)


def _folding(recorder: _Recorder, norms: Collection[str]) -> dict[str, str]:
    """Return the BatchNorm layers that can be folded, each by the layer before it.

    It must be the only one that reads the map of the layer, and it must read no other map.
    """
    read = [norm for behind in recorder.norms.values() for norm in behind]
    return {
        name: next(iter(behind))
        for name, behind in recorder.norms.items()
        if name
        and len(behind) == 1
        and read.count(next(iter(behind))) == 1
        and recorder.maps[name].left == [NORM]
        and not recorder.maps[name].operation
        and not recorder.maps[name].moved
        and not recorder.maps[name].layers
        and not recorder.maps[name].functions
        and next(iter(behind)) in norms
    }


def map_flow(
    model: nn.Module,
    layers: Collection[str],
    run: Callable[[], object],
    others: Collection[str] = (),
) -> tuple[dict[str, Map], dict[str, str]]:
    """Run a network and see how its maps are made and read.

    Args:
        model: The network, in evaluation mode.
        layers: Names of the layers whose maps are followed.
        run: Runs the network. It is called twice.
        others: Names of further layers, whose maps are not followed, but into which BatchNorm may
            be folded as well. Defaults to none.

    Returns:
        The maps by name, in the order in which they were made, and the names of the BatchNorm
        layers that can be folded, by the name of the layer before them.
    """
    norms = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None
    ]
    first = _Recorder([*layers, *others])
    with watching(first, model):
        run()
    folding = _folding(first, norms)
    second = _Recorder(layers, folding.values())
    with watching(second, model):
        run()
    return second.maps, folding
