"""Training in stages by one command: order, links between stages, resuming, and what is refused
beforehand.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmcv')
from mmwcc.datasets import GaussianNoise  # noqa: E402
from mmwcc.utils import LaunchError  # noqa: E402

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def load(path: str):
    spec = importlib.util.spec_from_file_location(f'mmwcc_{Path(path).stem}', TOOLS / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


train_stages, noise = load('train_stages.py'), load('analysis_tools/noise_robustness.py')

COMMON = """
default_scope = 'mmengine'
loader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
    type='mmwcc.CIFAR10', data_root={data!r}, pipeline=[dict(type='mmwcc.PackClsInputs')]))
train_dataloader = loader
test_dataloader = dict(loader, dataset=dict(loader['dataset'], split='test', test_mode=True))
test_cfg = dict()
test_evaluator = dict(type='mmwcc.Accuracy')
train_cfg = dict(by_epoch=True, max_epochs={epochs})
optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-4))
visualizer = dict(type='Visualizer', vis_backends=[])
data_preprocessor = dict(type='mmwcc.ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)
default_hooks = dict(training_stage=dict(type='mmwcc.TrainingStageHook', stage={stage},
    needs_checkpoint={needs}))
"""

CLASSIFIER = """
model = dict(
    type='mmwcc.WAEClassifier', stage={stage}, decomposition=dict(type='mmwcc.WAE',
        init_cfg={init}),
    backbone=dict(type='mmwcc.VGG', depth=11, base_channels=8, num_stages=3),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=32),
    fused_head=dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=40))
