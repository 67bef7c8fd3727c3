"""Addresses and paths told apart, and options that come too late."""

import pytest

pytest.importorskip('mmengine')
from mmengine.config import Config  # noqa: E402

from mmwcc.utils import (  # noqa: E402
    LaunchError,
    check_checkpoint,
    find_config,
    is_address,
    load_config,
    separate_visualizer,
)


@pytest.mark.parametrize(
    'path',
    [
        'https://host/net.pth',
        'https://host/net.safetensors',
        's3://bucket/net.safetensors',
        'openmmlab:s3://bucket/net.pth',
        'torchvision://resnet50',
        'open-mmlab://contrib/resnet50_gn',
    ],
)
def test_what_mmengine_fetches_is_an_address(path):
    assert is_address(path)
    check_checkpoint(path)


@pytest.mark.parametrize(
    'path',
    [
        'net.pth',
        'work_dirs/2024-05-01T12:30:00/net.pth',
        r'C:\models\net.pth',
        'C://models/net.safetensors',
        r'\\server\share\net.safetensors',
        'file:///models/net.pth',
        'htps://host/net.pth',
    ],
)
def test_everything_else_is_a_path(path):
    assert not is_address(path)
    with pytest.raises(LaunchError, match='does not exist'):
        check_checkpoint(path)


@pytest.mark.parametrize(
    ('task_type', 'key'),
    [
        ("task_type='A', compression=compression", 'model.compression.integer'),
        ("task_type=['mmwcc.WAEModel', 'A'], compression=compression", 'model.compression.integer'),
        (
            "task_type=dict(type='mmwcc.CompressedModel', task_type='A', compression=compression)",
            'model.task_type.compression.integer',
        ),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, task_type, key):
    outer = 'WAEModel' if 'dict' in task_type else 'CompressedModel'
    (tmp_path / 'c.py').write_text(
        f"compression = dict()\nmodel = dict(type='mmwcc.{outer}', {task_type})\n"
    )
    with pytest.raises(LaunchError, match=f'compression.integer has no effect.* Use {key}\\.'):
        load_config(str(tmp_path / 'c.py'), {'compression.integer': True})


def test_a_hub_path_is_a_config_of_a_package():
    file = find_config('mmwcc::_base_/compression/wcc_w8a8_k50.py')
    assert file.is_file() and file.parts[-3:] == ('_base_', 'compression', 'wcc_w8a8_k50.py')
    config = load_config('mmwcc::_base_/compression/wcc_w8a8_k50.py', {'compression.rules': [1]})
    assert config.compression.rules == [1] and config.filename == str(file)


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('no/such.py', r'config file no/such.py does not exist \(looked from'),
        ('mmnothing::a/b.py', 'is in the package mmnothing, which is not installed. Install it'),
        (
            'mmwcc::_base_/compression/wcc_w8a8_k5.py',
            "mmwcc has no config .* Did you mean '_base_/compression/wcc_w8a8_k50.py'",
        ),
    ],
)
def test_a_config_that_is_not_there(path, message):
    with pytest.raises(LaunchError, match=message):
        load_config(path)


def test_runs_of_one_process_write_logs_of_their_own(tmp_path):
    from mmengine.visualization import Visualizer

    for name in ('first', 'second'):
        config = Config(dict(work_dir=str(tmp_path / name), visualizer=dict(name='visualizer')))
        separate_visualizer(config)
        visualizer = Visualizer.get_instance(
            **config.visualizer,
            vis_backends=[dict(type='LocalVisBackend')],
            save_dir=config.work_dir,
        )
        visualizer.add_scalar('loss', 1.0)
        assert (tmp_path / name / 'vis_data' / 'scalars.json').is_file()
    without = Config(dict(work_dir='w'))
    separate_visualizer(without)
    assert 'visualizer' not in without
