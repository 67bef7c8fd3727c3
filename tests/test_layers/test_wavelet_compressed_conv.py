"""WaveletCompressedConv2d: the dense layer it stands for, the reference, memory, dtypes, and what
it refuses.
"""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmwcc.functional import pack
from mmwcc.layers import WaveletCompressedConv2d, is_eligible
from mmwcc.testing import (
    Compression,
    Grid,
    Measured,
    reference_wcc,
    relative_error,
    to_numpy,
)

MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]
LEARNED_CLIP = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8, normalize='rescale'),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
LSQ = dict(
    weight_quant=dict(type='mmwcc.LSQWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LSQActQuantizer', bits=8),
)
QUANTIZERS = {'none': {}, 'learned clip': LEARNED_CLIP, 'LSQ': LSQ}


@pytest.mark.parametrize('channels', [3, 24, 96, 160])
@pytest.mark.parametrize('height, width', [(1, 1), (7, 5), (64, 64), (63, 65)])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('memory_format', MEMORY_FORMATS)
def test_keep_ratio_1_is_the_dense_layer(channels, height, width, stride, memory_format):
    dense = nn.Conv2d(channels, 13, 1, stride)
    layer = WaveletCompressedConv2d.from_conv2d(dense, keep_ratio=1)
    x = (
        torch.randn(1, channels, height, width)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
    )
    expected, y = dense(x), layer(x)
    assert relative_error(y, to_numpy(expected)) < 1e-5
    assert y.is_contiguous(memory_format=memory_format)
    grad, tensors = torch.randn_like(expected), (x, dense.weight, dense.bias)
    gradients, expected_gradients = (
        torch.autograd.grad(output, tensors, grad) for output in (y, expected)
    )
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert relative_error(ours, to_numpy(theirs)) < 1e-4


