"""The separable layer: its kernels, its geometry, and dense checkpoints."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwcc.layers import SeparableConv2d
from mmwcc.layers.separable_conv import separable_kernels


def dense_kernel(layer):
    """The one kernel that both convolutions together are."""
    return layer.pointwise_conv.weight * layer.depthwise_conv.weight.transpose(0, 1)


def test_a_kernel_that_is_separable_is_found():
    depthwise, pointwise = torch.randn(3, 1, 3, 5), torch.randn(7, 3, 1, 1)
    kernel = pointwise * depthwise.transpose(0, 1)
    found = separable_kernels(kernel)
    assert found[0].shape == (3, 1, 3, 5) and found[1].shape == (7, 3, 1, 1)
    torch.testing.assert_close(found[1] * found[0].transpose(0, 1), kernel)
    torch.testing.assert_close(found[0].flatten(1).norm(dim=1), found[1].flatten(1).norm(dim=0))


def test_no_separable_kernel_is_nearer():
    """What is left has the energy of all singular values but the first, and no rank one change
    makes it smaller.
    """
    kernel = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    depthwise, pointwise = separable_kernels(kernel)
    left = (kernel - pointwise * depthwise.transpose(0, 1)).square().sum()
    expected = sum(
        torch.linalg.svdvals(kernel[:, c].flatten(1))[1:].square().sum() for c in range(2)
    )
    torch.testing.assert_close(left, expected)
    for _ in range(20):
        other = (pointwise + 0.05 * torch.randn_like(pointwise)) * (
            depthwise + 0.05 * torch.randn_like(depthwise)
        ).transpose(0, 1)
        assert (kernel - other).square().sum() > left


@pytest.mark.parametrize(
    'geometry',
    [
        dict(kernel_size=3, padding=1),
        dict(kernel_size=(1, 3), stride=(2, 1), padding=(0, 1), bias=False),
        dict(kernel_size=5, dilation=2, padding='same'),
        dict(kernel_size=3, stride=2, padding=1, padding_mode='reflect'),
    ],
)
def test_it_is_the_dense_convolution_with_the_product_kernel(geometry):
    conv = nn.Conv2d(4, 6, **geometry).double().eval()
    layer = SeparableConv2d.from_conv2d(conv)
    assert layer.pointwise_conv.bias is conv.bias and not layer.training
    with torch.no_grad():
        conv.weight.copy_(dense_kernel(layer))
    x = torch.randn(2, 4, 11, 14, dtype=torch.float64)
    torch.testing.assert_close(layer(x), conv(x))


def test_a_start_at_random_is_that_of_torch():
    torch.manual_seed(3)
    fresh = SeparableConv2d(4, 6, 3)
    conv = nn.Conv2d(4, 6, 3)
    torch.manual_seed(3)
    started = SeparableConv2d.from_conv2d(conv, 'random')
    torch.testing.assert_close(started.depthwise_conv.weight, fresh.depthwise_conv.weight)
    assert started.pointwise_conv.bias is conv.bias


def test_dense_checkpoints_load():
    dense = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False))
    model = nn.Sequential(SeparableConv2d(3, 4, 3), nn.ReLU(), SeparableConv2d(4, 5, 3, bias=False))
    weights = dense.state_dict()
    before = dict(weights)
    model.load_state_dict(weights)
    assert weights.keys() == before.keys()
    expected = separable_kernels(dense[0].weight)
    torch.testing.assert_close(model[0].depthwise_conv.weight.data, expected[0])
    torch.testing.assert_close(model[0].pointwise_conv.weight.data, expected[1])
    torch.testing.assert_close(model[0].pointwise_conv.bias, dense[0].bias)
    again = nn.Sequential(SeparableConv2d(3, 4, 3), nn.ReLU(), SeparableConv2d(4, 5, 3, bias=False))
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 9, 9)
    assert torch.equal(again(x), model(x))


def test_a_dense_kernel_of_another_shape_does_not_load():
    with pytest.raises(RuntimeError, match='Unexpected key.*weight'):
        SeparableConv2d(3, 4, 3).load_state_dict(nn.Conv2d(3, 5, 3).state_dict())


def test_copies_and_pickles():
    layer, x = SeparableConv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))


def test_it_serves_in_mmcv():
    bricks = pytest.importorskip('mmcv.cnn')
    module = bricks.ConvModule(
        4,
        8,
        3,
        stride=2,
        padding=1,
        norm_cfg=dict(type='BN'),
        conv_cfg=dict(type='mmwcc.SeparableConv2d'),
    )
    module.init_weights()
    assert type(module.conv) is SeparableConv2d and module.conv.pointwise_conv.bias is None
    assert (module.in_channels, module.out_channels, module.kernel_size, module.stride) == (
        4,
        8,
        (3, 3),
        (2, 2),
    )
    x = torch.randn(2, 4, 9, 9)
    expected = F.conv2d(x, dense_kernel(module.conv), stride=2, padding=1)
    torch.testing.assert_close(module.conv(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('wrong', [dict(kernel_size=1), dict(kernel_size=3, groups=2)])
def test_what_it_cannot_be_is_refused(wrong):
    with pytest.raises(
        ValueError, match='kernel_size must be larger than 1 and groups must be 1, got'
    ):
        SeparableConv2d(4, 4, **wrong)


def test_unknown_start_is_refused():
    with pytest.raises(
        ValueError, match="SeparableConv2d: init must be 'svd' or 'random', got 'zero'"
    ):
        SeparableConv2d.from_conv2d(nn.Conv2d(3, 3, 3), 'zero')


def test_a_computed_kernel_is_not_separated():
    with pytest.raises(ValueError, match='SeparableConv2d: the weight of conv must be a parameter'):
        SeparableConv2d.from_conv2d(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)))
