"""When the quantizers of a model settle what the ranks of a distributed training learned."""

from __future__ import annotations

import torch
from torch import nn

from .base import UniformQuantizer
from .ranks import agree, several_ranks
from .whole import Whole

__all__ = ['is_settling', 'settle', 'settle_after_forward', 'tolerate_unlearned']


def _quantizers(model: nn.Module) -> list[UniformQuantizer]:
    return [module for module in model.modules() if isinstance(module, UniformQuantizer)]


def _name(model: nn.Module) -> None:
    """Tell the quantizers of a model their names in it."""
    for name, module in model.named_modules():
        if isinstance(module, UniformQuantizer):
            module.place = name


def tolerate_unlearned(model: nn.Module) -> None:
    """Let the quantizers of a model be evaluated before they have learned a clip, with a
    warning.
    """
    for quantizer in _quantizers(model):
        quantizer.may_be_unlearned = True


@torch.compiler.disable
def settle(model: nn.Module) -> None:
    """Give all ranks the same clips, chosen from the values of all ranks.

    Quantizers that are already settled stay as they are. Those that no rank has used yet learn
    later. Without torch.distributed, every quantizer settles by itself, and this does nothing.

    Args:
        model: A model with quantizers. Every rank must call this at the same point of its program.
    """
    agree(
        [
            quantizer
            for quantizer in _quantizers(model)
            if quantizer.is_on and not quantizer.is_settled
        ]
    )


def settle_after_forward(model: nn.Module) -> None:
    """Make ``model`` settle its clips at the end of each forward pass of a distributed training.

    The quantizers also learn their names, which their error messages give, and that they belong to
    this model: while it trains, frozen parts of it learn clips too.
    :func:`mmwcc.compression.compress_model` does this for the model that it compresses. Models
    whose layers come from ``conv_cfg`` need it only outside mmengine's runner. Evaluation never
    communicates, and neither does training once everything is settled.

    Args:
        model: The module whose forward pass every rank runs in every training step.
    """
    quantizers = _quantizers(model)
    _name(model)
    inside = [module for module in model.modules() if module is not model and is_settling(module)]
    if not quantizers:
        return
    if not inside and all(quantizer.settles_with_model for quantizer in quantizers):
        return  # it is part of a model that settles as a whole
    for module in inside:  # some ranks may skip the forward pass of a part
        for key in [key for key, hook in module._forward_hooks.items() if hook is _settle]:
            del module._forward_hooks[key]
    if not is_settling(model):
        model.register_forward_hook(_settle)
    for quantizer in quantizers:
        quantizer.settles_with_model, quantizer.whole = True, Whole(model)


def is_settling(module: nn.Module) -> bool:
    """Tell whether a module settles clips at the end of its forward pass."""
    return _settle in module._forward_hooks.values()


def _settle(model: nn.Module, inputs, output) -> None:
    # This is a module-level function, so that models can be copied and pickled.
    if not (several_ranks() and model.training and torch.is_grad_enabled()):
        return
    # Checked here, so that a compiler need not break the graph once everything is settled.
    if any(quantizer._known is None and quantizer.is_on for quantizer in _quantizers(model)):
        settle(model)
