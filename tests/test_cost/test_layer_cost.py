"""Costs of a layer: dense, quantized, compressed, and at other bits and keep ratios."""

import pytest

from mmwcc.cost.layer_cost import Geometry, LayerCost, Map

SIZE, WEIGHTS = (10, 13), 6 * 4
MACS = WEIGHTS * 130
PADDED = 16 * 16
POINTWISE = Geometry((Map(MACS, 6 * 130, 1, SIZE),), weights=WEIGHTS, biases=4, pointwise=(6, 4))
PAPER = Geometry(
    (Map(MACS, 6 * 130, 1, SIZE),), 'paper', weights=WEIGHTS, biases=4, pointwise=(6, 4)
)
SPATIAL = Geometry((Map(9 * MACS, 6 * 130, 1, SIZE),), weights=9 * WEIGHTS)


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
    assert LayerCost.of('a', POINTWISE, 8, 4, 0.5) == LayerCost.of('a', POINTWISE).at(8).at(
        act_bits=4
    ).at(keep_ratio=0.5)
    assert LayerCost.of('a', POINTWISE, 8, 4, 0.5).at() == LayerCost.of('a', POINTWISE, 8, 4, 0.5)


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (
            dict(keep_ratio=0.5),
            ValueError,
            'LayerCost: keep_ratio of a must be None, got 0.5. Only 1x1 convolutions',
        ),
        (dict(keep_ratio=1.5), ValueError, r'LayerCost: keep_ratio must be in \(0, 1\], got 1.5'),
        (dict(keep_ratio='half'), TypeError, 'LayerCost: keep_ratio must be a number'),
        (
            dict(weight_bits=1),
            ValueError,
            r'LayerCost: weight_bits of a must be in 2 \.\.\. 16, or 32 .* got 1',
        ),
        (dict(act_bits=24), ValueError, 'act_bits of a must be in'),
    ],
)
def test_refusals(change, error, message):
    with pytest.raises(error, match=message):
        LayerCost.of('a', SPATIAL).at(**change)
