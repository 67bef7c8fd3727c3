"""Telling at the first training step what a conversion did and gains.

A conversion does not know the size of the images, and a model is built much more often than it is
trained: by inference APIs, tools and ladders. The first training step knows the size and comes
once. It needs no hook of a runner, so it is the same in mmengine and in a program of one's own.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from torch import Tensor, nn

from mmwcc.cost import CostReport, count_cost, tensors_in
from mmwcc.messages import cause
from mmwcc.model_tree import CompressionReport, announce, tensor_mode, twin

from .gain import Gain
from .only_if_faster import SpeedTable

__all__ = ['tell_at_first_step']


def tell_at_first_step(
    model: nn.Module,
    report: CompressionReport,
    *,
    table: SpeedTable | None = None,
    layers: bool = True,
) -> None:
    """Let a model tell what its compression gains when its first training step begins.

    The gain is that of the state that the report describes, whatever a schedule has made of it, on
    the first image of the batch. It is counted on a copy that shares the weights.

    Args:
        model: The compressed model.
        report: What the conversion did. It gets the gain.
        table: Measured speeds. Defaults to None, which takes the table that comes with mmwcc.
        layers: Whether to tell the whole report, rather than the gain alone. Defaults to True.
    """
    _withdraw(model)
    model.register_forward_pre_hook(_FirstStep(report, table, layers), with_kwargs=True)


def _withdraw(model: nn.Module) -> None:
    """Remove what :func:`tell_at_first_step` has added to a model."""
    hooks = model._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if isinstance(hook, _FirstStep)]:
        del hooks[key]
        model._forward_pre_hooks_with_kwargs.pop(key, None)


class _FirstStep:
    """The hook of a model that waits for its first training step."""

    # An object and not a function inside one, so that models can be copied and pickled.
    def __init__(self, report: CompressionReport, table: SpeedTable | None, layers: bool) -> None:
        self.report, self.table, self.layers = report, table, layers

    def __call__(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        # A compiler cannot trace what counts operations, so a compiled model tells nothing.
        if torch.compiler.is_compiling() or not (model.training and torch.is_grad_enabled()):
            return
        _withdraw(model)
        gain, failure = None, ''
        try:
            self.report.gain = gain = self._gain(model, _one_image(model, args, kwargs))
        except Exception as error:  # counting must never stop a training
            failure = (
                f'What is gained could not be counted ({cause(error)}). '
                'tools/analysis_tools/get_bops.py counts it for a size that you give.'
            )
        warning = failure if gain is None else gain.warning
        text = '' if gain is None else gain.table
        if self.layers:
            text = f'Compressed {type(model).__name__}:\n{self.report}'.removesuffix(f'\n{warning}')
        if text:
            announce(text)
        if warning:
            announce(warning, logging.WARNING)

    def _gain(self, model: nn.Module, inputs: dict[str, Any] | tuple) -> Gain:
        """Count on a copy, which calls no hook, not even this one, and changes nothing.

        The inputs do not change either, because :func:`mmwcc.cost.count_cost` copies them.
        """
        copied = twin(model)
        # Autocast would keep its casts of the weights, which then have no gradient in the step.
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            cost = _count(copied, inputs)
        counted = {layer.name for layer in cost.layers}
        built = {
            layer.name: dict(
                weight_bits=layer.weight_bits,
                act_bits=layer.act_bits,
                keep_ratio=layer.keep_ratio,
                widths=layer.widths,
            )
            for layer in self.report
            if layer.name in counted
        }
        return Gain.of(copied, cost.at(built), self.table)


def _count(model: nn.Module, inputs: dict[str, Any] | tuple) -> CostReport:
    """Count a model as mode 'tensor' runs it, or with its loss if that mode does not run.

    Some models of OpenMMLab can be trained but have no such mode, like MaskFormer.
    """
    try:
        return count_cost(model, inputs=inputs)
    except ValueError:
        if not (tensor_mode(model) and isinstance(inputs, dict)):
            raise
    return count_cost(model, inputs=dict(inputs, mode='loss'))


def _one_image(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any] | tuple:
    """Return the inputs of a call, cut to the first image of the batch."""
    kwargs = {key: value for key, value in kwargs.items() if key not in tensor_mode(model)}
    inputs: Any = args or kwargs
    if args and kwargs:
        inputs = dict(inspect.signature(model.forward).bind(*args, **kwargs).arguments)
    tensors = list(tensors_in(inputs))
    if not tensors or tensors[0].dim() != 4:
        return inputs
    values = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    cut: dict[Any, Any] = {key: _first(value, len(tensors[0])) for key, value in values}
    return cut if isinstance(inputs, dict) else tuple(cut.values())


def _first(value: Any, batch: int) -> Any:
    """Return what belongs to the first image, in a value that may hold one entry for each."""
    if isinstance(value, Tensor):
        return value[:1] if value.dim() and len(value) == batch else value
    if isinstance(value, dict):
        return {key: _first(item, batch) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    holds_batches = any(isinstance(item, Tensor) and item.dim() == 4 for item in value)
    if len(value) == batch and not holds_batches:
        return value[:1]
    kind = type(value)
    return getattr(kind, '_make', kind)(_first(item, batch) for item in value)
