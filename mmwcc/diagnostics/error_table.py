"""A CSV file of the errors of compressed feature maps."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean

from .compression_error import CompressionErrors, Setting

__all__ = ['write_errors']

_COLUMNS = (
    'layer',
    'height',
    'width',
    'method',
    'bits',
    'keep_ratio',
    'effective_bits',
    'mse',
    'relative_mse',
)


def write_errors(errors: CompressionErrors, path: str | Path) -> None:
    """Write a CSV file with one line per layer and setting, and the means over layers as ``mean``.

    Args:
        errors: What :func:`measure_errors` returns.
        path: File to write.
    """
    with Path(path).open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(_COLUMNS)
        for name, sums in errors.layers.items():
            for setting in errors.settings:
                _write(
                    writer,
                    (name, *errors.sizes[name]),
                    setting,
                    sums[setting].mse,
                    sums[setting].relative,
                )
        for setting in errors.settings:
            _write(
                writer,
                ('mean', '', ''),
                setting,
                mean(errors.mse(setting)),
                mean(errors.relative(setting)),
            )


def _write(writer, layer: tuple, setting: Setting, mse: float, relative: float) -> None:
    writer.writerow(
        (
            *layer,
            setting.method,
            setting.bits,
            f'{setting.keep_ratio:g}',
            f'{setting.effective_bits:g}',
            f'{mse:.6g}',
            f'{relative:.6g}',
        )
    )
