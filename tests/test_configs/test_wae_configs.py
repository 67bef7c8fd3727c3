"""The WAE configs: stages that fit together, published numbers, and the networks that are too large
to train here.
"""

import re
from pathlib import Path

import pytest
import torch
from fabricated import config_files, drop_pretrained, read
from mmengine.registry import MODELS, init_default_scope

NAMES = [name for name in config_files() if name.startswith('wae/')]
LARGE = [name for name in NAMES if re.match('wae/(vgg16|resnet50)_', name)]


def stage_of(name: str) -> int | None:
    match = re.search(r'stage(\d)', name)
    return int(match[1]) if match else None


@pytest.mark.parametrize('name', LARGE)
def test_large_networks_fit_together(name):
    """Built and run with shapes alone."""
    cfg = read(name)
    drop_pretrained(cfg.model)
    init_default_scope(cfg.default_scope)
    classes = 2000 if 'cacd' in name else 1000
    assert Path(cfg.train_dataloader.dataset.data_root).name == (
        'cacd' if 'cacd' in name else 'imagenet'
    )
    with torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        assert model(torch.zeros(2, 3, 224, 224)).shape == (2, classes)
    if stage_of(name):
        assert model.stage == stage_of(name)


def checkpoints(node) -> list[str]:
    found = []
    for _, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, str) and value.startswith('work_dirs/'):
            found.append(value)
        elif isinstance(value, (dict, list)):
            found += checkpoints(value)
    return found


@pytest.mark.parametrize(
    'name', [name for name in NAMES if re.search('stage[23]|_wae_|wae-low', name)]
)
def test_stages_start_where_the_stage_before_ends(name):
    cfg = read(name)
    (path,) = checkpoints(cfg._cfg_dict)
    _, stem, file = path.split('/')
    before = read(f'wae/{stem}.py')
    length = before.train_cfg.get('max_iters') or before.train_cfg.max_epochs
    assert file == f'{"iter" if "max_iters" in before.train_cfg else "epoch"}_{length}.pth'
    if stage_of(name) == 3:
        assert path == cfg.load_from and stage_of(stem) == 2
        assert cfg.default_hooks.training_stage.needs_checkpoint
        same = {'stage', 'gamma', 'decomposition'}
        assert {key: value for key, value in cfg.model.items() if key not in same} == {
            key: value for key, value in before.model.items() if key not in same
        }
    else:
        assert stage_of(stem) == 1 and before.model.type == 'mmwcc.WAE'
    if stage_of(name):
        assert cfg.default_hooks.training_stage.stage == stage_of(name)
    # An auto-encoder knows the images it was trained on only as they were normalized.
    ours, theirs = (
        part.get('data_preprocessor') or part.model.data_preprocessor for part in (cfg, before)
    )
    if cfg.default_scope != 'mmdet':
        assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    else:
        assert (cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std) == (
            theirs.mean,
            theirs.std,
        )


def test_published_recipe():
    first, second, third = (
        read(f'wae/{name}_imagenet-224x224.py')
        for name in (
            'wae_stage1_1xb4-20e',
            'vgg16_wae-stage2_8xb32-90e',
            'vgg16_wae-stage3_8xb32-10e',
        )
    )
    for cfg, rate in ((first, 1e-6), (second, 1e-2), (third, 1e-4)):
        assert cfg.optim_wrapper.optimizer == dict(
            type='SGD', lr=rate, momentum=0.9, weight_decay=5e-4
        )
    assert (
        read('wae/resnet50_wae-stage2_8xb32-90e_imagenet-224x224.py').optim_wrapper.optimizer.lr
        == 0.1
    )
    assert first.train_dataloader.batch_size == 4 and 8 * second.train_dataloader.batch_size == 256
    assert first.param_scheduler[0].milestones == [10] and first.param_scheduler[0].gamma == 0.1
    assert (
        second.param_scheduler[0].type == 'ReduceOnPlateauLR'
        and second.param_scheduler[0].factor == 0.1
    )
    assert (third.model.gamma, third.model.stage) == (0.001, 3)
    assert (
        second.model.head.hidden_channels == (1024, 1024) and second.model.head.in_channels == 8192
    )
    assert (
        second.model.fused_head.hidden_channels == (2048, 2048)
        and second.model.fused_head.in_channels == 10240
    )
    assert {second.model.head.dropout, second.model.fused_head.dropout} == {0.5}


def test_detector_keeps_the_sizes_of_its_anchors():
    cfg = read('wae/retinanet_r50-fpn_wae_1x_coco-1333x800.py')
    anchors = cfg.model.bbox_head.anchor_generator
    # mmdetection's: 4 times strides of 8 to 128.
    assert [anchors.octave_base_scale * stride for stride in anchors.strides] == [
        32,
        64,
        128,
        256,
        512,
    ]


@pytest.mark.parametrize(
    ('name', 'position'),
    [
        ('wae/vgg16_wae-stage3_8xb32-10e_cacd-224x224.py', 3),
        ('wae/vgg8_dense_1xb128-20e_cifar10-32x32.py', 0),
    ],
)
def test_noise_is_a_switch_where_the_guide_says(name, position):
    cfg = read(name)
    cfg.merge_from_dict({f'test_dataloader.dataset.pipeline.{position}.variance': 0.05})
    assert [
        step.get('variance')
        for step in cfg.test_dataloader.dataset.pipeline
        if 'Noise' in step['type']
    ] == [0.05]
