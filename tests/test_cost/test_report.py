"""Costs of a model as data: sums, layers at other bits and keep ratios, the table."""

import json

import pytest

from mmwcc.cost.layer_cost import Geometry, LayerCost, Map
from mmwcc.cost.report import CostReport

POINTWISE = Geometry((Map(24 * 130, 6 * 130, 1, (10, 13)),), weights=24, biases=4, pointwise=(6, 4))
SPATIAL = Geometry((Map(9 * 24 * 130, 6 * 130, 1, (10, 13)),), weights=9 * 24)


@pytest.fixture
def report():
    additions = Geometry((Map(0, 10),), additions=100)
    layers = [
        LayerCost.of('stem', SPATIAL),
        LayerCost.of('point', POINTWISE, 8, 4, 0.5),
        LayerCost.of('spatial', SPATIAL, 8, 8),
        LayerCost.of('dfwt', additions),
    ]
    return CostReport(
        layers, 'exact', (1, 3, 20, 26), {'batch_norm': 5e6}, {'aten::add': 3}, ('head',), 50
    )


def test_sums(report):
    kinds, total = report.by_kind(), report.total
    assert list(kinds) == ['dense', 'quantized', 'wcc', 'transform']
    stem, point, spatial, dfwt = report.layers
    assert kinds['wcc'].bops == kinds['wcc'].total_bops == point.bops
    assert (
        kinds['transform'].total_bops
        == point.transform_bops + dfwt.transform_bops
        == total.transform_bops
    )
    assert dfwt.transform_bops == 3200 and dfwt.macs == dfwt.bops == dfwt.act_bytes == 0
    assert (
        kinds['dense'].params == stem.params + 50
        and kinds['dense'].weight_bytes == stem.weight_bytes + 200
    )
    for amount in (
        'layers',
        'macs',
        'bops',
        'transform_bops',
        'total_bops',
        'params',
        'weight_bytes',
        'act_bytes',
    ):
        assert getattr(total, amount) == sum(getattr(costs, amount) for costs in kinds.values()), (
            amount
        )
    assert total.macs == sum(layer.macs for layer in report.layers) and total.layers == 4


def test_other_states(report):
    changed = report.at(dict(point=dict(keep_ratio=1.0), spatial=dict(weight_bits=32, act_bits=32)))
    assert changed.layers[1] == report.layers[1].at(keep_ratio=1.0)
    assert changed.by_kind()['quantized'].layers == 0 and changed.other_params == 50
    assert report.at({}) == report
    with pytest.raises(
        ValueError, match="CostReport: states must name layers that were counted, got 'pint'"
    ):
        report.at(dict(pint=dict(keep_ratio=1.0)))


def test_what_compression_leaves_of_the_1x1_convolutions(report):
    # 10x13 is padded to 16x16 for three levels, of which half is kept; the other layers do not
    # count.
    assert (
        report.kept_share == 128 / 130
        and report.at(dict(point=dict(keep_ratio=1.0))).kept_share == 256 / 130
    )
    assert CostReport([LayerCost.of('stem', SPATIAL)], 'exact', (1, 3, 8, 8)).kept_share == 1.0


def test_plain_data(report):
    data = json.loads(json.dumps(report.to_dict()))
    assert (
        data['total']['macs'] == report.total.macs
        and data['total']['total_bops'] == report.total.total_bops
    )
    assert data['input_shape'] == [1, 3, 20, 26] and data['uncounted'] == {'aten::add': 3}
    assert data['layers'][1]['keep_ratio'] == 0.5 and 'geometry' not in data['layers'][1]
    assert sum(kind['bops'] for kind in data['by_kind'].values()) == data['total']['bops']


def test_table(report):
    lines = str(report).splitlines()
    assert lines[0].split('  ')[0] == 'layer' and lines[1] == lines[6] == '-' * len(lines[1])
    assert lines[3].split()[:6] == ['point', 'wcc', '1', '8', '4', '0.5']
    assert [line.split()[0] for line in lines[7:12]] == [
        'dense',
        'quantized',
        'wcc',
        'transform',
        'total',
    ]
    assert max(map(len, lines[:12])) == len(lines[0]) and lines[12] == report.summary()
    assert lines[13] == "input 1x3x20x26; convention 'exact'; full precision counts as 32 bits"
    assert lines[14] == 'elementwise, not in the figures above: batch_norm 5.000 M'
    assert lines[15] == 'not counted: aten::add 3x'
    assert lines[16] == 'not reached by this input, parameters not counted: head'
