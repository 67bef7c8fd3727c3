"""Budgets in words and numbers, what they leave to choose, and measurements that are gone on
with.
"""

import json
import math

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine', reason='counting needs it')
from mmwcc.cost import count_cost  # noqa: E402
from mmwcc.model_tree import compressed_layers  # noqa: E402
from mmwcc.post_training import (  # noqa: E402
    Choice,
    Grid,
    MeasuredLayers,
    budget_bops,
    budget_number,
    choosable,
    compressed_cost,
)

WCC = dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25, levels=2),
    other=dict(type='mmwcc.QuantConv2d'),
    keep_dense=[],
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8),
)
GRID = Grid(weight_bits=(8, 4), act_bits=(8,), keep_ratios=(0.5,))


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


def count(model):
    return count_cost(model, (8, 8))


@pytest.mark.parametrize(
    ('text', 'number'), [('5%', 0.05), ('0.05', 0.05), ('2e11', 2e11), ('-1', -1.0)]
)
def test_numbers(text, number):
    assert budget_number(text) == number


def test_what_is_no_number():
    assert math.isnan(budget_number('wcc_w8a8_k50')) and math.isnan(budget_number('%'))


def test_a_budget_is_a_part_of_the_network_or_a_number_or_a_preset(model):
    dense = count(model).total.total_bops
    assert budget_bops('0.5', model, count) == budget_bops('50%', model, count) == 0.5 * dense
    assert (
        budget_bops('1', model, count) == dense and budget_bops('200%', model, count) == 2 * dense
    )
    assert budget_bops('1000', model, count) == 1000
    preset = budget_bops('small', model, count, dict(small=WCC))
    assert preset == compressed_cost(model, WCC, count).total.total_bops < dense
    assert not compressed_layers(model)


@pytest.mark.parametrize('text', ['large', '0', '-5%'])
def test_other_texts_are_refused(model, text):
    with pytest.raises(
        ValueError,
        match=f"budget_bops: text must be the name of a preset or a positive number, got '{text}'",
    ):
        budget_bops(text, model, count, dict(small=WCC))


def measured(path, **settings):
    return MeasuredLayers(path, dict(images=2, **settings))


def test_a_later_call_measures_what_is_missing(model, tmp_path, capsys):
    path, batches = tmp_path / 'new' / 'sensitivity.json', [torch.randn(2, 3, 8, 8)]
    layers = measured(path).measure(model, WCC, batches, grid=GRID, verbose=True)
    assert capsys.readouterr().err.startswith('sensitivity: 2 layers\n')
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(content, layers=content['layers'][:1])))
    again = measured(path).measure(model, WCC, batches, grid=GRID, verbose=True)
    assert again == layers
    assert capsys.readouterr().err.startswith('sensitivity: 1 layers\n')
    with pytest.raises(
        ValueError, match='was measured with images 2, not 3. Choose another folder, or delete'
    ):
        MeasuredLayers(path, dict(images=3))


def test_layers_without_wavelets_may_keep_their_bits(model, tmp_path):
    layers = measured(tmp_path / 's.json').measure(model, WCC, [torch.randn(2, 3, 8, 8)], grid=GRID)
    cost = compressed_cost(model, WCC, count)
    everything, pointwise = (
        choosable(layers, cost, GRID, pointwise_only=only) for only in (False, True)
    )
    assert [candidate.choice for candidate in pointwise['0']] == [Choice(8, 8)] and len(
        everything['0']
    ) > 1
    assert pointwise['2'] == everything['2']
