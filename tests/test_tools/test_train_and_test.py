"""tools/train.py, tools/test.py and their scripts: what they refuse, what they set, how openmim
reaches them.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')
from mmengine.config import Config  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402

from mmwcc.utils import LaunchError, build_runner, check_checkpoint, load_config, set_work_dir  # noqa: E402

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def load_tool(name: str):
    spec = importlib.util.spec_from_file_location(f'mmwcc_tool_{name}', TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train, test = load_tool('train'), load_tool('test')


def config(**keys) -> Config:
    return Config(dict(keys))


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / 'iter_2.pth'
    torch.save(dict(meta=dict(iter=2), state_dict=torch.nn.Linear(64, 64).state_dict()), path)
    return path


# The command line


@pytest.mark.parametrize(
    ('script', 'args'),
    [
        ('train.py', ['no_such_config.py']),
        ('test.py', ['no_such_config.py', 'no_such_checkpoint.pth']),
    ],
)
def test_missing_config_is_one_line_without_traceback(run_tool, script, args):
    result = run_tool(script, *args)
    assert result.returncode == 1
    assert result.stderr.startswith(f'{script}: The config file no_such_config.py does not exist')
    assert result.stderr.count('\n') == 1


@pytest.mark.parametrize(
    ('tool', 'args', 'expected'),
    [
        (
            train,
            ['c.py'],
            dict(resume=None, amp=False, auto_scale_lr=False, launcher='none', work_dir=None),
        ),
        (train, ['c.py', '--resume'], dict(resume='auto')),
        (
            train,
            ['c.py', '--resume', 'x.pth', '--amp', '--auto-scale-lr'],
            dict(resume='x.pth', amp=True),
        ),
        (
            train,
            ['c.py', '--cfg-options', 'a.b=1', 'c=[1,2]'],
            dict(cfg_options={'a.b': 1, 'c': [1, 2]}),
        ),
        (
            train,
            ['c.py', '--local-rank', '3', '--launcher', 'pytorch'],
            dict(local_rank=3, launcher='pytorch'),
        ),
        (
            test,
            ['c.py', 'x.pth', '--tta', '--show-dir', 'd', '--wait-time', '0.5', '--out', 'o'],
            dict(checkpoint='x.pth', tta=True, show_dir='d', wait_time=0.5, out='o', show=False),
        ),
    ],
)
def test_arguments_are_those_of_openmmlab(tool, args, expected, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tool', *args])
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    parsed = vars(tool.parse_args())
    assert {key: parsed[key] for key in expected} == expected
    assert os.environ.pop('LOCAL_RANK') == str(parsed['local_rank'])


def test_help_names_the_launcher(capsys, monkeypatch):
    """openmim asks for the help of a script before it runs it."""
    monkeypatch.setattr(sys, 'argv', ['train.py', '-h'])
    with pytest.raises(SystemExit, match='0'):
        train.parse_args()
    assert '--launcher' in capsys.readouterr().out


# Config, work folder, runner


def test_load_config_merges_options(tmp_path):
    (tmp_path / 'c.py').write_text('a = dict(b=1)\n')
    cfg = load_config(str(tmp_path / 'c.py'), {'a.b': 2}, 'slurm')
    assert (cfg.a.b, cfg.launcher) == (2, 'slurm')


@pytest.mark.parametrize(
    ('argument', 'in_config', 'expected'),
    [
        ('from_cli', 'from_cfg', 'from_cli'),
        (None, 'from_cfg', 'from_cfg'),
        (None, None, './work_dirs/my.config'),
    ],
)
def test_work_dir_priority(argument, in_config, expected):
    cfg = Config(dict(work_dir=in_config), cfg_text=' ', filename='somewhere/my.config.py')
    set_work_dir(cfg, argument)
    assert cfg.work_dir == expected


def test_runner_type_is_honoured():
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    class RunnerOfTest(Runner):
        @classmethod
        def from_cfg(cls, cfg):
            return cls.__name__, cfg.default_scope

    RUNNERS.register_module(module=RunnerOfTest)
    try:
        runner = build_runner(config(runner_type='RunnerOfTest', default_scope='mmengine'))
        assert runner == ('RunnerOfTest', 'mmengine')
    finally:
        RUNNERS.module_dict.pop('RunnerOfTest')


def test_config_without_a_model_is_refused():
    with pytest.raises(LaunchError, match='has no `model`. Give a config that can be trained'):
        build_runner(config(default_scope='mmengine'))


# Checkpoints


def test_complete_checkpoint_is_accepted(checkpoint):
    check_checkpoint(str(checkpoint))


def test_legacy_checkpoint_is_accepted(tmp_path):
    torch.save({'a': torch.zeros(3)}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    check_checkpoint(str(tmp_path / 'old.pth'))


def test_remote_checkpoint_is_left_to_mmengine():
    check_checkpoint('https://example.com/x.pth')


@pytest.mark.parametrize('part', [0.0, 0.01, 0.5, 0.999])
def test_truncated_checkpoint_is_refused(checkpoint, part):
    content = checkpoint.read_bytes()
    cut = checkpoint.with_name('cut.pth')
    cut.write_bytes(content[: int(len(content) * part)])
    size = f'{cut.stat().st_size:,}'
    with pytest.raises(
        LaunchError, match=rf'cut.pth \({size} bytes\) is not usable.*latest first: iter_2'
    ):
        check_checkpoint(str(cut))


def test_truncated_legacy_checkpoint_is_refused(tmp_path):
    path = tmp_path / 'old.pth'
    torch.save({'a': torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(LaunchError, match='not usable: torch.load says'):
        check_checkpoint(str(path))


def test_changed_byte_is_seen(checkpoint):
    """torch.load does not look at the checksums that torch.save writes."""
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 255
    checkpoint.write_bytes(content)
    torch.load(checkpoint, weights_only=True)
    with pytest.raises(LaunchError, match='checksum of .* does not match'):
        check_checkpoint(str(checkpoint))


def test_other_file_is_refused(tmp_path):
    (tmp_path / 'page.pth').write_text('<html>404 not found</html>')
    with pytest.raises(LaunchError, match='not a file that torch.save wrote'):
        check_checkpoint(str(tmp_path / 'page.pth'))


def test_missing_checkpoint_names_the_others(checkpoint):
    with pytest.raises(LaunchError, match=r'iter_3.pth does not exist .* latest first: iter_2.pth'):
        check_checkpoint(str(checkpoint.with_name('iter_3.pth')))


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6),
    reason='torch.load trusted every file',
)
@pytest.mark.parametrize(
    'content', [torch.nn.Linear(2, 2), np.zeros(2, np.complex64)], ids=['module', 'complex64']
)
def test_checkpoint_that_torch_refuses_is_explained(tmp_path, content):
    torch.save(content, tmp_path / 'whole.pth')
    with pytest.raises(LaunchError, match='is complete, but .* TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'):
        check_checkpoint(str(tmp_path / 'whole.pth'))


# train.py


@pytest.fixture
def resumable(checkpoint) -> Path:
    whole = dict(torch.load(checkpoint), meta=dict(iter=2, epoch=0), message_hub={}, optimizer={})
    torch.save(whole, checkpoint)
    return checkpoint


def test_resume_auto_takes_the_latest(resumable, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(resumable))
    cfg = config(work_dir=str(tmp_path), load_from='dense.pth')
    train.set_start(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (True, str(resumable))


@pytest.mark.parametrize(
    'settings', [dict(load_from='iter_2.pth', resume=True), dict(resume=True), {}]
)
def test_resume_without_an_optimizer_is_refused(checkpoint, tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    with pytest.raises(
        LaunchError, match='cannot be resumed from .*iter_2.pth, which does not hold .* optimizer'
    ):
        train.set_start(config(work_dir=str(tmp_path), **settings), None if settings else 'auto')
    train.set_start(config(work_dir=str(tmp_path), load_from=str(checkpoint)), None)


def test_resume_auto_without_checkpoint_keeps_load_from(checkpoint, tmp_path, capsys):
    """A compressed run starts from a dense checkpoint; the first attempt at it must not start from
    nothing.
    """
    cfg = config(work_dir=str(tmp_path / 'new'), load_from=str(checkpoint), resume=False)
    train.set_start(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (False, str(checkpoint))
    assert 'no checkpoint to resume' in capsys.readouterr().out


def test_resume_of_a_truncated_checkpoint_is_refused(checkpoint, tmp_path):
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    with pytest.raises(LaunchError, match='iter_2.pth .1,000 bytes. is not usable'):
        train.set_start(config(work_dir=str(tmp_path)), 'auto')


def test_missing_load_from_is_refused(tmp_path):
    with pytest.raises(LaunchError, match='dense.pth does not exist'):
        train.set_start(config(work_dir=str(tmp_path), load_from='dense.pth'), None)


@pytest.mark.parametrize('kind', ['OptimWrapper', OptimWrapper, 'mmengine.optim.OptimWrapper'])
def test_amp(monkeypatch, kind):
    monkeypatch.setattr(train, 'get_device', lambda: 'cuda')
    cfg = config(optim_wrapper=dict(type=kind))
    train.enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')
    with pytest.raises(LaunchError, match='--amp needs .* got ApexOptimWrapper'):
        train.enable_amp(config(optim_wrapper=dict(type='ApexOptimWrapper')))


def test_amp_without_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(train, 'get_device', lambda: 'cpu')
    with pytest.raises(LaunchError, match='--amp needs a GPU'):
        train.enable_amp(config(optim_wrapper=dict(type='OptimWrapper')))


def test_auto_scale_lr():
    cfg = config(auto_scale_lr=dict(enable=False, base_batch_size=16))
    train.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable
    with pytest.raises(LaunchError, match='--auto-scale-lr needs the batch size'):
        train.enable_auto_scale_lr(config())


# test.py


def test_show_dir():
    args = SimpleNamespace(show=True, show_dir='drawn', wait_time=0.5)
    segmentation = config(
        default_hooks=dict(visualization=dict(type='SegVisualizationHook')), visualizer=dict()
    )
    test.enable_drawing(segmentation, args)
    assert segmentation.visualizer.save_dir == 'drawn'
    assert segmentation.default_hooks.visualization == dict(
        type='SegVisualizationHook', draw=True, show=True, wait_time=0.5
    )
    detection = config(
        default_scope='mmdet', default_hooks=dict(visualization=dict(type='DetVisualizationHook'))
    )
    test.enable_drawing(detection, SimpleNamespace(show=False, show_dir='drawn'))
    assert detection.default_hooks.visualization == dict(
        type='DetVisualizationHook', draw=True, test_out_dir='drawn'
    )


def test_show_dir_without_hook_is_refused():
    with pytest.raises(LaunchError, match='need a visualization hook.*DetVisualizationHook'):
        test.enable_drawing(
            config(default_scope='mmdet'), SimpleNamespace(show=True, show_dir=None, wait_time=1)
        )


def test_tta_of_segmentation_comes_from_the_config():
    cfg = config(
        model=dict(type='EncoderDecoder'),
        tta_model=dict(type='SegTTAModel'),
        tta_pipeline=['tta'],
        test_dataloader=dict(dataset=dict(pipeline=['plain'])),
    )
    test.enable_tta(cfg)
    assert cfg.model == dict(type='SegTTAModel', module=dict(type='EncoderDecoder'))
    assert cfg.test_dataloader.dataset.pipeline == ['tta']
    with pytest.raises(LaunchError, match='--tta needs tta_model and tta_pipeline'):
        test.enable_tta(config(model=dict(), test_dataloader=dict(dataset=dict())))


def test_tta_of_detection_flips_by_default():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    cfg = config(
        default_scope='mmdet',
        model=dict(type='RetinaNet'),
        test_dataloader=dict(dataset=dict(pipeline=pipeline)),
    )
    test.enable_tta(cfg)
    assert cfg.model.module.type == 'RetinaNet'
    load, augment = cfg.test_dataloader.dataset.pipeline
    assert (load.type, augment.type) == ('LoadImageFromFile', 'TestTimeAug')
    assert [flip.prob for flip in augment.transforms[0]] == [1.0, 0.0]


def test_out_of_segmentation_is_a_folder():
    cfg = config(test_evaluator=[dict(type='IoUMetric')])
    test.keep_label_maps(cfg, 'label_maps')
    assert cfg.test_evaluator[0].output_dir == 'label_maps'


def test_out_of_detection_must_be_a_pickle(tmp_path, monkeypatch):
    (tmp_path / 'c.py').write_text("default_scope = 'mmdet'\n")
    monkeypatch.setattr(
        sys, 'argv', ['test.py', str(tmp_path / 'c.py'), 'x.pth', '--out', 'folder']
    )
    with pytest.raises(LaunchError, match='--out must end in .pkl or .pickle .* got folder'):
        test.main()


# Shell scripts


def run_script(name: str, *args: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(TOOLS / name), *args],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    'name', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_script_without_arguments_says_its_usage(name):
    result = run_script(name)
    assert result.returncode == 2
    assert f'{name} ' in result.stderr


@pytest.mark.parametrize(
    ('name', 'args', 'end'),
    [
        ('dist_train.sh', ['c.py', '2'], 'train.py c.py --launcher pytorch'),
        ('dist_test.sh', ['c.py', 'x.pth', '2'], 'test.py c.py x.pth --launcher pytorch'),
    ],
)
def test_dist_scripts(name, args, end):
    words = run_script(name, *args, '--cfg-options', 'a=[1, 2]', PYTHON='echo', PORT='1234').stdout
    assert (
        '-m torch.distributed.run' in words
        and '--nproc_per_node=2' in words
        and '--master_port=1234' in words
    )
    assert words.endswith(f'{end} --cfg-options a=[1, 2]\n')


@pytest.mark.parametrize(
    ('name', 'args', 'end'),
    [
        (
            'slurm_train.sh',
            ['part', 'job', 'c.py', 'dir'],
            'train.py c.py --work-dir=dir --launcher=slurm',
        ),
        ('slurm_test.sh', ['part', 'job', 'c.py', 'x.pth'], 'test.py c.py x.pth --launcher=slurm'),
    ],
)
def test_slurm_scripts(name, args, end, tmp_path):
    (tmp_path / 'srun').write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    words = run_script(
        name,
        *args,
        '--amp',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        GPUS='4',
        GPUS_PER_NODE='2',
        SRUN_ARGS='--quiet --time=5',
    ).stdout
    assert words.startswith('-p part --job-name=job --gres=gpu:2 --ntasks=4 --ntasks-per-node=2')
    assert '--quiet --time=5' in words
    assert words.endswith(f'{end} --amp\n')


# openmim


def test_openmim_finds_package_tools_and_configs():
    """The steps of ``mim train mmwcc NAME.py`` and ``mim run mmwcc TOOL``, up to starting the
    script.
    """
    pytest.importorskip('pkg_resources', reason='openmim 0.3 needs it')
    utils = pytest.importorskip('mim.utils')
    assert utils.module_full_name('mmwcc') == 'mmwcc' and utils.is_installed('mmwcc')
    root = utils.get_installed_path('mmwcc')
    assert Path(root, '.mim', 'tools', 'train.py').is_file()
    assert len(utils.recursively_find(os.path.join(root, '.mim', 'tools', ''), 'train.py')) == 1
    name = 'deeplabv3plus_mobilenetv2-os16_wcc-w8a8-k50_400i_camvid-256x256.py'
    assert len(utils.recursively_find(root, name, followlinks=True)) == 1
