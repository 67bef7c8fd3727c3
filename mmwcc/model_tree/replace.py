"""Replacing layers together with everything attached to them, and undoing it after a failure."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from mmwcc.layers import COMPUTED, computed_tensor
from mmwcc.quantizers import is_settling

from .token_grids import connect_grids

__all__ = ['all_or_nothing', 'has_hooks', 'obstacle', 'replace_layers', 'swap_layers']

# The dictionaries of each kind of hook, their flags, and whether backward hooks are full ones.
_HOOKS = tuple(name for name in vars(nn.Module()) if 'hook' in name)
_TAKEN_OVER = ('weight', 'bias', 'weight_scale')
_PARTS = ('weight_quant', 'act_quant')


def has_hooks(module: nn.Module) -> bool:
    """Tell whether a module has a hook of any kind, apart from the one that settles clips."""
    own = dict(_forward_hooks=int(is_settling(module)))
    return any(
        isinstance(hooks := vars(module).get(name), dict) and len(hooks) > own.get(name, 0)
        for name in _HOOKS
    )


def obstacle(conv: nn.Module) -> str:
    """Return why no other layer can replace a convolution or linear layer, or ''."""
    if {'forward', '_conv_forward'} & vars(conv).keys():
        return 'its forward was replaced on the object'
    computed = computed_tensor(conv)
    if computed:
        return f'its {computed} is computed ({COMPUTED})'
    weight = conv._parameters.get('weight')
    if weight is not None and is_lazy(weight):
        return 'lazy: it has no weight before the first run'
    parts = sorted(conv._modules.keys() - set(_PARTS))
    return f'it holds a module, {parts[0]}' if parts else ''


def _places(model: nn.Module) -> Iterator[tuple[Any, Any, nn.Module]]:
    """Yield every place in a model that holds a module, as container, key and module.

    Plain attributes, lists and dictionaries count as well, because a forward may use them.
    """
    for parent in list(model.modules()):
        for holder in (vars(parent), *vars(parent).values()):
            if isinstance(holder, (dict, list)):
                items = holder.items() if isinstance(holder, dict) else enumerate(holder)
                yield from (
                    (holder, key, module)
                    for key, module in list(items)
                    if isinstance(module, nn.Module)
                )


def swap_layers(model: nn.Module, layers: Mapping[Any, nn.Module]) -> None:
    """Replace layers wherever the model holds them, and change nothing else.

    Args:
        model: The model.
        layers: The new layers, by the module that each replaces.
    """
    for holder, key, module in list(_places(model)):
        if module in layers:
            holder[key] = layers[module]


def replace_layers(model: nn.Module, layers: Mapping[Any, nn.Module]) -> None:
    """Replace layers wherever the model holds them, and carry over what was attached to them.

    The new layer takes over hooks of all kinds, which their handles can still remove. It also takes
    over attributes that it does not have itself, and parameters and buffers that a user registered
    on a layer. The replaced modules keep theirs as well.

    Args:
        model: The model.
        layers: The new layers, by the module that each replaces. A module may be mapped to itself.
    """
    changes = {old: layer for old, layer in layers.items() if layer is not old}
    for old, layer in changes.items():
        _adopt(layer, old)
    swap_layers(model, changes)


def _adopt(layer: nn.Module, old: nn.Module) -> None:
    """Let ``layer`` take over what was attached to ``old``."""
    assert not has_hooks(layer), f'{type(layer).__name__} has hooks of its own, which would be lost'
    # Share the dictionaries and do not copy them: handles that users hold refer to them.
    vars(layer).update({name: vars(old)[name] for name in _HOOKS if name in vars(old)})
    _bind_hooks(layer)
    vars(layer).update(
        {name: value for name, value in vars(old).items() if not hasattr(layer, name)}
    )
    if isinstance(old, (nn.Conv2d, nn.Linear)):
        for kind in ('_parameters', '_buffers'):
            getattr(layer, kind).update(
                {
                    name: value
                    for name, value in getattr(old, kind).items()
                    if name not in _TAKEN_OVER and not hasattr(layer, name)
                }
            )
        layer._non_persistent_buffers_set |= old._non_persistent_buffers_set & layer._buffers.keys()


def _bind_hooks(module: nn.Module) -> None:
    """Rebind hooks to ``module`` that torch calls with the module they were registered on."""
    hooks: Iterable[Any] = module._load_state_dict_pre_hooks.values()
    for hook in hooks:
        if getattr(hook, 'with_module', False):
            hook.module = weakref.ref(module)


@contextmanager
def all_or_nothing(model: nn.Module) -> Iterator[None]:
    """Restore the layers of ``model`` if the block inside raises."""
    before = list(_places(model))
    try:
        yield
    except BaseException:
        for holder, key, module in before:
            holder[key] = module
            _bind_hooks(module)
        connect_grids(model)
        raise
