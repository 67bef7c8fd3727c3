"""Layers whose rows of coefficients, or pixels, have scales and bits by their energy."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.cost import count_cost
from mmwcc.deployment import export_onnx
from mmwcc.functional import atom_norms, pack, unpack
from mmwcc.inference import fuse_inverted_residuals
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.post_training import calibrate

ENERGY = dict(type='mmwcc.EnergyActQuantizer')
PRACTICE = dict(ENERGY, widths=(0, 3, 4, 5, 6, 8))
PLAIN = dict(type='mmwcc.LearnedClipActQuantizer')


def preset(*args, **kwargs):
    """Return a preset, which takes mmengine."""
    return pytest.importorskip('mmwcc.presets', exc_type=ImportError).preset(*args, **kwargs)


def smooth_map(batch=2, channels=16, height=24, width=40, seed=0):
    """Return maps that wavelets compress: white noise, added up along both axes."""
    noise = torch.randn(
        batch, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )
    return (noise.cumsum(-1).cumsum(-2) / 10).contiguous(memory_format=torch.channels_last)


def layer_of(act_quant, keep_ratio=1.0, x=None, **arguments):
    torch.manual_seed(0)
    layer = WaveletCompressedConv2d(
        16, 24, keep_ratio=keep_ratio, act_quant=dict(act_quant), **arguments
    )
    layer(smooth_map() if x is None else x)
    return layer.eval()


def error(layer, x=None):
    x = smooth_map() if x is None else x
    exact = F.conv2d(x, layer.weight, layer.bias)
    return ((layer(x) - exact).norm() / exact.norm()).item()


def test_equal_bits_lose_less_than_with_one_clip():
    """At two bits on the mean: all at 8 bits for a quarter, by energy, and pixels with scales."""
    today = error(layer_of(dict(PLAIN, bits=8), keep_ratio=0.25))
    rows = error(layer_of(dict(PRACTICE, bits=2)))
    pixels = QuantConv2d(16, 24, 1, act_quant=dict(ENERGY, bits=2))
    pixels(smooth_map())
    assert rows < 0.7 * today
    assert rows < 0.5 * error(pixels.eval())


def test_everything_in_8_bits_is_nearly_exact():
    assert error(layer_of(dict(ENERGY, bits=8))) < 0.02


@pytest.mark.parametrize('selection', ['energy', 'coarse'])
@pytest.mark.parametrize('keep_ratio', [0.25, 1.0])
def test_one_width_for_what_is_kept(selection, keep_ratio):
    layer = layer_of(dict(ENERGY, bits=8), keep_ratio, selection=selection)
    free = WaveletCompressedConv2d(16, 24, keep_ratio=keep_ratio, selection=selection)
    free.load_state_dict(layer.state_dict(), strict=False)
    torch.testing.assert_close(layer(smooth_map()), free(smooth_map()), atol=0.05, rtol=0.05)


def test_an_image_does_not_depend_on_its_batch():
    x, layer = smooth_map(3), layer_of(dict(PRACTICE, bits=1.5))
    x[1] *= 7
    alone = torch.cat([layer(image.unsqueeze(0)) for image in x])
    torch.testing.assert_close(layer(x), alone)


def test_rows_beyond_the_budget_are_not_computed():
    layer = layer_of(dict(PRACTICE, bits=1.5))
    assert layer.packed_ratio == 0.5
    layer.act_quant.bits = 4
    assert layer.packed_ratio == 1


def test_the_largest_coefficient_is_kept_however_small_the_budget():
    layer = layer_of(dict(PRACTICE, bits=0.001))
    x = torch.ones(1, 16, 8, 8)
    assert (layer(x) - layer.bias.reshape(1, -1, 1, 1)).any()


@pytest.mark.parametrize('wavelet', ['haar', 'db2', 'bior2.2'])
@pytest.mark.parametrize('size', [(24, 40), (13, 21)])
def test_gradients_are_straight_through_at_the_kept_rows(wavelet, size):
    x = smooth_map(height=size[0], width=size[1]).requires_grad_()
    layer = layer_of(dict(PRACTICE, bits=2), wavelet=wavelet, x=x).train()
    # With clips that cut nothing off, the gradient is that of the layer without quantization.
    layer.act_quant.clip_alpha.data.fill_(100)
    layer(x).square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()
    assert layer.weight.grad.any() and layer.act_quant.clip_alpha.grad.any()


@pytest.mark.parametrize('wavelet', ['haar', 'db2', 'bior1.3', 'bior2.2'])
@pytest.mark.parametrize('levels', [1, 3])
def test_atoms_have_norm_one(wavelet, levels):
    """A coefficient of 1 stands for a function of norm 1, whatever its position."""
    size, positions = (64, 64), 64 * 64
    first = 20 * 4**levels if levels < 3 else 27 * 64  # a patch away from the border
    rows = torch.eye(4**levels)[:, None, :].reshape(1, 4**levels, 4**levels).double()
    slot = torch.full((1, positions), -1, dtype=torch.int32)
    slot[0, first : first + 4**levels] = torch.arange(4**levels, dtype=torch.int32)
    y = unpack(rows, slot, size=size, levels=levels, wavelet=wavelet, unit_atoms=True)
    torch.testing.assert_close(y.square().sum((0, 2, 3)), torch.ones(4**levels).double())
    if wavelet != 'bior2.2' and wavelet != 'bior1.3':
        assert torch.allclose(atom_norms(wavelet, levels, positions, y), torch.ones(1).double())


@pytest.mark.parametrize('wavelet', ['db2', 'bior2.2'])
def test_atoms_of_norm_one_change_nothing_without_quantization(wavelet):
    x = smooth_map().double()
    rows, slot = pack(x, keep_ratio=1.0, wavelet=wavelet, unit_atoms=True)
    y = unpack(rows, slot, size=x.shape[2:], wavelet=wavelet, unit_atoms=True)
    torch.testing.assert_close(y, x)


def test_weighing_by_the_norms_of_atoms_loses_less():
    x = smooth_map(4, 16, 64, 64)
    layer = layer_of(dict(PRACTICE, bits=1.5), wavelet='bior2.2', x=x)
    layer.weight.data, layer.bias = torch.eye(24, 16)[:, :, None, None], None
    weighed = error(layer, x)

    class Plain(WaveletCompressedConv2d):
        _by_energy = False

    layer.__class__ = Plain
    assert weighed < error(layer, x)


def test_compiled_and_under_autocast():
    x, layer = smooth_map(), layer_of(dict(PRACTICE, bits=2))
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), layer(x))
    larger = smooth_map(1, 16, 40, 32)
    torch.testing.assert_close(compiled(larger), layer(larger))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - layer(x)).norm() < 0.02 * layer(x).norm()


def test_saves_as_much_for_backward_as_with_one_clip():
    def saved(act_quant):
        sizes = []
        weight = dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8)
        layer = WaveletCompressedConv2d(
            16, 24, keep_ratio=0.5, act_quant=dict(act_quant), weight_quant=weight
        )
        layer(smooth_map())
        hooks = (lambda t: sizes.append(t.nbytes) or t, lambda t: t)
        with torch.autograd.graph.saved_tensors_hooks(*hooks):
            layer(smooth_map())
        return sum(sizes)

    assert saved(dict(ENERGY, bits=4)) < 1.05 * saved(dict(PLAIN, bits=4))


class Block(nn.Module):
    """A first layer, one that is compressed, and a prediction."""

    def __init__(self):
        super().__init__()
        self.first, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 1)
        self.last = nn.Conv2d(24, 4, 1)

    def forward(self, x):
        return self.last(self.wide(self.first(x)))


def block(name):
    torch.manual_seed(0)
    model = Block()
    compress_model(model, preset(name), verbose=False)
    images = [smooth_map(1, 3, 32, 48, seed) for seed in range(3)]
    calibrate(model, images, forward=lambda model, image: model(image))
    return model.eval()


@pytest.mark.parametrize('name, bits', [('wcc_rows_b1', 1), ('wcc_rows_b4', 4)])
def test_presets_cost_what_their_bits_say(name, bits):
    cost = {layer.name: layer for layer in count_cost(block(name), (32, 48)).layers}['wide']
    assert cost.bops == 32 * 48 * 16 * 24 * 8 * bits
    share = min(1, bits / 3)
    assert cost.macs == pytest.approx(share * 32 * 48 * 16 * 24, rel=1e-3)
    # Values, a scale of 32 bits for each kept row, and three bits that tell one of six widths.
    stored = 32 * 48 * 16 * bits + 32 * share * 32 * 48 + 3 * 32 * 48
    assert 8 * cost.act_bytes == pytest.approx(stored, rel=1e-3)


def test_a_copy_with_the_same_state_computes_the_same():
    model = block('wcc_rows_b2')
    other = Block()
    compress_model(other, preset('wcc_rows_b2'), verbose=False)
    other.load_state_dict(model.state_dict())
    x = smooth_map(1, 3, 40, 40)
    assert torch.equal(other.eval()(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_a_scale_for_every_pixel_needs_a_pointwise_layer():
    with pytest.raises(ValueError, match=r'act_quant must have one scale .*pointwise='):
        QuantConv2d(8, 8, 3, act_quant=dict(ENERGY))


def test_a_budget_must_fit_the_keep_ratio():
    with pytest.raises(ValueError, match=r'got bits=4 for keep_ratio=0.25 .* Use keep_ratio=1.0'):
        WaveletCompressedConv2d(8, 8, keep_ratio=0.25, act_quant=dict(PRACTICE, bits=4))


def test_unsigned_grids_are_refused():
    with pytest.raises(ValueError, match='act_quant must be signed'):
        WaveletCompressedConv2d(8, 8, keep_ratio=1.0, act_quant=dict(ENERGY, signed=False))


def test_onnx_is_refused_with_the_way_around(tmp_path):
    pytest.importorskip('onnx')
    with pytest.raises(ValueError, match=r'one scale for all positions, got .*wide\. .* torch'):
        export_onnx(block('wcc_rows_b2'), tmp_path / 'model.onnx', (32, 48))


def test_tiny_maps_have_the_general_quantizer():
    class Pooled(Block):
        def forward(self, x):
            return self.last(self.wide(self.first(x).mean((2, 3), keepdim=True)))

    model = Pooled()
    compress_model(model, preset('wcc_rows_b2'), verbose=False)
    assert type(model.wide) is QuantConv2d and model.wide.act_quant.bits == 8


@pytest.mark.parametrize('stride', [1, 2])
def test_fused_blocks_compute_the_same(stride):
    utils = pytest.importorskip('mmseg.models.utils')
    model = nn.Sequential(utils.InvertedResidual(8, 8, stride, 4)).double()
    compress_model(model, preset('wcc_rows_b1', keep_dense=[]), verbose=False)
    x = smooth_map(1, 8, 20, 27).double()
    model.train()(x)
    with torch.no_grad():
        expected = model.eval()(x)
        report = fuse_inverted_residuals(model, verbose=False)
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    assert [block.fused for block in report] == [True]
