"""Groups of layers, and the names of their scalars."""

import pytest

from mmwcc.diagnostics import ScalarName, group_of, group_scalars, parse_scalar


@pytest.mark.parametrize(
    ('layer', 'stage'),
    [
        ('backbone.layer2.0.conv1', 'backbone.layer2'),
        ('backbone.layers.12.conv.0', 'backbone.layers.12'),
        ('backbone.stages.0', 'backbone.stages.0'),
        ('backbone.conv1', 'backbone.conv1'),
        ('backbone.stem.conv.conv', 'backbone'),
        ('decode_head.convs.0.conv', 'decode_head'),
        ('neck.lateral_convs.0.conv', 'neck'),
        ('point', 'point'),
    ],
)
def test_stages(layer, stage):
    assert group_of(layer, 'QuantConv2d', 'stage') == stage
    assert group_of(layer, 'QuantConv2d', 'kind') == 'QuantConv2d'
    assert group_of(layer, 'QuantConv2d', 'layer') == layer


def test_mean_and_range_of_each_group():
    measured = dict(a=dict(x=1.0, y=5.0), b=dict(x=4.0), c=dict(x=9.0))
    scalars = group_scalars('compression_val', measured, dict(a='one', b='one', c='two'))
    assert scalars == {
        'compression_val/x/one/mean': 2.5,
        'compression_val/x/one/min': 1.0,
        'compression_val/x/one/max': 4.0,
        **{f'compression_val/x/two/{part}': 9.0 for part in ('mean', 'min', 'max')},
        **{f'compression_val/y/one/{part}': 5.0 for part in ('mean', 'min', 'max')},
    }


@pytest.mark.parametrize(
    'parts',
    [
        ('compression', 'act_sqnr', 'backbone.conv1', None),
        ('compression_val', 'act_sqnr', 'QuantConv2d', 'max'),
        ('compression', 'act_sqnr', 'a/b', 'mean'),
    ],
)
def test_names_can_be_taken_apart(parts):
    assert parse_scalar(str(ScalarName(*parts))) == parts


def test_other_scalars_are_none_of_these():
    assert parse_scalar('compression/keep_ratio') is None
    assert parse_scalar('cost/macs/total') is None and parse_scalar('loss') is None
