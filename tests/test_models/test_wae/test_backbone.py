"""The front-end around backbones, and how its loss reaches segmentors and detectors."""

import copy
import io
import pickle

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import ExponentialMovingAverage, MMDistributedDataParallel
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from torch import nn

pytest.importorskip('mmcv')
from mmwcc.models import WAEBackbone, WAEModel  # noqa: E402

VGG = dict(type='mmwcc.VGG', depth=11, base_channels=8, num_stages=4, out_indices=(1, 2, 3))


def test_channels_are_kept_and_strides_doubled():
    wrapped, front_end = ROOT_MODELS.build(VGG), WAEBackbone(VGG, gamma=0)
    x = torch.rand(2, 3, 64, 96)
    for plain, fused in zip(wrapped(x), front_end(x), strict=True):
        assert fused.shape == (2, plain.shape[1], plain.shape[2] // 2, plain.shape[3] // 2)
    assert (front_end.channels, front_end.strides) == ((16, 32, 64), (8, 16, 32))


def test_starts_as_the_wrapped_backbone_on_the_low_part():
    front_end = WAEBackbone(VGG, gamma=0).eval()
    front_end.init_weights()
    x = torch.rand(1, 3, 64, 64)
    low, _ = front_end.wae(x)
    for expected, got in zip(
        front_end.backbone(front_end.norm_low(low)), front_end(x), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_fuses_both_parts():
    front_end, x = WAEBackbone(VGG, gamma=0).eval(), torch.rand(1, 3, 64, 64)
    for fusion in front_end.fusions:
        nn.init.normal_(fusion.conv.weight)
    low, high = front_end.wae(x)
    parts = zip(
        front_end.backbone(front_end.norm_low(low)),
        front_end.high_backbone(front_end.norm_high(high)),
        strict=True,
    )
    for fusion, (ours, theirs), got in zip(front_end.fusions, parts, front_end(x), strict=True):
        torch.testing.assert_close(
            got,
            nn.functional.conv2d(
                torch.cat([ours, theirs], 1), fusion.conv.weight, fusion.conv.bias
            ),
        )


@pytest.mark.parametrize('size', [(31, 33), (2, 2), (1, 1)])
def test_odd_and_tiny_images(size):
    front_end = WAEBackbone(
        dict(type='mmwcc.VGG', depth=11, base_channels=8, num_stages=2, ceil_mode=True), gamma=0
    )
    (feature,) = front_end.eval()(torch.rand(1, 3, *size))
    assert feature.shape == (1, 16, *(-(-side // 8) for side in size))


@ROOT_MODELS.register_module(force=True)
class OneTensor(nn.Conv2d):
    """A backbone that returns a single tensor."""

    def __init__(self, base_channels=8):
        super().__init__(3, base_channels, 3, 2, 1)


@ROOT_MODELS.register_module(force=True)
class Vector(nn.Module):
    """A backbone that ends in a classifier."""

    def __init__(self, base_channels=8):
        super().__init__()
        self.layer = nn.Linear(3, base_channels)

    def forward(self, x):
        return (self.layer(x.mean((2, 3))),)


def test_a_backbone_that_returns_a_tensor_still_does():
    # A quarter of the only layer's outputs is a quarter of its weights, so the slim copy has to be
    # given.
    front_end = WAEBackbone(
        dict(type='OneTensor'), high_backbone=dict(type='OneTensor', base_channels=2), gamma=0
    )
    assert front_end(torch.rand(1, 3, 16, 16)).shape == (1, 8, 4, 4)
    assert (front_end.channels, front_end.strides) == ((8,), (4,))


def test_bad_arguments_are_refused():
    vector = dict(type='Vector')
    with pytest.raises(
        TypeError,
        match=r'must return a feature map \(B, C, H, W\) or a sequence of them, got tuple '
        'from Vector',
    ):
        WAEBackbone(vector, high_backbone=vector)
    with pytest.raises(
        ValueError, match=r'sizes of backbone, got \[\(16, 16\)\] and \[\(32, 32\)\]'
    ):
        WAEBackbone(
            dict(type='OneTensor'), high_backbone=dict(type='mmwcc.VGG', depth=11, num_stages=2)
        )
    with pytest.raises(ValueError, match='WAEBackbone: stage must be 2 .* or 3 .*, got 1'):
        WAEBackbone(VGG, stage=1)


def test_training_without_a_way_for_the_loss_is_refused():
    front_end = WAEBackbone(VGG).train()
    with pytest.raises(
        RuntimeError, match=r"transform loss \(gamma=0.001\) .* type='mmwcc.WAEModel'"
    ):
        front_end(torch.rand(2, 3, 64, 64))
    front_end.eval()(torch.rand(1, 3, 64, 64))
    WAEBackbone(VGG, stage=2).train()(torch.rand(2, 3, 64, 64))
    WAEBackbone(VGG, gamma=0).train()(torch.rand(2, 3, 64, 64))


def test_pretrained_is_passed_on():
    pytest.importorskip('mmseg')
    front_end = WAEBackbone(
        dict(type='mmseg.ResNet', depth=18), gamma=0, pretrained='torchvision://resnet18'
    )
    assert front_end.backbone.init_cfg == dict(
        type='Pretrained', checkpoint='torchvision://resnet18'
    )
    assert front_end.high_backbone.init_cfg[0]['type'] == 'Kaiming'


# Segmentors


def segmentor_config(factory=True, gamma=0.5, **front_end):
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')
    cfg = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
        backbone=dict(type='mmwcc.WAEBackbone', backbone=VGG, gamma=gamma, **front_end),
        decode_head=dict(
            type='FCNHead',
            in_channels=64,
            in_index=2,
            channels=8,
            num_convs=1,
            num_classes=3,
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        train_cfg=dict(),
        test_cfg=ConfigDict(mode='whole'),
    )
    if factory:
        cfg.update(type='mmwcc.WAEModel', task_type='EncoderDecoder')
    return cfg


def segmentor(**settings):
    return ROOT_MODELS.build(segmentor_config(**settings))


def segmentation_batch():
    from mmseg.structures import SegDataSample

    sample = [
        SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 64, 64)))) for _ in range(2)
    ]
    return dict(inputs=torch.rand(2, 3, 64, 64), data_samples=sample)


def check_loss(model, batch, gamma):
    """Check that the transform loss is among the losses, is right, and trains every parameter."""
    model.train()
    losses = model(**batch, mode='loss')
    transform = model.backbone.wae(batch['inputs'], mode='loss')
    for name, value in transform.items():
        torch.testing.assert_close(losses[f'wae.{name}'], gamma * value)
    total, log = model.parse_losses(losses)
    assert {'wae.loss_reconstruction', 'wae.loss_high'} <= set(log)
    total.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.zero_grad()


def test_segmentor_gets_the_loss():
    from mmseg.models import EncoderDecoder

    model = segmentor()
    assert type(model) is EncoderDecoder
    check_loss(model, segmentation_batch(), 0.5)
    assert model(**segmentation_batch(), mode='tensor').shape == (2, 3, 2, 2)
    assert len(model.eval()(torch.rand(1, 3, 64, 64), mode='predict')) == 1


def test_stage_two_and_gamma_zero_add_no_loss():
    for model in (segmentor(stage=2), segmentor(gamma=0)):
        losses = model.train()(**segmentation_batch(), mode='loss')
        assert not [name for name in losses if name.startswith('wae')]
        model.parse_losses(losses)[0].backward()
        assert [
            name
            for name, parameter in model.named_parameters()
            if (parameter.grad is None) == parameter.requires_grad
        ] == []


def test_loss_in_copies_averages_and_ddp(tmp_path):
    batch = segmentation_batch()
    model = segmentor()
    model.extract_feat(batch['inputs'])  # a loss that nobody fetched must not stand in the way
    for copied in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        ExponentialMovingAverage(model).module,
    ):
        check_loss(copied.requires_grad_(), batch, 0.5)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = segmentor()
    other.load_state_dict(torch.load(file))
    assert list(other.state_dict()) == list(segmentor(factory=False).state_dict())

    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        from mmengine.optim import OptimWrapper

        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
        optimizer = OptimWrapper(torch.optim.SGD(wrapped.parameters(), lr=0.01))
        for _ in range(2):  # the second step fails if a parameter got no gradient in the first
            log = wrapped.train_step(batch, optimizer)
        assert log['wae.loss_reconstruction'] > 0
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    'order', ['compress', 'compression outside', 'compression inside', 'a dict inside']
)
def test_a_model_can_be_compressed_too(order):
    from mmwcc.model_tree.compressed import compressed_layers
    from mmwcc.presets import compress, preset

    plain, cfg, compression = segmentor(), segmentor_config(), preset('wcc_w8a8_k50')
    cfg.update(
        {
            'compress': compress(cfg, compression),
            'compression outside': dict(
                type='mmwcc.CompressedModel',
                task_type=['mmwcc.WAEModel', 'EncoderDecoder'],
                compression=compression,
            ),
            'compression inside': dict(
                task_type=['mmwcc.CompressedModel', 'EncoderDecoder'], compression=compression
            ),
            'a dict inside': dict(
                task_type=dict(
                    type='mmwcc.CompressedModel',
                    task_type='EncoderDecoder',
                    compression=compression,
                )
            ),
        }[order]
    )
    model = ROOT_MODELS.build(cfg)
    assert type(model) is type(plain)
    assert {f'backbone.fusions.{i}.conv' for i in range(3)} <= set(compressed_layers(model))
    assert len(compressed_layers(model)) == 26
    check_loss(model, segmentation_batch(), 0.5)


