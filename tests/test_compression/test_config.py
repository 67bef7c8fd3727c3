"""The compression dictionary: what it accepts and what it says of one layer."""

import pytest

from mmwcc.compression import CompressionConfig
from mmwcc.registry import MODELS

WCC = dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25)
QUANT = dict(type='mmwcc.QuantConv2d')
WEIGHT = dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8)
ACT = dict(type='mmwcc.LearnedClipActQuantizer', bits=8)
FULL = dict(pointwise=WCC, other=QUANT, weight_quant=WEIGHT, act_quant=ACT)


def layer(name='a', eligible=True, **changes):
    return CompressionConfig.parse({**FULL, **changes}).layer_config(name, eligible)


def test_an_eligible_layer_gets_the_pointwise_config_and_both_quantizers():
    assert layer() == {**WCC, 'weight_quant': WEIGHT, 'act_quant': ACT}


def test_another_layer_gets_the_other_config():
    assert layer(eligible=False) == {**QUANT, 'weight_quant': WEIGHT, 'act_quant': ACT}


def test_without_quantizers_other_layers_stay_dense():
    assert layer(eligible=False, weight_quant=None, act_quant=None) is None
    assert layer(weight_quant=None, act_quant=None)['type'] == 'mmwcc.WaveletCompressedConv2d'


def test_without_a_config_layers_stay_dense():
    assert layer(pointwise=None) is None
    assert layer(eligible=False, other=None) is None


def test_a_rule_merges_quantizers_and_replaces_values():
    rules = [dict(pattern='a', keep_ratio=0.5, act_quant=dict(bits=6), weight_quant=None)]
    assert layer(rules=rules) == {
        **WCC,
        'keep_ratio': 0.5,
        'weight_quant': None,
        'act_quant': {**ACT, 'bits': 6},
    }


def test_a_rule_with_another_quantizer_type_does_not_inherit_arguments():
    lsq = dict(type='mmwcc.LSQActQuantizer', bits=4)
    act = {**ACT, 'percentile': 99.0}
    assert layer(act_quant=act, rules=[dict(pattern='a', act_quant=lsq)])['act_quant'] == lsq


def test_rules_match_whole_names_and_later_ones_win():
    rules = [
        dict(pattern='a.*', keep_ratio=0.5),
        dict(pattern='a', keep_ratio=0.75),
        dict(pattern='b', dense=True),
    ]
    assert layer('a', rules=rules)['keep_ratio'] == 0.75
    assert layer('ab', rules=rules)['keep_ratio'] == 0.5
    assert layer('xa', rules=rules)['keep_ratio'] == 0.25
    assert layer('b', rules=rules) is None


def test_keep_ratio_of_a_rule_does_not_concern_layers_that_are_not_compressed():
    assert 'keep_ratio' not in layer(eligible=False, rules=[dict(pattern='a', keep_ratio=0.5)])


