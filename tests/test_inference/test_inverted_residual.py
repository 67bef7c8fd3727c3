"""The fused inverted residual block against the chain of layers it stands for."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmwcc import kernels
from mmwcc.inference import FoldedConv, FusedInvertedResidual, clamp_bounds
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d

CHANNELS, HIDDEN = 8, 24
WEIGHT, ACT = (dict(type=f'mmwcc.LearnedClip{kind}Quantizer', bits=8) for kind in ('Weight', 'Act'))


def _norm(channels):
    norm = nn.BatchNorm2d(channels).double()
    for values, low, high in (
        (norm.running_var, 0.5, 2),
        (norm.running_mean, -0.5, 0.5),
        (norm.weight.data, 0.5, 2),
        (norm.bias.data, -0.5, 0.5),
    ):
        nn.init.uniform_(values, low, high)
    return norm


def _stages(
    stride=1,
    size=3,
    dilation=1,
    activation=nn.ReLU6,
    keep_ratio=0.25,
    expand=True,
    quantized=False,
    compressed=(True, True),
    out=CHANNELS,
    selection='energy',
):
    quantizers = dict(weight_quant=WEIGHT, act_quant=ACT) if quantized else {}

    def pointwise(inputs, outputs, compress):
        if compress:
            return WaveletCompressedConv2d(
                inputs,
                outputs,
                bias=False,
                keep_ratio=keep_ratio,
                selection=selection,
                **quantizers,
            )
        return QuantConv2d(inputs, outputs, 1, **quantizers)

    inputs = CHANNELS if expand else HIDDEN
    depthwise = QuantConv2d(
        HIDDEN, HIDDEN, size, stride, dilation * (size // 2), dilation, HIDDEN, **quantizers
    )
    stages = [
        (pointwise(inputs, HIDDEN, compressed[0]), _norm(HIDDEN), activation()),
        (depthwise, _norm(HIDDEN), activation()),
        (pointwise(HIDDEN, out, compressed[1]), _norm(out), None),
    ]
    return [
        tuple(part if part is None else part.double().eval() for part in stage)
        for stage in (stages if expand else stages[1:])
    ]


def _unfused(stages, x, residual):
    y = x
    for stage in stages:
        for part in stage:
            y = y if part is None else part(y)
    return x + y if residual else y


def _calibrated(stages, x):
    for stage in stages:
        for part in stage:
            if isinstance(part, (QuantConv2d, WaveletCompressedConv2d)):
                part.train()
    _unfused(stages, x, False)
    for stage in stages:
        stage[0].eval()


def _fused(stages, residual=False):
    folded = [FoldedConv(*stage) for stage in stages]
    return FusedInvertedResidual(*[None] * (3 - len(folded)), *folded, residual).eval()


def _check(stages, x, residual=False):
    # In float64 no two norms of these maps are so near that rounding could select other positions.
    with torch.no_grad():
        expected = _unfused(stages, x, residual)
        got = _fused(stages, residual)(x)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert kernels.is_channels_last(got) == kernels.is_channels_last(x)
    return got


def _input(channels=CHANNELS, size=(20, 27), dtype=torch.float64):
    return torch.randn(2, channels, *size, dtype=dtype)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('quantized', [False, True])
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(stride=2),
        dict(size=5),
        dict(dilation=2),
        dict(activation=nn.Hardswish),
        dict(activation=nn.Identity),
        dict(keep_ratio=1.0),
        dict(selection='coarse'),
        dict(compressed=(False, True)),
        dict(compressed=(True, False)),
        dict(expand=False),
    ],
    ids=str,
)
def test_equals_the_chain_of_layers(options, quantized, memory_format):
    stages = _stages(**options, quantized=quantized)
    x = _input(HIDDEN if options.get('expand') is False else CHANNELS).to(
        memory_format=memory_format
    )
    if quantized:
        _calibrated(stages, x)
    with torch.no_grad():
        _check(stages, x, residual=options.get('stride') != 2 and options.get('expand', True))


def test_says_whether_the_depthwise_convolution_is_fused():
    assert _fused(_stages()).fuses_depthwise
    for options in (
        dict(stride=2),
        dict(activation=nn.Hardswish),
        dict(selection='coarse'),
        dict(compressed=(True, False)),
    ):
        assert not _fused(_stages(**options)).fuses_depthwise


def test_works_in_single_precision_up_to_near_ties_of_the_selection():
    stages = [
        tuple(None if part is None else part.float() for part in stage)
        for stage in _stages(keep_ratio=0.5)
    ]
    x = _input(dtype=torch.float32).to(memory_format=torch.channels_last)
    fused = _fused(stages, True)
    with torch.no_grad():
        inner = stages[1][2](
            stages[1][1](stages[1][0](stages[0][2](stages[0][1](stages[0][0](x)))))
        )
        norms = kernels.haar_norms(inner, 3)
        k = norms.shape[1] // 2
        _, fused_norms = kernels.depthwise_haar(
            fused.expand(x), fused.depthwise.weight, fused.depthwise.bias, 3, 1, 0, 6
        )
        first, second = (kernels.select(values, k) >= 0 for values in (norms, fused_norms))
        threshold = norms.sort(1, descending=True).values[:, k - 1 : k].expand_as(norms)
        different = first != second
        torch.testing.assert_close(norms[different], threshold[different], rtol=1e-5, atol=0)
        torch.testing.assert_close(
            fused(x), _unfused(stages, x, True), rtol=1e-3, atol=1e-3 + different.sum().item()
        )


def test_torch_compile_and_export_keep_the_block():
    stages = [
        tuple(None if part is None else part.float() for part in stage) for stage in _stages()
    ]
    block, x = _fused(stages, True), _input(dtype=torch.float32)
    with torch.no_grad():
        expected = block(x)
        torch.testing.assert_close(
            torch.compile(block, fullgraph=True, backend='aot_eager')(x), expected
        )
        sizes = {
            2: torch.export.Dim('height', min=9, max=512),
            3: torch.export.Dim('width', min=9, max=512),
        }
        program = torch.export.export(block, (x,), dynamic_shapes=(sizes,))
        other = _input(size=(33, 18), dtype=torch.float32)
        torch.testing.assert_close(program.module()(other), block(other))
    assert 'depthwise_haar' in str(program.graph)


def test_does_not_depend_on_the_number_of_threads():
    stages = [
        tuple(None if part is None else part.float() for part in stage) for stage in _stages()
    ]
    block, x, results = _fused(stages, True), _input(dtype=torch.float32, size=(64, 64)), []
    for count in (1, 2):
        torch.set_num_threads(count)
        with torch.no_grad():
            results.append(block(x))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


_PEAK = """
import re, sys, torch
from mmwcc.inference import FoldedConv, FusedInvertedResidual
from test_inference.test_inverted_residual import _stages, _unfused
stages = [tuple(None if part is None else part.float() for part in stage) for stage in _stages()]
block = FusedInvertedResidual(*(FoldedConv(*stage) for stage in stages), True).eval()
run = block if sys.argv[1] == 'fused' else lambda x: _unfused(stages, x, True)
# Not resource.getrusage: its peak is at least that of the process that started this one.
peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])
torch.set_num_threads(1)
with torch.no_grad():
    run(torch.rand(1, 8, 64, 64))
    x = torch.rand(1, 8, 512, 512)
    before = peak()
    run(x)
