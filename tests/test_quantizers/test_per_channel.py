"""A clip for each output channel of a weight: each is quantized as a layer of its own would be."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmwcc.functional import normalization, quantize
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.post_training import calibrate
from mmwcc.quantizers import (
    CHANNEL,
    LearnedClipWeightQuantizer,
    LSQWeightQuantizer,
    UniformQuantizer,
    upgrade_optimizer_state,
)
from mmwcc.quantizers.calibration import choose_clips

KINDS = {
    'learned clip': lambda **options: LearnedClipWeightQuantizer(4, **options),
    'standard': lambda **options: LearnedClipWeightQuantizer(4, normalize='standard', **options),
    'rescale': lambda **options: LearnedClipWeightQuantizer(4, normalize='rescale', **options),
    'lsq': lambda **options: LSQWeightQuantizer(4, **options),
}
every_kind = pytest.mark.parametrize('kind', KINDS)


def weight(channels=6):
    """Return a kernel whose channels differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-2, 1, channels).reshape(-1, 1, 1, 1)
    return torch.randn(channels, 5, 3, 3, generator=generator) * scales


def learned_from(x, kind, **options):
    quantizer = KINDS[kind](per_channel=True, **options)
    quantizer(x)
    return quantizer


def learned(kind='learned clip', **options):
    return learned_from(weight(), kind, **options)


def normalized(kind, x):
    mean, std = normalization(x)
    return (x - mean) / std if kind in ('standard', 'rescale') else x


@every_kind
@pytest.mark.parametrize('calibration', ['mse', 'percentile', 'lsq'])
def test_each_channel_starts_at_the_clip_of_its_own_values(kind, calibration):
    quantizer = learned(kind, calibration=calibration, percentile=90.0)
    assert quantizer.clip_alpha.shape == (6,) and quantizer.is_settled
    for clip, channel in zip(quantizer.clip_alpha, normalized(kind, weight()), strict=True):
        alone = LSQWeightQuantizer(4, calibration=calibration, percentile=90.0)
        alone(channel)
        # A layer chooses from a histogram, a channel from its values: a candidate or two apart.
        torch.testing.assert_close(clip, alone.clip_alpha[0], rtol=0.12, atol=0)


@every_kind
def test_the_clip_of_least_squared_error_is_found(kind):
    quantizer, x = learned(kind), normalized(kind, weight())
    spec = quantizer.spec(x)._replace(normalize='')

    def error(factor):
        rounded = quantize(x, quantizer.clip_alpha * factor, quantizer.signed, spec)
        return (rounded - x).square().sum((1, 2, 3))

    for factor in (0.8, 1.25):
        assert (error(factor) >= 0.9 * error(1)).all()  # LSQ has a level more below zero


@every_kind
def test_values_and_gradients_are_those_of_single_channels(kind):
    quantizer = learned(kind)
    x = weight().requires_grad_()
    grad = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    y = quantizer(x)
    y.backward(grad)
    std = normalization(x)[1]
    values = normalized(kind, x.detach())
    spec = quantizer.spec(x)._replace(normalize='', axes=())
    factor = std if kind == 'rescale' else torch.ones(())
    for n in range(6):
        alone = values[n].clone().requires_grad_()
        clip = quantizer.clip_alpha.detach()[n].clone().requires_grad_()
        expected = quantize(alone, clip, quantizer.signed, spec)
        expected.backward(grad[n] * factor)
        torch.testing.assert_close(y[n], expected * factor)
        torch.testing.assert_close(quantizer.clip_alpha.grad[n], clip.grad, rtol=1e-4, atol=1e-5)
        divisor = std if kind in ('standard', 'rescale') else 1
        torch.testing.assert_close(x.grad[n], alone.grad / divisor)


def test_lsq_scales_gradients_by_the_values_of_a_channel():
    one = LSQWeightQuantizer(4)
    assert one.spec(weight()).alpha_scale == pytest.approx((6 * 45 * 7) ** -0.5 * 49)
    assert learned('lsq').spec(weight()).alpha_scale == pytest.approx((45 * 7) ** -0.5 * 49)


def test_a_channel_of_zeros_takes_the_largest_clip():
    x = weight()
    x[2] = 0
    quantizer = LearnedClipWeightQuantizer(per_channel=True)
    quantizer(x)
    assert quantizer.clip_alpha[2] == quantizer.clip_alpha.max()


