"""The parts of Monodepth2: decoder, pose network and data preprocessor."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from toy_depth import CHANNELS, Pyramid

from mmwcc.models.depth import DepthDataPreprocessor, DepthDecoder, PoseNetwork


@pytest.mark.parametrize('size', [(64, 96), (65, 97), (72, 96), (33, 40)])
@pytest.mark.parametrize('separable', [True, False])
def test_decoder_sizes(size, separable):
    decoder = DepthDecoder(CHANNELS, [4, 6, 8, 8, 8], separable=separable)
    features = Pyramid()(torch.rand(1, 3, *size))
    disps = decoder(features, size)
    assert [tuple(disp.shape) for disp in disps] == [
        (1, 1, *size),
        *((1, 1, *f.shape[2:]) for f in features[:3]),
    ]
    assert all(disp.min() > 0 and disp.max() < 1 for disp in disps)


def test_decoder_splits_every_convolution():
    def kernels(separable):
        decoder = DepthDecoder([16, 24, 32, 96, 1280], separable=separable)
        return [
            (conv.kernel_size[0], conv.in_channels, conv.out_channels, conv.groups)
            for conv in decoder.modules()
            if isinstance(conv, nn.Conv2d)
        ]

    dense = kernels(False)
    assert dense[:5] == [
        (3, 32, 16, 1),
        (3, 64, 32, 1),
        (3, 128, 64, 1),
        (3, 256, 128, 1),
        (3, 1280, 256, 1),
    ]
    assert dense[5:10] == [
        (3, 16, 16, 1),
        (3, 48, 32, 1),
        (3, 88, 64, 1),
        (3, 160, 128, 1),
        (3, 352, 256, 1),
    ]
    assert dense[10:] == [(3, 16, 1, 1), (3, 32, 1, 1), (3, 64, 1, 1), (3, 128, 1, 1)]
    assert kernels(True) == [part for k, i, o, _ in dense for part in ((k, i, i, i), (1, i, o, 1))]


def test_separable_decoder_takes_over_dense_weights():
    """A kernel that is a product of a depthwise and a 1x1 one comes back as it was."""
    dense, separable = (
        DepthDecoder(CHANNELS, [4, 6, 8, 8, 8], separable=flag) for flag in (False, True)
    )
    for conv in dense.modules():
        if isinstance(conv, nn.Conv2d):
            depthwise, pointwise = (
                torch.randn(conv.in_channels, 3, 3),
                torch.randn(conv.out_channels, conv.in_channels),
            )
            conv.weight.data = 0.1 * torch.einsum('chw,oc->ochw', depthwise, pointwise)
    separable.load_state_dict(dense.state_dict())
    features = Pyramid()(torch.rand(1, 3, 64, 64))
    for ours, theirs in zip(separable(features, (64, 64)), dense(features, (64, 64)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_decoder_refuses():
    with pytest.raises(
        ValueError, match=r'DepthDecoder: in_channels must hold five numbers, got \[4, 4\]'
    ):
        DepthDecoder([4, 4])
    with pytest.raises(
        ValueError, match='features must be five maps of at least 2x2, got .*Set out_indices'
    ):
        DepthDecoder(CHANNELS, [4, 6, 8, 8, 8])(Pyramid()(torch.rand(1, 3, 32, 64)), (32, 64))


def test_pose_network_takes_over_weights_for_single_images():
    network, single = PoseNetwork(dict(type=Pyramid), 8, 8), Pyramid()
    assert network.backbone.convs[0].in_channels == 6
    network.backbone.load_state_dict(single.state_dict())
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        network.backbone.convs[0](torch.cat([image, image], 1)), single.convs[0](image)
    )
    again = PoseNetwork(dict(type=Pyramid), 8, 8)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(image, image), network(image, image))


def test_pose_network_needs_a_convolution():
    with pytest.raises(
        ValueError, match='backbone must have a convolution, got Identity with none'
    ):
        PoseNetwork(dict(type=nn.Identity), 8)


def test_preprocessor():
    preprocess = DepthDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 4.0])
    frames = (
        torch.tensor([3, 4, 5], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(2, 3, 1, 1)
    )  # blue, green, red
    out = preprocess(dict(inputs=[frames]))['inputs']
    assert out.shape == (1, 2, 3, 1, 1) and out[0, 1].flatten().tolist() == [4.0, 1.0, 0.0]
    with pytest.raises(ValueError, match=r'must have one shape, got \[\(3, 2, 2\), \(3, 2, 3\)\]'):
        preprocess(dict(inputs=[torch.zeros(3, 2, 2), torch.zeros(3, 2, 3)]))
