"""Table and figure of a ladder."""

import csv

import pytest

from mmwcc.ladder import draw_ladder, ladder_table
from mmwcc.reports.tradeoff import TradeoffPoint


def test_table_by_hand():
    points = [
        TradeoffPoint(
            'wcc',
            'WCC 8/8',
            '25 %',
            2e9,
            1e8,
            (40.0, 44.0),
            ('w/wcc_seed0', 'w/wcc_seed1'),
            (8, 16),
            True,
        ),
        TradeoffPoint('dense', 'dense', '', 8e9, 0, (41.5,), ('w/dense',), (8, 16)),
    ]
    table = ladder_table(points, 'mIoU', {'w/wcc_seed0': 9.6, 'w/wcc_seed1': 10.0, 'w/dense': 0.4})
    assert table.split('\n')[2:] == [
        '| wcc | WCC 8/8 | 25 % | 2 | 42 ± 2 | 2 | 20 | yes |',
        '| dense | dense |  | 8 | 41.5 | 1 | 0 |  |',
    ]


def test_of_a_run(start, tmp_path):
    run = start(
        ("dict(name='ptq',", "dict(name='ptq', series='untrained',"),
        seeds=(0, 1),
        only=['dense', 'quant', 'ptq'],
    )
    run.run()
    table = draw_ladder(run.ladder, tmp_path / 'work', run.records())
    lines = [
        [cell.strip() for cell in line.strip('|').split('|')] for line in table.split('\n')[2:]
    ]
    assert [line[:3] for line in lines] == [
        ['ptq', 'untrained', '25 %'],
        ['quant', 'quantized', '8/8'],
        ['dense', 'dense', ''],
    ]
    assert [line[5] for line in lines] == ['1', '2', '1']
    with (tmp_path / 'work' / 'tradeoff.csv').open() as file:
        assert {row['config'] for row in csv.DictReader(file)} == {'dense', 'quant', 'ptq'}
    assert (tmp_path / 'work' / 'tradeoff.png').stat().st_size > 5000
    for config in (tmp_path / 'work' / 'quant_seed1').rglob('*.py'):
        config.write_text(config.read_text() + "\nmodel['type'] = 'NoSuchModel'\n")
    table = draw_ladder(run.ladder, tmp_path / 'work', run.records())
    assert '| quant | quantized | 8/8 |' in table and '| 1 |' in table
    assert table.split('\n')[-1].startswith(
        'quant_seed1 was left out: The model could not be built'
    )


def test_nothing_measured(tmp_path):
    logs = tmp_path / 'quant' / '20260101_000000' / 'vis_data'
    logs.mkdir(parents=True)
    (logs / 'config.py').write_text('model = None\n')
    (logs / 'scalars.json').write_text('{"loss": 1.0, "iter": 1, "step": 1}\n')
    with pytest.raises(ValueError, match='must have a metric, got none. Test them first'):
        draw_ladder(None, tmp_path, dict(quant={}))


def test_nothing_finished(tmp_path):
    with pytest.raises(ValueError, match='must hold a finished point, got none'):
        draw_ladder(None, tmp_path, {})