def test_without_calibration_all_start_at_the_initial_clip():
    assert learned(calibration=None, initial_clip=2.5).clip_alpha.tolist() == [2.5] * 6


def test_calibration_counts_the_largest_clips_of_all_calls():
    quantizer = LearnedClipWeightQuantizer(per_channel=True)
    quantizer.begin_calibration()
    for scale in (2.0, 1.0):
        quantizer.calibrate(scale * weight())
    quantizer.end_calibration()
    twice = LearnedClipWeightQuantizer(per_channel=True)
    twice(2 * weight())
    assert torch.equal(quantizer.clip_alpha, twice.clip_alpha)


def test_a_calibration_searches_only_once_for_the_clips_of_a_weight(monkeypatch):
    searched = []

    def search(rows, *arguments):
        searched.append(rows)
        return choose_clips(rows, *arguments)

    monkeypatch.setattr('mmwcc.quantizers.learning.choose_clips', search)
    layer = QuantConv2d(5, 6, 3, weight_quant=KINDS['rescale'](per_channel=True)).eval()
    calibrate(layer, [torch.randn(1, 5, 9, 9) for _ in range(3)])
    assert len(searched) == 1
    alone = learned_from(layer.weight, 'rescale')
    assert torch.equal(layer.weight_quant.clip_alpha, alone.clip_alpha)

    searched.clear()
    quantizer = LearnedClipWeightQuantizer(per_channel=True)
    quantizer.begin_calibration()
    x = weight()
    for _ in range(2):
        quantizer.calibrate(x)
        x *= 2  # in place: these are other values
    assert len(searched) == 2
    quantizer.end_calibration()


def test_zeros_teach_nothing():
    quantizer = LearnedClipWeightQuantizer(per_channel=True)
    quantizer(torch.zeros(3, 4, 1, 1))
    assert quantizer.met_zeros_alone and not quantizer.is_settled
    assert quantizer.clip_alpha.shape == (3,)


def test_a_layer_makes_room_and_an_optimizer_keeps_the_parameter():
    quantizer = LearnedClipWeightQuantizer(per_channel=True)
    parameter = quantizer.clip_alpha
    layer = QuantConv2d(3, 8, 3, weight_quant=quantizer)
    assert layer.weight_quant.clip_alpha is parameter and parameter.shape == (8,)
    with pytest.raises(ValueError, match='must have one index for each of 8 clips, got 4'):
        QuantConv2d(3, 4, 3, weight_quant=quantizer)


class ForBoth(UniformQuantizer):
    spec = LearnedClipWeightQuantizer.spec


@pytest.mark.parametrize('layer_type', [QuantConv2d, WaveletCompressedConv2d])
def test_activations_have_no_output_channels(layer_type):
    options = dict(keep_ratio=0.5) if layer_type is WaveletCompressedConv2d else {}
    with pytest.raises(ValueError, match=f'{layer_type.__name__}: act_quant must have one clip'):
        layer_type(3, 4, 1, **options, act_quant=dict(type=ForBoth, signed=True, scales=CHANNEL))


def test_several_clips_need_a_sign():
    class Quantizer(UniformQuantizer):
        spec = None

    with pytest.raises(ValueError, match='Quantizer: signed must be True or False where there are'):
        Quantizer(scales=CHANNEL)


@every_kind
def test_copies_and_files(kind, tmp_path):
    quantizer, x = learned(kind), weight()
    expected = quantizer(x)
    assert torch.equal(copy.deepcopy(quantizer)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(quantizer))(x), expected)
    torch.save(quantizer.state_dict(), tmp_path / 'state.pth')
    state = torch.load(tmp_path / 'state.pth')
    assert state._metadata['']['version'] == 2
    assert {key: tuple(value.shape) for key, value in state.items()} == dict(
        clip_alpha=(6,), initialized=(), signed=(), granularity=()
    )
    for bare in (state, dict(state)):  # safetensors keep no metadata
        fresh = KINDS[kind](per_channel=True)
        fresh.load_state_dict(bare)
        assert fresh.is_settled and torch.equal(fresh.eval()(x), expected)


