"""Conversion of a model in place: convolutions become compressed ones, under the same names and weights."""
from __future__ import annotations

import re
from difflib import get_close_matches

from torch import nn

from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d, WaveletConv2d, is_eligible
from mmwcc.registry import MODELS

from .config import WAVELET_TYPE, CompressionConfig
from .integer import INTEGER_LAYERS, integer_skeleton
from .report import CompressionReport, LayerReport, announce
from .speed import SpeedJudge

__all__ = ['compress_model', 'compressed_layers', 'describe_layer']

_COMPRESSED = (QuantConv2d, WaveletCompressedConv2d)
_LISTED = (*_COMPRESSED, *INTEGER_LAYERS)
_WAVELET_NAMES = (WAVELET_TYPE, WAVELET_TYPE.removeprefix('mmwcc.'))
# What OpenMMLab's heads call the convolution that predicts.
_PREDICTOR = re.compile(r'(.*_)?(conv_seg|cls_seg|conv_cls|conv_reg|conv_centerness|conv_obj|conv_pred|cls|reg|bbox|'
                        r'centerness|objectness|cls_out|reg_out|logits|predictor)')


def compressed_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the compressed layers of a model by qualified name, looking through DDP and mmengine's wrappers."""
    while isinstance(getattr(model, 'module', None), nn.Module) and len(list(model.children())) == 1:
        model = model.module
    return {name: module for name, module in model.named_modules() if isinstance(module, _LISTED)}


def _is_plain(module: nn.Module) -> bool:
    """Tell whether a module computes exactly what ``nn.Conv2d`` does (mmcv's wrapper only adds empty batches)."""
    kind = type(module)
    if not isinstance(module, nn.Conv2d) or kind._conv_forward is not nn.Conv2d._conv_forward:
        return False
    return kind.forward is nn.Conv2d.forward or (kind.__module__, kind.__name__) == ('mmcv.cnn.bricks.wrappers',
                                                                                    'Conv2d')


def _prediction_layers(names: list[str]) -> set[str]:
    """Find the last layers: the predictors of every head by their names, else the last convolution defined."""
    predictors = {name for name in names
                  if 'head' in name and any(_PREDICTOR.fullmatch(part) for part in name.split('.')[-2:])}
    return predictors or set(names[-1:])


def _wavelet_pieces(model: nn.Module) -> dict[str, str]:
    """Map the convolutions inside every :class:`WaveletConv2d` to its name: they are the first or the last together."""
    return {f'{name}.pieces.{i}': name for name, module in model.named_modules(remove_duplicate=False)
            if isinstance(module, WaveletConv2d) for i in range(len(module.pieces))}


def _dense_names(config: CompressionConfig, names: list[str], wholes: dict[str, str]) -> dict[str, str]:
    """Resolve ``keep_dense`` to layer names, each with the entry that named it."""
    dense = {}
    layers = list(dict.fromkeys(wholes.get(name, name) for name in names))
    for entry in config.keep_dense:
        if entry in ('first', 'last'):
            chosen = set(layers[:1]) if entry == 'first' else _prediction_layers(layers)
            found = {name for name in names if wholes.get(name, name) in chosen}
        else:
            found = {name for name in names if name == entry or re.fullmatch(entry, name)}
            if not found:
                raise ValueError(_no_match('keep_dense entry', entry, names))
        dense.update(dict.fromkeys(found, entry))
    return dense


def _no_match(what: str, pattern: str, names: list[str]) -> str:
    plain = pattern.replace('\\', '')
    nearest = get_close_matches(plain, names, n=1, cutoff=0.4)
    hint = f' Did you mean {re.escape(nearest[0])!r}?' if nearest else ''
    shown = ', '.join(names[:40]) + (f', ... ({len(names) - 40} more)' if len(names) > 40 else '')
    return (f'compress_model: the {what} {pattern!r} matches no convolution; it must match a whole qualified name.'
            f'{hint} Convolutions of this model: {shown}.')


def describe_layer(name: str, module: nn.Conv2d, before: str | None = None, reason: str = '') -> LayerReport:
    """Report on one convolution as it stands.

    Args:
        name: Qualified name.
        module: The layer.
        before: What it was; defaults to its geometry.
        reason: Why it stays dense.
    """
    bits = {role: getattr(getattr(module, role, None), 'bits', 32) for role in ('weight_quant', 'act_quant')}
    after = type(module).__name__ if isinstance(module, _COMPRESSED) else 'dense'
    return LayerReport(name, before or _geometry(module), after, bits['weight_quant'], bits['act_quant'],
                       getattr(module, 'keep_ratio', None), module.weight.numel(), reason)


