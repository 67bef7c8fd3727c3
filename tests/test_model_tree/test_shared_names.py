"""Layers under one name each or under all their names, and guards on models."""

import warnings

import pytest
import torch
from torch import nn

from mmwcc.layers import QuantConv2d
from mmwcc.model_tree import (
    compressed_layers,
    first_names,
    guard,
    guards_off,
    lift_guards,
    named_layers,
)


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def shared() -> nn.Sequential:
    layer = QuantConv2d(2, 2, 1)
    return nn.Sequential(layer, nn.Sequential(nn.ReLU(), layer), nn.Conv2d(2, 2, 1))


def test_named_layers_are_those_of_the_state():
    model = shared()
    assert list(named_layers(model, QuantConv2d)) == ['0', '1.1']
    assert set(named_layers(model, nn.Conv2d)) == {
        key.removesuffix('.weight') for key in model.state_dict() if key.endswith('.weight')
    }


def test_each_layer_is_worked_on_once():
    model = shared()
    assert list(compressed_layers(model)) == list(compressed_layers(Wrapped(model))) == ['0']
    names = first_names(Wrapped(model))
    assert (names['0'], names['1.1'], names['1.0'], names['']) == ('0', '0', '1.0', '')


def test_a_guard_refuses_evaluation_until_training():
    model = nn.Sequential(nn.ReLU())
    guard(model, 'no')
    guard(model, 'not yet')
    for _ in range(2):
        with pytest.raises(RuntimeError, match='^not yet$'):
            model.eval()(torch.ones(1))
    with guards_off(model):
        model(torch.ones(1))
    with pytest.raises(RuntimeError, match='^not yet$'):
        model(torch.ones(1))
    model.train()(torch.ones(1))
    model.eval()(torch.ones(1))
    assert not model._forward_pre_hooks


def test_a_guard_may_warn_once():
    model = nn.Sequential(nn.ReLU()).eval()
    guard(model, '', 'look')
    with pytest.warns(UserWarning, match='^look$'):
        model(torch.ones(1))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model(torch.ones(1))


def test_guards_of_parts_are_lifted_and_other_hooks_stay():
    model, seen = nn.Sequential(nn.ReLU()).eval(), []
    model[0].register_forward_pre_hook(lambda *_: seen.append(1))
    guard(model[0], 'no')
    lift_guards(model)
    model(torch.ones(1))
    assert seen == [1]


def test_compiled_models_are_guarded():
    model = nn.Sequential(nn.ReLU())
    guard(model, 'no')
    compiled = torch.compile(model, backend='eager')
    with pytest.raises(RuntimeError, match='^no$'):
        compiled.eval()(torch.ones(1))
    compiled.train()(torch.ones(1))
    compiled.eval()(torch.ones(1))
