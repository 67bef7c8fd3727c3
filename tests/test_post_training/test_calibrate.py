"""Clips and statistics of BatchNorm from several batches."""

import copy

import pytest
import torch
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.layers import QuantConv2d
from mmwcc.post_training import (
    calibrate,
    measure_sensitivity,
    reestimate_batch_norm,
    run_model,
)
from mmwcc.post_training.calibrate import batch_statistics
from mmwcc.quantizers import LearnedClipActQuantizer

QUANTIZED = dict(
    other=dict(type='mmwcc.QuantConv2d'),
    pointwise=dict(type='mmwcc.QuantConv2d'),
    keep_dense=[],
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)


@pytest.fixture
def model():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 1)
    )
    compress_model(network, QUANTIZED, verbose=False)
    return network


def batches(*scales):
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(2, 3, 9, 7, generator=generator) for scale in scales]


def clips(model):
    return {
        name: value.item()
        for name, value in model.state_dict().items()
        if name.endswith('clip_alpha')
    }


def test_the_largest_value_of_all_batches(model):
    data = batches(1.0, 3.0, 2.0)
    report = calibrate(model, data, method='percentile', percentile=100)
    assert report.batches == 3 and not report.missed
    assert set(report.calibrated) == {
        f'{layer}.{role}' for layer in '04' for role in ('weight_quant', 'act_quant')
    }
    assert clips(model)['0.act_quant.clip_alpha'] == pytest.approx(
        torch.cat(data).abs().max().item(), rel=1e-6
    )
    assert clips(model)['0.weight_quant.clip_alpha'] == pytest.approx(
        model[0].weight.abs().max().item(), rel=1e-6
    )
    assert model[0].act_quant.signed and not model[4].act_quant.signed


@pytest.mark.parametrize('method', ['mse', 'percentile', 'lsq'])
def test_batches_in_another_order_or_joined_give_the_same_clips(model, method):
    data = batches(1.0, 3.0, 2.0)
    results = []
    for order in (data, data[::-1], [torch.cat(data)]):
        calibrate(model[:1], order, method=method, percentile=99)
        results.append(clips(model)['0.act_quant.clip_alpha'])
    assert results == pytest.approx([results[2]] * 3, rel=0.05 if method == 'mse' else 2e-3)


def test_nothing_but_the_quantizers_changes(model):
    model[4].eval()
    before = copy.deepcopy(model)
    generator = torch.get_rng_state()
    calibrate(model, batches(1.0), method='percentile', percentile=90)
    assert [module.training for module in model.modules()] == [
        module.training for module in before.modules()
    ]
    assert torch.equal(torch.get_rng_state(), generator)
    assert model[0].act_quant.calibration == 'mse' and model[0].act_quant.percentile == 99.9
    for name, value in before.state_dict().items():
        assert '_quant.' in name or torch.equal(value, model.state_dict()[name]), name
    clip = clips(model)
    model(batches(100.0)[0])
    assert clips(model) == clip


def test_quantizers_that_are_off_and_layers_that_are_not_reached(model):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = model, QuantConv2d(1, 1, 1, act_quant=QUANTIZED['act_quant'])

        def forward(self, x):
            return self.used(x)

    model[0].act_quant.bits = 32
    report = calibrate(Two(), batches(1.0))
    assert report.missed == ('unused.act_quant',)
    assert 'used.0.act_quant' not in report.calibrated and not model[0].act_quant.initialized
    assert str(report) == '3 clips from 1 batches, 1 got no values (unused.act_quant, ...)'


def test_again(model):
    calibrate(model[:1], batches(1.0))
    first = clips(model)['0.act_quant.clip_alpha']
    assert calibrate(model, batches(5.0), again=False).calibrated == (
        '4.weight_quant',
        '4.act_quant',
    )
    assert clips(model)['0.act_quant.clip_alpha'] == first
    assert calibrate(model, batches(5.0), again=False).batches == 0
    calibrate(model, batches(5.0))
    assert clips(model)['0.act_quant.clip_alpha'] > 3 * first


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(method='best'), "method must be one of mse, percentile, lsq or None, got 'best'"),
        (dict(percentile=0), r'percentile must be in \(0, 100\], got 0'),
        (dict(batches=[]), 'at least one batch, got none'),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        calibrate(model, **{'batches': batches(1.0), **arguments})


IMAGE = torch.zeros(2, 3, 9, 7)


@pytest.mark.parametrize(
    ('data', 'kind'),
    [
        (IMAGE, r'float32 tensor \(2, 3, 9, 7\)'),
        (dict(inputs=IMAGE), r'dict of \(inputs: float32 tensor \(2, 3, 9, 7\)\)'),
        ('train', 'str'),
        (3, 'int'),
    ],
)
@pytest.mark.parametrize(
    ('call', 'name'),
    [
        (calibrate, 'calibrate'),
        (reestimate_batch_norm, 'reestimate_batch_norm'),
        (lambda model, data: measure_sensitivity(model, QUANTIZED, data), 'measure_sensitivity'),
    ],
)
def test_a_single_batch_is_not_taken_for_many(model, call, name, data, kind):
    with pytest.raises(TypeError, match=f'{name}: batches must be a list .* got {kind}. Put a'):
        call(model, data)


@pytest.mark.parametrize('call', [reestimate_batch_norm, calibrate])
def test_no_batch_is_an_error(model, call):
    with pytest.raises(ValueError, match=f'{call.__name__}: batches must hold at least one batch'):
        call(model, iter([]))


