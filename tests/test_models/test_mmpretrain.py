"""mmpretrain: its backbones in segmentors and detectors, and its classifiers beside ours.

`make test STACK=mmpretrain` has it; elsewhere these tests are skipped.
"""

import pytest
import torch

pytest.importorskip('mmpretrain')
pytest.importorskip('mmseg')
pytest.importorskip('mmdet')

import mmpretrain.models  # noqa: E402, F401  (registers the backbones)
from mmengine.optim import OptimWrapper  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402
from mmengine.structures import InstanceData, PixelData  # noqa: E402
from mmpretrain.evaluation import Accuracy as TheirAccuracy  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

from mmwcc.evaluation import Accuracy  # noqa: E402
from mmwcc.model_tree import compressed_layers  # noqa: E402
from mmwcc.presets import compress  # noqa: E402

# Each with the channels of its three feature maps, of strides 8, 16 and 32.
BACKBONES = dict(
    ConvNeXt=(
        dict(
            arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]),
            linear_pw_conv=False,
            gap_before_final_norm=False,
            out_indices=(1, 2, 3),
        ),
        [16, 24, 32],
    ),
    MobileNetV3=(dict(arch='small_050', out_indices=(3, 8, 11)), [16, 24, 48]),
    ResNet=(
        dict(depth=50, stem_channels=8, base_channels=8, out_indices=(1, 2, 3)),
        [64, 128, 256],
    ),
)
NORM = dict(type='BN', requires_grad=True)
SIZE = (64, 96)


def segmentor(backbone: dict, channels: list[int]) -> dict:
    head = dict(
        type='FCNHead',
        in_channels=channels[-1],
        in_index=2,
        channels=8,
        num_convs=1,
        num_classes=3,
        norm_cfg=NORM,
        loss_decode=dict(type='CrossEntropyLoss'),
    )
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=SIZE),
        backbone=backbone,
        decode_head=head,
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def detector(backbone: dict, channels: list[int]) -> dict:
    neck = dict(type='FPN', in_channels=channels, out_channels=16, num_outs=3)
    head = dict(
        type='FCOSHead',
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        strides=[8, 16, 32],
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        norm_cfg=NORM,
    )
    return dict(
        type='FCOS',
        data_preprocessor=dict(type='DetDataPreprocessor'),
        backbone=backbone,
        neck=neck,
        bbox_head=head,
        test_cfg=dict(
            nms_pre=10, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5
        ),
    )


def segmentation_sample():
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, *SIZE)))
    return sample


def detection_sample():
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0], [10.0, 4.0, 90.0, 60.0]]),
        labels=torch.tensor([1, 2]),
    )
    return sample


LIBRARIES = dict(
    mmseg=(segmentor, segmentation_sample, 'pred_sem_seg'),
    mmdet=(detector, detection_sample, 'pred_instances'),
)


def trained(config: dict, sample) -> tuple[torch.nn.Module, set[str]]:
    """Build a model and train it one step; return it, and the names of what a gradient reached."""
    torch.manual_seed(0)
    model = MODELS.build(config)
    inputs = [torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8) for _ in range(2)]
    data = dict(inputs=inputs, data_samples=[sample() for _ in range(2)])
    losses = model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3)))
    assert torch.isfinite(losses['loss'])
    reached = {name for name, value in model.named_parameters() if value.grad is not None}
    return model, reached


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('name', BACKBONES)
def test_a_backbone_compresses_trains_and_predicts(library, name):
    arguments, channels = BACKBONES[name]
    build, sample, prediction = LIBRARIES[library]
    config = build(dict(type=f'mmpretrain.{name}', **arguments), channels)
    init_default_scope(library)
    _, dense = trained(config, sample)
    model, reached = trained(compress(config, 'wcc_w8a8_k50'), sample)
    assert reached >= dense, 'what trains dense trains compressed'
    layers = [layer for layer in compressed_layers(model) if layer.startswith('backbone.')]
    kinds = {type(model.get_submodule(layer)).__name__ for layer in layers}
    assert 'WaveletCompressedConv2d' in kinds
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=[image], data_samples=[sample()]))
    assert prediction in result


HEAD = dict(num_classes=5, in_channels=32)


def classifier(scope: str, parts: str) -> torch.nn.Module:
    """Build a classifier of one package with the preprocessor, neck and head of another."""
    loss = dict(loss=dict(type='mmpretrain.CrossEntropyLoss')) if parts == 'mmpretrain' else {}
    torch.manual_seed(0)
    init_default_scope(scope)
    return MODELS.build(
        dict(
            type=f'{scope}.ImageClassifier',
            data_preprocessor=dict(
                type=f'{parts}.ClsDataPreprocessor',
                mean=[120.0, 110.0, 100.0],
                std=[60.0, 50.0, 40.0],
                to_rgb=True,
            ),
            backbone=dict(type='mmwcc.VGG', depth=11, base_channels=4),
            neck=dict(type=f'{parts}.GlobalAveragePooling'),
            head=dict(type=f'{parts}.LinearClsHead', **HEAD, **loss),
        )
    )


def batch() -> dict:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return dict(
        inputs=list(images), data_samples=[DataSample().set_gt_label(label) for label in range(4)]
    )


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmwcc'])
@pytest.mark.parametrize('parts', ['mmpretrain', 'mmwcc'])
def test_classifiers_agree_with_those_of_mmpretrain(scope, parts):
    """Each package's classifier with the parts of either computes what mmpretrain alone does."""
    expected, model = classifier('mmpretrain', 'mmpretrain').eval(), classifier(scope, parts).eval()
    model.load_state_dict(expected.state_dict())
    losses, predictions = [], []
    for network in (expected, model):
        data = network.data_preprocessor(batch())
        losses.append(network(**data, mode='loss')['loss'])
        predictions.append(network(**data, mode='predict'))
    torch.testing.assert_close(losses[1], losses[0])
    for theirs, ours in zip(*predictions, strict=True):
        torch.testing.assert_close(ours.pred_score, theirs.pred_score)
        assert ours.pred_label.tolist() == theirs.pred_label.tolist()


def test_accuracy_agrees_with_that_of_mmpretrain():
    generator = torch.Generator().manual_seed(0)
    samples = [
        DataSample()
        .set_gt_label(int(torch.randint(0, 7, (), generator=generator)))
        .set_pred_score(torch.rand(7, generator=generator))
        .to_dict()
        for _ in range(50)
    ]
    results = []
    for metric in (TheirAccuracy(topk=(1, 3)), Accuracy(topk=(1, 3))):
        metric.process(None, samples)
        results.append(metric.evaluate(len(samples)))
    assert results[1] == pytest.approx(results[0])


def test_packed_images_agree_with_those_of_mmpretrain():
    import numpy as np
    from mmpretrain.datasets.transforms import PackInputs

    from mmwcc.datasets import PackClsInputs

    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    theirs, ours = (pack(dict(img=image, gt_label=3)) for pack in (PackInputs(), PackClsInputs()))
    assert torch.equal(ours['inputs'], theirs['inputs'])
    assert torch.equal(ours['data_samples'].gt_label, theirs['data_samples'].gt_label)
