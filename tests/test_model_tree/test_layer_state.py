"""The state of a layer: read from layers of every kind, recorded, scheduled and set."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from mmwcc.inference import FoldedConv, IntegerWaveletCompressedConv2d
from mmwcc.layers import QuantConv2d, WaveletCompressedConv2d
from mmwcc.model_tree import LayerState, set_layer_state

ACT = dict(type='mmwcc.LearnedClipActQuantizer', bits=6)
WEIGHT = dict(type='mmwcc.LearnedClipWeightQuantizer', bits=4)


def wavelet_layer(**quantizers):
    return WaveletCompressedConv2d(8, 8, keep_ratio=0.5, levels=2, selection='coarse', **quantizers)


def test_a_dense_layer_has_nothing_but_full_precision():
    state = LayerState.of(nn.Conv2d(3, 8, 3))
    assert state == LayerState('Conv2d', weight_bits=32, act_bits=32)
    assert state.to_dict() == dict(type='Conv2d')


def test_what_a_checkpoint_records_leaves_out_what_is_not_there():
    recorded = LayerState.of(wavelet_layer(act_quant=ACT)).to_dict()
    assert recorded == dict(
        type='WaveletCompressedConv2d',
        keep_ratio=0.5,
        selection='coarse',
        wavelet='haar',
        levels=2,
        act_bits=6,
    )
    assert list(recorded) == ['type', 'keep_ratio', 'selection', 'wavelet', 'levels', 'act_bits']
    assert {type(value) for value in recorded.values()} == {str, float, int}


def test_a_quantizer_that_is_switched_off_is_recorded():
    layer = QuantConv2d(8, 8, 3, act_quant=dict(ACT, bits=32))
    assert LayerState.of(layer).to_dict() == dict(type='QuantConv2d', act_bits=32)


def test_integer_layers_have_bits_that_nothing_can_change():
    layer = wavelet_layer(weight_quant=WEIGHT, act_quant=ACT)
    layer(torch.randn(1, 8, 8, 8))
    state = LayerState.of(IntegerWaveletCompressedConv2d.from_layer(layer.eval()))
    assert (state.weight_bits, state.act_bits, state.quantizers) == (4, 6, ())
    assert not state.has('act_bits') and 'act_bits' not in state.to_dict()
    assert state.under(dict(act_bits=8)) == state


def test_a_folded_layer_has_the_bits_of_the_one_it_was_made_of():
    state = LayerState.of(FoldedConv(wavelet_layer(weight_quant=WEIGHT, act_quant=ACT)))
    assert state.quantities == dict(weight_bits=4, act_bits=6, keep_ratio=0.5, widths=None)


def test_a_schedule_is_a_ceiling():
    built = LayerState.of(wavelet_layer(act_quant=ACT))
    state = built.under(dict(keep_ratio=1.0, act_bits=16, weight_bits=2))
    expected = dict(keep_ratio=1.0, act_bits=16, weight_bits=32, widths=None)
    assert state.quantities == expected
    assert built.under(dict(keep_ratio=0.1, act_bits=4)) == built


def test_setting_tells_whether_anything_changed():
    layer = wavelet_layer(act_quant=ACT)
    assert set_layer_state(layer, dict(keep_ratio=1.0, act_bits=16))
    assert (layer.keep_ratio, layer.act_quant.bits) == (1.0, 16)
    assert not set_layer_state(layer, dict(keep_ratio=1.0, act_bits=16))


def test_a_state_does_not_follow_its_layer():
    layer = wavelet_layer(act_quant=ACT)
    state = LayerState.of(layer)
    layer.act_quant.bits = 3
    assert state.act_bits == 6
    with pytest.raises(FrozenInstanceError):
        state.act_bits = 3
