"""WaveletCompressedLinear: the linear layer and the 1x1 convolution it equals, maps and tokens."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmwcc.layers import TokenGrid, WaveletCompressedConv2d, WaveletCompressedLinear, fitting_levels
from mmwcc.testing import Compression, Measured, reference_wcc, relative_error, to_numpy

QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
SIZES = [(1, 1), (7, 7), (9, 12), (32, 40), (31, 33)]


def with_grid(layer, *sizes, **extra):
    layer.token_grid = TokenGrid(sizes, **extra)
    return layer


def as_tokens(x):
    """Return a map (B, C, H, W) as tokens (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('form', ['map', 'tokens', 'class token'])
def test_keep_ratio_1_is_the_dense_layer(size, form):
    dense = nn.Linear(24, 13)
    layer = with_grid(WaveletCompressedLinear.from_linear(dense, keep_ratio=1), size, extra=1)
    length = size[0] * size[1]
    shapes = {'map': size, 'tokens': (length,), 'class token': (1 + length,)}
    x = torch.randn(2, *shapes[form], 24, requires_grad=True)
    expected, y = dense(x), layer(x)
    assert relative_error(y, to_numpy(expected)) < 1e-5
    grad, tensors = torch.randn_like(expected), (x, dense.weight, dense.bias)
    for ours, theirs in zip(
        torch.autograd.grad(y, tensors, grad),
        torch.autograd.grad(expected, tensors, grad),
        strict=True,
    ):
        assert relative_error(ours, to_numpy(theirs)) < 1e-4


@pytest.mark.parametrize('size', SIZES[1:])
@pytest.mark.parametrize('keep_ratio', [0.5, 0.125])
def test_the_layer_equals_the_reference(size, keep_ratio):
    layer = with_grid(WaveletCompressedLinear(6, 5, keep_ratio=keep_ratio), size).double()
    maps = torch.randn(2, 6, *size, dtype=torch.float64)
    x = as_tokens(maps).requires_grad_()
    y = layer(x)
    expected = reference_wcc(
        maps,
        layer.kernel,
        layer.bias,
        Compression(keep_ratio, fitting_levels(size, 3)),
        measured=Measured(tolerance=1e-12),
    )
    grad = torch.randn(2, 5, *size, dtype=torch.float64)
    y.backward(as_tokens(grad))
    gradients = expected.gradients(to_numpy(grad))
    assert relative_error(y, to_numpy(as_tokens(torch.from_numpy(expected.y)))) < 1e-9
    assert relative_error(x.grad, to_numpy(as_tokens(torch.from_numpy(gradients['x'])))) < 1e-9
    assert relative_error(layer.weight.grad, gradients['weight'][:, :, 0, 0]) < 1e-9
    assert relative_error(layer.bias.grad, gradients['bias']) < 1e-9


@pytest.mark.parametrize('wavelet', ['haar', 'bior2.2'])
def test_a_map_is_treated_as_a_convolution_treats_it(wavelet):
    conv = WaveletCompressedConv2d(6, 5, keep_ratio=0.25, wavelet=wavelet, **QUANTIZERS)
    layer = WaveletCompressedLinear(6, 5, keep_ratio=0.25, wavelet=wavelet, **QUANTIZERS)
    layer.load_state_dict({**conv.state_dict(), 'weight': conv.weight[:, :, 0, 0]})
    x = torch.randn(2, 6, 24, 32)
    expected = conv(x).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x.permute(0, 2, 3, 1)), expected)
    torch.testing.assert_close(layer.act_quant.clip_alpha, conv.act_quant.clip_alpha)
    torch.testing.assert_close(
        with_grid(layer, (24, 32))(as_tokens(x)), expected.flatten(1, 2), rtol=1e-4, atol=1e-5
    )


def test_each_map_of_several_is_transformed_by_itself():
    layer = with_grid(WaveletCompressedLinear(6, 5, keep_ratio=0.25), (16, 8), (4, 6))
    large, small = torch.randn(2, 16, 8, 6), torch.randn(2, 4, 6, 6)
    y = layer(torch.cat([large.flatten(1, 2), small.flatten(1, 2)], 1))
    layer.token_grid = None
    expected = torch.cat([layer(large).flatten(1, 2), layer(small).flatten(1, 2)], 1)
    torch.testing.assert_close(y, expected)