def test_a_model_without_front_end_is_refused():
    with pytest.raises(
        ValueError, match='the model must have a mmwcc.WAEBackbone, got none in VGG'
    ):
        WAEModel('mmwcc.VGG', depth=11)


# Detectors


def retinanet(strides=(16, 32, 64)):
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    return WAEModel(
        'RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor'),
        backbone=dict(type='mmwcc.WAEBackbone', backbone=dict(VGG, out_indices=(2, 3)), gamma=0.5),
        neck=dict(type='FPN', in_channels=[32, 64], out_channels=16, num_outs=3),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=2,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=2,
                scales_per_octave=1,
                ratios=[1.0],
                strides=list(strides),
            ),
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[1.0] * 4
            ),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        train_cfg=dict(
            assigner=dict(
                type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, ignore_iof_thr=-1
            ),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        test_cfg=ConfigDict(
            nms_pre=10,
            min_bbox_size=0,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=5,
        ),
    )


def test_detector_gets_the_loss():
    model = retinanet()
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    shape = dict(
        scale_factor=(1.0, 1.0),
        **{f'{kind}_shape': (64, 64) for kind in ('img', 'pad', 'ori', 'batch_input')},
    )
    sample = [
        DetDataSample(
            metainfo=shape,
            gt_instances=InstanceData(
                bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]), labels=torch.tensor([1])
            ),
        )
        for _ in range(2)
    ]
    batch = dict(inputs=torch.rand(2, 3, 64, 64), data_samples=sample)
    check_loss(model, batch, 0.5)
    assert len(model.eval()(**batch, mode='predict')) == 2


def test_strides_of_the_wrapped_backbone_are_refused():
    with pytest.raises(
        ValueError,
        match=r'bbox_head.prior_generator.strides must be the strides of the features, '
        r'\(16, 32, 64\), got \(8, 16, 32\).* write \[16, 32, 64\] into the config',
    ):
        retinanet((8, 16, 32))


def test_strides_of_roi_extractors_are_refused():
    pytest.importorskip('mmdet')
    from mmwcc.models.wae.factory import _check_strides

    class TwoStage(nn.Module):
        def __init__(self, strides):
            super().__init__()
            self.backbone, self.extractor = WAEBackbone(VGG, gamma=0), nn.Module()
            self.extractor.featmap_strides = strides

        def extract_feat(self, x):
            return self.backbone(x)

    _check_strides(TwoStage([8, 16]))
    with pytest.raises(
        ValueError, match=r'extractor.featmap_strides must be .*, \(8, 16\), got \(4, 8\)'
    ):
        _check_strides(TwoStage([4, 8]))
