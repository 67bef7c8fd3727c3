"""Costs as data: layers at other bits and keep ratios, sums, tables."""
import json

import pytest

from mmwcc.compression.cost_report import CostReport, Geometry, LayerCost, Map

SIZE, WEIGHTS = (10, 13), 6 * 4
MACS = WEIGHTS * 130
PADDED = 16 * 16
POINTWISE = Geometry((Map(MACS, 6 * 130, 1, SIZE), ), weights=WEIGHTS, biases=4, pointwise=(6, 4))
PAPER = Geometry((Map(MACS, 6 * 130, 1, SIZE), ), 'paper', weights=WEIGHTS, biases=4, pointwise=(6, 4))
SPATIAL = Geometry((Map(9 * MACS, 6 * 130, 1, SIZE), ), weights=9 * WEIGHTS)


def test_dense():
    cost = LayerCost.of('a', POINTWISE)
    assert (cost.kind, cost.macs, cost.bops, cost.transform_bops) == ('dense', MACS, 1024 * MACS, 0)
    assert (cost.params, cost.weight_bytes, cost.act_bytes) == (28, 4 * 28, 4 * 6 * 130)
    assert (cost.weight_bits, cost.act_bits, cost.keep_ratio, cost.calls) == (32, 32, None, 1)


def test_quantized():
    cost = LayerCost.of('a', SPATIAL).at(weight_bits=3, act_bits=5)
    assert (cost.kind, cost.bops, cost.total_bops) == ('quantized', 15 * 9 * MACS, 15 * 9 * MACS)
    assert (cost.weight_bytes, cost.act_bytes) == (9 * WEIGHTS * 3 // 8, -(-6 * 130 * 5 // 8))
    assert LayerCost.of('a', SPATIAL).at(act_bits=8).kind == 'quantized'


def test_wavelet_compressed():
    cost = LayerCost.of('a', POINTWISE).at(weight_bits=8, act_bits=4, keep_ratio=0.3)
    kept = 77  # ceil(0.3 * 256)
    assert (cost.kind, cost.macs, cost.bops) == ('wcc', kept * WEIGHTS, kept * WEIGHTS * 32)
    assert cost.transform_bops == 4 * (6 + 4) * PADDED * 21 / 16 * 4
    assert cost.act_bytes == -(-(kept * 6 * 4 + PADDED) // 8)
    assert cost.at(keep_ratio=1.0).macs == PADDED * WEIGHTS


def test_wavelet_compressed_by_the_paper():
    cost = LayerCost.of('a', PAPER).at(weight_bits=8, act_bits=4, keep_ratio=0.25)
    assert cost.total_bops == 0.25 * MACS * 32 + 4 * (6 + 4) * 130 * 21 / 16 * 4
    assert cost.act_bytes == -(-(130 * 6 + 130) // 8)


def test_levels_and_wavelet():
    pytest.importorskip('pywt')
    geometry = Geometry(POINTWISE.maps, pointwise=(6, 4), levels=1, wavelet='db2')
    assert LayerCost.of('a', geometry, 8, 4, 0.5).transform_bops == 4 * 10 * (10 * 14) * 4 * 4 * 8


def test_calls_and_batches_add_up():
    maps = (Map(2 * MACS, 2 * 6 * 130, 2, SIZE), Map(MACS // 2, 6 * 65, 1, (5, 13)))
    cost = LayerCost.of('a', Geometry(maps, weights=WEIGHTS, pointwise=(6, 4)), keep_ratio=0.3)
    assert cost.calls == 2 and cost.params == WEIGHTS
    assert cost.macs == (2 * 77 + 39) * WEIGHTS  # ceil(0.3 * 8 * 16) = 39


def test_at_is_of():
    assert LayerCost.of('a', POINTWISE, 8, 4, 0.5) == LayerCost.of('a', POINTWISE).at(8).at(act_bits=4).at(
        keep_ratio=0.5)
    assert LayerCost.of('a', POINTWISE, 8, 4, 0.5).at() == LayerCost.of('a', POINTWISE, 8, 4, 0.5)


@pytest.mark.parametrize(('change', 'error', 'message'), [
    (dict(keep_ratio=0.5), ValueError, 'LayerCost: keep_ratio of a must be None, got 0.5. Only 1x1 convolutions'),
    (dict(keep_ratio=1.5), ValueError, r'LayerCost: keep_ratio must be in \(0, 1\], got 1.5'),
    (dict(keep_ratio='half'), TypeError, 'LayerCost: keep_ratio must be a number'),
    (dict(weight_bits=1), ValueError, r'LayerCost: weight_bits of a must be in 2 \.\.\. 16, or 32 .* got 1'),
    (dict(act_bits=24), ValueError, 'act_bits of a must be in'),
])
def test_refusals(change, error, message):
    with pytest.raises(error, match=message):
        LayerCost.of('a', SPATIAL).at(**change)


@pytest.fixture
def report():
    additions = Geometry((Map(0, 10), ), additions=100)
    layers = [LayerCost.of('stem', SPATIAL), LayerCost.of('point', POINTWISE, 8, 4, 0.5),
              LayerCost.of('spatial', SPATIAL, 8, 8), LayerCost.of('dfwt', additions)]
    return CostReport(layers, 'exact', (1, 3, 20, 26), {'batch_norm': 5e6}, {'aten::add': 3}, ('head', ), 50)


def test_sums(report):
    kinds, total = report.by_kind(), report.total
    assert list(kinds) == ['dense', 'quantized', 'wcc', 'transform']
    stem, point, spatial, dfwt = report.layers
    assert kinds['wcc'].bops == kinds['wcc'].total_bops == point.bops
    assert kinds['transform'].total_bops == point.transform_bops + dfwt.transform_bops == total.transform_bops
    assert dfwt.transform_bops == 3200 and dfwt.macs == dfwt.bops == dfwt.act_bytes == 0
    assert kinds['dense'].params == stem.params + 50 and kinds['dense'].weight_bytes == stem.weight_bytes + 200
    for amount in ('layers', 'macs', 'bops', 'transform_bops', 'total_bops', 'params', 'weight_bytes', 'act_bytes'):
        assert getattr(total, amount) == sum(getattr(costs, amount) for costs in kinds.values()), amount
    assert total.macs == sum(layer.macs for layer in report.layers) and total.layers == 4


def test_other_states(report):
    changed = report.at(dict(point=dict(keep_ratio=1.0), spatial=dict(weight_bits=32, act_bits=32)))
    assert changed.layers[1] == report.layers[1].at(keep_ratio=1.0)
    assert changed.by_kind()['quantized'].layers == 0 and changed.other_params == 50
    assert report.at({}) == report
    with pytest.raises(ValueError, match="CostReport: states must name layers that were counted, got 'pint'"):
        report.at(dict(pint=dict(keep_ratio=1.0)))


def test_plain_data(report):
    data = json.loads(json.dumps(report.to_dict()))
    assert data['total']['macs'] == report.total.macs and data['total']['total_bops'] == report.total.total_bops
    assert data['input_shape'] == [1, 3, 20, 26] and data['uncounted'] == {'aten::add': 3}
    assert data['layers'][1]['keep_ratio'] == 0.5 and 'geometry' not in data['layers'][1]
    assert sum(kind['bops'] for kind in data['by_kind'].values()) == data['total']['bops']


def test_table(report):
    lines = str(report).splitlines()
    assert lines[0].split('  ')[0] == 'layer' and lines[1] == lines[6] == '-' * len(lines[1])
    assert lines[3].split()[:6] == ['point', 'wcc', '1', '8', '4', '0.5']
    assert [line.split()[0] for line in lines[7:12]] == ['dense', 'quantized', 'wcc', 'transform', 'total']
    assert max(map(len, lines[:12])) == len(lines[0]) and lines[12] == report.summary()
    assert lines[13] == "input 1x3x20x26; convention 'exact'; full precision counts as 32 bits"
    assert lines[14] == 'elementwise, not in the figures above: batch_norm 5.000 M'
    assert lines[15] == 'not counted: aten::add 3x'
    assert lines[16] == 'not reached by this input, parameters not counted: head'
