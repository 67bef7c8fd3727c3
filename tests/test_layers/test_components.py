"""Types and arguments of layers and quantizers, checked before anything is built."""

import pytest
from torch import nn

from mmwcc.compression import compress_model
from mmwcc.layers import QuantConv2d, check_component
from mmwcc.quantizers import LearnedClipActQuantizer, UniformQuantizer
from mmwcc.registry import MODELS


def refused(config, message):
    with pytest.raises(ValueError, match=message):
        QuantConv2d(3, 3, 1, weight_quant=config)


def test_a_misspelt_type_is_guessed():
    refused(
        dict(type='mmwcc.LearnedClipWeightQuantiser'),
        'QuantConv2d: weight_quant must have a registered type, got '
        "'mmwcc.LearnedClipWeightQuantiser'. Did you mean 'mmwcc.LearnedClipWeightQuantizer'. ",
    )


def test_the_known_types_are_those_that_can_be_built():
    with pytest.raises(ValueError, match='Known types: ') as error:
        check_component('quantizer', dict(type='mmwcc.None'), base=UniformQuantizer)
    known = str(error.value).partition('Known types: ')[2].rstrip('.').split(', ')
    assert 'mmwcc.PACTActQuantizer' in known and 'mmwcc.UniformQuantizer' not in known
    assert all(issubclass(MODELS.get(name), UniformQuantizer) for name in known)


ROLES = dict(weight_quant='Weight', act_quant='Act')


@pytest.mark.parametrize(
    'role, other', [('weight_quant', 'act_quant'), ('act_quant', 'weight_quant')]
)
def test_a_quantizer_of_the_other_role_is_refused(role, other):
    wrong = f'LSQ{ROLES[other]}Quantizer'
    config = dict(type=f'mmwcc.{wrong}')
    message = f'{role} must be a quantizer of .*, got {wrong}, which is one of .*Use one of '
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    for quantizer in (config, MODELS.build(config)):
        with pytest.raises(ValueError, match=f'QuantConv2d: {message}') as error:
            QuantConv2d(3, 3, 1, **{role: quantizer})
        assert f'mmwcc.LSQ{ROLES[role]}Quantizer' in str(error.value)
    with pytest.raises(ValueError, match=f'^compression {message}'):
        compress_model(model, {'pointwise': dict(type='mmwcc.QuantConv2d'), role: config})


@pytest.mark.parametrize('role', ROLES)
def test_the_known_types_are_those_of_the_role(role):
    with pytest.raises(ValueError, match='Known types: ') as error:
        QuantConv2d(3, 3, 1, **{role: dict(type='mmwcc.None')})
    known = str(error.value).partition('Known types: ')[2].rstrip('.').split(', ')
    assert known and all(f'{ROLES[role]}Quantizer' in name for name in known)


class OwnQuantizer(UniformQuantizer):
    spec = LearnedClipActQuantizer.spec


@pytest.mark.parametrize('role', ROLES)
def test_classes_derived_from_the_common_base_serve_both_roles(role):
    for quantizer in (dict(type=OwnQuantizer, signed=True), OwnQuantizer(signed=True)):
        layer = QuantConv2d(3, 3, 1, **{role: quantizer})
        assert type(getattr(layer, role)) is OwnQuantizer


def test_a_misspelt_argument_is_guessed():
    refused(
        dict(type='mmwcc.LSQWeightQuantizer', bit=4),
        "weight_quant of type LSQWeightQuantizer: unknown key 'bit'. Did you mean 'bits'. Known",
    )


def test_what_another_quantizer_left_behind_is_explained():
    refused(
        dict(type='mmwcc.LSQWeightQuantizer', normalize=None),
        "unknown key 'normalize'. It is an argument of mmwcc.LearnedClipWeightQuantizer. To replace"
        '.*add _delete_=True',
    )


class AnyArguments(LearnedClipActQuantizer):
    def __init__(self, **arguments):
        super().__init__(arguments['width'])


def test_classes_of_other_projects_are_asked_for_their_own_arguments():
    layer = QuantConv2d(3, 3, 1, act_quant=dict(type=AnyArguments, width=4))
    assert layer.act_quant.bits == 4
