"""Which activations become lean, and what that saves."""

import copy

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model, lean_activations
from mmwcc.layers import LeanReLU, LeanReLU6, WaveletCompressedConv2d


class Block(nn.Module):
    """An inverted residual block, and an activation that two layers read."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand = nn.Sequential(nn.Conv2d(8, 32, 1), nn.BatchNorm2d(32), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU6(True)
        )
        self.between = nn.Identity()
        self.project = nn.Conv2d(32, 8, 1)
        self.shared = nn.ReLU()
        self.branches = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)])
        self.predict = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.project(self.between(self.depthwise(self.expand(self.stem(x)))))
        x = self.shared(x)
        return self.predict(self.branches[0](x) + self.branches[1](x))


COMPRESSION = dict(pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25))


def compressed(**changes):
    torch.manual_seed(0)
    model = Block()
    compress_model(model, {**COMPRESSION, **changes}, verbose=False)
    return model


def test_only_where_wavelet_layers_alone_read():
    model = compressed()
    assert lean_activations(model) == ['depthwise.2']
    assert type(model.depthwise[2]) is LeanReLU6 and model.depthwise[2].inplace
    assert type(model.expand[2]) is nn.ReLU6 and type(model.shared) is nn.ReLU
    assert lean_activations(model) == []


def test_a_shared_activation_is_replaced_under_all_its_names_and_keeps_its_mode():
    act = nn.ReLU().eval()
    model = nn.Sequential(nn.Conv2d(3, 8, 1), act, nn.Conv2d(8, 8, 1), act, nn.Conv2d(8, 2, 1))
    compress_model(model, dict(COMPRESSION, keep_dense=['first']), verbose=False)
    assert lean_activations(model) == ['1', '3']
    assert model[1] is model[3] and type(model[1]) is LeanReLU and not model[1].training


def test_an_activation_whose_forward_was_replaced_stays():
    model = compressed()
    model.depthwise[2].forward = lambda x: 2 * x
    assert lean_activations(model) == []


def test_switch_in_the_compression_dictionary(monkeypatch):
    said = []
    monkeypatch.setattr('mmwcc.compression.convert.announce', said.append)
    model = Block()
    compress_model(model, dict(**COMPRESSION, lean_activations=dict(input_shape=(16, 24))))
    assert type(model.depthwise[2]) is LeanReLU6
    assert 'Activations that keep masks for backward: 1' in said[0].splitlines()


def test_same_training_step_and_less_saved():
    lean, stock = compressed(lean_activations=dict()), compressed()
    assert lean.state_dict().keys() == stock.state_dict().keys()
    lean.load_state_dict(stock.state_dict())
    saved, gradients = [], []
    for model in (lean, stock):
        storages = {}

        def pack(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(torch.ones(2, 3, 16, 16).cumsum(3)).square().sum()
        saved.append(sum(storages.values()))
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert (
        saved[1] - saved[0] == 2 * 32 * 16 * 16 * 3
    )  # three of four bytes of the map of the depthwise layer


def count_hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_nothing_else_of_the_model_changes():
    model = compressed()
    model.train()
    model.expand.eval()
    before, hooks = copy.deepcopy(model.state_dict()), count_hooks(model)
    random = torch.random.get_rng_state()
    lean_activations(model)
    assert model.training and not model.expand.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(random, torch.random.get_rng_state())
    assert count_hooks(model) == hooks


@pytest.mark.filterwarnings('error')
def test_quantized_layers_count_as_wavelet_layers():
    model = compressed(act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8))
    assert isinstance(model.project, WaveletCompressedConv2d) and lean_activations(model) == [
        'depthwise.2'
    ]
    assert model.project.act_quant.bits == 8 and not model.project.act_quant.initialized


def test_input_that_does_not_fit():
    with pytest.raises(
        ValueError, match=r'lean_activations: Block must run on zeros of shape \(1, 5, 8, 8\)'
    ):
        lean_activations(compressed(), (5, 8, 8))
    with pytest.raises(ValueError, match="lean_activations: unknown key 'input'"):
        compressed(lean_activations=dict(input=(8, 8)))
    with pytest.raises(TypeError, match='lean_activations must be a dict'):
        compressed(lean_activations=True)
