"""WaveletConv2d: its block structure against a dense convolution, weights, the fused transform,
conv_cfg, errors.
"""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmwcc.layers import DepthwiseFastWaveletTransform, WaveletConv2d, WConv, wavelet_partition

GEOMETRIES = [
    dict(kernel_size=1),
    dict(kernel_size=3, padding=1),
    dict(kernel_size=3, stride=2, padding=1, bias=False),
    dict(kernel_size=(1, 5), padding='same', dilation=2),
    dict(kernel_size=1, stride=2),
    dict(kernel_size=3, padding=2, dilation=2, padding_mode='reflect'),
    dict(kernel_size=4, padding='valid'),
]


def dense(layer: WaveletConv2d) -> nn.Conv2d:
    """Write the pieces into the dense convolution that they are blocks of."""
    conv = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        bias=layer.pieces[0].bias is not None,
        padding_mode=layer.padding_mode,
    )
    conv = conv.to(layer.pieces[0].weight.dtype)
    row = col = 0
    with torch.no_grad():
        conv.weight.zero_()
        for piece in layer.pieces:
            rows, cols = slice(row, row + piece.out_channels), slice(col, col + piece.in_channels)
            conv.weight[rows, cols] = piece.weight
            if conv.bias is not None:
                conv.bias[rows] = piece.bias
            row, col = rows.stop, cols.stop
    return conv


@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
@pytest.mark.parametrize('kappa', [0, 1, 3])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_equals_the_dense_convolution_of_its_blocks(geometry, kappa, memory_format):
    layer = WaveletConv2d(16, 24, **geometry, kappa=kappa).double()
    conv = dense(layer)
    x = (
        torch.randn(2, 16, 9, 10, dtype=torch.float64)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
    )
    y, expected = layer(x), conv(x)
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous(memory_format=memory_format)
    grad = torch.randn_like(y)
    torch.testing.assert_close(*(torch.autograd.grad(value, x, grad)[0] for value in (y, expected)))


@pytest.mark.parametrize('kappa', range(1, 7))
@pytest.mark.parametrize(
    'in_channels, out_channels, size', [(64, 64, 1), (128, 64, 3), (64, 192, 1)]
)
def test_number_of_weights(in_channels, out_channels, size, kappa):
    layer = WaveletConv2d(in_channels, out_channels, size, bias=False, kappa=kappa)
    weights = sum(parameter.numel() for parameter in layer.parameters())
    assert weights * 2 ** (kappa + 2) == (kappa + 3) * in_channels * out_channels * size**2


def test_partitions():
    assert wavelet_partition(40, 0) == [40]
    assert wavelet_partition(40, 3) == [20, 10, 5, 5]
    layer = WaveletConv2d(48, 16, 1, kappa=3)
    assert [(piece.in_channels, piece.out_channels) for piece in layer.pieces] == [
        (24, 2),
        (12, 2),
        (6, 4),
        (6, 8),
    ]


@pytest.mark.parametrize('kappa, depth', [(3, 3), (3, 1), (2, 3), (0, 3), (3, 4), (4, 2), (0, 1)])
@pytest.mark.parametrize('orthonormal', [False, True])
def test_fused_transform_equals_the_layers_one_after_the_other(kappa, depth, orthonormal):
    fused = WaveletConv2d(
        32, 16, 3, padding=1, kappa=kappa, dfwt=depth, orthonormal=orthonormal
    ).double()
    plain = WaveletConv2d(32, 16, 3, padding=1, kappa=kappa).double()
    plain.load_state_dict(fused.state_dict())
    transform = DepthwiseFastWaveletTransform(depth, orthonormal)
    x = torch.randn(2, 32, 5, 4, dtype=torch.float64, requires_grad=True)
    y, expected = fused(x), plain(transform(x))
    torch.testing.assert_close(y, expected)
    grad = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(y, (x, *fused.parameters()), grad),
        torch.autograd.grad(expected, (x, *plain.parameters()), grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_fused_transform_hands_its_pieces_on_without_a_copy(monkeypatch):
    """The only concatenation is that of the outputs, and convolutions read contiguous pieces."""
    joined, inputs = [], []
    cat = torch.cat
    monkeypatch.setattr(
        torch, 'cat', lambda tensors, dim=0: joined.append(len(tensors)) or cat(tensors, dim)
    )
    layer = WaveletConv2d(32, 16, 1, kappa=3, dfwt=3)
    for piece in layer.pieces:
        piece.register_forward_pre_hook(lambda _, args: inputs.append(args[0].is_contiguous()))
    layer(torch.randn(2, 32, 5, 4))
    assert joined == [4] and inputs == [True] * 4


def test_unbatched_input():
    layer = WaveletConv2d(16, 8, 3, kappa=2, dfwt=2)
    x = torch.randn(16, 5, 6)
    torch.testing.assert_close(layer(x), layer(x.unsqueeze(0))[0])


def test_autocast():
    layer = WaveletConv2d(16, 8, 1, kappa=3, dfwt=3)
    x = torch.randn(2, 16, 5, 4, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)


def test_copy_and_pickle():
    layer = WaveletConv2d(16, 8, 1, kappa=3, dfwt=3)
    x = torch.randn(1, 16, 3, 3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), layer(x))


