"""Running a model to look at it leaves nothing behind."""

import pytest
import torch
from torch import nn

from mmwcc.model_tree.probe import example_input, layer_progress, tensor_mode, undisturbed


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
