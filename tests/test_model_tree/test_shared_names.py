"""Layers under one name each or under all their names."""

from torch import nn

from mmwcc.layers import QuantConv2d
from mmwcc.model_tree import compressed_layers, first_names, named_layers


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
