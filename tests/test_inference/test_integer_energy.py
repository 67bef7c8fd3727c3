"""Integer layers whose rows, or pixels, have scales and bits by their energy."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmwcc.compression import compress_model
from mmwcc.cost import count_cost
from mmwcc.inference import (
    IntegerConv2d,
    IntegerWaveletCompressedConv2d,
    integer_skeleton,
    to_integer,
)
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.presets import preset
from mmwcc.testing import relative_error, to_numpy

WIDTHS = (0, 3, 4, 5, 6, 8)


def images(batch=2, channels=16, height=24, width=40, seed=0):
    noise = torch.randn(
        batch, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )
    return noise.cumsum(-1).cumsum(-2) / 10


def quantizers(**act_quant):
    return dict(
        weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8, per_channel=True),
        act_quant={'type': 'mmwcc.EnergyActQuantizer', **act_quant},
    )


def learned(layer, x):
    layer(x)
    return layer.eval()


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('wavelet', ['haar', 'bior2.2'])
@pytest.mark.parametrize(
    'settings',
    [
        dict(keep_ratio=1.0, **quantizers(bits=2, widths=WIDTHS)),
        dict(keep_ratio=0.5, **quantizers(bits=8)),
        dict(keep_ratio=0.5, stride=2, selection='coarse', **quantizers(bits=4)),
    ],
    ids=['widths', 'one width', 'coarse'],
)
def test_rows_of_coefficients(settings, wavelet, memory_format):
    torch.manual_seed(0)
    x = images().to(memory_format=memory_format)
    layer = learned(WaveletCompressedConv2d(16, 24, wavelet=wavelet, **settings), x)
    integer = IntegerWaveletCompressedConv2d.from_layer(layer)
    for batch in (x, images(1, height=21, width=13, seed=1)):
        y = integer(batch)
        assert relative_error(y, to_numpy(layer(batch))) < 1e-5
    assert integer.weight.dtype == torch.int8


@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('act_quant', [dict(bits=4), dict(bits=8), dict(bits=3, widths=(0, 3, 8))])
def test_pixels(act_quant, signed):
    torch.manual_seed(0)
    x = images() if signed else images().relu()
    layer = learned(QuantConv2d(16, 24, 1, **quantizers(**act_quant)), x)
    assert layer.act_quant.signed.item() == signed
    y = IntegerConv2d.from_layer(layer)(x)
    assert relative_error(y, to_numpy(layer(x))) < 1e-5


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 1)
        self.last = nn.Conv2d(24, 4, 1)

    def forward(self, x):
        return self.last(self.wide(self.first(x)))


@pytest.mark.parametrize('name', ['wcc_rows_b2', 'quant_position_w8a4'])
def test_a_model_is_converted_counted_and_loaded(name):
    torch.manual_seed(0)
    model, x = Block(), images(channels=3)
    report = compress_model(model, preset(name), verbose=False)
    model(x)
    expected, cost = model.eval()(x), count_cost(model, (24, 40)).total.total_bops
    converted = to_integer(model, verbose=False)
    assert [layer.name for layer in converted if layer.after.startswith('Integer')] == ['wide']
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert count_cost(model, (24, 40)).total.total_bops == cost
    other = Block()
    report = compress_model(other, preset(name), verbose=False)
    integer_skeleton(other, report)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x), model(x))


def test_halving_a_model_leaves_its_clips():
    layer = learned(
        WaveletCompressedConv2d(16, 24, keep_ratio=1.0, **quantizers(bits=2, widths=WIDTHS)),
        images(),
    )
    integer = IntegerWaveletCompressedConv2d.from_layer(layer)
    expected = integer(images())
    y = integer.bfloat16()(images().bfloat16())
    assert integer.clips.dtype == torch.float32 and y.dtype == torch.bfloat16
    assert relative_error(y.float(), to_numpy(expected)) < 0.05


class Passes(TorchDispatchMode):
    """The names of the operators that are called, but for views."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('by_energy', [True, False])
def test_half_networks_write_their_products_once(by_energy, signed):
    act_quant = dict(bits=4) if by_energy else dict(type='mmwcc.LearnedClipActQuantizer', bits=8)
    x = images() if signed else images().relu()
    for kind, integer, settings in (
        (QuantConv2d, IntegerConv2d, dict(kernel_size=1)),
        (WaveletCompressedConv2d, IntegerWaveletCompressedConv2d, dict(keep_ratio=0.5)),
    ):
        layer = integer.from_layer(learned(kind(16, 24, **settings, **quantizers(**act_quant)), x))
        with torch.no_grad(), Passes() as passes:
            y = layer.bfloat16()(x.bfloat16())
        assert y.dtype == torch.bfloat16
        after = passes.names[passes.names.index('mmwcc::int8_linear') + 1 :]
        assert after == (['mmwcc::haar_unpack'] if kind is WaveletCompressedConv2d else [])