def _geometry(conv: nn.Conv2d) -> str:
    height, width = conv.kernel_size
    stride = '' if conv.stride == (1, 1) else f'/{conv.stride[0]}'
    dilation = '' if conv.dilation == (1, 1) else f' d{conv.dilation[0]}'
    groups = '' if conv.groups == 1 else f' g{conv.groups}'
    return f'Conv2d {height}x{width}{stride}{dilation}{groups}'


def _convert(name: str, conv: nn.Conv2d, config: dict) -> nn.Module:
    kind = config['type']
    layer_type = MODELS.get(kind) if isinstance(kind, str) else kind
    if layer_type not in _COMPRESSED:
        raise ValueError(f'compress_model: {name} cannot become {kind!r}, which is not a compressed convolution. Use '
                         "'mmwcc.WaveletCompressedConv2d' or 'mmwcc.QuantConv2d'.")
    arguments = {key: value for key, value in config.items() if key != 'type'}
    try:
        return layer_type.from_conv2d(conv, **arguments)
    except (TypeError, ValueError) as error:
        raise type(error)(f'compress_model: {name} ({_geometry(conv)}) cannot become {kind}: {error}') from error


def compress_model(model: nn.Module, compression: dict, *, verbose: bool = True) -> CompressionReport:
    """Turn the convolutions of ``model`` into compressed ones, in place.

    Every replaced layer keeps its qualified name, its parameter objects, device and training mode, so that dense
    checkpoints load with only quantizer keys missing. Convolutions that are shared stay shared. Layers that are
    compressed already, transposed convolutions and subclasses of ``nn.Conv2d`` with a forward of their own stay.

    Args:
        model: Any module.
        compression: Plain data, see :class:`CompressionConfig`.
        verbose: Whether to print the report. Defaults to True.

    Returns:
        The report: one line a convolution, and a summary.

    Raises:
        TypeError: If a value of compression is of the wrong kind.
        ValueError: If a key is unknown, a rule or a keep_dense entry matches nothing, a layer cannot become what a
            rule says, the model has no convolution, or only_if_faster cannot run it.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
        >>> pointwise = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
        >>> compress_model(model, dict(pointwise=pointwise), verbose=False).summary()
        '3 convolutions: 1 WaveletCompressedConv2d, 2 dense'
    """
    config = CompressionConfig.parse(compression)
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False)
               if isinstance(module, nn.Conv2d)}
    names = list(modules)
    if not names or '' in modules:
        raise ValueError(f'compress_model: the model must contain convolutions (nn.Conv2d), got {type(model).__name__}'
                         ' with none inside. Put a single layer into nn.Sequential, or use its class directly.')
    for rule in config.rules:
        if not any(rule.matches(name) for name in names):
            raise ValueError(_no_match('rule', rule.pattern, names))
    dense = _dense_names(config, names, _wavelet_pieces(model))
    judge = None if config.only_if_faster is None else SpeedJudge(model, config.only_if_faster)
    report, replaced = CompressionReport(), {}
    for name, module in modules.items():
        before, reason = _geometry(module), ''
        if id(module) not in replaced:
            replaced[id(module)], reason = _replacement(name, module, config, dense, judge)
        layer = replaced[id(module)]
        if layer is not module:
            parent, _, attribute = name.rpartition('.')
            setattr(model.get_submodule(parent), attribute, layer)
        report.append(describe_layer(name, layer, before, reason))
    if config.integer:
        report = integer_skeleton(model, report)
    if verbose:
        announce(f'Compressed {type(model).__name__}:\n{report}')
    return report


def _replacement(name: str, module: nn.Conv2d, config: CompressionConfig, dense: dict[str, str],
                 judge: SpeedJudge | None) -> tuple[nn.Module, str]:
    """Return the layer to put in place of ``module`` (itself where it stays) and why it stays."""
    if isinstance(module, _COMPRESSED):
        return module, 'compressed already'
    if name in dense:
        return module, f'keep_dense {dense[name]!r}'
    eligible = is_eligible(module.kernel_size, module.padding, module.groups)
    if not _is_plain(module):
        return module, f'{type(module).__name__} has a forward of its own'
    layer_config, reason = config.layer_config(name, eligible), ''
    if judge is not None and layer_config is not None and eligible and layer_config['type'] in _WAVELET_NAMES:
        layer_config, reason = judge.settle(module, layer_config, config.other)
    return (module if layer_config is None else _convert(name, module, layer_config)), reason
