"""What layers that replace a convolution share: its parameters, checkpoints, copies and input."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.quantizers import LearnedClipActQuantizer

QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)


def test_state_dict_adds_only_the_keys_of_quantizers():
    dense, layer = nn.Conv2d(4, 6, 1), WaveletCompressedConv2d(4, 6, keep_ratio=0.5, **QUANTIZERS)
    missing, unexpected = layer.load_state_dict(dense.state_dict(), strict=False)
    assert sorted(missing) == [
        'act_quant.clip_alpha',
        'act_quant.initialized',
        'act_quant.signed',
        'weight_quant.clip_alpha',
        'weight_quant.initialized',
        'weight_quant.signed',
    ]
    assert unexpected == []
    assert torch.equal(layer.weight, dense.weight)
    WaveletCompressedConv2d(4, 6, keep_ratio=0.5, wavelet='db2').load_state_dict(dense.state_dict())


@pytest.mark.parametrize(
    'layer_type, arguments',
    [(WaveletCompressedConv2d, dict(keep_ratio=0.5)), (QuantConv2d, dict(kernel_size=1))],
)
def test_point_wise_kernels_of_conv1d_load(layer_type, arguments):
    layer = layer_type(4, 6, **arguments)
    state = nn.Conv1d(4, 6, 1).state_dict()
    layer.load_state_dict(state)
    assert torch.equal(layer.weight.squeeze(-1), state['weight'])
    assert state['weight'].shape == (6, 4, 1)  # the caller's dictionary stays as it was


def clone_by_pickle(layer):
    return pickle.loads(pickle.dumps(layer))


def clone_by_torch_save(layer):
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def clone_by_state_dict(layer):
    clone = WaveletCompressedConv2d(4, 6, keep_ratio=0.5, levels=2, **QUANTIZERS)
    clone.load_state_dict(layer.state_dict())
    return clone.train(layer.training)


@pytest.mark.parametrize(
    'clone', [copy.deepcopy, clone_by_pickle, clone_by_torch_save, clone_by_state_dict]
)
@pytest.mark.parametrize('training', [True, False])
def test_a_copy_computes_the_same_and_is_not_calibrated_again(clone, training):
    layer = WaveletCompressedConv2d(4, 6, keep_ratio=0.5, levels=2, **QUANTIZERS)
    x = torch.randn(2, 4, 8, 8)
    layer(x)
    twin = clone(layer.train(training))
    assert torch.equal(twin(100 * x), layer(100 * x))
    with torch.no_grad():
        twin.act_quant.clip_alpha.mul_(2)
    assert not torch.equal(twin(x), layer(x))  # nothing is shared


def test_from_conv2d_takes_the_parameters_the_device_and_the_mode_over():
    dense = nn.Conv2d(4, 6, 1, stride=2, bias=False).eval().double()
    state = torch.get_rng_state()
    layer = WaveletCompressedConv2d.from_conv2d(dense, keep_ratio=0.5, levels=2, **QUANTIZERS)
    assert layer.weight is dense.weight
    assert layer.bias is None
    assert layer.stride == (2, 2)
    assert not layer.training
    assert not layer.act_quant.training
    assert all(tensor.device.type == 'cpu' for tensor in (*layer.parameters(), *layer.buffers()))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    'shape, message',
    [
        ((1, 3, 8, 8), r'x must have in_channels=4 channels, got shape \(1, 3, 8, 8\)'),
        ((8, 8), r'x must have shape \(B, C, H, W\) or \(C, H, W\), got \(8, 8\)'),
        ((1, 1, 4, 8, 8), r'x must have shape'),
    ],
)
@pytest.mark.parametrize(
    'layer',
    [WaveletCompressedConv2d(4, 6, keep_ratio=0.5), QuantConv2d(4, 6, 3)],
    ids=['WCC', 'QuantConv2d'],
)
def test_bad_input(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(shape))


@pytest.mark.parametrize(
    'compute, tensor',
    [
        (nn.utils.spectral_norm, 'weight'),
        (nn.utils.parametrizations.weight_norm, 'weight'),
        (lambda conv: nn.utils.prune.l1_unstructured(conv, 'bias', 1), 'bias'),
    ],
)
def test_a_computed_weight_is_not_taken_over(compute, tensor):
    with pytest.raises(
        ValueError,
        match=f'QuantConv2d: the {tensor} of conv must be a parameter, '
        'got one that is computed .* Make it permanent first',
    ):
        QuantConv2d.from_conv2d(compute(nn.Conv2d(4, 6, 1)))


def test_a_quantizer_object_is_taken_as_it_is():
    quantizer = LearnedClipActQuantizer(bits=4)
    assert WaveletCompressedConv2d(4, 6, keep_ratio=0.5, act_quant=quantizer).act_quant is quantizer
