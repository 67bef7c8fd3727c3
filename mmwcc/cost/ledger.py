"""A record of the calls of a model's layers, from which their cost follows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mmwcc.inference import (
    FoldedConv,
    FusedInvertedResidual,
    IntegerLayer,
    IntegerLinearLayer,
)
from mmwcc.layers import (
    DepthwiseFastWaveletTransform,
    TokenTransform,
    WaveletConv2d,
    is_eligible,
)
from mmwcc.model_tree import LayerState
from mmwcc.quantizers import UniformQuantizer

from .counters import PRODUCTS, Operations
from .formulas import conv_macs
from .layer_cost import Geometry, LayerCost, Map
from .report import CostReport

__all__ = ['Ledger']

_CONVOLUTIONS = (_ConvNd, IntegerLayer)
_LINEAR = (nn.Linear, IntegerLinearLayer)
_LAYERS = (
    *_CONVOLUTIONS,
    nn.Linear,
    FusedInvertedResidual,
    WaveletConv2d,
    DepthwiseFastWaveletTransform,
)


def _geometry(layer: Any, state: LayerState, convention: str) -> Geometry:
    """Return the geometry of a layer that has not been called yet."""
    if isinstance(layer, DepthwiseFastWaveletTransform):
        return Geometry((), convention)
    weight, bias = layer.weight, layer.bias
    biases = 0 if bias is None else bias.numel()
    geometry = Geometry((), convention, weight.numel(), biases, _scales(layer))
    if isinstance(layer, _LINEAR):
        geometry = replace(geometry, row=layer.in_features)
        padding, groups, kernel_size = 0, 1, (1, 1) if state.has('keep_ratio') else (1,)
    elif isinstance(layer, FoldedConv):
        (_, padding, _, groups), kernel_size = layer.geometry, tuple(weight.shape[2:])
    else:
        padding, groups, kernel_size = layer.padding, layer.groups, layer.kernel_size
    if (
        len(kernel_size) == 2
        and not isinstance(layer, _ConvTransposeNd)
        and is_eligible(kernel_size, padding, groups)
    ):
        transform = {
            key: getattr(state, key)
            for key in ('levels', 'wavelet')
            if getattr(state, key) is not None
        }
        outputs, inputs = weight.shape[:2]
        geometry = replace(geometry, row=inputs, pointwise=(inputs, outputs), **transform)
    return geometry


def _token_maps(layer: Any, x: tuple[int, ...]) -> list[Map]:
    """Return what a linear layer computes for an input of shape ``x``."""
    if not isinstance(layer, TokenTransform):
        return [Map(prod(x) * layer.out_features, prod(x))]
    parts = layer.maps(x)
    images = prod(x[:-1]) // sum(part.tokens() for part in parts)
    inputs = [images * part.tokens() * layer.in_features for part in parts]
    return [
        Map(count * layer.out_features, count, images, part.size, part.levels, place > 0)
        for place, (part, count) in enumerate(zip(parts, inputs, strict=True))
    ]


def _scales(layer: nn.Module) -> int:
    """Return how many scales the weights of a layer have, or 0 if one scale serves all."""
    if isinstance(layer, IntegerLayer):
        return layer.scale.numel()  # one for each output channel, however the weight was quantized
    quantizer = getattr(layer, 'weight_quant', None)
    if quantizer is None:
        return getattr(layer, 'weight_scales', 0)  # folded layers have no quantizer
    return quantizer.extra_clips


def _conv_macs(layer: Any, x: tuple[int, ...], y: tuple[int, ...], convention: str) -> float:
    """Count the MACs of a convolution for one image with input size ``x`` and output size ``y``."""
    if isinstance(layer, FoldedConv):
        (stride, padding, dilation, groups), (out, _, *kernel) = layer.geometry, layer.weight.shape
        channels = layer.weight.shape[1] * groups
    else:
        stride, padding = layer.stride, layer.padding
        dilation, groups = layer.dilation, layer.groups
        kernel, channels, out = layer.kernel_size, layer.in_channels, layer.out_channels
    if isinstance(layer, _ConvTransposeNd):  # equation (13) does not cover these
        return conv_macs(channels, out, kernel, x, groups=groups)
    if convention == 'exact':
        return conv_macs(channels, out, kernel, y, groups=groups)
    # The output size at stride 1. With 'same' padding, by the layer or in front of it, this is the
    # size of the input.
    pads = padding
    if isinstance(padding, str):
        pads = (0 if padding == 'valid' else None,) * len(x)
    size = tuple(
        side if pad is None else side + 2 * pad - step * (taps - 1)
        for side, pad, step, taps in zip(x, pads, dilation, kernel, strict=True)
    )
    return conv_macs(channels, out, kernel, size, stride=stride, groups=groups, convention='paper')


def _parts(layer: nn.Module) -> dict[str, nn.Module]:
    """Return the counted parts of a layer by their names within the layer."""
    if isinstance(layer, FusedInvertedResidual):
        return {name: part for name, part in layer.named_children() if part is not None}
    if isinstance(layer, WaveletConv2d):  # its pieces are counted as separate layers
        return {} if layer.dfwt is None else dict(dfwt=layer.dfwt)
    return {'': layer}


def _joined(*names: str) -> str:
    return '.'.join(filter(None, names))


class Ledger:
    """Record the calls of a model's layers."""

    def __init__(self, model: nn.Module, convention: str) -> None:
        self.convention = convention
        self.names = {
            module: name for name, module in model.named_modules() if isinstance(module, _LAYERS)
        }
        self._parameters: Counter[str] = Counter()
        for name, parameter in model.named_parameters():
            self._parameters[name.rpartition('.')[0]] += parameter.numel()
        self._order = {name: place for place, (name, _) in enumerate(model.named_modules())}
        # Bits must be read before the quantizers are switched off.
        self._parts: dict[nn.Module, tuple[str, Geometry, LayerState]] = {}
        self._maps: dict[nn.Module, list[Map]] = {}
        self._closed = set(self.names.values())  # operators in these are counted by formulas
        for module, name in self.names.items():
            for inner, part in _parts(module).items():
                where = _joined(name, inner)
                state = LayerState.of(part)
                self._parts[part] = where, _geometry(part, state, convention), state
                self._closed |= {
                    where,
                    *(
                        _joined(where, child)
                        for child, quantizer in part.named_children()
                        if isinstance(quantizer, UniformQuantizer)
                    ),
                }

    def record(self, module: nn.Module, inputs, output) -> None:
        """Record a call; this is the forward hook of every layer."""
        x, y = (tuple(int(size) for size in tensor.shape) for tensor in (inputs[0], output))
        if isinstance(module, FusedInvertedResidual):
            self._record_block(module, x, y)
        elif isinstance(module, _LINEAR):
            for image in _token_maps(module, x):
                self._note(module, image)
        elif isinstance(module, _CONVOLUTIONS):
            self._record_convolution(module, x, y)
        else:
            for transform in _parts(module).values():
                self._note(transform, Map(0, prod(x)))

    def _note(self, layer: nn.Module, image: Map) -> None:
        self._maps.setdefault(layer, []).append(image)

    def _record_convolution(self, layer: nn.Module, x: tuple[int, ...], y: tuple[int, ...]) -> None:
        dims = len(getattr(layer, 'kernel_size', (1, 1)))
        batch = prod(x[: -dims - 1])
        self._note(
            layer,
            Map(
                batch * _conv_macs(layer, x[-dims:], y[-dims:], self.convention),
                prod(x),
                batch,
                y[-dims:],
            ),
        )

    def _record_block(
        self, block: FusedInvertedResidual, x: tuple[int, ...], y: tuple[int, ...]
    ) -> None:
        batch, channels = x[0], block.depthwise.weight.shape[0]
        before, after = (batch, channels, *x[2:]), (batch, channels, *y[2:])
        if block.expand is not None:
            self._record_convolution(block.expand, x, before)
        self._record_convolution(block.depthwise, before, after)
        self._record_convolution(block.project, after, y)

    def report(self, operations: Operations, input_shape: tuple[int, ...] | None) -> CostReport:
        """Combine the recorded calls with what else mmengine found."""
        layers = self._layers()
        counted = sum(self._parameters[layer.name] for layer in layers)
        products, elementwise = self._outside_layers(operations)
        layers = sorted([*layers, *products], key=lambda layer: self._order[layer.name])
        reached = sum(
            count
            for name, count in self._parameters.items()
            if not any(f'{name}.'.startswith(f'{outer}.') for outer in operations.uncalled)
        )
        return CostReport(
            layers,
            self.convention,
            input_shape,
            elementwise,
            self._uncounted(operations),
            operations.uncalled,
            reached - counted,
        )

    def _layers(self) -> list[LayerCost]:
        """Return the costs of the layers that were called."""
        layers = []
        for part, maps in self._maps.items():
            name, geometry, state = self._parts[part]
            additions = (
                _dfwt_additions(part, tuple(maps))
                if isinstance(part, DepthwiseFastWaveletTransform)
                else 0
            )
            geometry = replace(geometry, maps=tuple(maps), additions=additions)
            layers.append(LayerCost.of(name, geometry, **state.quantities))
        return layers

    def _outside_layers(self, operations: Operations) -> tuple[list[LayerCost], dict[str, float]]:
        """Return products without weights, and elementwise operations by operator."""
        products: list[LayerCost] = []
        elementwise: Counter[str] = Counter()
        for name, counts in operations.counts.items():
            if name not in self._closed:
                macs = sum(count for operator, count in counts.items() if operator in PRODUCTS)
                elementwise.update(
                    {key: count for key, count in counts.items() if key not in PRODUCTS}
                )
                if macs:
                    geometry = Geometry((Map(macs, 0),), self.convention)
                    products.append(LayerCost.of(name, geometry))
        return products, dict(elementwise)

    def _uncounted(self, operations: Operations) -> dict[str, int]:
        """Return the operators that neither mmengine nor a formula counts."""
        uncounted: Counter[str] = Counter()
        for name, calls in operations.uncounted.items():
            uncounted.update(
                {
                    operator: count
                    for operator, count in calls.items()
                    if name not in self._closed or operator.startswith('mmwcc::')
                }
            )
        return dict(uncounted)


def _dfwt_additions(transform: DepthwiseFastWaveletTransform, maps: tuple[Map, ...]) -> int:
    """Count one addition for each channel that a step reads: C, C/2, C/4, ... channels."""
    return sum(2 * image.inputs - (2 * image.inputs >> transform.kappa) for image in maps)
