"""tools/analysis_tools/plot_tradeoff.py."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip('mmengine')

ROOT = Path(__file__).parents[2]
CONFIG = """
randomness = dict(seed=0)
test_dataloader = dict(dataset=dict(img_scale=(32, 32)))
model = dict(
    data_preprocessor=dict(type='mmwcc.ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(type='mmwcc.WaveletNetCifar', depth=4, widths=(8, 16, 32), kappa=(0, 3, 3)),
    neck=dict(type='mmwcc.GlobalAveragePooling'),
    head=dict(type='mmwcc.LinearClsHead', num_classes=10, in_channels=32))
"""
DENSE = "model['type'] = 'mmwcc.ImageClassifier'\n"
COMPRESSED = """model.update(type='mmwcc.CompressedModel', task_type='mmwcc.ImageClassifier',
    compression=dict(
    pointwise=dict(type='mmwcc.WaveletCompressedConv2d', keep_ratio=0.25),
    weight_quant=dict(type='mmwcc.LearnedClipWeightQuantizer', bits=8),
    act_quant=dict(type='mmwcc.LearnedClipActQuantizer', bits=8)))
"""


@pytest.fixture(scope='module')
def tool():
    path = ROOT / 'tools' / 'analysis_tools' / 'plot_tradeoff.py'
    spec = importlib.util.spec_from_file_location('plot_tradeoff', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_training(folder: Path, config: str, model: str, accuracy: float) -> str:
    """Write what a training of mmengine leaves behind."""
    log = folder / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True)
    for file in (folder / f'{config}.py', log / 'config.py'):
        file.write_text(CONFIG + model)
    entries = [
        dict(lr=0.1, loss=1.0, epoch=1, iter=10, step=10),
        {'accuracy/top1': accuracy, 'data_time': 0.1, 'time': 0.2, 'step': 1},
    ]
    (log / 'scalars.json').write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    return str(folder)


def test_dense_and_compressed_networks(tool, tmp_path, capsys):
    folders = [
        write_training(tmp_path / 'dense', 'dense', DENSE, 80.0),
        write_training(tmp_path / 'seed0', 'wcc', COMPRESSED, 70.0),
        write_training(tmp_path / 'seed1', 'wcc', COMPRESSED, 72.0),
        write_training(
            tmp_path / 'broken', 'broken', "model['type'] = 'mmwcc.NoSuchModel'\n", 90.0
        ),
    ]
    out = tmp_path / 'new' / 'folder'
    tool.main([*folders, '--out-dir', str(out), '--title', 'a title'])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == '| network | | G BOPs, 32x32 | accuracy/top1 | runs | Pareto front |'
    assert lines[2].startswith('| WCC 8/8 | 25 % | ') and lines[2].endswith(' | 71 ± 1 | 2 | yes |')
    assert lines[3].startswith('| dense |  | ') and lines[3].endswith(' | 80 | 1 | yes |')
    assert f'left out {tmp_path / "broken"}: The model could not be built' in printed.err
    assert (out / 'tradeoff.png').read_bytes().startswith(b'\x89PNG')
    with (out / 'tradeoff.csv').open(newline='') as file:
        compressed, dense = csv.DictReader(file)
    assert (
        0 < float(compressed['transform_bops']) < float(compressed['bops']) < float(dense['bops'])
    )


def test_larger_inputs_cost_more(tool, tmp_path, capsys):
    folder = write_training(tmp_path / 'dense', 'dense', DENSE, 80.0)
    costs = []
    for name, shape in (('small', []), ('large', ['--shape', '64', '32'])):
        tool.main([folder, '--out-dir', str(tmp_path / name), *shape])
        costs.append(
            float((tmp_path / name / 'tradeoff.csv').read_text().splitlines()[1].split(',')[3])
        )
    assert 1.9 < costs[1] / costs[0] < 2.01


def test_test_images_of_different_sizes(tool, tmp_path, capsys):
    """All costs are for the size of the first network."""
    small = write_training(tmp_path / 'small', 'small', DENSE, 80.0)
    large = write_training(tmp_path / 'large', 'large', DENSE, 85.0)
    for file in (tmp_path / 'large').rglob('*.py'):
        file.write_text(file.read_text().replace('(32, 32)', '(64, 64)'))
    (tmp_path / 'empty').mkdir()
    tool.main([small, large, str(tmp_path / 'empty'), '--out-dir', str(tmp_path / 'plot')])
    printed = capsys.readouterr()
    assert '| G BOPs, 32x32 |' in printed.out and 'left out' in printed.err
    with (tmp_path / 'plot' / 'tradeoff.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert {row['image'] for row in rows} == {'32x32'} and rows[0]['bops'] == rows[1]['bops']


def test_what_cannot_be_plotted_is_one_line(tool, tmp_path):
    with pytest.raises(
        SystemExit,
        match='plot_tradeoff: at least one work folder .* got none. .*missing: It does not',
    ):
        tool.main([str(tmp_path / 'missing')])
    folder = write_training(tmp_path / 'dense', 'dense', DENSE, 80.0)
    with pytest.raises(
        SystemExit, match="plot_tradeoff: .*metric must be one of accuracy/top1, got 'mIoU'"
    ):
        tool.main([folder, '--metric', 'mIoU'])


def test_a_run_without_the_metric_is_left_out_for_that_reason(tool, tmp_path, capsys):
    """Even if its images have another size."""
    folders = [write_training(tmp_path / name, name, DENSE, 80.0) for name in ('a', 'b', 'c')]
    log = tmp_path / 'b' / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.write_text(log.read_text().replace('accuracy/top1', 'accuracy/top5'))
    for file in (tmp_path / 'b').rglob('*.py'):
        file.write_text(file.read_text().replace('(32, 32)', '(64, 64)'))
    log = tmp_path / 'c' / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.write_text(log.read_text().replace('80.0', 'NaN'))
    tool.main([*folders, '--metric', 'accuracy/top1', '--out-dir', str(tmp_path / 'plot')])
    assert [line for line in capsys.readouterr().err.splitlines() if 'left out' in line] == [
        f'left out {tmp_path / "b"}: It has no accuracy/top1, but accuracy/top5.',
        f'left out {tmp_path / "c"}: Its accuracy/top1 is nan.',
    ]


def test_tested_runs_have_no_best_validation(tool, tmp_path, capsys):
    folders = [write_training(tmp_path / name, name, DENSE, 80.0) for name in ('a', 'b')]
    run = tmp_path / 'b' / '20260101_000000'
    (run / 'vis_data' / 'scalars.json').write_text('')
    (run / f'{run.name}.json').write_text(json.dumps({'accuracy/top1': 81.0}))
    tool.main([*folders, '--which', 'best', '--out-dir', str(tmp_path / 'plot')])
    assert f'{tmp_path / "b"}: It was tested, but no validation' in capsys.readouterr().err
