"""QuantConv2d: any convolution, quantized operands, one saved input."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmwcc.layers import QuantConv2d
from mmwcc.testing import Grid, to_numpy

QUANTIZERS = {
    'learned clip': dict(
        weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4, normalize='rescale'),
        act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=5),
    ),
    'LSQ': dict(
        weight_quant=dict(type='mmwcc.LSQWeightQuantizer', bits=4),
        act_quant=dict(type='mmwcc.LSQActQuantizer', bits=5),
    ),
}
GEOMETRIES = [
    dict(kernel_size=3, padding=1),
    dict(kernel_size=3, stride=2, padding=1, bias=False),
    dict(kernel_size=(1, 5), padding=(0, 2), dilation=(1, 1)),
    dict(kernel_size=3, padding=2, dilation=2),
    dict(kernel_size=3, groups=4),
    dict(kernel_size=1),
    dict(kernel_size=3, padding='same'),
    dict(kernel_size=3, padding='valid'),
    dict(kernel_size=3, padding=1, padding_mode='reflect'),
    dict(kernel_size=5, padding=2, padding_mode='circular', stride=2),
    dict(kernel_size=4, padding='same'),
]


def switched_off(layer):
    layer.weight_quant.bits = layer.act_quant.bits = 32
    return layer


@pytest.mark.filterwarnings('ignore:Using padding=.same. with even kernel:UserWarning')
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_without_quantization_it_is_the_dense_layer(geometry):
    dense = nn.Conv2d(4, 8, **geometry)
    x = torch.randn(2, 4, 9, 10, requires_grad=True)
    for layer in (
        QuantConv2d.from_conv2d(dense),
        switched_off(QuantConv2d.from_conv2d(dense, **QUANTIZERS['LSQ'])),
    ):
        y, expected = layer(x), dense(x)
        torch.testing.assert_close(y, expected)
        grad, tensors = torch.randn_like(y), (x, *dense.parameters())
        torch.testing.assert_close(
            torch.autograd.grad(y, tensors, grad), torch.autograd.grad(expected, tensors, grad)
        )


@pytest.mark.parametrize('geometry', GEOMETRIES[:6], ids=str)
def test_quantized_operands_are_convolved(geometry):
    layer = QuantConv2d(4, 8, **geometry, **QUANTIZERS['learned clip']).double()
    x = torch.randn(2, 4, 9, 10, dtype=torch.float64)
    y = layer(x)
    act = Grid(layer.act_quant.clip_alpha.item(), 5).quantize(to_numpy(x)).values
    weight = (
        Grid(layer.weight_quant.clip_alpha.item(), 4, normalize='rescale')
        .quantize(to_numpy(layer.weight))
        .values
    )
    expected = nn.functional.conv2d(
        torch.from_numpy(act),
        torch.from_numpy(weight),
        layer.bias,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize('quantizers', QUANTIZERS)
def test_the_input_is_saved_once_and_no_quantized_copy(quantizers):
    layer = QuantConv2d(4, 8, 3, padding=1, **QUANTIZERS[quantizers])
    x = torch.randn(2, 4, 9, 10, requires_grad=True)
    layer(x)
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        layer(x)
    own = {parameter.data_ptr() for parameter in layer.parameters()}
    others = [tensor for tensor in saved if tensor.data_ptr() not in own and tensor.numel() > 1]
    assert [tensor.data_ptr() for tensor in others] == [x.data_ptr()]


def test_an_input_without_negative_values_is_unsigned():
    layer = QuantConv2d(4, 8, 3, **QUANTIZERS['learned clip'])
    layer(torch.rand(1, 4, 8, 8))
    assert not bool(layer.act_quant.signed)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_memory_format(memory_format):
    layer = QuantConv2d(4, 8, 3, **QUANTIZERS['learned clip'])
    x = torch.randn(2, 4, 9, 10).contiguous(memory_format=memory_format)
    assert layer(x).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    layer = QuantConv2d(4, 8, 3, **QUANTIZERS['learned clip'])
    x = torch.randn(2, 4, 9, 10)
    layer(x)
    other = copy.deepcopy(layer).to(dtype)
    y = other(x.to(dtype))
    y.sum().backward()
    assert y.dtype == other.weight.grad.dtype == dtype
    assert (y.float() - layer(x)).abs().mean() < 0.05


def test_autocast():
    layer = QuantConv2d(4, 8, 3, **QUANTIZERS['learned clip'])
    x = torch.randn(2, 4, 9, 10, requires_grad=True)
    layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert {tensor.grad.dtype for tensor in (x, *layer.parameters())} == {torch.float32}
    torch.testing.assert_close(y.float(), layer(x), rtol=0.02, atol=0.02)


def test_unbatched_input():
    layer = QuantConv2d(4, 8, 3, stride=2, **QUANTIZERS['LSQ'])
    x = torch.randn(4, 9, 10)
    torch.testing.assert_close(layer(x), layer(x.unsqueeze(0))[0])


def test_dense_state_dict_lacks_only_the_keys_of_quantizers():
    layer = QuantConv2d(4, 8, 3, **QUANTIZERS['learned clip'])
    missing, unexpected = layer.load_state_dict(nn.Conv2d(4, 8, 3).state_dict(), strict=False)
    assert unexpected == []
    assert all(key.startswith(('act_quant.', 'weight_quant.')) for key in missing)


def test_compiles_as_one_graph():
    torch._dynamo.reset()
    layer = QuantConv2d(4, 8, 3, **QUANTIZERS['learned clip'])
    x = torch.randn(2, 4, 9, 10)
    expected = layer(x)
    expected.sum().backward()
    gradient = layer.weight.grad.clone()
    layer.zero_grad()
    y = torch.compile(layer, fullgraph=True, backend='aot_eager')(x)
    y.sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(layer.weight.grad, gradient)


@pytest.mark.parametrize('config', [dict(bits=8), 8, nn.ReLU()])
def test_bad_quantizer(config):
    with pytest.raises(
        TypeError, match='QuantConv2d: act_quant must be None, a quantizer or a dict with a type'
    ):
        QuantConv2d(4, 8, 3, act_quant=config)