def test_compiles_as_one_graph():
    torch._dynamo.reset()
    layer = WaveletConv2d(16, 8, 1, kappa=3, dfwt=3)
    x = torch.randn(2, 16, 5, 4)
    torch.testing.assert_close(
        torch.compile(layer, fullgraph=True, backend='aot_eager')(x), layer(x)
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            dict(in_channels=24, kappa=4),
            r'in_channels must be divisible by 2\*\*kappa=16, got 24. Use kappa=3 at most',
        ),
        (
            dict(out_channels=20, kappa=3),
            r'out_channels must be divisible by 2\*\*kappa=8, got 20. Use kappa=2 at most',
        ),
        (
            dict(in_channels=24, kappa=1, dfwt=4),
            r'in_channels must be divisible by 2\*\*dfwt=16, got 24. Use dfwt=3',
        ),
        (dict(kappa=-1), 'kappa must be at least 0, got -1'),
        (dict(dfwt=-2), 'dfwt must be at least 0, got -2'),
        (
            dict(groups=2),
            "groups must be 1, got 2. Use nn.Conv2d for it, or conv_cfg=dict.type='mmwcc.WConv'",
        ),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError, match=f'WaveletConv2d: {message}'):
        WaveletConv2d(**{**dict(in_channels=16, out_channels=16, kernel_size=1), **arguments})


def test_bad_kind():
    with pytest.raises(TypeError, match='WaveletConv2d: kappa must be a whole number, got 2.5'):
        WaveletConv2d(16, 16, 1, kappa=2.5)


@pytest.mark.parametrize('shape', [(2, 8, 3, 3), (16,), (1, 1, 16, 3, 3)])
def test_bad_input(shape):
    with pytest.raises(
        ValueError, match=r'WaveletConv2d: x must have shape \(B, 16, H, W\) or \(16, H, W\), got'
    ):
        WaveletConv2d(16, 8, 1)(torch.randn(shape))


@pytest.mark.parametrize(
    'channels, options, expected',
    [
        ((16, 32), dict(kappa=3, dfwt=3), (3, 3)),
        ((16, 32), dict(kappa=0, dfwt=2), (0, 2)),
        ((24, 40), dict(kappa=5, dfwt=5, lower=True), (3, 3)),
        ((96, 24), dict(kappa=5, dfwt=2, lower=True), (3, 2)),
        ((96, 24), dict(kappa=3, dfwt=5, lower=True), (3, 5)),
        ((12, 24), dict(kappa=0, dfwt=3, lower=True), (0, 2)),
    ],
)
def test_wconv_lowers_where_it_is_told_to(channels, options, expected):
    layer = WConv(*channels, 1, **options)
    assert (layer.kappa, layer.dfwt.kappa) == expected


def test_wconv_refuses_by_default():
    with pytest.raises(ValueError, match='WaveletConv2d: in_channels must be divisible'):
        WConv(3, 16, 3, kappa=3)


@pytest.mark.parametrize(
    'geometry, options',
    [
        (dict(in_channels=8, out_channels=8, groups=8), dict(kappa=3)),
        (dict(in_channels=8, out_channels=8), dict(kappa=0)),
        (dict(in_channels=3, out_channels=8), dict(kappa=3, dfwt=3, lower=True)),
    ],
)
def test_wconv_is_an_ordinary_convolution_where_nothing_is_divided(geometry, options):
    layer = WConv(**geometry, kernel_size=3, padding=1, **options)
    assert (
        type(layer) is nn.Conv2d
        and layer.groups == geometry.get('groups', 1)
        and layer.padding == (1, 1)
    )


def test_conv_cfg():
    bricks = pytest.importorskip('mmcv.cnn')
    module = bricks.ConvModule(
        16,
        32,
        3,
        stride=2,
        padding=1,
        norm_cfg=dict(type='BN'),
        conv_cfg=dict(type='mmwcc.WConv', kappa=3, dfwt=3),
    )
    assert (module.in_channels, module.out_channels, module.stride, module.groups) == (
        16,
        32,
        (2, 2),
        1,
    )
    assert module.conv.pieces[0].bias is None
    x = torch.randn(2, 16, 8, 8)
    expected = F.relu(module.bn(dense(module.conv)(DepthwiseFastWaveletTransform(3)(x))))
    torch.testing.assert_close(module(x), expected)
