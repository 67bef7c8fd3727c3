"""What a conversion did, layer by layer."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from mmwcc.layers import CompressedLayer

from .layer_state import FULL_PRECISION, LayerState
from .names import geometry
from .unhandled import UnhandledLayers, listed

__all__ = [
    'CompressionReport',
    'LayerReport',
    'aligned',
    'announce',
    'describe_layer',
    'setting_cells',
    'weight_count',
]


def announce(text: str, level: int = logging.INFO) -> None:
    """Print ``text``, or write it to the log at this level if OpenMMLab is in use."""
    # Within OpenMMLab the table belongs in the log. Elsewhere no log is configured.
    if 'mmengine.logging' in sys.modules:
        sys.modules['mmengine.logging'].print_log(text, logger='current', level=level)
    else:
        print(text)


def aligned(cells: Sequence[Sequence[str]], numeric: Collection[int] = ()) -> list[str]:
    """Return the lines of a table: the header, a horizontal rule and the rows.

    Args:
        cells: Rows of cells, the header first.
        numeric: Columns to align on the right. Defaults to none.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        '  '.join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, '-' * max(map(len, lines)))
    return lines


def setting_cells(
    weight_bits: int, act_bits: float, keep_ratio: float | None
) -> tuple[str, str, str]:
    """Return bits and keep ratio as table cells, with '-' for full precision and for no transform.

    Example:
        >>> setting_cells(8, 32, 0.125)
        ('8', '-', '0.125')
    """
    both = (weight_bits, act_bits)
    weight, act = ('-' if bits == FULL_PRECISION else f'{bits:g}' for bits in both)
    return weight, act, '-' if keep_ratio is None else f'{keep_ratio:g}'


def weight_count(conv: Any) -> int:
    """Count the weights of a layer, without evaluating a weight that is computed."""
    own = conv._parameters.get('weight', conv._buffers.get('weight'))
    if own is not None and not is_lazy(own):
        return own.numel()
    if isinstance(conv, nn.Linear):
        return conv.in_features * conv.out_features
    return conv.out_channels * conv.in_channels // conv.groups * prod(conv.kernel_size)


@dataclass(frozen=True)
class LayerReport:
    """One convolution or linear layer before and after the conversion.

    Attributes:
        name: Qualified name in the model.
        before: What it was, for example 'Conv2d 3x3/2 g32'.
        after: Class that it has become, or 'dense'.
        weight_bits: Bits of its weights, 32 if not quantized.
        act_bits: Bits of its input, 32 if not quantized.
        keep_ratio: Fraction of wavelet coefficients kept, or None if it is not wavelet compressed.
        widths: Bits that a position can have, as in :class:`LayerState`.
        weights: Number of weights.
        reason: Why it stays dense, or empty.
    """

    name: str
    before: str
    after: str
    weight_bits: int = FULL_PRECISION
    act_bits: float = FULL_PRECISION
    keep_ratio: float | None = None
    widths: tuple[int, ...] | None = None
    weights: int = 0
    reason: str = ''


def describe_layer(
    name: str, module: nn.Module, before: str | None = None, reason: str = ''
) -> LayerReport:
    """Report on one layer as it is now.

    Args:
        name: Qualified name.
        module: The layer.
        before: What it was. Defaults to None, which describes its geometry.
        reason: Why it stays dense. Defaults to ''.
    """
    state = LayerState.of(module)
    after = state.kind if isinstance(module, CompressedLayer) else 'dense'
    return LayerReport(
        name,
        before or geometry(module),
        after,
        **state.quantities,
        weights=weight_count(module),
        reason=reason,
    )


class CompressionReport(list):
    """One :class:`LayerReport` for each convolution of a model; prints as a table.

    Linear layers are included if the compression may replace them.

    Args:
        layers: The entries. Defaults to none.
        unhandled: Learned layers that no entry describes and that stay. Defaults to none.
        warning: A sentence that the user should know about the whole. Defaults to none.
        notes: What else was done to the model, as text. Defaults to none.
        gain: What the conversion gains, which prints as lines of text. Defaults to None: not known.
    """

    def __init__(
        self,
        layers: Iterable[LayerReport] = (),
        unhandled: Sequence[UnhandledLayers] = (),
        warning: str = '',
        notes: Sequence[str] = (),
        gain: Any = None,
    ) -> None:
        super().__init__(layers)
        self.unhandled, self.warning = list(unhandled), warning
        self.notes, self.gain = list(notes), gain

    def updated(self, changes: Mapping[str, dict]) -> CompressionReport:
        """Return a copy in which some layers have other values.

        Args:
            changes: For each layer name, new values by attribute.
        """
        layers = (replace(layer, **changes.get(layer.name, {})) for layer in self)
        return CompressionReport(layers, self.unhandled, self.warning, self.notes, self.gain)

    def summary(self) -> str:
        """Count layers in one line by what they have become."""
        counts = Counter(layer.after for layer in self)
        kinds = ', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))
        linear = sum('Linear' in layer.before for layer in self)
        others = f' and {linear} linear layers' if linear else ''
        return f'{len(self) - linear} convolutions{others}: {kinds}' if self else 'no convolutions'

    def to_dicts(self) -> list[dict]:
        """Return plain data, one dict per layer."""
        return [asdict(layer) for layer in self]

    def __str__(self) -> str:
        header = ('layer', 'from', 'to', 'w bits', 'a bits', 'keep', 'weights', 'note')
        cells = [header]
        for layer in self:
            setting = setting_cells(layer.weight_bits, layer.act_bits, layer.keep_ratio)
            cells.append(
                (
                    layer.name,
                    layer.before,
                    layer.after,
                    *setting,
                    f'{layer.weights:,}',
                    layer.reason,
                )
            )
        remarks = [f'Not handled: {listed(self.unhandled)}'] if self.unhandled else []
        remarks += [self.warning] if self.warning else []
        gain = [] if self.gain is None else [str(self.gain)]
        table = aligned(cells, numeric=range(3, 7))
        return '\n'.join([*self.notes, *table, *remarks, self.summary(), *gain])
