"""What the cases of the Triton kernels share, which test_triton.py runs in a process of their own.

They compare the kernels with the torch references in float64, in Triton's interpreter on the CPU,
or on a GPU where there is one: by hand

    MMWCC_KERNELS=triton TRITON_INTERPRET=1 pytest tests/test_kernels/triton_cases/*_cases.py
    MMWCC_KERNELS=triton pytest tests/test_kernels/triton_cases/*_cases.py

The operators are called as users do, so that the dispatch and the gradients are tested too. Bounds
are on ||error|| / ||reference||. The interpreter rounds to bfloat16 by truncation: twice the bound
there.
"""

import importlib
import os

import torch

from mmwcc import kernels

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cpu' if INTERPRETED else 'cuda'
REFERENCE = {
    name: importlib.import_module(f'mmwcc.kernels.{name}')
    for name in ('haar', 'select', 'depthwise', 'gather', 'fake_quant', 'int8')
}
LAUNCH = importlib.import_module('mmwcc.kernels.triton.launch')
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 8e-3 if INTERPRETED else 4e-3, torch.float16: 5e-4}
LAYOUTS = {
    'contiguous': lambda x: x.contiguous(),
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last),
    'transposed': lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    'strided': lambda x: x.contiguous(memory_format=torch.channels_last).repeat_interleave(2, 2)[
        :, :, ::2
    ],
    'channels cut out': lambda x: torch.cat([x, x + 1], 1)[:, : x.shape[1]],
    'expanded batch': lambda x: x[:1].expand_as(x),
}


def randn(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(DEVICE, dtype)


def error(got, expected):
    got, expected = got.double(), expected.double()
    return ((got - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def random_slot(batch, height, width, levels, k):
    positions = kernels.position_count(height, width, levels)
    return REFERENCE['select']._select(
        torch.rand(batch, positions).to(DEVICE), min(k, positions)
    ), min(k, positions)


def check_levels(rows, exact, step, low, high):
    """Assert that integers equal the rounded reference, except half-way between two levels."""
    levels = (exact.double() / step).clamp(low, high)
    near = (levels - levels.floor() - 0.5).abs() < 1e-4
    shift = 128 if high > 127 else 0
    assert rows.dtype == torch.int8
    assert torch.equal(rows[~near].double() + shift, levels.round()[~near])
    assert ((rows.double() + shift - levels).abs() <= 0.5 + 1e-4).all()
