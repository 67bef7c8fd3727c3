"""In-place split of k x k convolutions into depthwise and 1x1 ones, which can be compressed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from mmwcc.layers import SeparableConv2d, check_init
from mmwcc.model_tree import (
    aligned,
    announce,
    convolutions,
    dense_names,
    geometry,
    is_plain,
    names_by_layer,
    no_match,
    obstacle,
    replace_layers,
    run_on_zeros,
    weight_count,
)

from .rule import Rule

__all__ = ['SeparatedLayer', 'SeparationReport', 'separate_convs']

_RULE_KEYS = ('pattern', 'dense', 'init')


@dataclass(frozen=True)
class SeparatedLayer:
    """One convolution before and after the split.

    Attributes:
        name: Qualified name in the model.
        before: What it was, for example 'Conv2d 3x3/2'.
        macs_before: Multiply-accumulate operations of the convolution. They are for one image if
            the size of the images was given, otherwise for one position of its output.
        macs_after: The same for the layer that is there now.
        error: Norm of the difference between the dense kernel and the product of the new ones,
            relative to the norm of the dense kernel. None if the convolution stays, or if the new
            kernels start from random values.
        reason: Why it stays dense, or empty.
    """

    name: str
    before: str
    macs_before: int
    macs_after: int
    error: float | None = None
    reason: str = ''


class SeparationReport(list):
    """One :class:`SeparatedLayer` for each convolution of a model; prints as a table.

    A shared convolution appears once.

    Attributes:
        whole: Whether operations are counted for a whole image.
    """

    whole = False

    def summary(self) -> str:
        """Count layers in one line, and operations too if they are counted for a whole image."""
        text = f'{sum(not layer.reason for layer in self)} of {len(self)} convolutions separated'
        if not self.whole:
            return text
        before, after = (
            sum(getattr(layer, key) for layer in self) for key in ('macs_before', 'macs_after')
        )
        return f'{text}: {before:,} to {after:,} MACs, {before / after:.2f} times less'

    def to_dicts(self) -> list[dict]:
        """Return plain data, one dict per layer."""
        return [asdict(layer) for layer in self]

    def __str__(self) -> str:
        unit = 'MACs' if self.whole else 'MACs/position'
        cells = [('layer', 'from', f'{unit} before', 'after', 'error', 'note')]
        for layer in self:
            error = '-' if layer.error is None else f'{layer.error:.3f}'
            cells.append(
                (
                    layer.name,
                    layer.before,
                    f'{layer.macs_before:,}',
                    f'{layer.macs_after:,}',
                    error,
                    layer.reason,
                )
            )
        return '\n'.join([*aligned(cells, range(2, 5)), self.summary()])


def separate_convs(
    model: nn.Module,
    rules: Sequence[dict] = (),
    *,
    keep_dense: Iterable[str] = ('first', 'last'),
    init: str = 'svd',
    input_shape: Sequence[int] | None = None,
    verbose: bool = True,
) -> SeparationReport:
    """Split the k x k convolutions of ``model`` into depthwise k x k and 1x1 ones, in place.

    Every plain convolution with one group and a kernel larger than 1x1 becomes a
    :class:`mmwcc.layers.SeparableConv2d` with the same geometry and bias. What was one layer
    ``conv`` is then two, ``conv.depthwise_conv`` and ``conv.pointwise_conv``, and checkpoints of
    the separated model use these names. Checkpoints of the dense model also load: each kernel is
    replaced by the nearest separable one. Convolutions that are shared stay shared.

    Args:
        model: Any module.
        rules: Exceptions, each a dict with a ``pattern`` (a regular expression for whole names) and
            ``dense`` or ``init``. Later rules win. Defaults to none.
        keep_dense: Names or regular expressions of layers to leave alone. 'first' stands for the
            first convolution, 'last' for the prediction layers. Defaults to ('first', 'last').
        init: 'svd' to start from the nearest separable kernel, 'random' for torch's initialization.
            Defaults to 'svd'.
        input_shape: (height, width) or (channels, height, width) of one image, on which the model
            runs to count operations. Defaults to None, which counts operations for one position of
            each layer.
        verbose: Whether to print the report. Defaults to True.

    Returns:
        The report: one line per convolution, and a summary.

    Raises:
        TypeError: If a rule is not a dict.
        ValueError: If a key of a rule is unknown, a rule or a keep_dense entry matches nothing,
            init is unknown, the model has no convolution, or it cannot run on input_shape.

    Note:
        Build the optimizer afterwards. A convolution cannot be split if the network itself reads
        its ``weight``.

    Example:
        >>> middle = nn.Conv2d(8, 8, 3, padding=1)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), middle, nn.Conv2d(8, 3, 3))
        >>> separate_convs(model, input_shape=(16, 16), verbose=False).summary()
        '1 of 3 convolutions separated: 186,336 to 100,096 MACs, 1.86 times less'

    Reference:
        Finder et al., Wavelet Feature Maps Compression for Image-to-Image CNNs, NeurIPS 2022,
        appendix A.
    """
    modules = convolutions('separate_convs', model)
    parsed = [Rule.parse(rule, _RULE_KEYS) for rule in rules]
    dense = dense_names('separate_convs', model, keep_dense, list(modules))
    for rule in parsed:
        if not any(rule.matches(name) for name in modules):
            free = [name for name in modules if name not in dense]
            raise ValueError(no_match('separate_convs', 'rule', rule.pattern, free))
    for start in (init, *(rule.changes['init'] for rule in parsed if 'init' in rule.changes)):
        check_init('separate_convs', start)
    positions = None if input_shape is None else _positions(model, tuple(input_shape))
    report, owners = SeparationReport(), _owners(model)
    layers: dict[nn.Conv2d, nn.Module] = {}
    report.whole = positions is not None
    for conv, names in names_by_layer(modules).items():
        reason, start = _decision(names, conv, parsed, dense, init)
        reason = reason or obstacle(conv) or _tie(conv, owners)
        split = None if reason else SeparableConv2d.from_conv2d(conv, start)
        layers[conv] = split or conv
        error = _error(conv, split) if split and start == 'svd' else None
        times = 1 if positions is None else positions.get(conv, 0)
        before, after = (
            times * sum(map(weight_count, _convs(stage))) for stage in (conv, layers[conv])
        )
        report.append(SeparatedLayer(names[0], geometry(conv), before, after, error, reason))
    replace_layers(model, layers)
    if verbose:
        announce(f'Separated {type(model).__name__}:\n{report}')
    return report


def _decision(
    names: list[str], conv: nn.Conv2d, rules: list[Rule], dense: dict[str, str], init: str
) -> tuple[str, str]:
    """Return why the convolution with these names stays, or '', and how to initialize the split."""
    settings: dict[str, Any] = dict(dense=False, init=init)
    for rule in rules:
        if any(map(rule.matches, names)):
            settings.update(rule.changes)
    kept = [dense[name] for name in names if name in dense]
    if kept:
        reason = f'keep_dense {kept[0]!r}'
    elif settings['dense']:
        reason = 'rule'
    elif conv.kernel_size == (1, 1):
        reason = '1x1'
    elif conv.groups != 1:
        reason = f'{conv.groups} groups'
    else:
        reason = '' if is_plain(conv) else f'{type(conv).__name__} has a forward of its own'
    return reason, settings['init']


def _owners(model: nn.Module) -> Counter:
    """Count the modules that hold each parameter of a model."""
    return Counter(
        parameter for module in model.modules() for parameter in module._parameters.values()
    )


def _tie(conv: nn.Conv2d, owners: Counter) -> str:
    """Return what ties the kernel of a convolution to something else, or ''.

    Two new kernels could not take its place there.
    """
    if owners[conv.weight] > 1:
        return 'its weight is shared with another layer'
    hooks = conv.weight._backward_hooks or getattr(conv.weight, '_post_accumulate_grad_hooks', None)
    return 'a hook waits for the gradient of its weight' if hooks else ''


def _convs(layer: nn.Module) -> list[nn.Conv2d]:
    return [module for module in layer.modules() if isinstance(module, nn.Conv2d)]


def _error(conv: nn.Conv2d, layer: SeparableConv2d) -> float:
    dense = conv.weight.detach()
    nearest = layer.pointwise_conv.weight.detach() * layer.depthwise_conv.weight.detach().transpose(
        0, 1
    )
    return float((dense - nearest).norm() / dense.norm().clamp_min(torch.finfo(dense.dtype).tiny))


def _positions(model: nn.Module, input_shape: tuple[int, ...]) -> dict[nn.Module, int]:
    """Run the model once and count the output positions of its convolutions."""
    positions: dict[nn.Module, int] = {}

    def count(module, inputs, output) -> None:
        positions[module] = positions.get(module, 0) + output.shape[-2] * output.shape[-1]

    def watch() -> None:
        for conv in _convs(model):
            conv.register_forward_hook(count)

    run_on_zeros(
        'separate_convs',
        model,
        input_shape,
        watch,
        purpose='count operations',
        remedy='Give the shape of its input, or leave input_shape out.',
    )
    return positions
