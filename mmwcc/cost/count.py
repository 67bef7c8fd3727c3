"""Counting the cost of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mmwcc.inference import FoldedConv, FusedInvertedResidual, IntegerLayer
from mmwcc.layers import DepthwiseFastWaveletTransform, WaveletConv2d, is_eligible
from mmwcc.model_tree import LayerState, example_input, quantizers_off, unwrapped
from mmwcc.quantizers import UniformQuantizer

from .counters import PRODUCTS, Operations, analyze
from .formulas import CONVENTIONS, check_convention, conv_macs
from .layer_cost import KINDS, Geometry, LayerCost, Map
from .report import CostReport, CostSum

__all__ = ['CONVENTIONS', 'KINDS', 'CostReport', 'CostSum', 'LayerCost', 'count_cost']

_CONVOLUTIONS = (_ConvNd, IntegerLayer)
_LAYERS = (
    *_CONVOLUTIONS,
    nn.Linear,
    FusedInvertedResidual,
    WaveletConv2d,
    DepthwiseFastWaveletTransform,
)


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
    mmengine run in mode 'tensor'. The model runs on the CPU or GPU that it is on. It does not
    change: it runs in eval mode, without gradients and with its quantizers switched off.

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
            input_shape does not consist of positive integers, or the model cannot run on the input.

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
            f'count_cost: model must be a torch.nn.Module, got {model!r}. Build it from its config first.'
        )
    model = unwrapped(model)
    inputs, input_shape = _inputs(model, input_shape, inputs)
    ledger = _Ledger(model, convention)
    try:
        with quantizers_off(model):
            operations = analyze(model, inputs, dict.fromkeys(ledger.names, ledger.record))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the model may raise anything
        what = 'these inputs' if input_shape is None else f'an input of shape {input_shape}'
        raise ValueError(
            f'count_cost: {type(model).__name__} must run on {what}, but {type(error).__name__}: {error}. '
            'Give the shape that its network sees, or its `inputs`.'
        ) from error
    return ledger.report(operations, input_shape)


def _inputs(model: nn.Module, input_shape, inputs) -> tuple[Any, tuple[int, ...] | None]:
    """Return what to call the model with, and its shape if it is a single tensor."""
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
                f'count_cost: input_shape must be made of positive integers, got {input_shape!r}. Use '
                '(height, width) or (channels, height, width).'
            )
        inputs = example_input(model, tuple(input_shape))
    return inputs, tuple(inputs.shape) if isinstance(inputs, Tensor) else None


def _geometry(layer: Any, state: LayerState, convention: str) -> Geometry:
    """Return the geometry of a layer that has not been called yet."""
    if isinstance(layer, DepthwiseFastWaveletTransform):
        return Geometry((), convention)
    weight, bias = layer.weight, layer.bias
    biases = 0 if bias is None else bias.numel()
    geometry = Geometry((), convention, weight.numel(), biases, _scales(layer))
    if isinstance(layer, nn.Linear):
        return geometry
    if isinstance(layer, FoldedConv):
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
        geometry = replace(geometry, pointwise=(weight.shape[1], weight.shape[0]), **transform)
    return geometry


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
        stride, padding, dilation, groups = (
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        kernel, channels, out = layer.kernel_size, layer.in_channels, layer.out_channels
    if isinstance(layer, _ConvTransposeNd):  # equation (13) does not cover these
        return conv_macs(channels, out, kernel, x, groups=groups)
    if convention == 'exact':
        return conv_macs(channels, out, kernel, y, groups=groups)
    # The output size at stride 1. With 'same' padding, by the layer or in front of it, this is the
    # size of the input.
    pads = (0 if padding == 'valid' else None,) * len(x) if isinstance(padding, str) else padding
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


class _Ledger:
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
        elif isinstance(module, _CONVOLUTIONS):
            self._record_convolution(module, x, y)
        elif isinstance(module, nn.Linear):
            self._note(module, Map(prod(x) * module.out_features, prod(x)))
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
        layers = []
        for part, (name, geometry, state) in self._parts.items():
            if part in self._maps:
                maps = tuple(self._maps[part])
                additions = (
                    _dfwt_additions(part, maps)
                    if isinstance(part, DepthwiseFastWaveletTransform)
                    else 0
                )
                layers.append(
                    LayerCost.of(
                        name, replace(geometry, maps=maps, additions=additions), **state.quantities
                    )
                )
        counted = sum(self._parameters[layer.name] for layer in layers)
        reached = sum(
            count
            for name, count in self._parameters.items()
            if not any(f'{name}.'.startswith(f'{outer}.') for outer in operations.uncalled)
        )
        elementwise: Counter[str] = Counter()
        uncounted: Counter[str] = Counter()
        for name, counts in operations.counts.items():
            if name not in self._closed:
                macs = sum(count for operator, count in counts.items() if operator in PRODUCTS)
                elementwise.update(
                    {key: count for key, count in counts.items() if key not in PRODUCTS}
                )
                if macs:
                    layers.append(LayerCost.of(name, Geometry((Map(macs, 0),), self.convention)))
        for name, calls in operations.uncounted.items():
            uncounted.update(
                {
                    operator: count
                    for operator, count in calls.items()
                    if name not in self._closed or operator.startswith('mmwcc::')
                }
            )
        layers.sort(key=lambda layer: self._order[layer.name])
        return CostReport(
            layers,
            self.convention,
            input_shape,
            dict(elementwise),
            dict(uncounted),
            operations.uncalled,
            reached - counted,
        )


def _dfwt_additions(transform: DepthwiseFastWaveletTransform, maps: tuple[Map, ...]) -> int:
    """Count one addition for each channel that a step reads: C, C/2, C/4, ... channels."""
    return sum(2 * image.inputs - (2 * image.inputs >> transform.kappa) for image in maps)
