"""Check what a config says about a layer or a quantizer before it is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from mmwcc.messages import check_keys, did_you_mean
from mmwcc.quantizers import ROLES
from mmwcc.registry import MODELS, find_model

__all__ = ['check_component', 'check_quantizer', 'check_role']

_GEOMETRY = {kind: frozenset(inspect.signature(kind).parameters) for kind in (nn.Conv2d, nn.Linear)}
"""What a layer takes from the dense one that it replaces."""


def check_component(owner: str, config: Mapping[str, Any], base: type) -> None:
    """Check that the type of a layer or quantizer exists and has the arguments that it is given.

    Args:
        owner: What the config belongs to. The message begins with it.
        config: A dict with a ``type`` and arguments.
        base: Base class of the types that the message suggests.

    Raises:
        ValueError: If there is no such type, or it has no such argument.
    """
    kind = config['type']
    component = find_model(kind)
    if component is None:
        known = _known_types(base)
        raise ValueError(
            f'{owner} must have a registered type, got {kind!r}. {did_you_mean(kind, known)}'
            f'Known types: {", ".join(known)}.'
        )
    arguments = _arguments(component)
    wrong = [key for key in config if key not in (*(arguments or config), 'type', '_scope_')]
    if arguments is not None and wrong:
        name = getattr(component, '__name__', kind)
        check_keys(f'{owner} of type {name}', wrong, arguments, _left_behind(base, wrong))


def check_quantizer(owner: str, role: str, config: Mapping[str, Any]) -> None:
    """Check that the type of a quantizer exists, suits its role and has the given arguments.

    Args:
        owner: What the quantizer belongs to, with the role. The message begins with it.
        role: 'weight_quant' or 'act_quant'.
        config: A dict with a ``type`` and arguments.

    Raises:
        ValueError: If there is no such type, it is for the other role, or it has no such argument.
    """
    check_role(owner, role, find_model(config['type']))
    check_component(owner, config, base=ROLES[role])


def check_role(owner: str, role: str, kind: Any) -> None:
    """Refuse a class of quantizers for weights as ``act_quant``, and the reverse.

    Args:
        owner: What the quantizer belongs to, with the role. The message begins with it.
        role: 'weight_quant' or 'act_quant'.
        kind: The class. What is not a class is left to those who build it.

    Raises:
        ValueError: If the class is for the other role alone.
    """
    suitable = ROLES[role]
    if not isinstance(kind, type) or issubclass(kind, suitable):
        return
    if issubclass(kind, tuple(ROLES.values())):
        nouns = dict(weight_quant='weights', act_quant='activations')
        (other,) = (noun for name, noun in nouns.items() if name != role)
        raise ValueError(
            f'{owner} must be a quantizer of {nouns[role]}, got {kind.__name__}, which is '
            f'one of {other}. Use one of {", ".join(_known_types(suitable))}.'
        )


def _known_types(base: type) -> dict[str, type]:
    """Return the classes of mmwcc that are derived from a base and can be built, by name."""
    return {
        f'mmwcc.{name}': component
        for name, component in MODELS.module_dict.items()
        if isinstance(component, type)
        and issubclass(component, base)
        and not inspect.isabstract(component)
    }


def _arguments(component: Any) -> list[str] | None:
    """Return the arguments that a config may give, or None if any are accepted."""
    if not callable(component):
        return None
    found: list[str] = []
    for source in _constructors(component):
        parameters = inspect.signature(source).parameters.values()
        kinds = {parameter.name: parameter.kind for parameter in parameters}
        found += [name for name, kind in kinds.items() if kind is not inspect.Parameter.VAR_KEYWORD]
        if inspect.Parameter.VAR_KEYWORD not in kinds.values():
            break
        if not component.__module__.startswith('mmwcc.'):
            return None  # what others do with further arguments is theirs to say
    taken = {'self'}
    for kind, geometry in _GEOMETRY.items():
        if isinstance(component, type) and issubclass(component, kind):
            taken |= geometry
    return [name for name in found if name not in taken]


def _constructors(component: Any) -> list[Any]:
    """Return a function itself, or the constructors of a class, each followed by its base's."""
    if not isinstance(component, type):
        return [component]
    return [vars(kind)['__init__'] for kind in component.__mro__ if '__init__' in vars(kind)]


def _left_behind(base: type, keys: list[str]) -> dict[str, str]:
    """Explain keys that another type has, which a preset may have left in the dictionary."""
    owners = {
        key: name
        for name, component in reversed(_known_types(base).items())
        for key in _arguments(component) or ()
    }
    return {
        key: f'It is an argument of {owners[key]}. To replace the dictionary of a preset instead '
        'of changing it, add _delete_=True.'
        for key in keys
        if key in owners
    }
