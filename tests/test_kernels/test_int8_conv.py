"""Convolutions of bytes against float64, with oneDNN and with the reference."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from mmwcc import kernels

int8_conv = importlib.import_module('mmwcc.kernels.int8_conv')
GEOMETRIES = {  # channels, groups, kernel, stride, padding, dilation
    '1x1': (16, 1, (1, 1), (1, 1), (0, 0), (1, 1)),
    '1x1 strided': (16, 1, (1, 1), (2, 2), (0, 0), (1, 1)),
    '3x3': (16, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    'strided': (8, 1, (3, 3), (2, 1), (1, 0), (1, 1)),
    'dilated': (8, 1, (3, 3), (1, 1), (4, 4), (4, 4)),
    'depthwise': (16, 16, (5, 5), (1, 1), (2, 2), (1, 1)),
    'grouped': (16, 4, (3, 1), (1, 1), (1, 0), (1, 1)),
}
ACTIVATIONS = dict(relu=F.relu, relu6=F.relu6, hardswish=F.hardswish, silu=F.silu)


def random_conv(name, zero, step=0.02):
    channels, groups, kernel, *geometry = GEOMETRIES[name]
    weight = torch.randint(-128, 128, (16, channels // groups, *kernel), dtype=torch.int8)
    scale, bias = torch.rand(16) * 0.01 + 1e-3, torch.randn(16)
    levels = torch.randint(0, 256, (2, channels, 11, 9), dtype=torch.uint8)
    return levels, weight, scale, bias, step, zero, (*geometry, groups)


def exact(levels, weight, scale, bias, step, zero, geometry):
    stride, padding, dilation, groups = geometry
    x = (levels.double() - zero) * step
    kernel = weight.double() * scale.double().view(-1, 1, 1, 1)
    return F.conv2d(x, kernel, bias.double(), stride, padding, dilation, groups)


@pytest.fixture(params=['as here', 'reference'])
def path(request, monkeypatch):
    if request.param == 'reference':
        monkeypatch.setattr(int8_conv, 'is_exact', lambda: False)
    return request.param


@pytest.mark.parametrize('zero', [0, 128])
@pytest.mark.parametrize('name', GEOMETRIES)
def test_values_equal_float64(path, name, zero):
    arguments = random_conv(name, zero)
    levels, rest = arguments[0], arguments[1:]
    got = kernels.int8_conv2d(levels, kernels.pack_int8_conv(*rest))
    expected = exact(*arguments)
    assert got.dtype == torch.float32 and got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('grid', [(0.1, 128, 1, 255), (0.05, 0, 0, 255), (0.5, 0, 0, 15)])
@pytest.mark.parametrize('activation', ['', *ACTIVATIONS])
def test_bytes_are_the_rounded_values(path, activation, grid):
    step, zero, low, high = grid
    arguments = random_conv('3x3', 128)
    levels, rest = arguments[0], arguments[1:]
    got = kernels.int8_conv2d(levels, kernels.pack_int8_conv(*rest), activation, grid)
    expected = ACTIVATIONS.get(activation, lambda y: y)(exact(*arguments))
    expected = (expected / step + zero).clamp(low, high)
    assert got.dtype == torch.uint8 and low <= int(got.min()) and int(got.max()) <= high
    assert (got.double() - expected).abs().max() <= 0.5 + 1e-3


def test_long_sums_are_exact_where_float32_is_not(path):
    weight = torch.full((1, 600, 1, 1), 127, dtype=torch.int8)
    levels = torch.full((1, 600, 2, 2), 255, dtype=torch.uint8)
    levels[:, -1] = 254  # one level less in 600 is below the last digit of a float32 sum
    ones = torch.ones(1)
    conv = kernels.pack_int8_conv(weight, ones, 0 * ones, 1.0, 0, ((1, 1), (0, 0), (1, 1), 1))
    y = kernels.int8_conv2d(levels, conv)
    assert (y == float(torch.tensor(127 * (599 * 255 + 254), dtype=torch.float32))).all()


def test_the_reference_serves_where_it_is_forced(monkeypatch):
    dispatch = importlib.import_module('mmwcc.kernels.dispatch')
    monkeypatch.setenv('MMWCC_KERNELS', 'reference')
    dispatch.chosen_path.cache_clear()
    try:
        assert kernels.pack_int8_conv(*random_conv('1x1', 0)[1:]).packed is None
    finally:
        monkeypatch.undo()
        dispatch.chosen_path.cache_clear()


SCRIPT = """
import torch, torch.nn.functional as F
from mmwcc import kernels
for size, groups in ((1, 1), (3, 1), (3, 32)):
    ends = torch.tensor([-128, 127], dtype=torch.int8)
    weight = ends[torch.randint(2, (32, 32 // groups, size, size))]
    levels = 255 * torch.randint(2, (1, 32, 9, 7), dtype=torch.uint8)
    one, geometry = torch.ones(32), ((1, 1), (1, 1), (1, 1), groups)
    conv = kernels.pack_int8_conv(weight, one, 0 * one, 1.0, 0, geometry)
    y = F.conv2d(levels.double(), weight.double(), padding=1, groups=groups)
    assert torch.equal(kernels.int8_conv2d(levels, conv).double(), y)
"""


@pytest.mark.parametrize('setting', ['ONEDNN_MAX_CPU_ISA=AVX2', 'MMWCC_KERNELS=reference'])
def test_processors_without_exact_products_get_exact_sums(setting):
    environment = os.environ | dict([setting.split('=')])
    subprocess.run([sys.executable, '-c', SCRIPT], check=True, env=environment)
