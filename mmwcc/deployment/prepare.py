"""Copy a model into a form that exporters support.

Compressed layers become plain operators, BatchNorm is folded, and outputs are raw.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Container, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwcc.inference import FusedInvertedResidual, IntegerLayer, fold_batch_norm
from mmwcc.layers import CompressedLinearMixin, QuantConv2d, WaveletCompressedConv2d
from mmwcc.messages import some_of
from mmwcc.model_tree import (
    LayerState,
    compressed_layers,
    has_hooks,
    is_plain,
    obstacle,
    quantizers_off,
    replace_layers,
)
from mmwcc.quantizers import UniformQuantizer

from .layers import ExportableConv2d, ExportableWaveletConv2d
from .maps import owners_of_scales, take_off_scales
from .targets import Target, target_of

__all__ = ['Call', 'RawOutputs', 'exportable', 'live_calls']

_WITH_EXPORTABLE_FORM = (QuantConv2d, WaveletCompressedConv2d)


class RawOutputs(nn.Module):
    """A network from the normalized image to the tensors that post-processing starts from.

    A segmentor returns its logits at the size of the image, or the classes. A detector returns the
    outputs of its head for each level of the pyramid, without boxes and non-maximum suppression. A
    two-stage detector returns the maps that its second stage reads, and the outputs of its RPN for
    each level. The heads of the second stage start from boxes and are left out. Other models return
    what they return in mode 'tensor'. Modules that are not mmengine models return what they return
    when called.

    Args:
        model: The model.
        argmax: Whether a segmentor returns the class of each pixel. Defaults to False.

    Raises:
        ValueError: If model is a two-stage detector without an RPN, or argmax is set for a model
            that is not a segmentor.
    """

    def __init__(self, model: nn.Module, argmax: bool = False) -> None:
        super().__init__()
        self.is_segmentor = hasattr(model, 'decode_head') and hasattr(model, 'align_corners')
        self.is_two_stage = hasattr(model, 'roi_head')
        if self.is_two_stage and not hasattr(getattr(model, 'rpn_head', None), 'forward_single'):
            raise ValueError(
                f'RawOutputs: the first stage of a model with a roi_head must be an RPN, got '
                f'{type(model).__name__} without one. Its second stage starts from boxes, which '
                'are no raw outputs. Export a one-stage detector.'
            )
        if argmax and not self.is_segmentor:
            raise ValueError(
                f'RawOutputs: argmax must be False for a model that is no segmentor, got '
                f'{type(model).__name__}. Take the argmax outside.'
            )
        self.model: Any = model
        self.argmax = argmax

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return one tensor, or all outputs of all levels in order, for images (B, 3, H, W)."""
        outputs = self.raw(x)
        if self.argmax:
            return outputs.argmax(1)
        return (
            outputs
            if isinstance(outputs, Tensor)
            else tuple(tensor for _, tensor in _leaves(outputs))
        )

    def raw(self, x: Tensor):
        """Return the output of the model; for a segmentor, its logits at the size of the image."""
        if self.is_two_stage:
            maps = self.model.extract_feat(x)
            return maps, *self.model.rpn_head(maps)
        outputs = (
            self.model(x, None, mode='tensor')
            if hasattr(self.model, 'data_preprocessor')
            else self.model(x)
        )
        if self.is_segmentor:
            outputs = F.interpolate(
                outputs.contiguous(),  # torch resizes few channels faster plane by plane
                x.shape[2:],
                mode='bilinear',
                align_corners=self.model.align_corners,
            )
        return outputs

    @property
    def left_out(self) -> str:
        """The part of the model that does not run, or ''."""
        return 'roi_head, which starts from boxes' if self.is_two_stage else ''

    @torch.no_grad()
    def names(self, x: Tensor) -> list[str]:
        """Return a name for each tensor that :meth:`forward` returns."""
        if self.is_segmentor:
            return ['labels' if self.argmax else 'logits']
        return [f'output{path}' for path, _ in _leaves(self.raw(x))]


