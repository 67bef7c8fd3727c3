"""What must be right before kernels are timed on a GPU: each is compared with float64.

Nothing stops at a kernel that is wrong: all of them are named in the end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gpu_blocks import plain_depthwise
from gpu_timing import DEVICE
from measuring import FORMATS, relative_error
from torch import Tensor

from mmwcc import kernels

__all__ = ['FAILED', 'check', 'expect']

LEVELS = 3
MAPS = (
    ((2, 24, 17, 9), torch.float32, 'contiguous'),
    ((2, 24, 17, 9), torch.float32, 'channels_last'),
    ((3, 960, 16, 24), torch.float32, 'contiguous'),
    ((3, 960, 16, 24), torch.float32, 'channels_last'),
    ((1, 144, 8, 40), torch.bfloat16, 'contiguous'),
    ((1, 960, 16, 24), torch.float16, 'channels_last'),
    ((2, 960, 24, 8), torch.bfloat16, 'channels_last'),
)
SELECTIONS = ((3, 5000), (3, 30000), (3, 40000), (70, 40000))  # images, positions
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}

FAILED: list[str] = []
"""The claims that turned out wrong."""


def expect(claim: str, error: float, bound: float) -> None:
    """Note that a claim is wrong unless ``error`` is below ``bound``; NaN never is."""
    if not error < bound:
        FAILED.append(f'{claim}: the error is {error:.1e}, the bound {bound:.0e}')
        print('WRONG ' + FAILED[-1], flush=True)


def _same(claim: str, got: Tensor, expected: Tensor) -> None:
    """Note that a claim is wrong unless two tensors are the same bit for bit."""
    expect(claim, float(not torch.equal(got, expected)), 0.5)


def check() -> None:
    """Compare every kernel with its reference, which float64 input takes."""
    for shape, dtype, memory_format in MAPS:
        x = torch.randn(shape, device=DEVICE, dtype=dtype)
        x = x.contiguous(memory_format=FORMATS[memory_format])
        where = f'{str(dtype)[6:]} {memory_format} {shape}'
        for part in (_check_haar, _check_depthwise, _check_rounding, _check_again):
            part(x, BOUNDS[dtype], where)
    for images, positions in SELECTIONS:
        norms = torch.randint(0, 50, (images, positions), device=DEVICE).float()
        slot = kernels.select(norms, positions // 3)
        expected = kernels.select(norms.double(), positions // 3)
        _same(f'select keeps what the reference keeps of {images} x {positions}', slot, expected)
    rows = torch.randint(-128, 128, (2, 90, 144), dtype=torch.int8, device=DEVICE)
    weight, scale = rows[1].contiguous(), torch.rand(90, device=DEVICE)
    expected = (rows.double() @ weight.double().t()) * scale
    y = kernels.int8_linear(rows, weight, scale)
    expect('int8_linear', relative_error(y, expected), 1e-6)
    factors, offset = torch.rand(2, 90, device=DEVICE), 128 * weight.sum(1, dtype=torch.int32)
    expected = (expected + offset * scale.double()) * factors.double().unsqueeze(-1)
    for dtype, bound in BOUNDS.items():
        y = kernels.int8_linear(rows, weight, scale / 1e4, None, factors, offset, dtype)
        where = f'int8_linear with factors and offset {str(dtype)[6:]}'
        expect(where, relative_error(y, expected / 1e4), bound)


def _check_haar(x: Tensor, bound: float, where: str) -> None:
    """Check norms, selection, pack and unpack, each given the same input as its reference."""
    exact, size, channels_last = x.double(), x.shape[2:], x.stride(1) == 1
    norms = kernels.haar_norms(x, LEVELS)
    error = relative_error(norms, kernels.haar_norms(exact, LEVELS))
    expect(f'haar_norms, {where}', error, 1e-6)
    k = norms.shape[1] // 3
    slot = kernels.select(norms, k)
    rows = kernels.haar_pack(x, slot, k, LEVELS)
    expected = kernels.haar_pack(exact, slot, k, LEVELS)
    expect(f'haar_pack, {where}', relative_error(rows, expected), bound)
    shrunk, slots = kernels.haar_shrink(x, k, LEVELS)
    _same(f'haar_shrink selects as norms and select do, {where}', slots, slot)
    _same(f'haar_shrink packs as haar_pack does, {where}', shrunk, rows)
    step = torch.full((1,), 0.05, device=DEVICE)
    levels = kernels.haar_pack_int8(x, slot, k, LEVELS, step, -127, 127)
    _near(f'haar_pack_int8, {where}', levels, expected / 0.05)
    more = (slot, None, *size, LEVELS, channels_last)
    y = kernels.haar_unpack(rows, *more, x, -1.0, 1.0)
    expected = kernels.haar_unpack(rows.double(), *more, exact, -1.0, 1.0)
    expect(f'haar_unpack, {where}', relative_error(y, expected), bound)


def _near(claim: str, levels: Tensor, exact: Tensor) -> None:
    """Check that integers are within half a step of what they round."""
    distance = (levels.double() - exact.clamp(-127, 127)).abs().max().item()
    expect(f'{claim}: half a step', distance - 0.5, 1e-3)


def _check_depthwise(x: Tensor, bound: float, where: str) -> None:
    """Check the depthwise convolutions and the gather of what they store."""
    weight = torch.randn(x.shape[1], 1, 3, 3, device=DEVICE, dtype=x.dtype)
    for dilation in (1, 2):
        got = kernels.depthwise_haar(x, weight, None, LEVELS, dilation)
        expected = kernels.depthwise_haar(x.double(), weight, None, LEVELS, dilation)
        name = f'depthwise_haar, dilation {dilation}, {where}'
        expect(name, relative_error(got[0], expected[0]), bound)
        expect(f'norms of {name}', relative_error(got[1], expected[1]), max(1e-6, bound / 10))
    coefficients, k = got[0], got[1].shape[1] // 3
    slot = kernels.select(got[1], k)
    rows = kernels.gather_rows(coefficients, slot, k)
    _same(f'gather_rows, {where}', rows, coefficients[slot >= 0].view_as(rows))
    step = torch.full((1,), 0.05, device=DEVICE)
    levels = kernels.gather_rows_int8(coefficients, slot, k, step, -127, 127)
    _near(f'gather_rows_int8, {where}', levels, rows.double() / 0.05)
    expected = F.conv2d(x.double(), weight.double(), None, 1, 1, 1, x.shape[1])
    error = relative_error(plain_depthwise(x, weight), expected)
    expect(f'the depthwise convolution of the dense block, {where}', error, bound)


def _check_rounding(x: Tensor, bound: float, where: str) -> None:
    """Check fake quantization, its gradients, and quantization to integers."""
    clip, signed = torch.ones(1, device=DEVICE), torch.ones(1, dtype=torch.bool, device=DEVICE)
    more, exact = (clip, signed, 8, False, True, 1.0), x.double()
    got, expected = kernels.fake_quant(x, *more), kernels.fake_quant(exact, *more)
    expect(f'fake_quant, {where}', relative_error(got, expected), max(bound, 1e-3))
    gradient = torch.randn_like(x)
    of_x, of_clip = kernels.fake_quant_backward(gradient, x, *more)
    right = kernels.fake_quant_backward(gradient.double(), exact, *more)
    expect(f'fake_quant_backward, {where}', relative_error(of_x, right[0]), max(bound, 1e-3))
    expect(f'its gradient of the clip, {where}', relative_error(of_clip, right[1]), 1e-2)
    step = torch.full((1,), 0.05, device=DEVICE)
    levels = kernels.quantize_int8(x, step, -127, 127)
    _near(f'quantize_int8, {where}', levels, exact.permute(0, 2, 3, 1).flatten(1, 2) / 0.05)


def _check_again(x: Tensor, bound: float, where: str) -> None:
    """Check that a second run, and an image alone, give the same bits."""
    norms = kernels.haar_norms(x, LEVELS)
    k = norms.shape[1] // 3
    weight = torch.randn(x.shape[1], 1, 3, 3, device=DEVICE, dtype=x.dtype)

    def run(x: Tensor) -> list[Tensor]:
        rows, slot = kernels.haar_shrink(x, k, LEVELS)
        y = kernels.haar_unpack(rows, slot, None, *x.shape[2:], LEVELS, True)
        return [rows, slot, y, *kernels.depthwise_haar(x, weight, None, LEVELS)]

    first, second, alone = run(x), run(x), run(x[-1:])
    for n, name in enumerate(('rows', 'slots', 'map', 'coefficients', 'norms')):
        _same(f'two runs have the same {name}, {where}', second[n], first[n])
        _same(f'the last image alone has the same {name}, {where}', alone[n], first[n][-1:])
