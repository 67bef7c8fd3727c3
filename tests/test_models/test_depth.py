"""Monodepth2: its geometry and losses against values by hand, its three ways of training, and its compressed twin."""
import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement

from mmwcc.compression import compressed_layers
from mmwcc.models.depth import DepthDataPreprocessor, DepthDecoder, Monodepth2, PoseNetwork
from mmwcc.models.depth.geometry import backproject, disp_to_depth, pose_matrix, project, warp
from mmwcc.models.depth.losses import (
    edge_aware_smoothness,
    least_reprojection_error,
    log_depth_error,
    photometric_error,
    ssim_distance,
)

HEIGHT, WIDTH = 64, 96
CHANNELS = [4, 6, 8, 8, 8]


class Pyramid(BaseModule):
    """Five strided convolutions."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in zip([3, *CHANNELS], CHANNELS, strict=False))

    def forward(self, x):
        features = []
        for conv in self.convs:
            x = conv(x).relu()
            features.append(x)
        return tuple(features)


def model(**changes) -> Monodepth2:
    return Monodepth2(**{**config(), **changes})


def config() -> dict:
    return dict(backbone=dict(type=Pyramid), decoder=dict(type='mmwcc.DepthDecoder', in_channels=CHANNELS,
                                                          channels=[4, 6, 8, 8, 8]),
                pose_net=dict(type='mmwcc.PoseNetwork', backbone=dict(type=Pyramid), in_channels=8, channels=8))


def intrinsics(focal: float = 50.0, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def batch(frame_ids=(-1, 1), count=2, poses=None, size=(HEIGHT, WIDTH)) -> dict:
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (count, 1 + len(frame_ids), 3, *size), dtype=torch.uint8)
    samples = []
    for sample_frames in frames:
        sample = BaseDataElement(metainfo=dict(frame_ids=frame_ids), frames=sample_frames, intrinsics=intrinsics())
        if poses is not None:
            sample.source_poses = poses
        samples.append(sample)
    return dict(inputs=list(frames), data_samples=samples)


def losses(network: Monodepth2, data: dict) -> dict:
    return network(**network.data_preprocessor(data, True), mode='loss')


def translation(x=0.0, y=0.0, z=0.0) -> torch.Tensor:
    return pose_matrix(torch.zeros(1, 3), torch.tensor([[x, y, z]]))


# Geometry

def test_disparity_is_linear_in_inverse_depth():
    disp = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    expected = torch.tensor([100.0, 1 / (0.01 + 0.25 * 9.99), 0.1], dtype=torch.float64)
    torch.testing.assert_close(disp_to_depth(disp, 0.1, 100.0), expected)


def test_pose_matrix_rotates_by_the_right_hand_rule():
    angle = 0.3
    pose = pose_matrix(torch.tensor([[0.0, angle, 0.0]]), torch.tensor([[1.0, 2.0, 3.0]]))[0]
    expected = torch.tensor([[math.cos(angle), 0, math.sin(angle), 1], [0, 1, 0, 2],
                             [-math.sin(angle), 0, math.cos(angle), 3], [0, 0, 0, 1]])
    torch.testing.assert_close(pose, expected)


def test_inverse_pose():
    vector, shift = torch.randn(3, 3), torch.randn(3, 3)
    product = pose_matrix(vector, shift) @ pose_matrix(vector, shift, invert=True)
    torch.testing.assert_close(product, torch.eye(4).expand(3, 4, 4), atol=1e-5, rtol=0)


def test_pose_has_a_gradient_at_rest():
    vector, shift = torch.zeros(1, 3, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    pose_matrix(vector, shift, invert=True)[0, 0, 2].backward()
    assert vector.grad.tolist() == [[0.0, -1.0, 0.0]]


def test_points_project_to_their_own_pixels():
    camera = intrinsics(height=5, width=7)[None].double()
    depth = torch.rand(1, 1, 5, 7, dtype=torch.float64) + 1
    pixels = project(backproject(depth, camera), camera, torch.eye(4, dtype=torch.float64)[None])
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing='ij')
    torch.testing.assert_close(pixels[0], torch.stack([x, y], 2).double())


def test_pixel_of_a_known_point():
    """A point 2 m ahead on the axis, seen by a camera 0.5 m to the right of the first."""
    point = torch.tensor([0.0, 0.0, 2.0]).reshape(1, 3, 1, 1)
    pixel = project(point, intrinsics(40.0)[None], translation(x=-0.5))
    torch.testing.assert_close(pixel.flatten(), torch.tensor([(WIDTH - 1) / 2 - 10, (HEIGHT - 1) / 2]))


@pytest.mark.parametrize(('shift', 'columns', 'rows'), [(0.5, 5, 0), (-0.2, -2, 0), (0.0, 0, 3)])
def test_warp_of_a_wall_is_a_shift(shift, columns, rows):
    """At depth 4 and focal length 40, 0.1 m are one pixel."""
    source = torch.rand(1, 3, 20, 30, dtype=torch.float64)
    depth = torch.full((1, 1, 20, 30), 4.0, dtype=torch.float64)
    pose = translation(x=shift, y=rows / 10).double()
    warped = warp(source, depth, pose, intrinsics(40.0, 20, 30)[None])
    expected = source[..., rows:, max(columns, 0):30 + min(columns, 0)]
    torch.testing.assert_close(warped[..., :20 - rows, max(-columns, 0):30 - max(columns, 0)], expected, atol=1e-6,
                               rtol=0)


def test_warp_repeats_the_border():
    source = torch.arange(6.0).expand(1, 1, 4, 6)
    warped = warp(source, torch.ones(1, 1, 4, 6), translation(x=100.0), intrinsics(1.0, 4, 6)[None])
    assert warped.unique().tolist() == [5.0]


def test_warp_is_differentiable_in_depth_and_pose():
    torch.manual_seed(3)
    source = torch.rand(1, 2, 5, 6, dtype=torch.float64)
    depth = torch.rand(1, 1, 5, 6, dtype=torch.float64) + 2
    motion = 0.01 * torch.randn(2, 1, 3, dtype=torch.float64)
    camera = intrinsics(5.0, 5, 6)[None].double()

    def warped(depth, vector, shift):
        return warp(source, depth, pose_matrix(vector, shift), camera)

    assert torch.autograd.gradcheck(warped, [t.clone().requires_grad_() for t in (depth, *motion)])


def test_poses_keep_their_precision_under_autocast():
    vector, shift = torch.randn(2, 3), torch.randn(2, 3)
    expected = pose_matrix(vector.double(), shift.double(), invert=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(pose_matrix(vector, shift, invert=True), expected.float(), atol=1e-5, rtol=0)


def test_warp_keeps_its_precision_under_autocast():
    source, depth = torch.rand(1, 3, 20, 30), torch.rand(1, 1, 20, 30) + 2
    pose, camera = translation(0.1, 0.0, 0.2), intrinsics(40.0, 20, 30)[None]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        warped, exact = warp(source, depth, pose, camera), warp(source, depth.double(), pose, camera)
    torch.testing.assert_close(warped, exact.float(), atol=1e-5, rtol=0)


# Losses

def test_ssim_of_constant_pictures():
    x, y = (torch.full((1, 1, 4, 4), value, dtype=torch.float64) for value in (0.2, 0.6))
    similarity = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    torch.testing.assert_close(ssim_distance(x, y), torch.full_like(x, (1 - similarity) / 2))
    assert ssim_distance(x, x).abs().max() < 1e-6


def test_ssim_against_windows_one_by_one():
    x, y = np.random.default_rng(0).random((2, 6, 7))
    padded = [np.pad(picture, 1, mode='reflect') for picture in (x, y)]
    expected = np.empty((6, 7))
    for i in range(6):
        for j in range(7):
            a, b = (picture[i:i + 3, j:j + 3].ravel() for picture in padded)
            covariance = np.cov(a, b, bias=True)
            similarity = ((2 * a.mean() * b.mean() + 1e-4) * (2 * covariance[0, 1] + 9e-4)
                          / ((a.mean()**2 + b.mean()**2 + 1e-4) * (np.trace(covariance) + 9e-4)))
            expected[i, j] = np.clip((1 - similarity) / 2, 0, 1)
    ours = ssim_distance(*(torch.from_numpy(picture)[None, None] for picture in (x, y)))
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-12)


def test_photometric_error_weighs_its_parts():
    x, y = torch.rand(2, 1, 3, 5, 5)
    expected = 0.85 * ssim_distance(x, y).mean(1) + 0.15 * (x - y).abs().mean(1)
    torch.testing.assert_close(photometric_error(x, y)[:, 0], expected)


def test_least_error_over_sources_and_rest():
    warped = torch.tensor([[[[0.4, 0.1, 0.9]], [[0.2, 0.3, 0.8]]]], requires_grad=True)
    identity = torch.tensor([[[[0.5, 0.5, 0.5]], [[0.6, 0.6, 0.8]]]])
    loss = least_reprojection_error(warped, identity)
    assert loss.item() == pytest.approx((0.2 + 0.1 + 0.5) / 3)
    loss.backward()
    expected = torch.tensor([[[[0, 1, 0]], [[1, 0, 0]]]]) / 3
    torch.testing.assert_close(warped.grad, expected)
    assert least_reprojection_error(warped, None).item() == pytest.approx((0.2 + 0.1 + 0.8) / 3)


def test_smoothness_by_hand():
    """A step of 2 in disparities of mean 2, where the picture has a step of 1: exp(-1) in 1 of 3 gaps of each row."""
    disp = torch.tensor([1.0, 1.0, 3.0, 3.0]).expand(1, 1, 2, 4)
    image = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 3, 2, 4)
    assert edge_aware_smoothness(disp, image).item() == pytest.approx(math.exp(-1) / 3, abs=1e-6)
    assert edge_aware_smoothness(disp, torch.zeros_like(image)).item() == pytest.approx(1 / 3, abs=1e-6)


def test_log_depth_error_by_hand():
    depth, measured = torch.tensor([[2.0, 4.0, 7.0]]), torch.tensor([[1.0, 4.0, 0.0]])
    assert log_depth_error(depth, measured).item() == pytest.approx(math.log(2) / 2)
    assert log_depth_error(depth, torch.zeros_like(depth)) == 0


# Parts

@pytest.mark.parametrize('size', [(64, 96), (65, 97), (72, 96), (33, 40)])
@pytest.mark.parametrize('separable', [True, False])
def test_decoder_sizes(size, separable):
    decoder = DepthDecoder(CHANNELS, [4, 6, 8, 8, 8], separable=separable)
    features = Pyramid()(torch.rand(1, 3, *size))
    disps = decoder(features, size)
    assert [tuple(disp.shape) for disp in disps] == [(1, 1, *size), *((1, 1, *f.shape[2:]) for f in features[:3])]
    assert all(disp.min() > 0 and disp.max() < 1 for disp in disps)


def test_decoder_splits_every_convolution():
    def kernels(separable):
        decoder = DepthDecoder([16, 24, 32, 96, 1280], separable=separable)
        return [(conv.kernel_size[0], conv.in_channels, conv.out_channels, conv.groups)
                for conv in decoder.modules() if isinstance(conv, nn.Conv2d)]

    dense = kernels(False)
    assert dense[:5] == [(3, 32, 16, 1), (3, 64, 32, 1), (3, 128, 64, 1), (3, 256, 128, 1), (3, 1280, 256, 1)]
    assert dense[5:10] == [(3, 16, 16, 1), (3, 48, 32, 1), (3, 88, 64, 1), (3, 160, 128, 1), (3, 352, 256, 1)]
    assert dense[10:] == [(3, 16, 1, 1), (3, 32, 1, 1), (3, 64, 1, 1), (3, 128, 1, 1)]
    assert kernels(True) == [part for k, i, o, _ in dense for part in ((k, i, i, i), (1, i, o, 1))]


def test_separable_decoder_takes_over_dense_weights():
    """A kernel that is a product of a depthwise and a 1x1 one comes back as it was."""
    dense, separable = (DepthDecoder(CHANNELS, [4, 6, 8, 8, 8], separable=flag) for flag in (False, True))
    for conv in dense.modules():
        if isinstance(conv, nn.Conv2d):
            depthwise, pointwise = torch.randn(conv.in_channels, 3, 3), torch.randn(conv.out_channels, conv.in_channels)
            conv.weight.data = 0.1 * torch.einsum('chw,oc->ochw', depthwise, pointwise)
    separable.load_state_dict(dense.state_dict())
    features = Pyramid()(torch.rand(1, 3, 64, 64))
    for ours, theirs in zip(separable(features, (64, 64)), dense(features, (64, 64)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_decoder_refuses():
    with pytest.raises(ValueError, match=r'DepthDecoder: in_channels must hold five numbers, got \[4, 4\]'):
        DepthDecoder([4, 4])
    with pytest.raises(ValueError, match='features must be five maps of at least 2x2, got .*Set out_indices'):
        DepthDecoder(CHANNELS, [4, 6, 8, 8, 8])(Pyramid()(torch.rand(1, 3, 32, 64)), (32, 64))


def test_pose_network_takes_over_weights_for_single_pictures():
    network, single = PoseNetwork(dict(type=Pyramid), 8, 8), Pyramid()
    assert network.backbone.convs[0].in_channels == 6
    network.backbone.load_state_dict(single.state_dict())
    picture = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(network.backbone.convs[0](torch.cat([picture, picture], 1)), single.convs[0](picture))
    again = PoseNetwork(dict(type=Pyramid), 8, 8)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(picture, picture), network(picture, picture))


def test_pose_network_needs_a_convolution():
    with pytest.raises(ValueError, match='backbone must have a convolution, got Identity with none'):
        PoseNetwork(dict(type=nn.Identity), 8)


def test_preprocessor():
    preprocess = DepthDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 4.0])
    frames = torch.tensor([3, 4, 5], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(2, 3, 1, 1)  # blue, green, red
    out = preprocess(dict(inputs=[frames]))['inputs']
    assert out.shape == (1, 2, 3, 1, 1) and out[0, 1].flatten().tolist() == [4.0, 1.0, 0.0]
    with pytest.raises(ValueError, match=r'must have one shape, got \[\(3, 2, 2\), \(3, 2, 3\)\]'):
        preprocess(dict(inputs=[torch.zeros(3, 2, 2), torch.zeros(3, 2, 3)]))


# The model

def test_self_supervised_losses_reach_both_networks():
    network = model()
    out = losses(network, batch())
    assert set(out) == {'loss_photometric', 'loss_smoothness'}
    sum(out.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert network.pose_net.layers[-1].weight.grad.abs().max() > 0


def test_photometric_loss_is_that_of_its_parts():
    """With zero motion, warped pictures are the sources, and nothing is better than rest."""
    network = model(smoothness_weight=0.0, photometric_weight=2.0)
    nn.init.zeros_(network.pose_net.layers[-1].weight)
    nn.init.zeros_(network.pose_net.layers[-1].bias)
    data = batch()
    frames = torch.stack([sample.frames for sample in data['data_samples']]).float() / 255
    errors = torch.cat([photometric_error(frames[:, i], frames[:, 0]) for i in (1, 2)], 1)
    out = losses(network, data)
    torch.testing.assert_close(out['loss_photometric'], 2 * errors.amin(1).mean(), atol=2e-4, rtol=0)


def test_without_auto_masking_what_does_not_fit_counts():
    network = model(smoothness_weight=0.0)
    nn.init.constant_(network.pose_net.layers[-1].bias, 3.0)
    masked = losses(network, batch())['loss_photometric']
    network.auto_mask = False
    assert losses(network, batch())['loss_photometric'] > masked + 1e-3


def test_frames_before_get_the_inverse_motion():
    """The same pair of pictures, as before and after: the poses are inverse to each other."""
    network = model().eval()
    data = batch()
    data['inputs'] = [torch.stack([f[0], f[1], f[0]]) for f in data['inputs']]
    out = network.data_preprocessor(data)
    inputs = out['inputs']
    before = network.source_poses(inputs, out['data_samples'])[0]
    swapped = torch.stack([inputs[:, 1], inputs[:, 1], inputs[:, 0]], 1)
    after = network.source_poses(swapped, out['data_samples'])[1]
    torch.testing.assert_close(before @ after, torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)


def test_stereo_needs_no_pose_network():
    eyes = torch.eye(4)[None].clone()
    eyes[0, 0, 3] = -0.1
    network = model(pose_net=None)
    out = losses(network, batch(('s', ), poses=eyes))
    assert torch.isfinite(out['loss_photometric'])
    both = torch.cat([torch.full((2, 4, 4), torch.nan), eyes])
    out = losses(model(), batch((-1, 1, 's'), poses=both))
    assert torch.isfinite(out['loss_photometric'])


def test_supervised_alone():
    network = model(pose_net=None, photometric_weight=0.0, depth_weight=1.0)
    data = batch()
    for sample in data['data_samples']:
        sample.gt_depth = torch.full((HEIGHT, WIDTH), 5.0)
    out = losses(network, data)
    assert set(out) == {'loss_depth', 'loss_smoothness'}
    with torch.no_grad():
        disps = network(network.data_preprocessor(data)['inputs'])
        coarse = [nn.functional.interpolate(disp, (HEIGHT, WIDTH), mode='bilinear') for disp in disps]
        expected = sum((disp_to_depth(disp, 0.1, 100.0) / 5).log().abs().mean() for disp in coarse) / 4
    torch.testing.assert_close(out['loss_depth'].detach(), expected)


def test_training_lowers_the_loss():
    network = model(photometric_weight=0.0, depth_weight=1.0, pose_net=None, min_depth=1.0)
    data = batch()
    for sample in data['data_samples']:
        sample.gt_depth = torch.linspace(2, 20, HEIGHT)[:, None].expand(HEIGHT, WIDTH)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    history = []
    for _ in range(12):
        loss = sum(losses(network, copy.deepcopy(data)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.7 * history[0]


def test_prediction():
    network = model().eval()
    data = batch()
    out = network.val_step(data)
    disp = network(network.data_preprocessor(batch())['inputs'])[0]
    torch.testing.assert_close(out[1].pred_depth, disp_to_depth(disp, 0.1, 100.0)[1, 0])
    single = dict(inputs=[f[0] for f in batch()['inputs']], data_samples=batch()['data_samples'])
    torch.testing.assert_close(network.val_step(single)[0].pred_depth, out[0].pred_depth)


def test_reprojection_with_known_motion():
    """A pair of pictures that differ by a shift, depth as it is: the target comes back where the source covers it."""
    network = model(pose_net=None).eval()
    for conv in network.decoder.dispconvs:
        nn.init.zeros_(conv.pointwise_conv.weight)
        nn.init.zeros_(conv.pointwise_conv.bias)
    depth = float(disp_to_depth(torch.tensor(0.5), 0.1, 100.0))
    pose = translation(x=3 * depth / 50)[0][None]  # three pixels
    data = batch((1, ), poses=pose)
    for sample in data['data_samples']:
        sample.frames[1] = sample.frames[0].roll(3, -1)
    out = network.data_preprocessor(data)
    rebuilt = network.reproject(out['inputs'], out['data_samples'])
    target = torch.stack([sample.frames[0] for sample in out['data_samples']]).float() / 255
    torch.testing.assert_close(rebuilt[:, 0, ..., 1:-4], target[..., 1:-4], atol=1e-3, rtol=0)


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(min_depth=0.0), r'min_depth must be in \(0, max_depth\), got 0.0 and 100.0'),
    (dict(min_depth=5.0, max_depth=2.0), 'got 5.0 and 2.0'),
    (dict(photometric_weight=0.0), 'photometric_weight or depth_weight must be above 0'),
    (dict(photometric_weight=0.0, depth_weight=1.0), 'pose_net must be None where photometric_weight is 0'),
])
def test_refuses_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)


def test_refuses_what_losses_cannot_use():
    with pytest.raises(ValueError, match="mode must be 'tensor', 'loss' or 'predict', got 'train'"):
        model()(torch.rand(1, 3, 64, 64), mode='train')
    with pytest.raises(ValueError, match='every training sample must have gt_depth, got only'):
        losses(model(depth_weight=1.0), batch())
    with pytest.raises(ValueError, match='every training sample must have source_poses'):
        losses(model(pose_net=None), batch())
    with pytest.raises(ValueError, match='the pose of frame 1 must be known, got none. Give the model a pose_net'):
        losses(model(pose_net=None), batch((1, ), poses=torch.full((1, 4, 4), torch.nan)))
    data = batch()
    for sample in data['data_samples']:
        sample.set_metainfo(dict(frame_ids=(-1, )))
    with pytest.raises(ValueError, match=r'inputs must hold a target and its sources, got \(2, 3, 3, 64, 96\)'):
        losses(model(), data)


# Compression

WCC = dict(pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5), other=dict(type='mmwcc.QuantConv2d'),
           weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
           act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
           keep_dense=['first', r'decoder\.dispconvs\..*', r'pose_net\..*'])


def twin(**changes) -> Monodepth2:
    return MODELS.build(dict(type='mmwcc.CompressedModel', task_type='mmwcc.Monodepth2', compression={**WCC, **changes},
                             **config()))


def test_compressed_twin_trains():
    network = twin()
    assert type(network) is Monodepth2
    names = set(compressed_layers(network))
    assert all(f'decoder.{part}.{level}.{conv}_conv' in names for part in ('up_convs', 'merge_convs')
               for level in range(5) for conv in ('depthwise', 'pointwise'))
    outside = {name for name in names if not name.startswith('decoder.')}
    assert outside == {f'backbone.convs.{i}' for i in range(1, 5)}
    assert not any('dispconvs' in name for name in names)
    sum(losses(network, batch()).values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_all_coefficients_without_quantizers_are_the_dense_network():
    dense = model().eval()
    network = twin(pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=1.0), other=None, weight_quant=None,
                   act_quant=None).eval()
    missing, unexpected = network.load_state_dict(dense.state_dict(), strict=False)
    assert not missing and not unexpected and compressed_layers(network)
    picture = torch.rand(1, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(network(picture), dense(picture), atol=1e-5, rtol=1e-4)


def test_dense_checkpoints_lack_quantizers_only():
    missing, unexpected = twin().load_state_dict(model().state_dict(), strict=False)
    assert not unexpected and missing and all('_quant.' in key for key in missing)


def test_checkpoint_round_trip(tmp_path):
    network = twin()
    losses(network, batch())  # calibrates
    torch.save(network.state_dict(), tmp_path / 'depth.pth')
    again = twin()
    again.load_state_dict(torch.load(tmp_path / 'depth.pth', weights_only=True))
    picture = torch.rand(1, 3, HEIGHT, WIDTH)
    for other in (again, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(other.eval()(picture), network.eval()(picture))
