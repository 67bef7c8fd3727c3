"""Running a model to look at it leaves nothing behind."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from mmwcc.model_tree.probe import (
    example_input,
    hooks_off,
    layer_progress,
    run_on_zeros,
    tensor_mode,
    twin,
    undisturbed,
)


def test_example_input():
    model = nn.Sequential(nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1)).double()
    assert (
        example_input(model, (6, 7)).shape == (1, 5, 6, 7)
        and example_input(model, (6, 7)).dtype == torch.double
    )
    assert example_input(model, (2, 6, 7)).shape == (1, 2, 6, 7)
    assert example_input(nn.ReLU(), (9,)).shape == (1, 9)
    with pytest.raises(
        ValueError,
        match=r'ReLU has no convolution that tells the channels of an input of size \(6, 7',
    ):
        example_input(nn.ReLU(), (6, 7))


class WithMode(nn.Module):
    def forward(self, x, mode='loss'):
        return x


def test_tensor_mode():
    assert tensor_mode(WithMode()) == dict(mode='tensor') and tensor_mode(nn.ReLU()) == {}


@pytest.mark.parametrize('fails', [False, True])
def test_undisturbed(fails):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(), nn.BatchNorm2d(4))
    model[2].eval()
    kept = model[0].register_forward_hook(lambda *args: None)
    random = torch.get_rng_state()
    try:
        with undisturbed(model):
            assert (
                not any(module.training for module in model.modules())
                and not torch.is_grad_enabled()
            )
            model[0].register_forward_hook(lambda *args: None)
            model[1].register_forward_pre_hook(lambda *args: None)
            torch.rand(3)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert [module.training for module in model.modules()] == [
        True,
        True,
        True,
        False,
    ] and torch.is_grad_enabled()
    assert list(model[0]._forward_hooks) == [kept.id] and not model[1]._forward_pre_hooks
    assert torch.equal(random, torch.get_rng_state())


def test_layers_are_counted_while_a_model_runs(monkeypatch, capsys):
    monkeypatch.setattr('mmwcc.progress._PAUSE', 0)
    shared = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), shared, shared, nn.Linear(2, 2))
    with layer_progress(model, 'counting'):
        model[:4](torch.zeros(1, 3, 2, 2))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'counting: 3 layers' and lines[-1].startswith('counting: 2/3 layers in ')
    assert not any(module._forward_hooks for module in model.modules())


def test_all_generators_continue_where_they_were():
    def numbers():
        return random.random(), np.random.rand(), torch.rand(1).item()

    def seed():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)

    seed()
    expected = numbers()
    seed()
    with undisturbed(nn.ReLU()):
        numbers()
    assert numbers() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_the_generator_of_cuda_continues_where_it_was():
    torch.rand(1, device='cuda')
    before = torch.cuda.get_rng_state()
    with undisturbed(nn.ReLU()):
        torch.rand(3, device='cuda')
    assert torch.equal(torch.cuda.get_rng_state(), before)


class Remembering(nn.Module):
    """Keeps statistics in buffers, in place and anew, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer('seen', torch.zeros(1))
        self.register_buffer('mean', torch.zeros(4))
        self.register_buffer('var', torch.ones(4))
        self.register_buffer('latest', torch.zeros(1))
        self.calls, self.ends_with = 0, None

    def forward(self, x):
        self.seen.add_(1)
        self.calls += 1
        self.latest = self.latest + 1
        self.added = x
        x = nn.functional.batch_norm(self.conv(x), self.mean, self.var, training=True)
        if self.ends_with is not None:
            raise self.ends_with
        return x


def state(model):
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return tensors, {key: id(value) for key, value in vars(model).items()}


def same(one, other):
    return (
        one[1] == other[1]
        and one[0].keys() == other[0].keys()
        and all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())
    )


def test_a_twin_shares_parameters_alone():
    model = Remembering()
    before, copied = state(model), twin(model)
    copied(torch.rand(2, 3, 4, 4))
    assert copied.seen == 1 and same(state(model), before)
    assert copied.conv.weight is model.conv.weight


def test_a_twin_never_takes_hooks_from_the_model():
    class Single(nn.Conv2d):
        def __deepcopy__(self, memo):
            return self

    model = nn.Sequential(Single(3, 4, 1))
    model[0].register_forward_hook(lambda *args: None)
    with pytest.raises(TypeError, match='copy.deepcopy does not copy its Single'):
        twin(model)
    assert model[0]._forward_hooks


def run(model):
    run_on_zeros('it', model, (4, 4), lambda: None, purpose='be seen', remedy='')


@pytest.mark.parametrize('ends_with', [None, RuntimeError(), KeyboardInterrupt(), SystemExit()])
def test_a_run_restores_buffers_and_attributes(ends_with):
    model = Remembering()
    model.ends_with = ends_with
    before = state(model)
    if ends_with is None:
        run(model)
    else:
        expected = ValueError if isinstance(ends_with, RuntimeError) else type(ends_with)
        with pytest.raises(expected):
            run(model)
    assert same(state(model), before) and model.training


def test_a_run_leaves_buffers_valid_for_the_backward_pass():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).eval())
    output = model(torch.rand(2, 3, 4, 4))
    run(model)
    output.sum().backward()


def test_no_hook_is_called_and_all_return():
    model, calls = nn.ReLU(), []
    model.register_forward_hook(lambda *args: calls.append(1))
    model.register_forward_pre_hook(lambda *args: calls.append(1))
    with hooks_off(model):
        model(torch.zeros(1))
    assert not calls
    model(torch.zeros(1))
    assert len(calls) == 2


def test_a_twin_has_no_hooks_and_the_model_keeps_its_own():
    model, calls = nn.ReLU(), []
    model.register_forward_hook(lambda *args: calls.append(1))
    model.register_state_dict_pre_hook(lambda *args: calls.append(1))
    model._register_state_dict_hook(lambda *args: calls.append(1))
    copied = twin(model)
    copied(torch.zeros(1))
    copied.state_dict()
    assert not calls
    model(torch.zeros(1))
    model.state_dict()
    assert len(calls) == 3