def _leaves(outputs, path: str = '') -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested lists and tuples, each with the indices that lead to it."""
    if isinstance(outputs, Tensor):
        yield path, outputs
    elif outputs is not None:
        for index, item in enumerate(outputs):
            yield from _leaves(item, f'{path}_{index}')


class Call(NamedTuple):
    """A call of a compressed layer, or of the quantizer of a map."""

    name: str
    module: Any
    input: Tensor
    output: Tensor


def live_calls(network: RawOutputs, x: Tensor) -> list[Call]:
    """Run a network and return the calls that its outputs depend on, of layers and quantizers.

    Backbones may run a stage that no head uses; exporters leave it out. Layers do not call their
    quantizers, so quantizers are called where maps have scales only.
    """
    calls: list[Call] = []
    outputs: list[Tensor] = []

    def record(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls.append(Call(name, module, inputs[0].detach(), output.detach()))
        outputs.append(output)

    watched = dict(compressed_layers(network))
    if any(True for _ in owners_of_scales(network)):
        watched |= {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, UniformQuantizer)
        }
    handles = [
        module.register_forward_hook(partial(record, name)) for name, module in watched.items()
    ]
    try:
        with torch.enable_grad():
            ends = [tensor.sum() for _, tensor in _leaves(network.raw(x.clone().requires_grad_()))]
    finally:
        for handle in handles:
            handle.remove()
    grads = torch.autograd.grad(ends, outputs, allow_unused=True) if calls else ()
    return [call for call, grad in zip(calls, grads, strict=True) if grad is not None]


def _check_form(network: nn.Module) -> None:
    ready = [
        name
        for name, module in network.named_modules()
        if isinstance(module, (FusedInvertedResidual, IntegerLayer))
    ]
    if ready:
        raise ValueError(
            f'exportable: the model must be as it was trained, got fused or integer layers: '
            f'{some_of(ready)}. Load the trained checkpoint; the export writes integers by itself.'
        )
    linear = [
        name
        for name, layer in compressed_layers(network).items()
        if isinstance(layer, CompressedLinearMixin)
    ]
    if linear:
        raise ValueError(
            f'exportable: compressed linear layers cannot be exported yet, got {some_of(linear)}. '
            'Train a model whose compression dictionary has no key linear, or run this one in '
            'PyTorch.'
        )
    scaled = [
        name
        for name, layer in compressed_layers(network).items()
        if LayerState.of(layer).widths is not None
    ]
    if scaled:
        raise ValueError(
            'exportable: act_quant must have one scale for all positions, got '
            f'EnergyActQuantizer in {some_of(scaled)}. ONNX has no operator that chooses a scale '
            'and a number of bits for every position. Run the model in torch, or train it with '
            'mmwcc.LearnedClipActQuantizer.'
        )
    stuck = [
        f'{name} ({obstacle(layer)})'
        for name, layer in compressed_layers(network).items()
        if obstacle(layer)
    ]
    if stuck:
        raise ValueError(
            'exportable: the weights of compressed layers must be parameters, got '
            f'{some_of(stuck)}. Make them permanent first, for example by '
            'torch.nn.utils.prune.remove.'
        )


def _check_clips(network: nn.Module, called: Container[nn.Module]) -> None:
    unlearned = [
        name
        for name, layer in compressed_layers(network).items()
        if layer in called and layer.unlearned()
    ]
    if unlearned:
        raise RuntimeError(
            'exportable: every quantizer must have learned its clip, got layers that are not '
            f'initialized: {some_of(unlearned)}. Load a compressed checkpoint, or train '
            'or calibrate the model first.'
        )
    scales = [name for _, held in owners_of_scales(network) for name in held.unlearned()]
    if scales:
        raise RuntimeError(
            'exportable: every map must have learned its scale, got maps that have not: '
            f'{some_of(scales)}. Calibrate the model on some images '
            '(mmwcc.post_training.calibrate with again=False).'
        )


def _is_replaceable(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    return isinstance(module, _WITH_EXPORTABLE_FORM) or (is_plain(module) and not obstacle(module))


@torch.no_grad()
def _pairs(network: nn.Module, x: Tensor) -> dict[nn.Conv2d, _BatchNorm | None]:
    """Run the network and return the convolutions it calls, each with its BatchNorm or None.

    A BatchNorm belongs to a convolution if it receives all outputs of the convolution. The order of
    registration does not show this, because it may differ from the order of execution. Two cases
    must not be folded: shared layers (heads with one BatchNorm per level), and layers with hooks
    between the two, because these hooks would see other maps.
    """
    hooked = {module for module in network.modules() if has_hooks(module)}
    # Keeps the tensors alive, so that no id is used twice.
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    calls: Counter = Counter()
    fed: Counter = Counter()

    def after_convolution(module, _, output) -> None:
        calls[module] += 1
        made[id(output)] = module, output

    def before_norm(module, inputs) -> None:
        calls[module] += 1
        if id(inputs[0]) in made:
            fed[made[id(inputs[0])][0], module] += 1

    handles = [
        module.register_forward_hook(after_convolution)
        for module in network.modules()
        if _is_replaceable(module)
    ]
    handles += [
        module.register_forward_pre_hook(before_norm)
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_var is not None
    ]
    try:
        with quantizers_off(network):  # clips are not needed yet, and their lack is said later
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    behind = {
        conv: norm
        for (conv, norm), count in fed.items()
        if calls[conv] == calls[norm] == count and not {conv, norm} & hooked
    }
    return {module: behind.get(module) for module in calls if isinstance(module, nn.Conv2d)}


def _replacement(
    conv: nn.Conv2d, norm: _BatchNorm | None, target: Target | None, dynamic: bool
) -> nn.Module:
    if isinstance(conv, WaveletCompressedConv2d):
        return ExportableWaveletConv2d(conv, norm, target, dynamic)
    if isinstance(conv, QuantConv2d):
        return ExportableConv2d(conv, norm, target)
    return conv if norm is None else fold_batch_norm(conv, norm)


@torch.no_grad()
def exportable(
    network: nn.Module,
    x: Tensor,
    *,
    qdq: bool = True,
    dynamic: bool = True,
    target: str = 'onnxruntime',
) -> nn.Module:
    """Return a copy of a network in ONNX operators: compressed layers replaced, BatchNorm folded.

    Args:
        network: A trained network that can be called with ``x`` alone.
        x: An input, used to find the BatchNorm after each convolution.
        qdq: Whether to write quantizers of 8 bits or fewer as QuantizeLinear and DequantizeLinear.
            Defaults to True.
        dynamic: Whether height and width stay open. Defaults to True.
        target: The runtime they are written for, one of :data:`TARGETS`. Defaults to 'onnxruntime'.

    Returns:
        The copy in evaluation mode. Layers keep their names; folded BatchNorm layers become
        ``nn.Identity``.

    Raises:
        ValueError: If target is unknown, or the network has fused or integer layers, or a
            compressed layer whose weight is computed rather than a parameter.
        RuntimeError: If a quantizer has not learned its clip, or a map its scale.
    """
    integers = target_of(target) if qdq else None
    _check_form(network)
    network = copy.deepcopy(network).eval()
    pairs = _pairs(network, x)
    _check_clips(network, pairs)
    maps = take_off_scales(network, pairs, integers)
    # Heads that only training uses are not in any pair, so they are not replaced.
    made: dict[nn.Module, nn.Module] = {
        conv: _replacement(conv, norm, integers, dynamic) for conv, norm in pairs.items()
    }
    made |= {norm: nn.Identity() for norm in pairs.values() if norm is not None}
    replace_layers(network, made)
    for owner, written in maps.items():
        written.join(owner)
    return network.eval()
