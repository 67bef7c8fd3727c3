"""Runs of compressed models check their checkpoints, though nothing in the config names a hook of
mmwcc.
"""

import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from toy_checks import UNQUANTIZED, changed, edited, make, stock
from toy_training import COMPRESSION, toy_config

from mmwcc.engine.hooks import CompressionCheckHook


def checks(runner):
    return [hook for hook in runner.hooks if isinstance(hook, CompressionCheckHook)]


def test_every_run_of_a_compressed_model_is_checked(tmp_path):
    assert len(checks(stock(tmp_path))) == 1
    assert not checks(stock(tmp_path, None))
    (own,) = checks(make(tmp_path, check=dict(allow_dense=True)))
    assert own.allow_dense, 'the hook of a config stays the only one'


@pytest.mark.parametrize('mode', ['resume', 'test', 'val'])
def test_a_stock_run_refuses_dense_weights(checkpoints, tmp_path, mode):
    settings = dict(load_from=str(checkpoints['dense']), resume=mode == 'resume', val_interval=1)
    with pytest.raises(RuntimeError, match='got a checkpoint that is dense: point, spatial.'):
        getattr(stock(tmp_path, **settings), 'train' if mode == 'resume' else mode)()
    float_run = stock(tmp_path, UNQUANTIZED, **settings)
    with pytest.raises(RuntimeError, match='is dense or does not record its compression: point.'):
        getattr(float_run, 'train' if mode == 'resume' else mode)()


def test_a_stock_run_trains_from_dense_weights_and_stamps(checkpoints, tmp_path):
    stock(tmp_path, length=2, load_from=str(checkpoints['dense'])).train()
    stamp = torch.load(tmp_path / 'iter_2.pth', weights_only=True)['meta']['mmwcc']
    assert stamp['compression'] == COMPRESSION
    stock(tmp_path, length=3, resume=True).train()
    stock(tmp_path, load_from=str(tmp_path / 'iter_3.pth')).test()


def test_a_stock_run_refuses_to_resume_otherwise(checkpoints, tmp_path):
    quantized = {**COMPRESSION, 'pointwise': dict(type='mmwcc.QuantConv2d')}
    path = str(checkpoints['compressed'])
    with pytest.raises(RuntimeError, match='point: keep_ratio 0.25 in the checkpoint, none in'):
        stock(tmp_path, quantized, load_from=path, resume=True).train()


def test_a_flexible_runner_checks_too(checkpoints, tmp_path):
    from mmengine.runner._flexible_runner import FlexibleRunner

    def run(compression, **overrides):
        none = dict.fromkeys(('compression_schedule', 'compression_check', 'random_state'))
        name = f'flexible-{tmp_path.name}-{len(overrides)}'
        return FlexibleRunner.from_cfg(
            toy_config(
                tmp_path,
                compression=compression,
                hooks=none,
                experiment_name=name,
                env_cfg=dict(dist_cfg=dict(backend='gloo')),
                **overrides,
            )
        )

    assert len(checks(run(COMPRESSION))) == 1 and not checks(run(None, length=1))
    with pytest.raises(RuntimeError, match='got a checkpoint that is dense: point, spatial.'):
        run(COMPRESSION, load_from=str(checkpoints['dense']), length=2).test()


def test_resuming_names_what_load_from_does(checkpoints, tmp_path):
    work_dir = tmp_path / 'run'
    cause = 'Hook: because load_from is set, resume=True resumes from .*pth. '
    weights = edited(tmp_path, checkpoints['compressed'], lambda c: c.pop('optimizer') and None)
    starts = {
        str(checkpoints['dense']): 'to resume, the checkpoint must have',
        weights: 'to resume, a checkpoint must hold the state of the optimizer',
    }

    def refused(hint):
        for path, problem in starts.items():
            message = f'{cause}{hint} That file does not fit: {problem}'
            with pytest.raises(RuntimeError, match=message):
                stock(work_dir, load_from=path, resume=True).train()

    # As long as no run began in the folder, there is none to continue.
    refused(
        'There is no run to continue in .*run: to start one from that file, leave out --resume '
        '.resume=False..'
    )
    stock(work_dir, length=1, load_from=str(checkpoints['dense'])).train()
    refused('To continue the run in .*run, set load_from=None .*--cfg-options load_from=None..')
    stock(work_dir, length=2, load_from=None, resume=True).train()
    assert (work_dir / 'iter_2.pth').is_file()
    # The checkpoints of the run itself are not taken for the start of training.
    own = edited(work_dir, work_dir / 'iter_2.pth', lambda c: c.pop('optimizer') and None)
    with pytest.raises(RuntimeError, match='^CompressionCheckHook: to resume, a checkpoint must'):
        stock(work_dir, load_from=own, resume=True).train()


