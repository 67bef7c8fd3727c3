"""Counting the cost of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mmwcc.inference import example_grids
from mmwcc.messages import cause
from mmwcc.model_tree import example_input, quantizers_off, unwrapped

from .counters import analyze, tensors_in
from .formulas import CONVENTIONS, check_convention
from .layer_cost import KINDS, LayerCost
from .ledger import Ledger
from .report import CostReport, CostSum

__all__ = ['CONVENTIONS', 'KINDS', 'CostReport', 'CostSum', 'LayerCost', 'count_cost']


def count_cost(
    model: nn.Module,
    input_shape: Sequence[int] | None = None,
    *,
    inputs: Any = None,
    convention: str = 'exact',
) -> CostReport:
    """Count operations, parameters and bytes of a model, layer by layer, in one run.

    Layers with weights are counted from their geometry and bits. Products without weights, as in
    attention, and elementwise operators are counted by mmengine's complexity analysis. Models of
    mmengine run in mode 'tensor', unless ``inputs`` is a dict that names another ``mode``. The
    model runs on the CPU or GPU that it is on. It does not
    change: it runs in eval mode, without gradients and with its quantizers switched off, and its
    buffers and attributes are restored. The inputs do not change either: it runs on a copy of
    them. Integer layers need no weights.

    Args:
        model: Any module. Wrappers such as DistributedDataParallel are ignored.
        input_shape: (height, width) of one image, or the shape of one input without the batch
            dimension. Defaults to None.
        inputs: What to call the model with instead: a tensor, a tuple of positional arguments or a
            dict of keyword arguments. All figures are for this whole batch. Defaults to None.
        convention: 'exact' counts what is computed: output sizes, feature maps padded to multiples
            of ``2**levels``, whole positions. 'paper' follows equations (13) to (15): sizes before
            striding, divided by the stride, without padding. Defaults to 'exact'.

    Returns:
        The report.

    Raises:
        ModuleNotFoundError: If mmengine is missing.
        TypeError: If model is not a module.
        ValueError: If convention is unknown, not exactly one of input_shape and inputs is given,
            input_shape does not consist of positive integers, the model cannot run on the input, or
            there is an iterator among the inputs, which the run would use up.

    Note:
        mmengine traces the model. What depends on values, such as loops over detections, is counted
        for this input only. Operators whose result is not returned are not seen. A fused depthwise
        convolution counts as the convolution it replaces.

    Example:
        >>> report = count_cost(nn.Conv2d(3, 8, 3, padding=1), (32, 32))
        >>> report.total.macs, report.total.bops == 32 * 32 * report.total.macs
        (221184, True)

    Reference:
        Finder et al., NeurIPS 2022, equations (13) to (15) and Appendix D.
    """
    check_convention('count_cost', convention)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f'count_cost: model must be a torch.nn.Module, got {model!r}. Build it from its config '
            f'first.'
        )
    model = unwrapped(model)
    inputs, input_shape = _inputs(model, input_shape, inputs)
    ledger = Ledger(model, convention)
    try:
        with quantizers_off(model), example_grids(model):
            operations = analyze(model, inputs, dict.fromkeys(ledger.names, ledger.record))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the model may raise anything
        what = 'these inputs' if input_shape is None else f'an input of shape {input_shape}'
        raise ValueError(
            f'count_cost: {type(model).__name__} must run on {what}, but {cause(error)}. Give the '
            'shape that its network sees, as --shape HEIGHT WIDTH to a tool, or its `inputs`.'
        ) from error
    return ledger.report(operations, input_shape)


def _inputs(model: nn.Module, input_shape, inputs) -> tuple[Any, tuple[int, ...] | None]:
    """Return what to call the model with, and the shape of its tensor if there is only one."""
    if (input_shape is None) == (inputs is None):
        raise ValueError(
            'count_cost: exactly one of input_shape and inputs must be given, got '
            f'{"none" if inputs is None else "both"}. Use input_shape=(height, width).'
        )
    if inputs is None:
        if (
            not isinstance(input_shape, Sequence)
            or not input_shape
            or not all(
                isinstance(size, int) and not isinstance(size, bool) and size > 0
                for size in input_shape
            )
        ):
            raise ValueError(
                f'count_cost: input_shape must be made of positive integers, got {input_shape!r}. '
                'Use (height, width) or (channels, height, width).'
            )
        inputs = example_input(model, tuple(input_shape))
    tensors = list(tensors_in(inputs))
    return inputs, tuple(tensors[0].shape) if len(tensors) == 1 else None
