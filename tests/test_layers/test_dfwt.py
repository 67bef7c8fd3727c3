"""DepthwiseFastWaveletTransform: a layer without parameters, and its inverse."""

import copy
import pickle

import pytest
import torch

from mmwcc.functional import dfwt
from mmwcc.layers import DepthwiseFastWaveletTransform, deepest_kappa
from mmwcc.registry import MODELS


@pytest.mark.parametrize('orthonormal', [False, True])
@pytest.mark.parametrize('shape', [(2, 16, 5, 3), (16, 5, 3), (1, 16, 1, 1)])
def test_forward_joins_the_pieces_and_inverse_undoes_it(shape, orthonormal):
    layer = DepthwiseFastWaveletTransform(3, orthonormal)
    x = torch.randn(shape, dtype=torch.float64)
    y = layer(x)
    assert y.shape == x.shape
    assert torch.equal(
        y.reshape(-1, *y.shape[-3:]), torch.cat(dfwt(x.reshape(-1, *shape[-3:]), 3, orthonormal), 1)
    )
    torch.testing.assert_close(layer.inverse(y), x, rtol=1e-14, atol=1e-14)


def test_pieces_are_not_joined():
    pieces = DepthwiseFastWaveletTransform(3).pieces(torch.randn(1, 48, 2, 2))
    assert [piece.shape[1] for piece in pieces] == [24, 12, 6, 6]


def test_depth_0_is_the_identity():
    x = torch.randn(2, 5, 3, 3)
    layer = DepthwiseFastWaveletTransform(0)
    assert layer(x) is x and layer.inverse(x).equal(x)


def test_it_is_registered_has_no_state_and_can_be_copied():
    layer = MODELS.build(dict(type='DepthwiseFastWaveletTransform', kappa=2, orthonormal=True))
    assert not layer.state_dict()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(other) == 'DepthwiseFastWaveletTransform(kappa=2, orthonormal=True)'


def test_deepest_kappa():
    assert [
        deepest_kappa(5, 96, 24),
        deepest_kappa(5, 96),
        deepest_kappa(2, 96),
        deepest_kappa(3, 3),
    ] == [3, 5, 2, 0]


@pytest.mark.parametrize(
    'kappa, error, message',
    [
        (1.5, TypeError, 'kappa must be a whole number, got 1.5. Use 3'),
        (True, TypeError, 'kappa must be a whole number, got True'),
        (-1, ValueError, 'kappa must be at least 0, got -1. Use 0 for none'),
    ],
)
def test_bad_depth(kappa, error, message):
    with pytest.raises(error, match=f'DepthwiseFastWaveletTransform: {message}'):
        DepthwiseFastWaveletTransform(kappa)


@pytest.mark.parametrize('method', ['forward', 'pieces', 'inverse'])
@pytest.mark.parametrize('channels, allowed', [(12, 2), (7, 0)])
def test_odd_channels(method, channels, allowed):
    layer = DepthwiseFastWaveletTransform(3)
    with pytest.raises(
        ValueError, match=rf'divisible by 2\*\*kappa=8, got {channels}. Use kappa={allowed} at most'
    ):
        getattr(layer, method)(torch.randn(1, channels, 2, 2))


def test_bad_shape():
    with pytest.raises(ValueError, match=r'x must have shape \(B, D, H, W\) or \(D, H, W\), got'):
        DepthwiseFastWaveletTransform(1)(torch.randn(2, 8))