def test_class_tokens_are_multiplied_as_they_are():
    layer = with_grid(WaveletCompressedLinear(6, 5, keep_ratio=0.25), (8, 8), extra=2)
    maps, others = torch.randn(3, 64, 6), torch.randn(3, 2, 6)
    expected = nn.functional.linear(others, layer.weight, layer.bias), layer(maps)
    torch.testing.assert_close(layer(torch.cat([others, maps], 1)), torch.cat(expected, 1))


def test_windows_may_have_any_leading_dimensions():
    layer = with_grid(WaveletCompressedLinear(6, 5, keep_ratio=0.25), (7, 7))
    x = torch.randn(2, 3, 49, 6)
    expected = layer(x.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x.unflatten(2, (7, 7))), expected.unflatten(2, (7, 7)))


@pytest.mark.parametrize('shape', [(2, 10, 6), (10, 6), (6,), (2, 3, 10, 6), (0, 6)], ids=str)
def test_tokens_on_unknown_maps_are_multiplied_with_one_warning(shape):
    layer = with_grid(WaveletCompressedLinear(6, 5, keep_ratio=0.25), (3, 4))
    x = torch.randn(shape)
    with pytest.warns(UserWarning, match=r'WaveletCompressedLinear: tokens must lie on maps'):
        y = layer(x)
    torch.testing.assert_close(y, nn.functional.linear(x, layer.weight, layer.bias))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        layer(x)


def test_the_kept_coefficients_are_saved_for_backward():
    layer = with_grid(WaveletCompressedLinear(64, 8, keep_ratio=0.25, **QUANTIZERS), (32, 32))
    x = torch.randn(2, 1024, 64, requires_grad=True)
    layer(x)
    saved = {}
    with saved_tensors_hooks(
        lambda t: saved.update({t.data_ptr(): t.numel() * t.element_size()}) or t, lambda t: t
    ):
        layer(x)
    assert sum(saved.values()) < 0.3 * x.numel() * x.element_size()


def test_the_result_is_contiguous_without_a_copy():
    layer = WaveletCompressedLinear(16, 8, keep_ratio=0.25)
    y = layer(torch.randn(2, 24, 32, 16))
    assert y.is_contiguous() and y._base is not None


def test_it_is_copied_and_pickled_with_its_grid():
    layer = with_grid(WaveletCompressedLinear(6, 5, keep_ratio=0.25, **QUANTIZERS), (8, 8))
    x = torch.randn(2, 64, 6)
    expected = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), expected)


def test_a_compiled_layer_computes_the_same():
    layer = with_grid(WaveletCompressedLinear(6, 5, keep_ratio=0.25), (8, 8), extra=1).eval()
    compiled, x = torch.compile(layer, backend='eager', fullgraph=True), torch.randn(2, 65, 6)
    torch.testing.assert_close(compiled(x), layer(x))
    layer.token_grid.sizes = ((4, 8),)
    torch.testing.assert_close(compiled(x[:, :33]), layer(x[:, :33]))


def test_settings_can_change_and_are_checked():
    layer = with_grid(WaveletCompressedLinear(6, 5, keep_ratio=0.25), (8, 8))
    x = torch.randn(2, 64, 6)
    layer.keep_ratio = 1.0
    torch.testing.assert_close(
        layer(x), nn.functional.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match='WaveletCompressedLinear: keep_ratio must be in'):
        layer.keep_ratio = 2
    with pytest.raises(ValueError, match='WaveletCompressedLinear: levels must be at least 1'):
        WaveletCompressedLinear(6, 5, keep_ratio=0.5, levels=0)
    with pytest.raises(ValueError, match='act_quant must be signed'):
        WaveletCompressedLinear(
            6, 5, keep_ratio=0.5, act_quant=dict(QUANTIZERS['act_quant'], signed=False)
        )
    with pytest.raises(ValueError, match='x must have in_features=6 as its last dimension'):
        layer(torch.randn(2, 64, 5))
