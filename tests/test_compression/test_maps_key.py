"""The key `maps` of the compression dictionary."""

import pytest
import torch
from torch import nn

from mmwcc.compression import CompressionConfig, compress_model
from mmwcc.inference import IntegerMapConv2d
from mmwcc.layers import QuantConv2d
from mmwcc.maps import MAP_SCALES, MapScales

INT8 = dict(
    pointwise=dict(type='mmwcc.QuantConv2d'),
    other=dict(type='mmwcc.QuantConv2d'),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer'),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer'),
)


def network():
    return nn.Sequential(*(nn.Conv2d(3 if n == 0 else 4, 4, 3) for n in range(4))).eval()


@pytest.mark.parametrize(
    ('maps', 'expected'),
    [(None, None), (False, None), (True, {}), ({}, {}), (dict(bits=4), dict(bits=4))],
)
def test_forms(maps, expected):
    assert CompressionConfig.parse({**INT8, 'maps': maps}).maps == expected


def test_it_gives_scales():
    model = network()
    compress_model(model, {**INT8, 'maps': dict(input_shape=(20, 16), bits=4)}, verbose=False)
    scales = model.map_scales
    assert isinstance(scales, MapScales) and scales.plan.layers == ['1', '2']
    assert scales.plan.grids == {'1': '2'}


def test_with_integer_it_builds_what_a_checkpoint_fills():
    model = network()
    compression = {**INT8, 'maps': True, 'integer': True}
    report = compress_model(model, compression, verbose=False)
    assert [type(layer) for layer in model[1:3]] == [IntegerMapConv2d] * 2
    assert [layer.after for layer in report][1:3] == ['IntegerMapConv2d'] * 2
    with pytest.raises(RuntimeError, match='must have weights, got none so far'):
        model(torch.zeros(1, 3, 20, 20))


def test_float_weights_are_refused_and_the_reverse():
    trained, integer = network(), network()
    compress_model(trained, {**INT8, 'maps': True}, verbose=False)
    compress_model(integer, {**INT8, 'maps': True, 'integer': True}, verbose=False)
    with pytest.raises(RuntimeError, match='an integer model needs an integer checkpoint, got one'):
        integer.load_state_dict(trained.state_dict())
    with pytest.raises(RuntimeError, match='an integer checkpoint needs an integer model, got one'):
        trained.load_state_dict(integer.state_dict())


def test_a_failure_leaves_the_model_as_it_was():
    model = network()
    compression = {**INT8, 'maps': True, 'integer': dict(keep_float=['none'])}
    with pytest.raises(ValueError, match="keep_float entry 'none'"):
        compress_model(model, compression, verbose=False)
    assert not any(isinstance(layer, QuantConv2d) for layer in model)
    assert not hasattr(model, MAP_SCALES) and not model._forward_pre_hooks


def test_errors():
    with pytest.raises(TypeError, match='maps must be True, False, None or dict'):
        CompressionConfig.parse({**INT8, 'maps': 8})
    with pytest.raises(ValueError, match="compression maps: unknown key 'shape'"):
        CompressionConfig.parse({**INT8, 'maps': dict(shape=(1, 2))})
    with pytest.raises(ValueError, match='add_map_scales: Sequential must run on zeros'):
        compress_model(network(), {**INT8, 'maps': dict(input_shape=(4, 4))}, verbose=False)
    with pytest.raises(ValueError, match='add_map_scales: model must have a QuantConv2d'):
        wavelets = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.5)
        model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(3)))
        compress_model(model, dict(pointwise=wavelets, maps=True), verbose=False)
