"""Types and arguments of layers and quantizers, checked before anything is built."""

import pytest

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
