"""Monodepth2: its losses, its three ways of training, its predictions, and its compressed twin."""

import copy
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from toy_depth import CHANNELS, HEIGHT, WIDTH, Pyramid, intrinsics, translation

from mmwcc.model_tree.compressed import compressed_layers
from mmwcc.models.depth import Monodepth2
from mmwcc.models.depth.geometry import disp_to_depth
from mmwcc.models.depth.losses import photometric_error


def model(**changes) -> Monodepth2:
    return Monodepth2(**{**config(), **changes})


def config() -> dict:
    return dict(
        backbone=dict(type=Pyramid),
        decoder=dict(type='mmwcc.DepthDecoder', in_channels=CHANNELS, channels=[4, 6, 8, 8, 8]),
        pose_net=dict(
            type='mmwcc.PoseNetwork', backbone=dict(type=Pyramid), in_channels=8, channels=8
        ),
    )


def batch(frame_ids=(-1, 1), count=2, poses=None, size=(HEIGHT, WIDTH)) -> dict:
    torch.manual_seed(1)
    frames = torch.randint(0, 256, (count, 1 + len(frame_ids), 3, *size), dtype=torch.uint8)
    samples = []
    for sample_frames in frames:
        sample = BaseDataElement(
            metainfo=dict(frame_ids=frame_ids), frames=sample_frames, intrinsics=intrinsics()
        )
        if poses is not None:
            sample.source_poses = poses
        samples.append(sample)
    return dict(inputs=list(frames), data_samples=samples)


def losses(network: Monodepth2, data: dict) -> dict:
    return network(**network.data_preprocessor(data, True), mode='loss')


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
    """With zero motion, warped images are the sources, and nothing is better than rest."""
    network = model(smoothness_weight=0.0, photometric_weight=2.0)
    nn.init.zeros_(network.pose_net.layers[-1].weight)
    nn.init.zeros_(network.pose_net.layers[-1].bias)
    data = batch()
    frames = torch.stack([sample.frames for sample in data['data_samples']]).float() / 255
    errors = torch.cat([photometric_error(frames[:, i], frames[:, 0]) for i in (1, 2)], 1)
    out = losses(network, data)
    torch.testing.assert_close(
        out['loss_photometric'], 2 * errors.amin(1).mean(), atol=2e-4, rtol=0
    )


def test_without_auto_masking_what_does_not_fit_counts():
    network = model(smoothness_weight=0.0)
    nn.init.constant_(network.pose_net.layers[-1].bias, 3.0)
    masked = losses(network, batch())['loss_photometric']
    network.auto_mask = False
    assert losses(network, batch())['loss_photometric'] > masked + 1e-3


def test_frames_before_get_the_inverse_motion():
    """The same pair of images, as before and after: the poses are inverse to each other."""
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
    out = losses(network, batch(('s',), poses=eyes))
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
        coarse = [
            nn.functional.interpolate(disp, (HEIGHT, WIDTH), mode='bilinear') for disp in disps
        ]
        expected = (
            sum((disp_to_depth(disp, 0.1, 100.0) / 5).log().abs().mean() for disp in coarse) / 4
        )
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
    """A pair of images that differ by a shift, depth as it is: the target comes back where the
    source covers it.
    """
    network = model(pose_net=None).eval()
    for conv in network.decoder.dispconvs:
        nn.init.zeros_(conv.pointwise_conv.weight)
        nn.init.zeros_(conv.pointwise_conv.bias)
    depth = float(disp_to_depth(torch.tensor(0.5), 0.1, 100.0))
    pose = translation(x=3 * depth / 50)[0][None]  # three pixels
    data = batch((1,), poses=pose)
    for sample in data['data_samples']:
        sample.frames[1] = sample.frames[0].roll(3, -1)
    out = network.data_preprocessor(data)
    rebuilt = network.reproject(out['inputs'], out['data_samples'])
    target = torch.stack([sample.frames[0] for sample in out['data_samples']]).float() / 255
    torch.testing.assert_close(rebuilt[:, 0, ..., 1:-4], target[..., 1:-4], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(min_depth=0.0), r'min_depth must be in \(0, max_depth\), got 0.0 and 100.0'),
        (dict(min_depth=5.0, max_depth=2.0), 'got 5.0 and 2.0'),
        (dict(photometric_weight=0.0), 'photometric_weight or depth_weight must be above 0'),
        (
            dict(photometric_weight=0.0, depth_weight=1.0),
            'pose_net must be None where photometric_weight is 0',
        ),
    ],
)
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
    with pytest.raises(
        ValueError, match='the pose of frame 1 must be known, got none. Give the model a pose_net'
    ):
        losses(model(pose_net=None), batch((1,), poses=torch.full((1, 4, 4), torch.nan)))
    data = batch()
    for sample in data['data_samples']:
        sample.set_metainfo(dict(frame_ids=(-1,)))
    with pytest.raises(
        ValueError, match=r'inputs must hold a target and its sources, got \(2, 3, 3, 64, 96\)'
    ):
        losses(model(), data)


# Compression

WCC = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
    keep_dense=['first', r'decoder\.dispconvs\..*', r'pose_net\..*'],
)


def twin(**changes) -> Monodepth2:
    return MODELS.build(
        dict(
            type='mmwcc.CompressedModel',
            task_type='mmwcc.Monodepth2',
            compression={**WCC, **changes},
            **config(),
        )
    )


def test_compressed_twin_trains():
    network = twin()
    assert type(network) is Monodepth2
    names = set(compressed_layers(network))
    assert all(
        f'decoder.{part}.{level}.{conv}_conv' in names
        for part in ('up_convs', 'merge_convs')
        for level in range(5)
        for conv in ('depthwise', 'pointwise')
    )
    outside = {name for name in names if not name.startswith('decoder.')}
    assert outside == {f'backbone.convs.{i}' for i in range(1, 5)}
    assert not any('dispconvs' in name for name in names)
    sum(losses(network, batch()).values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_all_coefficients_without_quantizers_are_the_dense_network():
    dense = model().eval()
    network = twin(
        pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=1.0),
        other=None,
        weight_quant=None,
        act_quant=None,
    ).eval()
    missing, unexpected = network.load_state_dict(dense.state_dict(), strict=False)
    assert not missing and not unexpected and compressed_layers(network)
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    torch.testing.assert_close(network(image), dense(image), atol=1e-5, rtol=1e-4)


def test_dense_checkpoints_lack_quantizers_only():
    missing, unexpected = twin().load_state_dict(model().state_dict(), strict=False)
    assert not unexpected and missing and all('_quant.' in key for key in missing)


def test_checkpoint_round_trip(tmp_path):
    network = twin()
    losses(network, batch())  # calibrates
    torch.save(network.state_dict(), tmp_path / 'depth.pth')
    again = twin()
    again.load_state_dict(torch.load(tmp_path / 'depth.pth', weights_only=True))
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    for other in (again, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(other.eval()(image), network.eval()(image))
