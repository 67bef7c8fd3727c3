"""Checkpoints of integer models in mmengine's runner, under the eye of CompressionCheckHook."""

import pytest
import torch
from toy_training import COMPRESSION, toy_runner

from mmwcc.inference import to_integer

INTEGER = dict(COMPRESSION, integer=True)


def make(folder, **kwargs):
    return toy_runner(folder, hooks=dict(compression_schedule=None, random_state=None), **kwargs)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """A trained checkpoint, and its integer form as the hook stamps it and bare."""
    folder = tmp_path_factory.mktemp('integers')
    runner = make(folder, length=2)
    runner.train()
    to_integer(runner.model, verbose=False)
    runner.save_checkpoint(
        str(folder), 'integer.pth', save_optimizer=False, save_param_scheduler=False
    )
    torch.save(dict(state_dict=runner.model.state_dict()), folder / 'bare.pth')
    return {name: str(folder / f'{name}.pth') for name in ('iter_2', 'integer', 'bare')}


@pytest.mark.parametrize('name', ['integer', 'bare'])
def test_integer_model_loads_an_integer_checkpoint(checkpoints, tmp_path, name):
    runner = make(tmp_path, compression=INTEGER, load_from=checkpoints[name])
    metrics = runner.test()
    weights = torch.load(checkpoints[name], weights_only=False)['state_dict']
    assert weights['point.weight'].dtype == torch.int8
    assert all(torch.equal(value, runner.model.state_dict()[key]) for key, value in weights.items())
    trained = make(tmp_path, load_from=checkpoints['iter_2']).test()
    assert metrics == pytest.approx(trained, abs=0.3)


def test_integer_model_refuses_a_trained_checkpoint(checkpoints, tmp_path):
    with pytest.raises(
        RuntimeError,
        match='an integer model needs an integer checkpoint, got one without integers in '
        'point. Convert it with tools/deployment/to_integer.py',
    ):
        make(tmp_path, compression=INTEGER, load_from=checkpoints['iter_2']).test()


@pytest.mark.parametrize('name', ['integer', 'bare'])
def test_other_models_refuse_an_integer_checkpoint(checkpoints, tmp_path, name):
    with pytest.raises(
        RuntimeError,
        match='an integer checkpoint needs an integer model, got one without integers in '
        'point. Set integer=True',
    ):
        make(tmp_path, load_from=checkpoints[name]).test()
    with pytest.raises(
        RuntimeError, match='a compressed checkpoint needs a compressed model, got a dense model'
    ):
        make(tmp_path, compression=None, load_from=checkpoints[name]).test()


def test_integer_models_cannot_be_trained(checkpoints, tmp_path):
    with pytest.raises(RuntimeError, match='integers have no gradient'):
        make(tmp_path, compression=INTEGER, load_from=checkpoints['integer'], length=1).train()
