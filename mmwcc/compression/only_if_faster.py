"""Which layers wavelet compression makes faster, according to a table measured on one machine."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from mmwcc.functional import packed_ratio
from mmwcc.kernels import position_count
from mmwcc.layers import fitting_levels

from .map_sizes import map_sizes
from .token_inputs import TokenInput

__all__ = ['MapCall', 'OnlyIfFaster', 'SpeedJudge', 'SpeedTable']

SHIPPED = Path(__file__).with_name('speed_cpu.json')


class MapCall(NamedTuple):
    """Feature maps that a layer computes together.

    Attributes:
        size: Height and width.
        levels: Depth of their transform, or 0 if they have none.
        images: How many there are.
    """

    size: tuple[int, int]
    levels: int
    images: int = 1


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
        self,
        channels: int,
        out: int,
        size: tuple[int, int],
        keep_ratio: float,
        levels: int = 3,
        images: int = 1,
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
            images: How many such maps are computed together, as in windows. Defaults to 1.
        """
        padded = images * position_count(*size, levels)
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
        return math.exp(total) * images * size[0] * size[1] / padded

    def speedup_of_calls(
        self, channels: int, out: int, calls: Sequence[MapCall], keep_ratio: float
    ) -> float:
        """Estimate the speedup of a layer that is called on several feature maps.

        It is the ratio of total times. Dense time is taken as proportional to the number of pixels.

        Args:
            channels: As in :meth:`speedup`, like out and keep_ratio.
            calls: The feature maps.
        """
        pixels = [math.prod(call.size) * call.images for call in calls]
        compressed = (
            count / self.speedup(channels, out, call.size, keep_ratio, call.levels, call.images)
            if call.levels
            else count
            for count, call in zip(pixels, calls, strict=True)
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


def _map_calls(sizes: Sequence[Any], levels: int) -> Iterator[MapCall]:
    """Yield the maps of a layer: those of a convolution, or those that tokens form."""
    for call in sizes:
        if not isinstance(call, TokenInput):
            yield MapCall(call, levels)
        elif call.maps:
            for size in call.maps:
                yield MapCall(size, fitting_levels(size, levels), call.images)
        else:
            yield MapCall((1, math.prod(call.shape[:-1])), 0)


def _packed_ratio(layer_config: dict) -> float:
    """Return the share of positions that a wavelet layer computes with."""
    quantizer = layer_config.get('act_quant') or {}
    widths, bits = quantizer.get('widths'), quantizer.get('bits', 32)
    return packed_ratio(layer_config['keep_ratio'], bits, widths)


class SpeedJudge:
    """Decide for each layer of a model whether wavelet compression makes it faster.

    Args:
        model: The model, not compressed yet.
        wish: What the config asks for.
    """

    def __init__(self, model: nn.Module, wish: OnlyIfFaster) -> None:
        self._table, self._sizes = wish.table, map_sizes(model, wish.input_shape)

    def objection(self, conv: Any, layer_config: dict) -> str:
        """Return why this wavelet layer should not replace a dense one, or '' if it should."""
        wavelet, levels = layer_config.get('wavelet', 'haar'), layer_config.get('levels', 3)
        if not self._table.covers(wavelet, levels):
            return f'no speed measured for {wavelet} at {levels} levels'
        if conv not in self._sizes:
            return 'not reached by the traced input, so no speed known'
        calls = list(_map_calls(self._sizes[conv], levels))
        channels = conv.weight.shape[1], conv.weight.shape[0]
        ratio = self._table.speedup_of_calls(*channels, calls, _packed_ratio(layer_config))
        sizes = ', '.join('x'.join(map(str, size)) for size in dict.fromkeys(c.size for c in calls))
        return '' if ratio >= 1 else f'WCC would run x{ratio:.2f} as fast at {sizes}'
