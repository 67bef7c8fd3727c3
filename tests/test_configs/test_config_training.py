"""Every shipped config trains: one iteration in its own runner, or one loss where that would cost
too much.
"""

import copy
import math
import re

import pytest
import torch
from fabricated import CROP, config_files, data_set_type, drop_pretrained, read, shrink
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from torch import nn

from mmwcc.engine.hooks import CompressionCheckHook, RandomStateHook
from mmwcc.model_tree.compressed import compressed_layers
from mmwcc.utils import check_resumable

# The paper's ladders on large images differ from CamVid's in numbers only, so their compressed
# steps compute one loss. Transformers and other large networks do so too, or run once if their loss
# needs boxes and masks.
LOSS_ONLY = [
    name
    for name in config_files()
    if re.search(r'_(quant|wcc)-.*_(cityscapes|voc12aug|ade20k)-', name)
]
RUN_ONLY = [name for name in config_files() if re.match('wcc/transformers/.*_coco-', name)]
# VGG16 and ResNet-50 on 224x224 are run without memory or time, on meta tensors, in
# test_wae_configs.py.
ON_META = [name for name in config_files() if re.match('wae/(vgg16|resnet50)_', name)]
# What `make demo` trains.
DEMO = [
    name
    for name in config_files()
    if name.startswith('wcc/demo/') and re.search('dense|steps', name)
]
IN_RUNNER = [name for name in config_files() if name not in LOSS_ONLY + RUN_ONLY + ON_META]


@pytest.fixture(autouse=True)
def no_counting(monkeypatch):
    """Do not count what is gained: this takes longer than the step, and has tests of its own."""
    monkeypatch.setattr('mmwcc.compression.convert.tell_at_first_step', lambda *_, **__: None)


def validates(name: str) -> bool:
    """Tell whether a validation follows: for dense models, detectors, the most compressed one, and
    changing ones.
    """
    return bool(
        re.search(r'_dense_|coco|bccd|w8a8-k12_5|waveletnet-(m4|1.0x)_|wae_stage1|wae-stage3', name)
    )


def check_quantizers(model: nn.Module) -> None:
    """Check that every quantizer that took part in training is calibrated."""
    for name, layer in compressed_layers(model).items():
        for role in ('weight_quant', 'act_quant'):
            quantizer = getattr(layer, role)
            if quantizer is not None:
                assert quantizer.initialized, f'{name}.{role} was not calibrated'


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', IN_RUNNER)
def test_trains_one_iteration(name, data_root, tmp_path):
    cfg = shrink(read(name), data_root, tmp_path / re.sub(r'\W', '_', name), validates(name))
    compressed = cfg.model.type == 'mmwcc.CompressedModel'
    runner = Runner.from_cfg(cfg)
    before = {key: value.detach().clone() for key, value in runner.model.named_parameters()}
    runner.train()

    assert runner.iter == 1
    assert math.isfinite(runner.message_hub.get_scalar('train/loss').current())
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())
    assert any(
        not torch.equal(before[key], value) for key, value in runner.model.named_parameters()
    )
    assert {CompressionCheckHook, RandomStateHook} <= {type(hook) for hook in runner.hooks}
    assert bool(compressed_layers(runner.model)) == compressed
    check_quantizers(runner.model)
    check_optimizer(runner)
    if validates(name):
        metrics = {
            key: runner.message_hub.get_scalar(key).current()
            for key in runner.message_hub.log_scalars
            if key.startswith('val/')
        }
        assert any(re.search('mIoU|mAP|accuracy|psnr|AbsRel', key) for key in metrics), metrics


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', DEMO)
def test_checkpoints_of_the_demo_are_resumed(name, data_root, tmp_path):
    cfg = shrink(read(name), data_root, tmp_path / re.sub(r'\W', '_', name), False)
    cfg.default_hooks.checkpoint.interval = 1
    Runner.from_cfg(copy.deepcopy(cfg)).train()
    path = f'{cfg.work_dir}/iter_1.pth'
    cfg.train_cfg.max_iters = 2
    check_resumable(path, cfg)
    cfg.merge_from_dict(dict(resume=True, load_from=path, experiment_name=f'{tmp_path.name}-2'))
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 2, 'the history went on'


def check_optimizer(runner) -> None:
    """Check that learned clips train with a tenth of the learning rate and without weight decay."""
    groups = {
        id(parameter): group
        for group in runner.optim_wrapper.param_groups
        for parameter in group['params']
    }
    rates = {group['initial_lr'] for group in groups.values()}
    for name, parameter in runner.model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = groups[id(parameter)]
        if name.endswith('clip_alpha'):
            assert group['weight_decay'] == 0
            assert group['initial_lr'] == pytest.approx(max(rates) / 10)
        elif '.wae.' in name:  # its loss is a sum over pixels
            assert group['initial_lr'] <= max(rates) / 100
        else:
            assert group['initial_lr'] == max(rates)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', LOSS_ONLY)
def test_loss(name):
    from mmseg.structures import SegDataSample

    cfg = read(name)
    drop_pretrained(cfg.model)
    cfg.model.data_preprocessor.size = CROP
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    classes = model.decode_head.num_classes
    data = dict(
        inputs=[torch.randint(0, 256, (3, *CROP), dtype=torch.uint8) for _ in range(2)],
        data_samples=[
            SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, classes, (1, *CROP))))
            for _ in range(2)
        ],
    )
    loss, _ = model.parse_losses(model(**model.data_preprocessor(data, training=True), mode='loss'))
    loss.backward()

    assert torch.isfinite(loss)
    assert compressed_layers(model)
    check_quantizers(model)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', RUN_ONLY)
def test_runs(name):
    cfg = read(name)
    drop_pretrained(cfg.model)
    init_default_scope(cfg.default_scope)
    cfg.model.data_preprocessor.batch_augments = None
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    model(torch.randn(2, 3, *CROP), mode='tensor')
    check_quantizers(model)


def test_every_data_set_is_known():
    known = {
        'mmwcc.CamVidDataset',
        'mmwcc.SyntheticStreetDataset',
        'CityscapesDataset',
        'PascalVOCDataset',
        'CocoDataset',
        'mmwcc.XMLBoxDataset',
        'mmwcc.CIFAR10',
        'mmwcc.ImageFolder',
        'mmwcc.SuperResolutionDataset',
        'mmwcc.KITTIRawDataset',
        'mmwcc.SyntheticStreetSequence',
    }
    used = {data_set_type(read(name)) for name in IN_RUNNER}
    assert used <= known, 'write a fabricated version of the new data set in fabricated.py'
