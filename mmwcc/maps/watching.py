"""Following the maps of a network through a run, each under a name that tells how it was made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from .operations import AVERAGING, KEEPING, NEW_GRID, canonical_name, tensors_in

__all__ = ['NORM', 'MapWatcher', 'combined', 'watching']

NORM = 'norm'
"""The operation of BatchNorm layers."""

_LONGEST = 200  # characters of the names of the maps that an operation reads


def combined(operation: str, names: Iterable[str]) -> str:
    """Return the name of the map that an operation makes of the maps of these names.

    Names of layers contain dots, which names of parameters must not. They become slashes, so that
    a checkpoint can hold what belongs to a map under the map's name. A long name, as at the end of
    a chain of sums, is shortened.

    Example:
        >>> combined('add', ['layer1.0.conv2', 'relu(stem)'])
        'add(layer1/0/conv2,relu(stem))'
    """
    inner = ','.join(names).replace('.', '/')
    if len(inner) > _LONGEST:
        inner = f'{inner[:_LONGEST]}... {sha256(inner.encode()).hexdigest()[:8]}'.replace('.', '_')
    return f'{operation}({inner})'


class MapWatcher(TorchFunctionMode):
    """Name the maps that layers and functions make, and tell what happens to them.

    The map of a layer has the name of the layer. What a function with a grid of its own makes is
    named after the function and the maps that it reads, see :func:`combined`. A function that keeps
    the grid keeps the name. The input of the network has no name, and neither has the result of a
    function that cannot compute in integers.

    A subclass overrides the methods that it wants to hear. Those that receive a result return the
    tensor that takes its place.

    Args:
        layers: The names of the maps of the layers that are followed, by the name of the layer.
            Each layer counts as one operation.
        norms: The names of the BatchNorm layers whose results have names. Defaults to none.
    """

    def __init__(self, layers: Mapping[str, str], norms: Collection[str] = ()) -> None:
        super().__init__()
        self._layers, self._norms = layers, norms
        self._names: Any = WeakIdKeyDictionary()
        self._inside = 0

    def made(self, name: str, operation: str, reads: list[str], result: Tensor) -> Tensor:
        """Hear of a new map.

        Args:
            name: The name of the map.
            operation: The name of the function, :data:`NORM`, or '' for a layer.
            reads: The names of the maps that were read, '' for tensors that have none.
            result: The map.
        """
        return result

    def averaged(self, name: str, result: Tensor) -> Tensor:
        """Hear of averages of the values of a map, which keep its name."""
        return result

    def moved(self, name: str) -> None:
        """Hear that a function has read a map and given its result the same name."""

    def left(self, operation: str, reads: list[str]) -> None:
        """Hear that maps are read by a function or module that cannot compute in integers."""

    def called_norm(self, norm: str, name: str) -> None:
        """Hear which map the BatchNorm of a name reads, '' for one without a name."""

    def name(self, tensor: Any) -> str:
        """Return the name of a tensor, or ''."""
        return self._names.get(tensor, '') if isinstance(tensor, Tensor) else ''

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Follow nothing inside the block."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # The names before the call: a function in place gives the same tensor another name.
        reads = [] if self._inside else [self.name(x) for x in tensors_in([args, kwargs])]
        result = func(*args, **kwargs)
        operation = canonical_name(func, args, kwargs)
        changed = args[0] if operation == 'setitem' else result
        if not any(reads) or not tensors_in(changed):
            return result
        if operation in KEEPING:
            self.moved(reads[0])
            averaged = operation in AVERAGING
            return self._keep(reads[0], self.averaged(reads[0], result) if averaged else result)
        if operation in NEW_GRID and isinstance(result, Tensor):
            return self._add(combined(operation, reads), operation, reads, result)
        self.left(operation, [name for name in reads if name])
        for tensor in tensors_in(changed):  # a function in place takes the name away
            self._names.pop(tensor, None)
        return result

    def _keep(self, name: str, result: Any) -> Any:
        for tensor in tensors_in(result):
            self._names[tensor] = name
        return result

    def _add(self, name: str, operation: str, reads: list[str], result: Tensor) -> Tensor:
        self._keep(name, result)  # who called a function in place may go on with its argument
        with self.paused():
            result = self.made(name, operation, reads, result)
        return self._keep(name, result)

    def _before(self, module: nn.Module, inputs: tuple) -> None:
        self._inside += 1

    def _after_layer(self, layer: str, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        self._inside -= 1
        return self._add(self._layers[layer], '', [self.name(inputs[0])], output)

    def _after_norm(self, norm: str, module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        self._inside -= 1
        name = self.name(inputs[0])
        self.called_norm(norm, name)
        if name and norm in self._norms:
            return self._add(combined(NORM, [name]), NORM, [name], output)
        if name:
            self.left(NORM, [name])
        return output


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


@contextmanager
def watching(watcher: MapWatcher, model: nn.Module) -> Iterator[None]:
    """Let ``watcher`` follow what ``model`` does inside the block."""
    handles = []
    try:
        # By name: torch.export wraps modules, so that each look shows other objects.
        for name, module in model.named_modules():
            if name in watcher._layers or _is_norm(module):
                after = watcher._after_norm if _is_norm(module) else watcher._after_layer
                handles.append(module.register_forward_pre_hook(watcher._before))
                handles.append(module.register_forward_hook(partial(after, name)))
        with watcher:
            yield
    finally:
        for handle in handles:
            handle.remove()
