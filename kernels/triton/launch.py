"""Launching of kernels: the layout of a map, the precision, and launch configurations."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from .tile import UNIT_CHANNEL, UNIT_COLUMN, UNIT_NONE

__all__ = [
    'MapLayout',
    'blocked',
    'configuration',
    'device_name',
    'forced',
    'launch',
    'layout_of',
    'precision',
    'read_configurations',
]

CONFIGS = Path(__file__).parent / 'configs'
KINDS = {
    torch.float32: 'float32',
    torch.bfloat16: 'half',
    torch.float16: 'half',
    torch.int8: 'int8',
}
"""Name of each dtype in configuration files."""

ORDERED = {
    'haar_norms': ('block', 'num_warps'),
    'depthwise_haar': ('block', 'num_warps'),
    'fake_quant_backward': ('block', 'num_warps'),
    'energy_quant_backward': ('values', 'block', 'num_warps'),
}
"""Values that determine in which order a kernel adds up: only the file of the platform sets them.

Otherwise norms would differ in their last bits from device to device, and selections with them.
"""

Configurations = dict[str, dict[str, dict[str, int]]]
"""Block sizes, ``num_warps`` and ``num_stages`` by kernel and kind of dtype."""

_forced: Configurations | None = None


class MapLayout(NamedTuple):
    """The memory layout of a map of shape (B, C, H, W), as kernels take it.

    Attributes:
        strides: Strides of batch, channel, row and column. All but the contiguous one are divided
            by ``align``.
        unit: The contiguous axis, see :data:`mmwcc.kernels.triton.tile.UNIT_NONE`.
        align: Power of two, at most 16, that divides the other strides. A kernel must know it to
            use vector loads.
    """

    strides: tuple[int, int, int, int]
    unit: int
    align: int


def layout_of(x: Tensor) -> MapLayout:
    """Describe the memory layout of a map of any strides."""
    strides = [stride if size > 1 else 0 for size, stride in zip(x.shape, x.stride(), strict=True)]
    units = {1: UNIT_CHANNEL, 3: UNIT_COLUMN}
    axis = next((axis for axis in units if strides[axis] == 1), None)
    others = [stride for n, stride in enumerate(strides) if n != axis]
    align = math.gcd(16, *others)
    b, c, h, w = (1 if n == axis else stride // align for n, stride in enumerate(strides))
    return MapLayout((b, c, h, w), UNIT_NONE if axis is None else units[axis], align)


@lru_cache
def precision(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Return how float32 enters the tensor cores of a device, for results in ``dtype``.

    The names are those of :func:`tile.transform`.
    """
    if dtype != torch.float32:
        return 'bfloat16'
    # Plain tf32 has a relative error of 2e-4, which would change the selection.
    nvidia = device.type == 'cuda' and torch.version.hip is None
    return 'tf32' if nvidia and torch.cuda.get_device_capability(device) >= (8, 0) else 'ieee'


def launch(kernel, grid: tuple[int, ...], x: Tensor, *arguments, **options) -> None:
    """Run ``kernel`` on the device of ``x``."""
    # Request contraction into fused multiply-adds by name: Triton 3.10 changes the default.
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel[grid](*arguments, enable_fp_fusion=True, **options)


def device_name(device: torch.device | int | None = None) -> str:
    """Return the name of a GPU as in names of configuration files, such as ``nvidia_h200``."""
    return ''.join(c if c.isalnum() else '_' for c in torch.cuda.get_device_name(device).lower())


def configuration(kernel: str, x: Tensor) -> dict[str, int]:
    """Return the launch configuration of a kernel for the dtype and device of ``x``.

    It has block sizes, ``num_warps`` and ``num_stages``.
    """
    table = _forced or _configurations(x.device.index if x.is_cuda else None)
    return dict(table[kernel][KINDS.get(x.dtype, 'float32')])


def blocked(config: dict[str, int], channels: int) -> tuple[int, dict[str, int]]:
    """Return the number of blocks of channels, and the launch options.

    No block is wider than the channels need.
    """
    block = max(16, min(config.pop('block'), triton.next_power_of_2(channels)))
    return triton.cdiv(channels, block), dict(BLOCK=block, **config)


@contextmanager
def forced(table: Configurations) -> Iterator[None]:
    """Launch only with the configurations of ``table``, as tuning and tests do."""
    global _forced
    before, _forced = _forced, table
    try:
        yield
    finally:
        _forced = before


@lru_cache
def _configurations(index: int | None) -> Configurations:
    """Merge the launch configurations of all files that apply.

    These are the default of the platform, the file of the device and the one that
    MMWCC_TRITON_CONFIGS names. Later files replace single values of earlier ones.
    """
    files = [CONFIGS / ('hip.json' if torch.version.hip else 'cuda.json')]
    if index is not None and (own := CONFIGS / f'{device_name(index)}.json').exists():
        files.append(own)
    if named := os.environ.get('MMWCC_TRITON_CONFIGS'):
        files.append(Path(named))
    merged = read_configurations(files[0])
    for file in files[1:]:
        for kernel, kinds in read_configurations(file).items():
            for kind, values in kinds.items():
                _refuse_another_order(file, kernel, values, merged[kernel][kind])
                merged[kernel][kind].update(values)
    return merged


def _refuse_another_order(path: Path, kernel: str, values: dict, shipped: dict) -> None:
    """Raise a ValueError if a file changes a value of :data:`ORDERED`."""
    for name in ORDERED.get(kernel, ()):
        if values.get(name, shipped[name]) != shipped[name]:
            raise ValueError(
                f'mmwcc.kernels: {name} of {kernel} must be {shipped[name]}, as shipped, got '
                f'{values[name]} in {path}. Leave it out: it changes the order of a sum, and with '
                'it which positions are kept.'
            )


def read_configurations(path: Path) -> Configurations:
    """Read the launch configurations in a file: values by kernel and kind of dtype.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON with the key ``kernels``.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'mmwcc.kernels: no launch configurations at {path}. Correct or unset '
            'MMWCC_TRITON_CONFIGS; `python tools/benchmarks/tune_triton.py` writes such a file.'
        )
    try:
        return json.loads(path.read_text(encoding='utf-8'))['kernels']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'mmwcc.kernels: {path} must be JSON with the key "kernels", got {error!r}. Write it '
            'anew with `python tools/benchmarks/tune_triton.py`.'
        ) from error