@pytest.mark.parametrize('assign', [False, True])
@every_kind
def test_the_clip_of_a_layer_serves_all_channels(kind, assign):
    layer = KINDS[kind]()
    expected = layer(weight())
    for scalar in (False, True):  # 0.1 wrote scalars
        state = layer.state_dict()
        state['clip_alpha'] = state['clip_alpha'].reshape(() if scalar else 1)
        quantizer = KINDS[kind](per_channel=True)
        quantizer.fit(6)
        quantizer.load_state_dict(state, assign=assign)
        assert quantizer.clip_alpha.shape == (6,) and quantizer.granularity == 1
        assert torch.equal(quantizer.eval()(weight()), expected)


def test_clips_of_channels_are_refused_where_there_is_one():
    quantizer = LearnedClipWeightQuantizer(4)
    quantizer(weight())
    with pytest.raises(
        RuntimeError, match='clip_alpha must be one clip, got 6, one for each output'
    ):
        quantizer.load_state_dict(learned().state_dict(), strict=False)
    assert not quantizer.is_settled  # a loader that goes on does not keep the clip of other weights


def test_other_states_are_refused():
    quantizer = LearnedClipWeightQuantizer(4, per_channel=True)
    quantizer.fit(4)
    with pytest.raises(RuntimeError, match='must have a clip for each of 4 output channels, got 6'):
        quantizer.load_state_dict(learned().state_dict())
    state = learned().state_dict()
    state['granularity'] = torch.tensor(2, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match=r'granularity must be 1 \(channel\), got 2'):
        KINDS['learned clip'](per_channel=True).load_state_dict(state)
    state = learned().state_dict()
    state._metadata['']['version'] = 3
    with pytest.raises(RuntimeError, match='must be of version 2 or older, got version 3'):
        KINDS['learned clip'](per_channel=True).load_state_dict(state)


def test_a_model_is_calibrated_and_its_averages_follow():
    averaging = pytest.importorskip('mmengine.model')
    quantizers = dict(
        weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', per_channel=True),
        act_quant=dict(type='mmwcc.LearnedClipActQuantizer'),
    )
    model = nn.Sequential(
        QuantConv2d(3, 6, 3, **quantizers),
        WaveletCompressedConv2d(6, 4, keep_ratio=0.5, **quantizers),
    ).eval()
    calibrate(model, [torch.randn(2, 3, 12, 12) for _ in range(2)])
    for layer in model:
        alone = LearnedClipWeightQuantizer(per_channel=True)
        alone(layer.weight)
        assert torch.equal(layer.weight_quant.clip_alpha, alone.clip_alpha)
    average = averaging.ExponentialMovingAverage(model, momentum=0.5)
    with torch.no_grad():
        model[0].weight_quant.clip_alpha.mul_(3)
    for _ in range(2):
        average.update_parameters(model)
    ours, theirs = model[0].weight_quant, average.module[0].weight_quant
    assert theirs.clip_alpha.shape == (6,) and (theirs.clip_alpha <= ours.clip_alpha).all()
    x = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        assert torch.isfinite(average(x)).all()


def test_compiled_as_in_eager_mode():
    quantizer, x = learned('rescale'), weight()
    compiled = torch.compile(quantizer, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(compiled(x), quantizer(x))


def test_one_output_channel_is_a_layer():
    one, other = LearnedClipWeightQuantizer(4), LearnedClipWeightQuantizer(4, per_channel=True)
    other(weight()[:1])
    one.load_state_dict(other.state_dict())
    assert torch.equal(one(weight()[:1]), other(weight()[:1]))


def test_the_average_gradient_of_one_clip_is_not_that_of_several():
    optimizers = []
    for per_channel in (False, True):
        quantizer = KINDS['learned clip'](per_channel=per_channel)
        layer = nn.Sequential(QuantConv2d(5, 6, 3, weight_quant=quantizer))
        layer(torch.randn(1, 5, 4, 4)).sum().backward()
        optimizers.append(torch.optim.Adam(layer.parameters()))
        optimizers[-1].step()
    one, several = optimizers
    state = several.state_dict()
    assert upgrade_optimizer_state(several, state)['state'].keys() == state['state'].keys()
    with pytest.raises(ValueError, match='got that of one clip for 6 clips. Start a new run'):
        upgrade_optimizer_state(several, one.state_dict())
