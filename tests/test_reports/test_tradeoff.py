"""Points of accuracy against cost: how networks are called, joined, compared, written and drawn."""

import csv
import math
from types import SimpleNamespace

import pytest

pytest.importorskip('mmengine')
from mmwcc.model_tree import CompressionReport, LayerReport
from mmwcc.reports.model_facts import ModelFacts  # noqa: E402
from mmwcc.reports.run_files import Evaluation  # noqa: E402
from mmwcc.reports.run_logs import Curve  # noqa: E402
from mmwcc.reports.tradeoff import (  # noqa: E402
    TradeoffPoint,
    describe,
    gather_points,
    write_tradeoff,
)
from mmwcc.reports.work_dirs import WorkDir  # noqa: E402


def layers(*settings):
    return CompressionReport(
        LayerReport('layer', 'Conv2d 1x1', 'any', *setting) for setting in settings
    )


def trained(config, values, bops, *settings, seed=0, tests=(), size=(8, 16)):
    """Return a work folder with a validation curve, and the facts of its model."""
    folder = WorkDir(
        f'{config}-{seed}',
        None,
        config,
        metrics=dict(mIoU=Curve(list(range(len(values))), list(values))),
        tests=[Evaluation('time', dict(mIoU=value)) for value in tests],
    )
    amounts = dict(total_bops=bops, transform_bops=bops / 10)
    total = SimpleNamespace(to_dict=lambda: amounts)
    cost = SimpleNamespace(total=total, convention='exact', input_shape=(1, 3, *size))
    return folder, ModelFacts(layers(*settings), cost)


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ([(32, 32), (32, 32)], ('dense', '')),
        ([(32, 32), (8, 4), (8, 8), (8, 8)], ('quantized', '8/8')),
        ([(32, 32), (4, 8), (8, 8, 0.25), (8, 8, 0.25)], ('WCC 8/8', '25 %')),
        ([(8, 8, 0.125), (8, 8, 0.125), (8, 6, 0.5)], ('WCC 8/8', 'mostly 12.5 %')),
        ([(32, 32, 0.5)], ('WCC 32/32', '50 %')),
    ],
)
def test_networks_are_called_by_most_of_their_layers(settings, expected):
    assert describe(layers(*settings)) == expected


def test_seeds_are_joined_and_the_front_is_found():
    pairs = [
        trained('wcc', [40, 50], 100, (8, 8, 0.5), seed=0),
        trained('wcc', [56], 100, (8, 8, 0.5), seed=1),
        trained('dense', [60], 1000),
        trained('worse', [52], 200, (8, 8)),
        trained('equal', [53], 100, (8, 6)),
    ]
    points = gather_points(*zip(*pairs, strict=True), 'mIoU')
    assert [(point.config, point.pareto) for point in points] == [
        ('wcc', True),
        ('equal', True),
        ('worse', False),
        ('dense', True),
    ]
    wcc = points[0]
    assert (wcc.values, wcc.mean, wcc.error) == ((50, 56), 53, pytest.approx(3.0))
    assert (wcc.family, wcc.label, wcc.bops, wcc.transform_bops) == ('WCC 8/8', '50 %', 100, 10)
    assert wcc.work_dirs == ('wcc-0', 'wcc-1') and points[3].error is None


def test_smaller_can_be_better():
    pairs = [trained('a', [2], 10), trained('b', [1], 20), trained('c', [3], 30)]
    points = gather_points(*zip(*pairs, strict=True), 'mIoU', larger=False)
    assert [point.pareto for point in points] == [True, True, False]


def test_which_value_counts():
    pair = trained('a', [40, 50, 45], 10, tests=[48])
    assert {
        which: gather_points(*([part] for part in pair), 'mIoU', which)[0].mean
        for which in ('result', 'last', 'best')
    } == dict(result=48, last=45, best=50)


def test_folders_without_metric_or_cost_are_left_out():
    folder, facts = trained('a', [40], 10)
    other, unknown = trained('b', [math.nan], 10)
    points = gather_points([folder, other, folder], [facts, unknown, ModelFacts()], 'mIoU')
    assert [point.work_dirs for point in points] == [('a-0',)]
    with pytest.raises(
        ValueError, match="must have the metric 'mIoU' and a cost, got none with both"
    ):
        gather_points([folder], [ModelFacts()], 'mIoU')


def test_costs_of_images_of_different_sizes_are_refused():
    pairs = [trained('a', [40], 10), trained('b', [50], 20, size=(4, 4))]
    with pytest.raises(ValueError, match='of one size, got a-0 for images of 8x16, b-0 for .* 4x4'):
        gather_points(*zip(*pairs, strict=True), 'mIoU')
    assert gather_points(*zip(*pairs[1:], strict=True), 'mIoU')[0].image == (4, 4)


@pytest.mark.parametrize(
    ('metric', 'which', 'message'),
    [
        ('mIoU', 'first', "which must be one of result, last, best, got 'first'"),
        ('energy', 'last', "whether larger values of 'energy' are better"),
    ],
)
def test_what_cannot_be_compared_is_refused(metric, which, message):
    folder, facts = trained('a', [40], 10)
    with pytest.raises(ValueError, match=message):
        gather_points([folder], [facts], metric, which)


@pytest.fixture
def points():
    return [
        TradeoffPoint(
            'k25', 'WCC 8/8', '25 %', 2.5e9, 5e8, (50.0, 52.0), ('a', 'b'), (8, 16), True
        ),
        TradeoffPoint('k50', 'WCC 8/8', '50 %', 5e9, 5e8, (53.0,), ('c',), (8, 16), True),
        TradeoffPoint('q', 'quantized', '8/4', 5e9, 0, (20.0,), ('d',), (8, 16)),
        TradeoffPoint('d', 'dense', '', 2e11, 0, (60.0,), ('e',), (8, 16), True),
    ]


def test_table(points, tmp_path):
    write_tradeoff(points, 'mIoU', tmp_path / 't.csv')
    with (tmp_path / 't.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == dict(
        config='k25',
        family='WCC 8/8',
        label='25 %',
        bops='2500000000',
        transform_bops='500000000',
        mIoU='51',
        standard_error='1',
        runs='2',
        image='8x16',
        pareto='1',
        work_dirs='a b',
    )
    assert rows[2]['standard_error'] == '' and rows[2]['pareto'] == '0'
