"""Guards against evaluating layers with weights that do not belong to them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmwcc.messages import some_of

__all__ = ['LAYERS', 'guard', 'guards_off', 'lift_guards', 'note_loaded']

LAYERS = '{layers}'
"""What stands in a message for the names of the layers that are guarded."""

_SAMPLE = 256
"""How many values of each tensor show whether it was changed."""


class _Guard:
    """Refuse to evaluate the layers of a model, or warn once, until they were trained.

    Weights may be loaded to train from them or to evaluate them, and the state of a model does not
    tell which. So layers are judged when they are called, whichever method of the model does so.
    All layers of a load share a guard. It is lifted when one of them runs in training, or when it
    has other values than were loaded: those were trained elsewhere, as in an averaged model.

    Args:
        model: The model in which the layers are.
        layers: The guarded layers by name.
        message: Message of the error or warning, see :func:`guard`.
        refuses: Whether it is an error.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, nn.Module], message: str, refuses: bool
    ) -> None:
        self.model, self.layers = model, dict(layers)
        self.message, self.refuses = message, refuses
        self.loaded: dict[str, list[Tensor]] = {}
        self.lifted = False  # compiled code cannot remove hooks

    def __call__(self, layer: nn.Module, inputs: tuple) -> None:
        self._meet(layer.training, torch.is_grad_enabled(), torch.compiler.is_compiling())

    @torch.compiler.assume_constant_result  # it runs while a compiler traces, and leaves no trace
    def _meet(self, training: bool, learns: bool, compiling: bool) -> None:
        # Frozen stages of a backbone are in eval mode while the model trains.
        if training or self.model.training:
            self.lifted |= learns
        elif not (self.lifted or self._changed()):
            message = self.message.replace(LAYERS, some_of(self._held() or self.layers))
            if self.refuses:
                raise RuntimeError(message)
            warnings.warn(message, stacklevel=3)
            self.lifted = True
        else:
            self.lifted = True
        if self.lifted and not compiling:
            lift_guards(self.model)

    def note_loaded(self) -> None:
        """Remember what was loaded, unless that was done."""
        if not self.loaded:
            self.loaded = {name: _sample(layer) for name, layer in self._held().items()}

    def _held(self) -> dict[str, nn.Module]:
        """Return the layers that this guard still guards. A later load may have judged others."""
        return {
            name: layer
            for name, layer in self.layers.items()
            if any(hook is self for hook in layer._forward_pre_hooks.values())
        }

    def _changed(self) -> bool:
        return any(
            _differ(before, now)
            for name, layer in self._held().items()
            for before, now in zip(self.loaded.get(name, ()), _sample(layer), strict=False)
        )


def guard(
    model: nn.Module, layers: Mapping[str, nn.Module], message: str, refuses: bool = True
) -> None:
    """Refuse to evaluate ``layers``, or warn at their next evaluation, until they are trained.

    Args:
        model: The model in which the layers are. While it is in training mode, they may run.
        layers: The layers by name. An earlier guard on them is replaced. It stays on others.
        message: Message of the error or warning. ``LAYERS`` in it stands for the names.
        refuses: Whether it is an error, and not a warning. Defaults to True.
    """
    made = _Guard(model, layers, message, refuses)
    for layer in layers.values():
        _take_guards(layer)
        layer.register_forward_pre_hook(made)
    torch.compiler.reset()  # compiled code does not notice new hooks


def note_loaded(model: nn.Module) -> None:
    """Let new guards in ``model`` know that its weights are now those that were loaded."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _Guard):
                hook.note_loaded()


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


def _sample(layer: nn.Module) -> list[Tensor]:
    """Return some values of each parameter and buffer; none of those that have none to read."""
    return [
        tensor.detach().flatten()[:: -(-tensor.numel() // _SAMPLE) or 1].float().cpu()
        if type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta
        else torch.empty(0)
        for tensor in [*layer.parameters(), *layer.buffers()]
    ]


def _differ(before: Tensor, now: Tensor) -> bool:
    """Tell whether values differ by more than rounding to another dtype explains."""
    return before.shape == now.shape and not torch.allclose(
        before, now, rtol=2**-7, atol=1e-7, equal_nan=True
    )