print(peak() - before)
"""


@pytest.mark.slow
def test_needs_less_memory_than_the_chain_of_layers():
    pytest.importorskip('numba', reason='the references store every coefficient')
    if not Path('/proc/self/status').exists():
        pytest.skip('needs the peak memory that Linux reports')
    tests = Path(__file__).parents[1]
    fused, unfused = (
        int(
            subprocess.run(
                [sys.executable, '-c', _PEAK, kind],
                cwd=tests,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for kind in ('fused', 'unfused')
    )
    assert 0 < fused < unfused


def test_bounds_of_activations():
    assert clamp_bounds(None) == clamp_bounds(nn.Identity()) == (None, None)
    assert clamp_bounds(nn.ReLU()) == (0, None)
    assert clamp_bounds(nn.Hardtanh(-2, 3)) == (-2, 3)
    assert clamp_bounds(nn.SiLU()) is None


def test_refuses_other_convolutions():
    pointwise, depthwise = (
        FoldedConv(nn.Conv2d(4, 4, 1)),
        FoldedConv(nn.Conv2d(4, 4, 3, padding=1, groups=4)),
    )
    with pytest.raises(ValueError, match='expand must be a 1x1 convolution of one group'):
        FusedInvertedResidual(depthwise, depthwise, pointwise)
    with pytest.raises(ValueError, match='project must be a 1x1 convolution of one group'):
        FusedInvertedResidual(pointwise, depthwise, depthwise)
    with pytest.raises(ValueError, match='depthwise must have one kernel a channel'):
        FusedInvertedResidual(pointwise, pointwise, pointwise)
