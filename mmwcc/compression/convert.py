"""Conversion of a model in place: convolutions become compressed ones, under the same names and weights."""
from __future__ import annotations

from torch import nn

from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d, is_eligible
from mmwcc.registry import MODELS

from .config import WAVELET_TYPE, CompressionConfig
from .integer import INTEGER_LAYERS, integer_skeleton
from .layer_names import convolutions, dense_names, geometry, is_plain, matches, no_match
from .lean import lean_activations
from .report import CompressionReport, LayerReport, announce
from .separate import separate_convs
from .speed import SpeedJudge

__all__ = ['compress_model', 'compressed_layers', 'describe_layer', 'unwrapped']

_COMPRESSED = (QuantConv2d, WaveletCompressedConv2d)
_LISTED = (*_COMPRESSED, *INTEGER_LAYERS)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return what is inside of DDP and mmengine's wrappers."""
    while isinstance(getattr(model, 'module', None), nn.Module) and len(list(model.children())) == 1:
        model = model.module
    return model


def compressed_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the compressed layers of a model by qualified name, looking through DDP and mmengine's wrappers."""
    return {name: module for name, module in unwrapped(model).named_modules() if isinstance(module, _LISTED)}


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
    return LayerReport(name, before or geometry(module), after, bits['weight_quant'], bits['act_quant'],
                       getattr(module, 'keep_ratio', None), module.weight.numel(), reason)


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
        raise type(error)(f'compress_model: {name} ({geometry(conv)}) cannot become {kind}: {error}') from error


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
    modules = convolutions('compress_model', model)
    if config.separate is not None:
        # Entries that match nothing yet may name the new layers; those that match nothing then are refused below.
        keep_dense = [entry for entry in config.keep_dense
                      if entry in ('first', 'last') or any(matches(entry, name) for name in modules)]
        separate_convs(model, **config.separate, keep_dense=keep_dense, verbose=verbose)
        modules = convolutions('compress_model', model)
    names = list(modules)
    for rule in config.rules:
        if not any(rule.matches(name) for name in names):
            raise ValueError(no_match('compress_model', 'rule', rule.pattern, names))
    dense = dense_names('compress_model', model, config.keep_dense, names)
    judge = None if config.only_if_faster is None else SpeedJudge(model, config.only_if_faster)
    report, replaced = CompressionReport(), {}
    for name, module in modules.items():
        before, reason = geometry(module), ''
        if id(module) not in replaced:
            replaced[id(module)], reason = _replacement(name, module, config, dense, judge)
        layer = replaced[id(module)]
        if layer is not module:
            parent, _, attribute = name.rpartition('.')
            setattr(model.get_submodule(parent), attribute, layer)
        report.append(describe_layer(name, layer, before, reason))
    if config.integer:
        report = integer_skeleton(model, report)
    lean = [] if config.lean_activations is None else lean_activations(model, **config.lean_activations)
    if verbose:
        announce(f'Compressed {type(model).__name__}:\n{report}')
        if lean:
            announce(f'Activations that keep masks for backward: {len(lean)}')
    return report


def _replacement(name: str, module: nn.Conv2d, config: CompressionConfig, dense: dict[str, str],
                 judge: SpeedJudge | None) -> tuple[nn.Module, str]:
    """Return the layer to put in place of ``module`` (itself where it stays) and why it stays."""
    if isinstance(module, _COMPRESSED):
        return module, 'compressed already'
    if name in dense:
        return module, f'keep_dense {dense[name]!r}'
    eligible = is_eligible(module.kernel_size, module.padding, module.groups)
    if not is_plain(module):
        return module, f'{type(module).__name__} has a forward of its own'
    layer_config, reason = config.layer_config(name, eligible), ''
    if judge is not None and layer_config is not None and eligible and layer_config['type'] == WAVELET_TYPE:
        layer_config, reason = judge.settle(module, layer_config, config.other)
    return (module if layer_config is None else _convert(name, module, layer_config)), reason
