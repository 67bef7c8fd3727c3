"""Somebody's own project: stock tools, a config outside this repository, mmwcc from pip.

The tools run as they are started from a shell, in new interpreters that import mmwcc only because
the config does.
"""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

mmseg = pytest.importorskip('mmseg')
cv2 = pytest.importorskip('cv2')
pytest.importorskip('mmcv.ops')

import torch  # noqa: E402

STOCK = Path(mmseg.__file__).parent / '.mim' / 'tools'
OURS = Path(__file__).resolve().parent.parent / 'tools'

EXISTING_CONFIG = """
_base_ = ['HUB_default_runtime.py']
crop_size = (64, 64)
data_preprocessor = dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3,
    bgr_to_rgb=True, pad_val=0,
                         seg_pad_val=255, size=crop_size)
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder', data_preprocessor=data_preprocessor,
    backbone=dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 6), norm_cfg=norm_cfg),
    decode_head=dict(type='FCNHead', in_channels=80, in_index=1, channels=16, num_convs=1,
        concat_input=False,
                     num_classes=2, norm_cfg=norm_cfg, loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
dataset = dict(type='BaseSegDataset', data_root='DATA', metainfo=dict(classes=('left', 'right'),
               palette=[[255, 0, 0], [0, 0, 255]]), data_prefix=dict(img_path='images',
                   seg_map_path='labels'))
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'),
    dataset=dict(
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='PackSegInputs')], **dataset))
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler',
    shuffle=False), dataset=dict(
    pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='PackSegInputs')], **dataset))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
                     logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False))
"""


def hub() -> str:
    """Return how a stock tool can be told of mmsegmentation's own bases.

    The maintained forks do not find them by ``mmseg::``, unless something imports mmwcc first.
    """
    try:
        metadata.distribution('mmsegmentation')
    except metadata.PackageNotFoundError:
        return str(STOCK.parent / 'configs' / '_base_') + '/'
    return 'mmseg::_base_/'


# What somebody adds to compress it: three lines.
COMPRESSED_CONFIG = """
_base_ = ['./my_existing_config.py']
from mmwcc.presets import compress
model = compress(_base_.model, 'wcc_w8a8_k50')
"""


@pytest.fixture(scope='module')
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('project')
    for name in ('images', 'labels'):
        (folder / 'data' / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(2):
        label = np.repeat([[0, 1]], 32, axis=1).repeat(64, axis=0).astype(np.uint8)
        image = rng.integers(0, 99, (64, 64, 3)) + 150 * label[..., None]
        cv2.imwrite(str(folder / 'data' / 'images' / f'{index}.jpg'), image.astype(np.uint8))
        cv2.imwrite(str(folder / 'data' / 'labels' / f'{index}.png'), label)
    existing = EXISTING_CONFIG.replace('DATA', str(folder / 'data')).replace('HUB_', hub())
    (folder / 'my_existing_config.py').write_text(existing)
    (folder / 'compressed.py').write_text(COMPRESSED_CONFIG)
    return folder


def run(project: Path, tool: Path, *args: str, succeeds: bool = True) -> str:
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', str(tool), *args],
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert (result.returncode == 0) == succeeds, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


@pytest.fixture(scope='module')
def trained(project) -> Path:
    """Train the compressed config with mmsegmentation's own tools/train.py; return the
    checkpoint.
    """
    run(project, STOCK / 'train.py', 'compressed.py', '--work-dir', 'work')
    return project / 'work' / 'iter_2.pth'


def load(path: Path) -> dict:
    return torch.load(path, map_location='cpu', weights_only=False)


def test_stock_train_compresses(trained):
    state = load(trained)['state_dict']
    alphas = {key: value for key, value in state.items() if key.endswith('clip_alpha')}
    assert len(alphas) > 30, 'nearly every one of the 50 or so convolutions has a learned clip'
    assert all(torch.isfinite(value).all() and (value > 0).all() for value in alphas.values())
    assert 'backbone.layer2.0.conv.0.conv.weight' in state, 'names stay those of the dense model'


def test_stock_train_resumes(project, trained):
    """Also shows that torch loads the checkpoint that mmengine wrote."""
    run(
        project,
        STOCK / 'train.py',
        'compressed.py',
        '--work-dir',
        'work',
        '--resume',
        '--cfg-options',
        'train_cfg.max_iters=3',
        'default_hooks.checkpoint.interval=1',
    )
    checkpoint = load(project / 'work' / 'iter_3.pth')
    assert checkpoint['meta']['iter'] == 3
    assert len(checkpoint['message_hub']['log_scalars']['train/loss'].data[0]) == 3, (
        'the history went on'
    )


def test_stock_test_evaluates(project, trained):
    assert 'mIoU' in run(
        project, STOCK / 'test.py', 'compressed.py', str(trained), '--work-dir', 'stock_test'
    )


@pytest.fixture(scope='module')
def dense(project) -> Path:
    """Train the dense config in its own folder; return the checkpoint."""
    run(project, STOCK / 'train.py', 'my_existing_config.py', '--work-dir', 'dense')
    return project / 'dense' / 'iter_2.pth'


@pytest.mark.slow
def test_stock_tools_refuse_what_does_not_fit(project, dense):
    """Nothing in the config names a hook of mmwcc."""
    out = run(project, STOCK / 'test.py', 'compressed.py', str(dense), succeeds=False)
    assert 'to evaluate, the checkpoint must have what the model compresses' in out
    start = f'load_from={dense}'
    train = [STOCK / 'train.py', 'compressed.py', '--work-dir']
    out = run(project, *train, 'dense', '--cfg-options', start, succeeds=False)
    assert "got work_dir='" in out and 'iter_2.pth is the checkpoint of a dense model' in out
    run(project, *train, 'fresh', '--cfg-options', start)
    out = run(project, *train, 'fresh', '--resume', '--cfg-options', start, succeeds=False)
    assert '--cfg-options load_from=None' in out
    more = ['train_cfg.max_iters=3', 'default_hooks.checkpoint.interval=1', 'load_from=None']
    run(project, *train, 'fresh', '--resume', '--cfg-options', *more)
    assert load(project / 'fresh' / 'iter_3.pth')['meta']['iter'] == 3


@pytest.mark.slow
def test_stock_tools_refuse_a_compressed_checkpoint_in_a_dense_model(project, trained):
    """The dense config does nothing but import mmwcc."""
    text = "_base_ = ['./my_existing_config.py']\ncustom_imports = dict(imports=['mmwcc'])\n"
    (project / 'importing.py').write_text(text)
    out = run(project, STOCK / 'test.py', 'importing.py', str(trained), succeeds=False)
    assert 'EncoderDecoder: a compressed checkpoint needs a compressed model' in out


@pytest.mark.slow
def test_our_tools_do_the_same(project, trained):
    out = run(
        project,
        OURS / 'test.py',
        'compressed.py',
        str(trained),
        '--work-dir',
        'our_test',
        '--out',
        'maps',
    )
    assert 'mIoU' in out
    assert sorted(path.name for path in (project / 'maps').iterdir()) == ['0.png', '1.png']
    run(project, OURS / 'train.py', 'compressed.py', '--work-dir', 'ours', '--resume')
    assert (project / 'ours' / 'iter_2.pth').is_file()
