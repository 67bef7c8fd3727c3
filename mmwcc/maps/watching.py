"""Following the maps of a network through a run, each under a name that tells how it was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from .operations import KEEPING, NEW_GRID, canonical_name, tensors_in

__all__ = ['NORM', 'MapWatcher', 'combined', 'watching']

NORM = 'norm'
"""The operation of BatchNorm layers."""


def combined(operation: str, names: Iterable[str]) -> str:
    """Return the name of the map that an operation makes of the maps of these names.

    Names of layers contain dots, which names of parameters must not. They become slashes, so that
    a checkpoint can hold what belongs to a map under the map's name.

    Example:
        >>> combined('add', ['layer1.0.conv2', 'relu(stem)'])
        'add(layer1/0/conv2,relu(stem))'
    """
    return f'{operation}({",".join(names)})'.replace('.', '/')


class MapWatcher(TorchFunctionMode):
    """Name the maps that layers and functions make, and tell what happens to them.

    A layer's map has the name of the layer. What a function with a grid of its own makes is named
    after the function and the maps that it reads, see :func:`combined`. A function that keeps the
    grid keeps the name. Where a function is not known, its results have no name, and neither have
    the network's inputs.

    A subclass overrides :meth:`made`, which may return another tensor to go on with, and the other
    methods that it wants to hear.

    Args:
        layers: The layers whose maps are followed, by module. Each counts as one operation.
    """

    def __init__(self, layers: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self._layers = layers
        self._names: Any = WeakIdKeyDictionary()
        self._inside = 0

    def made(
        self, name: str, operation: str, reads: list[str], result: Tensor, norm: nn.Module | None
    ) -> Tensor:
        """Hear of a new map.

        Args:
            name: The name of the map.
            operation: The name of the function, :data:`NORM`, or '' for a layer.
            reads: The names of the maps that were read, '' for tensors that have none.
            result: The map.
            norm: The module, if a BatchNorm made it.

        Returns:
            The tensor that takes the place of ``result``.
        """
        return result

    def left(self, operation: str, reads: list[str]) -> None:
        """Hear that a function which cannot compute in integers reads maps."""

    def name(self, tensor: Tensor) -> str:
        """Return the name of a tensor, or ''."""
        return self._names.get(tensor, '')

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # The names before the call: one in place gives the same tensor another name.
        reads = [] if self._inside else [self.name(x) for x in tensors_in([args, kwargs])]
        result = func(*args, **kwargs)
        if not any(reads):
            return result
        return self._called(canonical_name(func, args, kwargs), reads, result)

    def _called(self, operation: str, reads: list[str], result: Any) -> Any:
        tensors = tensors_in(result)
        if not tensors:
            return result
        if operation in KEEPING:
            for tensor in tensors:
                self._names[tensor] = reads[0]
            return result
        if operation in NEW_GRID and isinstance(result, Tensor):
            return self._add(combined(operation, reads), operation, reads, result)
        self.left(operation, [name for name in reads if name])
        for tensor in tensors:  # a function in place takes the name away
            self._names.pop(tensor, None)
        return result

    def _add(
        self,
        name: str,
        operation: str,
        reads: list[str],
        result: Tensor,
        norm: nn.Module | None = None,
    ) -> Tensor:
        result = self.made(name, operation, reads, result, norm)
        self._names[result] = name
        return result

    def _before_layer(self, layer: nn.Module, inputs: tuple) -> None:
        self._inside += 1

    def _after_layer(self, layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        self._inside -= 1
        return self._add(self._layers[layer], '', [self.name(inputs[0])], output)

    def _after_norm(self, norm: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        self._inside -= 1
        reads = [self.name(inputs[0])]
        if not any(reads):
            return output
        return self._add(combined(NORM, reads), NORM, reads, output, norm)

    @contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Hear of the layers and of BatchNorm layers inside the block."""
        with ExitStack() as stack:
            for module in model.modules():
                if module in self._layers:
                    after: Callable = self._after_layer
                elif isinstance(module, _BatchNorm):
                    after = self._after_norm
                else:
                    continue
                for handle in (
                    module.register_forward_pre_hook(self._before_layer),
                    module.register_forward_hook(after),
                ):
                    stack.callback(handle.remove)
            yield


@contextmanager
def watching(watcher: MapWatcher, model: nn.Module) -> Iterator[None]:
    """Let ``watcher`` follow what ``model`` does inside the block."""
    with watcher.hooked(model), watcher:
        yield
