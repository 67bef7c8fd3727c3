"""The report of an export."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .parity import Parity
from .structure import Expected

__all__ = ['ExportReport']


@dataclass(frozen=True)
class ExportReport:
    """The report of an export: the file, and how it compares with the model.

    Attributes:
        path: The file.
        exporter: 'dynamo' or 'torchscript'.
        opset: Version of ONNX's operators.
        note: Why another exporter was not used, or empty.
        dynamic: Whether height and width are open.
        bytes: Size of the file.
        expected: What the graph holds at the first size.
        parities: One entry per size.
        kept: Fraction of positions that thresholds keep, by layer; empty without thresholds.
        runtime: The runtime that has verified the file.
        integer_convolutions: How many convolutions it computes in integers, and how many there are.
        left_out: Which part of the model is not in the file, or empty.
    """

    path: Path
    exporter: str
    opset: int
    note: str
    dynamic: bool
    bytes: int
    expected: Expected
    parities: list[Parity]
    kept: Mapping[str, float] = field(default_factory=dict)
    runtime: str = 'ONNX Runtime'
    integer_convolutions: tuple[int, int] = (0, 0)
    left_out: str = ''

    def __str__(self) -> str:
        holds = self.expected
        lines = [
            f'{self.path}: {self.bytes:,} bytes, {self.exporter} exporter, opset {self.opset}, '
            f'{"dynamic" if self.dynamic else "static"} height and width'
        ]
        lines += [f'not used: {self.note.strip()}'] if self.note else []
        lines += [f'not in the file: {self.left_out}'] if self.left_out else []
        lines.append(
            f'{holds.layers} calls of compressed layers: {len(holds.kept)} TopK, '
            f'{len(holds.thresholds)} thresholds, {holds.quantized} QuantizeLinear, '
            f'{holds.rounded} Clip and Round, {holds.integer_weights} int8 weights'
        )
        lines.append(
            '{} computes {} of {} convolutions in integers'.format(
                self.runtime, *self.integer_convolutions
            )
        )
        if self.kept:
            values = list(self.kept.values())
            lines.append(
                f'thresholds keep {100 * statistics.mean(values):.1f} % of the positions of '
                f'calibration images ({100 * min(values):.1f} to {100 * max(values):.1f} % a layer)'
            )
        for parity in self.parities:
            line = (
                f'{parity.size[0]}x{parity.size[1]}: largest difference {parity.largest:.3g}, mean '
                f'{parity.mean:.2g} of the mean magnitude (torch with the image moved by 1e-5: '
                f'{parity.sensitivity:.2g}); torch {parity.torch_ms:.1f} ms, '
                f'{self.runtime} {parity.onnx_ms:.1f} ms'
            )
            lines.append(
                line
                if parity.from_model is None
                else f'{line}; from the model with the k largest {parity.from_model:.3g}'
            )
        return '\n'.join(lines)
