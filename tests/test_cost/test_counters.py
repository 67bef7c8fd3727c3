"""mmengine's own complexity analysis of compressed models, which must agree with count_cost."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from mmengine.analysis import complexity_analysis, get_model_complexity_info  # noqa: E402

from mmwcc import compat  # noqa: E402
from mmwcc.compression import compress_model
from mmwcc.cost import count_cost
from mmwcc.cost.counters import HANDLERS  # noqa: E402
from mmwcc.inference import fuse_inverted_residuals, to_integer

COMPRESSION = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.3, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    keep_dense=[],
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
UNQUANTIZED = dict(COMPRESSION, weight_quant=None, act_quant=None)
SHAPE = (8, 21, 30)


def block():
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.Conv2d(16, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
    )


def analyzed(model):
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    return get_model_complexity_info(model, SHAPE, show_table=False, show_arch=False)


def expected(model):
    """Return mmengine's figure from the report: products, elementwise operations, additions of the
    transforms.
    """
    report = count_cost(model, SHAPE)
    return (
        report.total.macs
        + sum(report.elementwise.values())
        + sum(layer.transform_bops // layer.act_bits for layer in report.layers)
    )


@pytest.mark.parametrize('form', ['dense', 'compressed', 'unquantized', 'fused', 'integer'])
def test_flops_of_mmengine(form):
    model = block()
    if form != 'dense':
        compress_model(model, UNQUANTIZED if form == 'unquantized' else COMPRESSION, verbose=False)
    model(torch.rand(1, *SHAPE))
    model.eval()
    if form == 'fused':
        fuse_inverted_residuals(model, verbose=False)
    elif form == 'integer':
        to_integer(model, verbose=False)
    assert analyzed(model)['flops'] == expected(model)
    dense = 21 * 30 * (8 * 16 + 16 * 9 + 16 * 8)
    kept = 231  # ceil(0.3 * 24 * 32)
    macs = count_cost(model, SHAPE).total.macs
    assert macs == (dense if form == 'dense' else kept * 2 * 8 * 16 + 21 * 30 * 16 * 9)


def test_activations_of_mmengine_are_outputs_of_products():
    model = compress_model_quietly(block())
    assert analyzed(model)['activations'] == 231 * 16 + 21 * 30 * 16 + 231 * 8


def compress_model_quietly(model):
    compress_model(model, COMPRESSION, verbose=False)
    model(torch.rand(1, *SHAPE))
    return model.eval()


def test_params_of_mmengine():
    model = compress_model_quietly(block())
    assert analyzed(model)['params'] == count_cost(model, SHAPE).total.params


def test_tables_hold_what_has_a_handler():
    assert set(HANDLERS) <= set(complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS)
    assert set(compat._PRODUCTS) <= set(complexity_analysis._DEFAULT_SUPPORTED_ACT_OPS)


PROGRAM = """
import sys, torch
import mmwcc
assert 'mmengine.analysis' not in sys.modules
from mmengine.analysis import get_model_complexity_info
assert 'mmwcc.compression' not in sys.modules
from mmwcc.layers import WaveletCompressedConv2d
layer = WaveletCompressedConv2d(4, 6, keep_ratio=0.5, levels=1).eval()
print(get_model_complexity_info(layer, (4, 8, 8), show_table=False, show_arch=False)['flops'])
"""


def test_without_importing_compression_first():
    """The table is filled when mmengine is imported; the handlers are found when a layer is
    counted.
    """
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM],
        capture_output=True,
        text=True,
        cwd='/',
        env=dict(os.environ, MMWCC_KERNELS='reference', OMP_NUM_THREADS='1'),
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) == 4 * 6 * 32 + 4 * (4 + 6) * 64