@pytest.mark.parametrize(
    'changes, error, message',
    [
        (dict(pointwize=WCC), ValueError, "unknown key 'pointwize'. Did you mean 'pointwise'"),
        (dict(keep_ratio=0.3), ValueError, 'Did you mean pointwise=dict(keep_ratio=...'),
        (dict(bits=4), ValueError, 'Did you mean weight_quant=dict(bits=...'),
        (
            dict(pointwise=dict(WCC, type='mmwcc.WaveletCompressedConv')),
            ValueError,
            "pointwise must have a registered type, got 'mmwcc.WaveletCompressedConv'. Did you",
        ),
        (
            dict(pointwise=dict(WCC, level=2)),
            ValueError,
            "pointwise of type WaveletCompressedConv2d: unknown key 'level'. Did you mean 'levels'",
        ),
        (
            dict(other=dict(QUANT, acts=None)),
            ValueError,
            "compression other of type QuantConv2d: unknown key 'acts'",
        ),
        (
            dict(act_quant=dict(ACT, normalize=None)),
            ValueError,
            "compression act_quant of type LearnedClipActQuantizer: unknown key 'normalize'",
        ),
        (
            dict(rules=[dict(pattern='a', type='mmwcc.QuantConv')]),
            ValueError,
            "rule must have a registered type, got 'mmwcc.QuantConv'. Did you mean",
        ),
        (dict(pointwise='wcc'), TypeError, 'pointwise must be a dict or None'),
        (dict(keep_dense='first'), TypeError, 'keep_dense must be a list'),
        (dict(keep_dense=['(']), ValueError, 'is not a regular expression'),
        (dict(rules=dict(pattern='a')), TypeError, 'rules must be a list'),
        (dict(rules=['a']), TypeError, 'a rule must be a dict'),
        (dict(rules=[dict(keep_ratio=0.5)]), ValueError, 'a rule needs a pattern'),
        (dict(rules=[dict(pattern='a', keepratio=0.5)]), ValueError, "Did you mean 'keep_ratio'"),
        (
            dict(rules=[dict(pattern='(', keep_ratio=0.5)]),
            ValueError,
            'is not a regular expression',
        ),
        (
            dict(rules=[dict(pattern='a', act_quant=8)]),
            TypeError,
            'act_quant must be a dict or None',
        ),
    ],
)
def test_bad_dictionaries_are_refused(changes, error, message):
    with pytest.raises(error, match=message.replace('(', r'\(')):
        CompressionConfig.parse({**FULL, **changes})


def test_what_a_layer_without_wavelets_cannot_use_is_left_over_from_a_preset():
    quantized = dict(WCC, type='mmwcc.QuantConv2d')
    assert layer(pointwise=quantized) == {**QUANT, 'weight_quant': WEIGHT, 'act_quant': ACT}


def test_a_preset_name_in_place_of_a_dictionary_is_refused():
    with pytest.raises(TypeError, match=r"must be a dict, .*preset\('wcc_w8a8_k50'\)"):
        CompressionConfig.parse('wcc_w8a8_k50')


FORMS = {
    'names': str,
    'bare names': lambda name: name.removeprefix('mmwcc.'),
    'classes': MODELS.get,
    'import paths': lambda name: f'{MODELS.get(name).__module__}.{MODELS.get(name).__name__}',
}


@pytest.mark.parametrize('form', FORMS.values(), ids=FORMS)
@pytest.mark.parametrize('eligible', [True, False])
def test_every_form_of_a_type_says_the_same(form, eligible):
    def written(config):
        return {**config, 'type': form(config['type'])}

    rules = [
        dict(pattern='a', act_quant=dict(bits=6)),
        dict(pattern='b', type=form('mmwcc.QuantConv2d')),
        dict(pattern='c', act_quant=dict(type=form('mmwcc.LearnedClipActQuantizer'), bits=5)),
    ]
    config = CompressionConfig.parse(
        dict(rules=rules, **{key: written(value) for key, value in FULL.items()})
    )
    base = WCC if eligible else QUANT
    for name, kind, bits in (('x', base, 8), ('a', base, 6), ('b', QUANT, 8), ('c', base, 5)):
        expected = {**kind, 'weight_quant': WEIGHT, 'act_quant': {**ACT, 'bits': bits}}
        assert config.layer_config(name, eligible) == expected


def test_a_class_of_another_project_stays_a_class():
    class Quantizer:
        pass

    assert layer(act_quant=dict(type=Quantizer))['act_quant'] == dict(type=Quantizer)


def test_quantizers_of_a_layer_take_the_place_of_the_general_ones():
    config = CompressionConfig.parse(
        dict(
            pointwise=dict(
                type='mmwcc.QuantConv2d', act_quant=dict(type='mmwcc.LSQActQuantizer', bits=4)
            ),
            other=dict(type='mmwcc.QuantConv2d'),
            act_quant=dict(type='mmwcc.LSQActQuantizer', bits=8),
        )
    )
    assert config.layer_config('a', eligible=True)['act_quant']['bits'] == 4
    assert config.layer_config('a', eligible=False)['act_quant']['bits'] == 8
