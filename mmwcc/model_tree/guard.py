"""Guards against evaluating a model with weights that do not belong to it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ['guard', 'guards_off', 'lift_guards']


class _Guard:
    """Refuse to evaluate a model, or warn once. The first training step lifts the guard.

    Weights may be loaded to train from them or to evaluate them, and the state of a model does not
    tell which. So a model is judged when it is first called.

    Args:
        error: Message of the error, or '' for none.
        warning: Message of the warning, or '' for none.
    """

    def __init__(self, error: str, warning: str) -> None:
        self.error, self.warning = error, warning

    @torch.compiler.disable
    def __call__(self, model: nn.Module, inputs: tuple) -> None:
        if self.error and not model.training:
            raise RuntimeError(self.error)
        lift_guards(model)
        if self.warning and not model.training:
            warnings.warn(self.warning, stacklevel=2)


def guard(model: nn.Module, error: str, warning: str = '') -> None:
    """Refuse to evaluate ``model``, or warn at its next evaluation, until it is trained.

    Args:
        model: The module whose forward pass is guarded. An earlier guard on it is replaced.
        error: Message of the error, or '' for none.
        warning: Message of the warning, or '' for none. Defaults to ''.
    """
    _take_guards(model)
    if error or warning:
        model.register_forward_pre_hook(_Guard(error, warning))


def lift_guards(model: nn.Module) -> None:
    """Remove the guards of a model and of all its modules."""
    for module in model.modules():
        _take_guards(module)


@contextmanager
def guards_off(model: nn.Module) -> Iterator[None]:
    """Run ``model`` to inspect it, whatever its weights are."""
    taken = {module: _take_guards(module) for module in model.modules()}
    try:
        yield
    finally:
        for module, guards in taken.items():
            module._forward_pre_hooks.update(guards)


def _take_guards(module: nn.Module) -> dict:
    hooks = module._forward_pre_hooks
    return {key: hooks.pop(key) for key, hook in list(hooks.items()) if isinstance(hook, _Guard)}
