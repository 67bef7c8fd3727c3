"""Telling linear layers which maps their tokens lie on.

A linear layer that gets tokens, shape (B, L, C), does not know their height and width. A module
around it does: it is called with them, or another module returns them to it. Such a module has a
hook, which notes them in a :class:`~mmwcc.layers.TokenGrid` in every call. The linear layers inside
read them from there. ``_ADAPTERS`` says for each class of modules where the sizes come from; for a
new class, add a line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmwcc.layers import TokenGrid, TokenTransform

__all__ = ['Announcement', 'announced_grids', 'connect_grids']

Sizes = list[tuple[int, int]]


def _size(pair: Any) -> tuple[int, int]:
    # While torch traces, sizes are tensors; compilers have integers of their own.
    sides: list[Any] = [
        side if isinstance(side, (int, torch.SymInt)) else int(side) for side in pair
    ]
    height, width = sides
    return height, width


def _given(module: nn.Module, size: Any) -> Sizes:
    """Read one size that is given as height and width."""
    return [_size(size)]


def _levels(module: nn.Module, sizes: Tensor) -> Sizes:
    """Read the sizes of several maps, which come one after the other."""
    return [_size(size) for size in sizes.tolist()]


def _merged(module: Any, size: Any) -> Sizes:
    """Compute the size of the map that ``PatchMerging`` makes of one of this size."""
    sampler, padding = module.sampler, module.adap_padding
    added = padding.get_pad_shape(size) if padding else (0, 0)
    sides = zip(
        size,
        added,
        *(
            (value, value) if isinstance(value, int) else value
            for value in (sampler.kernel_size, sampler.stride, sampler.padding, sampler.dilation)
        ),
        strict=True,
    )
    return [
        _size(
            (side + more + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, more, kernel, stride, pad, dilation in sides
        )
    ]


def _of_patches(module: nn.Module, output: Any) -> Sizes:
    """Read the size of a map of patches, which comes with their embeddings."""
    return [_size(output[1])]


def _of_maps(module: nn.Module, output: Any) -> Sizes:
    """Read the sizes of maps (B, C, H, W)."""
    return [_size(feature.shape[2:]) for feature in output]


@dataclass(frozen=True)
class _Adapter:
    """Where the sizes of the maps in a module come from.

    Attributes:
        read: Gets the module that announces and the value in which the sizes are.
        argument: The argument of its call in which they are, or '' if they are in an output.
        output_of: The child that announces them by its output, or '' for the module itself.
        scope: The child inside which linear layers read them, or '' for all in the module.
        extra: The most tokens on no map, which come before the maps. Defaults to 0.
    """

    read: Callable[[nn.Module, Any], Sizes]
    argument: str = ''
    output_of: str = ''
    scope: str = ''
    extra: int = 0


_PATCHES = _Adapter(_of_patches, output_of='patch_embed', extra=1)
# By the name of a class of OpenMMLab, which its subclasses share.
_ADAPTERS = {
    'BEiT': _PATCHES,
    'DeformableDetrTransformerEncoder': _Adapter(_levels, 'spatial_shapes'),
    'DetectionTransformer': _Adapter(_of_maps, output_of='neck', scope='encoder'),
    'MultiScaleDeformableAttention': _Adapter(_levels, 'spatial_shapes', scope='value_proj'),
    'PatchMerging': _Adapter(_merged, 'input_size'),
    'VisionTransformer': _PATCHES,
}
# Attention in windows, whose size is an attribute, and the child that works on them, or ''.
_WINDOWS = {'WindowMSA': '', 'LocallyGroupedSelfAttention': 'qkv'}
# Blocks of Swin, PVT, SegFormer and Twins, and whatever else takes this argument.
_BY_ARGUMENT = _Adapter(_given, 'hw_shape')


class Announcement:
    """The hook that notes the sizes of maps in a grid.

    Args:
        grid: Where it notes them.
        adapter: Where they come from.
        module: The module that it is registered on.
    """

    # An object and not a function inside another, so that models can be copied and pickled.
    def __init__(self, grid: TokenGrid, adapter: _Adapter, module: nn.Module) -> None:
        self.grid, self.adapter = grid, adapter
        self.position = 0
        if adapter.argument:
            self.position = _parameters(module).index(adapter.argument) - 1  # without self

    def __call__(self, module: nn.Module, args: tuple, given: Any) -> None:
        """Note the sizes in the keyword arguments of a call, or in its output."""
        name = self.adapter.argument
        if name and name in given:
            given = given[name]
        elif name:
            given = args[self.position] if self.position < len(args) else None
        try:
            self.grid.sizes = tuple(self.adapter.read(module, given))
        except (AttributeError, TypeError, ValueError):  # another module may mean something else
            self.grid.sizes = ()

    def register(self, module: nn.Module) -> RemovableHandle:
        """Let a module call this hook."""
        if self.adapter.argument:
            return module.register_forward_pre_hook(self, with_kwargs=True)
        return module.register_forward_hook(self)


@dataclass
class _Source:
    """A module that knows the maps of the linear layers in ``scope``."""

    scope: nn.Module
    grid: TokenGrid
    announcement: Announcement | None = None
    announcer: nn.Module | None = None

    @cached_property
    def inside(self) -> set[nn.Module]:
        """The modules in the scope, and itself."""
        return {*self.scope.modules()}


def _parameters(module: nn.Module) -> list[str]:
    """Return the names of the parameters of a forward, or none if they cannot be read."""
    try:
        return list(inspect.signature(type(module).forward).parameters)
    except (TypeError, ValueError):  # as of scripted modules
        return []


def _known(table: Mapping[str, Any], module: nn.Module) -> Any:
    """Return the entry of a table for the class of a module or its nearest base, or None."""
    return next((table[k.__name__] for k in type(module).__mro__ if k.__name__ in table), None)


def _part(module: nn.Module, name: str) -> nn.Module | None:
    """Return a child, the module itself if the name is empty, or None if there is no such child."""
    return module._modules.get(name) if name else module


def _sources(model: nn.Module) -> Iterator[_Source]:
    """Yield what knows maps, outer modules before inner ones."""
    for module in model.modules():
        adapter = _known(_ADAPTERS, module)
        if adapter is None and _BY_ARGUMENT.argument in _parameters(module):
            adapter = _BY_ARGUMENT
        if adapter is not None:
            scope, announcer = _part(module, adapter.scope), _part(module, adapter.output_of)
            if scope is not None and announcer is not None:
                grid = TokenGrid((), adapter.extra)
                yield _Source(scope, grid, Announcement(grid, adapter, announcer), announcer)
        windows = _known(_WINDOWS, module)
        scope = None if windows is None else _part(module, windows)
        if scope is not None:
            side: Any = module.window_size
            yield _Source(scope, TokenGrid([(side, side) if isinstance(side, int) else side]))


def _nearest(model: nn.Module) -> dict[nn.Module, _Source]:
    """Return the source of each linear layer: the innermost around it.

    A layer that modules share, none of which is inside the other, has none. It could not tell which
    of them calls it.
    """
    nearest: dict[nn.Module, _Source] = {}
    shared: set[nn.Module] = set()
    for source in _sources(model):
        for layer in source.scope.modules():
            if isinstance(layer, (nn.Linear, TokenTransform)):
                outer = nearest.get(layer, source)
                if source.scope not in outer.inside:
                    shared.add(layer)
                nearest[layer] = source
    return {layer: source for layer, source in nearest.items() if layer not in shared}


@contextmanager
def announced_grids(model: nn.Module) -> Iterator[dict[nn.Module, TokenGrid]]:
    """Let the modules of a model announce their maps inside the block.

    Yields:
        The grid of each linear layer inside a module that knows its maps.
    """
    nearest = _nearest(model)
    handles = [_register(source) for source in _distinct(nearest.values())]
    try:
        yield {layer: source.grid for layer, source in nearest.items()}
    finally:
        for handle in filter(None, handles):
            handle.remove()


def connect_grids(model: nn.Module) -> None:
    """Connect the wavelet compressed linear layers of a model with what knows their maps.

    Args:
        model: A model that was compressed. Earlier connections are replaced.
    """
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, Announcement)]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
    layers: dict[Any, str] = {
        layer: name for name, layer in model.named_modules() if isinstance(layer, TokenTransform)
    }
    nearest = {layer: source for layer, source in _nearest(model).items() if layer in layers}
    for source in _distinct(nearest.values()):
        _register(source)
    for layer, name in layers.items():
        layer.place = name
        layer.token_grid = nearest[layer].grid if layer in nearest else None


def _distinct(sources: Any) -> list[_Source]:
    return list({id(source): source for source in sources}.values())


def _register(source: _Source) -> RemovableHandle | None:
    if source.announcement is None or source.announcer is None:
        return None
    return source.announcement.register(source.announcer)