@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('size', [(9, 12), (7, 5), (1, 8), (10, 1)])
@pytest.mark.parametrize('keep_ratio', [0.5, 0.125])
def test_stride_subsamples_first(stride, size, keep_ratio):
    layer = WaveletCompressedConv2d(6, 5, stride=stride, keep_ratio=keep_ratio, levels=2)
    x = torch.randn(2, 6, *size, requires_grad=True)
    y = layer(x)
    keep = pack(x[:, :, ::stride, ::stride], keep_ratio=keep_ratio, levels=2)[1] >= 0
    compression = Compression(keep_ratio, 2, stride=stride)
    expected = reference_wcc(x, layer.weight, layer.bias, compression, measured=Measured(keep))
    grad = torch.randn_like(y)
    y.backward(grad)
    assert y.shape[2:] == (-(-size[0] // stride), -(-size[1] // stride))
    assert relative_error(y, expected.y) < 1e-5
    assert relative_error(x.grad, expected.gradients(to_numpy(grad))['x']) < 1e-4


def test_the_two_strides_may_differ():
    x = torch.randn(1, 4, 9, 10)
    layer = WaveletCompressedConv2d(4, 3, stride=(2, 3), keep_ratio=1)
    torch.testing.assert_close(
        layer(x), nn.functional.conv2d(x, layer.weight, layer.bias, stride=(2, 3))
    )


@pytest.mark.parametrize('normalize', ['standard', 'rescale', None])
@pytest.mark.parametrize('wavelet', ['haar', 'bior2.2'])
def test_quantized_layer_equals_the_reference(normalize, wavelet):
    layer = WaveletCompressedConv2d(
        6,
        5,
        keep_ratio=0.25,
        levels=2,
        wavelet=wavelet,
        weight_quant=dict(
            type='mmwcc.LearnedClipWeightQuantizer',
            bits=4,
            normalize=normalize,
            calibration=None,
            initial_clip=1.9 if normalize else 0.3,
        ),
        act_quant=dict(
            type='mmwcc.LearnedClipActQuantizer',
            bits=6,
            calibration=None,
            signed=True,
            initial_clip=1.7,
        ),
    ).double()
    x = torch.randn(2, 6, 11, 16, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    expected = reference_wcc(
        x,
        layer.weight,
        layer.bias,
        Compression(0.25, 2, wavelet),
        measured=Measured(tolerance=1e-12),
        act=Grid(layer.act_quant.clip_alpha.item(), 6),
        wgt=Grid(
            layer.weight_quant.clip_alpha.item(), 4, clip_gradient=False, normalize=normalize or ''
        ),
    )
    grad = torch.randn_like(y)
    y.backward(grad)
    gradients = expected.gradients(to_numpy(grad))
    assert relative_error(y, expected.y) < 1e-9
    for name, tensor in (('x', x), ('weight', layer.weight), ('bias', layer.bias)):
        assert relative_error(tensor.grad, gradients[name]) < 1e-9, name
    assert layer.act_quant.clip_alpha.grad.item() == pytest.approx(gradients['act_clip'], rel=1e-9)
    assert layer.weight_quant.clip_alpha.grad.item() == pytest.approx(
        gradients['weight_clip'], rel=1e-9
    )


@pytest.mark.parametrize('quantizers', ['learned clip', 'LSQ'])
def test_wavelet_coefficients_are_always_signed(quantizers):
    # Only cA is kept, which is positive on this batch; what follows in training need not be.
    layer = WaveletCompressedConv2d(
        4, 4, keep_ratio=1 / 64, selection='coarse', **QUANTIZERS[quantizers]
    )
    layer(torch.rand(1, 4, 16, 16))
    assert bool(layer.act_quant.signed)


def saved_bytes(layer, x):
    """Count the bytes of all memory that is saved for backward, without the layer's own parameters
    and buffers.
    """
    own = {
        tensor.untyped_storage().data_ptr() for tensor in (*layer.parameters(), *layer.buffers())
    }
    counted = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.numel() > 1:
            counted[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        layer(x)
    return sum(counted.values())


@pytest.mark.parametrize('channels', [32, 64, 128])
@pytest.mark.parametrize('quantizers', QUANTIZERS)
@pytest.mark.parametrize('memory_format', MEMORY_FORMATS)
def test_backward_keeps_a_quarter_of_the_input_at_keep_ratio_a_quarter(
    channels, quantizers, memory_format
):
    x = torch.randn(2, channels, 32, 32).contiguous(memory_format=memory_format).requires_grad_()
    layer = WaveletCompressedConv2d(
        channels, 2 * channels, keep_ratio=0.25, **QUANTIZERS[quantizers]
    )
    layer(x)  # calibration
    dense = nn.Conv2d(channels, 2 * channels, 1)
    input_bytes = x.numel() * x.element_size()
    assert saved_bytes(dense, x) == input_bytes
    assert 0.25 * input_bytes <= saved_bytes(layer, x) <= 0.30 * input_bytes


@pytest.mark.parametrize(
    'dtype, tolerance', [(torch.bfloat16, 2e-2), (torch.float16, 3e-3), (torch.float64, 1e-12)]
)
@pytest.mark.parametrize('stride', [1, 2])
def test_dtypes(dtype, tolerance, stride):
    layer = WaveletCompressedConv2d(16, 8, stride=stride, keep_ratio=0.5, levels=2).to(dtype)
    x = torch.randn(2, 16, 9, 11).to(dtype)
    y = layer(x)
    keep = pack(x[:, :, ::stride, ::stride], keep_ratio=0.5, levels=2)[1] >= 0
    compression = Compression(0.5, 2, stride=stride)
    expected = reference_wcc(x, layer.weight, layer.bias, compression, measured=Measured(keep))
    assert y.dtype == dtype
    assert relative_error(y, expected.y) < tolerance


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize('quantizers', ['learned clip', 'LSQ'])
def test_quantizers_in_other_dtypes(dtype, quantizers):
    torch.manual_seed(0)
    single = WaveletCompressedConv2d(16, 8, keep_ratio=0.5, levels=2, **QUANTIZERS[quantizers])
    x = torch.randn(2, 16, 8, 8)
    single(x)
    layer = copy.deepcopy(single).to(dtype)
    y = layer(x.to(dtype))
    y.sum().backward()
    assert y.dtype == dtype
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {dtype}
    # A rounded input may fall on the next level, so a step (1 / 127 of the clip) for a few of the
    # 16 products.
    assert relative_error(y, to_numpy(single(x))) < 0.05


@pytest.mark.parametrize('quantizers', QUANTIZERS)
def test_autocast(quantizers):
    layer = WaveletCompressedConv2d(16, 8, keep_ratio=0.5, levels=2, **QUANTIZERS[quantizers])
    x = torch.randn(2, 16, 8, 8, requires_grad=True)
    layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
        dense = nn.Conv2d(16, 8, 1)(x)
    y.sum().backward()
    assert y.dtype == dense.dtype == torch.bfloat16
    assert x.grad.dtype == layer.weight.grad.dtype == layer.bias.grad.dtype == torch.float32
    assert relative_error(y, to_numpy(layer(x))) < 2e-2


def test_autocast_leaves_float64_alone():
    layer = WaveletCompressedConv2d(4, 4, keep_ratio=0.5, **LEARNED_CLIP).double()
    with torch.autocast('cpu', torch.bfloat16):
        assert layer(torch.randn(1, 4, 8, 8, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize('quantizers', QUANTIZERS)
def test_unbatched_input(quantizers):
    layer = WaveletCompressedConv2d(
        4, 6, stride=2, keep_ratio=0.5, levels=2, **QUANTIZERS[quantizers]
    )
    x = torch.randn(4, 9, 7)
    y = layer(x)
    assert y.shape == (6, 5, 4)
    assert torch.equal(y, layer(x.unsqueeze(0))[0])


@pytest.mark.parametrize('quantizers', QUANTIZERS)
def test_empty_batch(quantizers):
    layer = WaveletCompressedConv2d(4, 6, keep_ratio=0.5, **QUANTIZERS[quantizers])
    x = torch.empty(0, 4, 8, 8, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == (0, 6, 8, 8)
    assert x.grad.shape == x.shape
    assert layer.weight.grad.abs().sum() == 0


def test_nan_in_the_input_is_nan_in_the_output():
    x = torch.zeros(1, 2, 8, 8)
    x[0, 0, 2, 5] = float('nan')
    y = WaveletCompressedConv2d(2, 3, keep_ratio=0.25)(x)
    assert y[:, :, 2, 5].isnan().all()


@pytest.mark.parametrize('quantizers', QUANTIZERS)
@pytest.mark.parametrize('loaded', [False, True])
def test_compiles_as_one_graph(quantizers, loaded):
    torch._dynamo.reset()
    layer = WaveletCompressedConv2d(8, 6, keep_ratio=0.25, levels=2, **QUANTIZERS[quantizers])
    x = torch.randn(2, 8, 9, 10, requires_grad=True)
    expected = layer(x)  # calibrates, which is not part of the graph
    tensors, grad = (x, *layer.parameters()), torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, tensors, grad)
    if loaded:
        layer.load_state_dict(layer.state_dict())
    y = torch.compile(layer, fullgraph=True, backend='aot_eager')(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y, tensors, grad), expected_gradients)


def test_a_compiled_layer_follows_its_keep_ratio():
    torch._dynamo.reset()
    layer, x = WaveletCompressedConv2d(4, 4, keep_ratio=0.75), torch.randn(1, 4, 8, 8)
    compiled = torch.compile(layer, fullgraph=True, backend='eager')
    for keep_ratio in (0.5, 1 / 3, 0.25):
        layer.keep_ratio = keep_ratio
        torch.testing.assert_close(compiled(x), layer(x))


def test_keep_ratio_selection_and_bits_change_on_a_built_layer():
    layer = WaveletCompressedConv2d(4, 4, keep_ratio=1, levels=2, **LEARNED_CLIP)
    x = torch.randn(1, 4, 8, 8)
    layer(x)
    parameters = list(layer.parameters())
    layer.keep_ratio, layer.selection = 0.25, 'coarse'
    layer.weight_quant.bits = layer.act_quant.bits = 32
    compression = Compression(0.25, 2, selection='coarse')
    expected = reference_wcc(x, layer.weight, layer.bias, compression)
    assert relative_error(layer(x), expected.y) < 1e-5
    assert all(
        before is after for before, after in zip(parameters, layer.parameters(), strict=True)
    )


def test_repr_tells_the_compression():
    assert "keep_ratio=0.25, levels=2, wavelet='db2', selection='coarse'" in repr(
        WaveletCompressedConv2d(4, 6, keep_ratio=0.25, levels=2, wavelet='db2', selection='coarse')
    )


@pytest.mark.parametrize(
    'kernel_size, padding, groups, expected',
    [
        (1, 0, 1, True),
        ((1, 1), (0, 0), 1, True),
        (1, 'same', 1, True),
        (1, 'valid', 1, True),
        (3, 1, 1, False),
        ((1, 3), 0, 1, False),
        (1, 1, 1, False),
        (1, 0, 2, False),
    ],
)
def test_is_eligible(kernel_size, padding, groups, expected):
    assert is_eligible(kernel_size, padding, groups) == expected


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (
            dict(keep_ratio=0),
            ValueError,
            r'WaveletCompressedConv2d: keep_ratio must be in \(0, 1\], got 0',
        ),
        (dict(keep_ratio=-1), ValueError, r'keep_ratio must be in \(0, 1\], got -1'),
        (dict(keep_ratio=1.01), ValueError, r'keep_ratio must be in \(0, 1\], got 1.01'),
        (dict(keep_ratio=float('nan')), ValueError, r'keep_ratio must be in \(0, 1\], got nan'),
        (dict(keep_ratio='a'), TypeError, "keep_ratio must be a number, got 'a'"),
        (dict(levels=0), ValueError, 'levels must be at least 1, got 0'),
        (dict(levels=-1), ValueError, 'levels must be at least 1, got -1'),
        (dict(levels=1.5), TypeError, 'levels must be an integer, got 1.5'),
        (
            dict(wavelet='haarr'),
            ValueError,
            "wavelet must be a discrete wavelet of PyWavelets, got 'haarr'",
        ),
        (
            dict(wavelet='morl'),
            ValueError,
            "wavelet must be a discrete wavelet of PyWavelets, got 'morl'",
        ),
        (
            dict(selection='random'),
            ValueError,
            "selection must be one of energy, coarse, got 'random'",
        ),
        (dict(padding=1), ValueError, 'padding must be 0, got 1'),
        (dict(padding=(0, 1)), ValueError, r'padding must be 0, got \(0, 1\)'),
        (dict(groups=2), ValueError, 'groups must be 1, got 2'),
        (dict(kernel_size=3), ValueError, 'kernel_size must be 1, got 3'),
        (dict(kernel_size=(1, 3)), ValueError, r'kernel_size must be 1, got \(1, 3\)'),
        (
            dict(act_quant=dict(bits=8)),
            TypeError,
            'act_quant must be None, a quantizer or a dict with a type',
        ),
        (
            dict(weight_quant=8),
            TypeError,
            'weight_quant must be None, a quantizer or a dict with a type, got 8',
        ),
        (
            dict(act_quant=nn.ReLU()),
            TypeError,
            'act_quant must be None, a quantizer or a dict with a type',
        ),
        (
            dict(act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=1)),
            ValueError,
            'bits must be in 2 ... 16',
        ),
        (
            dict(act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=33)),
            ValueError,
            'bits must be in 2 ... 16',
        ),
        (
            dict(act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8.0)),
            TypeError,
            'bits must be an integer',
        ),
        (
            dict(act_quant=dict(type='mmwcc.LSQActQuantizer', signed=False)),
            ValueError,
            'act_quant must be signed',
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        WaveletCompressedConv2d(4, 6, **dict(keep_ratio=0.5) | arguments)


@pytest.mark.parametrize(
    'name, value, error, message',
    [
        ('keep_ratio', 0, ValueError, r'keep_ratio must be in \(0, 1\]'),
        ('keep_ratio', '0.5', TypeError, 'keep_ratio must be a number'),
        ('selection', 'fine', ValueError, 'selection must be one of energy, coarse'),
    ],
)
def test_setting_is_checked_too(name, value, error, message):
    layer = WaveletCompressedConv2d(4, 6, keep_ratio=0.5)
    with pytest.raises(error, match=message):
        setattr(layer, name, value)


def test_equal_weights_cannot_be_normalized():
    layer = WaveletCompressedConv2d(4, 6, keep_ratio=0.5, **LEARNED_CLIP)
    nn.init.constant_(layer.weight, 0.1)
    with pytest.raises(
        ValueError, match="the weights must differ from each other for normalize='rescale'"
    ):
        layer(torch.randn(1, 4, 8, 8))
