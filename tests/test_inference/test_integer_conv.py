"""Integer layers: the integers of fake quantization, and outputs within their float32 bounds."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmwcc import kernels
from mmwcc.functional import pack, quantize
from mmwcc.inference import IntegerConv2d, IntegerWaveletCompressedConv2d
from mmwcc.inference.integer_forms import integer_obstacle
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d

EPSILON = 2.0**-24
WEIGHTS = {
    'plain': dict(type='mmwcc.LearnedClipWeightQuantizer'),
    'standard': dict(type='mmwcc.LearnedClipWeightQuantizer', normalize='standard'),
    'rescale': dict(type='mmwcc.LearnedClipWeightQuantizer', normalize='rescale'),
    'LSQ': dict(type='mmwcc.LSQWeightQuantizer'),
    'channels': dict(
        type='mmwcc.LearnedClipWeightQuantizer', normalize='rescale', per_channel=True
    ),
    'LSQ of channels': dict(type='mmwcc.LSQWeightQuantizer', per_channel=True),
}
ACTS = dict(
    learned=dict(type='mmwcc.LearnedClipActQuantizer'), LSQ=dict(type='mmwcc.LSQActQuantizer')
)


def quantizers(weight='plain', act='learned', weight_bits=8, act_bits=8):
    return dict(
        weight_quant=dict(WEIGHTS[weight], bits=weight_bits),
        act_quant=dict(ACTS[act], bits=act_bits),
    )


def wavelet_layer(x, out_channels=12, bias=True, stride=1, keep_ratio=0.3, **settings):
    names = ('levels', 'wavelet', 'selection')
    geometry = {name: settings.pop(name) for name in names if name in settings}
    layer = WaveletCompressedConv2d(
        x.shape[1],
        out_channels,
        stride=stride,
        bias=bias,
        keep_ratio=keep_ratio,
        **geometry,
        **quantizers(**settings),
    )
    return calibrated(layer, x)


def plain_layer(x, out_channels=12, bias=True, stride=1, **settings):
    return calibrated(
        QuantConv2d(x.shape[1], out_channels, 1, stride, bias=bias, **quantizers(**settings)), x
    )


def calibrated(layer, x):
    layer(x)
    return layer.eval()


def operands(layer, values):
    """Return what fake quantization multiplies, in float64: rounded rows of C values and (O, C)."""
    rows = quantize(values, *layer.act_quant.arguments(values))
    weight = quantize(layer.weight, *layer.weight_quant.arguments(layer.weight))
    return rows.detach().double(), weight.detach().double().flatten(1)


def row_bound(rows, weight, shifted=0.0):
    """Return how far float32 and integer products may be apart (see docs/integer.md)."""
    magnitude = rows.abs() @ weight.abs().t()
    return (rows.shape[-1] + 6) * EPSILON * magnitude + 4 * EPSILON * shifted


def rounded(x, layer):
    """Return the pixels that a plain layer multiplies, as rows (B, H * W, C)."""
    return x[:, :, :: layer.stride[0], :: layer.stride[1]].permute(0, 2, 3, 1).flatten(1, 2)


def assert_plain_equal(layer, integer, x):
    rows, weight = operands(layer, rounded(x, layer))
    step, low, high = integer.step, *integer.grid.tolist()
    levels = kernels.quantize_int8(x[:, :, :: layer.stride[0], :: layer.stride[1]], step, low, high)
    shift = 128 if high > 127 else 0
    assert torch.equal(levels.double() + shift, (rows / step.double()).round())
    bias = 0 if layer.bias is None else layer.bias.detach().double().abs()
    # An unsigned grid is stored 128 lower, so its sums and their correction are rounded apart.
    stored = (
        (levels.double().abs() @ integer.weight.double().abs().t()) * integer.scale.double()
        if shift
        else 0
    )
    allowed = row_bound(rows, weight, stored + integer.bias.double().abs() + bias)
    difference = (integer(x) - layer(x)).detach().double().abs().permute(0, 2, 3, 1).flatten(1, 2)
    assert (difference <= allowed).all(), f'{(difference / allowed).max():.2f} times the bound'


def assert_wavelet_equal(layer, integer, x):
    settings = dict(
        keep_ratio=layer.keep_ratio,
        levels=layer.levels,
        wavelet=layer.wavelet,
        selection=layer.selection,
    )
    values, slot = pack(x[:, :, :: layer.stride[0], :: layer.stride[1]], **settings)
    rows, weight = operands(layer, values)
    y, expected = integer(x), layer(x).detach()
    assert (
        y.shape == expected.shape and y.stride() == expected.stride() and y.dtype == expected.dtype
    )
    # Each pixel is a sum of 1 + 3 * levels coefficients: one with weight 2**-levels, and for each
    # level l three with weight 2**-l.
    spread = 2.0**-layer.levels + 3 * sum(2.0**-level for level in range(1, layer.levels + 1))
    allowed = (
        spread * row_bound(rows, weight).max()
        + 8 * layer.levels * EPSILON * spread * expected.abs().max()
    )
    assert (y - expected).abs().max() <= allowed


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('keep_ratio', [0.1, 0.5, 1.0])
@pytest.mark.parametrize('height, width', [(16, 24), (17, 9), (1, 5)])
def test_wavelet_layer_equals_the_trained_one(height, width, keep_ratio, memory_format):
    x = torch.randn(2, 40, height, width).contiguous(memory_format=memory_format)
    layer = wavelet_layer(x, keep_ratio=keep_ratio)
    assert_wavelet_equal(layer, IntegerWaveletCompressedConv2d.from_layer(layer), x)


@pytest.mark.parametrize(
    'settings',
    [
        dict(stride=2),
        dict(stride=(1, 3), bias=False),
        dict(levels=1),
        dict(selection='coarse'),
        dict(weight='standard'),
        dict(weight='rescale'),
        dict(weight='LSQ', act='LSQ'),
        dict(weight_bits=2, act_bits=2),
        dict(weight_bits=4, act_bits=8),
        dict(weight_bits=7, act_bits=3),
        dict(wavelet='db2'),
        dict(wavelet='bior2.2'),
        dict(weight='channels'),
        dict(weight='LSQ of channels', weight_bits=4),
    ],
    ids=str,
)
def test_wavelet_layer_of_every_kind(settings):
    if settings.get('wavelet'):
        pytest.importorskip('pywt')
    x = torch.randn(2, 24, 19, 14)
    layer = wavelet_layer(x, **settings)
    integer = IntegerWaveletCompressedConv2d.from_layer(layer)
    if settings.get('wavelet'):  # no power-of-two bound; float32 rounding of a few dozen operations
        expected = layer(x).detach()
        assert (integer(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    else:
        assert_wavelet_equal(layer, integer, x)


@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(stride=2),
        dict(stride=(3, 1), bias=False),
        dict(weight='standard'),
        dict(weight='rescale'),
        dict(weight='LSQ', act='LSQ'),
        dict(weight_bits=2, act_bits=2),
        dict(weight_bits=4, act_bits=7),
        dict(weight_bits=3, act_bits=8),
        dict(weight='channels'),
        dict(weight='LSQ of channels', weight_bits=4),
    ],
    ids=str,
)
@pytest.mark.parametrize('signed', [True, False])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_plain_layer_equals_the_trained_one(settings, signed, memory_format):
    x = (torch.randn if signed else torch.rand)(2, 33, 13, 10).contiguous(
        memory_format=memory_format
    )
    layer = plain_layer(x, **settings)
    integer = IntegerConv2d.from_layer(layer)
    assert (integer.grid[0] < 0) == signed
    assert_plain_equal(layer, integer, x)
    assert integer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('bits', range(2, 9))
def test_weights_are_the_levels_of_the_quantizer(bits):
    x = torch.randn(1, 16, 8, 8)
    for weight in WEIGHTS:
        layer = plain_layer(x, weight=weight, weight_bits=bits, act_bits=bits)
        integer = IntegerConv2d.from_layer(layer)
        fake = operands(layer, x)[1]
        step = (integer.scale.double() / integer.step.double()).unsqueeze(1)
        torch.testing.assert_close(integer.weight.double() * step, fake, rtol=1e-6, atol=0)
        highest = 2 ** (bits - 1) - 1
        assert integer.weight.int().abs().max() <= highest + ('LSQ' in weight)
        assert integer.grid.tolist() == [-highest, highest]


def test_a_wrong_level_would_be_noticed():
    x = torch.randn(2, 40, 16, 24)
    layer = wavelet_layer(x)
    integer = IntegerWaveletCompressedConv2d.from_layer(layer)
    integer.weight[3, 5] += 1
    with pytest.raises(AssertionError):
        assert_wavelet_equal(layer, integer, x)
    layer = plain_layer(x.abs())
    integer = IntegerConv2d.from_layer(layer)
    integer.weight[3, 5] += 1
    with pytest.raises(AssertionError):
        assert_plain_equal(layer, integer, x.abs())


def test_nan_becomes_level_zero_and_infinity_the_highest():
    x = torch.randn(1, 8, 4, 4).abs()
    layer = plain_layer(x)
    integer = IntegerConv2d.from_layer(layer)
    broken, mended = x.clone(), x.clone()
    broken[0, 1, 2, 3], mended[0, 1, 2, 3] = float('nan'), 0.0
    broken[0, 2, 0, 0], mended[0, 2, 0, 0] = float('inf'), 1e30
    assert torch.equal(integer(broken), integer(mended)) and layer(broken).isnan().any()

    layer = wavelet_layer(torch.randn(1, 8, 16, 16))
    x = torch.randn(1, 8, 16, 16)
    x[0, 0, 0, 0] = float('nan')
    x[0, 1, 9, 9] = -float('inf')
    assert IntegerWaveletCompressedConv2d.from_layer(layer)(x).isfinite().all()


def both():
    x = torch.randn(2, 16, 17, 9)
    yield IntegerWaveletCompressedConv2d.from_layer(wavelet_layer(x)), x
    yield IntegerConv2d.from_layer(plain_layer(x.abs())), x.abs()


def test_unbatched_empty_and_half_inputs():
    for layer, x in both():
        y = layer(x)
        torch.testing.assert_close(layer(x[0]), y[0], rtol=0, atol=0)
        assert layer(x[:0]).shape == (0, *y.shape[1:])
        half = layer(x.bfloat16())
        assert half.dtype == torch.bfloat16 and half.shape == y.shape
        assert (half.float() - y).abs().mean() < 0.02 * y.abs().max()


def test_results_do_not_depend_on_threads():
    threads = torch.get_num_threads()
    for layer, x in both():
        results = []
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                results.append(layer(x))
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(*results)


def test_copies_compute_the_same():
    for layer, x in both():
        expected = layer(x)
        assert torch.equal(copy.deepcopy(layer)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)
        half = copy.deepcopy(layer).half()  # casts activations, not what the integers hang on
        assert {buffer.dtype for buffer in half.buffers()} == {
            torch.int8,
            torch.int16,
            torch.float32,
        }
        assert torch.equal(half(x), expected)


def test_state_dict_fills_a_layer_built_without_weights():
    x = torch.randn(2, 16, 17, 9)
    for layer, values in (
        (wavelet_layer(x, bias=False), x),
        (plain_layer(x.abs(), bias=False), x.abs()),
    ):
        kind = IntegerConv2d if isinstance(layer, QuantConv2d) else IntegerWaveletCompressedConv2d
        trained = kind.from_layer(layer)
        # Before calibration nobody knows whether the input is signed: both have equal buffers.
        untrained = type(layer)(
            16,
            12,
            1,
            bias=False,
            **quantizers(),
            **(dict(keep_ratio=0.3) if kind is IntegerWaveletCompressedConv2d else {}),
        )
        empty = kind.like(untrained).eval()
        with pytest.raises(
            RuntimeError, match=f'{kind.__name__}: the layer must have weights, got none so far'
        ):
            empty(values)
        empty.load_state_dict(trained.state_dict())
        assert torch.equal(empty(values), trained(values))
        assert not list(trained.parameters())


def test_compiles_as_one_graph_and_exports_with_dynamic_sizes():
    for layer, x in both():
        torch._dynamo.reset()
        expected = layer(x)
        assert torch.equal(torch.compile(layer, fullgraph=True, backend='aot_eager')(x), expected)
        dynamic = {
            0: torch.export.Dim('batch', min=1, max=64),
            2: torch.export.Dim('height', min=4, max=512),
            3: torch.export.Dim('width', min=4, max=512),
        }
        exported = torch.export.export(layer, (x,), dynamic_shapes=(dynamic,)).module()
        assert torch.equal(exported(x), expected)
        other = x[:1, :, :11, :6].contiguous()
        assert torch.equal(exported(other), layer(other))


def test_compiles_with_inductor():
    torch._dynamo.reset()
    for layer, x in both():
        assert torch.equal(torch.compile(layer, fullgraph=True)(x), layer(x))


def test_gradients_are_refused():
    for layer, x in both():
        layer.train()
        with pytest.raises(
            RuntimeError, match='integers have no gradient, got a call in training mode'
        ):
            layer(x)
        with torch.no_grad():
            assert layer(x).shape[1] == 12


def test_obstacles():
    build = {
        'not a quantized convolution': nn.Conv2d(4, 4, 1),
        'not a 1x1 convolution without padding and groups': QuantConv2d(4, 4, 3, **quantizers()),
        'weights not quantized': QuantConv2d(4, 4, 1, act_quant=ACTS['learned']),
        'activations not quantized': WaveletCompressedConv2d(
            4, 4, keep_ratio=0.5, weight_quant=WEIGHTS['LSQ']
        ),
        'weights of 9 bits': QuantConv2d(4, 4, 1, **quantizers(weight_bits=9)),
        'activations of 16 bits': QuantConv2d(4, 4, 1, **quantizers(act_bits=16)),
    }
    assert {reason: integer_obstacle(layer) for reason, layer in build.items()} == {
        reason: reason for reason in build
    }
    assert (
        integer_obstacle(QuantConv2d(4, 4, 1, groups=2, **quantizers()))
        == integer_obstacle(QuantConv2d(4, 4, 1, padding=1, **quantizers()))
        == 'not a 1x1 convolution without padding and groups'
    )
    assert integer_obstacle(QuantConv2d(4, 4, 1, stride=2, **quantizers())) == ''
    with pytest.raises(
        ValueError, match='IntegerConv2d: layer must multiply positions, .* got weights of 9 bits'
    ):
        IntegerConv2d.like(build['weights of 9 bits'])
    with pytest.raises(
        TypeError, match='layer must be a QuantConv2d, got a WaveletCompressedConv2d'
    ):
        IntegerConv2d.like(build['activations not quantized'])


def test_what_was_not_learned_is_refused():
    layer = QuantConv2d(4, 4, 1, **quantizers()).eval()
    with pytest.raises(
        RuntimeError, match='IntegerConv2d: weight_quant must have learned its clip'
    ):
        IntegerConv2d.from_layer(layer)
    layer.weight_quant.calibrate(layer.weight)
    with pytest.raises(RuntimeError, match='IntegerConv2d: act_quant must have learned its clip'):
        IntegerConv2d.from_layer(layer)
    layer = plain_layer(torch.randn(1, 4, 4, 4))
    layer.weight.data[0, 0] = float('nan')
    with pytest.raises(
        ValueError, match='IntegerConv2d: the weights must be numbers, got 1 of 48 that are NaN'
    ):
        IntegerConv2d.from_layer(layer)


def test_bad_input_and_arguments():
    layer = IntegerConv2d.from_layer(plain_layer(torch.randn(1, 4, 4, 4)))
    with pytest.raises(ValueError, match='IntegerConv2d: x must have in_channels=4 channels'):
        layer(torch.randn(1, 5, 4, 4))
    with pytest.raises(
        ValueError, match=r'IntegerWaveletCompressedConv2d: keep_ratio must be in \(0, 1\], got 1.5'
    ):
        IntegerWaveletCompressedConv2d(4, 4, keep_ratio=1.5)