@pytest.mark.parametrize(
    ('batch', 'message'),
    [
        (
            [IMAGE, torch.zeros(2, dtype=torch.long)],
            r'Sequential must run on each batch, got list of \(float32 tensor \(2, 3, 9, 7\), '
            r'int64 '
            r'tensor \(2,\)\), which raised .* say so by forward=',
        ),
        (dict(inputs=IMAGE), r'got dict of \(inputs: .*, which raised '),
        (IMAGE.byte(), r'got uint8 tensor \(2, 3, 9, 7\), which raised '),
    ],
)
def test_a_batch_that_the_model_cannot_run_is_described(model, batch, message):
    for call in (calibrate, reestimate_batch_norm):
        with pytest.raises(ValueError, match=message):
            call(model, [batch])


def test_a_model_without_quantizers():
    with pytest.raises(
        ValueError, match='a quantizer with less than 32 bits, got a Sequential without one'
    ):
        calibrate(nn.Sequential(nn.Conv2d(1, 1, 1)), batches(1.0))


def test_an_error_of_the_model_leaves_it_as_it_was(model):
    with pytest.raises(ValueError, match='in_channels=3'):
        calibrate(model, [torch.zeros(1, 5, 9, 7)], method='percentile')
    assert model.training and model[0].act_quant.calibration == 'mse'
    model(batches(1.0)[0])
    clip = clips(model)
    model(batches(9.0)[0])
    assert clips(model) == clip  # the quantizers do not go on learning


def test_statistics_become_the_averages_over_batches():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).eval()
    network[0].momentum = 0.3
    data = batches(1.0, 3.0)
    assert reestimate_batch_norm(network, data) == 2
    assert torch.allclose(
        network[0].running_mean, sum(x.mean((0, 2, 3)) for x in data) / 2, atol=1e-6
    )
    assert torch.allclose(
        network[0].running_var, sum(x.var((0, 2, 3)) for x in data) / 2, rtol=1e-5
    )
    # Later layers see what is normalized by each batch, as in training.
    assert torch.allclose(network[1].running_var, torch.ones(3), atol=0.02)
    assert network[0].momentum == 0.3 and network[0].track_running_stats and not network[0].training
    assert not network[0]._forward_pre_hooks


def test_a_single_value_a_channel_keeps_the_statistics():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    before = copy.deepcopy(network[2].state_dict())
    assert reestimate_batch_norm(network, [x[:1] for x in batches(1.0)]) == 1
    assert all(torch.equal(value, before[key]) for key, value in network[2].state_dict().items())
    assert network.training


def test_statistics_of_the_batch_without_learning():
    norm = nn.BatchNorm2d(3).eval()
    before = copy.deepcopy(norm.state_dict())
    with torch.no_grad(), batch_statistics(norm):
        y = norm(batches(3.0)[0])
    assert torch.allclose(y.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-3)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


def test_models_of_mmengine_are_preprocessed():
    mmengine = pytest.importorskip('mmengine.model')

    class Preprocessor(mmengine.BaseDataPreprocessor):
        def forward(self, data, training=False):
            return dict(inputs=data['inputs'] + (10 if training else 1))

    class Model(mmengine.BaseModel):
        def forward(self, inputs, mode):
            return mode, inputs

    model = Model(Preprocessor())
    with pytest.raises(ValueError, match=r'got float32 tensor \(2,\), .* what the data loader of'):
        run_model(model, torch.zeros(2))
    assert run_model(model, dict(inputs=1)) == ('tensor', 2)
    assert run_model(model, dict(inputs=1), training=True) == ('tensor', 11)


def broken_loader():
    yield torch.full((1, 1, 2, 2), 5.0)
    raise OSError('a broken image')


@pytest.mark.parametrize('batches, error', [(lambda: [], ValueError), (broken_loader, OSError)])
def test_what_was_learned_survives_a_failure(batches, error):
    quantizers = dict(
        act_quant=dict(type='mmwcc.LearnedClipActQuantizer'),
        weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer'),
    )
    model = nn.Sequential(QuantConv2d(1, 1, 1, **quantizers)).eval()
    calibrate(model, [torch.rand(1, 1, 4, 4)])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error):
        calibrate(model, batches())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model[0].act_quant.is_settled and model[0].act_quant._seen is None


def test_a_layer_that_no_batch_reaches_keeps_its_clip():
    quantizers = dict(act_quant=dict(type='mmwcc.LearnedClipActQuantizer'))
    model = nn.ModuleDict(
        dict(used=QuantConv2d(1, 1, 1, **quantizers), unused=QuantConv2d(1, 1, 1, **quantizers))
    )
    for layer in model.values():
        layer(torch.rand(1, 1, 4, 4))
    clip = model['unused'].act_quant.clip_alpha.item()
    report = calibrate(
        model.eval(), [torch.rand(1, 1, 4, 4)], forward=lambda model, batch: model['used'](batch)
    )
    assert report.missed == ('unused.act_quant',)
    assert (
        model['unused'].act_quant.is_settled and model['unused'].act_quant.clip_alpha.item() == clip
    )


def test_a_copy_made_during_a_calibration_does_not_take_part():
    quantizer = LearnedClipActQuantizer()
    quantizer.begin_calibration()
    quantizer(torch.rand(100))
    twin = copy.deepcopy(quantizer)
    clip = twin.clip_alpha.item()
    twin(100 * torch.rand(100))
    assert twin.clip_alpha.item() == clip
