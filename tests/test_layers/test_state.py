"""What a layer learned lies in its checkpoint, whole, and belongs to the weights that came with
it.
"""

import copy

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.post_training import calibrate

QUANTIZERS = dict(
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
CONFIG = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    **QUANTIZERS,
)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 2, 1),
    )


def compressed():
    model = network()
    compress_model(model, copy.deepcopy(CONFIG), verbose=False)
    return model


def image():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def calibrated():
    model = compressed().eval()
    calibrate(model, [image()])
    return model


def quantizers(model):
    return {name: module for name, module in model.named_modules() if name.endswith('_quant')}


def on_meta():
    with torch.device('meta'):
        return compressed()


@pytest.mark.parametrize(
    'build', [on_meta, lambda: compressed().to('meta')], ids=['built there', 'moved there']
)
def test_a_model_of_the_meta_device_is_filled_by_its_checkpoint(calibrated, build):
    model = build().to_empty(device='cpu')
    for buffer in model.buffers():
        buffer.zero_()  # what memory without a checkpoint would hold, at worst
    model.load_state_dict(calibrated.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(image()), calibrated(image()))


@pytest.mark.parametrize('build', [on_meta, compressed])
def test_a_checkpoint_can_be_assigned(calibrated, build):
    model = build()
    state = calibrated.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    model.load_state_dict(state, assign=True)
    with torch.no_grad():
        assert torch.equal(model.eval()(image()), calibrated(image()))
    assert all(torch.equal(state[key], value) for key, value in before.items())


def test_every_tensor_of_a_layer_is_in_its_checkpoint(calibrated):
    tensors = {name for name, _ in (*calibrated.named_parameters(), *calibrated.named_buffers())}
    assert tensors == set(calibrated.state_dict())


def test_reset_parameters_fills_what_no_checkpoint_fills():
    model = on_meta().to_empty(device='cpu')
    for module in model.modules():
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    fresh = quantizers(compressed())
    for name, quantizer in quantizers(model).items():
        assert all(
            torch.equal(value, fresh[name].state_dict()[key])
            for key, value in quantizer.state_dict().items()
        )


def test_weights_without_clips_make_the_quantizers_learn_again():
    dense = network()
    for parameter in dense.parameters():
        nn.init.normal_(parameter)
    late, early = compressed(), compressed()
    late(image())  # learns clips of random weights and of what they compute
    for model in (late, early):
        model.load_state_dict(dense.state_dict(), strict=False)
        assert not any(quantizer.is_settled for quantizer in quantizers(model).values())
        model(100 * image())
    assert all(
        torch.equal(value, early.state_dict()[key]) for key, value in late.state_dict().items()
    )


def test_a_part_of_a_checkpoint_resets_its_own_layers_alone(calibrated):
    calibrated.load_state_dict({'1.weight': torch.randn(8, 8, 1, 1)}, strict=False)
    settled = {name: quantizer.is_settled for name, quantizer in quantizers(calibrated).items()}
    assert settled == {
        '1.weight_quant': False,
        '1.act_quant': False,
        '3.weight_quant': True,
        '3.act_quant': True,
    }


@pytest.mark.parametrize('frozen', ['before', 'after'])
def test_clips_of_frozen_layers_ask_for_no_gradient(frozen):
    model = network()
    if frozen == 'before':
        model[1].requires_grad_(False)
    compress_model(model, copy.deepcopy(CONFIG), verbose=False)
    if frozen == 'after':
        model[1].requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in model[1].parameters())
    assert all(parameter.requires_grad for parameter in model[3].parameters())
    model(image()).sum().backward()
    assert quantizers(model)[
        '1.act_quant'
    ].is_settled  # frozen parts calibrate while the others train
    assert all(parameter.grad is None for parameter in model[1].parameters())


@pytest.mark.parametrize(
    'build',
    [
        lambda: QuantConv2d(4, 4, 3, padding=1, **QUANTIZERS),
        lambda: WaveletCompressedConv2d(4, 4, keep_ratio=0.5, **QUANTIZERS),
    ],
    ids=['quantized', 'wavelets'],
)
class TestOneGraph:
    """A layer that is called several times before one backward pass, as in recurrent cells and
    shared heads.
    """

    def test_zeros_first(self, build):
        layer, x = build(), torch.randn(2, 4, 8, 8)
        (layer(torch.zeros_like(x)) + layer(x) + layer(2 * x)).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
        assert layer.act_quant.is_settled

    def test_nothing_but_zeros_gives_every_parameter_a_gradient(self, build):
        layer = build()
        layer(torch.zeros(2, 4, 8, 8)).sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())
        assert layer.act_quant.met_zeros_alone and not layer.act_quant.is_settled

    def test_an_empty_batch_first(self, build):
        layer, x = build(), torch.randn(2, 4, 8, 8)
        (layer(x[:0]).sum() + layer(x).square().mean()).backward()
        assert layer.act_quant.is_settled

    def test_it_is_what_two_steps_give(self, build):
        torch.manual_seed(1)
        once, x = build(), torch.randn(2, 4, 8, 8)
        twice = copy.deepcopy(once)
        (once(torch.zeros_like(x)).sum() + once(x).square().mean()).backward()
        twice(torch.zeros_like(x)).sum().backward()
        twice(x).square().mean().backward()
        for one, other in zip(once.parameters(), twice.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
