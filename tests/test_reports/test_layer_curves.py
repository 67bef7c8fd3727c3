"""Statistics of layers as curves, from runs that recorded groups and runs that recorded layers."""

import math

from mmwcc.reports.layer_curves import Spread, layer_curves
from mmwcc.reports.run_logs import Curve

KINDS = dict(a='QuantConv2d', b='QuantConv2d', c='WaveletCompressedConv2d')


def test_recorded_groups():
    scalars = {
        f'compression/act_sqnr/head/{part}': Curve([10, 20], values)
        for part, values in dict(mean=[2.0, 3.0], min=[1.0, 1.5], max=[4.0, math.nan]).items()
    }
    assert layer_curves(scalars, KINDS) == {
        ('compression', 'act_sqnr'): {
            'head': [(10, Spread(2.0, 1.0, 4.0)), (20, Spread(3.0, 1.5, 3.0))]
        }
    }


def test_layers_of_older_runs_are_grouped_by_kind():
    scalars = {
        'compression_val/act_sqnr/a': Curve([1], [10.0]),
        'compression_val/act_sqnr/b': Curve([1], [20.0]),
        'compression_val/act_sqnr/c': Curve([1], [5.0]),
        'compression_val/act_sqnr/gone': Curve([1], [7.0]),
        'compression/keep_ratio': Curve([1], [0.5]),
        'cost/macs': Curve([1], [1.0]),
    }
    assert layer_curves(scalars, KINDS) == {
        ('compression_val', 'act_sqnr'): {
            'QuantConv2d': [(1, Spread(15.0, 10.0, 20.0))],
            'WaveletCompressedConv2d': [(1, Spread(5.0, 5.0, 5.0))],
            'all layers': [(1, Spread(7.0, 7.0, 7.0))],
        }
    }