"""


@pytest.fixture
def configs(tmp_path):
    """Return the paths of three stages that name each other's checkpoints in ./work_dirs, under
    wrong epochs.
    """
    records = np.random.default_rng(0).integers(0, 256, (8, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for name in ('data_batch_1', 'test_batch'):
        records.tofile(tmp_path / f'{name}.bin')
    data = str(tmp_path)
    init = dict(type='Pretrained', checkpoint='work_dirs/one/epoch_10.pth')
    (tmp_path / 'one.py').write_text(
        COMMON.format(data=data, epochs=1, stage=1, needs=False)
        + "model = dict(type='mmwcc.WAE')\n"
    )
    (tmp_path / 'two.py').write_text(
        COMMON.format(data=data, epochs=2, stage=2, needs=False)
        + CLASSIFIER.format(stage=2, init=init)
    )
    (tmp_path / 'three.py').write_text(
        COMMON.format(data=data, epochs=1, stage=3, needs=True)
        + CLASSIFIER.format(stage=3, init=None)
        + "load_from = 'work_dirs/two/epoch_20.pth'\n"
    )
    return [str(tmp_path / f'{name}.py') for name in ('one', 'two', 'three')]


def weights(work, checkpoint):
    return torch.load(work / checkpoint, weights_only=False)['state_dict']


def test_three_stages_in_one_command_and_again(configs, tmp_path, capsys):
    work = tmp_path / 'work'
    args = [*configs, '--work-dir', str(work)]
    train_stages.main(args)
    one, two, three = (
        weights(work, name) for name in ('one/epoch_1.pth', 'two/epoch_2.pth', 'three/epoch_1.pth')
    )
    wae = {f'decomposition.{key}': value for key, value in one.items()}
    assert all(torch.equal(two[key], value) for key, value in wae.items()), (
        'stage 2 trains nothing of stage 1'
    )
    assert not torch.equal(
        three['decomposition.encoder.split.weight'], two['decomposition.encoder.split.weight']
    )
    # Stage 3 is two steps of lr 1e-4 away from stage 2, and far from any other random start.
    assert (three['head.fc.weight'] - two['head.fc.weight']).abs().max() < 1e-2
    said = capsys.readouterr().out
    order = [
        said.index(text)
        for text in (
            'stage 1 of 3, one: begins',
            'training stage 1 of 3 begins',
            'stage 1 of 3, one: ends with',
            'stage 2 of 3, two: begins',
            'Frozen: decomposition',
            'stage 3 of 3, three: begins',
            'training stage 3 of 3 begins at iteration 0, from '
            + str(work / 'two' / 'epoch_2.pth'),
            'stage 3 of 3, three: ends',
        )
    ]
    assert order == sorted(order)

    # Killed in the middle of stage 2: stage 1 stays, stage 2 goes on after epoch 1, stage 3
    # follows.
    for file in ('two/epoch_2.pth', 'three/epoch_1.pth', 'three/last_checkpoint'):
        (work / file).unlink()
    (work / 'two/last_checkpoint').write_text(str(work / 'two/epoch_1.pth'))
    before = (work / 'one/epoch_1.pth').stat().st_mtime_ns
    train_stages.main([*args, '--resume'])
    said = capsys.readouterr().out
    assert (
        'stage 1 of 3, one: finished before' in said
        and (work / 'one/epoch_1.pth').stat().st_mtime_ns == before
    )
    assert f'stage 2 of 3, two: resumes from {work}/two/epoch_1.pth' in said
    assert 'training stage 2 of 3 begins at iteration 2' in said
    assert (work / 'three/epoch_1.pth').is_file()


def test_a_missing_checkpoint_is_refused_before_anything_is_trained(configs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LaunchError, match='work_dirs/one/epoch_10.pth does not exist'):
        train_stages.main([*configs[1:], '--work-dir', str(tmp_path / 'work')])
    assert not (tmp_path / 'work').exists()


def test_a_stage_given_twice_is_refused(configs, tmp_path):
    with pytest.raises(LaunchError, match='one is given twice'):
        train_stages.main([configs[0], configs[0], '--work-dir', str(tmp_path / 'work')])


def test_a_stage_that_leaves_no_checkpoint_is_refused(configs, tmp_path):
    with pytest.raises(
        LaunchError, match='ended without .*epoch_1.pth, which the next stage starts from'
    ):
        train_stages.main(
            [
                configs[0],
                '--work-dir',
                str(tmp_path / 'work'),
                '--cfg-options',
                'default_hooks.checkpoint.type=CheckpointHook',
                'default_hooks.checkpoint.interval=5',
                'default_hooks.checkpoint.save_last=False',
            ]
        )


# tools/analysis_tools/noise_robustness.py


def test_noise_table(configs, tmp_path, capsys):
    from mmengine.config import Config
    from mmengine.registry import MODELS

    cfg = Config.fromfile(configs[2])
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta={}), tmp_path / 'net.pth')
    noise.main(
        [
            configs[2],
            str(tmp_path / 'net.pth'),
            '--variances',
            '0',
            '0.1',
            '--work-dir',
            str(tmp_path / 'n'),
            '--metric',
            'accuracy/top5',
        ]
    )
    table = capsys.readouterr().out.split('accuracy/top5 by variance of the noise')[1].split('\n')
    assert table[2] == '| network | 0 | 0.1 |' and table[3] == '|---|---|---|'
    values = table[4].strip('| ').split(' | ')
    assert values[0] == configs[2] and all(0 <= float(value) <= 100 for value in values[1:])


@pytest.mark.parametrize(
    'kind', ['mmwcc.GaussianNoise', 'mmwcc.datasets.GaussianNoise', GaussianNoise]
)
def test_noise_goes_into_the_pipeline(kind):
    from mmengine.config import Config

    with_step = Config(
        dict(
            test_dataloader=dict(
                dataset=dict(pipeline=[dict(type=kind, variance=0.0), dict(type='Pack')])
            )
        )
    )
    noise.set_noise(with_step, 0.05)
    assert len(with_step.test_dataloader.dataset.pipeline) == 2
    assert with_step.test_dataloader.dataset.pipeline[0].variance == 0.05
    without = Config(
        dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='Load'), dict(type='Pack')])))
    )
    noise.set_noise(without, 0.02)
    steps = [step['type'] for step in without.test_dataloader.dataset.pipeline]
    assert steps == ['Load', 'mmwcc.GaussianNoise', 'Pack']


def test_noise_arguments_are_checked(configs, capsys):
    for argv, message in (
        ([configs[0]], 'every config needs a checkpoint after it'),
        ([configs[0], 'x.pth', '--variances', '-1'], '--variances must not be negative'),
    ):
        with pytest.raises(SystemExit):
            noise.parse_args(argv)
        assert message in capsys.readouterr().err
