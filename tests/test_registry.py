"""The forms that a type can have in a config."""

import subprocess
import sys

import pytest
from torch import nn

from mmwcc.layers import WCC, QuantConv2d
from mmwcc.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, type_name


@pytest.mark.parametrize('kind', ['mmwcc.QuantConv2d', 'mmwcc.layers.QuantConv2d', QuantConv2d])
def test_a_component_of_ours_has_one_name(kind):
    assert type_name(kind) == 'mmwcc.QuantConv2d'


def test_functions_have_names_too():
    assert type_name(WCC) == 'mmwcc.WCC'


def test_names_of_others_stay():
    assert type_name('mmseg.EncoderDecoder') == 'mmseg.EncoderDecoder'
    assert type_name('QuantConv2d') == 'QuantConv2d'
    assert type_name(nn.Conv2d) == 'torch.nn.modules.conv.Conv2d'


def test_what_mmengine_notes_while_it_reads_a_config():
    lazy = pytest.importorskip('mmengine.config.lazy')
    assert type_name(lazy.LazyObject('mmwcc.layers', 'QuantConv2d')) == 'mmwcc.QuantConv2d'
    assert type_name(lazy.LazyObject('torch.nn').Conv2d) == 'torch.nn.Conv2d'


def test_all_modules_are_registered_at_once():
    """mmengine.hub asks for it."""
    utils = pytest.importorskip('mmwcc.utils')
    utils.register_all_modules()
    assert all(registry._imported for registry in (MODELS, HOOKS, DATASETS, TRANSFORMS, METRICS))


def test_a_name_with_its_scope_needs_no_import():
    pytest.importorskip('mmengine')
    program = """
import sys
from mmengine.registry import MODELS
try:
    MODELS.build(dict(type='CompressedModel'))
except KeyError as error:
    assert 'CompressedModel is not in the' in str(error) and 'mmwcc' not in sys.modules
from_scope = MODELS.get('mmwcc.CompressedModel')
import mmwcc.models
from mmengine.runner import checkpoint
assert from_scope is mmwcc.models.CompressedModel
assert hasattr(checkpoint.load_state_dict, '__wrapped__'), 'the checks of mmwcc are in place too'
"""
    subprocess.run([sys.executable, '-c', program], check=True)