def test_a_run_that_finds_nothing_to_resume_says_so(checkpoints, tmp_path, log):
    said = 'CompressionCheckHook: resume=True found no checkpoint in '
    cases = [
        (dict(resume=True), True),
        (dict(), False),
        (dict(load_from=str(checkpoints['dense'])), False),
        (dict(load_from=str(checkpoints['compressed']), resume=True, length=3), False),
        (dict(compression=None, resume=True), False),
    ]
    for number, (settings, warns) in enumerate(cases):
        runner = stock(tmp_path / str(number), **{'length': 1, **settings})
        messages = log(runner)
        messages.clear()
        runner.train()
        warnings = [r.getMessage() for r in messages.records if r.levelno == logging.WARNING]
        assert any(text.startswith(said) for text in warnings) == warns


@pytest.mark.parametrize('name', ['compressed', 'wcc'])
@pytest.mark.parametrize('mode', ['train', 'resume', 'test', 'val'])
def test_a_stock_run_of_a_dense_model_refuses_compressed_weights(checkpoints, tmp_path, name, mode):
    settings = dict(load_from=str(checkpoints[name]), resume=mode == 'resume', val_interval=1)
    with pytest.raises(
        RuntimeError, match='^ToySegmentor: a compressed checkpoint needs a compressed model, got'
    ):
        getattr(stock(tmp_path, None, **settings), 'train' if mode == 'resume' else mode)()


def test_a_stock_run_of_a_dense_model_is_left_alone(checkpoints, tmp_path):
    path = str(checkpoints['dense'])
    stock(tmp_path, None, load_from=path).test()
    stock(tmp_path, None, length=1, load_from=path).train()
    assert 'mmwcc' not in torch.load(tmp_path / 'iter_1.pth', weights_only=True)['meta']
    weights = edited(tmp_path, path, lambda c: c.pop('optimizer') and None)
    stock(tmp_path / 'resumed', None, length=3, load_from=weights, resume=True).train()


def test_a_test_with_another_transform_names_the_cause(checkpoints, tmp_path, log):
    quantized = {**COMPRESSION, 'pointwise': dict(type='mmwcc.QuantConv2d')}
    runner = stock(tmp_path, quantized, load_from=str(checkpoints['compressed']))
    messages = log(runner)
    with pytest.raises(RuntimeError, match='of point.act_quant was evaluated .* another compress'):
        runner.test()
    assert 'point: keep_ratio 0.25 in the checkpoint, none in the model' in messages.text


def test_a_dense_run_is_not_overwritten(tmp_path):
    make(tmp_path, None, length=2).train()
    before = (tmp_path / 'iter_2.pth').read_bytes()
    for resume in (False, True):
        with pytest.raises(
            RuntimeError,
            match='^CompressionCheckHook: a compressed model must be trained in a folder of its '
            f"own, got work_dir='{tmp_path}', where iter_2.pth is the checkpoint of a dense model. "
            'This run would overwrite it. Set another work_dir in the compressed config, which may '
            'inherit',
        ):
            stock(tmp_path, resume=resume).train()
    assert (tmp_path / 'iter_2.pth').read_bytes() == before
    (tmp_path / 'iter_2.pth').write_bytes(before[:1000])
    stock(tmp_path, length=1).train()  # a damaged checkpoint is no loss


def named(folder, name, compression, **kwargs):
    """Build a runner of a config file of that name."""
    config = toy_config(folder, compression=compression, **kwargs)
    super(Config, config).__setattr__('_filename', f'{name}.py')
    return Runner.from_cfg(config)


def test_a_run_of_another_compression_is_not_overwritten(tmp_path):
    named(tmp_path, 'quarter', COMPRESSION, length=1).train()
    half = changed(keep_ratio=0.5)
    with pytest.raises(
        RuntimeError, match='iter_1.pth is the checkpoint of quarter, which compresses otherwise'
    ):
        named(tmp_path, 'half', half, length=1).train()
    named(tmp_path, 'renamed', COMPRESSION, length=1).train()
    named(tmp_path, 'renamed', half, length=1).train()  # edited, and run again
