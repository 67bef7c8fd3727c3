"""tools/analysis_tools/calibrate.py on a toy segmentor."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmengine')
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_engine'))
from toy_training import COMPRESSION, ToySegmentor, toy_config  # noqa: E402

from mmwcc.utils import LaunchError, calibration_batches, dense_config, load_config  # noqa: E402

ROOT = Path(__file__).parents[2]


def load_tool(name):
    spec = importlib.util.spec_from_file_location(
        name, ROOT / 'tools' / 'analysis_tools' / f'{name}.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tool():
    return load_tool('calibrate')


@pytest.fixture
def toy(tmp_path):
    """Write a config, compressed or not, and a dense checkpoint; return their paths."""

    def write(compression=COMPRESSION, **overrides):
        config = toy_config(
            tmp_path / 'work',
            compression=compression,
            hooks=dict(compression_schedule=None),
            **overrides,
        )
        path = tmp_path / ('dense.py' if compression is None else 'compressed.py')
        path.write_text(config.pretty_text)
        torch.save(
            dict(state_dict=ToySegmentor().state_dict(), meta=dict(seed=3)), tmp_path / 'dense.pth'
        )
        return str(path), str(tmp_path / 'dense.pth')

    return write


def test_writes_a_checkpoint_that_is_tested(tool, toy, tmp_path, capsys):
    metrics = tool.main([*toy(), '--images', '5', '--batch-size', '2'])
    assert 0 <= metrics['accuracy'] <= 1
    captured = capsys.readouterr()
    summary = '4 clips from 3 batches\nstatistics of 2 BatchNorm layers estimated again\n'
    assert summary in captured.out
    for line in ('reading images: 5 images', 'clips: 3 batches', 'BatchNorm: 3 batches'):
        assert f'{line}\n' in captured.err
    saved = torch.load(tmp_path / 'work' / 'calibrated.pth')
    dense = torch.load(tmp_path / 'dense.pth')['state_dict']
    changed = {
        key for key, value in dense.items() if not torch.equal(value, saved['state_dict'][key])
    }
    assert changed == {
        f'norm{i}.{name}'
        for i in '12'
        for name in ('running_mean', 'running_var', 'num_batches_tracked')
    }
    assert all(value for key, value in saved['state_dict'].items() if key.endswith('.initialized'))
    assert (
        saved['meta']['seed'] == 3
        and saved['meta']['mmwcc']['layers']['point']['keep_ratio'] == 0.25
    )
    config = load_config(str(tmp_path / 'work' / 'calibrated.py'))
    assert config.model.compression.pointwise.keep_ratio == 0.25 and config.load_from is None


def test_a_dense_config_with_a_preset(tool, toy, tmp_path, capsys):
    out = tmp_path / 'new' / 'quantized.pth'
    metrics = tool.main(
        [
            *toy(compression=None),
            '--compression',
            'quant_w8a8',
            '--keep-batch-norm',
            '--out',
            str(out),
            '--no-test',
            '--method',
            'percentile',
            '--percentile',
            '100',
        ]
    )
    assert metrics == {} and 'BatchNorm' not in capsys.readouterr().out
    saved, dense = torch.load(out)['state_dict'], torch.load(tmp_path / 'dense.pth')['state_dict']
    assert all(torch.equal(value, saved[key]) for key, value in dense.items())
    assert saved['point.weight_quant.clip_alpha'] == pytest.approx(
        dense['point.weight'].abs().max().item(), rel=1e-6
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['missing.py', 'x.pth'], 'config file missing.py does not exist'),
        (
            ['DENSE', 'PTH'],
            'has no compressed model. Give a compressed config, or say how to compress',
        ),
        (['COMPRESSED', 'PTH', '--compression', 'quant_w8a8'], 'compressed already'),
        (['COMPRESSED', 'missing.pth'], r'checkpoint missing\.pth does not exist'),
        (
            ['COMPRESSED', 'PTH', '--method', 'percentile', '--percentile', '0'],
            r'percentile must be in \(0, 100\]',
        ),
    ],
)
def test_errors(tool, toy, arguments, message):
    paths = dict(DENSE=toy(compression=None)[0], COMPRESSED=toy()[0], PTH=toy()[1])
    with pytest.raises(SystemExit, match=message):
        tool.main([paths.get(argument, argument) for argument in arguments])


def test_a_compressed_checkpoint_is_refused(tool, toy, tmp_path):
    config, checkpoint = toy()
    tool.main([config, checkpoint, '--no-test'])
    with pytest.raises(
        SystemExit, match=r'calibrated\.pth does not fit the model .* (?s:.*)act_quant'
    ):
        tool.main([config, str(tmp_path / 'work' / 'calibrated.pth')])


@pytest.mark.parametrize(
    'options, message',
    [
        (['--images', '0'], '--images must be at least 1, got 0'),
        (['--batch-size', '0'], '--batch-size must be at least 1, got 0'),
        (['--out', 'x.pt'], '--out must end in .pth, got x.pt'),
    ],
)
def test_bad_options(tool, capsys, options, message):
    with pytest.raises(SystemExit):
        tool.main(['config.py', 'dense.pth', *options])
    assert message in capsys.readouterr().err


def test_dense_config(toy):
    config = load_config(toy()[0])
    dense, compression = dense_config(config)
    assert dense.model == dict(type='ToySegmentor') and compression == COMPRESSION
    assert config.model.type == 'mmwcc.CompressedModel'
    with pytest.raises(LaunchError, match='has no compressed model'):
        dense_config(dense)


def test_calibration_batches(toy):
    config = load_config(toy(compression=None)[0])
    batches = list(calibration_batches(config, 5, batch_size=2))
    assert [len(batch['inputs']) for batch in batches] == [2, 2, 1]
    assert all(len(batch['labels']) == len(batch['inputs']) for batch in batches)
    repeated = dict(config.train_dataloader.dataset)
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=repeated)
    assert len(list(calibration_batches(config, 100, batch_size=1))) == 9
    assert config.train_dataloader.dataset['type'] == 'RepeatDataset'
    config.test_dataloader = None
    with pytest.raises(LaunchError, match='has no `test_dataloader`'):
        next(calibration_batches(config, 1))


def test_training_images_go_through_the_test_pipeline(tmp_path):
    pytest.importorskip('mmcv')
    from mmengine.config import Config
    from PIL import Image

    for number, size in enumerate([(6, 4), (6, 4), (4, 6)]):
        (tmp_path / 'one').mkdir(exist_ok=True)
        Image.new('RGB', size).save(tmp_path / 'one' / f'{number}.png')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmwcc.PackClsInputs')]
    dataset = dict(type='mmwcc.ImageFolder', data_root=str(tmp_path))
    config = Config(
        dict(
            default_scope='mmwcc',
            train_dataloader=dict(dataset=dict(dataset, pipeline=[dict(type='NotAskedFor')])),
            test_dataloader=dict(dataset=dict(dataset, pipeline=pipeline)),
        )
    )
    batches = list(calibration_batches(config, 3))
    # An image of another size starts a new batch.
    assert [[tuple(image.shape) for image in batch['inputs']] for batch in batches] == [
        [(3, 4, 6)] * 2,
        [(3, 6, 4)],
    ]
