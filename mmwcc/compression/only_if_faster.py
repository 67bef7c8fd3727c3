"""Which layers wavelet compression makes faster, according to a table measured on one machine."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from torch import nn

from mmwcc.kernels import position_count

from .map_sizes import map_sizes

__all__ = ['OnlyIfFaster', 'SpeedJudge', 'SpeedTable']

SHIPPED = Path(__file__).with_name('speed_cpu.json')


class SpeedTable:
    """Speed of ``WaveletCompressedConv2d`` divided by that of ``nn.Conv2d``.

    It was measured on a grid of layer sizes and is interpolated between them.

    Args:
        path: JSON file that ``tools/benchmarks/layer_map.py`` wrote. Defaults to the table that
            comes with mmwcc.

    Raises:
        ValueError: If the file cannot be read or holds no full grid of measurements.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        path = SHIPPED if path is None else Path(path)
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            self.environment, rows = content['environment'], content['rows']
            self.levels = self.environment['levels']
            measured = {
                (row['channels'], row['out'], row['size'] ** 2, float(name[1:])): math.log(value)
                for row in rows
                for name, value in row['speedup'].items()
            }
            self._axes = [sorted(set(axis)) for axis in zip(*measured, strict=True)]
            self._logs = {place: measured[place] for place in product(*self._axes)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                'only_if_faster: table must be a file that tools/benchmarks/layer_map.py wrote, '
                f'got {path} ({type(error).__name__}: {error}). Measure one, or use None for the '
                'shipped table.'
            ) from error

    @property
    def machine(self) -> str:
        """What was measured, and on which processor."""
        about = self.environment
        processor = ' '.join(filter(None, (about.get('cpu'), about.get('capability'))))
        return (
            f'{about.get("dtype", "float")} inference on {processor or "a processor unknown"}, '
            f'{about.get("threads", "?")} threads'
        )

    def covers(self, wavelet: str, levels: int) -> bool:
        """Tell whether layers with this transform were measured."""
        return wavelet == 'haar' and levels <= self.levels

    def speedup(
        self, channels: int, out: int, size: tuple[int, int], keep_ratio: float, levels: int = 3
    ) -> float:
        """Estimate the dense time of one layer divided by its compressed time.

        The result is above 1 if compression is faster. The logarithm of the ratio is interpolated
        linearly in the logarithms of channels, pixels and keep ratio. Outside the grid, the value
        at its border is used. Padding a feature map to multiples of ``2**levels`` counts against
        compression.

        Args:
            channels: Input channels.
            out: Output channels.
            size: Height and width of the feature map that the layer computes.
            keep_ratio: Fraction of wavelet positions kept.
            levels: Depth of the transform. Defaults to 3.
        """
        padded = position_count(*size, levels)
        total = 0.0
        brackets = [
            _bracket(axis, value)
            for axis, value in zip(self._axes, (channels, out, padded, keep_ratio), strict=True)
        ]
        for corner in product(*brackets):
            total += (
                math.prod(weight for _, weight in corner)
                * self._logs[tuple(value for value, _ in corner)]
            )
        return math.exp(total) * size[0] * size[1] / padded

    def speedup_of_calls(
        self,
        channels: int,
        out: int,
        sizes: Sequence[tuple[int, int]],
        keep_ratio: float,
        levels: int = 3,
    ) -> float:
        """Estimate the speedup of a layer that is called on several feature maps.

        It is the ratio of total times. Dense time is taken as proportional to the number of pixels.

        Args:
            channels: As in :meth:`speedup`, like out, keep_ratio and levels.
            sizes: Height and width of the feature map of each call.
        """
        pixels = [height * width for height, width in sizes]
        compressed = (
            count / self.speedup(channels, out, size, keep_ratio, levels)
            for count, size in zip(pixels, sizes, strict=True)
        )
        return sum(pixels) / sum(compressed)


def _bracket(axis: list[float], value: float) -> list[tuple[float, float]]:
    """Return the grid values around ``value`` with their weights."""
    value = min(max(value, axis[0]), axis[-1])
    above = min(bisect_right(axis, value), len(axis) - 1)
    low, high = axis[max(above - 1, 0)], axis[above]
    weight = math.log(value / low) / math.log(high / low) if high > low else 0.0
    return [(low, 1 - weight), (high, weight)] if high > low else [(low, 1.0)]


@dataclass(frozen=True)
class OnlyIfFaster:
    """A checked ``only_if_faster`` dictionary.

    Attributes:
        input_shape: Height and width of the images, or channels, height and width.
        table: The measured speeds.
    """

    input_shape: tuple[int, ...]
    table: SpeedTable

    @classmethod
    def parse(cls, config: dict) -> OnlyIfFaster:
        """Check the dictionary.

        Raises:
            TypeError: If it is not a dict, or table is not a path.
            ValueError: If a key is unknown, input_shape is missing or not two or three positive
                integers, or table holds no measurements.
        """
        use = 'Use only_if_faster=dict(input_shape=(512, 1024)).'
        if not isinstance(config, dict):
            raise TypeError(
                f'compression: only_if_faster must be a dict or None, got {config!r}. {use}'
            )
        unknown = sorted(set(config) - {'input_shape', 'table'})
        if unknown:
            raise ValueError(
                f'only_if_faster: unknown key {unknown[0]!r}. Known keys: input_shape, table.'
            )
        shape = config.get('input_shape')
        if (
            not isinstance(shape, (list, tuple))
            or len(shape) not in (2, 3)
            or not all(
                isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape
            )
        ):
            raise ValueError(
                f'only_if_faster: input_shape must be (height, width) or (channels, height, '
                f'width), got {shape!r}. {use}'
            )
        table = config.get('table')
        if table is not None and not isinstance(table, (str, Path)):
            raise TypeError(
                f'only_if_faster: table must be a path or None, got {table!r}. Measure one with '
                'tools/benchmarks/layer_map.py, or use None for the shipped table.'
            )
        return cls(tuple(shape), SpeedTable(table))


class SpeedJudge:
    """Decide for each layer of a model whether wavelet compression makes it faster.

    Args:
        model: The model, not compressed yet.
        wish: What the config asks for.
    """

    def __init__(self, model: nn.Module, wish: OnlyIfFaster) -> None:
        self._table, self._sizes = wish.table, map_sizes(model, wish.input_shape)

    def objection(self, conv: nn.Conv2d, layer_config: dict) -> str:
        """Return why this wavelet layer should not replace a convolution, or '' if it should."""
        wavelet, levels = layer_config.get('wavelet', 'haar'), layer_config.get('levels', 3)
        if not self._table.covers(wavelet, levels):
            return f'no speed measured for {wavelet} at {levels} levels'
        if conv not in self._sizes:
            return 'not reached by the traced input, so no speed known'
        ratio = self._table.speedup_of_calls(
            conv.in_channels,
            conv.out_channels,
            self._sizes[conv],
            layer_config['keep_ratio'],
            levels,
        )
        sizes = ', '.join(f'{height}x{width}' for height, width in dict.fromkeys(self._sizes[conv]))
        return '' if ratio >= 1 else f'WCC would run x{ratio:.2f} as fast at {sizes}'
