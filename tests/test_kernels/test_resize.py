"""Bilinear resizing against torch: of bytes, which are rounded, and of planes."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from mmwcc import kernels

reference = importlib.import_module('mmwcc.kernels.resize')
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# To 48 columns, lines fill cache lines; to 13 they do not. Lines of the old map are read again.
SIZES = [(3, 5), (14, 9), (1, 1), (20, 48), (28, 13)]


@pytest.fixture
def cpu():
    pytest.importorskip('numba', reason='the kernels are numba; without it the references run')
    return importlib.import_module('mmwcc.kernels.cpu.resize')


def random_bytes(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', SIZES)
def test_resizing_rounds_what_torch_interpolates(size, align_corners):
    levels = random_bytes(2, 3, 7, 9)
    got = kernels.resize_map(levels, *size, align_corners)
    exact = F.interpolate(levels.double(), size, mode='bilinear', align_corners=align_corners)
    assert got.dtype == torch.uint8 and got.is_contiguous(memory_format=torch.channels_last)
    assert (got.double() - exact).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('size', SIZES)
def test_planes_are_as_exact_as_those_of_torch(size, layout, align_corners):
    x = torch.randn(2, 3, 7, 9).contiguous(memory_format=layout)
    got = kernels.resize_planes(x, *size, align_corners)
    exact = F.interpolate(x.double(), size, mode='bilinear', align_corners=align_corners)
    assert got.is_contiguous() and got.shape == exact.shape
    # Weights are computed in float32 from sizes, and a value from three sums of two products.
    assert (got.double() - exact).abs().max() <= 16 * 2**-24 * x.abs().max()


def test_planes_of_strided_maps_and_of_other_dtypes():
    x = torch.randn(2, 6, 8, 5)[:, ::2, 1:]
    assert torch.equal(kernels.resize_planes(x, 9, 9), kernels.resize_planes(x.contiguous(), 9, 9))
    half = kernels.resize_planes(x.half(), 9, 9)
    assert half.dtype == torch.float16 and half.is_contiguous()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_operators_pass_the_checks_of_torch(layout):
    levels, x = random_bytes(2, 5, 7, 3), torch.randn(2, 5, 7, 3)
    opcheck(torch.ops.mmwcc.resize_map.default, (levels.to(memory_format=layout), 5, 11, False))
    opcheck(torch.ops.mmwcc.resize_planes.default, (x.to(memory_format=layout), 5, 11, False))


@pytest.mark.parametrize('threads', [1, 2])
def test_kernels_equal_the_references(cpu, poison, threads):
    poison(cpu)
    levels, x = random_bytes(2, 5, 70, 60), torch.randn(2, 5, 70, 60)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    got, planes = cpu.resize_map(levels, 33, 101, False), cpu.resize_planes(x, 33, 96, False)
    torch.set_num_threads(before)
    difference = got.int() - reference._resize_map(levels, 33, 101, False).int()
    assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 0.01
    expected = reference._resize_planes(x, 33, 96, False)
    torch.testing.assert_close(planes, expected, rtol=0, atol=2e-6)


def test_empty_maps():
    assert kernels.resize_map(random_bytes(0, 3, 4, 4), 2, 3).shape == (0, 3, 2, 3)
    assert kernels.resize_planes(torch.zeros(0, 3, 4, 4), 2, 3).shape == (0, 3, 2, 3)
