"""The integers of a trained layer: the grid of its input and the levels of its weight."""

from __future__ import annotations

import torch
from torch import Tensor

from mmwcc.functional import normalization, quantize
from mmwcc.kernels.fake_quant import grid
from mmwcc.layers import CompressedConvMixin
from mmwcc.quantizers import UniformQuantizer

__all__ = ['act_grid', 'integer_weight']


def act_grid(quantizer: UniformQuantizer) -> tuple[Tensor, int, int]:
    """Return the step and the lowest and highest grid level of an activation quantizer.

    If each position has a scale of its own, the levels are those of the most bits, and the step
    is 1.
    """
    spec = quantizer.spec(torch.zeros(1))
    step, low, high = grid(
        torch.float32, quantizer.clip_alpha.detach(), quantizer.signed, spec.bits, spec.symmetric
    )
    step = step.new_ones(()) if spec.widths else step.reshape(())
    return step, int(low), int(high)


def integer_weight(owner: str, layer: CompressedConvMixin) -> tuple[Tensor, Tensor]:
    """Return the weight of a quantized layer as int8 levels and the steps between levels.

    Args:
        owner: Name of the class that raises the error.
        layer: A layer whose weight has a quantizer.

    Returns:
        The grid levels (O, C), int8, and the step of each output channel (O,), float64.

    Raises:
        RuntimeError: If the clip of the quantizer cannot belong to the weight.
        ValueError: If a weight is NaN.
    """
    layer.require_fitting_clip()
    weight, quantizer = layer.weight.detach().float(), layer.weight_quant
    assert quantizer is not None, 'only quantized weights are integers'
    spec, clip = quantizer.spec(weight), quantizer.clip_alpha.detach().float()
    step = grid(torch.float32, clip, quantizer.signed, spec.bits, spec.symmetric)[0]
    step = spec.spread(step, weight).double()
    if spec.normalize == 'rescale':
        step = step * normalization(weight)[1].double()
    # The mean that normalization subtracts is never added back, so levels are integers * step.
    levels = (quantize(weight, clip, quantizer.signed, spec).double() / step).round()
    if levels.isnan().any():
        raise ValueError(
            f'{owner}: the weights must be numbers, got {int(levels.isnan().sum())} of '
            f'{levels.numel()} that are NaN. Convert a checkpoint of a training that did not '
            'diverge.'
        )
    step = step.reshape(-1).expand(len(weight))
    if layer.weight_scale is not None:
        step = step * layer.weight_scale.double()
    return levels.to(torch.int8).flatten(1), step.clone()
